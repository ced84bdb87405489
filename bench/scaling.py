"""Steps to a loss, by the size of the batch

How many steps of plain SGD the network of [04_convolutions](04_convolutions.ipynb) needs until its loss on 500 validation images is 0.25, for batches of 4 to 256 images of MNIST: what the gradient noise scale of [11b_scaling](11b_scaling.ipynb) predicts, by
$S = S_{min}(1+B/b)$, a straight line in $1/b$.

Each size of the batch has its own learning rate, the one with the fewest steps over two seeds on a grid in which each rate is the one before times the root of two, which is continued where the best one lies at an end. The seeds of the figures had no part in that; the validation images, the same, had. The images of a batch are drawn
anew for each step, with replacement, as the derivation has it. The validation loss is looked at once a running mean of the batches' losses is below 0.6, and then after each twentieth part more steps, so a figure may be that much too high; and a validation loss that jumps about, as that of a small batch does, reaches a mark sooner than its mean would. A training that hasn't arrived after half as many steps
again as the best mean so far counts with these.

Then the noise scale itself, along the trainings with batches of 64: from the gradients of 2,000 training images, one by one, before the first step and when the validation loss has fallen to 1, to 0.5 and to the mark. The figure for each seed is a ratio of two estimates, which is too high on average; the notebook divides their means.
"""
import math

BATCHES, TARGET, MARKS, SEEN = (4, 8, 16, 32, 64, 128, 256), .25, (1., .5, .25), 64
TUNING, SEEDS, MOST, EXAMPLES = (0, 1), tuple(range(2, 7)), 4, 2000
MICRO, CLOSE = 125, .6  # images that go through the network at once; running loss from which validation is looked at

def images(n=None):
    "Training images and classes, and 500 of validation"
    from notes.data import get_data
    from notes.fully_connected import normalize
    x, y, xv, yv = get_data()
    xv, x = (normalize(t, x.mean(), x.std()).view(-1, 1, 28, 28) for t in (xv[:500], x))
    return x[:n], y[:n], xv, yv[:500]

def looks(step): return step == 1 or int(math.log(step, 1.05)) > int(math.log(step-1, 1.05))

def steps_to(sets, batch, lr, seed, most, at=None):
    "Steps until the validation loss is TARGET, at most `most`; `at(net)` is called before the first and at each of MARKS"
    import torch
    import torch.nn.functional as F
    from notes.exports import set_seed
    from .conv import torch_cnn
    x, y, xv, yv = sets
    set_seed(seed)
    net, marks, mean, draw = torch_cnn(), [*MARKS], 0., torch.Generator().manual_seed(seed)
    opt = torch.optim.SGD(net.parameters(), lr)
    if at: at(net)
    for step in range(1, most+1):
        ix = torch.randint(len(x), (batch,), generator=draw)
        opt.zero_grad()
        losses = [F.cross_entropy(net(x[part]), y[part], reduction='sum')/batch for part in ix.split(MICRO)]
        sum(losses).backward()
        opt.step()
        mean += max(.1, 1/step)*(sum(l.item() for l in losses)-mean)
        if not mean < 100: return most  # or it is no number
        if not looks(step) or not at and mean > CLOSE: continue
        with torch.no_grad(): loss = sum(F.cross_entropy(net(a), c, reduction='sum').item() for a, c in zip(xv.split(MICRO), yv.split(MICRO)))/len(xv)
        if at:
            while marks and loss <= marks[0]:
                at(net)
                marks.pop(0)
        if loss <= TARGET: return step
    return most

def rate(k): return .2*2**(k/2)
def begin(batch):
    "Where the grid begins: the theory's form, with constants from a first try"
    return round(2*math.log2(.3/(1+40/batch)/.2))

def tuned(f, k, most=MOST):
    "{k: steps for the seeds} around `k`, continued where the best one lies at an end; and the best"
    seen, ks = {}, [k, k+1, k-1]
    for _ in range(most+1):
        for k in ks:
            if k not in seen:
                least = min((sum(v)/len(v) for v in seen.values()), default=math.inf)
                seen[k] = [f(k, seed, least) for seed in TUNING]
        best = min(seen, key=lambda k: sum(seen[k]))
        if best not in (min(seen), max(seen)): break
        ks = [best-1, best+1]
    return seen, best

def noise(sets, lr, seed, most, n=EXAMPLES):
    "[noise, signal] before training and at each of MARKS, in one training with batches of SEEN"
    import torch.nn.functional as F
    from notes.scaling import example_noise
    found = []
    steps_to(sets, SEEN, lr, seed, most, lambda net: found.append(example_noise(net, F.cross_entropy, *(t[:n] for t in sets[:2]))))
    return found

def run(b):
    import torch
    torch.set_num_threads(b.threads)
    sets = images(500 if b.quick else None)
    first, last = (30, 20) if b.quick else (4000, 4000)
    batches, seeds, at = (16, 64) if b.quick else BATCHES, SEEDS[:2] if b.quick else SEEDS, {}
    group = f'steps to a validation loss of {TARGET}'
    for batch in batches:
        def f(k, seed, least):
            most = int(min(first, 1.5*least))
            return b.once(f'batch {batch}, {rate(k):g}, seed {seed}, at most {most}', lambda: steps_to(sets, batch, rate(k), seed, most))
        grid, best = tuned(f, begin(batch), 0 if b.quick else MOST)
        for k in sorted(grid): b.keep(f'{group}, tuning', f'batch {batch} at {rate(k):.3g}', 'steps', grid[k], values=grid[k], seeds=TUNING, batch=batch, lr=rate(k))
        at[batch] = rate(best)
        values = [b.once(f'batch {batch}, {rate(best):g}, seed {seed}', lambda: steps_to(sets, batch, rate(best), seed, last)) for seed in seeds]
        b.keep_seeds(group, f'batch {batch}', 'steps', values, seeds, batch=batch, lr=rate(best))
    found = [b.once(f'noise, seed {seed}', lambda: noise(sets, at[SEEN], seed, last, 100 if b.quick else EXAMPLES)) for seed in seeds]
    for i, mark in enumerate((None, *MARKS)):
        got = [v[i] for v in found if len(v) > i]
        if len(got) < len(seeds): continue
        name = f'at a validation loss of {mark:g}' if mark else 'before training'
        b.keep_seeds('gradient noise scale', name, 'digits', [n/s for n, s in got], seeds, noise=[n for n, _ in got], signal=[s for _, s in got])

ALT = "Steps to a loss against the size of the batch, both axes logarithmic: a small dot for each seed, their mean with its interval, and the curve that fits them. It falls with the batch at first, nearly as fast, and then levels off. Beside it the gradient noise scale, a row for each moment of the training, with a small dot for each seed: it falls at first, and then rises far beyond where it began."
def draw(d, fig):
    "The steps with the fitted curve; the noise scale along the training"
    from notes.scaling import fit_line
    left, right = fig.subplots(1, 2)
    fig.set_size_inches(7, 3)
    rows = [f['steps'] for g, fs in d.items() if g.startswith('steps') and not g.endswith('tuning') for f in fs.values()]
    sizes, means = [f['batch'] for f in rows], [f['mean'] for f in rows]
    for f in rows: left.plot([f['batch']]*len(f['values']), f['values'], 'o', color='C4', ms=2)
    left.errorbar(sizes, means, yerr=[f['half'] or 0 for f in rows], fmt='o', color='C0', capsize=3)
    least, slope = fit_line([1/b for b in sizes], means)
    left.plot(sizes, [least+slope/b for b in sizes], '--', color='C1')
    left.set(xscale='log', yscale='log', xlabel='images in a batch', ylabel='steps')
    left.set_xticks(sizes, sizes)
    left.minorticks_off()
    rows = {k: f['digits'] for k, f in d['gradient noise scale'].items()}
    right.plot([sum(f['noise'])/sum(f['signal']) for f in rows.values()], range(len(rows)), 'o', color='C0')  # the ratio of the means
    for i, f in enumerate(rows.values()): right.plot(f['values'], [i]*len(f['values']), 'o', color='C4', ms=2)
    right.set_yticks(range(len(rows)), list(rows))
    right.set(xscale='log', xlabel='gradient noise scale (digits)')
    right.invert_yaxis()

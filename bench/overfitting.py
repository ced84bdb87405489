"""What helps against overfitting

One network is trained on a thousand images of Fashion-MNIST, and each of the five steps of [10_overfitting](10_overfitting.ipynb) is taken alone, then all together. The network has two convolutions with stride 2 and two linear layers, no normalisation, and learns with Adam at one rate, with 2,000 batches of 50 images. Whatever is changed,
the number of steps stays, so that ten times the images are not ten times the training. A seed chooses which of the 50,000 training images the thousand are, the first weights, and the order; the same for all rows, and rows are compared seed by seed. Accuracy and loss (cross-entropy, without smoothing, whatever was trained with) are those on the 10,000 validation images
at the end of the training, not at its best moment, but for the row that stops early.

How strong a step is (which decay, which share of dropout, which changes of the images) was chosen by accuracy on the validation images with two seeds that aren't among those of the figures; *tuning* shows what there was to choose from. All changes of the images that were tried mirror them, too, which turned out to harm: so a row that only moves them was added when all others were known, with nothing to choose, and has no part in *all together*. The test images are opened once, at the end, for the first row and the last.

*Width* is the fifth step: the same network with fewer or more channels and units, and a network of one hidden layer, also with a fifth of its labels wrong, where a second descent of the error beyond the width that can learn everything by heart might show.
"""
SEEDS, TUNING, FEW = (2, 3, 4, 5, 6), (0, 1), (2, 3, 4)
N, BATCH, STEPS, LR = 1000, 50, 2000, 1e-3
EVERY, OFTEN = 200, 50  # steps between two looks at the losses
BASE = dict(net='cnn', n=N)
# Step -> {row: what differs from the first row}; of TRIED, the best of each step on the validation images of the seeds TUNING
DATA = {f'{n:,} images': dict(n=n) for n in (2000, 5000, 10_000, 50_000)}
CHANGES = {'mirrored': ['flip'], 'mirrored, moved': ['flip', 'shift'], 'mirrored, moved, erased': ['flip', 'shift', 'erase'], 'mirrored, turned, sized': ['flip', 'affine']}
NETS = {'no convolution': dict(net='mlp'), 'batch norm': dict(net='norm'), 'mean over positions': dict(net='pool'), 'residual network': dict(net='resnet')}
TRIED = {'augmentation': {k: dict(augment=v) for k, v in CHANGES.items()},
         'weight decay': {f'weight decay {d:g}': dict(decay=d) for d in (.1, .3, 1., 3.)},
         'dropout': {f'dropout {p:g}': dict(dropout=p) for p in (.25, .5, .75)},
         'label smoothing': {f'label smoothing {s:g}': dict(smooth=s) for s in (.05, .1, .2, .4)}}
LATER = {'moved, added later': dict(augment=['shift'])}
OTHER = {'early stopping': dict(stop=True, every=OFTEN), 'averaged weights': dict(mean=True)}
WIDTHS = (1/16, 1/8, 1/4, 1/2, 2)
FIRST = {}  # the first row: all as `train` has it
HIDDEN, NOISE = (2, 4, 8, 16, 24, 32, 48, 64, 128, 256, 1024), .2

def network(net, width, dropout):
    "A network of PyTorch's layers; the number of hidden units for an integer `net`"
    from torch import nn
    from notes.resnet import TORCH, resnet
    if isinstance(net, int): return nn.Sequential(nn.Flatten(), nn.Linear(784, net), nn.ReLU(), nn.Linear(net, 10))
    if net == 'mlp': return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(dropout), nn.Linear(512, 10))
    if net == 'resnet': return resnet((8, 16, 32, 64), of=TORCH)
    a, b, c = (round(width*k) for k in (32, 64, 128))
    norm = (lambda k: [nn.BatchNorm2d(k)]) if net == 'norm' else lambda k: []
    body = [nn.Conv2d(1, a, 3, 2, 1), *norm(a), nn.ReLU(), nn.Conv2d(a, b, 3, 2, 1), *norm(b), nn.ReLU()]
    if net == 'pool': return nn.Sequential(*body, nn.Conv2d(b, 4*b, 3, 1, 1), nn.ReLU(), TORCH.GlobalAvgPool(), nn.Dropout(dropout), nn.Linear(4*b, 10))
    return nn.Sequential(*body, nn.Flatten(), nn.Dropout(dropout), nn.Linear(b*49, c), nn.ReLU(), nn.Dropout(dropout), nn.Linear(c, 10))

class Stream:
    "`steps` batches, each time that it is gone through, of images that are shuffled anew when all have had their turn"
    def __init__(self, x, y, batch, steps, seed):
        import torch
        self.x, self.y, self.batch, self.steps, self.generator, self.left = x, y, batch, steps, torch.Generator().manual_seed(seed), []
    def __len__(self): return self.steps
    def __iter__(self):
        import torch
        for _ in range(self.steps):
            if not len(self.left): self.left = torch.randperm(len(self.x), generator=self.generator)
            i, self.left = self.left[:self.batch], self.left[self.batch:]
            yield self.x[i], self.y[i]

def images(n, seed, noise=0., quick=False):
    "`n` training images drawn by `seed`, normalised by themselves, a share of their labels wrong, and the validation images"
    import torch
    from notes.data import get_fashion
    from notes.fully_connected import normalize
    x, y, xv, yv = get_fashion()
    if quick: xv, yv = xv[:500], yv[:500]
    g = torch.Generator().manual_seed(seed)
    i = torch.randperm(len(x), generator=g)[:n]
    x, y = x[i], y[i].clone()
    wrong = torch.rand(n, generator=g) < noise
    y[wrong] = (y[wrong]+torch.randint(1, 10, (int(wrong.sum()),), generator=g)) % 10
    stats = x.mean(), x.std()
    shape = lambda t: normalize(t, *stats).view(-1, 1, 28, 28)
    return shape(x), y, shape(xv), yv, stats

def augment_with(names):
    "The callback that changes training images"
    from functools import partial
    from notes.augmentation import Augment, affine, erase, flip, shift
    fs = dict(flip=flip, shift=partial(shift, most=2), erase=partial(erase, p=.5, area=(.02, .2)), affine=partial(affine, degrees=10, scale=.1, shear=.1, shift=2))
    return Augment(*(fs[k] for k in names))

def look(model, x, y):
    "Mean cross-entropy, % right, and the outputs"
    import torch, torch.nn.functional as F
    training = model.training
    model.eval()
    with torch.no_grad(): out = torch.cat([model(xb) for xb in x.split(1000)])
    model.train(training)
    return F.cross_entropy(out, y).item(), 100*(out.argmax(1) == y).float().mean().item(), out

def train(seed, quick=False, test=None, net='cnn', n=N, width=1., decay=0., dropout=0., smooth=0., augment=(), stop=False, mean=False, noise=0., steps=STEPS, every=EVERY):
    """Train one network: losses and accuracies at the end, and their curve (step, training loss, % right, the same on the validation images)

    With `test`, images and labels, the % right of those, too.
    """
    import copy
    from functools import partial
    from torch import nn
    from notes.augmentation import AveragedWeights, ece
    from notes.exports import set_seed
    from notes.learner import Callback, Learner
    from notes.optimizers import AdamW
    from notes.training import softmax
    x, y, xv, yv, stats = images(n, seed, noise, quick)
    set_seed(seed)
    if quick: steps, every = 10, 5
    model, averaged = network(net, width, dropout), AveragedWeights(.995) if mean else None
    curve, best = [], [float('inf'), None]
    class Curve(Callback):
        "Notes the losses, and the weights that were best"
        order = 60
        def after_epoch(self):
            now = averaged.model if averaged else model
            row = [every*(1+len(curve)), *look(now, x[:10_000], y[:10_000])[:2], *look(now, xv, yv)[:2]]
            curve.append([round(v, 4) for v in row])
            if stop and row[3] < best[0]: best[:] = row[3], copy.deepcopy(now.state_dict())
    cbs = [augment_with(augment)]*bool(augment)+[averaged]*bool(averaged)+[Curve()]
    loss_func = nn.CrossEntropyLoss(label_smoothing=smooth)
    Learner(model, (Stream(x, y, BATCH, every, seed), None), loss_func, partial(AdamW, weight_decay=decay), LR, cbs).fit(steps//every)
    if averaged: model = averaged.model
    if stop: model.load_state_dict(best[1])
    loss, right, out = look(model, xv, yv)
    train_loss, train_right, _ = look(model, x[:10_000], y[:10_000])
    res = dict(loss=loss, right=right, train_loss=train_loss, train_right=train_right, ece=100*ece(softmax(out), yv), curve=curve, parameters=sum(p.numel() for p in model.parameters()))
    if test:
        from notes.fully_connected import normalize
        res['test'] = look(model, normalize(test[0], *stats).view(-1, 1, 28, 28), test[1])[1]
    return res

def run(b):
    import torch
    torch.set_num_threads(b.threads)
    short = lambda seeds: seeds[:1] if b.quick else seeds
    def rows(how, seeds): return [b.once(f'{how}, seed {s}', lambda: train(s, b.quick, **how)) for s in short(seeds)]
    def keep(group, name, how, seeds=SEEDS, **more):
        "Keep what `how` gives, and by how many points it is ahead of the first row; what it gave"
        got, one = rows(how, seeds), lambda k: [r[k] for r in got]
        more |= dict(how=how, parameters=got[0]['parameters'], train_loss=one('train_loss'), train_right=one('train_right'), ece=one('ece'), curves=one('curve'))
        b.keep_seeds(group, name, '%', one('right'), short(seeds), **more)
        b.keep_seeds(group, name, 'loss', one('loss'), short(seeds))
        if how and group == 'one step': b.keep_seeds(group, name, 'pp', [r['right']-f['right'] for r, f in zip(got, rows(FIRST, seeds))], short(seeds))
    def choose(options):
        "The name of the best of `options`, by the seeds that are there to choose with"
        got = {k: rows(how, TUNING) for k, how in options.items()}
        for k, rs in got.items(): b.keep_seeds('tuning', k, '%', [r['right'] for r in rs], short(TUNING), train_right=[r['train_right'] for r in rs])
        return max(got, key=lambda k: sum(r['right'] for r in got[k]))
    keep('one step', 'nothing', FIRST)
    for name, how in DATA.items(): keep('one step', name, how)
    choose({'nothing': FIRST})
    best = {step: choose(options) for step, options in TRIED.items()}
    part = {step: TRIED[step][name] for step, name in best.items()}
    keep('one step', best['augmentation'], part['augmentation'])
    for name, how in LATER.items(): keep('one step', name, how)
    for name, how in NETS.items(): keep('one step', name, how)
    for step in ('weight decay', 'dropout', 'label smoothing'): keep('one step', best[step], part[step])
    for name, how in OTHER.items(): keep('one step', name, how)
    every = {k: v for how in part.values() for k, v in how.items()} | dict(mean=True)
    best_all = choose({f'all, {name}': how for name, how in every_with(every).items()})
    every = every_with(every)[best_all.removeprefix('all, ')]
    keep('one step', 'all together', every)
    keep('one step', 'all together, four times as long', every | dict(steps=4*STEPS, every=4*EVERY))
    for w in (*WIDTHS[:-1], 1, WIDTHS[-1]): keep('width', f'{w:g} times', FIRST if w == 1 else dict(width=w), FEW, width=w)
    for noise in (0., NOISE):
        for h in HIDDEN[:2] if b.quick else HIDDEN: keep(f'hidden units, {noise:.0%} of labels wrong', f'{h}', dict(net=h, noise=noise, steps=2*STEPS, every=2*EVERY), FEW, width=h)
    if not b.quick:
        last = dict(every, steps=4*STEPS, every=4*EVERY)
        values, opened = b.once('test', lambda: test([FIRST, last]))
        for name, v in zip(('nothing', 'all together, four times as long'), values): b.keep_seeds('test', name, '%', v, SEEDS, opened=opened)

def every_with(every):
    "All steps together, on three networks: what one network hasn't (places for dropout) is left out there"
    without = {k: v for k, v in every.items() if k != 'dropout'}
    return {'two convolutions': every, 'batch norm': dict(every, net='norm'), 'batch norm, no dropout': dict(without, net='norm'), 'residual network': dict(without, net='resnet')}

def test(hows):
    "% of the test images read right by the networks of each way, one for each seed; and when they were opened"
    from datetime import datetime, timezone
    from notes.data import final_test_set
    images = final_test_set('fashion')
    return [[train(s, test=images, **how)['test'] for s in SEEDS] for how in hows], datetime.now(timezone.utc).isoformat(timespec='seconds')

ALT = "Above, for each step alone and for all together, the share of the validation images that is read right, and the loss: a small dot for each seed, and the mean with its interval. Below, the error of networks with one hidden layer over the number of its units, with right labels and with a fifth of them wrong."
def draw(d, fig):
    "The steps, accuracy and loss side by side; below, the error over the width"
    import numpy as np
    from notes.activations import mean_interval
    rows = d['one step']
    fig.set_size_inches(5.2, 8)
    top, bottom = fig.subfigures(2, 1, height_ratios=[4.6, 3.4])
    for ax, unit, label in zip(top.subplots(1, 2, sharey=True), ('%', 'loss'), ('% read right', 'loss')):
        for i, f in enumerate(r[unit] for r in rows.values()):
            ax.plot(f['values'], [i+.25]*len(f['values']), 'o', color='C4', ms=2, ls='')
            ax.errorbar(f['mean'], i-.1, xerr=f['half'] or 0, fmt='o', color='C0', ms=4, capsize=2)
        ax.axvline(rows['nothing'][unit]['mean'], color='C3', lw=.8, ls='--')
        ax.set(xlabel=label, ylim=(len(rows)-.5, -.7), yticks=range(len(rows)), yticklabels=[n.replace(', four', ',\nfour') for n in rows])
        ax.grid(axis='y', visible=False)
    ax = bottom.subplots()
    for i, (name, fs) in enumerate((g, fs) for g, fs in d.items() if g.startswith('hidden')):
        fs = [r['%'] for r in fs.values()]
        for right, line, what in (([f['values'] for f in fs], '-', 'validation'), ([f['train_right'] for f in fs], ':', 'training')):
            mean, half = np.transpose([mean_interval(v) if len(v) > 1 else (v[0], 0) for v in right])
            ax.errorbar([f['width'] for f in fs], 100-mean, half, fmt=f'{"os"[i]}{line}', color=f'C{i}', ms=4, capsize=2, label=f"{name.split(', ')[1]}, {what}")
    ax.set(xscale='log', xlabel='hidden units', ylabel='% read wrong')
    ax.legend(fontsize=9, loc='upper right')

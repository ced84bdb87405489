"""The finder's learning rate, beside the best of a grid

The finder of [05a_callbacks](05a_callbacks.ipynb) suggests a rate after a trial of 100 batches. Is it a good one? Two networks, untrained and after an epoch with SGD at a rate of 0.1, in batches of 16 and of 256, go on with SGD or Adam
for one epoch over 20,000 images: once with the suggestion, and once with each rate of a grid in which each is twice the one before. What counts is the loss on 5,000 validation images. The networks are 784 inputs, 50 hidden units and 10 outputs, and the convolutions with
which [05b_checkpoints](05b_checkpoints.ipynb) ends.

The best rate of the grid is the one whose loss is least in the mean over the seeds, and the suggestion's loss is divided by the best one's, seed by seed. Other rules are shown beside ours, on the same trials: the least smoothed loss and a part of its rate, the steepest fall of
the smoothed loss, the valley as fastai finds it, and what the finder did before its losses were smoothed, which stopped at the first loss of a batch over four times the least. Our rule was chosen on seeds 0 to 2 and 10 to 12; the figures are from the three seeds 3 to 5, which had no
part in that. A loss that is no number, or beyond 1,000, counts as 1,000.
"""
import itertools, math
SEEDS, IMAGES, VALID, TOP = (3, 4, 5), 20_000, 5_000, 1000.
GRID = {'SGD': [.005*2**i for i in range(9)], 'Adam': [.00025*2**i for i in range(9)]}
SETTINGS = list(itertools.product(('MLP', 'CNN'), ('SGD', 'Adam'), (16, 256), ('untrained', 'trained')))
OURS, BEST, BEFORE = 'ours', 'best of the grid', 'before it was smoothed'

# ---- Rules: a rate for a finder after its trial

def smoothed(finder):
    "Rates and smoothed losses"
    from notes.callbacks import _smoothed
    m, _ = _smoothed(finder._finite())
    return finder.lrs[2:2+len(m)], m

def least(part):
    def rule(finder):
        lrs, m = smoothed(finder)
        return lrs[m.argmin()]/part
    return rule

def steepest(finder):
    "In the middle of the ten batches over which the smoothed loss falls most"
    lrs, m = smoothed(finder)
    return lrs[(m[10:]-m[:-10]).argmin()+5] if len(m) > 10 else lrs[0]

def valley(finder):
    "Half-way along the middle third of the longest falling subsequence, of losses averaged as fastai does"
    losses, mean, smooth = finder._finite(), 0., []
    for i, l in enumerate(losses, 1):
        mean = .98*mean + .02*l
        smooth.append(mean/(1-.98**i))
    longest = []
    for i, s in enumerate(smooth): longest.append(1+max((n for n, before in zip(longest, smooth) if s < before), default=0))
    n, end = max(longest), longest.index(max(longest))
    return finder.lrs[max(0, end-n) + n//3 + n//6]

def before(finder):
    import numpy as np
    losses = finder._finite()
    stop = next((i for i, l in enumerate(losses, 1) if l > 4*min(losses[:i])), len(losses))
    if stop < 5: return finder.lrs[0]
    return finder.lrs[2+int(np.argmin(np.convolve(losses[:stop], np.ones(5)/5, 'valid')))]/10

RULES = {OURS: lambda finder: finder.suggestion, 'minimum ÷ 3': least(3), 'minimum ÷ 4': least(4), 'minimum ÷ 10': least(10), 'steepest fall': steepest,
         "valley, as fastai's": valley, BEFORE: before}

# ---- Settings

def datasets(images=None, valid=None):
    from notes.data import get_data
    from notes.fully_connected import normalize
    from notes.training import Dataset
    x, y, xv, yv = get_data()
    mean, std = x.mean(), x.std()
    return [Dataset(normalize(a[:n], mean, std).view(-1, 1, 28, 28), b[:n]) for a, b, n in ((x, y, images), (xv, yv, valid))]

def network(name):
    from torch import nn
    if name == 'MLP': return nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10))
    model = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))
    for p in model.parameters():
        if p.ndim > 1: nn.init.kaiming_normal_(p)
    return model

def starts(sets, setting, seed):
    "A function that gives a learner at the start of the epoch that counts, the same each time it is called"
    import copy
    import torch
    import torch.nn.functional as F
    import notes.callbacks  # gives Learner `lr_find`
    from notes.exports import set_seed
    from notes.learner import Learner, Metrics
    from notes.training import get_dls
    net, opt, batch, state = setting
    set_seed(seed)
    model, opt_func = network(net), getattr(torch.optim, opt)
    if state == 'trained': Learner(model, (get_dls(*sets, batch, seed=seed)[0], None), F.cross_entropy, torch.optim.SGD, .1).fit(1)
    return lambda: Learner(copy.deepcopy(model), get_dls(*sets, batch, seed=1000+seed), F.cross_entropy, opt_func, cbs=[Metrics()])

def loss(learner, lr):
    "Validation loss after an epoch at the rate `lr`"
    learner.fit(1, lr=lr)
    res = learner.metrics['valid_loss']
    return min(res, TOP) if math.isfinite(res) else TOP

def one(sets, setting, seed):
    "{rate of the grid: loss} and {rule: (rate, loss)}"
    start, seen = starts(sets, setting, seed), {}
    finder = start().lr_find()
    def at(lr):
        if lr not in seen: seen[lr] = loss(start(), lr)
        return seen[lr]
    return {lr: at(lr) for lr in GRID[setting[1]]}, {k: (lr, at(lr)) for k, lr in ((k, float(rule(finder))) for k, rule in RULES.items())}

def run(b):
    import torch
    torch.set_num_threads(b.threads)
    sets, every = datasets(*((2_000, 500) if b.quick else (IMAGES, VALID))), {}
    for setting in SETTINGS[::5] if b.quick else SETTINGS:
        runs = [one(sets, setting, seed) for seed in (SEEDS[:1] if b.quick else SEEDS)]
        name = ', '.join(map(str, setting))
        best = min(GRID[setting[1]], key=lambda lr: sum(grid[lr] for grid, _ in runs))
        rows = {k: [rules[k] for _, rules in runs] for k in RULES} | {BEST: [(best, grid[best]) for grid, _ in runs]}
        for k, row in rows.items():
            lrs, losses = zip(*row)
            ratios = [l/base for l, (_, base) in zip(losses, rows[BEST])]
            every.setdefault(k, []).extend(ratios)
            b.keep(name, k, 'rate', lrs)
            b.keep(name, k, 'loss', losses, each=losses)
            b.keep(name, k, '×', ratios)
            if k == OURS: b.aim(f'finder ÷ {BEST}: {name}', ratios, at_most=1.1)
    for k in RULES: b.aim(f'rule ÷ {BEST}, all settings and seeds: {k}', every[k])

ALT = "Validation loss over that of the grid's best rate, a row for each setting and a marker for each rule, on a logarithmic axis with lines at 1 and 1.1. Our markers lie near the left edge in most rows; others are farther right in many."
def draw(d, fig):
    "Loss over the best of the grid"
    ax = fig.subplots()
    fig.set_size_inches(5.2, 6)
    names = list(d)
    for k in (OURS, 'minimum ÷ 10', 'steepest fall', "valley, as fastai's", BEFORE):
        ax.semilogx([d[n][k]['×']['median'] for n in names], range(len(names)), ls='', label=k)
    for x in (1, 1.1): ax.axvline(x, color='.5', lw=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel('loss ÷ loss at the best rate of the grid', loc='right')
    ax.set_xlim(.9, 4)
    ax.set_xticks([1, 1.5, 2, 3], ['1', '1.5', '2', '3'])
    ax.minorticks_off()
    ax.invert_yaxis()
    fig.legend(loc='outside lower center', ncols=2, columnspacing=1, handletextpad=.2)

MANY = ("The best rate of the grid is smaller than the suggestion. An epoch in batches of 16 has over a thousand noisy steps; what that noise costs Adam in the long run, a trial of a hundred batches, each with another "
        "rate, doesn't show.")
FEW = ("The best rate of the grid is larger than the suggestion. An epoch in batches of 256 is over after fewer steps than the trial has, and a large rate gets further in so few. The finder doesn't know how long the training will "
       "be, and keeps its distance from the explosion.")
WHY = {f'finder ÷ {BEST}: {k}': text for k, text in {'MLP, Adam, 16': MANY, 'CNN, Adam, 16': MANY, 'MLP, Adam, 256': FEW, 'CNN, SGD, 256': FEW, 'CNN, Adam, 256': FEW}.items()}

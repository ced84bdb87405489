"""Seven optimisers on one network, and what their steps cost

The optimisers of [07_optimizers](07_optimizers.ipynb), with the settings that PyTorch gives them by default (momentum is 0.9 for plain and for Nesterov's momentum), train the network of the section before, with ReLU, for one epoch over Fashion-MNIST's 50,000 training images in batches of 128: once at a constant rate, and once with the
one-cycle schedule. Muon moves the convolutions' kernels, each a row of a matrix, and AdamW at a tenth of its rate the linear layer and the biases. For a seed, all begin with the same weights and get the same batches in the same order.

Each optimiser has its own rate for each of the two schedules, the one with the best mean accuracy over two seeds on a grid of six, each twice the one before, which is continued where the best one lies at an end. The seeds of the figures had no part in that; the validation images, the same 10,000, had. What is kept is the accuracy for each seed, and the mean with the interval in which the true
mean lies with a probability of 0.95, by Student's t; and seed by seed the percentage points by which an optimiser is ahead of momentum. Where its interval holds 0, these seeds don't tell the two apart. A training that fails, as one may at a rate that two other seeds got along with, counts with what it reads right, a tenth or so. And an epoch says little about a long training.

Then the cost of a step by itself, forward and backward pass left out: all parameters of the network of [04_convolutions](04_convolutions.ipynb), for Muon its four matrices (kernels as rows), beside the same rule in `torch.optim` with `foreach=True` where it takes that. Before anything is timed, both must have moved the parameters alike over three steps. PyTorch's Muon multiplies its matrices in
bfloat16.
"""
from .activations import BATCH, MOST, TUNING, digits, network, tuned

EPOCHS, SEEDS, BASE = 1, tuple(range(2, 7)), 'Momentum'
MODES = {'': 'constant', ', one cycle': 'one_cycle'}  # what is added to a group's name: schedule
RATE = .025, .0125, .0125, .00025, .0005, .0005, .0025  # the least of each grid
THEIRS = {'SGD': ('SGD', {}), 'Momentum': ('SGD', {'momentum': .9}), 'Nesterov momentum': ('SGD', {'momentum': .9, 'nesterov': True}), 'RMSProp': ('RMSprop', {}),
          'Adam': ('Adam', {}), 'AdamW': ('AdamW', {}), 'Muon': ('Muon', {})}
GRIDS = {k: [least*2**i for i in range(6)] for k, least in zip(THEIRS, RATE)}

def optimisers():
    "{name: a function of parameters and rate}"
    from functools import partial
    from notes.optimizers import Adam, AdamW, Momentum, RMSProp
    from notes.training import SGD
    return {'SGD': SGD, 'Momentum': Momentum, 'Nesterov momentum': partial(Momentum, nesterov=True), 'RMSProp': RMSProp, 'Adam': Adam, 'AdamW': AdamW, 'Muon': muon}

def rows(p, t):
    "The tensor `t`, which lies in memory as the kernels `p` (out, in, h, w) do, as a matrix of a row for each output: of `p` itself a view"
    import torch
    last = p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
    return (t.permute(0, 2, 3, 1) if last else t).flatten(1)

def muon(params, lr, rest=.1, decay=.1):
    "Muon for the kernels of convolutions, AdamW at `rest` times the rate for the rest"
    from notes.optimizers import AdamW, Muon, Together
    class Kernels(Muon):
        "Muon on kernels (out, in, h, w), as matrices of a row for each output: views, so what moves one moves the other"
        def __init__(self, kernels, lr):
            self.kernels = kernels
            super().__init__([rows(p, p.data) for p in kernels], lr, decay)
        def step(self):
            for m, p in zip(self._params(), self.kernels): m.grad = rows(p, p.grad)
            super().step()
        def zero_grad(self):
            for p in (*self._params(), *self.kernels): p.grad = None
    kernels = [p for p in params if p.ndim == 4]
    return Together(Kernels(kernels, lr), AdamW([p for p in params if p.ndim != 4], lr*rest))

def one(sets, name, schedule, lr, seed, epochs=EPOCHS):
    "Accuracy on the validation images in %, after one training"
    from notes import optimizers
    from notes.exports import set_seed
    from notes.learner import Learner
    from notes.modules import ReLU
    from notes.training import CrossEntropy, evaluate, get_dls
    set_seed(seed)
    model = network(ReLU, 1, 28, 10)
    train, valid = get_dls(*sets, BATCH, seed=seed)
    Learner(model, (train, None), CrossEntropy(), optimisers()[name], lr, [optimizers.Schedule(getattr(optimizers, schedule))]).fit(epochs)
    return 100*evaluate(model, CrossEntropy(), valid)[1]

# ---- A step by itself

OURS, TORCH = 'ours', 'torch.optim'
def steppers(name, lr=.01):
    "Our optimiser and PyTorch's, each with copies of the same parameters, whose gradients stay as they are: {OURS: …, TORCH: …}"
    import torch
    from notes.optimizers import Muon
    from .conv import torch_cnn
    kind, kw = THEIRS[name]
    if name != 'Muon': kw = {**kw, 'foreach': True}
    ps = [p.detach() for p in torch_cnn().parameters()]
    if name == 'Muon': ps = [p.flatten(1) for p in ps if p.ndim > 1]
    grads = [torch.randn_like(p) for p in ps]
    def copies():
        res = [p.clone() for p in ps]
        for p, g in zip(res, grads): p.grad = g.clone()
        return res
    ours = Muon if name == 'Muon' else optimisers()[name]
    return {OURS: ours(copies(), lr), TORCH: getattr(torch.optim, kind)(copies(), lr=lr, **kw)}

def check(name, opts):
    "Move the parameters of both alike?"
    from notes.exports import rel_error
    moved = []
    for opt in opts.values():
        ps = [p for g in opt.param_groups for p in g['params']]
        before, grads = [p.clone() for p in ps], [p.grad.clone() for p in ps]
        for i in range(3):
            for p, g in zip(ps, grads): p.grad.copy_(g*(1+i))  # PyTorch's Nesterov with foreach adds to the gradients themselves
            opt.step()
        moved.append([p-q for p, q in zip(ps, before)])
    if not all(rel_error(a, b) < (.1 if name == 'Muon' else 1e-3) for a, b in zip(*moved)): raise RuntimeError(f"{name}: the steps differ")

def cost(b):
    fs = {}
    for name in THEIRS:
        opts = steppers(name)
        check(name, opts)
        fs |= {f'{name}, {k}': opt.step for k, opt in opts.items()}
    t = b.times('step', fs, repeats=25, min_time=.05)
    for name in THEIRS:
        kind, kw = THEIRS[name]
        args = ', '.join([f'{k}={v}' for k, v in kw.items()]+['foreach=True']*(name != 'Muon'))
        b.ratio(f'a step of our {name} ÷ torch.optim.{kind}({args})', t[f'{name}, {OURS}'], t[f'{name}, {TORCH}'], at_most=1.2 if name == 'Adam' else None)

def run(b):
    import torch
    from notes.data import get_fashion
    torch.set_num_threads(b.threads)
    cost(b)
    sets, tuning, seeds, most, modes, names = digits(get_fashion, 500 if b.quick else None), TUNING, SEEDS, MOST, MODES, THEIRS
    if b.quick: tuning, seeds, most = TUNING[:1], SEEDS[:2], 0
    for more, schedule in modes.items():
        group, right = 'Fashion-MNIST'+more, {}
        for name in names:
            def accuracy(lr, seed): return b.once(f'{name}, {schedule}, {lr:g}, seed {seed}', lambda: one(sets, name, schedule, lr, seed))
            grid, best = tuned(accuracy, GRIDS[name][2:4] if b.quick else GRIDS[name], tuning, most)
            for lr, values in grid.items(): b.keep(f'{group}, tuning', f'{name} at {lr:g}', '%', values, values=values, seeds=tuning, optimiser=name, lr=lr)
            right[name] = [accuracy(best, seed) for seed in seeds]
            b.keep_seeds(group, name, '%', right[name], seeds, lr=best)
        for name in names:
            if name != BASE: b.keep_seeds(group, name, 'pp', [x-y for x, y in zip(right[name], right[BASE])], seeds, than=BASE)

ALT = "Accuracy after an epoch, a row for each optimiser: the mean with its interval and a small dot for each seed, at a constant rate and, below it, with the one-cycle schedule. What lies to the left of the axis is written there as a number."
def draw(d, fig):
    "Accuracy of each optimiser; the axis begins a little below the least mean but for trainings that fail"
    import statistics
    ax = fig.subplots()
    fig.set_size_inches(5.2, 5)
    groups = {schedule: [f['%'] for f in d['Fashion-MNIST'+more].values()] for more, schedule in MODES.items()}
    every = [v for rows in groups.values() for f in rows for v in f['values']]
    least = statistics.quantiles(every, n=10)[0]-3
    for j, (schedule, rows) in enumerate(groups.items()):
        at = [i+.36*j-.18 for i in range(len(rows))]
        ax.errorbar([f['mean'] for f in rows], at, xerr=[f['half'] or 0 for f in rows], fmt='os'[j], color=f'C{j}', ls='', capsize=3, label=['constant rate', 'one cycle'][j])
        for y, f in zip(at, rows):
            ax.plot(f['values'], [y+.13]*len(f['values']), 'o', color='C4', ms=2, ls='')
            if out := [v for v in f['values'] if v < least]: ax.text(least, y+.13, ' ← '+', '.join(f'{v:.0f} %' for v in out), va='center', fontsize=8)
    ax.set_yticks(range(len(rows)), list(d['Fashion-MNIST']))
    ax.set_xlabel('% of the validation images')
    ax.set_xlim(least, max(every)+1)
    ax.invert_yaxis()
    ax.grid(axis='y', visible=False)
    fig.legend(loc='outside lower center', ncols=2)

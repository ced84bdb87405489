"""One training step, with the gradients by hand and by autograd

The network of [02_fully_connected](02_fully_connected.ipynb) and [02a_modules](02a_modules.ipynb): 784 inputs, 50 hidden units, a ReLU, one output, mean squared error. A step is the forward pass, the
gradients of the four parameters and the update, which is the same code for all. One row also computes the gradient of the images, which nobody needs. The rows that need
more memory are timed apart, beside our functions again, and the picture scales them by that row. Before anything is timed, all of them must have given the same gradients.
"""
from functools import partial

BATCHES = 64, 1_000, 10_000
OURS, ALL, OUTER = 'ours, functions', 'ours, gradient of x too', 'ours, outer product'
PAIRS = (OURS, 'autograd on tensors'), ('ours, modules', 'nn modules')
SETUP = '''
import torch
from bench.step import steps
torch.set_num_threads({threads})
torch.manual_seed({seed})
steps(2)[{name!r}]()  # what happens once in a process has happened
step = steps({batch})[{name!r}]
'''

def outer(g, x, w, b): return None, (x.unsqueeze(-1)*g.unsqueeze(1)).sum(0), g.sum(0)

def by_hand(x, y, ps, first=None, input_grad=False):
    "Gradients by the functions of the notebook; `first`, if given, is used for the first layer in place of `lin_grad`"
    from notes.fully_connected import lin, lin_grad, mse_grad, relu, relu_grad
    import torch
    (w1, b1, w2, b2), one = ps, torch.tensor(1.)
    first = first or partial(lin_grad, input_grad=input_grad)
    def grads():
        l1 = lin(x, w1, b1)
        l2 = relu(l1)
        pred = lin(l2, w2, b2)
        g_l2, g_w2, g_b2 = lin_grad(mse_grad(one, pred, y), l2, w2, b2)
        _, g_w1, g_b1 = first(relu_grad(g_l2, l1), x, w1, b1)
        return g_w1, g_b1, g_w2, g_b2
    return ps, grads

def by_modules(x, y, ps):
    "Gradients by the notebook's modules"
    from notes.modules import Linear, MSE, ReLU, Sequential
    model, loss_func = Sequential(Linear(784, 50), ReLU(), Linear(50, 1)), MSE()
    params = fill(model, ps)
    def grads():
        for p in params: p.grad = None
        loss_func(model(x), y)
        model.backward(loss_func.backward(), input_grad=False)
        return [p.grad for p in params]
    return params, grads

def by_autograd(x, y, ps):
    "Gradients by autograd, on tensors"
    import torch
    w1, b1, w2, b2 = ps = [p.requires_grad_() for p in ps]
    def grads():
        pred = torch.addmm(b2, torch.addmm(b1, x, w1).clamp_min(0.), w2)
        return torch.autograd.grad((pred.squeeze(-1)-y).pow(2).mean(), ps)
    return ps, grads

def by_nn(x, y, ps):
    "Gradients by autograd, with PyTorch's modules"
    import torch
    from torch import nn
    model, loss_func = nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 1)), nn.MSELoss()
    params = fill(model, ps)
    def grads(): return torch.autograd.grad(loss_func(model(x).squeeze(-1), y), params)
    return params, grads

def fill(model, ps):
    "Parameters of `model`, set to `ps`, the weights transposed"
    params = list(model.parameters())
    for p, v in zip(params, ps): p.data.copy_(v.t() if v.ndim == 2 else v)
    return params

def steps(n, lr=.01):
    "Functions that do one step on a batch of `n` and return the gradients that they used"
    import torch
    x, y = torch.randn(n, 784), torch.randn(n)
    ps = [torch.randn(s)*.05 for s in ((784, 50), (50,), (50, 1), (1,))]
    def step(make, **kw):
        params, grads = make(x, y, [p.clone() for p in ps], **kw)
        def f():
            gs = grads()
            with torch.no_grad():
                for p, g in zip(params, gs): p -= lr*g
            return gs
        return f
    return {OURS: step(by_hand), 'autograd on tensors': step(by_autograd), 'ours, modules': step(by_modules), 'nn modules': step(by_nn),
            ALL: step(by_hand, input_grad=True), OUTER: step(by_hand, first=outer)}

def check(fs):
    "Do the functions in `fs` agree on the gradients?"
    from notes.exports import rel_error
    first, *others = ([g if g.shape[0] == p else g.t() for g, p in zip(f(), (784, 50, 50, 1))] for f in fs.values())
    if not all(rel_error(g, h) < 1e-4 for gs in others for g, h in zip(gs, first)): raise RuntimeError("the gradients differ: there is nothing to compare")

def run(b):
    from .harness import memory
    for n in BATCHES[:2] if b.quick else BATCHES:
        fs = steps(n)
        check(fs)
        t = b.times(f'batch {n:,}', {k: fs[k] for k in dict.fromkeys(sum(PAIRS, ()))}, repeats=25, min_time=.05, n=n)
        for ours, theirs in PAIRS: b.ratio(f'{ours} ÷ {theirs}, batch {n:,}', t[ours], t[theirs], at_most=1)
        t = b.times(f'batch {n:,}, more memory', {k: fs[k] for k in (OURS, ALL, OUTER)}, n=n)  # apart, as the others would find their memory scattered
        b.ratio(f'{OUTER} ÷ {OURS}, batch {n:,}', t[OUTER], t[OURS], at_least=20 if n == 10_000 else None)
        code = {k: SETUP.format(threads=b.threads, seed=b.seed, batch=n, name=k) for k in fs}
        b.rounds(f'batch {n:,}, memory', {k: lambda c=c: memory(c, 'step()', b.threads) for k, c in code.items()}, repeats=5, warm_up=0, n=n)

ALT = "Time of a training step over that of autograd on tensors, a row for each way but one and a marker for each batch size, on a logarithmic axis with a line at 1. The outer product is far to the right."
def draw(d, fig):
    "Seconds over autograd's"
    ax = fig.subplots()
    for n in BATCHES:
        rows, more = ({k: f['s']['median'] for k, f in d[group].items()} for group in (f'batch {n:,}', f'batch {n:,}, more memory'))
        rows |= {k: rows[OURS]*more[k]/more[OURS] for k in (ALL, OUTER)}
        ax.semilogx([s/rows['autograd on tensors'] for s in rows.values()], list(rows), ls='', label=f'batch {n:,}')
    ax.axvline(1, color='.5', lw=1)
    ax.set_xlabel('time ÷ time of autograd on tensors', loc='right')
    ax.xaxis.set_major_formatter('{x:g}')
    ax.invert_yaxis()
    fig.legend(loc='outside lower center', ncols=3, columnspacing=1, handletextpad=.2)

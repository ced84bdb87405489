"""Convolution, forward and backward

The network of [04_convolutions](04_convolutions.ipynb) and its two convolutions: ours, one matrix product over unfolded images with gradients by hand; PyTorch's
`F.conv2d` with autograd; and the definition, written as loops. A convolution by itself gives the gradients of its images, kernels and biases; a step of the
network is the forward pass, the loss and the gradients of all parameters. The loops are there for a convolution on one image only.
Before anything in a table is timed, all that is in it must have given the same gradients.
"""
LOOPS, OURS, TORCH = 'loops', 'ours, im2col', 'F.conv2d and autograd'
SHAPES = {'first convolution': ((1, 28, 28), (20, 1, 5, 5)), 'second convolution': ((20, 12, 12), (40, 20, 5, 5))}  # an image, the kernels
SETUP = '''
import torch
from bench.conv import ways
torch.set_num_threads({threads})
torch.manual_seed({seed})
ways({group!r}, 2)[{name!r}]()  # what happens once in a process has happened
f = ways({group!r}, {batch})[{name!r}]
'''

def layers(m):
    "The layers of 04's network, from `m`: torch.nn or what has the same names"
    return (m.Conv2d(1, 20, 5), m.ReLU(), m.MaxPool2d(2), m.Conv2d(20, 40, 5), m.ReLU(), m.MaxPool2d(2),
            m.Flatten(), m.Linear(640, 100), m.ReLU(), m.Linear(100, 10))

def torch_cnn():
    from torch import nn
    return nn.Sequential(*layers(nn))

def our_cnn():
    from types import SimpleNamespace
    from notes import convolutions as cv, modules as mo
    return mo.Sequential(*layers(SimpleNamespace(Conv2d=cv.Conv2d, ReLU=mo.ReLU, MaxPool2d=cv.MaxPool2d, Flatten=cv.Flatten, Linear=mo.Linear)))

def loops(x, w, b, g):
    "A convolution and its gradients by the definition: one sum for each place of each kernel"
    import torch
    from itertools import product
    (n, _, height, width), (o, _, kh, kw) = x.shape, w.shape
    out = x.new_empty(n, o, height-kh+1, width-kw+1)
    gx, gw, gb = torch.zeros_like(x), torch.zeros_like(w), torch.zeros_like(b)
    for i, f, r, q in product(*map(range, out.shape)):
        out[i, f, r, q] = (x[i, :, r:r+kh, q:q+kw]*w[f]).sum()+b[f]
    for i, f, r, q in product(*map(range, out.shape)):
        gx[i, :, r:r+kh, q:q+kw] += g[i, f, r, q]*w[f]
        gw[f] += g[i, f, r, q]*x[i, :, r:r+kh, q:q+kw]
        gb[f] += g[i, f, r, q]
    return gx, gw, gb

def convolutions(image, kernels, n):
    "Functions that run a convolution and return its gradients"
    import torch
    import torch.nn.functional as F
    from notes.convolutions import conv2d, conv2d_grad
    x, w, b = torch.randn(n, *image), torch.randn(kernels)*.1, torch.randn(kernels[0])*.1
    ts = [t.clone().requires_grad_() for t in (x, w, b)]
    g = torch.randn_like(F.conv2d(x, w, b))
    def ours():
        conv2d(x, w, b)
        return conv2d_grad(g, x, w, b)
    return {OURS: ours, TORCH: lambda: torch.autograd.grad(F.conv2d(*ts), ts, g), LOOPS: lambda: loops(x, w, b, g)}

def networks(n):
    "Functions that run the network on a batch and return the gradients of its parameters"
    import torch
    import torch.nn.functional as F
    from notes.training import CrossEntropy, backprop
    x, y, models = torch.randn(n, 1, 28, 28), torch.randint(10, (n,)), {OURS: (our_cnn(), CrossEntropy()), TORCH: (torch_cnn(), F.cross_entropy)}
    first = [p.detach() for p in models[OURS][0].parameters()]
    def step(model, loss_func):
        params = list(model.parameters())
        for p, v in zip(params, first, strict=True): p.data.copy_(v)
        def f():
            for p in params: p.grad = None
            backprop(loss_func(model(x), y), model, loss_func)
            return [p.grad for p in params]
        return f
    return {k: step(*v) for k, v in models.items()}

def ways(group, n): return networks(n) if group not in SHAPES else convolutions(*SHAPES[group], n)

def run(b):
    from notes.exports import rel_error
    from .harness import memory
    for group, n in [(k, n) for k in (*SHAPES, 'the network') for n in (1, 50)]:
        fs = ways(group, n)
        if n > 1: fs.pop(LOOPS, None)
        expected = fs[TORCH]()
        for f in fs.values():
            if not all(rel_error(g, e) < 1e-3 for g, e in zip(f(), expected, strict=True)): raise RuntimeError("the gradients differ: there is nothing to compare")
        title = f"{group}, {n} image{'s'*(n > 1)}"
        t = b.times(title, fs, repeats=5 if LOOPS in fs else 15, min_time=.05, n=n)
        b.ratio(f'ours ÷ F.conv2d, {title}', t[OURS], t[TORCH], at_most=3 if n > 1 else None)
        if LOOPS in fs: b.ratio(f'loops ÷ ours, {title}', t[LOOPS], t[OURS])
        code = {k: SETUP.format(threads=b.threads, seed=b.seed, group=group, name=k, batch=n) for k in fs}
        if n > 1: b.rounds(title, {k: lambda c=c: memory(c, 'f()', b.threads) for k, c in code.items()}, repeats=3, warm_up=0, n=n)

ALT = "Time over that of F.conv2d with autograd, a row for each convolution and for the network, on one image and on fifty, on a logarithmic axis with a line at 1 and a dashed one at the aim. The loops are far to the right."
def draw(d, fig):
    "Seconds over those of F.conv2d"
    ax = fig.subplots()
    for k in (OURS, LOOPS):
        x = {group: rows[k]['s']['median']/rows[TORCH]['s']['median'] for group, rows in d.items() if k in rows}
        ax.semilogx(list(x.values()), list(x), ls='', label=k)
    ax.axvline(1, color='.5', lw=1)
    ax.axvline(3, color='.5', ls='--', label='aim for fifty images')
    ax.set_xlabel('time ÷ time of F.conv2d and autograd', loc='right')
    ax.xaxis.set_major_formatter('{x:g}')
    ax.invert_yaxis()
    fig.legend(loc='outside lower center', ncols=3)

"""Every hand-written backward of the package against float64 central differences and against autograd.

A backward is a public function whose name ends in `_grad`, or a class with a `bwd` or `backward`. `test_none_left_out` finds them in all modules of `notes`
and fails for one that has no case here. To add one, write a function under `@case('module.name')` that draws shapes and returns checks.
"""
import importlib, inspect, pkgutil
from collections import namedtuple
import pytest, torch
from hypothesis import assume, given, settings, strategies as st
import notes
from notes import exports as ex, fully_connected as fc, modules as mo, overfitting as ov
from draws import laid_out, layouts

# `f`: the forward pass as a function of the one tensor `x`, giving a number. `ours`: gradient of `f` at `x` by the backward under test.
Check = namedtuple('Check', 'what f x ours')
CASES = {}
NOT_BACKWARD = {'fully_connected.numerical_grad', 'modules.Module', 'modules.accumulate_grad'}  # the check itself, a base class whose `bwd` raises, and a sum
ONE = torch.ones((), dtype=torch.float64)

def case(*names):
    def add(f):
        for n in names: CASES[n] = f
        return f
    return add

def backwards():
    "Names of all hand-written backward functions and classes in the package"
    found = set()
    for info in pkgutil.iter_modules(notes.__path__):
        if info.name.startswith('_'): continue
        mod = importlib.import_module(f'notes.{info.name}')
        for name in getattr(mod, '__all__', ()):
            o = getattr(mod, name)
            if inspect.isclass(o): is_backward = any(hasattr(o, b) for b in ('bwd', 'backward'))
            else: is_backward = name.endswith('_grad') or name.endswith('_backward')
            if is_backward and o.__module__ == mod.__name__: found.add(f'{info.name}.{name}')
    return found - NOT_BACKWARD

def verify(checks):
    "Relative error below 1e-6 against central differences, and below 1e-9 against autograd"
    for c in checks:
        assert c.ours.shape == c.x.shape, c.what
        err = ex.rel_error(fc.numerical_grad(c.f, c.x), c.ours)
        assert err < 1e-6, f"{c.what}: {err:.1e} off central differences"
        x = c.x.detach().clone().requires_grad_()
        auto, = torch.autograd.grad(c.f(x), x)
        err = ex.rel_error(auto, c.ours)
        assert err < 1e-9, f"{c.what}: {err:.1e} off autograd"

sizes = st.one_of(st.just(1), st.integers(1, 7))  # ones and odd sizes come up often

class Draw:
    def __init__(self, data):
        self.data = data
        self.rng = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31), label='seed'))
    def size(self, label): return self.data.draw(sizes, label=label)
    def randn(self, *shape):
        how = self.data.draw(layouts, label=f'layout of {shape}')
        return laid_out(lambda *s: torch.randn(*s, dtype=torch.float64, generator=self.rng), shape, how)

def off_corner(x):
    "Nothing so near 0 that a nudge would cross ReLU's corner"
    assume(bool(x.abs().min() > 1e-4))
    return x

@case('fully_connected.mse_grad')
def mse_case(d):
    lead = [d.size('n'), *d.data.draw(st.sampled_from([(), (1,), (3,)]), label='more dimensions')]
    pred, targ = d.randn(*lead, 1), d.randn(*lead)
    assume(bool((pred.squeeze(-1) - targ).abs().max() > 1e-3))
    return [Check('pred', lambda p: fc.mse(p, targ), pred, fc.mse_grad(ONE, pred, targ))]

@case('fully_connected.relu_grad')
def relu_case(d):
    shape = [d.size('dim') for _ in range(d.data.draw(st.integers(1, 3), label='rank'))]
    x, g = off_corner(d.randn(*shape)), d.randn(*shape)
    return [Check('x', lambda x: (fc.relu(x)*g).sum(), x, fc.relu_grad(g, x))]

@case('fully_connected.lin_grad')
def lin_case(d):
    n, i, o = d.size('n'), d.size('in'), d.size('out')
    x, w, b, g = d.randn(n, i), d.randn(i, o), d.randn(o), d.randn(n, o)
    gx, gw, gb = fc.lin_grad(g, x, w, b)
    none, *same = fc.lin_grad(g, x, w, b, input_grad=False)
    assert none is None and all(map(torch.equal, same, (gw, gb))) and fc.lin_grad(g, x, w)[2] is None
    return [Check('x', lambda x: (fc.lin(x, w, b)*g).sum(), x, gx), Check('w', lambda w: (fc.lin(x, w, b)*g).sum(), w, gw),
            Check('b', lambda b: (fc.lin(x, w, b)*g).sum(), b, gb)]

@case('modules.ReLU')
def relu_layer_case(d):
    x, g = off_corner(d.randn(d.size('n'), d.size('in'))), d.randn(1, 1)
    layer = mo.ReLU()
    return [Check('x', lambda x: (layer(x)*g).sum(), x, (layer(x), layer.backward(g.expand(x.shape)))[1])]

@case('fully_connected.ReLUFunction')
def relu_function_case(d):
    x, g = off_corner(d.randn(d.size('n'), d.size('in'))), d.randn(1, 1)
    leaf = x.clone().requires_grad_()
    (fc.ReLUFunction.apply(leaf)*g).sum().backward()
    return [Check('x', lambda x: (fc.relu(x)*g).sum(), x, leaf.grad)]

@case('modules.MSE')
def mse_layer_case(d):
    n, scale = d.size('n'), d.data.draw(st.sampled_from([1., -2.5]), label='gradient of the loss')
    pred, targ, loss = d.randn(n, 1), d.randn(n), mo.MSE()
    assume(bool((pred.squeeze(-1) - targ).abs().max() > 1e-3))
    loss(pred, targ)
    return [Check('pred', lambda p: scale*fc.mse(p, targ), pred, loss.backward() if scale == 1 else loss.backward(scale*ONE))]

def double(module):
    for p in module.parameters(): p.data = p.data.double()
    return module

def layer_checks(module, x, g):
    "Checks for the input and for every parameter of `module`"
    def with_param(name):
        def f(t):
            *path, last = name.split('.')
            owner = module
            for k in path: owner = getattr(owner, k)
            p = owner.__dict__[last]
            owner.__dict__[last] = t
            try: return (module(x)*g).sum()
            finally: owner.__dict__[last] = p
        return f
    module(x)
    gx, grads = module.backward(g), [p.grad for p in module.parameters()]
    for p in module.parameters(): p.grad = None
    module(x)
    module.backward(g, input_grad=False)
    for p, first in zip(module.parameters(), grads, strict=True): assert p.grad is not None and p.grad.equal(first), "input_grad=False changes a parameter's gradient"
    return [Check('x', lambda x: (module(x)*g).sum(), x, gx)] + [Check(k, with_param(k), p.data, p.grad) for k, p in module.named_parameters()]

@case('modules.Linear')
def linear_case(d):
    n, i, o = d.size('n'), d.size('in'), d.size('out')
    torch.manual_seed(d.data.draw(st.integers(0, 99), label='init'))
    return layer_checks(double(mo.Linear(i, o, bias=d.data.draw(st.booleans(), label='bias'))), d.randn(n, i), d.randn(n, o))

@case('overfitting.dropout_backward')
def dropout_case(d):
    shape = [d.size('dim') for _ in range(d.data.draw(st.integers(1, 3), label='rank'))]
    x, g, p = d.randn(*shape), d.randn(*shape), d.data.draw(st.sampled_from([0., .3, .5, .9, 1.]), label='p')
    seed = d.data.draw(st.integers(0, 99), label='mask')
    drop = lambda x: ov.dropout(x, p, torch.Generator().manual_seed(seed))
    return [Check('x', lambda x: (drop(x)[0]*g).sum(), x, ov.dropout_backward(g, drop(x)[1]))]

@case('overfitting.Dropout')
def dropout_layer_case(d):
    n, i, h = d.size('n'), d.size('in'), d.size('hidden')
    seed = d.data.draw(st.integers(0, 99), label='init and masks')
    class Seeded(ov.Dropout):  # the same mask at each call
        def forward(self, x):
            torch.manual_seed(seed)
            return super().forward(x)
    torch.manual_seed(seed)
    return layer_checks(double(mo.Sequential(mo.Linear(i, h), Seeded(d.data.draw(st.sampled_from([0, .3, .8, 1]), label='p')), mo.Linear(h, 3))), d.randn(n, i), d.randn(n, 3))

@case('modules.Sequential')
def sequential_case(d):
    n, i, h, o = d.size('n'), d.size('in'), d.size('hidden'), d.size('out')
    torch.manual_seed(d.data.draw(st.integers(0, 99), label='init'))
    model, x, g = double(mo.Sequential(mo.Linear(i, h), mo.ReLU(), mo.Linear(h, o))), d.randn(n, i), d.randn(n, o)
    off_corner(model[0](x))
    return layer_checks(model, x, g)

@case('modules.Sum', 'modules.Identity')
def sum_case(d):
    n, i = d.size('n'), d.size('in')
    torch.manual_seed(d.data.draw(st.integers(0, 99), label='init'))
    body, x = double(mo.Sequential(mo.Linear(i, 3), mo.ReLU(), mo.Linear(3, i))), d.randn(n, i)
    off_corner(body[0](x))
    return layer_checks(mo.Sum(body, mo.Identity(), double(mo.Linear(i, i))), x, d.randn(n, i))

def pytest_generate_tests(metafunc):
    "When the whole file is read: a decorator would see only the cases above it"
    if metafunc.function.__name__ == 'test_backward': metafunc.parametrize('name', sorted(CASES))

@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_backward(name, data): verify(CASES[name](Draw(data)))

def test_none_left_out():
    found = backwards()
    assert {'fully_connected.mse_grad', 'modules.Linear', 'fully_connected.ReLUFunction'} <= found  # it does look
    assert not (missing := found - set(CASES)), f"no check for {sorted(missing)}: add a @case"
    assert not (gone := set(CASES) - found), f"cases for what is no longer exported: {sorted(gone)}"

def test_new_backward_is_noticed(monkeypatch):
    def pool_grad(g): return g
    pool_grad.__module__ = fc.__name__
    monkeypatch.setattr(fc, 'pool_grad', pool_grad, raising=False)
    monkeypatch.setattr(fc, '__all__', [*fc.__all__, 'pool_grad'])
    with pytest.raises(AssertionError, match='fully_connected.pool_grad'): test_none_left_out()

def test_base_module_has_no_backward_of_its_own():
    m = mo.Module()
    m.forward = lambda x: x
    with pytest.raises(NotImplementedError): (m(1), m.backward(1))

# The checker itself must fail for what is wrong by a factor, a sign or a place.
@pytest.mark.parametrize('wrong', [lambda g: g*2, lambda g: -g, lambda g: g*(1+1e-5), lambda g: g.flip(0), lambda g: g + 1e-5])
def test_checker_catches(wrong):
    pred, targ = torch.tensor([[1.], [5.], [2.]], dtype=torch.float64), torch.tensor([0., 1., 7.], dtype=torch.float64)
    good = fc.mse_grad(ONE, pred, targ)
    verify([Check('pred', lambda p: fc.mse(p, targ), pred, good)])
    with pytest.raises(AssertionError): verify([Check('pred', lambda p: fc.mse(p, targ), pred, wrong(good))])

# notes.training -----------------------------------------------------------------------------------------------------------
from notes import training as tr  # noqa: E402

def logits(d):
    "Logits of any scale, with the classes in the last of one to three dimensions"
    lead = [d.size('n') for _ in range(d.data.draw(st.integers(0, 2), label='more dimensions'))]
    return d.randn(*lead, d.size('c'))*d.data.draw(st.sampled_from([1., 10.]), label='scale')

def scored(d):
    "Logits (n, c), and a class for each row"
    n, c = d.size('n'), d.size('c')
    return d.randn(n, c), torch.randint(c, (n,), generator=d.rng)

@case('training.logsumexp_grad')
def logsumexp_case(d):
    x = logits(d)
    g = d.randn(*x.shape[:-1]) if x.ndim > 1 else torch.randn((), dtype=torch.float64, generator=d.rng)
    return [Check('x', lambda x: (tr.logsumexp(x)*g).sum(), x, tr.logsumexp_grad(g, x))]

def flat(g):
    "Is the gradient so near 0 that central differences see their own rounding?"
    assume(bool(g.abs().max() > 1e-3))
    return g

@case('training.softmax_grad', 'training.log_softmax_grad')
def softmax_case(d):
    x = logits(d)
    assume(x.shape[-1] > 1)  # of one class the probability is 1, whatever its logit
    g = d.randn(*x.shape)
    return [Check('softmax', lambda x: (tr.softmax(x)*g).sum(), x, flat(tr.softmax_grad(g, x))),
            Check('log_softmax', lambda x: (tr.log_softmax(x)*g).sum(), x, flat(tr.log_softmax_grad(g, x)))]

@case('training.nll_grad')
def nll_case(d):
    log_p, targ = scored(d)
    return [Check('log_p', lambda t: tr.nll(t, targ), log_p, tr.nll_grad(ONE, log_p, targ))]

@case('training.cross_entropy_grad', 'training.CrossEntropy')
def cross_entropy_case(d):
    x, targ = scored(d)
    assume(x.shape[1] > 1)
    scale, loss = d.data.draw(st.sampled_from([1., -2.5]), label='gradient of the loss'), tr.CrossEntropy()
    loss(x, targ)
    return [Check('function', lambda x: tr.cross_entropy(x, targ), x, flat(tr.cross_entropy_grad(ONE, x, targ))),
            Check('layer', lambda x: scale*tr.cross_entropy(x, targ), x, loss.backward() if scale == 1 else loss.backward(scale*ONE))]

from notes import augmentation as au

@case('augmentation.smooth_cross_entropy_grad', 'augmentation.SmoothCrossEntropy')
def smooth_cross_entropy_case(d):
    x, targ = scored(d)
    assume(x.shape[1] > 1)
    s = d.data.draw(st.sampled_from([0., .1, .7]), label='label smoothing')  # at 1 and equal logits the gradient is 0
    scale, loss = d.data.draw(st.sampled_from([1., -2.5]), label='gradient of the loss'), au.SmoothCrossEntropy(s)
    loss(x, targ)
    return [Check('function', lambda x: au.smooth_cross_entropy(x, targ, s), x, flat(au.smooth_cross_entropy_grad(ONE, x, targ, s))),
            Check('layer', lambda x: scale*au.smooth_cross_entropy(x, targ, s), x, loss.backward() if scale == 1 else loss.backward(scale*ONE))]

# Convolutions

from notes import convolutions as cv

class Geometry:
    "A window's size and steps, numbers or pairs, and images that it fits into"
    def __init__(self, d, strides=3, dilations=2, pool=False):
        one = lambda lo, hi, label: d.data.draw(st.integers(lo, hi), label=label)
        pair = lambda lo, hi, label: (one(lo, hi, label), one(lo, hi, label)) if d.data.draw(st.booleans(), label=f'{label}: a pair') else (one(lo, hi, label),)*2
        self.k, self.s = pair(1, 3 if pool else 5, 'kernel'), pair(1, strides, 'stride')
        self.d = pair(1, dilations, 'dilation')
        self.p = tuple(min(p, k//2) for p, k in zip(pair(0, 2, 'padding'), self.k)) if pool else pair(0, 2, 'padding')
        self.n, self.c = one(1, 3, 'n'), one(1, 3, 'channels')
        self.size = tuple(max(1, e*(k-1) + 1 - 2*p) + one(0, 4, 'more pixels') for k, p, e in zip(self.k, self.p, self.d))
        self.out = tuple(cv.conv_size(*a) for a in zip(self.size, self.k, self.s, self.p, self.d))
        self.shape = self.n, self.c, *self.size

@case('convolutions.conv2d_grad')
def conv2d_case(d):
    q, o = Geometry(d), d.data.draw(st.integers(1, 3), label='out')
    x, w, b, g, how = d.randn(*q.shape), d.randn(o, q.c, *q.k), d.randn(o), d.randn(q.n, o, *q.out), (q.s, q.p, q.d)
    gx, gw, gb = cv.conv2d_grad(g, x, w, b, *how)
    none, *same = cv.conv2d_grad(g, x, w, b, *how, input_grad=False)
    assert none is None and all(map(torch.equal, same, (gw, gb))) and cv.conv2d_grad(g, x, w, None, *how)[2] is None
    return [Check('x', lambda x: (cv.conv2d(x, w, b, *how)*g).sum(), x, gx), Check('w', lambda w: (cv.conv2d(x, w, b, *how)*g).sum(), w, gw),
            Check('b', lambda b: (cv.conv2d(x, w, b, *how)*g).sum(), b, gb)]

def distinct(x):
    "No two pixels so near that a nudge would change which is the largest"
    v = x.flatten().sort().values
    assume(len(v) == 1 or bool(v.diff().min() > 1e-4))
    return x

@case('convolutions.max_pool2d_grad')
def max_pool2d_case(d):
    q = Geometry(d, dilations=1, pool=True)
    x, g = distinct(d.randn(*q.shape)), d.randn(q.n, q.c, *q.out)
    return [Check('x', lambda x: (cv.max_pool2d(x, q.k, q.s, q.p)*g).sum(), x, cv.max_pool2d_grad(g, x, q.k, q.s, q.p))]

@case('convolutions.avg_pool2d_grad')
def avg_pool2d_case(d):
    q = Geometry(d, dilations=1, pool=True)
    x, g = d.randn(*q.shape), d.randn(q.n, q.c, *q.out)
    return [Check('x', lambda x: (cv.avg_pool2d(x, q.k, q.s, q.p)*g).sum(), x, cv.avg_pool2d_grad(g, x, q.k, q.s, q.p))]

@case('convolutions.Conv2d')
def conv2d_layer_case(d):
    q, o = Geometry(d), d.data.draw(st.integers(1, 3), label='out')
    torch.manual_seed(d.data.draw(st.integers(0, 99), label='init'))
    layer = double(cv.Conv2d(q.c, o, q.k, q.s, q.p, q.d, bias=d.data.draw(st.booleans(), label='bias')))
    return layer_checks(layer, d.randn(*q.shape), d.randn(q.n, o, *q.out))

@case('convolutions.MaxPool2d')
def max_pool2d_layer_case(d):
    q = Geometry(d, dilations=1, pool=True)
    return layer_checks(cv.MaxPool2d(q.k, q.s, q.p), distinct(d.randn(*q.shape)), d.randn(q.n, q.c, *q.out))

@case('convolutions.AvgPool2d')
def avg_pool2d_layer_case(d):
    q = Geometry(d, dilations=1, pool=True)
    return layer_checks(cv.AvgPool2d(q.k, q.s, q.p), d.randn(*q.shape), d.randn(q.n, q.c, *q.out))

@case('convolutions.Flatten')
def flatten_case(d):
    shape = [d.size('n'), d.size('channels'), d.size('height'), d.size('width')]
    return layer_checks(cv.Flatten(), d.randn(*shape), d.randn(shape[0], shape[1]*shape[2]*shape[3]))
NOT_BACKWARD.add('learner.Learner')  # its `backward` is a step of the loop, which asks the model for its own

# Activations

from notes import activations as ac

def general(d):
    "A slope, a shift and a power"
    return [d.data.draw(st.sampled_from(v), label=k) for k, v in dict(leak=[0., .1, -.5], sub=[0., .4], power=[1., .9, 2.]).items()]

@case('activations.general_relu_grad')
def general_relu_case(d):
    how, shape = general(d), [d.size('dim') for _ in range(d.data.draw(st.integers(1, 3), label='rank'))]
    x, g = off_corner(d.randn(*shape)), d.randn(*shape)
    return [Check('x', lambda x: (ac.general_relu(x, *how)*g).sum(), x, ac.general_relu_grad(g, x, *how))]

@case('activations.GeneralReLU')
def general_relu_layer_case(d):
    x = off_corner(d.randn(d.size('n'), d.size('in')))
    return layer_checks(double(ac.GeneralReLU(*general(d))), x, d.randn(*x.shape))

# Norms

from notes import normalization as no

def spread(x, dims, least=.05):
    "Enough of it along `dims`: where numbers are equal, a nudge is all that there is"
    assume(bool(x.std(dims, correction=0).min() > least))
    return x

@case('normalization.standardize_backward')
def standardize_case(d):
    shape = [d.size('dim') + 1 for _ in range(d.data.draw(st.integers(1, 3), label='rank'))]
    dims = d.data.draw(st.sampled_from([0, -1, tuple(range(len(shape)))]), label='dims')
    center = d.data.draw(st.booleans(), label='center')
    x, g = spread(d.randn(*shape), dims), d.randn(*shape)
    x_hat, r, *_ = no.standardize(x, dims, 1e-3, center)
    return [Check('x', lambda x: (no.standardize(x, dims, 1e-3, center)[0]*g).sum(), x, flat(no.standardize_backward(g, x_hat, r, dims, center)[0]))]

def norm_layer(d, layer, x, dims):
    "Of any weights, in training or in evaluation; where it matters, enough numbers to have a spread"
    for p in layer.parameters(): p.data = torch.randn(p.shape, generator=d.rng, dtype=p.dtype) + 2
    checks = layer_checks(double(layer), spread(x, dims), d.randn(*x.shape))
    for c in checks: flat(c.ours)
    return checks

@case('normalization.BatchNorm1d', 'normalization.BatchNorm2d')
def batch_norm_case(d):
    n, c = d.size('n') + 2, d.size('channels')
    more = d.data.draw(st.sampled_from([(), (3,), (3, 2), (1, 4)]), label='places')
    make = no.BatchNorm2d if len(more) == 2 else no.BatchNorm1d
    layer = make(c, eps=1e-3, affine=d.data.draw(st.booleans(), label='affine')).to(torch.float64)
    x = d.randn(n, c, *more)
    if d.data.draw(st.booleans(), label='evaluation'):
        layer(spread(x, (0, *range(2, x.ndim))) + 1)
        layer.eval()
    return norm_layer(d, layer, x, (0, *range(2, x.ndim)))

@case('normalization.LayerNorm', 'normalization.RMSNorm')
def row_norm_case(d):
    shape = [d.size('dim') + 1 for _ in range(d.data.draw(st.integers(1, 2), label='rank'))]
    make, affine = d.data.draw(st.sampled_from([no.LayerNorm, no.RMSNorm]), label='norm'), d.data.draw(st.booleans(), label='affine')
    return norm_layer(d, make(shape, eps=1e-3, elementwise_affine=affine), d.randn(d.size('n'), *shape), tuple(range(-len(shape), 0)))

@case('normalization.GroupNorm')
def group_norm_case(d):
    k, size, n = d.size('groups'), d.size('channels of a group') + 1, d.size('n')
    x = d.randn(n, k*size, 2, 2)
    spread(x.reshape(n, k, -1), 2)
    return norm_layer(d, no.GroupNorm(k, k*size, eps=1e-3, affine=d.data.draw(st.booleans(), label='affine')), x, (1, 2, 3))

# The residual network's layers

from notes import resnet as rs

@case('resnet.GlobalAvgPool')
def global_avg_pool_case(d):
    n, c, h, w = (d.size(k) for k in ('n', 'channels', 'height', 'width'))
    return layer_checks(rs.GlobalAvgPool(), d.randn(n, c, h, w), d.randn(n, c))

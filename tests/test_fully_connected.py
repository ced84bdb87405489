"""`notes.fully_connected` against PyTorch: values, initialisation, `Linear`, the books of `Module`, and its errors (with `python -O` too)"""
import copy, math, pickle, subprocess, sys
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from notes import exports as ex, fully_connected as fc

some = settings(deadline=None, max_examples=25)
sizes = st.one_of(st.just(1), st.integers(1, 40))
seeds = st.integers(0, 2**31)

def randn(*shape, seed=0, layout='contiguous'):
    rng = torch.Generator().manual_seed(seed)
    if layout == 'transposed': return torch.randn(*shape[::-1], generator=rng).permute(*range(len(shape))[::-1])
    if layout == 'strided': return torch.randn(*shape[:-1], 2*shape[-1], generator=rng)[..., ::2]
    return torch.randn(*shape, generator=rng)
layouts = st.sampled_from(['contiguous', 'transposed', 'strided'])

# Values

@some
@given(n=sizes, i=sizes, o=sizes, seed=seeds, layout=layouts, bias=st.booleans())
def test_forward(n, i, o, seed, layout, bias):
    x, w, b = randn(n, i, seed=seed, layout=layout), randn(i, o, seed=seed+1, layout=layout), randn(o, seed=seed+2) if bias else None
    out = fc.lin(x, w, b)
    assert ex.rel_error(out, F.linear(x, w.t(), b)) < 1e-5
    assert torch.equal(fc.relu(out), F.relu(out))
    pred, targ = randn(n, 1, seed=seed, layout=layout), randn(n, seed=seed+1, layout=layout)
    ex.test_near(fc.mse(pred, targ), F.mse_loss(pred.squeeze(-1), targ))

@pytest.mark.parametrize('lead', [(1,), (3,), (3, 1), (1, 3), (1, 1)])
def test_mse_keeps_every_dimension_but_the_last(lead):
    "A bare squeeze() broadcasts here"
    pred, targ = randn(*lead, 1), randn(*lead, seed=1)
    ex.test_near(fc.mse(pred, targ), ((pred[..., 0] - targ)**2).mean())
    assert fc.mse_grad(pred, targ).shape == pred.shape

def test_relu_corner_and_nan():
    x = torch.tensor([-1., -0., 0., 1., math.inf, -math.inf, math.nan])
    assert torch.equal(fc.relu(x).nan_to_num(7., 8.), F.relu(x).nan_to_num(7., 8.))
    leaf = x[:6].clone().requires_grad_()
    F.relu(leaf).sum().backward()
    assert torch.equal(fc.relu_grad(torch.ones(6), x[:6]), leaf.grad)

@some
@given(n=sizes, mean=st.floats(-50, 50), std=st.floats(.01, 50), seed=seeds)
def test_normalize(n, mean, std, seed):
    x = randn(n, 3, seed=seed).double()
    ex.test_near(fc.normalize(x*std + mean, mean, std), x, rtol=1e-6, atol=1e-6)

# Initialisation

weights = st.lists(st.integers(1, 9), min_size=2, max_size=4)
slopes = st.sampled_from([0., .01, .5, 1., math.sqrt(5)])

@some
@given(shape=weights, a=slopes, mode=st.sampled_from(['fan_in', 'fan_out']), seed=seeds)
def test_kaiming(shape, a, mode, seed):
    for ours, torchs in ((fc.kaiming_normal_, nn.init.kaiming_normal_), (fc.kaiming_uniform_, nn.init.kaiming_uniform_)):
        torch.manual_seed(seed)
        w = torch.empty(shape)
        assert ours(w, a, mode) is w
        torch.manual_seed(seed)
        ex.test_near(w, torchs(torch.empty(shape), a, mode))
    assert fc.fans(w) == nn.init._calculate_fan_in_and_fan_out(w)
    assert fc.relu_gain(a) == pytest.approx(nn.init.calculate_gain('leaky_relu', a))

@pytest.mark.parametrize('init', [fc.kaiming_normal_, fc.kaiming_uniform_])
def test_kaiming_std(init):
    torch.manual_seed(0)
    for a, n in ((0., 400), (math.sqrt(5), 100)):
        ex.test_near(init(torch.empty(500, n), a).std(), math.sqrt(2/((1+a*a)*n)), rtol=.01)
        ex.test_near(init(torch.empty(n, 500), a, 'fan_out').std(), math.sqrt(2/((1+a*a)*n)), rtol=.01)

def test_kaiming_on_views_and_parameters():
    torch.manual_seed(1)
    w = torch.zeros(4, 6)
    fc.kaiming_normal_(w[:2])
    assert w[:2].ne(0).all() and w[2:].eq(0).all()
    fc.kaiming_uniform_(nn.Parameter(torch.zeros(3, 2)))  # a leaf that requires grad may be filled

# Linear and Sequential

@some
@given(n=sizes, i=sizes, o=sizes, seed=seeds, bias=st.booleans(), layout=layouts)
def test_linear(n, i, o, seed, bias, layout):
    torch.manual_seed(seed)
    ours = fc.Linear(i, o, bias)
    torch.manual_seed(seed)
    torchs = nn.Linear(i, o, bias)
    for (k, p), (kt, pt) in zip(ours.named_parameters(), torchs.named_parameters(), strict=True):
        assert k == kt
        ex.test_near(p, pt.detach())
    x = randn(n, i, seed=seed, layout=layout)
    xt, g = x.clone().requires_grad_(), randn(n, o, seed=seed+1, layout=layout)
    out = torchs(xt)
    assert ex.rel_error(ours(x), out) < 1e-5
    out.backward(g)
    assert ex.rel_error(ours.backward(g), xt.grad) < 1e-5
    for p, pt in zip(ours.parameters(), torchs.parameters(), strict=True): assert ex.rel_error(p.grad, pt.grad) < 1e-5

def test_linear_for_relu():
    torch.manual_seed(0)
    ex.test_near(fc.Linear(400, 500, a=0).weight.std(), math.sqrt(2/400), rtol=.01)

def pair():
    torch.manual_seed(0)
    ours = fc.Sequential(fc.Linear(6, 5), fc.ReLU(), fc.Sequential(fc.Linear(5, 4), fc.ReLU()), fc.Linear(4, 1))
    torch.manual_seed(0)
    return ours, nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 4), nn.ReLU()), nn.Linear(4, 1))

def test_training_equals_pytorch_step_for_step():
    ours, torchs = pair()
    opt, opt2, loss_func = torch.optim.SGD(torchs.parameters(), lr=.05), torch.optim.SGD(ours.parameters(), lr=.05), fc.MSE()
    losses = []
    for i in range(30):
        x, y = randn(8, 6, seed=i), randn(8, seed=100+i)
        loss = loss_func(ours(x), y)
        ours.backward(loss_func.backward())
        opt2.step()  # torch.optim reads the gradients that ours wrote
        lt = F.mse_loss(torchs(x).squeeze(-1), y)
        opt.zero_grad()
        lt.backward()
        opt.step()
        losses.append((loss.item(), lt.item()))
    a, b = torch.tensor(losses).t()
    ex.test_near(a, b, rtol=1e-4)
    for p, pt in zip(ours.parameters(), torchs.parameters(), strict=True): ex.test_near(p, pt.detach(), rtol=1e-4, atol=1e-5)

def test_network_equals_numpy():
    x, y = randn(7, 6).double(), randn(7, seed=1).double()
    w1, b1, w2, b2 = (randn(*s, seed=i+2).double() for i, s in enumerate(((6, 5), (5,), (5, 1), (1,))))
    l1 = fc.lin(x, w1, b1)
    l2 = fc.relu(l1)
    g, gw2, gb2 = fc.lin_grad(fc.mse_grad(fc.lin(l2, w2, b2), y), l2, w2)
    gx, gw1, gb1 = fc.lin_grad(fc.relu_grad(g, l1), x, w1)
    X, Y, W1, B1, W2, B2 = (t.numpy() for t in (x, y, w1, b1, w2, b2))
    L1 = X@W1 + B1
    L2 = np.maximum(L1, 0)
    G = 2*(L2@W2 + B2 - Y[:, None])/len(Y)
    G1 = (G@W2.T)*(L1 > 0)
    for a, b in ((gw2, L2.T@G), (gb2, G.sum(0)), (gw1, X.T@G1), (gb1, G1.sum(0)), (gx, G1@W1.T)): ex.test_near(a, torch.from_numpy(b), rtol=1e-10, atol=1e-12)

# Module, next to nn.Module

def names(m): return [k for k, _ in m.named_parameters()]
def P(*shape): return nn.Parameter(torch.ones(shape or (1,)))

def both(script):
    "Run `script(module, child)` on our Module and on nn.Module; each must leave the same names and the same tensors, or fail with a TypeError both"
    out = []
    for Base in (fc.Module, nn.Module):
        class M(Base): pass
        try: out.append([(k, tuple(p.shape)) for k, p in script(M(), M).named_parameters()])
        except TypeError: out.append(TypeError)
    assert out[0] == out[1]
    return out[0]

def s_order(m, M): m.c = M(); m.c.z = P(3); m.b = P(2); m.a = P(); return m
def s_nested(m, M): m.l = M(); m.l.l = M(); m.l.l.w = P(2); m.l.b = P(); m.w = P(4); return m
def s_reassign(m, M): m.a = P(); m.b = P(2); m.a = P(3); return m
def s_reassign_module(m, M): m.x = M(); m.x.p = P(); m.y = M(); m.y.q = P(2); m.x = M(); m.x.r = P(3); return m
def s_none(m, M): m.a = P(); m.b = P(2); m.a = None; return m
def s_none_and_back(m, M): m.a = P(); m.b = P(2); m.a = None; m.a = P(3); return m
def s_none_module(m, M): m.c = M(); m.c.p = P(); m.c = None; return m
def s_delete(m, M): m.a = P(); m.b = P(2); del m.a; return m
def s_delete_module(m, M): m.c = M(); m.c.p = P(); m.b = P(2); del m.c; return m
def s_module_to_param(m, M): m.c = M(); m.c.p = P(); m.c = P(2); return m
def s_plain_to_param(m, M): m.a = 3; m.b = P(2); m.a = P(); return m
def s_shared(m, M): m.a = P(2); m.c = M(); m.c.b = m.a; m.c.d = P(); m.e = m.c; return m
def s_plain(m, M): m.a = 1; m.t = torch.ones(2); m.s = [1, 2]; m.d = {'k': torch.ones(1)}; return m
def s_tensor_over_param(m, M): m.a = P(); m.a = torch.ones(1); return m
def s_number_over_param(m, M): m.a = P(); m.a = 3; return m
def s_plain_over_module(m, M): m.c = M(); m.c = 3; return m

@pytest.mark.parametrize('script', [v for k, v in sorted(globals().items()) if k.startswith('s_')], ids=lambda f: f.__name__[2:])
def test_module_keeps_nn_modules_books(script):
    left = both(script)
    assert (left is TypeError) == ('_over_' in script.__name__)

def test_scripts_are_not_vacuous():
    assert both(s_order) == [('b', (2,)), ('a', (1,)), ('c.z', (3,))]
    assert both(s_delete) == [('b', (2,))]
    assert both(s_shared) == [('a', (2,)), ('c.d', (1,))]

@some
@given(steps=st.lists(st.tuples(st.sampled_from(['p', 'q', 'm', 'o']), st.sampled_from(['good', 'good', 'none', 'plain'])), max_size=12))
def test_module_books_in_any_order(steps):
    "Any sequence of assignments to two parameters and two modules: the same names afterwards, the same refusals on the way"
    ours, torchs = type('A', (fc.Module,), {})(), nn.Module()
    for i, (k, what) in enumerate(steps):
        fails = []
        for m in (ours, torchs):
            try:
                value = {'good': P(i+1), 'none': None, 'plain': i}[what]
                if what == 'good' and k in 'mo':
                    value = type(m)()
                    value.w = P(i+1)
                setattr(m, k, value)
                fails.append(None)
            except TypeError as e: fails.append(type(e))
        assert fails[0] == fails[1], (k, what)
    assert [(k, p.shape) for k, p in ours.named_parameters()] == [(k, p.shape) for k, p in torchs.named_parameters()]

def test_a_name_can_change_its_kind_and_come_back():
    m = fc.Module()
    m.a, m.b = P(), P(2)
    m.a = fc.Linear(1, 1)
    assert names(m) == ['b', 'a.weight', 'a.bias'] and m.children() == [m.a]
    del m.a
    assert names(m) == ['b'] and m.children() == [] and not hasattr(m, 'a')
    m.a = P(3)
    assert sorted(names(m)) == ['a', 'b']
    assert next(m.parameters()) is m.a

def test_parameters_as_arguments():
    "What a module was called with is kept, and is no part of it"
    p, layer = P(2, 3), fc.ReLU()
    layer(p)
    assert names(layer) == [] and layer.backward(torch.ones(2, 3)).shape == (2, 3)

def test_backward_of_a_layer_needs_a_gradient():
    "Without one it starts from 1, as for a loss, and that fits no layer's output"
    for layer in (fc.ReLU(), fc.Linear(2, 2), fc.Sequential(fc.Linear(2, 2))):
        layer(torch.ones(3, 2))
        with pytest.raises(ValueError, match=r'g \(\)'): layer.backward()

def test_no_super_init_needed():
    class M(fc.Module):
        def __init__(self): self.l, self.n = fc.Linear(2, 3), 7
        def forward(self, x): return self.l(x)
    m = M()
    assert names(m) == ['l.weight', 'l.bias'] and m.n == 7 and list(m.parameters())[0] is m.l.weight
    assert list(fc.ReLU().parameters()) == [] and fc.ReLU().children() == []

@pytest.mark.parametrize('value', [lambda: [fc.Linear(1, 1)], lambda: (nn.Parameter(torch.ones(1)),), lambda: {'a': fc.ReLU()}, lambda: nn.Linear(1, 1)])
def test_lost_parameters_are_refused(value):
    with pytest.raises(TypeError, match='would get lost'): fc.Module().layers = value()

def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match='layer 1 must be a Module, not function'): fc.Sequential(fc.ReLU(), fc.relu)

def test_backward_needs_a_call():
    m = fc.Sequential(fc.Linear(2, 2), fc.ReLU())
    with pytest.raises(RuntimeError, match='Sequential.backward'): m.backward(torch.ones(1, 2))
    m(torch.ones(1, 2))
    m.backward(torch.ones(1, 2))
    with pytest.raises(RuntimeError): m.backward(torch.ones(1, 2))
    twice = fc.Linear(2, 2)  # one layer in two places: refused, since its `.grad` can hold one of the two only
    m = fc.Sequential(twice, twice)
    m(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match='Linear.backward'): m.backward(torch.ones(1, 2))

def test_input_grad_leaves_out_what_nobody_needs():
    "Only the first layer goes without the gradient of its input, however deep it is inside"
    went = []
    class Spy(fc.Linear):
        def bwd(self, g, x):
            g_x = super().bwd(g, x)
            if g_x is not None: went.append(x.shape[1])
            return g_x
    model, x, g = fc.Sequential(fc.Sequential(Spy(5, 4), fc.ReLU()), Spy(4, 3)), torch.randn(7, 5), torch.randn(7, 3)
    model(x)
    assert model.backward(g).shape == x.shape and went == [4, 5]
    grads = [p.grad for p in model.parameters()]
    model(x)
    assert model.backward(g, input_grad=False) is None and went == [4, 5, 4]
    for p, first in zip(model.parameters(), grads, strict=True): assert p.grad.equal(first) and p.grad is not first
    model(x)
    assert model.backward(g).shape == x.shape and went == [4, 5, 4, 4, 5]  # the next one may want it again
    with pytest.raises(RuntimeError, match='call the module first'): model.backward(g, input_grad=False)
    empty = fc.Sequential()
    empty(x)
    assert empty.backward(x, input_grad=False) is x

def test_a_bwd_of_ones_own_is_used_in_training_too():
    class Half(fc.Linear):
        def bwd(self, g, x): return super().bwd(g/2, x)
    class Through(fc.Sequential):
        def bwd(self, g, x): return super().bwd(g, x)
    model, plain, x, g = Through(Half(3, 2)), fc.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    for m in (plain, model):
        m(x)
        m.backward(g, input_grad=False)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True): assert torch.allclose(2*p.grad, q.grad)

def test_abstract_module():
    with pytest.raises(NotImplementedError, match='Module must define forward'): fc.Module()(1)

def test_copies_and_pickles():
    m = pair()[0]
    for c in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert names(c) == names(m)
        for a, b in zip(m.parameters(), c.parameters(), strict=True): assert a is not b and torch.equal(a, b)
        x = randn(3, 6)
        assert torch.equal(m(x), c(x))
        for p in c.parameters(): p += 1
        assert not torch.equal(m(x), c(x))

def test_repr():
    assert repr(pair()[0]) == ('Sequential(0: Linear(weight (5, 6), bias (5,)), 1: ReLU(), 2: Sequential(0: Linear(weight (4, 5), bias (4,)), 1: ReLU()), '
                               '3: Linear(weight (1, 4), bias (1,)))')
    assert repr(fc.Linear(2, 1, bias=False)) == 'Linear(weight (1, 2))'

# Errors: ValueError, with both shapes, with asserts on and off

t = torch.ones
WRONG = [  # expression, and what the message must hold
    ("fc.lin(t(5,4), t(3,2))", ['(5, 4)', '(3, 2)']), ("fc.lin(t(4), t(4,2))", ['(4,)', '(4, 2)']), ("fc.lin(t(2,5,4), t(4,2))", ['(2, 5, 4)', '(4, 2)']),
    ("fc.lin(t(5,4), t(4,2), t(1))", ['(1,)', '(4, 2)']), ("fc.lin(t(5,4), t(4,2), t(5,2))", ['(5, 2)', '(4, 2)']), ("fc.lin(t(0,4), t(4,2))", ['empty batch', '(0, 4)']),
    ("fc.mse(t(5), t(5))", ['pred (5,)', 'targ (5,)']), ("fc.mse(t(5,1), t(5,1))", ['(5, 1)', 'targ (5, 1)']), ("fc.mse(t(5,1), t(1))", ['(5, 1)', '(1,)']),
    ("fc.mse(t(5,2), t(5))", ['(5, 2)', '(5,)']), ("fc.mse(t(0,1), t(0))", ['empty batch']), ("fc.mse(t(()), t(()))", ['()']),
    ("fc.mse_grad(t(5), t(5))", ['(5,)']), ("fc.mse_grad(t(5,1), t(4))", ['(5, 1)', '(4,)']), ("fc.mse_grad(t(0,1), t(0))", ['empty batch']),
    ("fc.relu_grad(t(5,1), t(5))", ['(5, 1)', '(5,)']), ("fc.relu_grad(t(1), t(5,1))", ['(1,)', '(5, 1)']), ("fc.relu_grad(t(0,3), t(0,3))", ['empty batch']),
    ("fc.lin_grad(t(5,2), t(5,4), t(3,2))", ['(5, 4)', '(3, 2)']), ("fc.lin_grad(t(5,3), t(5,4), t(4,2))", ['(5, 3)', '(5, 4)', '(4, 2)']),
    ("fc.lin_grad(t(1,2), t(5,4), t(4,2))", ['(1, 2)', '(5, 2)']), ("fc.lin_grad(t(0,2), t(0,4), t(4,2))", ['empty batch']),
    ("fc.Linear(3,2)(t(5,4))", ['(5, 4)', '(3, 2)']), ("fc.Linear(3,2)(t(0,3))", ['empty batch']), ("fc.Linear(0,2)", ['(2, 0)']),
    ("fc.fans(t(3))", ['(3,)']), ("fc.fans(t(3,0))", ['(3, 0)']), ("fc.kaiming_normal_(t(3))", ['(3,)']), ("fc.kaiming_uniform_(t(3,2), mode='in')", ["'in'"]),
    ("fc.normalize(t(3), 0., 0.)", ['above 0']), ("fc.normalize(t(3), 0., float('nan'))", ['above 0']),
    ("fc.ReLUFunction.apply(t(0,2,requires_grad=True)).sum().backward()", ['empty batch']),
]

@pytest.mark.parametrize('code,parts', WRONG, ids=[c for c, _ in WRONG])
def test_wrong_input(code, parts):
    with pytest.raises(ValueError) as e: eval(code, {'fc': fc, 't': t})
    for p in parts: assert p in str(e.value)

def test_wrong_input_without_asserts():
    "`python -O` drops assert statements: the errors must not be among them"
    code = ("import sys, torch\nfrom notes import fully_connected as fc\nt = torch.ones\nassert False, 'asserts are on'\n"
            f"for code, parts in {WRONG!r}:\n    try: eval(code)\n    except ValueError as e:\n        if all(p in str(e) for p in parts): continue\n    sys.exit(code)\n")
    r = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr

"""`notes.fully_connected` against PyTorch: values, initialisation, and its errors (with `python -O` too)"""
import math, subprocess, sys
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import nn
from notes import exports as ex, fully_connected as fc
from draws import layouts, randn, seeds, sizes, some

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
    assert fc.mse_grad(torch.tensor(1.), pred, targ).shape == pred.shape

@pytest.mark.parametrize('g', [1., math.inf, math.nan])
def test_relu_corner_and_what_is_not_finite(g):
    "0 where x is 0 or less, whatever comes back: 0 times infinity would not be 0"
    x = torch.tensor([-1., -0., 0., 1., math.inf, -math.inf, math.nan])
    assert torch.equal(fc.relu(x).nan_to_num(7., 8.), F.relu(x).nan_to_num(7., 8.))
    leaf = x.clone().requires_grad_()
    F.relu(leaf).backward(torch.full((7,), g))
    ours = fc.relu_grad(torch.full((7,), g), x)
    assert torch.equal(ours.nan_to_num(7., 8.), leaf.grad.nan_to_num(7., 8.)) and not ours[:3].any()

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_relu_keeps_the_dtype(dtype):
    x = torch.tensor([3, 0, 250 if dtype == torch.uint8 else -2]).to(dtype)
    assert fc.relu(x).dtype == dtype and torch.equal(fc.relu(x), F.relu(x))

def test_relu_in_autograd_is_relu_grad():
    "At 0, too, where `clamp_min` would pass the gradient on"
    x = torch.tensor([-1., -0., 0., 1., math.inf, -math.inf, math.nan], requires_grad=True)
    g, = torch.autograd.grad(fc.relu(x).sum(), x)
    assert torch.equal(g, torch.autograd.grad(F.relu(x).sum(), x)[0]) and torch.equal(g, fc.relu_grad(torch.ones(7), x.detach()))

@pytest.mark.parametrize('pred_dtype', [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('targ_dtype', [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8], ids=str)
def test_mse_of_two_dtypes(pred_dtype, targ_dtype):
    "The loss is in the wider one, as PyTorch's, and the gradient in that of the predictions"
    from notes import modules as mo
    pred, targ = torch.tensor([[1.], [2.5], [3.]], dtype=pred_dtype), torch.tensor([1, 7, 2]).to(targ_dtype)
    leaf, loss = pred.clone().requires_grad_(), mo.MSE()
    want = F.mse_loss(leaf[:, 0], targ)
    want.backward()
    got = loss(pred, targ)
    assert got.dtype == want.dtype and torch.equal(got, want.detach())
    got = loss.backward()
    assert got.dtype == pred_dtype
    ex.test_near(got, leaf.grad, rtol=1e-3 if torch.float16 in (pred_dtype, targ_dtype) else 1e-6)

def test_a_step_with_targets_of_float64():
    from notes import modules as mo, training as tr
    net, loss = mo.Sequential(mo.Linear(3, 4), mo.ReLU(), mo.Linear(4, 1)), mo.MSE()
    tr.backprop(loss(net(randn(5, 3)), randn(5, seed=1).double()), net, loss)
    assert [p.grad.dtype for p in net.parameters()] == [torch.float32]*4

def test_loss_gradients_take_one_number():
    pred, targ = randn(4, 1), randn(4)
    assert torch.equal(fc.mse_grad(torch.tensor(3.), pred, targ), 3*fc.mse_grad(torch.tensor(1.), pred, targ))
    with pytest.raises(ValueError, match=r'g \(4,\)'): fc.mse_grad(torch.ones(4), pred, targ)

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

def test_network_equals_numpy():
    x, y = randn(7, 6).double(), randn(7, seed=1).double()
    w1, b1, w2, b2 = (randn(*s, seed=i+2).double() for i, s in enumerate(((6, 5), (5,), (5, 1), (1,))))
    l1 = fc.lin(x, w1, b1)
    l2 = fc.relu(l1)
    g, gw2, gb2 = fc.lin_grad(fc.mse_grad(torch.tensor(1.), fc.lin(l2, w2, b2), y), l2, w2, b2)
    gx, gw1, gb1 = fc.lin_grad(fc.relu_grad(g, l1), x, w1, b1)
    X, Y, W1, B1, W2, B2 = (t.numpy() for t in (x, y, w1, b1, w2, b2))
    L1 = X@W1 + B1
    L2 = np.maximum(L1, 0)
    G = 2*(L2@W2 + B2 - Y[:, None])/len(Y)
    G1 = (G@W2.T)*(L1 > 0)
    for a, b in ((gw2, L2.T@G), (gb2, G.sum(0)), (gw1, X.T@G1), (gb1, G1.sum(0)), (gx, G1@W1.T)): ex.test_near(a, torch.from_numpy(b), rtol=1e-10, atol=1e-12)

# Errors: ValueError, with both shapes, with asserts on and off

t, one = torch.ones, torch.tensor(1.)
WRONG = [  # expression, and what the message must hold
    ("fc.lin(t(5,4), t(3,2))", ['(5, 4)', '(3, 2)']), ("fc.lin(t(4), t(4,2))", ['(4,)', '(4, 2)']), ("fc.lin(t(2,5,4), t(4,2))", ['(2, 5, 4)', '(4, 2)']),
    ("fc.lin(t(5,4), t(4,2), t(1))", ['(1,)', '(4, 2)']), ("fc.lin(t(5,4), t(4,2), t(5,2))", ['(5, 2)', '(4, 2)']), ("fc.lin(t(0,4), t(4,2))", ['empty batch', '(0, 4)']),
    ("fc.mse(t(5), t(5))", ['pred (5,)', 'targ (5,)']), ("fc.mse(t(5,1), t(5,1))", ['(5, 1)', 'targ (5, 1)']), ("fc.mse(t(5,1), t(1))", ['(5, 1)', '(1,)']),
    ("fc.mse(t(5,2), t(5))", ['(5, 2)', '(5,)']), ("fc.mse(t(0,1), t(0))", ['empty batch']), ("fc.mse(t(()), t(()))", ['()']),
    ("fc.mse_grad(one, t(5), t(5))", ['(5,)']), ("fc.mse_grad(one, t(5,1), t(4))", ['(5, 1)', '(4,)']), ("fc.mse_grad(one, t(0,1), t(0))", ['empty batch']),
    ("fc.relu_grad(t(5,1), t(5))", ['(5, 1)', '(5,)']), ("fc.relu_grad(t(1), t(5,1))", ['(1,)', '(5, 1)']), ("fc.relu_grad(t(0,3), t(0,3))", ['empty batch']),
    ("fc.lin_grad(t(5,2), t(5,4), t(3,2))", ['(5, 4)', '(3, 2)']), ("fc.lin_grad(t(5,3), t(5,4), t(4,2))", ['(5, 3)', '(5, 4)', '(4, 2)']),
    ("fc.lin_grad(t(1,2), t(5,4), t(4,2))", ['(1, 2)', '(5, 2)']), ("fc.lin_grad(t(0,2), t(0,4), t(4,2))", ['empty batch']), ("fc.lin_grad(t(5,2), t(5,4), t(4,2), t(1))", ['(1,)', '(4, 2)']),
    ("fc.lin(t(5,4), t(4,2).double())", ['x torch.float32', 'w torch.float64']), ("fc.lin(t(5,4), t(4,2), t(2).double())", ['b torch.float64', 'w torch.float32']), ("fc.lin(t(5,4).long(), t(4,2))", ['x torch.int64']),
    ("fc.lin_grad(t(5,2).double(), t(5,4), t(4,2), t(2))", ['g torch.float64', 'x torch.float32']), ("fc.mse(t(5,1).long(), t(5))", ['pred', 'torch.int64']), ("fc.mse_grad(one, t(5,1).long(), t(5).long())", ['pred', 'torch.int64']),
    ("fc.fans(t(3))", ['(3,)']), ("fc.fans(t(3,0))", ['(3, 0)']), ("fc.kaiming_normal_(t(3))", ['(3,)']), ("fc.kaiming_uniform_(t(3,2), mode='in')", ["'in'"]),
    ("fc.normalize(t(3), 0., 0.)", ['above 0']), ("fc.normalize(t(3), 0., float('nan'))", ['above 0']),
    ("fc.ReLUFunction.apply(t(0,2,requires_grad=True)).sum().backward()", ['empty batch']),
]

@pytest.mark.parametrize('code,parts', WRONG, ids=[c for c, _ in WRONG])
def test_wrong_input(code, parts):
    with pytest.raises(ValueError) as e: eval(code, {'fc': fc, 't': t, 'one': one})
    for p in parts: assert p in str(e.value)

def test_wrong_input_without_asserts():
    "`python -O` drops assert statements: the errors must not be among them"
    code = ("import sys, torch\nfrom notes import fully_connected as fc\nt, one = torch.ones, torch.tensor(1.)\nassert False, 'asserts are on'\n"
            f"for code, parts in {WRONG!r}:\n    try: eval(code)\n    except ValueError as e:\n        if all(p in str(e) for p in parts): continue\n    sys.exit(code)\n")
    r = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr

# Checks of gradients

@some
@given(st.lists(st.integers(0, 4), max_size=3), st.booleans(), st.integers(0, 99))
def test_numerical_grad_of_any_shape_and_stride(shape, flip, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if flip: x = x.permute(tuple(reversed(range(x.dim()))))
    before = x.clone()
    g = fc.numerical_grad(lambda t: (t**3+t.sin()).sum(), x)
    assert torch.equal(x, before) and g.shape == x.shape
    assert ex.rel_error(g, 3*x**2+x.cos()) < 1e-8

def test_numerical_grad_with_a_function_that_works_in_place():
    x = torch.tensor([-1., 2., 3.], dtype=torch.float64)
    g = fc.numerical_grad(lambda t: t.mul_(2).clamp_min_(0).pow_(2).sum(), x, eps=1e-5)
    assert ex.rel_error(g, 8*x.clamp_min(0)) < 1e-8 and x.tolist() == [-1, 2, 3]

def test_numerical_grad_takes_leaves_expanded_tensors_numbers_and_its_width():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert fc.numerical_grad(lambda t: (3*t).sum().item(), x).tolist() == pytest.approx([3, 3])
    assert fc.numerical_grad(lambda t: t.sum()[None], x.detach()[:1].expand(2, 3)).sum().item() == pytest.approx(6)
    assert fc.numerical_grad(lambda t: t**3, torch.tensor(1., dtype=torch.float64), eps=.5).item() == pytest.approx(3.25)

def test_numerical_grad_puts_every_element_back():
    "Exact for a product at any width, as long as only one element moves"
    x = torch.tensor([2., 3., 4.], dtype=torch.float64)
    assert fc.numerical_grad(torch.prod, x, eps=1.).tolist() == [12, 8, 6]

def test_numerical_grad_refuses():
    x = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match='x is torch.float32'): fc.numerical_grad(torch.sum, x.float())
    with pytest.raises(ValueError, match=r'one number.*\(2,\)'): fc.numerical_grad(lambda t: t, x)
    with pytest.raises(ValueError, match='returned torch.float32'): fc.numerical_grad(lambda t: t.float().sum(), x)

def _xw(): return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
def _f(x, w): return (x**2*w).sum()

def test_check_grads_accepts_the_right_gradients():
    x, w = _xw()
    res = fc.check_grads(_f, dict(x=x, w=w), dict(x=2*x*w, w=x**2))
    assert all(e < 1e-8 for es in res.values() for e in es) and res.keys() == {'x', 'w'}
    assert repr(res).splitlines() == ['tensor  numerical  autograd', 'x         < 1e-06   < 1e-06', 'w         < 1e-06   < 1e-06']
    fc.check_grads(lambda x, w: (x**2).sum(), dict(x=x, w=w), dict(x=2*x, w=torch.zeros_like(w)))   # w plays no part

@pytest.mark.parametrize('spoil,name', [(lambda g: g*(1+1e-5), 'x'), (lambda g: -g, 'w'), (lambda g: g*0, 'x'), (lambda g: g*math.nan, 'w'), (lambda g: g.flip(0), 'x')])
def test_check_grads_catches(spoil, name):
    x, w = _xw()
    gs = dict(x=2*x*w, w=x**2)
    gs[name] = spoil(gs[name])
    with pytest.raises(AssertionError, match='tensor  numerical  autograd'): fc.check_grads(_f, dict(x=x, w=w), gs)

def test_check_grads_needs_both_witnesses():
    "A backward of PyTorch's that is wrong agrees with the same slip made by hand; differences don't"
    class Slip(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2
        @staticmethod
        def backward(ctx, g): return g*ctx.saved_tensors[0]
    x = _xw()[0]
    with pytest.raises(AssertionError) as e: fc.check_grads(lambda x: Slip.apply(x).sum(), dict(x=x), dict(x=x))
    assert str(e.value).splitlines()[-1].split() == ['x', '0.5', '<', '1e-06']
    with pytest.raises(AssertionError) as e: fc.check_grads(lambda x: Slip.apply(x).sum(), dict(x=x), dict(x=2*x))
    assert str(e.value).splitlines()[-1].split() == ['x', '<', '1e-06', '0.5']

def test_check_grads_refuses_what_does_not_fit():
    x, w = _xw()
    with pytest.raises(ValueError, match='gradients for'): fc.check_grads(_f, dict(x=x, w=w), dict(x=x))
    with pytest.raises(ValueError, match=r'\(4,\) and \(3, 4\)'): fc.check_grads(_f, dict(x=x, w=w), dict(x=x[0], w=x**2))
    with pytest.raises(ValueError, match='float64'): fc.check_grads(_f, dict(x=x.float(), w=w.float()), dict(x=x, w=w))

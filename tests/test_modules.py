"""`notes.modules` against PyTorch: the books of `Module`, what it keeps, hooks, buffers, `Linear`, chains and branches, and its errors (with `python -O` too)"""
import copy, gc, importlib, inspect, math, pickle, pkgutil, subprocess, sys, weakref
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import nn
import notes
from notes import convolutions as cv, exports as ex, fully_connected as fc, hooks, modules as mo, training as tr
from notes.normalization import BatchNorm1d as BatchNorm
from draws import F64, layouts, randn, seeds, sizes, some

# Linear and Sequential

@some
@given(n=sizes, i=sizes, o=sizes, seed=seeds, bias=st.booleans(), layout=layouts)
def test_linear(n, i, o, seed, bias, layout):
    torch.manual_seed(seed)
    ours = mo.Linear(i, o, bias)
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
    ex.test_near(mo.Linear(400, 500, a=0).weight.std(), math.sqrt(2/400), rtol=.01)

def pair():
    torch.manual_seed(0)
    ours = mo.Sequential(mo.Linear(6, 5), mo.ReLU(), mo.Sequential(mo.Linear(5, 4), mo.ReLU()), mo.Linear(4, 1))
    torch.manual_seed(0)
    return ours, nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 4), nn.ReLU()), nn.Linear(4, 1))

def test_training_equals_pytorch_step_for_step():
    ours, torchs = pair()
    opt, opt2, loss_func = torch.optim.SGD(torchs.parameters(), lr=.05), torch.optim.SGD(ours.parameters(), lr=.05), mo.MSE()
    losses = []
    for i in range(30):
        x, y = randn(8, 6, seed=i), randn(8, seed=100+i)
        loss = loss_func(ours(x), y)
        opt2.zero_grad()
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

# Module, next to nn.Module

def names(m): return [k for k, _ in m.named_parameters()]
def P(*shape): return nn.Parameter(torch.ones(shape or (1,)))

def both(script):
    "Run `script(module, child)` on our Module and on nn.Module; each must leave the same names and the same tensors, or fail with a TypeError both"
    out = []
    for Base in (mo.Module, nn.Module):
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
    ours, torchs = type('A', (mo.Module,), {})(), nn.Module()
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
    m = mo.Module()
    m.a, m.b = P(), P(2)
    m.a = mo.Linear(1, 1)
    assert names(m) == ['b', 'a.weight', 'a.bias'] and m.children() == [m.a]
    del m.a
    assert names(m) == ['b'] and m.children() == [] and not hasattr(m, 'a')
    m.a = P(3)
    assert names(m) == ['b', 'a'] and [*m.parameters()][1] is m.a

def test_parameters_as_arguments():
    "What a module was called with is kept, and is no part of it"
    p, layer = P(2, 3), mo.ReLU()
    layer(p)
    assert names(layer) == [] and layer.backward(torch.ones(2, 3)).shape == (2, 3)

def test_backward_of_a_layer_needs_a_gradient():
    "Without one it starts from 1, as for a loss, and that fits no layer's output"
    for layer in (mo.ReLU(), mo.Linear(2, 2), mo.Sequential(mo.Linear(2, 2))):
        layer(torch.ones(3, 2))
        with pytest.raises(ValueError, match=r'g \(\)'): layer.backward()

def test_no_super_init_needed():
    class M(mo.Module):
        def __init__(self): self.l, self.n = mo.Linear(2, 3), 7
        def forward(self, x): return self.l(x)
    m = M()
    assert names(m) == ['l.weight', 'l.bias'] and m.n == 7 and list(m.parameters())[0] is m.l.weight
    assert list(mo.ReLU().parameters()) == [] and mo.ReLU().children() == []

@pytest.mark.parametrize('value', [lambda: [mo.Linear(1, 1)], lambda: (nn.Parameter(torch.ones(1)),), lambda: {'a': mo.ReLU()}])
def test_lost_parameters_are_refused(value):
    with pytest.raises(TypeError, match='would get lost'): mo.Module().layers = value()

def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match='layer 1 must be a Module, not function'): mo.Sequential(mo.ReLU(), fc.relu)

def test_backward_needs_a_call():
    m = mo.Sequential(mo.Linear(2, 2), mo.ReLU())
    with pytest.raises(RuntimeError, match='Sequential.backward'): m.backward(torch.ones(1, 2))
    m(torch.ones(1, 2))
    m.backward(torch.ones(1, 2))
    with pytest.raises(RuntimeError): m.backward(torch.ones(1, 2))
    twice = mo.Linear(2, 2)  # one layer in two places: refused, since it keeps one of the two calls only
    m = mo.Sequential(twice, twice)
    m(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match='Linear.backward: it was called 2 times.*share the weight'): m.backward(torch.ones(1, 2))

def test_input_grad_leaves_out_what_nobody_needs():
    "Only the first layer goes without the gradient of its input, however deep it is inside"
    went = []
    class Spy(mo.Linear):
        def bwd(self, g, x):
            g_x = super().bwd(g, x)
            if g_x is not None: went.append(x.shape[1])
            return g_x
    model, x, g = mo.Sequential(mo.Sequential(Spy(5, 4), mo.ReLU()), Spy(4, 3)), torch.randn(7, 5), torch.randn(7, 3)
    model(x)
    assert model.backward(g).shape == x.shape and went == [4, 5]
    grads = [p.grad for p in model.parameters()]
    model.zero_grad()
    model(x)
    assert model.backward(g, input_grad=False) is None and went == [4, 5, 4]
    for p, first in zip(model.parameters(), grads, strict=True): assert p.grad.equal(first) and p.grad is not first
    model(x)
    assert model.backward(g).shape == x.shape and went == [4, 5, 4, 4, 5]  # the next one may want it again
    with pytest.raises(RuntimeError, match='call the module first'): model.backward(g, input_grad=False)
    empty = mo.Sequential()
    empty(x)
    assert empty.backward(x, input_grad=False) is x

def test_a_bwd_of_ones_own_is_used_in_training_too():
    class Half(mo.Linear):
        def bwd(self, g, x): return super().bwd(g/2, x)
    class Through(mo.Sequential):
        def bwd(self, g, x): return super().bwd(g, x)
    model, plain, x, g = Through(Half(3, 2)), mo.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    for m in (plain, model):
        m(x)
        m.backward(g, input_grad=False)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True): assert torch.allclose(2*p.grad, q.grad)

def test_abstract_module():
    with pytest.raises(NotImplementedError, match='Module must define forward'): mo.Module()(1)

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
    assert repr(mo.Linear(2, 1, bias=False)) == 'Linear(weight (1, 2))'

# What is kept for the backward pass

def kept(m): return [k for k, v in m.named_modules() if '_saved' in vars(v)]

def test_nothing_is_kept_without_gradients():
    model, loss_func, x = pair()[0], mo.MSE(), randn(9, 6)
    for off in (torch.no_grad, torch.inference_mode):
        with off(): loss_func(model(x), randn(9))
        assert kept(model) == kept(loss_func) == []
        with pytest.raises(RuntimeError, match='with gradients on'): model.backward(torch.ones(9, 1))
    model(x)
    assert len(kept(model)) == len(list(model.modules()))
    model.backward(torch.ones(9, 1))
    assert kept(model) == []

def test_a_call_without_gradients_leaves_what_is_kept_alone():
    "As when a callback predicts between forward and backward"
    ours, torchs = pair()
    x, other, g = randn(9, 6), randn(5, 6, seed=1), randn(9, 1, seed=2)
    ours(x)
    with torch.no_grad(): ours(other)
    out = torchs(x)
    out.backward(g)
    ours.backward(g)
    for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): assert ex.rel_error(p.grad, q.grad) < 1e-5

def test_memory_is_let_go():
    model, x = pair()[0], randn(9, 6)
    ref = weakref.ref(x)
    with torch.no_grad(): model(x)
    del x
    gc.collect()
    assert ref() is None

class Chosen(mo.Module):
    def __init__(self): self.choose = True
    def forward(self, x):
        out = x.exp()
        if self.choose: self.save_for_backward(out, 'more')
        if x.isnan().any(): raise ArithmeticError
        return out
    def bwd(self, g, out, more=None): return g*out if more else g*out.exp()

def test_forward_chooses_what_is_kept():
    m, x, g = Chosen(), randn(3, 2, dtype=F64), randn(3, 2, seed=1, dtype=F64)
    m(x)
    fc.check_grads(lambda x: (x.exp()*g).sum(), dict(x=x), dict(x=m.backward(g)))
    m(x)
    m.choose = False
    with torch.no_grad(): m(x)
    assert torch.equal(m.backward(g), g*x.exp())
    for off in (False, True):  # a choice that no call took over must not reach the next one
        m.choose = True
        with pytest.raises(ArithmeticError), torch.set_grad_enabled(not off): m(torch.tensor(math.nan))
        m.choose = False
        m(x)
        assert torch.equal(m.backward(g), g*x.exp())
    m.choose = True
    with torch.no_grad(): m(x)
    assert not {'_saved', '_chosen'} & vars(m).keys()

def test_only_the_last_of_several_calls_counts():
    ours, x, y, g = pair()[0], randn(3, 6), randn(4, 6, seed=1), randn(4, 1)
    ours(x)  # somebody only looked
    ours(y)
    assert ours.backward(g).shape == y.shape
    fresh = pair()[0]
    fresh(y)
    fresh.backward(g)
    for p, q in zip(ours.parameters(), fresh.parameters(), strict=True): assert torch.equal(p.grad, q.grad)

def test_copies_and_pickles_hold_no_batch_and_no_hooks():
    "A trained model's pickle is its parameters, whatever the last call was"
    model, loss_func, x, y = mo.Sequential(mo.Linear(784, 50), mo.ReLU(), mo.Linear(50, 10)), tr.CrossEntropy(), randn(500, 784), torch.zeros(500, dtype=torch.int64)
    opt = tr.SGD(model.parameters(), .1)
    size = sum(p.numel()*p.element_size() for p in model.parameters())
    seen = []
    model[0].register_forward_hook(lambda *a: seen.append(1))
    for end in (lambda: None, lambda: model(x)):
        tr.backprop(loss_func(model(x), y), model, loss_func)
        opt.step()
        end()
        assert len(pickle.dumps(model)) < 1.2*size
        for c in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert kept(c) == [] and all(p.grad is None for p in c.parameters())
            n = len(seen)
            c(x[:2])
            assert len(seen) == n
    assert len(pickle.dumps(loss_func)) < 1000

# Gradients add up

def test_gradients_add_up_and_zero_grad_forgets():
    ours, torchs = pair()
    for i in range(3):
        x, g = randn(4, 6, seed=i), randn(4, 1, seed=9+i)
        ours(x)
        ours.backward(g, input_grad=i % 2 == 0)
        torchs(x).backward(g)
        for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): assert ex.rel_error(p.grad, q.grad) < 1e-5
    ours.zero_grad()
    assert all(p.grad is None for p in ours.parameters())

def test_accumulate_grad_does_not_change_what_it_was_given():
    p, g = nn.Parameter(torch.zeros(2), requires_grad=False), torch.ones(2)
    mo.accumulate_grad(p, g)
    mo.accumulate_grad(p, torch.ones(2))
    assert torch.equal(g, torch.ones(2)) and torch.equal(p.grad, torch.full((2,), 2.))
    with pytest.raises(ValueError, match=r'shape \(1,\).*\(2,\)'): mo.accumulate_grad(p, torch.ones(1))

class Twice(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
        self.b.weight = self.a.weight
        for l, m in ((self.a, a), (self.b, b)): l.load_state_dict(m.state_dict())
    def forward(self, x): return self.b(torch.relu(self.a(x)))

def test_two_layers_with_one_weight():
    a, b, x, g = mo.Linear(4, 4, dtype=F64), mo.Linear(4, 4, dtype=F64), randn(5, 4, dtype=F64), randn(5, 4, seed=1, dtype=F64)
    b.weight = a.weight
    ours = mo.Sequential(a, mo.ReLU(), b)
    torchs, xt = Twice(a, b), x.clone().requires_grad_()
    ours(x)
    torchs(xt).backward(g)
    assert ex.rel_error(ours.backward(g), xt.grad) < 1e-12
    assert names(ours) == ['0.weight', '0.bias', '2.bias']
    for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): assert ex.rel_error(p.grad, q.grad) < 1e-12
    assert list(ours.state_dict()) == ['0.weight', '0.bias', '2.weight', '2.bias']  # both names, as PyTorch's
    opt = tr.SGD(ours.parameters(), 1.)
    before, grad = a.weight.clone(), a.weight.grad.clone()
    opt.step()
    assert a.weight is b.weight and ex.rel_error(before - a.weight, grad) < 1e-12  # moved once

# Branches

def block(n): return mo.Sequential(mo.Sum(mo.Sequential(mo.Linear(n, n), mo.ReLU(), mo.Linear(n, n)), mo.Identity()), mo.ReLU())

class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n, n), nn.ReLU(), nn.Linear(n, n))
    def forward(self, x): return torch.relu(self.body(x) + x)

@some
@given(n=sizes, i=st.integers(1, 6), h=st.integers(1, 6), seed=seeds, input_grad=st.booleans(), layout=layouts)
def test_residual_network_equals_autograd(n, i, h, seed, input_grad, layout):
    torch.manual_seed(seed)
    ours = mo.Sequential(mo.Linear(i, h), block(h), block(h), mo.Linear(h, 2)).to(F64)
    torchs = nn.Sequential(nn.Linear(i, h), Block(h), Block(h), nn.Linear(h, 2)).double()
    torchs.load_state_dict(dict(zip(torchs.state_dict(), ours.state_dict().values(), strict=True)))
    x, g = randn(n, i, seed=seed, layout=layout, dtype=F64), randn(n, 2, seed=seed+1, layout=layout, dtype=F64)
    xt = x.clone().requires_grad_()
    out = torchs(xt)
    assert ex.rel_error(ours(x), out) < 1e-10
    out.backward(g)
    gx = ours.backward(g, input_grad)
    assert gx is None if not input_grad else ex.rel_error(gx, xt.grad) < 1e-10
    for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): assert ex.rel_error(p.grad, q.grad) < 1e-10

def test_residual_convolutions_equal_autograd():
    torch.manual_seed(0)
    def conv(lib, i, o, k, **kw): return lib.Conv2d(i, o, k, dtype=F64, **kw)
    ours = mo.Sequential(mo.Sum(mo.Sequential(conv(cv, 2, 3, 3, padding=1, stride=2), mo.ReLU(), conv(cv, 3, 3, 3, padding=1)), conv(cv, 2, 3, 1, stride=2, bias=False)), mo.ReLU())
    body, skip = nn.Sequential(conv(nn, 2, 3, 3, padding=1, stride=2), nn.ReLU(), conv(nn, 3, 3, 3, padding=1)), conv(nn, 2, 3, 1, stride=2, bias=False)
    for m, o in ((body, ours[0][0]), (skip, ours[0][1])): m.load_state_dict(o.state_dict())
    x = randn(2, 2, 7, 5, dtype=F64)
    xt = x.clone().requires_grad_()
    out = torch.relu(body(xt) + skip(xt))
    g = randn(*out.shape, seed=1, dtype=F64)
    out.backward(g)
    assert ex.rel_error(ours(x), out) < 1e-10 and ex.rel_error(ours.backward(g), xt.grad) < 1e-10
    for p, q in zip(ours.parameters(), [*body.parameters(), *skip.parameters()], strict=True): assert ex.rel_error(p.grad, q.grad) < 1e-10

def test_sum_refuses_what_would_broadcast():
    with pytest.raises(ValueError, match=r'\(5, 1\), \(5, 3\)'): mo.Sum(mo.Linear(3, 1), mo.Identity())(torch.ones(5, 3))
    with pytest.raises(ValueError, match='one shape'): mo.Sum()(torch.ones(2))

def test_sequential_is_a_sequence():
    m = mo.Sequential(mo.Linear(1, 2), mo.ReLU(), mo.Linear(2, 3))
    t = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3))
    assert len(m) == len(t) == 3 and list(m) == [m[0], m[1], m[2]] == m.children() and m[-1] is m[2]
    assert m[1:][0] is m[1] and len(m[1:]) == 2 and type(m[:0]) is mo.Sequential and len(m[:0]) == 0
    with pytest.raises(IndexError): m[3]
    m[1] = mo.Identity()
    assert isinstance(m[1], mo.Identity) and len(m) == 3
    with pytest.raises(TypeError): m[0] = fc.relu
    assert len(mo.Sum(mo.ReLU(), mo.Identity())[1:]) == 1 and type(mo.Sum(mo.ReLU())[:]) is mo.Sum
    twice = mo.ReLU()
    assert len(mo.Sequential(twice, twice)) == 2 and mo.Sequential(twice, twice).children() == [twice]

# Buffers, state, moves, modes

def test_batch_norm_is_nns():
    "Outputs, gradients and buffers, in training and in evaluation; its state goes into the `nn` twin and back"
    ours, torchs = BatchNorm(3).to(F64), nn.BatchNorm1d(3).double()
    for i, mode in enumerate((True, True, False, True)):
        for m in (ours, torchs): m.train(mode)
        x, g = 2*randn(5, 3, seed=i, dtype=F64) + 1, randn(5, 3, seed=9+i, dtype=F64)
        xt = x.clone().requires_grad_()
        out = torchs(xt)
        out.backward(g)
        assert ex.rel_error(ours(x), out) < 1e-12 and ex.rel_error(ours.backward(g), xt.grad) < 1e-10
        for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): assert ex.rel_error(p.grad, q.grad) < 1e-12
        assert [k for k, _ in ours.named_buffers()] == [k for k, _ in torchs.named_buffers()]
        for a, b in zip(ours.buffers(), torchs.buffers(), strict=True): assert a.dtype == b.dtype and ex.rel_error(a, b) < 1e-12
    fresh, back = nn.BatchNorm1d(3).double(), BatchNorm(3).to(F64)
    assert str(fresh.load_state_dict(ours.state_dict())) == '<All keys matched successfully>'
    back.load_state_dict(fresh.state_dict())
    assert list(ours.state_dict()) == list(torchs.state_dict())
    for k, v in back.state_dict().items(): assert torch.equal(v, ours.state_dict()[k])

def test_buffers():
    m = mo.Module()
    m.register_buffer('a', torch.ones(2))
    m.register_buffer('b', torch.zeros(()), persistent=False)
    m.register_buffer('c', None)
    m.w = nn.Parameter(torch.ones(1))
    assert [k for k, _ in m.named_buffers()] == ['a', 'b'] and names(m) == ['w'] and list(m.state_dict()) == ['w', 'a']
    m.a = m.a + 1
    m.a += 1
    assert torch.equal(m.a, torch.full((2,), 3.)) and [k for k, _ in m.named_buffers()] == ['a', 'b']
    m.a, m.c = None, torch.ones(1)
    assert [k for k, _ in m.named_buffers()] == ['b', 'c'] and list(m.state_dict()) == ['w', 'c']
    m.register_buffer('b', torch.ones(()))
    assert list(m.state_dict()) == ['w', 'b', 'c']
    outer = mo.Sequential(m, m)
    assert [k for k, _ in outer.named_buffers()] == ['0.b', '0.c']
    for name, value, err in (('w', torch.ones(1), ValueError), ('forward', torch.ones(1), ValueError), ('x.y', torch.ones(1), ValueError), ('d', 3, TypeError),
                             ('d', nn.Parameter(torch.ones(1)), TypeError)):
        with pytest.raises(err): m.register_buffer(name, value)
    with pytest.raises(TypeError, match='registered as a buffer: assign one, or None, not int'): m.c = 3
    assert not hasattr(m, 'd')

def test_load_state_dict_checks_first():
    m = mo.Sequential(mo.Linear(2, 2), BatchNorm(2))
    good = copy.deepcopy(m.state_dict())
    for change in (lambda s: s.pop('1.running_var'), lambda s: s.update(more=torch.ones(1)), lambda s: s.update({'1.weight': torch.ones(3)}),
                   lambda s: s.update({'1.num_batches_tracked': 7})):
        bad = {k: v + 1 for k, v in good.items()}
        change(bad)
        with pytest.raises(ValueError, match='of another model'): m.load_state_dict(bad)
        assert all(torch.equal(v, good[k]) for k, v in m.state_dict().items())
    m.load_state_dict({k: v + 1 for k, v in good.items()})
    assert all(torch.equal(v, good[k] + 1) for k, v in m.state_dict().items())

@pytest.mark.parametrize('args,kwargs', [((F64,), {}), ((), dict(dtype=torch.float16)), (('meta',), {}), ((), dict(device='meta')), (('meta', torch.bfloat16), {}),
                                         ((), dict(device='meta', dtype=F64)), ((torch.ones(1, dtype=F64),), {})])
def test_to(args, kwargs):
    "As `nn.Module.to` does it, gradients and counting buffers included"
    ours, torchs = mo.Sequential(mo.Linear(2, 3), BatchNorm(3)), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torchs.load_state_dict(ours.state_dict())
    kind, kept_params = [], list(ours.parameters())
    for m in (ours, torchs):
        for p in m.parameters(): p.grad = torch.ones_like(p)
        assert m.to(*args, **kwargs) is m
        kind.append([(k, t.dtype, t.device.type) for k, t in m.state_dict().items()] + [(p.grad.dtype, p.grad.device.type, p.grad.shape) for p in m.parameters()])
    assert kind[0] == kind[1]
    assert all(p is q for p, q in zip(ours.parameters(), kept_params, strict=True))  # the optimiser's parameters still

def test_to_refuses_what_is_no_float():
    for dtype in (torch.int64, torch.bool):
        m = mo.Linear(2, 2)
        with pytest.raises(TypeError, match='floats'): m.to(dtype)
        assert m.weight.dtype == torch.float32

def test_eval_mode_puts_every_part_back():
    for lib in (mo, nn):
        m = lib.Sequential(lib.Linear(2, 2), lib.Sequential(lib.ReLU(), lib.Linear(2, 2)))
        m[1][0].eval()
        with pytest.raises(ZeroDivisionError), mo.eval_mode(m) as same:
            assert same is m and not any(p.training for p in m.modules())
            1/0
        assert [p.training for p in m.modules()] == [True, True, True, False, True]

class Frozen(mo.Module):
    def train(self, mode=True): return self

def test_a_part_decides_about_its_mode():
    m = mo.Sequential(Frozen(), mo.ReLU())
    assert m.eval()[0].training and not m[1].training

# Hooks

def test_one_hook_for_both_kinds():
    seen = []
    for m in pair():
        got = []
        handles = [l.register_forward_hook(lambda mod, args, out: got.append((type(mod).__name__, args[0].detach(), out.detach()))) for l in m]
        m(randn(4, 6))
        for h in handles: h.remove()
        m(randn(4, 6))
        seen.append(got)
    assert [k for k, *_ in seen[0]] == [k for k, *_ in seen[1]] == ['Linear', 'ReLU', 'Sequential', 'Linear']
    for (_, *ts), (_, *us) in zip(*seen, strict=True):
        for t, u in zip(ts, us, strict=True): ex.test_near(t, u, rtol=1e-4, atol=1e-5)

def test_hooks_come_and_go():
    m, seen = mo.ReLU(), []
    with m.register_forward_hook(lambda *a: seen.append('a')): m(torch.ones(1))
    def once(*a):
        seen.append('b')
        handle.remove()
    handle = m.register_forward_hook(once)
    m.register_forward_hook(lambda *a: seen.append('c'))
    for _ in range(2): m(torch.ones(1))
    handle.remove()  # a second time does no harm
    assert seen == ['a', 'b', 'c', 'c']
    for _ in range(1000): m.register_forward_hook(seen.append).remove()
    assert len(m._hooks) == 1

def test_hooks_may_change_nothing():
    m = mo.ReLU()
    m.register_forward_hook(lambda *a: a[-1])
    with pytest.raises(TypeError, match='a hook looks on'): m(torch.ones(1))

def test_gradients_are_told_when_they_are_complete():
    "In PyTorch's order of readiness: a shared weight once, with the sum of both"
    a, b = mo.Linear(4, 4, dtype=F64), mo.Linear(4, 4, dtype=F64)
    b.weight = a.weight
    model = mo.Sequential(mo.Linear(3, 4, dtype=F64), a, mo.ReLU(), b, mo.Linear(4, 1, dtype=F64))
    name, told = {id(p): k for k, p in model.named_parameters()}, []
    handle = model.register_post_accumulate_grad_hook(lambda p: told.append((name[id(p)], p.grad.clone())))
    for turn in range(2):
        model.zero_grad()
        told.clear()
        model(randn(5, 3, seed=turn, dtype=F64))
        model.backward(torch.ones(5, 1, dtype=F64), input_grad=False)
        assert [k for k, _ in told] == ['4.weight', '4.bias', '3.bias', '1.weight', '1.bias', '0.weight', '0.bias']
        for k, g in told: assert torch.equal(g, dict(model.named_parameters())[k].grad)
    handle.remove()
    model(randn(5, 3, dtype=F64))
    model.backward(torch.ones(5, 1, dtype=F64))
    assert len(told) == 7

class Tied(mo.Module):
    "Uses a parameter of its own part, before or after that part goes back"
    def __init__(self, first): self.part, self.first = mo.Linear(3, 3, bias=False, dtype=F64), first; self.w = self.part.weight
    def forward(self, x):
        h = self.part(x)
        self.save_for_backward(h)
        return h@self.w
    def bwd(self, g, h):
        mine, theirs = (lambda: mo.accumulate_grad(self.w, h.t()@g)), (lambda: self.part.backward(g@self.w.t()))
        return [f() for f in ((mine, theirs) if self.first else (theirs, mine))][self.first]

@pytest.mark.parametrize('first', [0, 1])
def test_a_gradient_of_a_part_and_its_whole_is_told_once(first):
    m, told = Tied(first), []
    m.register_post_accumulate_grad_hook(lambda p: told.append(p.grad.clone()))
    x, g = randn(5, 3, dtype=F64), randn(5, 3, seed=1, dtype=F64)
    m(x)
    gx = m.backward(g)
    w, xt = m.w.detach().clone().requires_grad_(), x.clone().requires_grad_()
    (xt@w.t()@w).backward(g)
    assert len(told) == 1 and ex.rel_error(told[0], w.grad) < 1e-12 and ex.rel_error(gx, xt.grad) < 1e-12

def test_a_gradient_that_was_kept_waiting_is_told_at_the_end():
    "By a look with gradients on, or since its layer came later; a parameter without a gradient isn't told"
    a, b = mo.Linear(3, 3), mo.Linear(3, 3)
    b.weight = a.weight
    m, told = mo.Sequential(a, mo.ReLU(), b), []
    m.idle = mo.Module()
    m.idle.p, m.idle.forward, m.idle.bwd = P(2), lambda x: x, lambda g, x: g
    m.register_post_accumulate_grad_hook(lambda p: told.append(p))
    for turn in range(2):
        m[0] = mo.Linear(3, 3) if turn else a
        if not turn: a(torch.ones(1, 3))
        m.zero_grad()
        told.clear()
        m(randn(4, 3))
        m.backward(randn(4, 3))
        assert len(told) == len({id(p) for p in told}) == sum(p.grad is not None for p in m.parameters()) == 4 - (not turn)

def test_bwd_is_kept_out_of_autograd():
    "A parameter that requires gradients, as nn.Parameter does of itself, gets one without a graph"
    class Scale(mo.Module):
        def __init__(self): self.s = nn.Parameter(torch.ones(()))
        def forward(self, x): return x*self.s
        def bwd(self, g, x):
            mo.accumulate_grad(self.s, (g*x*self.s).sum())
            return g*self.s
    m = Scale()
    m(torch.ones(3))
    assert not m.backward(torch.ones(3)).requires_grad and m.s.grad.grad_fn is None

@pytest.mark.parametrize('front', [lambda: [cv.Flatten()], lambda: [mo.Identity(), mo.Sequential(mo.ReLU())], lambda: []])
def test_layers_in_front_that_learn_nothing_have_nothing_to_do(front):
    asked = []
    class Spy(mo.Linear):
        def bwd(self, g, x):
            asked.append(self.needs_input_grad)
            return super().bwd(g, x)
    m = mo.Sequential(*front(), Spy(4, 3), mo.ReLU(), Spy(3, 2))
    for _ in range(2):
        m(randn(5, 4))
        m.backward(randn(5, 2), input_grad=False)
        assert kept(m) == [] and asked == [True, False]
        asked.clear()
    m(randn(5, 4))
    assert m.backward(randn(5, 2)).shape == (5, 4) and asked == [True, True]
    idle = mo.Sequential(mo.ReLU(), mo.Identity())
    idle(randn(2))
    idle.backward(randn(2), input_grad=False)
    assert kept(idle) == []

def test_a_branch_that_is_not_taken_holds_nothing_up():
    class Either(mo.Module):
        def __init__(self):
            self.a, self.b = mo.Linear(2, 2), mo.Linear(2, 2)
            self.b.weight = self.a.weight
        def forward(self, x): return self.a(x)
        def bwd(self, g, x): return self.a.backward(g)
    m, told = Either(), []
    m.register_post_accumulate_grad_hook(lambda p: told.append(tuple(p.shape)))
    m(torch.ones(1, 2))
    m.backward(torch.ones(1, 2))
    assert told == [(2, 2), (2,)]

# The books, further

@pytest.mark.parametrize('value', [lambda: [[mo.Linear(1, 1)]], lambda: {'a': [mo.ReLU()]}, lambda: {mo.ReLU()}, lambda: ({1: ([P()],)},), lambda: {mo.ReLU(): 1}, lambda: frozenset([P()])])
def test_parameters_are_not_lost_however_deep(value):
    m = mo.Module()
    with pytest.raises(TypeError, match='would get lost'): m.parts = value()
    assert not hasattr(m, 'parts')

def test_parameters_put_into_a_list_later_are_found():
    m = mo.Sequential(mo.Module())
    m[0].parts = []
    m[0].parts.append(dict(a=mo.Linear(1, 1)))
    for use in (m.parameters, m.named_parameters):
        with pytest.raises(TypeError, match=r'0\.parts.*would get lost'): list(use())
    with pytest.raises(TypeError, match='would get lost'): m.state_dict()  # or a file would be written without them
    loop, many = [], []
    loop.append(loop)
    for _ in range(40): many = [many, many]
    mo.Module().loop, mo.Module().many = loop, many  # a list in itself, and one with 2⁴⁰ places, hold nothing

def test_a_module_of_pytorchs_is_refused_by_name():
    with pytest.raises(TypeError, match='act is PyTorch.s ReLU, which has no bwd'): mo.Module().act = nn.ReLU()

def test_a_deleted_name_is_free():
    for m in (mo.Module(), nn.Module()):
        m.w = P(2)
        del m.w
        m.w = 3
        del m.w
        m.register_buffer('w', torch.ones(1))
        assert names(m) == [] and list(m.state_dict()) == ['w']
        with pytest.raises(AttributeError): del m.nothing

def test_names_and_cycles():
    m = mo.Sequential(mo.Sequential())
    with pytest.raises(ValueError, match='dots'): setattr(m, 'a.b', mo.ReLU())
    with pytest.raises(ValueError, match='part of itself'): m[0].up = m
    with pytest.raises(ValueError, match='part of itself'): m.me = m
    assert [k for k, _ in m.named_modules()] == ['', '0']

@pytest.mark.parametrize('kw', [{}, dict(bias=False), dict(dtype=F64), dict(device='meta', dtype=torch.float16)])
def test_layers_take_pytorchs_keywords(kw):
    for ours, torchs in ((mo.Linear(in_features=3, out_features=2, **kw), nn.Linear(in_features=3, out_features=2, **kw)),
                         (cv.Conv2d(in_channels=3, out_channels=2, kernel_size=(3, 2), stride=2, padding=1, dilation=1, **kw),
                          nn.Conv2d(in_channels=3, out_channels=2, kernel_size=(3, 2), stride=2, padding=1, dilation=1, **kw))):
        shown = [[(k, p.shape, p.dtype, p.device) for k, p in m.named_parameters()] for m in (ours, torchs)]
        assert shown[0] == shown[1]

# One signature for all gradients

def table():
    "f -> f_grad for every function of the package that has one"
    found = {}
    for info in pkgutil.iter_modules(notes.__path__):
        mod = importlib.import_module(f'notes.{info.name}')
        for k in getattr(mod, '__all__', ()):
            f = getattr(mod, k.removesuffix('_grad'), None)
            if k.endswith('_grad') and f and f.__module__ == mod.__name__: found[f] = getattr(mod, k)
    return found

def test_gradients_take_g_and_then_what_the_function_was_given():
    assert {fc.lin, fc.relu, fc.mse, tr.nll, tr.cross_entropy, tr.logsumexp, tr.softmax, tr.log_softmax, cv.conv2d, cv.max_pool2d, cv.avg_pool2d} <= table().keys()
    for f, f_grad in table().items():
        args, gargs = (inspect.signature(h).parameters for h in (f, f_grad))
        assert [*gargs] in (['g', *args], ['g', *args, 'input_grad']), f_grad.__name__
        for k in args: assert args[k].default == gargs[k].default, (f_grad.__name__, k)

def test_a_table_of_gradients_is_enough_for_an_autograd():
    "Record calls, go back through them in reverse, add up: equal to PyTorch's for a network with a shortcut"
    grads, tape = table(), []
    def call(f, *args):
        out = f(*args)
        tape.append((f, args, out))
        return out
    x, w, b, c, d = (randn(*s, seed=i, dtype=F64) for i, s in enumerate(((5, 4), (4, 4), (4,), (4, 3), (3,))))
    y = torch.tensor([0, 2, 1, 1, 0])
    def net(x, w, b, c, d):
        h = call(fc.relu, call(fc.lin, x, w, b))
        h = call(fc.lin, call(fc.relu, call(fc.lin, h, w, b)), c, d)  # w and b a second time
        return call(tr.nll, call(tr.log_softmax, h), y)
    loss = net(x, w, b, c, d)
    g = {id(loss): torch.ones((), dtype=F64)}
    for f, args, out in reversed(tape):
        got = grads[f](g[id(out)], *args)
        for t, gt in zip(args, got if isinstance(got, tuple) else (got,)): g[id(t)] = g[id(t)] + gt if id(t) in g else gt
    leaves = [t.clone().requires_grad_() for t in (x, w, b, c, d)]
    for t, auto in zip((x, w, b, c, d), torch.autograd.grad(net(*leaves), leaves), strict=True): assert ex.rel_error(g[id(t)], auto) < 1e-12

# Errors, with asserts on and off

t = torch.ones
WRONG = [  # expression, and what the message must hold
    ("mo.Linear(3,2)(t(5,4))", ['(5, 4)', '(3, 2)']), ("mo.Linear(3,2)(t(0,3))", ['empty batch']), ("mo.Linear(0,2)", ['(2, 0)']),
    ("mo.Sum(mo.Linear(3,2), mo.Identity())(t(4,3))", ['(4, 2)', '(4, 3)']), ("mo.accumulate_grad(t(3), t(2))", ['(2,)', '(3,)']),
]

@pytest.mark.parametrize('code,parts', WRONG, ids=[c for c, _ in WRONG])
def test_wrong_input(code, parts):
    with pytest.raises(ValueError) as e: eval(code, {'mo': mo, 't': t})
    for p in parts: assert p in str(e.value)

def test_wrong_input_without_asserts():
    code = ("import sys, torch\nfrom notes import modules as mo\nt = torch.ones\nassert False, 'asserts are on'\n"
            f"for code, parts in {WRONG!r}:\n    try: eval(code)\n    except ValueError as e:\n        if all(p in str(e) for p in parts): continue\n    sys.exit(code)\n")
    r = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr

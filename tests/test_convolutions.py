"""`notes.convolutions` against PyTorch: values, gradients in a full sweep, layers, the receptive field, and its errors (with `python -O` too)"""
import math, subprocess, sys
from itertools import product
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from notes import convolutions as cv, exports as ex, fully_connected as fc, modules as mo, training as tr

some = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**31)
layouts = st.sampled_from(['contiguous', 'channels last', 'strided', 'expanded', 'offset'])

def rand(*shape, seed=0, layout='contiguous', dtype=torch.float64):
    "Random numbers in an order in memory that callers come with"
    r = lambda *s: torch.randn(*s, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    if layout == 'channels last': return r(*shape).to(memory_format=torch.channels_last)
    if layout == 'strided': return r(*shape[:-1], 2*shape[-1])[..., ::2]
    if layout == 'expanded': return r(1, *shape[1:]).expand(shape)
    if layout == 'offset': return r(shape[0]+1, *shape[1:])[1:]
    return r(*shape)

@st.composite
def geometry(draw, pool=False):
    "Size of a window, its steps, and images that it fits into"
    pair = lambda lo, hi: (draw(st.integers(lo, hi)), draw(st.integers(lo, hi)))
    k, s, d = pair(1, 5), pair(1, 3), (1, 1) if pool else pair(1, 2)
    p = tuple(min(a, b//2) if pool else a for a, b in zip(pair(0, 2), k))
    size = tuple(max(1, e*(a-1) + 1 - 2*b) + draw(st.integers(0, 6)) for a, b, e in zip(k, p, d))
    return (draw(st.integers(1, 3)), draw(st.integers(1, 4)), *size), k, s, p, d

# Values

@pytest.mark.parametrize('k,d', list(product(range(1, 6), (1, 2, 3))))
def test_conv_size(k, d):
    for n, s, p in product(range(1, 13), (1, 2, 3), (0, 1, 2)):
        try: want = F.conv2d(torch.zeros(1, 1, n, 20), torch.zeros(1, 1, k, 1), None, (s, 1), (p, 0), (d, 1)).shape[2]
        except RuntimeError: want = None
        if want: assert cv.conv_size(n, k, s, p, d) == want
        else:
            with pytest.raises(ValueError, match="doesn't fit"): cv.conv_size(n, k, s, p, d)

@some
@given(q=geometry(), seed=seeds, layout=layouts)
def test_unfold_fold(q, seed, layout):
    shape, k, s, p, d = q
    x = rand(*shape, seed=seed, layout=layout)
    before = x.clone()
    cols = cv.unfold(x, k, s, p, d)
    assert torch.equal(cols, F.unfold(x, k, dilation=d, padding=p, stride=s)) and torch.equal(x, before)
    c = rand(*cols.shape, seed=seed+1)
    back = cv.fold(c, shape[2:], k, s, p, d)
    ex.test_near(back, F.fold(c, shape[2:], k, dilation=d, padding=p, stride=s), rtol=1e-12, atol=1e-12)
    if shape[2] == shape[3]: assert torch.equal(back, cv.fold(c, shape[2], k, s, p, d))
    ex.test_near((cols*c).sum(), (x*back).sum(), rtol=1e-9, atol=1e-9)  # adjoint of each other

@some
@given(q=geometry(), o=st.integers(1, 4), seed=seeds, layout=layouts, bias=st.booleans())
def test_conv2d(q, o, seed, layout, bias):
    shape, k, s, p, d = q
    x, w = rand(*shape, seed=seed, layout=layout), rand(o, shape[1], *k, seed=seed+1, layout=layout)
    b = rand(o, seed=seed+2) if bias else None
    before = x.clone()
    assert ex.rel_error(cv.conv2d(x, w, b, s, p, d), F.conv2d(x, w, b, s, p, d)) < 1e-12
    assert torch.equal(x, before)

@some
@given(q=geometry(pool=True), seed=seeds, layout=layouts)
def test_pooling(q, seed, layout):
    shape, k, s, p, _ = q
    x = rand(*shape, seed=seed, layout=layout)
    assert torch.equal(cv.max_pool2d(x, k, s, p), F.max_pool2d(x, k, s, p))
    ex.test_near(cv.avg_pool2d(x, k, s, p), F.avg_pool2d(x, k, s, p), rtol=1e-12, atol=1e-12)

@some
@given(q=geometry(pool=True), seed=seeds)
def test_max_pooling_gives_ties_to_the_first(q, seed):
    shape, k, s, p, _ = q
    x = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()  # three values only: ties everywhere
    out = F.max_pool2d(x, k, s, p)
    g = rand(*out.shape, seed=seed)
    ex.test_near(cv.max_pool2d_grad(g, x.detach(), k, s, p), torch.autograd.grad(out, x, g)[0], rtol=1e-12, atol=1e-12)

special = st.sampled_from([0., 1., 2., math.nan, -math.inf, math.inf])

@some
@given(q=geometry(pool=True), seed=seeds, few=st.lists(special, min_size=1, max_size=3), g_special=st.sampled_from([None, math.inf, math.nan]))
def test_max_pooling_of_what_is_no_number(q, seed, few, g_special):
    "A NaN wins, the last of several; windows of minus infinity give their gradient to a pixel; what isn't chosen gets 0 of an infinite gradient"
    shape, k, s, p, _ = q
    x = torch.tensor(few, dtype=torch.float64)[torch.randint(len(few), shape, generator=torch.Generator().manual_seed(seed))].requires_grad_()
    out = F.max_pool2d(x, k, s, p)
    g = rand(*out.shape, seed=seed)
    if g_special is not None: g[0, 0, 0, 0] = g_special
    torch.testing.assert_close(cv.max_pool2d(x.detach(), k, s, p), out.detach(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(cv.max_pool2d_grad(g, x.detach(), k, s, p), torch.autograd.grad(out, x, g)[0], rtol=1e-12, atol=1e-12, equal_nan=True)

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize('how', [(2,), (3, 2, 1), (3, 1, 1)])
def test_max_pooling_of_whole_numbers(dtype, how):
    x = torch.randint(torch.iinfo(dtype).min, torch.iinfo(dtype).max, (2, 3, 6, 5), generator=torch.Generator().manual_seed(0), dtype=dtype)
    out = cv.max_pool2d(x, *how)
    assert out.dtype == dtype and torch.equal(out, F.max_pool2d(x, *how))
    low = torch.full((1, 1, 4, 4), torch.iinfo(dtype).min, dtype=dtype)
    assert torch.equal(cv.max_pool2d(low, *how), F.max_pool2d(low, *how))

def test_outputs_are_new_and_lie_in_the_usual_order():
    "So that `view` works on them, and whoever changes an output changes no input"
    x, w = rand(2, 3, 7, 6), rand(4, 3, 3, 2)
    out = cv.conv2d(x, w, padding=1)
    g_x, g_w, _ = cv.conv2d_grad(out, x, w, padding=1)
    pools = [f(x, *how) for f in (cv.max_pool2d, cv.avg_pool2d) for how in ((1,), (1, 2), (2,), (3, 2, 1))]
    grads = [f(o, x, 3, 2, 1) for f, o in ((cv.max_pool2d_grad, pools[3]), (cv.avg_pool2d_grad, pools[7]))]
    for t in (out, cv.conv2d(x, w[:, :, :1, :1]), g_x, g_w, *pools, *grads, cv.unfold(x, 3), cv.unfold(x, 1), cv.fold(cv.unfold(x, 3, padding=1), (7, 6), 3, padding=1)):
        assert t.is_contiguous() and t.view(len(t), -1).shape[0] == len(t) and t.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()

def test_pooling_with_padding_knows_negative_pixels():
    x = -torch.ones(1, 1, 4, 4)
    assert torch.equal(cv.max_pool2d(x, 2, 2, 1), -torch.ones(1, 1, 3, 3))  # the frame never wins
    assert torch.equal(cv.avg_pool2d(x, 2, 2, 1)[0, 0, 0], torch.tensor([-.25, -.5, -.25]))  # and counts in a mean

def test_stride_of_pooling_is_the_kernel_unless_given():
    x = rand(1, 1, 7, 7)
    for f, lib in ((cv.max_pool2d, F.max_pool2d), (cv.avg_pool2d, F.avg_pool2d)):
        ex.test_near(f(x, 3), lib(x, 3))
        ex.test_near(f(x, 3, 1), lib(x, 3, 1))
        assert f(x, 3).shape == (1, 1, 2, 2) and f(x, 3, 1).shape == (1, 1, 5, 5)

def test_nothing_is_copied_without_padding():
    x = rand(2, 3, 6, 5)
    u = cv._windows(x, 3)
    assert u.data_ptr() == x.data_ptr() and u.shape == (2, 3, 3, 3, 4, 3)

# Gradients: the whole range, by central differences and autograd

@pytest.mark.parametrize('k,d', list(product(range(1, 6), (1, 2))))
def test_gradients_over_the_whole_range(k, d):
    "Stride 1 to 3, padding 0 to 2; batch of one, odd sizes, several channels"
    for i, (s, p) in enumerate(product((1, 2, 3), (0, 1, 2))):
        reach = d*(k-1) + 1
        x, w, b = rand(1, 2, reach+2-reach%2, reach+1+reach%2, seed=i), rand(3, 2, k, k, seed=i+1), rand(3, seed=i+2)
        g = torch.randn_like(cv.conv2d(x, w, b, s, p, d))
        fc.check_grads(lambda x, w, b: (cv.conv2d(x, w, b, s, p, d)*g).sum(), dict(x=x, w=w, b=b), dict(zip('xwb', cv.conv2d_grad(g, x, w, b, s, p, d))))
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        for ours, theirs in zip(cv.conv2d_grad(g, x, w, b, s, p, d), torch.autograd.grad(F.conv2d(*leaves, s, p, d), leaves, g)): assert ex.rel_error(ours, theirs) < 1e-12

@some
@given(q=geometry(), o=st.integers(1, 4), seed=seeds, layout=layouts)
def test_conv2d_grad_in_any_layout(q, o, seed, layout):
    shape, k, s, p, d = q
    x, w = rand(*shape, seed=seed, layout=layout), rand(o, shape[1], *k, seed=seed+1, layout=layout)
    leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
    out = F.conv2d(*leaves, None, s, p, d)
    g = rand(*out.shape, seed=seed+2, layout=layout)
    gx, gw, gb = cv.conv2d_grad(g, x, w, w[:, 0, 0, 0], s, p, d)
    tx, tw = torch.autograd.grad(out, leaves, g)
    for ours, theirs in ((gx, tx), (gw, tw), (gb, g.sum((0, 2, 3)))): ex.test_near(ours, theirs, rtol=1e-10, atol=1e-10)

# Layers

def same(ours, torchs, x):
    "Weights, outputs and gradients of our layer and PyTorch's"
    for (k, p), (kt, pt) in zip(ours.named_parameters(), torchs.named_parameters(), strict=True):
        assert k == kt and torch.equal(p, pt.detach()) and not p.requires_grad
    xt = x.clone().requires_grad_()
    out = torchs(xt)
    g = rand(*out.shape, seed=9, dtype=x.dtype)
    assert ex.rel_error(ours(x), out) < 1e-5
    gx, *gp = torch.autograd.grad(out, [xt, *torchs.parameters()], g)
    assert ex.rel_error(ours.backward(g), gx) < 1e-5
    for p, t in zip(ours.parameters(), gp, strict=True): assert ex.rel_error(p.grad, t) < 1e-5

@some
@given(q=geometry(), o=st.integers(1, 4), seed=seeds, bias=st.booleans())
def test_Conv2d(q, o, seed, bias):
    shape, *how = q
    torch.manual_seed(seed)
    ours = cv.Conv2d(shape[1], o, *how, bias=bias)
    torch.manual_seed(seed)
    same(ours, nn.Conv2d(shape[1], o, *how, bias=bias), rand(*shape, seed=seed, dtype=torch.float32))

WHOLE = [np.int64, np.uint8, torch.tensor, lambda v: np.array(v)]  # whole numbers of other kinds, which have `__index__`

@pytest.mark.parametrize('kind', WHOLE)
def test_whole_numbers_of_other_kinds(kind):
    x, three, two, one = rand(1, 1, 8, 8, dtype=torch.float32), kind(3), kind(2), kind(1)
    torch.manual_seed(0)
    a = cv.Conv2d(1, 2, three, (two, one), one)
    torch.manual_seed(0)
    b = cv.Conv2d(1, 2, 3, (2, 1), 1)
    assert torch.equal(a(x), b(x)) and torch.equal(cv.MaxPool2d(three, two)(x), cv.MaxPool2d(3, 2)(x)) and torch.equal(cv.unfold(x, [three, two]), cv.unfold(x, (3, 2)))
    assert cv.conv_size(kind(8), three, two, one) == cv.conv_size(8, 3, 2, 1)
    assert all(type(i) is int for l in (a, cv.AvgPool2d(three, two)) for i in (*l.kernel_size, *l.stride, *l.padding))

def test_settings_of_pytorchs_layers():
    "At the values where the two agree; at others they are refused, and said to be nn's"
    x = rand(1, 2, 6, 6, dtype=torch.float32)
    cv.Conv2d(2, 3, 3, groups=1, padding_mode='zeros')(x)
    assert torch.equal(cv.MaxPool2d(3, dilation=1, return_indices=False, ceil_mode=False)(x), F.max_pool2d(x, 3))
    ex.test_near(cv.AvgPool2d(3, ceil_mode=False, count_include_pad=True, divisor_override=None)(x), F.avg_pool2d(x, 3))
    assert cv.Flatten(start_dim=1, end_dim=-1)(x).shape == (1, 72)
    with pytest.raises(TypeError, match='MaxPool2d knows no kernel'): cv.MaxPool2d(3, kernel=2)

def test_Conv2d_for_relu():
    torch.manual_seed(0)
    ex.test_near(cv.Conv2d(16, 200, 5, a=0).weight.std(), math.sqrt(2/400), rtol=.01)

@pytest.mark.parametrize('ours,torchs', [(cv.MaxPool2d(2), nn.MaxPool2d(2)), (cv.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1)), (cv.AvgPool2d(2), nn.AvgPool2d(2)),
                                         (cv.AvgPool2d((3, 2), 1, 1), nn.AvgPool2d((3, 2), 1, 1)), (cv.Flatten(), nn.Flatten())], ids=lambda m: repr(m))
def test_layers_without_parameters(ours, torchs): same(ours, torchs, rand(3, 2, 7, 9))

def pair(dtype=torch.float64):
    nets = []
    for Seq, Conv, Relu, Pool, Avg, Flat, Lin in ((mo.Sequential, cv.Conv2d, mo.ReLU, cv.MaxPool2d, cv.AvgPool2d, cv.Flatten, mo.Linear),
                                                  (nn.Sequential, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.Linear)):
        torch.manual_seed(0)
        nets.append(Seq(Conv(1, 4, 3, padding=1), Relu(), Pool(2), Conv(4, 6, 3, stride=2), Relu(), Avg(2, 1), Flat(), Lin(6*2*2, 10)))
        for p in nets[-1].parameters(): p.data = p.data.to(dtype)
    return nets

def test_training_equals_pytorch_step_for_step():
    ours, torchs = pair()
    oo, ot, loss_func = tr.SGD(ours.parameters(), .1), torch.optim.SGD(torchs.parameters(), .1), tr.CrossEntropy()
    for i in range(20):
        x, y = rand(8, 1, 14, 14, seed=i), torch.arange(8)
        loss = loss_func(ours(x), y)
        oo.zero_grad()
        tr.backprop(loss, ours, loss_func)
        oo.step()
        lt = F.cross_entropy(torchs(x), y)
        ot.zero_grad()
        lt.backward()
        ot.step()
        assert abs(loss.item() - lt.item()) < 1e-10
    for p, pt in zip(ours.parameters(), torchs.parameters(), strict=True): ex.test_near(p, pt.detach(), rtol=1e-8, atol=1e-10)

# Receptive field: the pixels that move a unit, found by moving them

def sees(net, shape, side):
    "First and last pixel along `side` that the middle unit of `net` depends on, over many random images"
    x = rand(*shape, seed=3).requires_grad_()
    out = net(x)
    mid = [n//2 for n in out.shape[2:]]
    g, = torch.autograd.grad(out[:, :, mid[0], mid[1]].sum(), x)
    hit = g.abs().sum((0, 1)).sum(1-side).nonzero()[:, 0]
    return mid[side], hit.min().item(), hit.max().item(), len(hit)

@pytest.mark.parametrize('layers', [
    [nn.Conv2d(1, 3, 5)], [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)], [nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2)],
    [nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Conv2d(3, 3, (5, 3), stride=(2, 1), padding=2)], [nn.Conv2d(1, 2, 3, dilation=2), nn.AvgPool2d(2, 1), nn.Conv2d(2, 2, 2)],
    [nn.ZeroPad2d((1, 2, 3, 4)), nn.Conv2d(1, 2, 5, 2), nn.ConstantPad2d((3, 0, -2, 0), 1.), nn.BatchNorm2d(2).eval(), nn.Dropout(.1).eval(), nn.GELU(), nn.MaxPool2d(2), nn.Softmax2d(), nn.Identity()]],
    ids=['one', 'two', 'pool', 'stride', 'dilation', 'frames'])
@pytest.mark.parametrize('side', [0, 1])
def test_receptive_field(layers, side):
    torch.manual_seed(0)
    net = nn.Sequential(*layers).double()
    fields = cv.receptive_field(net, side)
    assert len(fields) == len(layers)
    for i, (size, stride, start) in enumerate(fields):
        at, lo, hi, _ = sees(net[:i+1], (200, 1, 40, 40), side)
        assert (lo, hi) == (at*stride+start, at*stride+start+size-1)

UNKNOWN = [nn.AdaptiveAvgPool2d(1), nn.ConvTranspose2d(1, 2, 4, stride=2), nn.Upsample(scale_factor=2), nn.PixelShuffle(1), nn.PixelUnshuffle(2), nn.MaxUnpool2d(2), nn.FractionalMaxPool2d(2, 3), nn.LPPool2d(2, 2), nn.Unfold(3),
           nn.Fold(4, 2), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.CircularPad2d(1), nn.Conv2d(1, 1, 3, padding=1, padding_mode='circular'), nn.GroupNorm(1, 1), nn.InstanceNorm2d(1), nn.LayerNorm((1, 8, 8)), nn.Softmax(-1), nn.GLU(),
           nn.LSTM(3, 3), nn.Bilinear(1, 1, 1)]
@pytest.mark.parametrize('layer', UNKNOWN, ids=lambda l: type(l).__name__)
def test_receptive_field_refuses_what_has_no_fixed_window(layer):
    with pytest.raises(ValueError, match=f'layer 1, {type(layer).__name__}, has no window'): cv.receptive_field([nn.Conv2d(1, 1, 3), layer])

def test_receptive_field_of_ours():
    ours, torchs = pair()
    assert cv.receptive_field(ours[:6]) == cv.receptive_field(torchs[:6]) == [(3, 1, -1), (3, 1, -1), (4, 2, -1), (8, 4, -1), (8, 4, -1), (12, 4, -1)]
    assert cv.receptive_field(mo.Sequential(cv.Conv2d(1, 1, 3))) == [(3, 1, 0)] and cv.receptive_field([]) == []
    for l in (ours, torchs): 
        with pytest.raises(ValueError, match='Flatten'): cv.receptive_field(l)

# Errors: ValueError, with what was wrong, with asserts on and off

t = torch.ones
WRONG = [  # expression, and what the message must hold
    ("cv.conv_size(4, 5)", ['5 pixels', 'into 4', '0 of padding']), ("cv.conv_size(4, 3, dilation=2)", ['5 pixels']), ("cv.conv_size(4, 3, 0)", ['stride 0']), ("cv.conv_size(4, 3, 1, -1)", ['padding -1']),
    ("cv.conv_size(0, 1)", ['n 0']), ("cv.unfold(t(3,4,4), 2)", ['(3, 4, 4)']), ("cv.unfold(t(0,1,4,4), 2)", ['(0, 1, 4, 4)']), ("cv.unfold(t(1,1,4,4), 5)", ["doesn't fit"]),
    ("cv.unfold(t(1,1,4,4), (1,2,3))", ['kernel_size', '(1, 2, 3)']), ("cv.unfold(t(1,1,4,4), 2.)", ['kernel_size', '2.0']), ("cv.unfold(t(1,1,4,4), 2, 0)", ['stride', '0']),
    ("cv.unfold(t(1,1,4,4), 2, 1, -1)", ['padding', '-1']), ("cv.unfold(t(1,1,4,4), 2, 1, 0, 0)", ['dilation', '0']), ("cv.unfold(t(1,1,4,4), 2, 1, 'same')", ['padding', "'same'"]),
    ("cv.fold(t(1,4,8), (4,4), 2)", ['(1, 4, 8)', '3·3']), ("cv.fold(t(1,5,9), (4,4), 2)", ['(1, 5, 9)', '2·2']), ("cv.fold(t(4,9), (4,4), 2)", ['(4, 9)']), ("cv.fold(t(1,4,1), (4,1), 2)", ["doesn't fit"]),
    ("cv.fold(t(1,4,9), (4,4,4), 2)", ['size', '(4, 4, 4)']), ("cv.fold(t(1,0,9), 4, 2)", ['(1, 0, 9)']),
    ("cv.conv2d(t(1,2,4,4), t(3,1,2,2))", ['2 channels', '(3, 1, 2, 2)']), ("cv.conv2d(t(2,4,4), t(3,2,2,2))", ['(2, 4, 4)']), ("cv.conv2d(t(1,2,4,4), t(3,2,2))", ['(3, 2, 2)']),
    ("cv.conv2d(t(1,2,4,4), t(3,2,2,2), t(1))", ['(1,)', '(3, 2, 2, 2)']), ("cv.conv2d(t(0,2,4,4), t(3,2,2,2))", ['(0, 2, 4, 4)']), ("cv.conv2d(t(1,2,4,4), t(0,2,2,2))", ['(0, 2, 2, 2)']),
    ("cv.conv2d(t(1,2,4,4), t(3,2,5,5))", ["doesn't fit"]),
    ("cv.conv2d_grad(t(1,3,4,4), t(1,2,4,4), t(3,2,2,2))", ['(1, 3, 4, 4)', '(1, 3, 3, 3)']), ("cv.conv2d_grad(t(1,3,3,3), t(1,1,4,4), t(3,2,2,2))", ['1 channels']),
    ("cv.max_pool2d(t(4,4), 2)", ['(4, 4)']), ("cv.max_pool2d(t(1,1,4,4), 2, padding=2)", ['padding 2', 'half of kernel_size 2']), ("cv.max_pool2d(t(1,1,4,4), 2, 0)", ['stride']), ("cv.max_pool2d(t(1,1,4,4), 5)", ["doesn't fit"]),
    ("cv.max_pool2d_grad(t(1,1,1,2), t(1,1,4,4), 2)", ['(1, 1, 1, 2)', '(1, 1, 2, 2)']), ("cv.avg_pool2d(t(1,1,4,4), 3, padding=2)", ['padding 2']), ("cv.avg_pool2d_grad(t(1), t(1,1,4,4), 2)", ['(1,)', '(1, 1, 2, 2)']),
    ("cv.Conv2d(1, 2, 0)", ['kernel_size', '0']), ("cv.Conv2d(1, 2, 3, stride=0)", ['stride', '0']), ("cv.MaxPool2d(2, 0)", ['stride', '0']), ("cv.Conv2d(0, 2, 3)", ['(2, 0, 3, 3)']), ("cv.Conv2d(3, 2, 3)(t(1,1,4,4))", ['1 channels']), ("cv.MaxPool2d(2)(t(4,4))", ['(4, 4)']),
    ("cv.unfold(t(1,1,4,4), (2, 2.5))", ['kernel_size', '(2, 2.5)']), ("cv.conv_size(4.5, 2)", ['n 4.5', 'whole']), ("cv.conv2d(t(1,2,4,4), t(3,2,2,2).double())", ['w torch.float64']), ("cv.conv2d(t(1,2,4,4), t(3,2,2,2), t(3).double())", ['b torch.float64']),
    ("cv.conv2d(t(1,2,4,4).byte(), t(3,2,2,2))", ['x torch.uint8']), ("cv.conv2d_grad(t(1,3,3,3).double(), t(1,2,4,4), t(3,2,2,2))", ['g torch.float64']), ("cv.avg_pool2d(t(1,1,4,4).long(), 2)", ['torch.int64', 'x.float()']),
    ("cv.avg_pool2d(t(1,1,4,4).long(), 2, padding=1)", ['torch.int64']), ("cv.max_pool2d(t(1,1,4,4).bool(), 2, padding=1)", ['torch.bool']), ("cv.Conv2d(2, 2, 3, groups=2)", ['Conv2d knows groups=1 only', 'nn.Conv2d']),
    ("cv.AvgPool2d(3, ceil_mode=True)", ['ceil_mode=False only']), ("cv.Flatten(start_dim=0)", ['start_dim=1 only']),
    ("cv.receptive_field([], 2)", ['side', '2']), ("cv.receptive_field([], -1)", ['side', '-1']), ("cv.Flatten()(t(4))", ['(4,)']), ("cv.receptive_field([cv.Conv2d(1,1,3), cv.Flatten()])", ['Flatten', 'layer 1']),
    ("cv.receptive_field([cv.Conv2d(1,1,3), torch.nn.Sequential(torch.nn.ReLU())])", ['Sequential', 'layer 1', 'holds layers']),
]

@pytest.mark.parametrize('code,parts', WRONG, ids=[c for c, _ in WRONG])
def test_wrong_input(code, parts):
    with pytest.raises(ValueError) as e: eval(code, {'cv': cv, 't': t, 'torch': torch})
    for p in parts: assert p in str(e.value)

def test_wrong_input_without_asserts():
    "`python -O` drops assert statements: the errors must not be among them"
    code = ("import sys, torch\nfrom notes import convolutions as cv\nt = torch.ones\nassert False, 'asserts are on'\n"
            f"for code, parts in {WRONG!r}:\n    try: eval(code)\n    except ValueError as e:\n        if all(p in str(e) for p in parts): continue\n    sys.exit(code)\n")
    r = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr

"Norms, each beside PyTorch's: outputs, gradients, buffers, modes and settings; batches of one, odd shapes and layouts"
import copy, pickle
import pytest, torch
from hypothesis import assume, given, strategies as st
from torch import nn
from draws import F64, layouts, randn, seeds, some
from notes import callbacks as ca, convolutions as cv, exports as ex, learner as le, modules as mo, normalization as no, training as tr

sizes = st.one_of(st.just(1), st.integers(1, 7))
near = lambda a, b, tol=1e-10: a.shape == b.shape and a.dtype == b.dtype and (a.double()-b.double()).abs().max() <= tol*max(1, b.double().abs().max())

def twins(name, *args, dtype=F64, seed=0, **kw):
    "Ours and PyTorch's with the same numbers in all parameters and buffers, none of them those of a fresh layer"
    ours, theirs = getattr(no, name)(*args, **kw).to(dtype), getattr(nn, name)(*args, **kw).to(dtype)
    g = torch.Generator().manual_seed(seed)
    for k, t in theirs.state_dict().items():
        if t.is_floating_point(): t.copy_(torch.randn(t.shape, generator=g).abs()+.5 if k == 'running_var' else torch.randn(t.shape, generator=g))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs

def compare(ours, theirs, x, g, tol=1e-10):
    "Two passes each way: outputs, gradients of the input and of all parameters, buffers"
    was = x.clone(), g.clone()
    for m in (ours, theirs): m.zero_grad()
    for _ in range(2):  # the second time, gradients of the parameters add up
        leaf = x.detach().clone().requires_grad_()
        want, got = theirs(leaf), ours(x)
        assert near(got, want.detach(), tol)
        want.backward(g.contiguous())  # PyTorch 2.13 errs with a transposed `g` of one image
        assert near(ours.backward(g), leaf.grad, tol)
        for (k, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True): assert near(p.grad, q.grad, tol), k
        for (k, a), (l, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True): assert k == l and near(a, b, tol), k
    assert torch.equal(x, was[0]) and torch.equal(g, was[1])  # nobody's tensor is overwritten

# The two functions --------------------------------------------------------------------------------------------------------------------

def test_standardize():
    x = randn(4, 3, 5, dtype=F64)*3 + 7
    for dims in (0, 1, -1, (0, 2), (0, 1, 2)):
        x_hat, r, m, v = no.standardize(x, dims, 1e-12)
        var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        assert near(m, mean) and near(v, var) and near(r, var.rsqrt()) and near(x_hat, (x-mean)/var.sqrt())
        x_hat, r, m, v = no.standardize(x, dims, 1e-12, center=False)
        assert near(v, x.square().mean(dims, keepdim=True)) and near(x_hat, x/v.sqrt()) and not m.any()

def test_eps_stands_inside_the_root():
    "A channel without spread gives 0, and its gradient is divided by the root of eps"
    x = torch.full((4, 1), 3., dtype=F64)
    x_hat, r, *_ = no.standardize(x, 0, 1e-4)
    assert not x_hat.any() and r.item() == pytest.approx(100)
    assert no.standardize_backward(torch.tensor([[1.], [0.], [0.], [0.]], dtype=F64), x_hat, r, 0)[0][0].item() == pytest.approx(75)

@pytest.mark.parametrize('center', [True, False])
def test_autograd_goes_through(center):
    "Where a graph needs what would be overwritten, it isn't"
    x, g = randn(5, 3, dtype=F64), randn(5, 3, seed=1, dtype=F64)
    leaf = x.clone().requires_grad_()
    x_hat, r, *_ = no.standardize(leaf, 0, center=center)
    want, = torch.autograd.grad(x_hat, leaf, g)
    assert near(no.standardize_backward(g, x_hat.detach(), r.detach(), 0, center)[0], want)

def test_gradient_has_no_mean_and_none_of_x_hat():
    x, g = randn(9, 4, dtype=F64), randn(9, 4, seed=1, dtype=F64)
    x_hat, r, *_ = no.standardize(x, 0, 0.)
    g_x, s, sx = no.standardize_backward(g, x_hat, r, 0)
    assert g_x.sum(0).abs().max() < 1e-12 and (g_x*x_hat).sum(0).abs().max() < 1e-12
    assert near(s, g.sum(0, keepdim=True)) and near(sx, (g*x_hat).sum(0, keepdim=True))

def test_a_large_mean_costs_no_digits():
    "The variance is that of the distances, not the mean square less the square of the mean"
    x = randn(50, 2, dtype=F64)
    assert near(no.standardize(x+1e8, 0)[0], no.standardize(x, 0)[0], 1e-6)
    x = x.float()
    assert near(no.standardize(x+1e3, 0)[0], no.standardize(x, 0)[0], 1e-3)

# Batch norm ---------------------------------------------------------------------------------------------------------------------------

SETTINGS = [{}, dict(momentum=None), dict(momentum=0.), dict(momentum=1.), dict(affine=False), dict(track_running_stats=False), dict(eps=.1, momentum=.3),
            dict(affine=False, track_running_stats=False), dict(momentum=None, affine=False, eps=1.), dict(bias=False)]

@some
@given(st.data())
def test_batch_norm_is_pytorchs(data):
    kind = data.draw(st.sampled_from(['1d', '1d long', '2d']))
    n, c, *more = (data.draw(sizes) for _ in range({'1d': 2, '1d long': 3, '2d': 4}[kind]))
    shape = n, c, *more
    how, seed = data.draw(layouts), data.draw(seeds)
    assume(n*torch.Size(more).numel() > 1)
    ours, theirs = twins(f'BatchNorm{kind[:2]}', c, **data.draw(st.sampled_from(SETTINGS)))
    for step, mode in enumerate([True, True, False, True, False]):
        for m in (ours, theirs): m.train(mode)
        x = randn(*shape, seed=seed+step, layout=how, dtype=F64)*2 + 1
        assume(x.transpose(0, 1).flatten(1).std(1, correction=0).min() > .1)  # of equal numbers the gradient is rounding, times 1/√eps
        compare(ours, theirs, x, randn(*shape, seed=seed+step+1, layout=data.draw(layouts), dtype=F64), 1e-8)

@pytest.mark.parametrize('kw', SETTINGS, ids=str)
@pytest.mark.parametrize('name,shape', [('BatchNorm1d', (7, 3)), ('BatchNorm1d', (3, 3, 5)), ('BatchNorm2d', (3, 3, 5, 7)), ('BatchNorm2d', (1, 3, 2, 2))])
def test_settings_and_modes(name, shape, kw):
    ours, theirs = twins(name, 3, **kw)
    for step, mode in enumerate([True, True, True, False, False, True]):
        for m in (ours, theirs): m.train(mode)
        compare(ours, theirs, randn(*shape, seed=step, dtype=F64)*3 - 2, randn(*shape, seed=9+step, dtype=F64))
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    fresh, back = getattr(nn, name)(3, **kw).double(), getattr(no, name)(3, **kw).to(F64)
    assert str(fresh.load_state_dict(ours.state_dict())) == '<All keys matched successfully>'
    back.load_state_dict(fresh.state_dict())
    for k, v in back.state_dict().items(): assert torch.equal(v, ours.state_dict()[k]) and v.dtype == theirs.state_dict()[k].dtype

def test_fresh_layers_are_pytorchs():
    for kw in SETTINGS:
        for name in ('BatchNorm1d', 'BatchNorm2d'):
            a, b = getattr(no, name)(4, **kw).state_dict(), getattr(nn, name)(4, **kw).state_dict()
            assert [*a] == [*b] and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
    assert no.BatchNorm2d(2, dtype=F64).running_var.dtype == F64 and no.BatchNorm2d(2, device='meta').weight.is_meta

@pytest.mark.parametrize('name', ['contiguous', 'channels last', 'transposed', 'strided', 'cropped'])
@pytest.mark.parametrize('dtype,tol', [(F64, 1e-10), (torch.float32, 1e-4)])
def test_layouts_of_pictures(name, dtype, tol):
    def lay(seed):
        t = randn(6, 4, 10, 8, seed=seed, dtype=dtype)
        return {'contiguous': t, 'channels last': t.to(memory_format=torch.channels_last), 'transposed': t.transpose(2, 3), 'strided': t[::2, :, ::3], 'cropped': t[:, :, 1:-2, 3:]}[name]
    ours, theirs = twins('BatchNorm2d', 4, dtype=dtype)
    compare(ours, theirs, lay(0), lay(1), tol)
    if name == 'channels last':
        x = lay(2)
        for t in (ours(x), ours.backward(lay(3))): assert t.is_contiguous(memory_format=torch.channels_last)

def test_momentum_is_the_share_of_the_new():
    bn, x = no.BatchNorm1d(1, momentum=.25), torch.tensor([[1.], [3.]])
    bn(x)
    assert bn.running_mean.item() == .5 and bn.running_var.item() == pytest.approx(.75+.25*2) and bn.num_batches_tracked == 1

def test_momentum_none_is_the_plain_average():
    bn, xs = no.BatchNorm2d(2, momentum=None).to(F64), [randn(3, 2, 4, 5, seed=i, dtype=F64) for i in range(5)]
    for x in xs: bn(x)
    assert near(bn.running_mean, torch.stack([x.mean((0, 2, 3)) for x in xs]).mean(0)) and near(bn.running_var, torch.stack([x.var((0, 2, 3)) for x in xs]).mean(0))

def test_running_statistics_move_in_training_only():
    bn, x = no.BatchNorm1d(3), randn(5, 3)
    with mo.eval_mode(bn): bn(x)
    assert bn.num_batches_tracked == 0 and not bn.running_mean.any() and bn.running_var.eq(1).all()
    with torch.no_grad(): bn(x)  # in training, without gradients, too: as PyTorch
    assert bn.num_batches_tracked == 1 and bn.running_mean.any()
    held = bn.running_mean
    bn(x)
    assert bn.running_mean is held  # in place: an average that shares it stays one
    x.requires_grad_()
    bn(x)
    assert not bn.running_mean.requires_grad and not bn.running_var.requires_grad

def test_eval_asks_nobody():
    "Rows alone and together, in evaluation; without running statistics the batch decides all the same"
    bn, x = no.BatchNorm1d(3).to(F64), randn(6, 3, dtype=F64)
    for _ in range(3): bn(x)
    bn.eval()
    assert near(bn(x), torch.cat([bn(r) for r in x.split(1)])) and bn(x[:0]).shape == (0, 3)
    loose = no.BatchNorm1d(3, track_running_stats=False).to(F64).eval()
    assert near(loose(x).mean(0), torch.zeros(3, dtype=F64)) and not near(loose(x)[:2], loose(x[:2]))

@pytest.mark.parametrize('make,shape', [(no.BatchNorm1d, (1, 3)), (no.BatchNorm1d, (1, 3, 1)), (no.BatchNorm2d, (1, 3, 1, 1)), (no.BatchNorm1d, (0, 3)), (no.BatchNorm2d, (0, 3, 4, 4)), (no.BatchNorm2d, (2, 3, 0, 4))])
def test_a_batch_of_one_is_refused(make, shape):
    bn = make(3)
    with pytest.raises(ValueError, match='more than 1 value per channel'): bn(torch.zeros(shape))
    assert bn.num_batches_tracked == 0 and not bn.running_mean.any()  # and nothing is noted
    with pytest.raises(ValueError, match='more than 1 value per channel'): make(3, track_running_stats=False).eval()(torch.zeros(shape))
    if shape[0]: assert torch.equal(bn.eval()(torch.zeros(shape)), torch.zeros(shape))

@pytest.mark.parametrize('make,x,match', [
    (lambda: no.BatchNorm1d(3), torch.ones(5, 4), r'x \(5, 4\): must be \(n, 3, \.\.\.\) of 2 or 3 axes'), (lambda: no.BatchNorm1d(3), torch.ones(5, 3, 2, 2), 'of 2 or 3 axes'),
    (lambda: no.BatchNorm2d(3), torch.ones(5, 3), 'of 4 axes'), (lambda: no.BatchNorm1d(3), torch.ones(3), 'must be'), (lambda: no.BatchNorm1d(3), torch.ones(5, 3, dtype=torch.int64), 'must hold floats'),
    (lambda: no.BatchNorm1d(3), torch.ones(5, 3, dtype=F64), 'x is torch.float64 and the layer torch.float32'), (lambda: no.BatchNorm1d(3, affine=False), torch.ones(5, 3, dtype=F64), 'and the layer'),
    (lambda: no.LayerNorm(3), torch.ones(3, 4), r'its last axes must be \(3,\)'), (lambda: no.LayerNorm((3, 4)), torch.ones(4), 'its last axes'), (lambda: no.LayerNorm(()), torch.ones(4), 'its last axes'),
    (lambda: no.LayerNorm(4), torch.ones(3, 4, dtype=torch.int32), 'must hold floats'), (lambda: no.RMSNorm(4), torch.ones(3, 5), 'its last axes'), (lambda: no.RMSNorm(4), torch.ones(3, 4, dtype=F64), 'and the layer'),
    (lambda: no.GroupNorm(2, 4), torch.ones(3, 5), r'must be \(n, 4'), (lambda: no.GroupNorm(2, 4), torch.ones(4), 'must be'), (lambda: no.GroupNorm(2, 5), None, "can't be cut into 2"),
    (lambda: no.GroupNorm(0, 4), None, "can't be cut"), (lambda: no.GroupNorm(4, 4), torch.ones(1, 4), 'more than 1 value per group'), (lambda: no.GroupNorm(4, 4), torch.ones(3, 4, 1), 'fewer groups'),
    (lambda: no.GroupNorm(2, 4), torch.ones(0, 4, 3), 'more than 1 value')])
def test_refused_in_words(make, x, match):
    with pytest.raises(ValueError, match=match): make()(x)

LAYERS = {'BatchNorm1d': lambda on: no.BatchNorm1d(4, affine=on), 'BatchNorm2d': lambda on: no.BatchNorm2d(4, affine=on), 'GroupNorm': lambda on: no.GroupNorm(2, 4, affine=on),
          'LayerNorm': lambda on: no.LayerNorm(3, elementwise_affine=on), 'RMSNorm': lambda on: no.RMSNorm(3, elementwise_affine=on)}
all_layers = pytest.mark.parametrize('name', LAYERS)
def shape_for(name): return (3, 4, 3) if name == 'BatchNorm1d' else (3, 4, 2, 3)

@all_layers
@pytest.mark.parametrize('on', [True, False])
def test_gradient_of_another_shape_is_refused(name, on):
    "In words, and before anything is added to the parameters' gradients"
    m, shape = LAYERS[name](on), shape_for(name)
    for other in (shape[:-1]+(1,), (1,)+shape[1:], shape[:2]+(6,), shape[::-1], (*shape, 1)):
        if other == shape: continue
        m(randn(*shape))
        with pytest.raises(ValueError, match='shape of the output'): m.backward(torch.ones(other))
        assert all(p.grad is None for p in m.parameters())

@all_layers
def test_whoever_changes_the_output_leaves_the_gradient_alone(name):
    "Without a weight, too, what is kept for the way back isn't the output itself"
    for mode in (True, False):
        m, x, g = LAYERS[name](False).to(F64).train(mode), randn(*shape_for(name), dtype=F64), randn(*shape_for(name), seed=1, dtype=F64)
        m(x)
        want = m.backward(g)
        out = m(x)
        out += 1; out *= 2
        assert torch.equal(m.backward(g), want)

@all_layers
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_refused(name, dtype):
    "Where squares of 256 and more are infinite, and the output would be 0; nothing is noted"
    m = LAYERS[name](True).to(dtype)
    with pytest.raises(ValueError, match=f'x is {dtype}, too coarse for squares'): m(400*randn(*shape_for(name)).to(dtype))
    assert all(t.isfinite().all() and (t == 0).all() or k == 'running_var' and (t == 1).all() for k, t in m.named_buffers())

@pytest.mark.parametrize('name', ['LayerNorm', 'GroupNorm'])
def test_gradients_lie_in_memory_of_their_own(name):
    "For a single row, where there is nothing to add up, the bias' gradient equals `g` and isn't `g`"
    m, x = (no.LayerNorm(4), randn(4)) if name == 'LayerNorm' else (no.GroupNorm(2, 4), randn(1, 4))
    m(x)
    g = randn(*x.shape, seed=1)
    was = g.clone()
    m.backward(g)
    assert torch.equal(m.bias.grad, g.flatten())
    m.bias.grad.mul_(2)
    assert torch.equal(g, was)

@pytest.mark.parametrize('dtype,scale', [(F64, 1e-8), (torch.float32, 3e-4)])
def test_the_eps_that_rms_norm_takes_by_itself(dtype, scale):
    "That of the numbers' type: seen where their squares are as small"
    ours, theirs = twins('RMSNorm', 5, dtype=dtype)
    compare(ours, theirs, randn(3, 5, dtype=dtype)*scale, randn(3, 5, seed=1, dtype=dtype), 1e-10 if dtype == F64 else 1e-5)

# Norms of one image -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name,kws', [('LayerNorm', [{}, dict(bias=False), dict(elementwise_affine=False), dict(eps=.1)]), ('RMSNorm', [{}, dict(elementwise_affine=False), dict(eps=.1)])])
@pytest.mark.parametrize('shape', [5, (5,), (3, 5), (2, 3, 5), torch.Size([3, 5])])
def test_row_norms_are_pytorchs(name, kws, shape):
    for i, kw in enumerate(kws):
        for how in ('contiguous', 'transposed', 'strided'):
            ours, theirs = twins(name, shape, **kw)
            compare(ours, theirs, randn(4, 2, 3, 5, seed=i, layout=how, dtype=F64)*3+1, randn(4, 2, 3, 5, seed=i+1, layout=how, dtype=F64))

@pytest.mark.parametrize('k,c', [(1, 6), (2, 6), (3, 6), (6, 6), (1, 1)])
def test_group_norm_is_pytorchs(k, c):
    for i, more in enumerate([(4,), (3, 5), (2, 3, 2)]):
        for kw in ({}, dict(affine=False), dict(bias=False), dict(eps=.1)):
            for how in ('contiguous', 'transposed', 'strided'):
                ours, theirs = twins('GroupNorm', k, c, **kw)
                compare(ours, theirs, randn(3, c, *more, seed=i, layout=how, dtype=F64)*3+1, randn(3, c, *more, seed=i+1, layout=how, dtype=F64))

def test_group_norm_of_rows_and_of_channels_last():
    ours, theirs = twins('GroupNorm', 2, 6)
    compare(ours, theirs, randn(3, 6, dtype=F64), randn(3, 6, seed=1, dtype=F64))
    x, g = (randn(3, 6, 5, 4, seed=s, dtype=F64).to(memory_format=torch.channels_last) for s in (0, 1))
    compare(ours, theirs, x, g)

def test_row_and_group_norms_ask_nobody():
    "One image alone, or among others; in training and in evaluation; without state but weight and bias"
    for m in (no.LayerNorm((6, 2)), no.RMSNorm((6, 2)), no.GroupNorm(3, 6)):
        m, x = m.to(F64), randn(5, 6, 2, dtype=F64)
        assert near(m(x), torch.cat([m(r) for r in x.split(1)])) and torch.equal(m(x), m.eval()(x)) and not [*m.buffers()]

def test_states_of_the_others_go_both_ways():
    for name, args in (('LayerNorm', ((3, 4),)), ('RMSNorm', (4,)), ('GroupNorm', (2, 6))):
        ours, theirs = twins(name, *args)
        assert [*ours.state_dict()] == [*theirs.state_dict()]
        assert str(theirs.load_state_dict(ours.state_dict())) == '<All keys matched successfully>'
        fresh = getattr(nn, name)(*args).state_dict()
        assert all(torch.equal(v, fresh[k]) for k, v in getattr(no, name)(*args).state_dict().items())

# In a network -------------------------------------------------------------------------------------------------------------------------

def net(lib, norms, seed=0):
    torch.manual_seed(seed)
    C, L = (cv.Conv2d, mo.Linear) if lib is mo else (nn.Conv2d, nn.Linear)
    flat = cv.Flatten() if lib is mo else nn.Flatten()
    return lib.Sequential(C(1, 4, 3, bias=False), norms.BatchNorm2d(4), lib.ReLU(), norms.GroupNorm(2, 4), flat, L(64, 6), norms.BatchNorm1d(6), lib.ReLU(), norms.LayerNorm(6), L(6, 3)).to(F64)

def test_twenty_steps_beside_pytorch():
    "Losses, weights and buffers of a network with four norms, by SGD, within 1e-9"
    a, b = net(mo, no), net(nn, nn)
    b.load_state_dict(a.state_dict())
    opt, opt_b, loss = tr.SGD(a.parameters(), .1), torch.optim.SGD(b.parameters(), .1), tr.CrossEntropy()
    for step in range(20):
        x, y = randn(8, 1, 6, 6, seed=step, dtype=F64), torch.randint(3, (8,), generator=torch.Generator().manual_seed(step))
        got, want = loss(a(x), y), nn.functional.cross_entropy(b(x), y)
        assert abs(got-want.item()) < 1e-9*want.item()
        opt.zero_grad(); a.backward(loss.backward(), input_grad=False); opt.step()
        opt_b.zero_grad(); want.backward(); opt_b.step()
    for k, v in a.state_dict().items(): assert ex.rel_error(v.double()+1, b.state_dict()[k].double()+1) < 1e-9, k

def test_copies_pickles_and_moves():
    bn = no.BatchNorm2d(3)
    bn(randn(4, 3, 2, 2))
    twin = copy.deepcopy(bn)
    bn(randn(4, 3, 2, 2, seed=1))
    assert twin.num_batches_tracked == 1 and bn.num_batches_tracked == 2 and not torch.equal(twin.running_mean, bn.running_mean)
    back = pickle.loads(pickle.dumps(bn))
    x = randn(4, 3, 2, 2, seed=2)
    assert torch.equal(back.eval()(x), bn.eval()(x)) and [*back.state_dict()] == [*bn.state_dict()] and back.num_batches_tracked == 2
    bn.train()
    bn.to(F64)
    assert bn.running_var.dtype == F64 and bn.num_batches_tracked.dtype == torch.int64 and bn(randn(4, 3, 2, 2, dtype=F64)).dtype == F64

def test_accumulated_gradients_are_those_of_no_batch():
    "GradAccum makes four batches one for layer norm, and doesn't for batch norm: each keeps its own mean"
    x, y = randn(32, 5, dtype=F64), torch.arange(32) % 3
    for make, same in ((no.LayerNorm, True), (no.BatchNorm1d, False)):
        ends = []
        for bs, cbs in ((32, []), (8, [ca.GradAccum(4)])):
            torch.manual_seed(0)
            m = mo.Sequential(mo.Linear(5, 4), make(4), mo.ReLU(), mo.Linear(4, 3)).to(F64)
            dl = [(x[i:i+bs], y[i:i+bs]) for i in range(0, 32, bs)]
            le.Learner(m, (dl, None), tr.CrossEntropy(), lr=.1, cbs=cbs).fit(1)
            ends.append(m[0].weight)
        assert near(*ends, 1e-12) == same

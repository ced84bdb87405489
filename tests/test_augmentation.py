"Changed images, averaged weights, smoothed labels, views, calibration and pictures, each beside a reference"
import functools, math
import numpy as np, pytest, torch, torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.optim.swa_utils import AveragedModel
from notes import augmentation as au, callbacks as ca, checkpoints as ck, data as da, fully_connected as fc, learner as le, modules as mo, training as tr

F64 = torch.float64
def gen(seed=0): return torch.Generator().manual_seed(seed)
def draw(*shape, seed=0, dtype=F64): return torch.randn(*shape, generator=gen(seed), dtype=F64).to(dtype)
RANDOM = {'shift': au.shift, 'flip': au.flip, 'affine': functools.partial(au.affine, degrees=20, scale=.2, shear=.2, shift=2), 'erase': au.erase}
every = pytest.mark.parametrize('f', RANDOM.values(), ids=RANDOM)

# Images -----------------------------------------------------------------------------------------------------------------------------

@every
@pytest.mark.parametrize('dtype', [torch.float32, F64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('shape', [(5, 1, 28, 28), (3, 3, 9, 14), (1, 2, 1, 1)])
def test_dtype_shape_memory_and_the_image_itself_stay(f, dtype, shape):
    x = draw(*shape, dtype=dtype)
    before = x.clone()
    y = f(x, generator=gen())
    assert (y.dtype, y.shape, y.is_contiguous()) == (dtype, x.shape, True) and x.equal(before)
    assert y.isfinite().all() and y.min() >= x.min() and y.max() <= x.max()
    assert y.data_ptr() != x.data_ptr()

@every
def test_a_generator_or_a_seed_decides(f):
    x = draw(40, 1, 12, 12)
    a, state = f(x, generator=gen(3)), torch.get_rng_state()
    assert f(x, generator=gen(3)).equal(a) and torch.get_rng_state().equal(state)
    assert not f(x, generator=gen(4)).equal(a)
    torch.manual_seed(3)
    b = f(x)
    torch.manual_seed(3)
    assert f(x).equal(b) and not f(x).equal(b)

@every
def test_each_image_has_a_draw_of_its_own_and_its_channels_share_it(f):
    one = draw(1, 1, 12, 12)
    y = f(one.repeat(60, 2, 1, 1), generator=gen())
    assert len({tuple(im.flatten().tolist()) for im in y[:, 0]}) > 1 and y[:, 0].equal(y[:, 1])

@every
@pytest.mark.parametrize('x', [torch.ones(28, 28), torch.ones(5, 784), torch.ones(0, 1, 5, 5), torch.ones(2, 1, 0, 5)])
def test_what_are_no_images_is_refused(f, x):
    with pytest.raises(ValueError, match='images have shape'): f(x)
    with pytest.raises(TypeError, match='no tensor'): f([1.])

BAD = [(au.shift, dict(most=-1)), (au.affine, dict(degrees=-1)), (au.affine, dict(scale=-.1)), (au.affine, dict(scale=1.)), (au.affine, dict(shear=-1)), (au.affine, dict(shift=math.inf)),
       (au.affine, dict(degrees=math.nan)), (au.flip, dict(p=-.1)), (au.flip, dict(p=1.1)), (au.flip, dict(p=math.nan)), (au.erase, dict(p=2)), (au.erase, dict(area=(.2, .1))),
       (au.erase, dict(area=(0, 1.1))), (au.erase, dict(area=(.1,))), (au.erase, dict(aspect=.5)), (au.move, dict(down=.5)), (au.move, dict(right=torch.tensor([1, 2, 3]))), (au.move, dict(right=torch.tensor([[1], [2]]))),
       (au.move, dict(down=True)), (au.shift, dict(most=True)), (au.shift, dict(most=1.5)), (au.shift, dict(most=math.nan))]
@pytest.mark.parametrize('f, kw', BAD, ids=[f'{f.__name__} {kw}' for f, kw in BAD])
def test_settings_out_of_range_are_refused(f, kw):
    name, = kw
    with pytest.raises(ValueError, match=f'{name}[=:]'): f(draw(2, 1, 5, 5), **kw)

def test_whole_numbers_are_moved_and_not_interpolated():
    x = torch.arange(50, dtype=torch.uint8).view(2, 1, 5, 5)
    for f in (au.shift, au.flip, au.erase, au.move): assert f(x).dtype == torch.uint8
    for f in (au.affine, lambda x: au.bilinear(x, *torch.zeros(2, 2, 3, 3))):
        with pytest.raises(ValueError, match='call x.float'): f(x)

def test_paper_that_whole_numbers_cannot_hold_is_refused():
    x = torch.arange(50, dtype=torch.uint8).view(2, 1, 5, 5)
    for f in (au.move, au.shift, au.erase):
        with pytest.raises(ValueError, match='fill=0.5: x holds torch.uint8'): f(x, fill=.5)
    assert au.move(x, 1, fill=7)[:, :, 0].eq(7).all() and au.move(x, 1, fill=7.)[:, :, 0].eq(7).all() and au.move(x.half(), 1, fill=.1).dtype == torch.float16

@pytest.mark.parametrize('f', [au.flip, au.erase])
def test_a_generator_draws_on_its_device_for_images_on_another(f): assert f(torch.ones(2, 1, 5, 5, device='meta'), generator=gen()).device.type == 'meta'

def test_move_is_a_padded_crop():
    x = draw(4, 2, 7, 9)
    for d, r in ((0, 0), (2, -3), (-6, 1), (0, 8), (-20, 3), (7, 0)):
        theirs = F.pad(x, (r, -r, d, -d), value=math.nan) if abs(d) < 7 and abs(r) < 9 else torch.full_like(x, math.nan)
        assert au.move(x, d, r).equal(torch.where(theirs.isnan(), x.amin((1, 2, 3), keepdim=True), theirs))
    each = au.move(x, torch.tensor([0, 1, 2, 3]), torch.tensor([0, -1, -2, -3]), fill=9.)
    for i in range(4): assert each[i:i+1].equal(F.pad(x[i:i+1], (-i, i, i, -i), value=9.))

def test_shift_draws_every_move_alike_often_and_none_beyond():
    x = torch.zeros(20_000, 1, 7, 7)
    x[:, :, 3, 3] = 1
    at = au.shift(x, 2, generator=gen()).flatten(1)
    assert (at.sum(1) == 1).all()
    counts = at.argmax(1).bincount(minlength=49).view(7, 7)[1:6, 1:6]
    assert counts.sum() == 20_000 and (counts-800).abs().max() < 150  # five standard deviations
    assert au.shift(x, 0).equal(x)

def test_flip_twice_and_how_often():
    x = draw(4000, 1, 2, 3)
    assert au.flip(au.flip(x, 1.), 1.).equal(x) and au.flip(x, 0.).equal(x) and au.flip(x, 1.).equal(torch.from_numpy(np.flip(x.numpy(), 3).copy()))
    changed = (au.flip(x, .3, generator=gen()) != x).flatten(1).any(1)
    assert abs(changed.double().mean()-.3) < .04

@pytest.mark.parametrize('area, aspect', [((.02, .2), 3.), ((.1, .1), 1.), ((.3, .5), 2.), ((0, 0), 3.), ((1, 1), 1.)])
def test_erased_is_a_rectangle_within_the_bounds(area, aspect):
    h, w = 40, 30
    y = au.erase(torch.ones(400, 2, h, w), 1., area, aspect, fill=0., generator=gen())
    assert y[:, 0].equal(y[:, 1])
    places = set()
    for im in y[:, 0] == 0:
        rows, cols = im.any(1).nonzero()[:, 0], im.any(0).nonzero()[:, 0]
        a, b = len(rows), len(cols)
        assert im.sum() == a*b and rows[-1]-rows[0] == a-1 and cols[-1]-cols[0] == b-1  # without a hole
        if area == (0, 0): assert a*b <= 2  # a pixel, or two
        if area[0]: assert (a-.5)*(b-.5) <= area[1]*h*w+1e-3 and (a+.5)*(b+.5) >= area[0]*h*w-1e-3  # before both were rounded
        if area[0] and max(a, b) < 30: assert (a-.5)/(b+.5) <= aspect+1e-3 and (b-.5)/(a+.5) <= aspect+1e-3
        places.add((rows[0].item(), cols[0].item(), a, b))
    assert len(places) > 50 or area[0] in (1,)
    assert (au.erase(torch.ones(4000, 1, 9, 9), .3, fill=0., generator=gen()) == 0).flatten(1).any(1).double().mean().sub(.3).abs() < .04

# Between the pixels -----------------------------------------------------------------------------------------------------------------

def test_bilinear_is_grid_sample():
    for shape, out in (((3, 2, 7, 9), (5, 6)), ((2, 1, 1, 1), (3, 3)), ((1, 3, 2, 8), (1, 4))):
        x, (h, w) = draw(*shape), shape[-2:]
        i, j = torch.rand(shape[0], *out, generator=gen(1), dtype=F64)*(h+3)-2, torch.rand(shape[0], *out, generator=gen(2), dtype=F64)*(w+3)-2
        grid = torch.stack([(2*j+1)/w-1, (2*i+1)/h-1], -1)
        torch.testing.assert_close(au.bilinear(x, i, j, fill=0.), F.grid_sample(x, grid, align_corners=False), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(au._sample(x, i, j, torch.tensor(.7, dtype=F64)), au.bilinear(x, i, j, fill=.7), rtol=1e-12, atol=1e-12)
    x = draw(2, 1, 4, 5)
    at = torch.meshgrid(torch.arange(4.), torch.arange(5.), indexing='ij')
    assert au.bilinear(x, *(a.expand(2, -1, -1).double() for a in at)).equal(x)

def test_affine_without_settings_changes_nothing():
    x = torch.rand(50, 1, 28, 28, generator=gen())
    assert (au.affine(x)-x).abs().max() < 1e-5 and (au.affine(x.double())-x.double()).abs().max() < 1e-12

def test_affine_is_a_slow_loop():
    "By its definition: place by place, pixels forward from the middle, read between four"
    x, kw = draw(6, 2, 8, 11), dict(degrees=30, scale=.3, shear=.3, shift=2.)
    y = au.affine(x, **kw, fill=.5, generator=gen(5))
    draws = (2*torch.rand(6, 5, generator=gen(5))-1).double().tolist()
    h, w = x.shape[-2:]
    for n, (a, s, k, d, r) in enumerate(draws):
        a, s, k, d, r = math.radians(30)*a, 1+.3*s, .3*k, 2*d, 2*r
        m = s*np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) @ np.array([[1, k], [0, 1]])
        for i in range(h):
            for j in range(w):
                u, v = np.linalg.solve(m, [j-(w-1)/2-r, i-(h-1)/2-d])
                p, q = v+(h-1)/2, u+(w-1)/2
                i0, j0 = math.floor(p), math.floor(q)
                def pixel(i, j): return x[n, :, i, j] if 0 <= i < h and 0 <= j < w else torch.full((2,), .5, dtype=F64)
                b, c = p-i0, q-j0
                slow = (1-b)*(1-c)*pixel(i0, j0)+(1-b)*c*pixel(i0, j0+1)+b*(1-c)*pixel(i0+1, j0)+b*c*pixel(i0+1, j0+1)
                torch.testing.assert_close(y[n, :, i, j], slow, rtol=1e-6, atol=1e-6)  # the draws are float32

def test_affine_is_affine_grid_with_its_matrix():
    x = draw(5, 1, 9, 9)
    y = au.affine(x, degrees=40, scale=.2, fill=0., generator=gen(2))
    a, s, *_ = (2*torch.rand(5, 5, generator=gen(2))-1).double().T
    a, s = math.radians(40)*a, 1+.2*s
    back = torch.stack([a.cos()/s, a.sin()/s, 0*a, -a.sin()/s, a.cos()/s, 0*a], 1).view(5, 2, 3)
    torch.testing.assert_close(y, F.grid_sample(x, F.affine_grid(back, x.shape, align_corners=False), align_corners=False), rtol=1e-6, atol=1e-6)

def test_affine_turned_by_a_right_angle_and_moved_by_whole_pixels(monkeypatch):
    x = torch.rand(1, 1, 9, 9, generator=gen(), dtype=F64)
    monkeypatch.setattr(au, '_draw', lambda x, k, generator: [torch.ones(len(x), 1, 1, dtype=F64)]*k)  # the largest of all
    torch.testing.assert_close(au.affine(x, degrees=90), x.rot90(-1, (2, 3)), rtol=1e-9, atol=1e-9)  # clockwise
    torch.testing.assert_close(au.affine(x, shift=3), au.move(x, 3, 3), rtol=1e-9, atol=1e-9)

# In training ------------------------------------------------------------------------------------------------------------------------

def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(.2), nn.Linear(36, 3)).double()
def sets(n=60): return tr.Dataset(draw(n, 1, 8, 8), torch.arange(n) % 3)
def learner(cbs, model=None, loss=None, lr=.1): return le.Learner(model or net(), tr.get_dls(sets(), sets(20), 10, seed=1), loss or nn.CrossEntropyLoss(), lr=lr, cbs=cbs)
class Seen(le.Callback):
    order, state_dict = 10, None
    def __init__(self): self.train, self.valid = [], []
    def before_batch(self): (self.train if self.learn.training else self.valid).append(self.learn.xb)
class Killed(le.Callback):
    order, state_dict = 99, None
    def __init__(self, n): self.n = n
    def after_batch(self):
        if self.learn.training: self.n -= 1
        if self.n == 0: raise KeyboardInterrupt

def test_augment_changes_training_batches_alone():
    seen, plus = Seen(), lambda x: x+100
    l = learner([au.Augment(plus, plus), seen])
    l.fit(2)
    assert all((x > 150).all() for x in seen.train) and all((x < 50).all() for x in seen.valid) and len(seen.train) == 12
    seen.valid.clear()
    preds, _ = l.get_preds()
    assert all((x < 50).all() for x in seen.valid)
    with mo.eval_mode(l.model): torch.testing.assert_close(preds, l.model(sets(20).x))
    assert l.dls[0].dataset.x.equal(sets().x)  # the data themselves stay
    tried = []
    learner([au.Augment(lambda x: tried.append(1) or x)]).lr_find(n=10)
    assert tried  # trials train
    with pytest.raises(TypeError, match='pass functions'): au.Augment(3)

def test_lr_find_leaves_the_generators_as_they_were():
    g = gen(3)
    before = g.get_state()
    drawn = []
    learner([au.Augment(functools.partial(au.shift, generator=g), lambda x: drawn.append(1) or x)]).lr_find(n=10)
    assert g.get_state().equal(before) and drawn

def test_augment_says_if_a_file_keeps_other_generators():
    one, none = au.Augment(functools.partial(au.shift, generator=gen(3))), au.Augment(au.shift)
    for a, b in ((one, none), (none, one)):
        with pytest.raises(ValueError, match='generators'): a.load_state_dict(b.state_dict())
    one.load_state_dict(au.Augment(functools.partial(au.shift, generator=gen(4))).state_dict())
    assert one.fs[0].keywords['generator'].get_state().equal(gen(4).get_state())

def states(m): return [v.clone() for v in m.state_dict().values()]
@pytest.mark.parametrize('own', [False, True], ids=['global generator', 'own generator'])
@pytest.mark.parametrize('stop', [4, 6, 9])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, own, stop):
    "05b's promise, images and averaged weights included"
    def run(path=None, cbs=()):
        fs = au.shift, functools.partial(au.erase, p=.5, **(dict(generator=gen(7)) if own else {}))
        avg, seen, model = au.AveragedWeights(.8), Seen(), net()
        torch.manual_seed(5)
        learner([au.Augment(*fs), avg, seen, *([ck.Checkpoint(path, every=2)] if path else []), *cbs], model).fit(3)
        return avg, seen, model
    avg, seen, model = run()
    with pytest.raises(KeyboardInterrupt): run(tmp_path/'run', [Killed(stop)])
    again, rest, other = run(tmp_path/'run')
    assert len(rest.train) < len(seen.train) and all(a.equal(b) for a, b in zip(rest.train[::-1], seen.train[::-1]))
    for a, b in ((model, other), (avg.model, again.model)): assert all(x.equal(y) for x, y in zip(states(a), states(b), strict=True))
    assert again.steps == avg.steps == 18

# Averaged weights -------------------------------------------------------------------------------------------------------------------

class Theirs(le.Callback):
    "PyTorch's AveragedModel, with our share"
    order, in_preds, in_trials = -40, False, False
    def __init__(self, share): self.share = share
    def before_fit(self):
        def ema(means, now, n):
            share = min(self.share, float(n)/(float(n)+1))
            for m, v in zip(means, now): m.copy_(share*m+(1-share)*v if m.is_floating_point() else v)
        self.mean = AveragedModel(self.learn.model, multi_avg_fn=torch.no_grad()(ema), use_buffers=True)
        self.mean.update_parameters(self.learn.model)
    def after_step(self): self.mean.update_parameters(self.learn.model)

@pytest.mark.parametrize('share', [0., .5, .9, .999])
def test_averaged_is_torchs_averaged_model(share):
    avg, theirs = au.AveragedWeights(share), Theirs(share)
    l = learner([avg, theirs])
    l.fit(2)
    for k, v in theirs.mean.module.state_dict().items(): torch.testing.assert_close(avg.model.state_dict()[k], v, rtol=1e-10, atol=1e-12)
    assert avg.steps == 12 and not avg.model.training
    if share == 0: assert all(a.equal(b) for a, b in zip(states(avg.model), states(l.model)))

def test_averaged_of_ours_and_tied_weights_once():
    torch.manual_seed(0)
    a, b = (mo.Linear(4, 4, dtype=F64) for _ in range(2))
    b.weight = a.weight
    model = mo.Sequential(a, mo.ReLU(), b)
    ds = tr.Dataset(draw(30, 4), torch.arange(30) % 4)
    avg, seen = au.AveragedWeights(.99), [a.weight.clone()]
    class Note(le.Callback):
        def after_step(self): seen.append(a.weight.clone())
    le.Learner(model, (tr.get_dls(ds, ds, 10)[0], None), tr.CrossEntropy(), cbs=[avg, Note()]).fit(1)
    torch.testing.assert_close([*avg.model.parameters()][0].detach(), torch.stack(seen).mean(0).detach(), rtol=1e-12, atol=1e-14)
    layers = [*avg.model]
    assert layers[0].weight is layers[2].weight and layers[0].weight is not a.weight

def test_averaged_starts_anew_with_each_fit_and_takes_part_in_no_trial():
    avg = au.AveragedWeights(0.)
    l = learner([avg])
    l.fit(1)
    first = avg.model
    l.lr_find(n=10)
    assert avg.model is first and avg.steps == 6
    l.fit(1)
    assert avg.model is not first and avg.steps == 6
    assert all(a.equal(b) for a, b in zip(states(avg.model), states(l.model)))

def test_other_callbacks_see_the_mean_of_this_step():
    avg, same = au.AveragedWeights(0.), []
    class Look(le.Callback):
        def after_step(self): same.append(all(a.equal(b) for a, b in zip(states(avg.model), states(self.learn.model))))
    learner([Look(), avg]).fit(1)
    assert len(same) == 6 and all(same)

def test_averaged_by_steps_and_not_by_batches():
    avg = au.AveragedWeights()
    learner([avg, ca.GradAccum(3)]).fit(1)
    assert avg.steps == 2

@pytest.mark.parametrize('share', [-.1, 1., math.nan])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match='share='): au.AveragedWeights(share)

# Labels -----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('s', [0., .1, .35, 1.])
@pytest.mark.parametrize('n, c', [(1, 2), (7, 10), (3, 1)])
def test_smoothed_is_torchs(n, c, s):
    x, targ = 5*draw(n, c), torch.arange(n) % c
    theirs = x.clone().requires_grad_()
    loss = F.cross_entropy(theirs, targ, label_smoothing=s)
    loss.backward()
    ours = au.SmoothCrossEntropy(s)
    torch.testing.assert_close(ours(x, targ), loss.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.backward(), theirs.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fc.numerical_grad(lambda x: au.smooth_cross_entropy(x, targ, s), x), theirs.grad, rtol=1e-6, atol=1e-8)

def test_smoothed_by_nothing_is_cross_entropy_where_a_logit_is_minus_infinity():
    x, targ = torch.tensor([[-math.inf, 0., 1.]]), torch.tensor([1])
    for s in (0., .1): torch.testing.assert_close(au.SmoothCrossEntropy(s)(x, targ), F.cross_entropy(x, targ, label_smoothing=s))
    torch.testing.assert_close(au.SmoothCrossEntropy(0.)(x, targ), tr.cross_entropy(x, targ))

def test_smoothed_refuses_what_cross_entropy_refuses():
    x, targ = draw(3, 4), torch.tensor([0, 1, 2])
    for s in (-.1, 1.1, math.nan):
        for f in (lambda: au.SmoothCrossEntropy(s), lambda: au.smooth_cross_entropy(x, targ, s), lambda: au.smooth_cross_entropy_grad(torch.tensor(1.), x, targ, s)):
            with pytest.raises(ValueError, match='label_smoothing='): f()
    for bad in (torch.tensor([0, 1, 4]), torch.tensor([0, -1, 2]), torch.tensor([0, 1]), torch.ones(3)):
        for f in (au.smooth_cross_entropy, lambda *a: au.smooth_cross_entropy_grad(torch.tensor(1.), *a)):
            with pytest.raises(ValueError): f(x, bad)
    with pytest.raises(ValueError): au.smooth_cross_entropy_grad(torch.ones(3), x, targ)

# Probabilities ----------------------------------------------------------------------------------------------------------------------

def test_predict_is_the_mean_of_softmax_over_views():
    model, x = net(), draw(23, 1, 8, 8)
    model.train()
    views = [functools.partial(au.move, right=1), functools.partial(au.flip, p=1)]
    p = au.predict(model, x, views, batch_size=5)
    assert model.training and not p.requires_grad and p.shape == (23, 3)
    model.eval()
    with torch.no_grad(): slow = sum(model(v).softmax(1) for v in (x, au.move(x, right=1), x.flip(3)))/3
    torch.testing.assert_close(p, slow, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(au.predict(model, x), model(x).detach().softmax(1), rtol=1e-10, atol=1e-12)
    assert au.predict(model, x, iter(views), batch_size=5).equal(au.predict(model, x, views, batch_size=5))  # not used up by the first batch
    ours = mo.Sequential(mo.Linear(4, 3))
    au.predict(ours, torch.ones(2, 4))
    with pytest.raises(RuntimeError): ours.backward(torch.ones(2, 3))  # kept nothing
    with pytest.raises(ValueError, match='no images'): au.predict(model, x[:0])

@pytest.mark.parametrize('bins', [1, 2, 10, 15])
def test_calibration_is_a_slow_loop(bins):
    p, y = (3*draw(300, 4)).softmax(1), torch.randint(4, (300,), generator=gen())
    p[0], p[1], p[2] = torch.tensor([1., 0, 0, 0]), torch.tensor([.5, .5, 0, 0]), torch.full((4,), .25)
    n, sure, right = au.calibration(p, y, bins)
    total = 0.
    for i in range(bins):
        inside = [k for k in range(300) if i/bins < p[k].max() <= (i+1)/bins]
        assert n[i] == len(inside)
        if not inside:
            assert sure[i].isnan() and right[i].isnan()
            continue
        s, r = np.mean([p[k].max().item() for k in inside]), np.mean([float(p[k].argmax() == y[k]) for k in inside])
        assert abs(sure[i]-s) < 1e-12 and abs(right[i]-r) < 1e-12
        total += len(inside)*abs(s-r)
    assert n.sum() == 300 and abs(au.ece(p, y, bins)-total/300) < 1e-12
    exact = F.one_hot(y, 4).double()
    assert au.ece(exact, y) == 0 and au.ece(exact.roll(1, 1), y) == 1

def test_calibration_refuses_logits_and_no_bins():
    p, y = draw(5, 3).softmax(1), torch.tensor([0, 1, 2, 0, 1])
    for bad in (draw(5, 3), p*.9, -p):
        with pytest.raises(ValueError, match='pass probabilities'): au.ece(bad, y)
    for bins in (0, 2.5, math.nan):
        with pytest.raises(ValueError, match=f'bins={bins}'): au.calibration(p, y, bins)
    with pytest.raises(ValueError): au.calibration(p, y[:4])
    assert au.ece(p.float(), y) == pytest.approx(au.ece(p, y), abs=1e-6)

# Pictures ---------------------------------------------------------------------------------------------------------------------------

def scene(h, w, top, left, scale=5, paper=230, ink=20, noise=4., i=7):
    "A training digit, enlarged, on a sheet of its own, and the digit"
    x, _, *_ = da.get_data()
    digit = x[i].view(28, 28).numpy()*256/255
    big = np.kron(digit, np.ones((scale, scale)))
    sheet = np.zeros((h, w))
    sheet[top:top+28*scale, left:left+28*scale] = big
    grey = paper+(ink-paper)*sheet+noise*np.random.default_rng(0).standard_normal((h, w))
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)), x[i].view(1, 1, 28, 28)

LOOKS = {'dark on light': dict(), 'light on dark': dict(paper=30, ink=240), 'grey on grey': dict(paper=150, ink=60, noise=1.)}
@pytest.mark.parametrize('kw', LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.bmp'])
def test_a_digit_is_found_wherever_it_lies(tmp_path, name, kw):
    im, digit = scene(200, 320, 30, 170, **kw)
    im.save(tmp_path/name)
    got = au.read_picture(tmp_path/name)
    assert got.shape == (1, 1, 28, 28) and got.dtype == torch.float32 and got.min() == 0 and got.max() == pytest.approx(255/256)
    assert np.corrcoef(got.flatten(), digit.flatten())[0, 1] > .93
    assert got.equal(au.read_picture(str(tmp_path/name)))

def test_colours_transparency_and_turned_cameras(tmp_path):
    im, _ = scene(180, 300, 20, 100, noise=0)
    im.save(tmp_path/'grey.png')
    want = au.read_picture(tmp_path/'grey.png')
    a = 255-np.array(im)
    Image.fromarray(np.stack([np.zeros_like(a)]*3+[a.astype(np.uint8)], -1), 'RGBA').save(tmp_path/'clear.png')  # black, seen through
    assert (au.read_picture(tmp_path/'clear.png')-want).abs().max() < .05
    side, exif = im.rotate(90, expand=True), Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees
    side.save(tmp_path/'side.png', exif=exif)
    assert (au.read_picture(tmp_path/'side.png')-want).abs().max() < 1e-6
    im.convert('P').save(tmp_path/'palette.png')
    assert (au.read_picture(tmp_path/'palette.png')-want).abs().max() < .05

def test_no_picture_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file .*missing.png'): au.read_picture(tmp_path/'missing.png')
    with pytest.raises(FileNotFoundError, match='no file'): au.read_picture(tmp_path)
    (tmp_path/'text.png').write_text('no picture')
    with pytest.raises(ValueError, match='text.png is no picture'): au.read_picture(tmp_path/'text.png')
    im, _ = scene(200, 320, 30, 170)
    im.save(tmp_path/'whole.png')
    (tmp_path/'half.png').write_bytes((tmp_path/'whole.png').read_bytes()[:3000])
    with pytest.raises(ValueError, match='half.png is no picture'): au.read_picture(tmp_path/'half.png')
    for name, im in (('white.png', Image.new('L', (50, 40), 255)), ('grain.png', scene(200, 320, 30, 170, ink=228, noise=2.)[0])):
        im.save(tmp_path/name)
        with pytest.raises(ValueError, match=f'{name} is blank'): au.read_picture(tmp_path/name)

def test_more_than_8_bits_a_pixel_are_refused(tmp_path):
    "Pillow's `convert` would make all above 255 white"
    for kw in (dict(), dict(paper=30, ink=240)):
        a = np.array(scene(200, 320, 30, 170, **kw)[0])
        for name, deep in (('deep.png', (a*257.).astype(np.uint16)), ('deep.tif', (a*257.).astype(np.uint16)), ('float.tif', (a/255).astype(np.float32))):
            Image.fromarray(deep).save(tmp_path/name)
            with pytest.raises(ValueError, match=f'{name} .*more than 8 bits'): au.read_picture(tmp_path/name)

def test_what_read_picture_cannot_do(tmp_path):
    "As its comment and 09a say: white on nothing is blank, and a speck as dark as the ink is ink"
    im, _ = scene(180, 300, 20, 100, noise=0)
    a = 255-np.array(im)
    Image.fromarray(np.stack([np.full_like(a, 255)]*3+[a.astype(np.uint8)], -1), 'RGBA').save(tmp_path/'white.png')
    with pytest.raises(ValueError, match='white.png is blank'): au.read_picture(tmp_path/'white.png')
    im.save(tmp_path/'clean.png')
    im.putpixel((2, 2), 0)
    im.save(tmp_path/'speck.png')
    clean, speck = (au.read_picture(tmp_path/n).flatten() for n in ('clean.png', 'speck.png'))
    assert np.corrcoef(clean, speck)[0, 1] < .6

"Looking inside: hooks, statistics of activations and updates, general ReLU, LSUV, intervals"
import copy, math
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from notes.normalization import BatchNorm2d
from fits import F64, Log, learner, loaders, mlp, ours, std_cbs, weights
from notes import activations as ac, callbacks as ca, checkpoints as ck, convolutions as cv, fully_connected as fc, learner as le, modules as mo, training as tr
from notes.exports import rel_error

BOTH = pytest.mark.parametrize('make,loss', [(mlp, F.cross_entropy), (ours, tr.CrossEntropy())], ids=['torch', 'ours'])
KINDS = {mlp: nn.ReLU, ours: mo.ReLU}

def fit(make, loss, cbs, epochs=1, dls=None, **kw):
    l = le.Learner(make(), dls or loaders(), loss, cbs=cbs, **kw)
    l.fit(epochs)
    return l

class Boom(le.Callback):
    state_dict = None
    def __init__(self, *at): self.at = at
    def after_loss(self):
        if self.learn.training and (self.learn.epoch, self.learn.iter) == self.at: raise ZeroDivisionError

def left(model): return sum(len(vars(m).get(k, ())) for m in model.modules() for k in ('_hooks', '_forward_hooks'))

# Hooks --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('make', [mlp, ours])
def test_hooks_see_and_end(make):
    net, x, seen = make(), torch.randn(4, 6, dtype=F64), []
    def look(hook, module, args, out): seen.append((hook, module, args[0], out))
    with ac.Hooks(net, look) as hooks, ac.Hook(net, look) as whole:
        y = net(x)
        assert left(net) == 4
    net(x)
    assert left(net) == 0 and len(seen) == 4 and [s[0] for s in seen] == [*hooks, whole]
    assert [s[1] for s in seen] == [*net, net] and seen[0][2] is x and seen[1][2] is seen[0][3] and seen[3][3] is y

@pytest.mark.parametrize('make', [mlp, ours])
def test_hooks_end_after_an_exception(make):
    net, x = make(), torch.randn(4, 6, dtype=F64)
    def bad(*_): 1/0
    with pytest.raises(ZeroDivisionError), ac.Hooks(net, bad): net(x)
    assert left(net) == 0
    with pytest.raises(TypeError, match='takes no hooks'): ac.Hooks([*net, 3], bad)  # and none of the others has one
    assert left(net) == 0 and net(x) is not None

def test_a_hook_changes_nothing():
    "Also if its function returns something, which PyTorch would take for the output"
    net, x = mlp(), torch.randn(4, 6, dtype=F64)
    with ac.Hooks(net, lambda *_: torch.zeros(1)): assert torch.equal(net(x), mlp()(x))

def test_what_hooks_refuse():
    with pytest.raises(TypeError, match='int takes no hooks'): ac.Hook(3, print)
    with pytest.raises(TypeError, match="can't be called"): ac.Hook(mo.ReLU(), 3)

@BOTH
def test_no_hook_is_left_after_fits(make, loss):
    l = le.Learner(make(), loaders(8), loss, cbs=[ac.ActivationStats(), ac.UpdateStats()])
    for _ in range(1000): l.fit(1)
    assert left(l.model) == 0 and len(l.cbs[0].rows) == len(l.cbs[1].rows) == 1000 and not {'hooks', 'ps', 'old'} & (vars(l.cbs[0]).keys() | vars(l.cbs[1]).keys())

@BOTH
@pytest.mark.parametrize('event', ['before_fit', 'before_batch', 'after_predict', 'after_backward', 'after_batch', 'after_epoch', 'after_fit'])
def test_no_hook_is_left_after_an_exception(make, loss, event):
    l = le.Learner(make(), loaders(), loss, cbs=[ac.ActivationStats(), ac.UpdateStats(), Log(order=99, **{event: (lambda l: True, ZeroDivisionError())})])
    with pytest.raises(ZeroDivisionError): l.fit(1)
    assert left(l.model) == 0

# Activations --------------------------------------------------------------------------------------------------------------------

def directly(x, bins=60, lo=-3., hi=3., zero=1e-3):
    "The same numbers, one value at a time"
    v, width = x.flatten().tolist(), (hi-lo)/bins
    m = sum(v)/len(v)
    hist = [0]*bins
    for a in v: hist[min(bins-1, max(0, math.floor((a-lo)/width)))] += 1
    units = [x[:, i].flatten().tolist() for i in range(x.shape[1])]
    return [m, math.sqrt(sum((a-m)**2 for a in v)/len(v)), sum(abs(a) <= zero for a in v)/len(v), sum(min(u) == max(u) for u in units)/len(units), *hist]

@BOTH
def test_stats_are_the_numbers_computed_directly(make, loss):
    "Of each layer at each training batch, with weights and images as they were there"
    outs = []
    class Peek(le.Callback):
        def before_batch(self):
            if not self.learn.training: return
            x = self.learn.xb
            with torch.no_grad():
                for layer in copy.deepcopy(self.learn.model):
                    x = layer(x)
                    outs.append(x)
    s = ac.ActivationStats()
    l = fit(make, loss, [Peek(), s], 2)
    want = torch.tensor([directly(o) for o in outs], dtype=F64).reshape(10, 3, 64)
    assert rel_error(s.rows, want) < 1e-12 and s.rows.dtype == F64
    assert torch.equal(s.mean, s.rows[:, :, 0].T) and torch.equal(s.std, s.rows[:, :, 1].T) and torch.equal(s.near_zero, s.rows[:, :, 2].T) and torch.equal(s.dead, s.rows[:, :, 3].T)
    assert s.hist.shape == (3, 60, 10) and torch.equal(s.hist[1, :, 3], s.rows[3, 1, 4:]) and s.hist.sum(1)[1, 0] == 8*5
    assert s.names == [f'{i} {type(m).__name__}' for i, m in enumerate(l.model)]

@BOTH
def test_stats_of_some_kinds_in_any_depth(make, loss):
    deep = {mlp: lambda: nn.Sequential(mlp(), nn.ReLU()), ours: lambda: mo.Sequential(ours(), mo.ReLU())}[make]
    s = ac.ActivationStats(KINDS[make], bins=4, limits=(0, 1))
    fit(deep, loss, [s])
    assert s.names == ['0.1 ReLU', '1 ReLU'] and s.hist.shape == (2, 4, 5)
    s = ac.ActivationStats()
    fit(deep, loss, [s])
    assert s.names == ['0.0 Linear', '0.1 ReLU', '0.2 Linear', '1 ReLU']

def test_dead_units_and_zeros():
    x = torch.tensor([[[0., 1.], [0., 0.]], [[0., 1.], [0., 2.]]])  # (2 images, 2 channels, 2 places)
    x = torch.cat([x, torch.full((2, 1, 2), -.5), torch.tensor([[[-1., -2.]], [[-3., -4.]]])], 1)
    assert ac._numbers(x, 1, (0., 1.), 0.)[2:4].tolist() == pytest.approx([5/16, 1/4])  # the channel at -0.5 is dead, and not near zero; the one below it is neither
    assert ac._numbers(x, 1, (0., 1.), .5)[2] == pytest.approx(9/16)

def test_what_is_beyond_the_limits_counts_at_the_ends_and_no_number_nowhere():
    row = ac._numbers(torch.tensor([[-9., .1, 9., math.inf, math.nan]]), 2, (-1., 1.), 0.)
    assert row[4:].tolist() == [1, 3]

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_counted_in_float32(dtype):
    row = ac._numbers(torch.ones(300, 300, dtype=dtype), 2, (0., 2.), 0.)
    assert row.dtype == torch.float32 and row[5] == 90_000 and row[0] == 1
    assert ac._size(torch.full((9,), 1e-5, dtype=dtype)).item() == pytest.approx(1e-5, rel=.02)

@BOTH
def test_who_looks_on_changes_nothing(make, loss):
    runs = [fit(make, loss, cbs, 2) for cbs in ([], [ac.ActivationStats(), ac.UpdateStats()])]
    assert torch.equal(*[weights(l.model) for l in runs])

@BOTH
def test_only_the_training_forward_passes_are_counted(make, loss):
    "Not validation, not get_preds within a fit, not a trial, not what others ask of the model"
    class Asks(le.Callback):
        in_preds = in_trials = False
        def __init__(self, order): self.order = order
        def ask(self):
            with torch.no_grad(): self.learn.model(self.learn.xb+1)
        before_batch = after_predict = after_backward = after_batch = ask
        def after_epoch(self):
            self.learn.get_preds()
            self.learn.lr_find(n=10)
    a, b = ac.ActivationStats(), ac.ActivationStats()
    fit(make, loss, [a], 2)
    l = fit(make, loss, [Asks(0), b, Asks(99)], 2)
    assert torch.equal(a.rows, b.rows)
    l.get_preds(); l.lr_find(n=10)
    assert len(b.rows) == 10 and left(l.model) == 0

def test_stats_of_a_layer_that_runs_twice_or_not():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.act, self.b, self.lost = nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3), nn.Linear(1, 1)
        def forward(self, x): return self.act(self.b(self.act(self.a(x))))
    s = ac.ActivationStats()
    l = le.Learner(Odd().double(), loaders(), F.cross_entropy, lr=0, cbs=[s])
    xb = next(iter(loaders()[0]))[0]
    l.fit(1)
    assert s.names == ['a Linear', 'act Tanh', 'b Linear', 'lost Linear'] and s.mean[3].isnan().all() and s.mean[:3].isfinite().all()
    assert s.mean[1, 0].item() == pytest.approx(l.model.a(xb).tanh().mean().item())

def test_what_stats_refuse():
    for kw in (dict(bins=0), dict(limits=(1, 1)), dict(limits=(0, math.inf)), dict(zero=-1), dict(zero=math.nan)):
        with pytest.raises(ValueError, match='need bins'): ac.ActivationStats(**kw)
    with pytest.raises(ValueError, match='no layers of these kinds'): learner([ac.ActivationStats(nn.Conv2d)]).fit(1)
    class Two(nn.Module):
        def forward(self, x): return x, x
    class First(nn.Module):
        def forward(self, x): return x[0]
    with pytest.raises(TypeError, match='Two.*tuple'): learner([ac.ActivationStats()], nn.Sequential(mlp(), Two(), First())).fit(1)
    with pytest.raises(ValueError, match='noted nothing'): ac.ActivationStats().mean
    with pytest.raises(ValueError, match='noted nothing'): ac.UpdateStats().ratio

def test_one_callback_for_another_model():
    s = ac.ActivationStats()
    fit(mlp, F.cross_entropy, [s])
    with pytest.raises(ValueError, match='add a new ActivationStats'): learner([s], nn.Sequential(mlp(), nn.ReLU())).fit(1)
    fit(mlp, F.cross_entropy, [s])
    assert len(s.rows) == 10

@BOTH
@pytest.mark.parametrize('kw', [dict(bins=61), dict(limits=(-3., 4.)), dict(zero=.1)])
def test_numbers_counted_otherwise_are_refused_before_training(tmp_path, make, loss, kw):
    fit(make, loss, [ac.ActivationStats(), ck.Checkpoint(tmp_path/'a')])
    l = le.Learner(make(), loaders(), loss, cbs=[ac.ActivationStats(**kw), log := Log()])
    with pytest.raises(ValueError, match='bins, limits and zero are .* and were'): l.fit(2, cbs=[ck.Checkpoint(tmp_path/'a')])
    assert left(l.model) == 0 and 'before_batch' not in log.log

class Sometimes(nn.Module):
    "A layer that runs in the training passes named only"
    def __init__(self, *at):
        super().__init__()
        torch.manual_seed(0)
        self.at, self.i, self.a, self.some = at, -1, nn.Linear(6, 3).double(), nn.Tanh()
    def forward(self, x):
        self.i += self.training
        return self.some(self.a(x)) if self.i in self.at else self.a(x)

def test_a_layer_that_runs_in_some_batches():
    s = ac.ActivationStats(nn.Tanh)
    learner([s], Sometimes(1, 3)).fit(1)
    assert s.mean.isnan().tolist() == [[True, False, True, False, True]] and s.hist.shape == (1, 60, 5)
    for n in (1, 2):  # the second fit, too
        s, l = ac.ActivationStats(nn.Tanh), learner([], Sometimes())
        with pytest.raises(ValueError, match='some Tanh: never ran'): l.fit(n, cbs=[s])
        assert left(l.model) == 0

@BOTH
@pytest.mark.parametrize('kind', [ac.ActivationStats, ac.UpdateStats])
@pytest.mark.parametrize('same', [True, False])
def test_a_fit_within_a_fit_needs_its_own(make, loss, kind, same):
    cb, models = kind(), [make(), make()]
    class Inner(le.Callback):
        def after_epoch(self): (self.learn if same else le.Learner(models[1], loaders(), loss)).fit(1, cbs=[] if same else [cb])
    with pytest.raises(ValueError, match='in a fit already'): le.Learner(models[0], loaders(), loss, cbs=[cb, Inner()]).fit(2)
    assert not any(map(left, models)) and len(cb.rows) == 5
    fit(make, loss, [cb])  # and it can be used again
    assert len(cb.rows) == 10

@pytest.mark.parametrize('shape', [(1, 7), (1, 1)])
def test_one_number_of_a_unit_says_nothing_about_death(shape):
    assert ac._numbers(torch.ones(shape), 1, (0., 2.), 0.)[3].isnan()
    assert ac._numbers(torch.ones(2, 3), 1, (0., 2.), 0.)[3] == 1 == ac._numbers(torch.ones(1, 3, 2, 2), 1, (0., 2.), 0.)[3]

@BOTH
def test_predictions_asked_for_between_are_not_counted(make, loss):
    "Also by a callback that comes after the statistics in before_batch"
    class Asks(le.Callback):
        order, in_preds, in_trials = 200, False, False
        def before_batch(self):
            if self.learn.training: self.learn.get_preds(loaders(8)[1])
    a, b = ac.ActivationStats(), ac.ActivationStats()
    fit(make, loss, [a])
    fit(make, loss, [b, Asks()])
    assert torch.equal(a.rows, b.rows)

# Updates ------------------------------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.parametrize('opt', [tr.SGD, torch.optim.Adam], ids=['SGD', 'Adam'])
def test_updates_are_the_numbers_computed_directly(make, loss, opt):
    seen = []
    class Peek(le.Callback):
        order = 99
        def weights(self): return [p.detach().clone() for p in self.learn.model.parameters() if p.ndim > 1]
        def after_backward(self): self.g, self.w = [p.grad.clone() for p in self.learn.model.parameters() if p.ndim > 1], self.weights()
        def after_step(self): seen.append([[g.pow(2).mean().sqrt(), w.pow(2).mean().sqrt(), (v-w).pow(2).mean().sqrt()] for g, w, v in zip(self.g, self.w, self.weights())])
    u = ac.UpdateStats()
    fit(make, loss, [u, Peek()], 2, opt_func=opt, lr=.01)
    want = torch.tensor(seen, dtype=F64)
    assert rel_error(u.rows, want) < 1e-13 and u.names == ['0.weight', '2.weight'] and u.rows.shape == (10, 2, 3)
    assert torch.equal(u.grad, u.rows[:, :, 0].T) and rel_error(u.ratio, (want[:, :, 2]/want[:, :, 1]).T) < 1e-13
    if opt is tr.SGD: assert rel_error(u.ratio, .01*(want[:, :, 0]/want[:, :, 1]).T) < 1e-12

def test_updates_are_of_steps_not_of_batches():
    u, s = ac.UpdateStats(), ac.ActivationStats()
    learner([ca.GradAccum(2), u, s]).fit(1)
    assert len(u.rows) == 3 and len(s.rows) == 5  # two pairs, and the last batch

def test_updates_see_what_clipping_left():
    u = ac.UpdateStats()
    learner([ca.GradClip(1e-3), u]).fit(1)
    assert u.grad.max() < 1e-3

def test_a_weight_without_a_gradient():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lost = mlp(), nn.Linear(2, 2).double()
        def forward(self, x): return self.net(x)
    u = ac.UpdateStats()
    learner([u], Half()).fit(1)
    assert u.names[-1] == 'lost.weight' and not u.grad[2].any() and not u.ratio[2].any() and u.grad[:2].all()
    with pytest.raises(ValueError, match='no weights'): learner([ac.UpdateStats()], nn.Sequential(nn.BatchNorm1d(6)).double()).fit(1)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_updates_in_half_precision_are_counted_in_float32(dtype):
    class Flip(le.Callback):
        order = 99
        def after_step(self): self.learn.model[0].weight.data.neg_()
    class Mean(nn.Module):
        def forward(self, pred, targ): return pred.mean()
    torch.manual_seed(0)
    net, u = nn.Sequential(nn.Linear(6, 3).to(dtype)), ac.UpdateStats()
    net[0].weight.data.fill_(4e4)
    dl = [(torch.zeros(4, 6, dtype=dtype), torch.zeros(4))]
    le.Learner(net, (dl, None), Mean(), cbs=[u, Flip()]).fit(1)
    assert u.rows.dtype == torch.float32 and u.ratio.item() == 2

def test_updates_from_sparse_gradients():
    class Net(nn.Module):
        def __init__(self, sparse):
            super().__init__()
            torch.manual_seed(0)
            self.e = nn.Embedding(9, 3, sparse=sparse).double()
        def forward(self, x): return self.e(x)
    dl = [(torch.tensor([1, 2, 2]), torch.tensor([0, 1, 2]))]
    a, b = ac.UpdateStats(), ac.UpdateStats()
    for u, sparse in ((a, True), (b, False)): le.Learner(Net(sparse), (dl, None), F.cross_entropy, torch.optim.SGD, cbs=[u]).fit(1)
    assert a.grad.item() > 0 and rel_error(a.rows, b.rows) < 1e-14

# Together with a checkpoint, and moved --------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.filterwarnings('error')
def test_stats_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path, make, loss):
    def run(path, *cbs):
        s, u = ac.ActivationStats(), ac.UpdateStats()
        le.Learner(make(), loaders(), loss, cbs=[*std_cbs(), s, u, ca.GradAccum(2)]).fit(3, cbs=[ck.Checkpoint(path, every=2), *cbs])
        return s, u
    whole = run(tmp_path/'a')
    for at in ((0, 1), (1, 3), (2, 0)):
        p = tmp_path/f'{at}'
        with pytest.raises(ZeroDivisionError): run(p, Boom(*at))
        for a, b in zip(whole, run(p)): assert torch.equal(a.rows, b.rows) and a.names == b.names
    for a, b in zip(whole, run(tmp_path/'a')): assert torch.equal(a.rows, b.rows)  # nothing to do, and all is there

def test_numbers_of_other_layers_are_refused(tmp_path):
    s = ac.ActivationStats(nn.ReLU)
    learner([s]).fit(1, cbs=[ck.Checkpoint(tmp_path/'a')])
    with pytest.raises(ValueError, match='kept of 1 ReLU, and this model has 0 Linear'): learner([ac.ActivationStats()]).fit(2, cbs=[ck.Checkpoint(tmp_path/'a')])

def test_numbers_are_fetched_at_the_end():
    "Nothing waits for the device: on one that has no values all goes well, and the numbers are still there"
    u = ac.UpdateStats()
    class Mean(nn.Module):
        def forward(self, pred, targ): return pred.mean()
    le.Learner(mlp(), loaders(), Mean(), cbs=[le.Device('meta'), u]).fit(1)
    assert u._new[0][0].device.type == 'meta'

def test_plots():
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    s, u = ac.ActivationStats(), ac.UpdateStats()
    learner([s, u]).fit(1)
    axs = s.plot()
    assert [ax.get_ylabel() for ax in axs] == ['mean', 'std'] and [l.get_ydata().tolist() for l in axs[1].lines] == [r.tolist() for r in s.std] and [t.get_text() for t in axs[0].get_legend().texts] == s.names
    ax, = s.plot('dead')
    assert len(ax.lines) == 3
    axs = s.plot_hist()
    assert len(axs) == 3 and torch.equal(torch.tensor(axs[2].images[0].get_array().data), s.hist[2].log1p()) and axs[0].images[0].get_extent() == [.5, 5.5, -3, 3]
    ax = u.plot_ratio()
    assert [l.get_ydata().tolist() for l in ax.lines[:2]] == [r.tolist() for r in u.ratio] and set(ax.lines[2].get_ydata()) == {1e-3} and ax.get_yscale() == 'log'
    ax = plt.subplots()[1]
    ac._lines(ax, torch.zeros(300, 2), [*map(str, range(300))], 'x')
    assert len(ax.lines) == 300
    ax = plt.subplots()[1]
    assert u.plot_ratio(ax) is ax and s.plot('mean', axs=[ax])[0] is ax
    plt.close('all')

# General ReLU -------------------------------------------------------------------------------------------------------------------

finite = st.floats(-2, 2)

@given(finite, finite, st.floats(.1, 3), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_general_relu_value_by_value(leak, sub, power, seed):
    x = 3*torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=F64)
    x[0, 0] = 0
    f = lambda v: (v**power if v > 0 else leak*v) - sub
    assert torch.allclose(ac.general_relu(x, leak, sub, power), torch.tensor([[f(v) for v in r] for r in x.tolist()], dtype=F64), rtol=1e-12, atol=1e-12)
    d = lambda v: power*v**(power-1) if v > 0 else leak
    assert torch.allclose(ac.general_relu_grad(torch.ones_like(x), x, leak, sub, power), torch.tensor([[d(v) for v in r] for r in x.tolist()], dtype=F64), rtol=1e-12, atol=1e-12)

@pytest.mark.parametrize('dtype', [torch.float32, F64])
@pytest.mark.parametrize('leak', [0., .1, .3])
def test_general_relu_is_torchs(dtype, leak):
    x = torch.tensor([-math.inf, -2., -1e-40, -0., 0., 1e-40, 3., math.inf, math.nan], dtype=dtype)
    ours, g = ac.general_relu(x, leak), torch.linspace(1, 2, 9, dtype=dtype)
    want = F.leaky_relu(x, leak) if leak else F.relu(x)
    assert ours.dtype == dtype and torch.equal(ours[:-1], want[:-1]) and ours[-1].isnan()
    leaf = x[:-1].clone().requires_grad_()
    (F.leaky_relu(leaf, leak) if leak else F.relu(leaf)).mul(g[:-1]).sum().backward()
    got = ac.general_relu_grad(g, x, leak)
    assert got.dtype == dtype and torch.equal(got[:-1], leaf.grad)

def test_autograd_goes_through_general_relu():
    "Also where the argument is below 0 or 0, and a power of it or its slope would be no number"
    x = torch.tensor([-1., 0., 2.], dtype=F64, requires_grad=True)
    ac.general_relu(x, .1, .5, .9).sum().backward()
    assert torch.allclose(x.grad, ac.general_relu_grad(torch.ones(3, dtype=F64), x.detach(), .1, .5, .9), rtol=1e-15)

def test_the_layer_is_the_function():
    x, g = torch.randn(2, 3, 4, 4, dtype=F64), torch.randn(2, 3, 4, 4, dtype=F64)
    layer = ac.GeneralReLU(.1, .25, .9)
    assert torch.equal(layer(x), ac.general_relu(x, .1, .25, .9)) and torch.equal(layer.backward(g), ac.general_relu_grad(g, x, .1, .25, .9))
    assert isinstance(layer, mo.ReLU) and cv.receptive_field([cv.Conv2d(1, 1, 3), layer]) == [(3, 1, 0)]*2
    net = mo.Sequential(mo.Linear(3, 3), layer)
    assert net.state_dict()['1.sub'] == .25 and net.to(F64)[1].sub.dtype == F64

@pytest.mark.parametrize('kw', [dict(power=0), dict(power=-1), dict(power=math.inf), dict(power=math.nan), dict(leak=math.inf), dict(leak=math.nan), dict(sub=math.nan)])
def test_general_relu_refuses(kw):
    with pytest.raises(ValueError, match='power above 0'): ac.GeneralReLU(**kw)

@pytest.mark.parametrize('kw', [dict(power=0), dict(power=-1), dict(leak=math.nan)])
def test_the_functions_refuse_too(kw):
    x = torch.ones(3)
    with pytest.raises(ValueError, match='power above 0'): ac.general_relu(x, **kw)
    with pytest.raises(ValueError, match='power above 0'): ac.general_relu_grad(x, x, **kw)

@pytest.mark.parametrize('dtype', [torch.float32, F64, torch.bfloat16])
@pytest.mark.parametrize('power', [.1, .5, .9])
def test_slopes_near_0_are_finite(dtype, power):
    x = torch.tensor([torch.finfo(dtype).smallest_normal*2.**-5, torch.finfo(dtype).tiny], dtype=dtype)
    assert x[0] > 0
    g = ac.general_relu_grad(torch.ones(2, dtype=dtype), x, power=power)
    assert g.isfinite().all() and g[0] == g[1] > 1

def test_sub_in_float64():
    "In a float64 network the layer is the function, if it is told so; as weights, it is float32 by default"
    x = torch.randn(9, dtype=F64)
    assert torch.equal(ac.GeneralReLU(sub=.1, dtype=F64)(x), ac.general_relu(x, sub=.1))
    assert ac.GeneralReLU(sub=.1).sub.dtype == torch.float32 == ac.GeneralReLU(sub=.1, dtype=F64)(x.float()).dtype

def test_general_relu_grad_wants_one_shape():
    with pytest.raises(ValueError, match='shape of the output'): ac.general_relu_grad(torch.ones(3), torch.ones(4))

# Initialisation -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('leak', [0., .5])
def test_kaiming_init(leak):
    "Weights are those of `kaiming_normal_`, drawn in the order of the layers; biases are 0; a batch norm keeps what it has"
    nets = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Flatten(), nn.Linear(40, 50, bias=False)), mo.Sequential(cv.Conv2d(3, 40, 3), BatchNorm2d(40), mo.ReLU(), cv.Flatten(), mo.Linear(40, 50, bias=False))
    for net in nets:
        net[1].weight.data.fill_(3.)
        torch.manual_seed(1)
        assert ac.kaiming_init(net, leak) is net
        torch.manual_seed(1)
        for i in (0, 4): assert torch.equal(net[i].weight, nn.init.kaiming_normal_(torch.empty_like(net[i].weight), leak))
        assert not net[0].bias.any() and net[1].weight.eq(3).all()
        assert all(p.requires_grad for p in net.parameters()) == isinstance(net, nn.Module)
    with pytest.raises(ValueError, match='no linear layers or conv'): ac.kaiming_init(mo.ReLU())

class Many(nn.Module):
    "Layers with weights that Kaiming's rule isn't for"
    def __init__(self):
        super().__init__()
        self.a, self.emb, self.norm, self.lstm = nn.Linear(4, 4), nn.Embedding(5, 4), nn.LayerNorm((3, 4)), nn.LSTM(4, 4)

def test_kaiming_init_leaves_other_layers_alone():
    net = Many()
    was = copy.deepcopy(net.state_dict())
    ac.kaiming_init(net)
    assert [k for k, v in net.state_dict().items() if not torch.equal(v, was[k])] == ['a.weight', 'a.bias']
    with pytest.raises(ValueError, match='no linear layers'): ac.kaiming_init(nn.Embedding(3, 4))

@pytest.mark.filterwarnings('ignore:.*weight_norm')
@pytest.mark.parametrize('last', [lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), lambda: nn.utils.weight_norm(nn.Linear(4, 2)), lambda: nn.LazyLinear(2)], ids=['new', 'old', 'lazy'])
@pytest.mark.parametrize('f', [ac.kaiming_init, lambda net: ac.lsuv(net, torch.randn(9, 4))], ids=['kaiming', 'lsuv'])
def test_what_can_not_be_set_is_refused_before_anything_changes(last, f):
    net = nn.Sequential(nn.Linear(4, 4), last())
    was = net[0].weight.clone()
    with pytest.raises(ValueError, match="1: its weight is computed|1 hasn't run yet"): f(net)
    assert torch.equal(was, net[0].weight)

class Net:
    "A random network, ours or PyTorch's, with layers of odd sizes, scales and biases"
    def __init__(self, draw):
        torch.manual_seed(draw(st.integers(0, 2**31)))
        self.ours = draw(st.booleans())
        conv, linear, flat, relu, seq = (cv.Conv2d, mo.Linear, cv.Flatten, mo.ReLU, mo.Sequential) if self.ours else (nn.Conv2d, nn.Linear, nn.Flatten, nn.ReLU, nn.Sequential)
        act = lambda: ac.GeneralReLU(draw(st.sampled_from([0., .1])), draw(st.sampled_from([0., .5])), draw(st.sampled_from([1., .9]))) if self.ours and draw(st.booleans()) else relu()
        layers, c = [], draw(st.integers(1, 3))
        self.x = 3*torch.randn(64, c, 6, 6, dtype=F64) + 1
        for _ in range(draw(st.integers(0, 2))):
            k = draw(st.integers(4, 9))
            layers, c = [*layers, conv(c, k, 3, padding=1), act()], k
        layers.append(flat())
        n = c*36
        for _ in range(draw(st.integers(1, 3))):
            k = draw(st.integers(4, 9))
            layers, n = [*layers, linear(n, k, bias=draw(st.booleans())), act()], k
        self.model = seq(*layers[:-1]).to(F64)
        with torch.no_grad():
            for p in self.model.parameters(): p.mul_(10**draw(st.floats(-3, 3)))

@given(st.data())
@settings(max_examples=30, deadline=None)
def test_lsuv_gives_every_layer_variance_1(data):
    net = Net(data.draw)
    model, x = net.model, net.x
    before, outs = copy.deepcopy(model), {}
    with torch.no_grad(), ac.Hooks([*before], lambda hook, m, args, out: outs.setdefault(m, out)): before(x)
    stds = {k: outs[m].std(correction=0).item() for k, m in before.named_modules() if hasattr(m, 'weight')}
    alive = all(s > 0 for s in stds.values())
    try: found = ac.lsuv(model, x)
    except ValueError as e:
        assert 'std 0.0' in str(e)  # every unit before it is dead
        return
    assert alive and stds.keys() <= found.keys()
    def check(hook, m, args, out):
        if hasattr(m, 'weight'): assert abs(out.var(correction=0)-1) <= 1e-2
        if isinstance(m, ac.GeneralReLU): assert abs(out.mean()) <= 1e-2
    with torch.no_grad(), ac.Hooks([*model], check): model(x)
    assert left(model) == 0 and all(not vars(m).get('_saved') for m in model.modules())

def test_lsuv_measures_in_evaluation_and_puts_the_mode_back():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 50), nn.Dropout(.9), nn.Linear(50, 3))
    x = torch.randn(200, 6)
    ac.lsuv(net.train(), x)
    assert net.training and net[1].training and abs(net.eval()(x).var().item()-1) < .02

def test_lsuv_measures_before_an_activation_overwrites():
    def net(inplace):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 50), nn.ReLU(inplace), nn.Linear(50, 20), nn.ReLU(inplace), nn.Linear(20, 3))
    x, (a, b) = torch.randn(200, 6), map(net, (False, True))
    assert ac.lsuv(a, x) == ac.lsuv(b, x) and torch.equal(weights(a), weights(b))

def test_lsuv_leaves_frozen_layers_alone():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 3)), torch.randn(200, 6)
    net[0].requires_grad_(False)
    net[2].bias.requires_grad_(False)
    was = copy.deepcopy(net.state_dict())
    assert [*ac.lsuv(net, x)] == ['4'] and abs(net(x).var().item()-1) < .02
    assert all(torch.equal(v, was[k]) for k, v in net.state_dict().items() if k[0] != '4')
    with pytest.raises(ValueError, match='no layers that are not frozen'): ac.lsuv(net.requires_grad_(False), x)

def test_lsuv_wants_tensors():
    class Two(nn.Linear):
        def forward(self, x): return super().forward(x), x
    with pytest.raises(ValueError, match='gives a tuple, and no tensor'): ac.lsuv(Two(6, 3), torch.randn(9, 6))

def test_lsuv_keeps_what_is_right_already():
    net, x = ours(), torch.randn(100, 6, dtype=F64)
    ac.lsuv(net, x)
    was = weights(net)
    ac.lsuv(net, x)
    assert torch.equal(was, weights(net))

def test_lsuv_needs_no_gradients_and_leaves_none():
    net = mlp()
    ac.lsuv(net, torch.randn(50, 6, dtype=F64))
    assert all(p.requires_grad and p.grad is None for p in net.parameters())

def shared():
    torch.manual_seed(0)
    net = mo.Sequential(mo.Linear(6, 6), mo.ReLU(), mo.Linear(6, 6), mo.ReLU(), mo.Linear(6, 6)).to(F64)
    net[2].weight = net[4].weight = net[0].weight
    return net

class Lost(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()
    def forward(self, x): return self.a(x)

def zeros():
    net = ours()
    net[2].weight.data.zero_()
    net[2].bias.data.zero_()
    return net

def infinite():
    net = ours()
    net[0].weight.data[0, 0] = math.inf
    return net

@pytest.mark.parametrize('make,kw,says', [(lambda: mo.Sequential(mo.ReLU()), {}, 'no linear layers or convolutions'), (Lost, {}, 'b: never ran'), (zeros, {}, '2: its outputs have std 0.0'), (infinite, {}, '0: its outputs have std nan'),
    (shared, {}, 'not within 0.01 after 5 times'), (ours, dict(tol=0), 'tol above 0'), (ours, dict(tol=math.nan), 'tol above 0'), (ours, dict(max_iter=0), 'max_iter from 1'), (ours, dict(max_iter=1), 'after 1 times')], ids=range(9))
def test_lsuv_says_why_not_and_changes_nothing(make, kw, says):
    net, x = make(), torch.randn(50, 6, dtype=F64)
    was = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=says): ac.lsuv(net, x, **kw)
    assert all(torch.equal(v, was[k]) for k, v in net.state_dict().items()) and left(net) == 0

def test_a_shift_is_in_a_checkpoint(tmp_path):
    "What LSUV has set is there in a run that goes on, and that didn't ask for LSUV"
    def net(): torch.manual_seed(0); return mo.Sequential(mo.Linear(6, 5), ac.GeneralReLU(.1), mo.Linear(5, 3)).to(F64)
    a, b = net(), net()
    ac.lsuv(a, torch.randn(50, 6, dtype=F64))
    le.Learner(a, loaders(), tr.CrossEntropy()).fit(1, cbs=[ck.Checkpoint(tmp_path/'a')])
    le.Learner(b, loaders(), tr.CrossEntropy()).fit(1, cbs=[ck.Checkpoint(tmp_path/'a')])
    assert a[1].sub != 0 and a[1].sub == b[1].sub and torch.equal(weights(a), weights(b))

# Intervals ----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('df,t', [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (7, 2.365), (9, 2.262), (15, 2.131), (30, 2.042), (120, 1.980), (10_000, 1.960)])
def test_students_factor(df, t): assert ac._t95(df) == pytest.approx(t, abs=6e-4)

def test_mean_interval():
    m, h = ac.mean_interval([1., 2., 3., 4., 5.])
    assert m == 3 and h == pytest.approx(2.776*math.sqrt(2.5/5), rel=1e-3)
    assert ac.mean_interval([2, 2]) == (2, 0)
    for v in ([], [1.], 3., [[1., 2.], [3., 4.]]):
        with pytest.raises(ValueError, match='two numbers'): ac.mean_interval(v)

"Callbacks that steer a run: learning rate finder, clipping, accumulation, early stopping"
import functools, math, random
from types import SimpleNamespace
import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn
from notes.normalization import BatchNorm1d as BatchNorm
from fits import F64, Log, Noisy, Shapes, data, learner, loaders, mlp, ours, std_cbs, train_batch, weights
from notes import callbacks as ca, checkpoints as ck, learner as le, modules as mo, training as tr
from notes.data import get_data
from notes.exports import rel_error

# Gradients: clipping, accumulation --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('make,loss', [(mlp, F.cross_entropy), (ours, tr.CrossEntropy())], ids=['torch', 'ours'])
@pytest.mark.parametrize('max_norm', [1e-3, .3, 1e3])
def test_clip_is_torchs(make, loss, max_norm):
    l, grads = le.Learner(make(), loaders(), loss, cbs=[ca.GradClip(max_norm)]), []
    class Peek(le.Callback):
        def __init__(self, order): self.order = order
        def after_backward(self): grads.append([p.grad.clone() for p in self.learn.model.parameters()])
    l.fit(1, cbs=[Peek(0), Peek(99)])
    for before, after in zip(grads[::2], grads[1::2]):
        ps = [nn.Parameter(g.clone()) for g in before]
        for p, g in zip(ps, before): p.grad = g.clone()
        nn.utils.clip_grad_norm_(ps, max_norm)
        for p, a in zip(ps, after): assert rel_error(p.grad, a) < 1e-12
        assert torch.stack([a.norm() for a in after]).norm() <= max_norm*(1+1e-9)
    assert (rel_error(grads[0][0], grads[1][0]) == 0) == (max_norm == 1e3)

@pytest.mark.parametrize('make,loss', [(mlp, F.cross_entropy), (ours, tr.CrossEntropy())], ids=['torch', 'ours'])
@pytest.mark.parametrize('n,small,k', [(32, 4, 2), (31, 4, 2), (37, 4, 3), (37, 8, 5), (5, 8, 3), (37, 1, 8)])
def test_accumulated_steps_are_those_of_large_batches(make, loss, n, small, k):
    "Also where the last batch is short, and where the last group of batches is"
    runs = []
    for bs, cbs in ((small*k, []), (small, [ca.GradAccum(k)])):
        l = le.Learner(make(), loaders(n, bs), loss, cbs=[*cbs, ca.GradClip(.5)])
        l.fit(3)
        runs.append(weights(l.model))
    assert rel_error(*runs) < 1e-13

def test_accumulation_steps_once_a_group():
    log = Log()
    learner([ca.GradAccum(2), log]).fit(1)
    assert log.log.count('after_step') == 3 and log.log.count('after_batch') == 5+2

def test_accumulation_goes_on_with_sums_from_a_file():
    "They come back on the CPU, wherever the gradients are"
    l = le.Learner(mlp(), loaders(), Shapes(), cbs=[le.Device('meta'), a := ca.GradAccum(4)])
    class Load(le.Callback):
        def before_batch(self):
            if train_batch(0)(self.learn): a.load_state_dict(dict(sums=[torch.zeros(5, 6), torch.zeros(5), torch.zeros(3, 5), torch.zeros(3)], items=8, batches=1))
    l.fit(1, cbs=[Load()])
    assert {p.grad.device.type for p in l.model.parameters()} == {'meta'}

def test_accumulation_starts_afresh_after_an_exception():
    l = learner([ca.GradAccum(4)])
    with pytest.raises(ZeroDivisionError): l.fit(1, cbs=[Log(after_loss=(train_batch(2), ZeroDivisionError()))])
    assert torch.equal(weights(l.model), weights(mlp()))
    l.dls = loaders()
    l.fit(1)
    m = learner([ca.GradAccum(4)])
    m.fit(1)
    assert torch.equal(weights(l.model), weights(m.model))

def test_accumulation_with_a_layer_that_a_batch_didnt_use():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers, self.i = nn.ModuleList([nn.Linear(6, 3).double(), nn.Linear(6, 3).double()]), 0
        def forward(self, x):
            self.i += 1
            return self.layers[self.i % 2](x)
    model, ds = Either(), data(16)
    was = [p.detach().clone() for p in model.parameters()]
    le.Learner(model, (tr.DataLoader(ds, 8), None), F.cross_entropy, lr=.5, cbs=[ca.GradAccum(2)]).fit(1)
    for k, i in ((1, slice(0, 8)), (0, slice(8, 16))):  # each layer saw half of the items
        ps = [was[2*k].clone().requires_grad_(), was[2*k+1].clone().requires_grad_()]
        gs = torch.autograd.grad(F.cross_entropy(F.linear(ds.x[i], *ps), ds.y[i]), ps)
        for p, w, g in zip(model.layers[k].parameters(), ps, gs): assert torch.allclose(p, w - .5*g/2, rtol=1e-12)

@pytest.mark.parametrize('make,says', [(lambda: ca.GradClip(0), 'max_norm=0'), (lambda: ca.GradClip(math.nan), 'nan'), (lambda: ca.GradAccum(0), 'n=0'),
    (lambda: ca.LRFinder(1, .1), 'start'), (lambda: ca.LRFinder(n=3), 'n >= 10'), (lambda: ca.LRFinder(factor=0), 'factor > 0'), (lambda: ca.EarlyStopping(patience=0), 'patience=0')], ids=range(7))
def test_bad_settings(make, says):
    with pytest.raises(ValueError, match=says): make()

# Early stopping -----------------------------------------------------------------------------------------------------------------

class Scripted(le.Callback):
    "Metrics as given, one an epoch, and the weights of each epoch"
    order = 0
    def __init__(self, values, name='valid_loss'): self.values, self.name, self.weights = values, name, []
    def after_epoch(self):
        self.learn.metrics = {self.name: self.values[self.learn.epoch]}
        self.weights.append(weights(self.learn.model))

@pytest.mark.parametrize('values,kw,epochs,best', [
    ([3, 2, 1, 2, 3, 4, 5], dict(patience=3), 6, 2), ([3, 2, 1, 2, 3, 4, 5], dict(patience=1), 4, 2), ([3, 2, 2, 2, 1], dict(patience=2), 4, 1), ([3, 2, 2, 2, 1], dict(patience=3), 5, 4),
    ([1, 2, 3, 2, 1, 0], dict(patience=2, higher=True), 5, 2), ([3, math.nan, math.nan, 1], dict(patience=2), 3, 0)], ids=range(6))
def test_early_stopping(values, kw, epochs, best):
    s = Scripted(values)
    l = learner([ca.EarlyStopping(**kw), s])
    l.fit(len(values))
    assert len(s.weights) == epochs and torch.equal(weights(l.model), s.weights[best])

def test_early_stopping_wants_its_metric():
    with pytest.raises(ValueError, match='there are train_loss, valid_loss, accuracy'): learner([*std_cbs(), ca.EarlyStopping('acuracy')]).fit(1)
    with pytest.raises(ValueError, match='add Metrics'): learner([ca.EarlyStopping()]).fit(1)

# Learning rate finder -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('opt', [tr.SGD, lambda ps, lr: torch.optim.SGD(ps, lr, momentum=.9), torch.optim.Adam], ids=['ours', 'momentum', 'Adam'])
def test_lr_find_puts_everything_back(opt):
    "A fit after it is bit for bit the fit without it, dropout, shuffling and the optimiser's memory included"
    runs = []
    for find in (False, True):
        torch.manual_seed(5); random.seed(5); np.random.seed(5)
        l = learner(std_cbs(), nn.Sequential(mlp(), nn.BatchNorm1d(3).double(), nn.Dropout(.2)), opt_func=opt)
        l.fit(1)
        if find:
            f = l.lr_find(n=30)
            assert 1 < len(f.losses) <= 30 and l.recorder.epochs[-1]['epoch'] == 1 and len(l.recorder.losses) == 5 and l.dls[1] is not None
        l.fit(1)
        runs.append((weights(l.model), l.recorder.losses, random.random(), np.random.rand(), torch.rand(1).item(), l.opt.param_groups[0]['lr']))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1:] == runs[1][1:]

def trial(losses, n=100, **kw):
    "A finder that has met `losses`, one a batch, until it had enough"
    f, l = ca.LRFinder(n=n, **kw), SimpleNamespace(training=True)
    l.set_lr, f.learn = lambda lr: vars(l).update(lr=lr), l
    f.before_fit()
    for loss in losses:
        f.before_batch()
        l.loss = torch.tensor(loss, dtype=F64)
        try: f.after_batch()
        except le.CancelFit: break
    return f

def curve(seed=0, noise=.1, fall=1.8, rise=60, n=100):
    "Losses of a trial: level, then `fall` from batch 40 to 60, exploding from batch `rise` on"
    i = np.arange(n)
    base = 2.3 - fall*np.clip((i-40)/20, 0, 1) + (1.5**np.clip(i-rise, 0, 60)-1)
    return (base + noise*np.random.default_rng(seed).standard_normal(n)).tolist()

def test_lr_find_rises_and_stops_at_the_explosion():
    f = learner(opt_func=tr.SGD).lr_find(1e-4, 1e4, n=60)
    ratios = np.diff(np.log(f.lrs))
    assert np.allclose(ratios, ratios[0]) and f.lrs[0] == 1e-4 and len(f.lrs) == len(f.losses) < 60
    assert not f.losses[-1] <= f.losses[0]*2 and f.lrs[0] < f.suggestion < f.lrs[-1]
    f.plot()
    assert abs(learner().lr_find(1e-9, 1e-8, n=20).lrs[-1]/1e-8 - 1) < 1e-9

@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('fall,noise', [(1.8, 0.), (1.8, .1), (0., .1), (.05, .3)])
def test_an_explosion_is_seen(seed, fall, noise):
    "Where the loss has fallen and where it hasn't; not before it, and not long after"
    f = trial(curve(seed, noise, fall, rise=70))
    assert 70 < len(f.losses) < 90
    assert f.lrs[36] < f.suggestion < f.lrs[60]

digits = functools.cache(get_data)

def late(bs, seed):
    "A learner after an epoch on 2,000 digits"
    x, y, *_ = digits()
    torch.manual_seed(seed)
    dls = tr.get_dls(ds := tr.Dataset((x[:2000]-.13)/.31, y[:2000]), ds, bs, seed=seed)
    l = le.Learner(nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10)), (dls[0], None), F.cross_entropy, lr=.1)
    l.fit(1)
    return l

@pytest.mark.parametrize('bs', [16, 64])
@pytest.mark.parametrize('seed', range(3))
def test_noise_is_no_explosion(bs, seed):
    "Not after an epoch, when an easy batch has a tenth of another's loss"
    l = late(bs, seed)
    f = l.lr_find(end=.01)
    assert len(f.losses) == 100
    f = l.lr_find()
    assert f.lrs[-1] > .2 and .002 < f.suggestion < .2

def test_an_odd_batch_is_no_explosion():
    "Nor does it move the suggestion by more than the batches beside it"
    base = trial(curve())
    for i in (0, 8, 30, 50, 65):
        for odd in (1e9, -1e3):
            losses = curve()
            if i >= 10 or odd < 0: losses[i] = odd
            f = trial(losses)
            assert abs(len(f.losses)-len(base.losses)) <= (1 if i >= 10 else 40) and (i < 10 or 1/1.5 < f.suggestion/base.suggestion < 1.5)

@pytest.mark.parametrize('a,b', [(1, -5), (1, -2.3), (1, 1e4), (1e-6, 0), (1e6, -7)])
@pytest.mark.parametrize('fall', [1.8, 0.])
def test_the_finder_knows_no_zero_and_no_unit(a, b, fall):
    for seed in range(3):
        losses = curve(seed, fall=fall)
        f, g = trial(losses), trial([a*x+b for x in losses])
        assert g.suggestion == pytest.approx(f.suggestion) and len(g.losses) == len(f.losses)

def cosine(pred, targ): return -F.cosine_similarity(pred, F.one_hot(targ, 3).to(F64)).mean()

@pytest.mark.parametrize('loss', [F.cross_entropy, cosine], ids=['cross-entropy', 'cosine'])
def test_negative_losses(loss):
    runs = [le.Learner(mlp(), loaders(200, 16), lambda p, t, c=c: loss(p, t)+c).lr_find(1e-4, 1e3) for c in (0, 2, -5)]
    assert {len(f.losses) for f in runs} == {len(runs[0].losses)} and len(runs[0].losses) > 30
    assert all(f.suggestion == pytest.approx(runs[0].suggestion) for f in runs)
    for f in runs:
        lo, hi = f.plot().get_ylim()
        assert lo < min(f._finite()) and hi > f.losses[0]

@pytest.mark.parametrize('last', [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_trial(last):
    f = trial(curve()[:58]+[last]+[1.]*50)
    assert len(f.losses) == 59 and f.suggestion == trial(curve()[:58]).suggestion
    for few in ([], [2.]*4, [2.]*9):
        f = trial([*few, last, 2.])
        assert len(f.losses) == len(few)+1
        for use in (lambda: f.suggestion, f.plot):
            with pytest.raises(ValueError, match=f'ended after {len(few)} losses.*smaller start'): use()

def test_a_trial_without_enough_batches():
    "In a fit that is too short; and one over several epochs, where validation has no part"
    learner().fit(1, cbs=[f := ca.LRFinder()])
    with pytest.raises(ValueError, match='ended after 5 losses.*train on more batches'): f.suggestion
    learner().fit(3, cbs=[f := ca.LRFinder(n=12)])
    assert len(f.losses) == len(f.lrs) == 12 and f.lrs[-1] == pytest.approx(10) and f.suggestion > 0

def test_a_cancelled_batch_leaves_each_loss_its_rate():
    class Skip(le.Callback):
        order = 40
        def before_batch(self):
            if self.learn.iter == 2: raise le.CancelBatch
    f = learner([Skip()]).lr_find(n=12)
    assert len(f.losses) == len(f.lrs) and np.allclose(np.diff(np.log(f.lrs)), math.log(1e6)/11)

def test_suggestions():
    "Where four fifths of the fall are done; without a fall a twentieth of where the rise begins"
    f = trial(curve(noise=0.))
    assert f.suggestion in f.lrs[52:56]
    f = trial([2.3 + 50*min(1, .8**(i-30)) for i in range(100)])  # dead units: a level loss, and no explosion says that it is too late
    assert len(f.losses) == 100 and f.suggestion == f.lrs[38]
    rates = [20*trial(curve(seed, fall=0., noise=.3)).suggestion for seed in range(16)]
    assert 50 < np.log(np.array(rates)/1e-5).mean()*99/math.log(1e6) < 60

def test_lr_find_leaves_the_mode():
    for mode in (True, False):
        l = learner()
        l.model.train(mode)
        l.lr_find(n=10)
        assert l.model.training == mode

def test_lr_find_restores_after_an_exception():
    l = learner([Log(after_loss=(train_batch(3), ZeroDivisionError()))])
    a, lr = weights(l.model), l.opt.param_groups[0]['lr']
    with pytest.raises(ZeroDivisionError): l.lr_find()
    assert torch.equal(a, weights(l.model)) and l.opt.param_groups[0]['lr'] == lr and l.dls[1] is not None

def test_lr_find_leaves_callbacks_as_they_were():
    class Counts(le.Callback):
        n = 0
        def after_step(self): self.n += 1
    l = learner([cb := Counts()])
    l.lr_find(n=20)
    assert cb.n == 0

class Sees(le.Callback):
    "Notes the modes of all parts in every training batch and in every other"
    def __init__(self): self.modes = {True: set(), False: set()}
    def after_predict(self): self.modes[self.learn.training].add(tuple(m.training for m in self.learn.model.modules()))

@pytest.mark.parametrize('make,loss', [(ours, tr.CrossEntropy), (mlp, nn.CrossEntropyLoss)], ids=['ours', 'nn'])
def test_a_part_in_evaluation_stays_there(make, loss):
    "Through fits, predictions and trials, and also where a callback has put it there"
    m = make()
    l = le.Learner(m, loaders(), loss(), cbs=[see := Sees()])
    m[1].eval()
    asleep, none = (True, True, False, True), (False,)*4
    for use in (lambda: l.fit(2), lambda: l.lr_find(n=10), l.get_preds, lambda: l.fit(1), lambda: tr.evaluate(m, l.loss_func, l.dls[1])): use()
    assert see.modes == {True: {asleep}, False: {none}} and tuple(p.training for p in m.modules()) == none
    m.train()
    l.fit(1)
    assert see.modes[True] == {asleep, (True,)*4}  # whoever wakes it, wakes it
    class Freeze(le.Callback):
        def before_fit(self): self.learn.model[0].eval()
    see.modes[True].clear()
    l.fit(2, cbs=[Freeze()])
    assert see.modes[True] == {(True, False, True, True)}
    class Forgets(le.Callback):
        def after_epoch(self): self.learn.model.eval()
    l.fit(3, cbs=[Forgets()])
    assert see.modes[True] == {(True, False, True, True)}  # all of it put into evaluation is no part alone
    m.train()
    m[2].eval()
    before = [p.training for p in m.modules()]
    for use in (lambda: l.lr_find(n=10), l.get_preds):
        use()
        assert [p.training for p in m.modules()] == before

def groups(ps, lr): return [dict(params=ps[:1], lr=lr/10), dict(params=ps[1:], lr=lr)]

@pytest.mark.parametrize('opt', [tr.SGD, torch.optim.SGD, torch.optim.Adam])
def test_groups_keep_their_ratio(opt):
    l = learner(opt_func=lambda ps, lr: opt(groups(ps, lr), lr=lr), lr=.1, cbs=[rec := le.Recorder()])
    lrs = lambda: [g['lr'] for g in l.opt.param_groups]
    assert l.lr == .1
    l.set_lr(.2)
    assert lrs() == pytest.approx([.02, .2]) and l.lr == .2
    l.set_lr(0.)
    assert lrs() == [0, 0]
    l.fit(1, lr=.5)
    assert lrs() == pytest.approx([.05, .5]) and set(rec.lrs) == {.5}
    seen = []
    class See(le.Callback):
        def after_batch(self): seen.append([g['lr'] for g in self.learn.opt.param_groups])
    finder = l.lr_find(n=10)
    assert lrs() == pytest.approx([.05, .5])
    l.add_cbs([See()])
    finder = l.lr_find(n=10)
    assert all(a == pytest.approx(b/10) for a, b in seen) and [b for _, b in seen] == pytest.approx(finder.lrs[:len(seen)])
    l.opt.param_groups[1]['lr'] = .05  # by hand: the first is the larger one now
    l.opt.param_groups[0]['lr'] = .1
    l.set_lr(1.)
    assert lrs() == pytest.approx([1, .5])

def normed(lib, BN, seed=0):
    torch.manual_seed(seed)
    return lib.Sequential(lib.Linear(6, 5), BN(5), lib.ReLU(), lib.Linear(5, 3)).to(F64)

def test_batch_norm_through_the_loop(tmp_path):
    "Fit, evaluation, predictions, a trial, a checkpoint: as its `nn` twin goes through them"
    a, b = (learner(std_cbs(), model=normed(*args), dls=loaders(n=36, bs=6)) for args in ((mo, BatchNorm), (nn, nn.BatchNorm1d)))
    a.loss_func = tr.CrossEntropy()
    b.model.load_state_dict(a.model.state_dict())
    for l, name in ((a, 'a'), (b, 'b')):
        l.fit(2, cbs=[ck.Checkpoint(tmp_path/name)])
        before = {k: v.clone() for k, v in l.model.state_dict().items()}
        l.lr_find(n=12)
        l.get_preds()
        assert all(torch.equal(v, before[k]) for k, v in l.model.state_dict().items())
        assert before['1.num_batches_tracked'] == 12
    for k, v in a.model.state_dict().items(): assert rel_error(v.double(), b.model.state_dict()[k].double()) < 1e-9, k
    assert rel_error(a.get_preds()[0], b.get_preds()[0]) < 1e-9 and a.recorder.losses == pytest.approx(b.recorder.losses, rel=1e-9)
    again = learner(std_cbs(), model=normed(mo, BatchNorm, 1), dls=loaders(n=36, bs=6))
    again.loss_func = tr.CrossEntropy()
    again.fit(2, cbs=[ck.Checkpoint(tmp_path/'a')])
    for k, v in again.model.state_dict().items(): assert torch.equal(v, a.model.state_dict()[k]), k

def test_lr_find_leaves_gradients_and_passing_buffers():
    for make in (lambda: normed(mo, BatchNorm), lambda: normed(nn, nn.BatchNorm1d)):
        m = make()
        m.register_buffer('seen', torch.zeros(()), persistent=False)
        class Counts(le.Callback):
            def before_batch(self): self.learn.model.seen += 1
        l = learner([Counts()], model=m, dls=loaders(n=36, bs=6))
        if isinstance(m, mo.Module): l.loss_func = tr.CrossEntropy()
        grads = [torch.full_like(p, i) for i, p in enumerate(m.parameters())]
        for p, g in zip(m.parameters(), grads): p.grad = g
        l.lr_find(n=12)
        assert m.seen == 0 and all(p.grad is g and bool((g == i).all()) for i, (p, g) in enumerate(zip(m.parameters(), grads)))

def test_predictions_in_the_middle_of_a_step_leave_the_gradients_right():
    "A callback that predicts between forward and backward: our layers go back through the batch in training"
    class Looks(le.Callback):
        def after_loss(self):
            if self.learn.training: self.learn.get_preds()
    for make, loss in ((ours, tr.CrossEntropy), (mlp, nn.CrossEntropyLoss)):
        a, b = (le.Learner(make(), loaders(), loss(), cbs=cbs) for cbs in ([Looks()], []))
        for l in (a, b): l.fit(2)
        assert torch.equal(weights(a.model), weights(b.model))

def test_rng_round_trip():
    dls = loaders()
    s = ca.get_rng(dls)
    draw = lambda: (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item(), [y.tolist() for _, y in dls[0]])
    a = draw()
    b = draw()
    ca.set_rng(s, dls)
    assert draw() == a != b
    assert len(s['loaders']) == 2
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match='of loaders with 2 generators, and these have 0'): ca.set_rng(s, [[], None])
    assert torch.equal(before, torch.get_rng_state())

# Weights by name ------------------------------------------------------------------------------------------------------------------

def test_module_state():
    a, b = ours(0), ours(1)
    assert list(a.state_dict()) == list(mlp().state_dict()) and not torch.equal(weights(a), weights(b))
    b.load_state_dict(a.state_dict())
    assert torch.equal(weights(a), weights(b))
    next(a.parameters()).add_(1)
    assert not torch.equal(weights(a), weights(b)), "a copy"
    c = mlp()
    c.load_state_dict(a.state_dict())
    assert torch.equal(weights(a), weights(c))

def broken_states():
    s = ours(1).state_dict()
    yield 'misses 2.bias', {k: v for k, v in s.items() if k != '2.bias'}
    yield 'has more', {**s, 'more': torch.ones(1)}
    yield r'2.bias has shape \(4,\), and here shape \(3,\)', {**s, '2.bias': torch.ones(4)}
    yield '2.bias has float', {**s, '2.bias': 3.}

@pytest.mark.parametrize('says,state', list(broken_states()), ids=range(4))
def test_weights_that_do_not_fit_change_nothing(says, state):
    m = ours()
    with pytest.raises(ValueError, match=says): m.load_state_dict(state)
    assert torch.equal(weights(m), weights(ours()))

# Trials leave no trace --------------------------------------------------------------------------------------------------------------

class Anneals(le.Callback):
    "A scheduler that is made before there is an optimiser to train with, a list, and a number"
    def __init__(self, opt): self.opt, self.sched, self.seen, self.n = opt, torch.optim.lr_scheduler.OneCycleLR(opt, .1, total_steps=500), [], 0
    def after_step(self): self.sched.step()
    def after_batch(self):
        self.n += self.learn.training
        self.seen.append(self.learn.loss)

class Counting(nn.Module):
    "Counts its calls where no `state_dict` sees it, and keeps what it computed last, graph and all"
    def __init__(self):
        super().__init__()
        self.m, self.calls, self.lens = nn.Sequential(mlp(), nn.BatchNorm1d(3).double(), nn.Dropout(.2)), 0, []
        self.register_buffer('passing', torch.zeros(()), persistent=False)
    def forward(self, x):
        self.calls, self.out = self.calls+1, self.m(x)
        self.passing += 1
        self.lens.append(len(x))
        return self.out

class CountingLoss(nn.CrossEntropyLoss):
    calls = 0
    def forward(self, p, t):
        self.calls += 1
        return super().forward(p, t)

def test_a_trial_touches_nothing_but_random_numbers_and_puts_those_back():
    "Schedulers, lists, counters, losses with a state, noise in the dataset: a fit after it is bit for bit the fit without it"
    runs = []
    for find in (False, True):
        torch.manual_seed(5); random.seed(5); np.random.seed(5)
        l = learner(std_cbs(), Counting(), tr.get_dls(Noisy(*data(37)[:]), data(11), 8, seed=3), opt_func=lambda ps, lr: torch.optim.SGD(ps, lr, momentum=.9))
        l.loss_func = CountingLoss()
        l.add_cbs([cb := Anneals(l.opt)])
        l.fit(1)
        if find:
            cb.seen.clear()  # of losses that hang on their graphs, which can't be copied; the learner's and the model's own can
            before = {k: id(v) for k, v in vars(l).items()}, cb.sched.state_dict(), l.opt.step
            assert len((f := l.lr_find(n=30)).losses) > 10 and f.learn is l
            assert before == ({k: id(v) for k, v in vars(l).items()}, cb.sched.state_dict(), l.opt.step) and not cb.seen and cb.n == 5
        l.fit(1)
        runs.append((weights(l.model).tolist(), l.recorder.losses, l.recorder.lrs, cb.n, cb.sched.last_epoch, l.model.calls, l.model.lens, l.model.passing, l.loss_func.calls,
            random.random(), np.random.rand(), torch.rand(1).item(), l.dls[0].dataset.rng.random(), l.dls[0].dataset.random.random(), l.opt.param_groups[0]['lr']))
    assert runs[0] == runs[1] and runs[0][4] == 10

def test_a_trial_warns_of_nothing(recwarn):
    l = learner(opt_func=torch.optim.SGD)
    l.add_cbs([Anneals(l.opt)])
    l.lr_find(n=10)
    assert not [w for w in recwarn if 'step' in str(w.message)]

def test_lazy_layers_stay_lazy():
    runs = []
    for find in (False, True):
        torch.manual_seed(0)
        m = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(3)).double()
        l = learner(model=m, opt_func=torch.optim.SGD)
        if find:
            assert len(l.lr_find(n=10).losses) == 10
            assert type(m[0]) is nn.LazyLinear and all(isinstance(p, nn.UninitializedParameter) for p in m.parameters())
        l.fit(1)
        runs.append(weights(m))
    assert torch.equal(*runs)

def test_an_optimiser_with_more_than_a_state_is_copied_whole():
    class Halves(torch.optim.SGD):  # PyTorch's optimisers forget attributes of their own when they are copied
        def __init__(self, ps, lr):
            super().__init__(ps, lr)
            self.inner, self.steps = torch.optim.SGD(self.param_groups[0]['params'], lr), 0
        def step(self):
            self.inner.param_groups[0]['lr'] = self.param_groups[0]['lr']/2
            self.inner.step()
            self.steps += 1
    l, m = learner(opt_func=Halves), learner(opt_func=lambda ps, lr: torch.optim.SGD(ps, lr/2))
    f = l.lr_find(n=10)
    assert l.opt.steps == 0 and torch.equal(weights(l.model), weights(mlp())) and f.losses == m.lr_find(f.start/2, f.end/2, n=10).losses

@pytest.mark.parametrize('what', [lambda l: open(__file__), lambda l: [l.model(l.dls[1].dataset.x).sum()]], ids=['file', 'graph'])
def test_what_cant_be_copied_is_refused(what):
    class Keeps(le.Callback): pass
    l = learner([cb := Keeps()])
    cb.kept = what(l)
    rng = torch.get_rng_state()
    with pytest.raises(TypeError, match='needs a copy of the learner.*in_trials = False'): l.lr_find(n=10)
    assert torch.equal(rng, torch.get_rng_state())
    Keeps.in_trials = False
    l.lr_find(n=10)

def test_results_that_hang_on_their_graphs_are_no_hindrance():
    "The learner's, a model's and a callback's, as a last training batch leaves them"
    class Last(le.Callback):
        def after_batch(self): self.loss = self.learn.loss
    l = learner([cb := Last()], Counting(), dls=(loaders()[0], None))
    l.fit(1)
    assert not any(t.is_leaf for t in (l.loss, l.pred, l.model.out, cb.loss))
    kept = l.loss, l.pred, l.model.out, cb.loss, l.xb
    assert l.lr_find(n=10).losses and all(a is b for a, b in zip(kept, (l.loss, l.pred, l.model.out, cb.loss, l.xb)))

def test_a_trial_on_an_iterator_is_refused():
    l = learner(dls=(iter(loaders()[0]), None))
    with pytest.raises(TypeError, match='iterator'): l.lr_find()
    l.fit(1)

# Groups of batches that end early ---------------------------------------------------------------------------------------------------

def grouped(cbs, wrap=lambda dl: dl, opt=tr.SGD):
    log = Log(order=20)
    l = learner([ca.GradAccum(3), ca.GradClip(.5), log, *cbs], dls=tuple(map(wrap, loaders())), opt_func=opt)
    l.fit(2)
    return l, log.log

@pytest.mark.parametrize('order', [-5, 5, 15])
@pytest.mark.parametrize('event', ['before_batch', 'after_predict', 'after_loss'])
def test_a_cancelled_last_batch_loses_no_group(event, order):
    "Five batches: a group of three, then one and one that is cancelled. The same steps as where the last batch isn't there"
    last = lambda l: l.training and l.iter == 4
    l, log = grouped([Log(order=order, **{event: (last, le.CancelBatch())})])
    dls = loaders()
    assert log.count('after_step') == 4 and log.count('after_train') == 2
    order = [list(dls[0])[:4] for _ in range(2)]
    n = learner([ca.GradAccum(3), ca.GradClip(.5)], dls=(order[0], None))
    n.fit(1)
    n.dls = order[1], None
    n.fit(1)
    assert torch.equal(weights(l.model), weights(n.model))

def test_the_last_step_may_be_cancelled_as_any_other():
    late = lambda l: l.training and l.iter == 4 and l.cbs[0].late
    for what in (le.CancelBatch(), le.CancelStep()):
        l, log = grouped([Log(order=20, after_backward=(late, what))])
        assert log.count('after_step') == 2 and log.count('after_epoch') == 2 and not l.cbs[0].late

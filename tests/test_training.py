"""`notes.training` against PyTorch: losses far out, the optimiser, what the loaders yield, `fit` and `evaluate`, and the errors (with `python -O` too)"""
import copy, inspect, io, math, subprocess, sys
import draws, pytest, torch
import torch.nn.functional as F
import torch.utils.data as tud
from functools import partial
from hypothesis import given, strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from notes import exports as ex, modules as mo, training as tr
from draws import gen, layouts, seeds, sizes, some

scales = st.sampled_from([0., 1., 100., 1e4, 1e300])
ONE = torch.ones((), dtype=torch.float64)
randn = partial(draws.randn, dtype=torch.float64)

def close(a, b, tol=1e-13):
    "Equal within float64's rounding of numbers of this size"
    assert a.shape == b.shape and a.dtype == b.dtype
    torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)

# Losses

@some
@given(n=sizes, c=sizes, scale=scales, seed=seeds, layout=layouts)
def test_softmax_and_its_family(n, c, scale, seed, layout):
    x = randn(n, c, seed=seed, layout=layout)*scale
    close(tr.logsumexp(x), x.logsumexp(-1))
    close(tr.log_softmax(x), F.log_softmax(x, -1))
    close(tr.softmax(x), F.softmax(x, -1), 1e-12)
    close(tr.softmax(x).sum(-1), torch.ones(n, dtype=x.dtype))

@some
@given(n=sizes, c=sizes, scale=scales, seed=seeds, layout=layouts, kind=st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8]))
def test_losses_and_gradients(n, c, scale, seed, layout, kind):
    x, targ = randn(n, c, seed=seed, layout=layout)*scale, torch.randint(c, (n,), generator=gen(seed))
    log_p, given_ = F.log_softmax(x, -1), targ.to(kind)
    close(tr.nll(log_p, given_), F.nll_loss(log_p, targ))
    close(tr.cross_entropy(x, given_), F.cross_entropy(x, targ))
    leaf = x.detach().clone().requires_grad_()
    F.cross_entropy(leaf, targ).backward()
    close(tr.cross_entropy_grad(ONE, x, given_), leaf.grad, 1e-12)
    close(tr.log_softmax_grad(tr.nll_grad(ONE, log_p, given_), x), leaf.grad, 1e-12)

@pytest.mark.parametrize('shape', [(3,), (2, 3), (2, 1, 3), (1, 1), (1,)])
def test_more_dimensions(shape):
    x, g = randn(*shape), randn(*shape, seed=1)
    close(tr.logsumexp(x), x.logsumexp(-1))
    close(tr.softmax(x), F.softmax(x, -1))
    for ours, torchs in ((tr.softmax_grad, F.softmax), (tr.log_softmax_grad, F.log_softmax)):
        leaf = x.clone().requires_grad_()
        (torchs(leaf, -1)*g).sum().backward()
        close(ours(g, x), leaf.grad)

@pytest.mark.parametrize('row', [[0., -math.inf], [-math.inf]*2, [math.inf, 0.], [math.inf, 0., math.inf], [math.inf, -math.inf, 1e308], [math.inf]*2, [math.inf, math.nan], [math.nan, 0.], [1e308, -1e308],
                                 [1e-320, 0.]], ids=str)
def test_infinities(row):
    "A class that is ruled out, and what is no number, come out as PyTorch's do"
    x = torch.tensor([row], dtype=torch.float64)
    close(tr.logsumexp(x), x.logsumexp(-1))
    close(tr.log_softmax(x), F.log_softmax(x, -1))
    close(tr.softmax(x), F.softmax(x, -1))
    leaf, g = x.clone().requires_grad_(), torch.tensor([[2., -3., 5.][:len(row)]], dtype=torch.float64)
    for ours, theirs, g in ((tr.logsumexp_grad, leaf.logsumexp(-1), g[:, 0]), (tr.log_softmax_grad, F.log_softmax(leaf, -1), g), (tr.softmax_grad, F.softmax(leaf, -1), g)):
        close(ours(g, x), torch.autograd.grad(theirs, leaf, g)[0])

@pytest.mark.parametrize('dtype,shift', [(torch.float64, 2**40), (torch.float32, 2**20), (torch.float16, 1024), (torch.bfloat16, 128)], ids=str)
def test_shift_changes_nothing(dtype, shift):
    "x - logsumexp(x) would lose the digits here"
    x = torch.tensor([[0., 1., -2.]], dtype=dtype)
    assert torch.equal(tr.log_softmax(x + shift), tr.log_softmax(x))

def test_loss_layer():
    x, targ, loss = randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), tr.CrossEntropy()
    assert torch.equal(loss(x, targ), tr.cross_entropy(x, targ))
    assert torch.equal(loss.backward(), tr.cross_entropy_grad(ONE, x, targ))
    with pytest.raises(RuntimeError): loss.backward()

def test_losses_work_in_autograd():
    leaf, targ = randn(5, 3).requires_grad_(), torch.tensor([0, 1, 2, 0, 1])
    tr.CrossEntropy()(leaf, targ).backward()
    close(leaf.grad, tr.cross_entropy_grad(ONE, leaf.detach(), targ), 1e-12)

@some
@given(n=sizes, c=sizes, seed=seeds)
def test_accuracy_and_confusion(n, c, seed):
    x, targ = randn(n, c, seed=seed), torch.randint(c, (n,), generator=gen(seed))
    pred = x.argmax(1)
    acc, cm = tr.accuracy(x, targ), tr.confusion_matrix(pred, targ, c)
    assert acc.shape == () and acc.item() == pytest.approx(sum(p == t for p, t in zip(pred.tolist(), targ.tolist()))/n)
    assert cm.shape == (c, c) and cm.sum() == n
    for i in range(min(c, 5)):
        for j in range(min(c, 5)): assert cm[i, j] == ((targ == i) & (pred == j)).sum()

# The optimiser

def pair(seed=0):
    "A network of ours and PyTorch's with the same weights, in float64"
    torch.manual_seed(seed)
    ours = mo.Sequential(mo.Linear(6, 5), mo.ReLU(), mo.Sequential(mo.Linear(5, 4), mo.ReLU()), mo.Linear(4, 3))
    torchs = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 4), nn.ReLU()), nn.Linear(4, 3)).double()
    for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): p.data = q.data.clone()
    return ours, torchs

def test_sgd_is_pytorchs():
    ps, qs = ([nn.Parameter(randn(4, 3, seed=i)) for i in range(3)] for _ in range(2))
    a, b = tr.SGD(iter(ps), .1), torch.optim.SGD(qs, lr=.1)
    for i in range(20):
        for p, q in zip(ps[:2], qs[:2]): p.grad, q.grad = randn(4, 3, seed=i), randn(4, 3, seed=i)  # the third gets none
        for opt in (a, b):
            opt.step()
            if i == 9: opt.param_groups[0]['lr'] = .02
            if i % 2: opt.zero_grad()
        for p, q in zip(ps, qs): assert torch.equal(p, q) and (p.grad is None) == (q.grad is None)
    assert a.param_groups[0]['params'] == ps and a.param_groups[0]['lr'] == .02
    assert torch.equal(ps[2], randn(4, 3, seed=2))

def grouped(ps, **kw): return [dict(params=ps[:1], lr=.5, **kw), dict(params=iter(ps[1:]))]

def same_steps(a, b, ps, qs, n=3, seed=0):
    for i in range(n):
        for p, q in zip(ps, qs): p.grad, q.grad = randn(4, 3, seed=seed+i), randn(4, 3, seed=seed+i)
        for opt in (a, b): opt.step()
        for p, q in zip(ps, qs): assert torch.equal(p, q)

def test_sgd_with_groups_goes_into_pytorchs_and_back():
    ps, qs = ([nn.Parameter(randn(4, 3, seed=i)) for i in range(3)] for _ in range(2))
    a, b = tr.SGD(grouped(ps), .1), torch.optim.SGD(grouped(qs), lr=.1)
    same_steps(a, b, ps, qs)
    a.param_groups[1]['lr'] = .02
    b.load_state_dict(a.state_dict())
    assert [g['lr'] for g in b.param_groups] == [.5, .02]
    same_steps(a, b, ps, qs, seed=9)
    b.param_groups[0]['lr'] = .3
    a.load_state_dict(b.state_dict())
    assert [g['lr'] for g in a.param_groups] == [.3, .02] and [g['params'] for g in a.param_groups] == [ps[:1], ps[1:]]
    same_steps(a, b, ps, qs, seed=19)
    assert [g['params'] for g in a.state_dict()['param_groups']] == [g['params'] for g in b.state_dict()['param_groups']] == [[0], [1, 2]]

def test_what_pytorch_notes_beside_the_settings():
    "Names of parameters (in PyTorch since 2.6), and what a schedule leaves in the groups"
    ps = [nn.Parameter(randn(4, 3, seed=i)) for i in range(3)]
    opt = torch.optim.SGD(ps, lr=.1)
    torch.optim.lr_scheduler.OneCycleLR(opt, .5, total_steps=10, cycle_momentum=False)
    state = opt.state_dict()
    state['param_groups'][0]['param_names'] = ['w', 'b', 'c']
    ours = tr.SGD(ps, lr=1.)
    ours.load_state_dict(state)
    assert ours.param_groups[0]['lr'] == state['param_groups'][0]['lr'] and set(ours.param_groups[0]) == {'params', 'lr'}

@pytest.mark.parametrize('change', [lambda s: s['param_groups'].pop(), lambda s: s['param_groups'][1]['params'].pop(), lambda s: s['param_groups'][0].pop('lr'),
                                    lambda s: s['param_groups'][1].update(momentum=.9), lambda s: s['param_groups'][0].update(weight_decay=1e-4), lambda s: s['param_groups'][0].update(maximize=True), lambda s: s['param_groups'][1].update(betas=(.9, .999)), lambda s: s['state'].update({7: dict(x=1)})])
def test_a_state_that_does_not_fit_changes_nothing(change):
    ps = [nn.Parameter(randn(4, 3, seed=i)) for i in range(3)]
    opt = tr.SGD(grouped(ps), .1)
    state = copy.deepcopy(torch.optim.SGD(grouped(ps), lr=.7).state_dict())
    state['param_groups'][0]['lr'] = .6
    change(state)
    with pytest.raises(ValueError, match='saved'): opt.load_state_dict(state)
    assert [g['lr'] for g in opt.param_groups] == [.5, .1] and set(opt.param_groups[0]) == {'params', 'lr'}

class Momentum(tr.Optimizer):
    "Three lines on the base class: what 07 will do"
    fixed = dict(dampening=0, weight_decay=0, nesterov=False, maximize=False)
    def __init__(self, params, lr, momentum=.9): super().__init__(params, lr, momentum=momentum)
    def update(self, p, state, lr, momentum):
        state['momentum_buffer'] = b = state['momentum_buffer']*momentum + p.grad if 'momentum_buffer' in state else p.grad.clone()
        p.sub_(b, alpha=lr)

def test_a_rule_with_memory_goes_into_pytorchs_and_back():
    "Saved half-way, loaded into PyTorch's and back, over groups with settings of their own"
    ps, qs = ([nn.Parameter(randn(4, 3, seed=i)) for i in range(3)] for _ in range(2))
    a, b = Momentum(grouped(ps, momentum=.5), .1), torch.optim.SGD(grouped(qs, momentum=.5), lr=.1, momentum=.9)
    def steps(seed):
        for i in range(5):
            for p, q in zip(ps, qs): p.grad, q.grad = randn(4, 3, seed=seed+i), randn(4, 3, seed=seed+i)
            for opt in (a, b): opt.step()
        for p, q in zip(ps, qs): close(p.data, q.data, 1e-12)
    steps(0)
    mine, theirs = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
    a, b = Momentum(grouped(ps, momentum=.1), .2), torch.optim.SGD(grouped(qs), lr=.3)
    a.load_state_dict(theirs)
    b.load_state_dict(mine)
    steps(10)
    kept = theirs['state'][0]['momentum_buffer'].clone()
    a.load_state_dict(theirs)
    a.step()
    assert torch.equal(theirs['state'][0]['momentum_buffer'], kept)  # a copy was taken
    p = nn.Parameter(randn(4, 3).float())
    small = Momentum([p], .1)
    small.load_state_dict(dict(state={0: dict(momentum_buffer=randn(4, 3), step=torch.tensor(7.))}, param_groups=[dict(params=[0], lr=.1, momentum=.9)]))
    assert small.state[p]['momentum_buffer'].dtype == torch.float32 and small.state[p]['step'] == 7

def test_another_optimisers_state_is_refused():
    p = nn.Parameter(torch.ones(2))
    for other in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop):
        o = other([p], lr=.3)
        p.grad = torch.ones(2)
        o.step()
        opt = tr.SGD([p], .1)
        with pytest.raises(ValueError, match="SGD can't go on"): opt.load_state_dict(o.state_dict())
        assert opt.param_groups[0]['lr'] == .1 and not opt.state

def test_optimiser_reads_what_the_first_version_saved():
    opt = tr.SGD([nn.Parameter(torch.ones(2))], .1)
    opt.load_state_dict(dict(param_groups=[dict(lr=.7)]))
    assert opt.param_groups[0]['lr'] == .7

def test_a_parameter_given_twice_is_refused():
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    for params in ([p, q, p], [dict(params=[p]), dict(params=[q, p])]):
        with pytest.raises(ValueError, match='given twice'): tr.SGD(params, .1)
    tr.SGD([p, q], .1)  # equal, and not the same

def test_an_optimiser_needs_a_rule():
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    with pytest.raises(NotImplementedError, match='Optimizer must define update'): tr.Optimizer([p], .1).step()

def test_sgd_keeps_out_of_autograd():
    p = nn.Parameter(torch.ones(2))
    p.sum().backward()
    tr.SGD([p], .5).step()
    assert p.is_leaf and p.requires_grad and p.grad_fn is None and torch.equal(p.data, torch.full((2,), .5))

# Data

def items(n=10): return tr.Dataset(torch.arange(2*n).reshape(n, 2), torch.arange(n)*10)

@some
@given(n=st.integers(1, 30), k=st.integers(1, 35), drop=st.booleans(), shuffle=st.booleans(), seed=seeds)
def test_loader_yields_what_pytorchs_yields(n, k, drop, shuffle, seed):
    ds = items(n)
    ours = tr.DataLoader(ds, k, shuffle, drop, generator=gen(seed))
    torchs = tud.DataLoader(ds, k, sampler=tr.Sampler(ds, shuffle, gen(seed)), drop_last=drop)
    whole = tud.DataLoader(ds, batch_size=None, sampler=tr.BatchSampler(tr.Sampler(ds, shuffle, gen(seed)), k, drop))
    assert len(ours) == len(torchs) == len(whole) == len(list(ours))
    ours.batches.sampler.generator = gen(seed)
    for _ in range(2):  # a second pass goes on with the generator
        for a, b, c in zip(ours, torchs, whole, strict=True):
            for u, v, w in zip(a, b, c, strict=True): assert torch.equal(u, v) and torch.equal(u, w)

@some
@given(n=st.integers(1, 30), k=st.integers(1, 35), drop=st.booleans())
def test_batch_sampler(n, k, drop):
    ours, torchs = tr.BatchSampler(range(n), k, drop), tud.BatchSampler(range(n), k, drop)
    assert list(ours) == list(torchs) == list(ours) and len(ours) == len(torchs)

def test_sampler():
    ds = items(50)
    s = tr.Sampler(ds, True, gen(3))
    first, second = list(s), list(s)
    assert len(s) == 50 and sorted(first) == sorted(second) == list(range(50)) and first != second
    assert first == list(tud.RandomSampler(ds, generator=gen(3)))
    assert list(tr.Sampler(ds)) == list(range(50))
    torch.manual_seed(1)
    a = list(tr.Sampler(ds, True))
    torch.manual_seed(1)
    assert a == list(tr.Sampler(ds, True)) != list(tr.Sampler(ds, True))

def test_pytorchs_loader_draws_one_number_first():
    ds, g = items(), gen()
    torch.empty((), dtype=torch.int64).random_(generator=g)
    ours, torchs = tr.DataLoader(ds, 4, True, generator=g), tud.DataLoader(ds, 4, shuffle=True, generator=gen())
    for a, b in zip(ours, torchs, strict=True): assert torch.equal(a[1], b[1])

def test_dataset():
    ds = items()
    for i in (3, [3], [1, 5, 1], torch.tensor([2, 0]), slice(2, 5), -1):
        x, y = ds[i]
        assert torch.equal(x, ds.x[i]) and torch.equal(y, ds.y[i])
    assert len(ds) == 10 and len(list(tr.DataLoader(ds, 3))) == 4
    with pytest.raises(IndexError): ds[10]

def test_collate():
    ds = items()
    for k in (1, 4):
        for a, b in zip(tr.collate([ds[i] for i in range(k)]), tud.default_collate([ds[i] for i in range(k)]), strict=True): assert torch.equal(a, b)
    got = next(iter(tr.DataLoader(ds, 3, collate_fn=lambda its: its)))
    assert isinstance(got, list) and len(got) == 3

def test_get_dls():
    train, valid = items(50), items(20)
    def order(dl): return torch.cat([y for _, y in dl]).tolist()
    (t1, v1), (t2, _), (t3, _) = (tr.get_dls(train, valid, 8, seed=s) for s in (0, 0, 1))
    a = order(t1)
    assert a == order(t2) != order(t3) and sorted(a) == order(tr.DataLoader(train, 8)) and a != order(t1)
    assert order(v1) == order(v1) == (torch.arange(20)*10).tolist()
    assert (len(t1), len(v1)) == (7, 3) and [len(y) for _, y in t1] == [8]*6 + [2]
    torch.manual_seed(5)
    x = order(tr.get_dls(train, valid, 8)[0])
    torch.manual_seed(5)
    assert x == order(tr.get_dls(train, valid, 8)[0])

def test_get_dls_leave_the_global_generator_alone():
    dls = tr.get_dls(items(), items(), 4, seed=0)
    before = torch.get_rng_state()
    for dl in dls: list(dl)
    assert torch.equal(before, torch.get_rng_state())

# Modes

def test_train_and_eval():
    ours, torchs = pair()
    for m in (ours, torchs):
        inner = list(list(m.children())[2].children())[1]
        assert m.training and inner.training
        assert m.eval() is m and not m.training and not inner.training
        assert m.train() is m and m.training and inner.training
        assert m.train(False) is m and not inner.training
        m.train()
    assert mo.ReLU().training

# Training

def batches(n=40, seed=0):
    x, y = randn(n, 6, seed=seed), torch.randint(3, (n,), generator=gen(seed))
    return tr.Dataset(x, y)

def test_fit_ours_and_pytorchs():
    ours, torchs = pair()
    hs = []
    for model, loss, opt in ((ours, tr.CrossEntropy(), tr.SGD(ours.parameters(), .1)), (torchs, F.cross_entropy, torch.optim.SGD(torchs.parameters(), lr=.1)),
                             (pair()[1], nn.CrossEntropyLoss(), None), (pair()[1], tr.CrossEntropy(), None), (pair()[0], tr.CrossEntropy(), torch.optim.SGD)):
        if opt is None or opt is torch.optim.SGD: opt = torch.optim.SGD(model.parameters(), lr=.1)
        hs.append(tr.fit(3, model, loss, opt, *tr.get_dls(batches(), batches(25, 1), 16, seed=0), progress=False))
    for h in hs:
        assert [len(v) for v in h.values()] == [9, 3, 3] and list(h) == ['train_loss', 'valid_loss', 'accuracy']
        for k in h: ex.test_near(torch.tensor(h[k]), torch.tensor(hs[0][k]), rtol=1e-9, atol=1e-12)
        assert all(isinstance(v, float) for vs in h.values() for v in vs)
    for p, q in zip(ours.parameters(), torchs.parameters(), strict=True): ex.test_near(p, q.detach(), rtol=1e-9, atol=1e-12)

def test_fit_is_the_plain_loop():
    "PyTorch's own loop, written out, from the same weights on the same batches"
    a, b = pair()[1], pair()[1]
    opt = torch.optim.SGD(a.parameters(), lr=.1)
    losses = []
    for _ in range(2):
        for xb, yb in tr.get_dls(batches(), batches(), 16, seed=0)[0]:
            loss = F.cross_entropy(a(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    F.cross_entropy(b(randn(2, 6)), torch.tensor([0, 1])).backward()  # left-over gradients must not count
    got = []
    for _ in range(2): got += tr.fit(1, b, F.cross_entropy, torch.optim.SGD(b.parameters(), lr=.1), *tr.get_dls(batches(), batches(), 16, seed=0), progress=False)['train_loss']
    assert got == losses

def test_printed_training_loss_weighs_batches_by_size(capsys, monkeypatch):
    "The mean over all items, though the last batch is short; without steps the network stays as it is"
    monkeypatch.delitem(sys.modules, 'ipykernel', raising=False)  # with it, as in a notebook, there is a bar too
    m, dl = pair()[1], tr.DataLoader(batches(25), 16)
    h = tr.fit(1, m, F.cross_entropy, torch.optim.SGD(m.parameters(), lr=0.), dl, dl)
    assert abs(sum(h['train_loss'])/2 - h['valid_loss'][0]) > 1e-3, "the mean of the batches' means is another number"
    shown = capsys.readouterr().out.split('\n')[1].split()
    assert shown[1] == shown[2] == f"{h['valid_loss'][0]:.4f}"

@pytest.mark.parametrize('which', [0, 1], ids=['ours', 'torch'])
def test_evaluate(which):
    model, ds = pair()[which], batches(25, 1)
    loss, acc = tr.evaluate(model, tr.CrossEntropy(), tr.DataLoader(ds, 16))
    with torch.no_grad(): out = model(ds.x)
    assert loss == pytest.approx(F.cross_entropy(out, ds.y).item(), rel=1e-12)
    assert acc == (out.argmax(1) == ds.y).sum().item()/25
    means = [F.cross_entropy(out[i:i+16], ds.y[i:i+16]).item() for i in (0, 16)]
    assert abs(sum(means)/2 - loss) > 1e-3  # the mean of the batches' means is another number

class Spy(nn.Module):
    "Notes how it is called"
    def __init__(self):
        super().__init__()
        self.lin, self.seen = nn.Linear(6, 3).double(), []
    def forward(self, x):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.lin(x)

def test_modes_and_gradients_in_fit():
    m = Spy()
    tr.fit(2, m, F.cross_entropy, tr.SGD(m.parameters(), .1), tr.DataLoader(batches(), 20), tr.DataLoader(batches(), 40), progress=False)
    assert m.seen == [(True, True), (True, True), (False, False)]*2 and m.training
    m.eval()
    tr.evaluate(m, F.cross_entropy, tr.DataLoader(batches(), 40))
    assert not m.training, "evaluate leaves the mode as it found it"

def test_evaluate_puts_the_mode_back_after_an_error():
    m = Spy()
    def bad(*_): raise KeyError('no')
    with pytest.raises(KeyError): tr.evaluate(m, bad, tr.DataLoader(batches(), 40))
    assert m.training

def test_no_autograd_in_ours():
    ours, seen = pair()[0], []
    class Loss(tr.CrossEntropy):
        def forward(self, x, targ):
            seen.append((x.requires_grad, out := super().forward(x, targ))[0] or out.requires_grad)
            return out
    tr.fit(1, ours, Loss(), tr.SGD(ours.parameters(), .1), tr.DataLoader(batches(), 16), tr.DataLoader(batches(), 16), progress=False)
    assert len(seen) == 6 and not any(seen) and not any(p.requires_grad for p in ours.parameters())

@pytest.mark.parametrize('which', [0, 1], ids=['ours', 'torch'])
def test_a_part_in_evaluation_stays_there(which):
    m = pair()[which]
    m[2].eval()
    modes = [p.training for p in m.modules()]
    assert modes.count(False) == len(list(m[2].modules()))
    dl = tr.DataLoader(batches(), 16)
    for _ in range(2):
        tr.fit(2, m, tr.CrossEntropy(), tr.SGD(m.parameters(), .1), dl, dl, progress=False)
        tr.evaluate(m, tr.CrossEntropy(), dl)
        assert [p.training for p in m.modules()] == modes

class Waits(TorchDispatchMode):
    "Counts what reads a number out of a tensor: on a GPU that waits for all that went before"
    n = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.equal.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))

def test_a_step_reads_no_number():
    "On the device 'meta', which has none, every reading would raise; and counted, in a step with the check of the targets left to the CPU"
    model, loss_func = mo.Sequential(mo.Linear(6, 5), mo.ReLU(), mo.Linear(5, 3)).to('meta'), tr.CrossEntropy()
    opt, x, y = tr.SGD([dict(params=model[0].parameters()), dict(params=model[2].parameters(), lr=.01)], .1), torch.ones(4, 6, device='meta'), torch.ones(4, dtype=torch.int64, device='meta')
    with Waits() as waits:
        for _ in range(2):
            loss = loss_func(model(x), y)
            opt.zero_grad()
            tr.backprop(loss, model, loss_func)
            opt.step()
            assert tr.accuracy(model(x), y).device.type == loss.device.type == 'meta'
    assert waits.n == 0
    with Waits() as waits: tr.nll(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert waits.n == 2  # it does count: the least and the largest target
    with pytest.raises(ValueError, match='targ holds 3'): tr.cross_entropy(torch.zeros(1, 3), torch.tensor([3]))

def test_evaluate_reads_numbers_once():
    "However many batches there are"
    counts = []
    for n in (32, 320):
        m, dl = pair()[0], [(x, y) for x, y in tr.DataLoader(batches(n), 16)]
        with Waits() as waits: tr.evaluate(m, lambda out, y: out.mean(), dl)
        counts.append(waits.n)
    assert counts[0] == counts[1]

def test_fit_of_no_epochs():
    m = pair()[0]
    assert tr.fit(0, m, tr.CrossEntropy(), tr.SGD(m.parameters(), .1), [], [], progress=False) == dict(train_loss=[], valid_loss=[], accuracy=[])

class Terminal(io.StringIO):
    def isatty(self): return True

@pytest.mark.parametrize('out', [Terminal, io.StringIO], ids=['terminal', 'file'])
def test_progress(out, monkeypatch):
    "A header and a row per epoch; in a terminal a bar, which the row takes the place of"
    m, f = pair()[0], out()
    monkeypatch.setattr(sys, 'stdout', f)
    monkeypatch.delitem(sys.modules, 'ipykernel', raising=False)
    tr.fit(2, m, tr.CrossEntropy(), tr.SGD(m.parameters(), .1), tr.DataLoader(batches(), 16), tr.DataLoader(batches(), 16))
    text = f.getvalue()
    monkeypatch.undo()
    assert ('\r' in text) == ('epoch 1:' in text) == (out is Terminal)
    lines = [line.split('\r')[-1] for line in text.split('\n')]  # what a terminal still shows
    assert len(lines) == 4 and lines[0].split() == ['epoch', 'train', 'loss', 'valid', 'loss', 'accuracy'] and lines[3] == ''
    assert [line.split()[0] for line in lines[1:3]] == ['1', '2'] and all(len(line) == len(lines[0]) for line in lines[1:3])

def test_no_progress(capsys):
    m = pair()[0]
    tr.fit(1, m, tr.CrossEntropy(), tr.SGD(m.parameters(), .1), tr.DataLoader(batches(), 16), tr.DataLoader(batches(), 16), progress=False)
    assert capsys.readouterr() == ('', '')

def test_plot_history():
    import matplotlib
    matplotlib.use('agg')
    fig = tr.plot_history(dict(train_loss=[3., 2., 1., .5], valid_loss=[2., 1.], accuracy=[.1, .9]))
    losses, acc = fig.axes
    assert losses.get_lines()[0].get_xdata()[-1] == 2 and list(acc.get_lines()[0].get_ydata()) == [.1, .9]
    assert losses.get_xlabel() == acc.get_xlabel() == 'epoch'
    matplotlib.pyplot.close(fig)

# Errors

t, i = torch.ones, lambda *v: torch.tensor(v)
WRONG = [  # expression, the kind of error, and what the message must hold
    ("tr.nll(t(2,3), i(0,3))", ValueError, ['targ holds 3', 'from 0 to 2']), ("tr.cross_entropy(t(2,3), i(0,-1))", ValueError, ['targ holds -1', 'from 0 to 2']),
    ("tr.cross_entropy(t(2,3), i(-100,1))", ValueError, ['targ holds -100']), ("tr.cross_entropy_grad(one, t(2,3), i(5,1))", ValueError, ['targ holds 5']),
    ("tr.nll_grad(one, t(2,3), i(0,-2))", ValueError, ['targ holds -2']), ("tr.accuracy(t(2,3), i(0,3))", ValueError, ['targ holds 3']),
    ("tr.cross_entropy(t(2,3), t(2))", ValueError, ['float32', 'targ.long()']), ("tr.nll(t(2,3), t(2)>0)", ValueError, ['bool']),
    ("tr.cross_entropy(t(2,3), t(2,3))", ValueError, ['(2, 3)', '(n,)']), ("tr.cross_entropy(t(2,3), i(0,1)[:,None])", ValueError, ['(2, 3)', '(2, 1)']),
    ("tr.cross_entropy(t(2,3), i(0))", ValueError, ['(2, 3)', '(1,)']), ("tr.cross_entropy(t(2), i(0,1))", ValueError, ['(2,)']),
    ("tr.cross_entropy(t(2,3,4), i(0,1))", ValueError, ['(2, 3, 4)']), ("tr.accuracy(t(2,3), i(0,1)[:,None])", ValueError, ['(2, 1)']),
    ("tr.cross_entropy(t(0,3), i())", ValueError, ['(0, 3)', 'without a 0']), ("tr.accuracy(t(0,3), i().long())", ValueError, ['(0, 3)']),
    ("tr.cross_entropy(t(2,0), i(0,0))", ValueError, ['(2, 0)']), ("tr.cross_entropy(t(2,3).long(), i(0,1))", ValueError, ['int64', 'x.float()']),
    ("tr.softmax(i(1,2))", ValueError, ['int64']), ("tr.logsumexp(t(()))", ValueError, ['()']), ("tr.log_softmax(t(3,0))", ValueError, ['(3, 0)']),
    ("tr.softmax([1.,2.])", TypeError, ['list']), ("tr.cross_entropy(t(2,3), [0,1])", TypeError, ['targ', 'list']),
    ("tr.logsumexp_grad(t(2,3), t(2,3))", ValueError, ['(2, 3)', '(2,)']), ("tr.softmax_grad(t(3), t(2,3))", ValueError, ['(3,)', '(2, 3)']),
    ("tr.log_softmax_grad(t(2,1), t(2,3))", ValueError, ['(2, 1)', '(2, 3)']),
    ("tr.SGD([], .1)", ValueError, ['no parameters']), ("tr.SGD(t(2), .1)", TypeError, ['[p]']), ("tr.SGD([t(2)], -1)", ValueError, ['-1']),
    ("tr.SGD([t(2)], float('nan'))", ValueError, ['nan']), ("tr.SGD([('w', t(2))], .1)", TypeError, ['tuple']), ("tr.SGD([dict(params=t(2))], .1)", TypeError, ['[p]']),
    ("tr.SGD([dict(params=[t(2)], momentum=.9)], .1)", ValueError, ['SGD knows no momentum']), ("tr.SGD([dict(params=[t(2)], lr=float('inf'))], .1)", ValueError, ['inf']),
    ("tr.SGD([dict(params=[])], .1)", ValueError, ['no parameters']), ("tr.nll_grad(t(2), t(2,3), i(0,1))", ValueError, ['(2,)']),
    ("tr.Dataset(t(3), t(2))", ValueError, ['3 inputs', '2 targets']), ("tr.BatchSampler(range(3), 0)", ValueError, ['at least 1', '0']),
    ("tr.DataLoader(range(3), -1)", ValueError, ['-1']), ("tr.collate([])", ValueError, ['no items']),
    ("tr.evaluate(mo.ReLU(), tr.CrossEntropy(), [])", ValueError, ['no batches']),
    ("tr.fit(1, mo.ReLU(), tr.CrossEntropy(), None, [], [], progress=False)", ValueError, ['train_dl', 'no batches']),
    ("tr.backprop(t(()), mo.ReLU(), print)", TypeError, ['CrossEntropy()']), ("tr.plot_history(dict(train_loss=[], valid_loss=[], accuracy=[]))", ValueError, ['no epoch']),
    ("tr.confusion_matrix(i(0,1), i(0,1,1), 2)", ValueError, ['(2,)', '(3,)']), ("tr.confusion_matrix(i(0,2), i(0,1), 2)", ValueError, ['pred holds 2', 'from 0 to 1']),
    ("tr.confusion_matrix(i(0,1), i(0,-1), 2)", ValueError, ['targ holds -1']), ("tr.confusion_matrix(t(2), i(0,1), 2)", ValueError, ['pred', 'float32']),
    ("tr.confusion_matrix(i(0,1)[:,None], i(0,1)[:,None], 2)", ValueError, ['(2, 1)']), ("tr.confusion_matrix([0,1], i(0,1), 2)", TypeError, ['pred', 'list']),
]

@pytest.mark.parametrize('code,kind,parts', WRONG, ids=[c for c, *_ in WRONG])
def test_wrong_input(code, kind, parts):
    with pytest.raises(kind) as e: eval(code, dict(tr=tr, mo=mo, t=t, i=i, one=ONE))
    assert type(e.value) is kind
    for p in parts: assert p in str(e.value)

def test_wrong_input_without_asserts():
    "`python -O` drops assert statements: the errors must not be among them"
    cases = [(c, k.__name__, p) for c, k, p in WRONG]
    code = ("import sys, torch\nfrom notes import training as tr, modules as mo\nt, i, one = torch.ones, lambda *v: torch.tensor(v), torch.tensor(1.)\nassert False, 'asserts are on'\n"
            f"for code, kind, parts in {cases!r}:\n    try: eval(code)\n    except (ValueError, TypeError) as e:\n"
            "        if type(e).__name__ == kind and all(p in str(e) for p in parts): continue\n    sys.exit(code)\n")
    r = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr

def test_targets_on_another_kind_of_integer_are_no_masks():
    "uint8 as an index would be a mask: it must be made int64 first"
    x, targ = randn(3, 3), torch.tensor([1, 0, 1], dtype=torch.uint8)
    close(tr.cross_entropy(x, targ), F.cross_entropy(x, targ.long()))

def test_nothing_is_changed_in_place():
    x, targ = randn(4, 3), torch.tensor([0, 1, 2, 1])
    kept = x.clone(), targ.clone()
    for f in (tr.nll, tr.cross_entropy, tr.accuracy): f(x, targ)
    for f in (tr.nll_grad, tr.cross_entropy_grad): f(ONE, x, targ)
    for f in (tr.softmax, tr.log_softmax, tr.logsumexp): f(x)
    assert torch.equal(x, kept[0]) and torch.equal(targ, kept[1])

def test_signature_of_the_contract():
    assert list(inspect.signature(tr.fit).parameters)[:6] == ['epochs', 'model', 'loss_func', 'opt', 'train_dl', 'valid_dl']

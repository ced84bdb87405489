"Optimisers and schedules, each beside PyTorch's"
import copy, functools, math
import pytest, torch
from torch import nn
from torch.optim import lr_scheduler as ls
from draws import randn
from fits import F64, Log, NoLen, learner, loaders, mlp, std_cbs, weights
from notes import callbacks as ca, checkpoints as ck, learner as le, optimizers as op, training as tr

# The rules --------------------------------------------------------------------------------------------------------------------------

LAYOUTS = [((4, 3), 'contiguous'), ((3, 5), 'transposed'), ((4,), 'contiguous'), ((), 'contiguous'), ((3, 4), 'strided'), ((2, 3, 3, 3), 'transposed')]
MATRICES = [((4, 3), 'contiguous'), ((3, 5), 'transposed'), ((3, 4), 'strided'), ((1, 6), 'contiguous'), ((5, 1), 'contiguous')]

def draw(shape, **kw): return randn(*shape, dtype=F64, **kw) if shape else randn(1, dtype=F64, **kw)[0]

def params(shapes=LAYOUTS): return [nn.Parameter(draw(s, seed=i, layout=l)) for i, (s, l) in enumerate(shapes)]

def groups(ps, **kw): return [dict(params=ps[:2]), dict(params=iter(ps[2:]), lr=.02, **kw)]

def gradients(ps, i):
    "Step `i`'s: the second parameter has none for six steps from the first on, the last one none until the fourth; some are of another layout than their parameter"
    for k, p in enumerate(ps):
        none = k == 1 and i < 6 or k == len(ps)-1 and 3 <= i < 9
        g = draw(p.shape, seed=1000*i+k)*10.**(k-2)
        if k == 0: g = draw(p.shape[::-1], seed=1000*i).t()
        p.grad = None if none else g

def near(ps, qs, tol=1e-10):
    for p, q in zip(ps, qs, strict=True): assert (p-q).abs().max() <= tol*max(1e-300, q.abs().max()), (p.shape, (p-q).abs().max())

def rule(name, theirs=None, only=None, lr=.05, shapes=LAYOUTS, **kw):
    "Ours and PyTorch's, with settings; `only`: those of the second group"
    return pytest.param(getattr(op, name), getattr(torch.optim, theirs or name, None), lr, kw, only or {}, shapes, id=' '.join([name, *map(str, kw.items())]))

RULES = [
    rule('Momentum', 'SGD', only=dict(momentum=.5)), rule('Momentum', 'SGD', momentum=0.), rule('Momentum', 'SGD', momentum=0., dampening=.5, weight_decay=.1), rule('Momentum', 'SGD', momentum=.9, dampening=.3, only=dict(dampening=0.)),
    rule('Momentum', 'SGD', momentum=.9, nesterov=True, weight_decay=.1, only=dict(nesterov=False, dampening=.2)), rule('Momentum', 'SGD', momentum=.9, weight_decay=.2, dampening=.9),
    rule('RMSProp', 'RMSprop', only=dict(alpha=.5)), rule('RMSProp', 'RMSprop', centered=True, eps=1e-3), rule('RMSProp', 'RMSprop', momentum=.9, only=dict(momentum=0., centered=True)),
    rule('RMSProp', 'RMSprop', momentum=.5, centered=True, weight_decay=.1, alpha=.9),
    rule('Adam', only=dict(betas=(.5, .9))), rule('Adam', weight_decay=.1, eps=1e-3), rule('Adam', betas=(0., .999), only=dict(betas=(.9, 0.))), rule('Adam', betas=(0., 0.)),
    rule('AdamW', only=dict(weight_decay=.3)), rule('AdamW', weight_decay=.1, betas=(.8, .95), only=dict(eps=.1)), rule('AdamW', weight_decay=0.)]

def defaults(cls, theirs, lr, kw):
    "Settings as PyTorch's class has to be given them: its momentum is 0 where ours is 0.9"
    return {**({'momentum': .9} if cls is op.Momentum else {}), **kw}

def twenty(ps, qs, make):
    "Twenty steps of both, compared; half-way, the state of each is loaded into a new one of the other, and the run goes on"
    a, b = make()
    for i in range(20):
        for s in (ps, qs): gradients(s, i)
        a.step(); b.step()
        near(ps, qs)
        if i == 9:
            mine, yours = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
            a, b = make()
            a.load_state_dict(yours)
            b.load_state_dict(mine)
    return a, b

@pytest.mark.parametrize('cls,theirs,lr,kw,only,shapes', RULES)
def test_each_rule_is_pytorchs(cls, theirs, lr, kw, only, shapes):
    ps, qs = params(shapes), params(shapes)
    a, b = twenty(ps, qs, lambda: (cls(groups(ps, **only), lr, **kw), theirs(groups(qs, **only), lr=lr, **defaults(cls, theirs, lr, kw))))
    for x, y in zip(a.state_dict()['state'].values(), b.state_dict()['state'].values()):
        assert {k for k in y if y[k] is not None} == x.keys()
        for k in x: torch.testing.assert_close(torch.as_tensor(x[k], dtype=F64), torch.as_tensor(y[k], dtype=F64), rtol=1e-9, atol=1e-14)

@pytest.mark.parametrize('cls,theirs,lr,kw,only,shapes', RULES)
def test_a_rule_goes_on_from_its_own_state(cls, theirs, lr, kw, only, shapes):
    "To the last bit, and what was saved stays as it was"
    def run(cut):
        ps = params(shapes)
        a = cls(groups(ps, **only), lr, **kw)
        for i in range(20):
            gradients(ps, i)
            a.step()
            if i == cut:
                s, a = a.state_dict(), cls(groups(ps, **only), 1., **kw)
                kept = copy.deepcopy(s)
                a.load_state_dict(s)
                qs = params(shapes)
                b = cls(groups(qs, **only), lr, **kw)
                b.load_state_dict(s)
                for q in qs: q.grad = torch.ones_like(q)
                b.step()
                for x, y in zip(s['state'].values(), kept['state'].values()):
                    for k in x: assert torch.equal(torch.as_tensor(x[k]), torch.as_tensor(y[k]))
        return ps
    for p, q in zip(run(None), run(7)): assert torch.equal(p, q)

@pytest.mark.parametrize('cls', [op.Momentum, op.RMSProp, op.Adam, op.AdamW, op.Muon])
def test_a_step_stays_out_of_autograd_and_leaves_the_gradient(cls):
    p = nn.Parameter(torch.eye(2))
    (p*p).sum().backward()
    g = p.grad.clone()
    opt = cls([p], .1)
    for _ in range(2): opt.step()
    assert p.is_leaf and p.grad_fn is None and torch.equal(p.grad, g) and not torch.equal(p.data, torch.eye(2))
    assert not any(t.requires_grad for t in opt.state[p].values() if torch.is_tensor(t))
    opt.zero_grad()
    before = p.data.clone()
    opt.step()  # nothing has a gradient
    assert torch.equal(p.data, before)

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('cls,theirs', [(op.Momentum, functools.partial(torch.optim.SGD, momentum=.9)), (op.RMSProp, torch.optim.RMSprop), (op.Adam, torch.optim.Adam), (op.AdamW, torch.optim.AdamW)])
def test_smaller_floats(cls, theirs, dtype):
    ps, qs = ([nn.Parameter(randn(8, 3, seed=1).to(dtype))] for _ in range(2))
    a, b = cls(ps, .01), theirs(qs, lr=.01)
    for i in range(10):
        ps[0].grad = qs[0].grad = randn(8, 3, seed=i).to(dtype)
        a.step(); b.step()
    assert ps[0].dtype == dtype and all(t.dtype == dtype for t in a.state[ps[0]].values() if torch.is_tensor(t))
    torch.testing.assert_close(ps[0].data, qs[0].data, rtol=1e-5 if dtype == torch.float32 else .03, atol=1e-6 if dtype == torch.float32 else .02)

BAD = [('Momentum', 'SGD', dict(momentum=-.1)), ('Momentum', 'SGD', dict(weight_decay=-1e-4)), ('Momentum', 'SGD', dict(nesterov=True, momentum=0.)), ('Momentum', 'SGD', dict(nesterov=True, momentum=.9, dampening=.1)), ('Momentum', 'SGD', dict(lr=-1.)),
       ('RMSProp', 'RMSprop', dict(alpha=-.1)), ('RMSProp', 'RMSprop', dict(eps=-1e-8)), ('RMSProp', 'RMSprop', dict(momentum=-1)), ('RMSProp', 'RMSprop', dict(weight_decay=-1)), ('RMSProp', 'RMSprop', dict(lr=-.1)),
       *((c, c, kw) for c in ('Adam', 'AdamW') for kw in (dict(betas=(1., .999)), dict(betas=(.9, 1.)), dict(betas=(-.1, .9)), dict(eps=-1.), dict(weight_decay=-1.), dict(lr=-1.))),
       ('Muon', 'Muon', dict(momentum=-1.)), ('Muon', 'Muon', dict(weight_decay=-1.)), ('Muon', 'Muon', dict(lr=-1.))]

@pytest.mark.parametrize('name,theirs,kw', BAD)
def test_settings_are_checked_as_pytorch_checks_them(name, theirs, kw):
    p = nn.Parameter(torch.eye(2))
    what = 'nesterov' if 'nesterov' in kw else next(iter(kw))
    with pytest.raises(ValueError, match=what): getattr(op, name)([p], **{'lr': .1, **kw})
    with pytest.raises(ValueError, match=what): getattr(op, name)([dict(params=[p], **kw)], .1)  # in a group, too
    if hasattr(torch.optim, theirs):
        with pytest.raises(ValueError): getattr(torch.optim, theirs)([p], **{'lr': .1, **kw})

def test_settings_that_are_no_numbers():
    p = nn.Parameter(torch.eye(2))
    for bad in (dict(momentum=math.nan), dict(weight_decay=math.nan)):
        with pytest.raises(ValueError, match='nan'): op.Momentum([p], .1, **bad)
    for betas in ((.9,), (.9, .99, .999), (math.nan, .9)):
        with pytest.raises(ValueError, match='betas'): op.Adam([p], .1, betas=betas)
    with pytest.raises(ValueError, match='Adam knows no momentum'): op.Adam([dict(params=[p], momentum=.9)], .1)

@pytest.mark.parametrize('cls', [op.Momentum, op.RMSProp, op.Adam, op.AdamW, op.Muon])
def test_complex_and_sparse_are_refused_in_words(cls):
    with pytest.raises(TypeError, match='complex'): cls([nn.Parameter(torch.eye(2, dtype=torch.complex64))], .1)
    e = nn.Embedding(4, 3, sparse=True)
    e(torch.tensor([1, 2])).sum().backward()
    opt, before = cls(e.parameters(), .1), e.weight.data.clone()
    with pytest.raises(TypeError, match='sparse'): opt.step()
    assert torch.equal(e.weight.data, before)

def test_what_pytorch_has_and_ours_lacks_is_refused():
    p = nn.Parameter(torch.eye(2))
    p.grad = torch.ones(2, 2)
    for ours, theirs in ((op.Adam, torch.optim.Adam([p], amsgrad=True)), (op.Adam, torch.optim.Adam([p], maximize=True)), (op.Momentum, torch.optim.SGD([p], lr=.1, maximize=True)), (op.RMSProp, torch.optim.RMSprop([p], maximize=True)), (op.Adam, torch.optim.RMSprop([p]))):
        theirs.step()
        with pytest.raises(ValueError, match="can't go on"): ours([p], .1).load_state_dict(theirs.state_dict())

def test_adam_and_adamw_are_not_mixed_up():
    "Where PyTorch's groups say which they are"
    if 'decoupled_weight_decay' not in torch.optim.Adam([nn.Parameter(torch.eye(2))]).param_groups[0]: pytest.skip('this PyTorch does not say')
    p = nn.Parameter(torch.eye(2))
    with pytest.raises(ValueError, match='decoupled'): op.Adam([p], .1).load_state_dict(torch.optim.AdamW([p]).state_dict())
    with pytest.raises(ValueError, match='decoupled'): op.AdamW([p], .1).load_state_dict(op.Adam([p], .1).state_dict())

# Muon -------------------------------------------------------------------------------------------------------------------------------

muon = pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='PyTorch has a Muon since 2.9')

def muons(ps, qs, kw, only): return op.Muon(groups(ps, **only), .05, **kw), torch.optim.Muon(groups(qs, **only), lr=.05, **kw)

@muon
@pytest.mark.parametrize('kw,only', [({}, {}), (dict(nesterov=False), dict(momentum=.5)), (dict(weight_decay=0.), dict(nesterov=False, weight_decay=.5))])
def test_muon_is_pytorchs_where_both_orthogonalise_alike(monkeypatch, kw, only):
    monkeypatch.setattr(torch.optim._muon, '_zeropower_via_newtonschulz', lambda g, *a: op.orthogonalize(g))
    ps, qs = params(MATRICES), params(MATRICES)
    twenty(ps, qs, lambda: muons(ps, qs, kw, only))

@muon
def test_muon_is_pytorchs_within_bfloat16s_rounding():
    "Each step differs by a few of bfloat16's 2^-8; the matrices it orthogonalises are far from singular"
    ps, qs = params(MATRICES), params(MATRICES)
    a, b = muons(ps, qs, dict(weight_decay=0.), {})
    for i in range(20):
        before = [p.detach().clone() for p in ps]
        for s in (ps, qs): gradients(s, i)
        a.step(); b.step()
        for p, q, o in zip(ps, qs, before):
            if p.grad is not None: assert (p-q).norm() < .1*(p-o).norm()
            q.data.copy_(p.data)

@muon
def test_orthogonalize_is_pytorchs_in_its_own_dtype():
    for shape in ((2, 2), (3, 5), (5, 3), (1, 4), (4, 1)):
        m = randn(*shape, seed=3)
        close = torch.optim._muon._zeropower_via_newtonschulz(m, (3.4445, -4.775, 2.0315), 5, 1e-7).float()
        assert (op.orthogonalize(m)-close).abs().max() < .1  # bfloat16 rounds by 2^-8, and five steps pass that on

@pytest.mark.parametrize('shape', [(2, 2), (3, 7), (7, 3), (1, 5), (16, 16)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    m = randn(*shape, seed=1, dtype=F64)
    u, s, v = torch.linalg.svd(m, full_matrices=False)
    o = op.orthogonalize(m)
    assert o.shape == m.shape and o.dtype == F64 and torch.equal(m, randn(*shape, seed=1, dtype=F64))
    inside = u.t()@o@v.t()  # diagonal: the singular vectors have stayed
    assert (inside - torch.diag(inside.diag())).abs().max() < 1e-10
    assert inside.diag()[s > .01*s.norm()].min() > .68 and inside.diag().max() < 1.16  # 1.155 for what is smaller than a hundredth

def test_orthogonalize_of_nothing_is_nothing():
    assert torch.equal(op.orthogonalize(torch.zeros(2, 3)), torch.zeros(2, 3))

@pytest.mark.parametrize('shape', [(), (3,), (2, 3, 3, 3)])
def test_muon_takes_matrices_only(shape):
    with pytest.raises(ValueError, match='no matrix'): op.Muon([nn.Parameter(torch.ones(shape))], .1)
    with pytest.raises(ValueError, match='no matrix'): op.orthogonalize(torch.ones(shape))

# Together ---------------------------------------------------------------------------------------------------------------------------

def die_at(epoch, i):
    die = Log(before_batch=(lambda l: l.training and (l.epoch, l.iter) == (epoch, i), ZeroDivisionError))
    die.state_dict = None
    return die

def both(ps, lr=.1): return op.Together(op.Muon([p for p in ps if p.ndim == 2], lr), op.AdamW([p for p in ps if p.ndim != 2], lr/10))

def test_together_are_both():
    a, b = mlp(), mlp()
    one, (x, y) = both(list(a.parameters())), (both(list(b.parameters())).opts)
    for i in range(5):
        for m in (a, b):
            for k, p in enumerate(m.parameters()): p.grad = randn(*p.shape, seed=10*i+k, dtype=F64)
        one.step(); x.step(); y.step()
    assert torch.equal(weights(a), weights(b))
    assert [g['lr'] for g in one.param_groups] == [.1, .01]
    one.zero_grad()
    assert all(p.grad is None for p in a.parameters())

def test_together_refuses_a_parameter_of_two():
    p = nn.Parameter(torch.eye(2))
    with pytest.raises(ValueError, match='share a parameter'): op.Together(op.Muon([p], .1), op.AdamW([p], .1))
    with pytest.raises(ValueError, match='2 optimisers; here 1'): op.Together(op.Muon([p], .1)).load_state_dict(dict(opts=[1, 2]))

def test_together_is_found_a_rate_for_and_resumed(tmp_path):
    def go(path=None, *cbs):
        l = learner([*std_cbs(), op.Schedule(op.one_cycle)], opt_func=both)
        if path is None: assert l.lr_find(n=12).suggestion > 0 and l.lr == .1
        l.fit(3, cbs=[*([ck.Checkpoint(path, 2)] if path else []), *cbs])
        return l
    with pytest.raises(ZeroDivisionError): go(tmp_path/'a', die_at(1, 3))
    a, b = go(tmp_path/'a'), go()
    assert torch.equal(weights(a.model), weights(b.model)) and a.recorder.lrs == b.recorder.lrs
    l = learner(opt_func=lambda ps, lr: op.Together(torch.optim.SGD(ps[:1], lr), op.Adam(ps[1:], lr)))
    l.opt.load_state_dict(copy.deepcopy(l.opt.state_dict()))
    l.set_lr(.7)
    assert l.opt.opts[0].param_groups[0]['lr'] == .7  # a group that PyTorch has replaced is seen

# Schedules --------------------------------------------------------------------------------------------------------------------------

def theirs(make, n, lr=.4):
    "Rates of PyTorch's scheduler in `n` steps"
    opt = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)
    s, lrs = make(opt), []
    for _ in range(n):
        lrs.append(opt.param_groups[0]['lr'])
        opt.step()
        s.step()
    return lrs

def ours(f, n, lr=.4): return [lr*f(i, n) for i in range(n)]

P = functools.partial
def line(w): return lambda o: ls.LinearLR(o, start_factor=1/w, total_iters=w-1)
PAIRS = {
    'constant': (op.constant, 12, lambda o: ls.ConstantLR(o, factor=1.)),
    'warm-up': (P(op.warm_up, warm=.25), 40, line(10)),
    'warm-up, LambdaLR': (P(op.warm_up, warm=.3), 17, lambda o: ls.LambdaLR(o, lambda i: min(1, (i+1)/(.3*17)))),
    'no warm-up': (P(op.warm_up, warm=0.), 5, lambda o: ls.ConstantLR(o, factor=1.)),
    'warm-up all the way': (P(op.warm_up, warm=1.), 20, line(20)),
    'cosine': (op.cosine, 40, lambda o: ls.CosineAnnealingLR(o, T_max=40)),
    'cosine to an end': (P(op.cosine, end=.1), 33, lambda o: ls.CosineAnnealingLR(o, T_max=33, eta_min=.04)),
    'warm-up and cosine': (P(op.cosine, warm=.2, end=.05), 50, lambda o: ls.SequentialLR(o, [line(10)(o), ls.CosineAnnealingLR(o, T_max=40, eta_min=.02)], milestones=[10])),
    'one cycle': (op.one_cycle, 50, lambda o: ls.OneCycleLR(o, .4, total_steps=50, cycle_momentum=False)),
    'one cycle, an odd number': (op.one_cycle, 37, lambda o: ls.OneCycleLR(o, .4, total_steps=37, cycle_momentum=False)),
    'one cycle, linear': (P(op.one_cycle, linear=True), 37, lambda o: ls.OneCycleLR(o, .4, total_steps=37, cycle_momentum=False, anneal_strategy='linear')),
    'one cycle, other settings': (P(op.one_cycle, warm=.45, start=.1, end=.001), 40, lambda o: ls.OneCycleLR(o, .4, total_steps=40, cycle_momentum=False, pct_start=.45, div_factor=10, final_div_factor=100)),
    'one cycle without a rise': (P(op.one_cycle, warm=0.), 9, lambda o: ls.OneCycleLR(o, .4, total_steps=9, cycle_momentum=False, pct_start=0.)),
    'stable, then decay': (P(op.wsd, warm=.1, decay=.2), 50, lambda o: ls.SequentialLR(o, [line(5)(o), ls.ConstantLR(o, factor=1.), ls.LinearLR(o, start_factor=1., end_factor=.1, total_iters=9)], milestones=[5, 40])),
    'step': (P(op.step_decay, parts=3, by=.2), 30, lambda o: ls.StepLR(o, step_size=10, gamma=.2)),
    'step, four parts': (P(op.step_decay, parts=4), 20, lambda o: ls.StepLR(o, step_size=5, gamma=.1)),
}

@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('name', PAIRS)
def test_each_schedule_is_pytorchs_step_for_step(name):
    f, n, make = PAIRS[name]
    torch.testing.assert_close(ours(f, n), theirs(make, n), rtol=1e-9, atol=1e-15)

@pytest.mark.parametrize('f', [op.constant, op.warm_up, op.cosine, op.one_cycle, op.wsd, op.step_decay])
@pytest.mark.parametrize('n', [1, 2, 3, 4, 7, 10, 101])
def test_schedules_of_any_length(f, n):
    "Above 0 and at most 1 at every step, so that no step is wasted"
    fs = [f(i, n) for i in range(n)]
    assert all(0 < x <= 1+1e-12 for x in fs) and (n < 4 or max(fs) > .9 or f is op.one_cycle)

def test_schedules_refuse_what_is_no_share():
    for f in (P(op.warm_up, warm=2), P(op.cosine, warm=-.1), P(op.one_cycle, warm=1.5), P(op.wsd, warm=10)):
        with pytest.raises(ValueError, match='warm='): f(0, 10)
    with pytest.raises(ValueError, match='decay=-1'): op.wsd(0, 10, decay=-1)
    with pytest.raises(ValueError, match='parts=0'): op.step_decay(0, 10, parts=0)

# The callback -----------------------------------------------------------------------------------------------------------------------

class Used(le.Callback):
    "Notes the rates at the moment of each step of the optimiser"
    state_dict, order = None, 99
    def before_fit(self): self.rates = []
    def after_backward(self): self.rates.append([g['lr'] for g in self.learn.opt.param_groups])

def test_recorded_rates_are_those_used():
    used = Used()
    l = learner([*std_cbs(), op.Schedule(op.one_cycle, lr=.3), used])
    l.fit(3)
    n = 3*len(l.dls[0])
    assert l.recorder.lrs == [r[0] for r in used.rates] == [.3*op.one_cycle(i, n) for i in range(n)]
    assert l.lr == .1  # the learner's own is back
    l.fit(1, lr=.2, cbs=[])
    assert max(l.recorder.lrs[n:]) <= .3 and l.lr == .2

def test_without_a_rate_it_is_the_learners():
    l = learner([*std_cbs(), op.Schedule(op.cosine)], lr=.5)
    for top in (.5, .7):
        done = len(l.recorder.lrs)
        l.fit(2, lr=top)
        assert l.recorder.lrs[done] == top and l.lr == top and l.recorder.lrs[-1] < top/4

def test_ratios_of_groups_stay():
    used = Used()
    l = learner([op.Schedule(op.one_cycle), used], opt_func=lambda ps, lr: op.AdamW([dict(params=ps[:1], lr=lr/10), dict(params=ps[1:])], lr), lr=.01)
    l.fit(4)
    for a, b in used.rates: assert a == pytest.approx(b/10, rel=1e-12)
    assert [g['lr'] for g in l.opt.param_groups] == pytest.approx([.001, .01], rel=1e-12)

def test_validation_moves_nothing():
    seen = []
    class See(le.Callback):
        def after_batch(self): seen.append((self.learn.training, self.learn.lr))
    l = learner([op.Schedule(op.wsd), See()])
    l.fit(2)
    n = 2*len(l.dls[0])
    assert [lr for t, lr in seen if t] == [.1*op.wsd(i, n) for i in range(n)]

@pytest.mark.parametrize('k', [2, 3, 5, 7])
def test_with_accumulation_steps_are_counted(k):
    "Five batches an epoch, the last group may be short; each step's rate is the schedule's"
    class Steps(le.Callback):
        rates = None
        def before_fit(self): self.rates = []
        def after_step(self): self.rates.append(self.learn.lr)
    steps = Steps()
    l = learner([op.Schedule(op.cosine), ca.GradAccum(k), steps])
    l.fit(3)
    n = 3*math.ceil(len(l.dls[0])/k)
    assert len(steps.rates) == n and steps.rates == [.1*op.cosine(i, n) for i in range(n)]

def test_a_trial_is_not_steered():
    l = learner([*std_cbs(), op.Schedule(op.one_cycle)])
    f = l.lr_find(n=15)
    assert f.lrs == pytest.approx([1e-5*(1e6)**(i/14) for i in range(len(f.lrs))]) and l.lr == .1
    g = learner(std_cbs()).lr_find(n=15)
    assert f.losses == g.losses and f.suggestion == g.suggestion

def test_two_are_refused_and_so_is_what_has_no_length():
    with pytest.raises(ValueError, match='a Schedule already'): learner([op.Schedule(op.cosine), op.Schedule(op.wsd)])
    with pytest.raises(ValueError, match='a Schedule already'): learner([op.Schedule(op.cosine)]).fit(1, cbs=[op.Schedule(op.wsd)])
    l = learner([op.Schedule(op.cosine)], dls=(NoLen(loaders()[0]), None))
    before = weights(l.model).clone()
    with pytest.raises(ValueError, match='no length'): l.fit(1)
    assert torch.equal(weights(l.model), before) and l.lr == .1
    with pytest.raises(TypeError, match='no function'): op.Schedule(.1)
    for lr in (-1., math.inf, math.nan):
        with pytest.raises(ValueError, match='lr='): op.Schedule(op.cosine, lr)

def test_a_loader_longer_than_it_says_stays_at_the_last_rate():
    class Long(NoLen):
        def __len__(self): return 3
    l = learner([le.Recorder(), op.Schedule(op.cosine)], dls=(Long(loaders()[0]), None))
    l.fit(1)
    assert l.recorder.lrs == [.1*op.cosine(min(i, 2), 3) for i in range(5)]

def test_a_fit_that_breaks_off_gives_the_rate_back():
    l = learner([*std_cbs(), op.Schedule(op.one_cycle)])
    with pytest.raises(ZeroDivisionError): l.fit(2, cbs=[Log(before_batch=(lambda l: l.training and l.iter == 2, ZeroDivisionError))])
    assert l.lr == .1
    l.fit(0)
    assert l.lr == .1

def scheduled(path=None, *cbs, f=P(op.cosine, warm=.2), k=1, epochs=3, lr=.1, opt=op.Adam, cb_lr=None, every=2):
    torch.manual_seed(1)
    def groups(ps, lr): return opt([dict(params=ps[:1], lr=lr/3), dict(params=ps[1:])], lr)
    l = learner([*std_cbs(), op.Schedule(f, cb_lr), *([ca.GradAccum(k)] if k > 1 else [])], opt_func=groups, lr=lr)
    l.fit(epochs, cbs=[*([ck.Checkpoint(path, every)] if path else []), *cbs])
    return l

@pytest.mark.parametrize('opt', [op.Momentum, op.RMSProp, op.Adam, op.AdamW, torch.optim.Adam])
@pytest.mark.parametrize('at', [(0, 0), (0, 3), (1, 0), (1, 1), (2, 4)], ids=str)
@pytest.mark.parametrize('k', [1, 2])
@pytest.mark.filterwarnings('error')
def test_a_resumed_run_has_the_rates_of_an_uninterrupted_one(tmp_path, opt, at, k):
    "To the last bit, and the same weights; whatever rate the second run was made with"
    with pytest.raises(ZeroDivisionError): scheduled(tmp_path/'a', die_at(*at), k=k, opt=opt)
    b, a = scheduled(tmp_path/'a', k=k, opt=opt, lr=.7), scheduled(k=k, opt=opt)
    assert a.recorder.lrs == b.recorder.lrs and a.recorder.losses == b.recorder.losses and torch.equal(weights(a.model), weights(b.model))
    assert [g['lr'] for g in a.opt.param_groups] == [g['lr'] for g in b.opt.param_groups] and a.lr == .1

def test_a_longer_run_stretches_the_schedule(tmp_path):
    scheduled(tmp_path/'a', epochs=1)
    l = scheduled(tmp_path/'a', epochs=2, cb_lr=.5)
    n = len(l.dls[0])
    assert l.recorder.lrs == pytest.approx([.1*P(op.cosine, warm=.2)(i, n) for i in range(n)]+[.1*P(op.cosine, warm=.2)(i, 2*n) for i in range(n, 2*n)])
    assert scheduled(tmp_path/'a', epochs=2, lr=.9).lr == .1  # there is nothing to do, at the file's rate

def test_a_resumed_fit_that_breaks_off_at_its_start_gives_the_rate_back(tmp_path):
    "The file has a rate from the middle of the schedule; whatever ends the second run, the learner has its own rate afterwards"
    for event in ('before_fit', 'before_epoch'):
        path = tmp_path/event
        with pytest.raises(ZeroDivisionError): scheduled(path, die_at(1, 3))
        torch.manual_seed(1)
        def groups(ps, lr): return op.Adam([dict(params=ps[:1], lr=lr/3), dict(params=ps[1:])], lr)
        l = learner([*std_cbs(), op.Schedule(P(op.cosine, warm=.2))], opt_func=groups)
        def fail(): raise ZeroDivisionError
        cb = type('Fails', (le.Callback,), {event: lambda self: fail(), 'order': 90, 'state_dict': None})()
        with pytest.raises(ZeroDivisionError): l.fit(3, cbs=[ck.Checkpoint(path, 2), cb])
        assert l.lr == .1

def test_one_schedule_in_two_fits_at_once_is_refused():
    s, other = op.Schedule(op.cosine), learner(lr=5.)
    class Nested(le.Callback):
        def after_epoch(self): other.fit(1, cbs=[s])
    l = learner([s, Nested()])
    with pytest.raises(ValueError, match='in a fit already'): l.fit(2)
    assert l.lr == .1 and other.lr == 5.
    l.cbs = [s]
    l.fit(1)  # and it can be used again
    assert l.lr == .1

@pytest.mark.parametrize('n, warm', [(1, 1.), (1, 0.), (1, .3), (2, 1.), (5, 1.)])
def test_the_shortest_schedules(n, warm):
    for f in (op.one_cycle, op.cosine, op.warm_up): assert all(0 <= f(i, n, warm=warm) <= 1 for i in range(n))
    assert warm < 1 or op.one_cycle(n-1, n, warm=1.) == 1.

@pytest.mark.parametrize('ours, theirs', [(op.Adam, torch.optim.Adam), (op.AdamW, torch.optim.AdamW), (op.RMSProp, torch.optim.RMSprop)])
@pytest.mark.parametrize('dtype, size', [(torch.float16, 300.), (torch.float32, 1e20)], ids=str)
def test_large_gradients_are_pytorchs(ours, theirs, dtype, size):
    "Their squares would be infinite, and are scaled down before they are"
    p, q = (nn.Parameter(torch.ones(3, dtype=dtype)) for _ in range(2))
    a, b = ours([p], lr=.01), theirs([q], lr=.01)
    for _ in range(3):
        for o, t in ((a, p), (b, q)):
            t.grad = torch.full_like(t, size)
            o.step()
    assert torch.isfinite(p).all() and torch.allclose(p, q, rtol=2e-3)

def test_a_constant_gradient_has_no_variance():
    "What rounding leaves of it may lie below 0, whose root is no number"
    p = nn.Parameter(torch.ones(1))
    o = op.RMSProp([p], 1e-3, alpha=.5, centered=True)
    for _ in range(60):
        p.grad = torch.full_like(p, .3)
        o.step()
    assert torch.isfinite(p).all()

def test_orthogonalize_of_large_half_precision():
    m = torch.full((300, 300), 300.)
    assert torch.allclose(op.orthogonalize(m.half()).float(), op.orthogonalize(m), atol=1e-4)

def test_together_takes_all_states_or_none():
    ps = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    t = op.Together(op.Momentum(ps[:1], .1), op.Adam(ps[1:], .01))
    for p in ps: p.grad = torch.ones(2)
    t.step()
    good = copy.deepcopy(t.state_dict())
    bad = copy.deepcopy(good)
    bad['opts'][0]['param_groups'][0]['lr'] = 9.
    bad['opts'][1]['param_groups'][0]['amsgrad'] = True
    with pytest.raises(ValueError, match='amsgrad'): t.load_state_dict(bad)
    assert [g['lr'] for g in t.param_groups] == [.1, .01] and str(t.state_dict()) == str(good)

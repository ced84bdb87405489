"What a step costs: the formulas against what is counted, simulated and worked out by hand, and the noise of gradients against known ones"
import itertools, math, random
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import nn
from draws import F64, gen, randn, seeds, some
from notes import convolutions as cv, modules as mo, optimizers as op, parallel as pa, scaling as sc, training as tr

LINK = dict(latency=2e-5, bandwidth=3e8)
counts, sizes, spans = st.integers(1, 300), st.floats(0, 1e9), st.floats(0, 10)

# Messages and all-reduces ---------------------------------------------------------------------------------------------------------------

def test_a_message_is_a_line():
    assert sc.message_time(0, **LINK) == 2e-5 and math.isclose(sc.message_time(3e8, **LINK), 1.00002)
    assert sc.message_time(10, 0, 5) == 2

def work(group, f, n):
    "Steps and bytes of one all-reduce, which must be right"
    x = torch.arange(n, dtype=torch.float32) + group.rank
    f(x, group)
    assert x.equal(group.size*torch.arange(n, dtype=torch.float32) + sum(range(group.size)))
    return group.steps, group.sent

@pytest.mark.parametrize('p', [1, 2, 3, 4, 5, 7, 8])
def test_steps_and_bytes_are_those_that_the_group_counts(p):
    n = 12*p
    for f, time in ((pa.all_reduce_direct, sc.direct_time), (pa.all_reduce_ring, sc.ring_time)):
        for steps, sent in pa.run_threads(work, p, f, n):
            assert steps == time(0, p, 1, 1)
            assert math.isclose(sent, time(4*n, p, 0, 1))
    got = pa.run_threads(work, p, pa.all_reduce_tree, n)
    assert max(steps for steps, _ in got) == got[0][0] == sc.tree_time(0, p, 1, 1)  # everybody waits for the root
    assert 2*got[0][1] == sc.tree_time(4*n, p, 0, 1)  # which sends one half of that, and gets the other

@given(n=sizes, p=counts)
def test_all_reduces_by_hand(n, p):
    a, b = LINK.values()
    assert math.isclose(sc.direct_time(n, p, a, b), sum(a+n/b for _ in range(p-1)), abs_tol=1e-12)
    assert math.isclose(sc.ring_time(n, p, a, b), 2*sum(a+n/p/b for _ in range(p-1)), abs_tol=1e-12)
    assert math.isclose(sc.tree_time(n, p, a, b), 2*math.ceil(math.log2(p))*(a+n/b), abs_tol=1e-12)

def test_one_process_sends_nothing():
    for f in (sc.direct_time, sc.tree_time, sc.ring_time): assert f(1e9, 1, **LINK) == 0

def test_rounds_of_a_tree():
    "Where a logarithm of floats may round wrongly"
    for k in range(2, 60): assert [sc.tree_time(0, 2**k+d, 1, 1)/2 for d in (-1, 0, 1)] == [k, k, k+1]

@given(p=st.integers(4, 5000))
def test_ring_and_tree_cross_where_it_says(p):
    n = sc.crossing(p, **LINK)
    ring, tree = (lambda n, f=f: f(n, p, **LINK) for f in (sc.ring_time, sc.tree_time))
    assert n > 0 and math.isclose(ring(n), tree(n), rel_tol=1e-9) and ring(n/2) > tree(n/2) and ring(2*n) < tree(2*n)

def test_the_ring_of_a_few_is_never_slower():
    for p in (1, 2, 3):
        assert sc.crossing(p, **LINK) == 0
        for n in (0, 1, 1e6): assert sc.ring_time(n, p, **LINK) <= sc.tree_time(n, p, **LINK)*(1+1e-12)

@pytest.mark.parametrize('f', [sc.direct_time, sc.tree_time, sc.ring_time])
@pytest.mark.parametrize('args, match', [((-1, 2, 0, 1), 'nbytes=-1'), ((1, 0, 0, 1), 'p=0: pass a whole'), ((1, 2.5, 0, 1), 'p=2.5'), ((1, True, 0, 1), 'p=True'), ((1, 2, -1, 1), 'latency=-1'),
                                         ((1, 2, 0, 0), 'bandwidth=0: pass a number above 0'), ((math.nan, 2, 0, 1), 'nbytes=nan'), ((1, 2, 0, math.inf), 'bandwidth=inf'), ((1, '2', 0, 1), "p='2'")])
def test_what_no_link_is_is_refused(f, args, match):
    with pytest.raises(ValueError, match=match): f(*args)

def test_messages_and_crossings_are_refused():
    with pytest.raises(ValueError, match='bandwidth'): sc.message_time(1, 0, -1)
    with pytest.raises(ValueError, match='latency'): sc.crossing(4, math.inf, 1)
    with pytest.raises(ValueError, match='p=0'): sc.crossing(0, 1, 1)

# Measuring ------------------------------------------------------------------------------------------------------------------------------

@some
@given(a=st.floats(1e-6, 10), b=st.floats(1e-9, 10), seed=seeds)
def test_a_line_is_found_again(a, b, seed):
    x = [10**random.Random(seed).uniform(0, 7)] + [1, 100, 10**7]
    got = sc.fit_line(x, [a+b*v for v in x])
    assert all(math.isclose(g, w, rel_tol=1e-5, abs_tol=1e-9*max(a, b*1e7)) for g, w in zip(got, (a, b)))

def test_the_errors_that_count_are_relative():
    "By hand: the normal equations of (a + b·x)/y ≈ 1"
    x, y = torch.tensor([1., 10, 1000, 1e5]).double(), torch.tensor([2., 3, 70, 9000]).double()
    rows = torch.stack([1/y, x/y], 1)
    want = torch.linalg.solve(rows.T@rows, rows.T@torch.ones(4).double())
    assert torch.allclose(torch.tensor(sc.fit_line(x, y)).double(), want, rtol=1e-8)
    a, b = sc.fit_line([4**k for k in range(12)], [1e-5+4**k/1e9*(1.3 if k == 11 else 1) for k in range(12)])
    assert abs(a/1e-5-1) < .05  # the largest, measured too high, leaves the latency alone

@pytest.mark.parametrize('x, y, match', [([1], [1], 'two x'), ([2, 2], [1, 3], 'two x'), ([1, 2], [1], 'two x'), ([[1, 2]], [[1, 2]], 'two x'), ([1, 2], [0, 1], 'above 0'),
                                         ([1, 2], [-1, 1], 'above 0'), ([1, math.inf], [1, 1], 'finite'), ([1, 2], [math.nan, 1], 'finite')])
def test_what_no_line_can_fit_is_refused(x, y, match):
    with pytest.raises(ValueError, match=match): sc.fit_line(x, y)

def test_timings_have_a_figure_for_each_size():
    sizes = [0, 4, 4096]
    there, back = pa.run_threads(sc.ping_pong, 2, sizes, 3)
    assert len(there) == len(back) == 3 and min(*there, *back) > 0
    for got in pa.run_threads(sc.all_reduce_times, 3, sizes[1:], 3):
        assert [*got] == ['direct', 'tree', 'ring', 'unsummed'] and all(len(v) == 2 and min(v) > 0 for v in got.values())

def test_the_warm_up_does_not_count():
    "And all sizes have their turn before one has its next"
    values, seen = iter([0, 5, 4, 6, 7, 0, 9, 9, 9, 8, 0, 5, 3, 6, 7, 0, 9, 9, 9, 9]), []
    def f(x):
        seen.append(x)
        return next(values)
    assert sc._leasts(pa.Group(0, {}), f, 'ab', 2, 60) == [3, 8] and seen == [*'aaaaabbbbb'*2]

def late(group):
    "Rounds of a rank, of which the last alone is late"
    seen = []
    sc._leasts(group, lambda x: seen.append(x) or 1, [0], 9, -1 if group.rank == group.size-1 else 60)
    return len(seen)//5

def test_they_end_together(): assert pa.run_threads(late, 3) == [1, 1, 1]

@pytest.mark.parametrize('p', [1, 2, 3, 5])
def test_a_ring_that_adds_nothing_sends_what_a_ring_sends(p):
    sent = lambda group, f: (f(torch.ones(7*p), group), (group.steps, group.sent))[1]
    assert pa.run_threads(sent, p, sc._ring_unsummed) == pa.run_threads(sent, p, pa.all_reduce_ring)

# A step ---------------------------------------------------------------------------------------------------------------------------------

@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=12))
def test_a_link_sends_one_bucket_at_a_time(pairs):
    ready, seconds = [*itertools.accumulate(a for a, _ in pairs)], [b for _, b in pairs]
    got = sc.send_buckets(ready, seconds)
    assert all(b >= at and math.isclose(e, b+s) for (b, e), at, s in zip(got, ready, seconds, strict=True))
    assert all(a[1] <= b[0] for a, b in zip(got, got[1:]))
    for (b, _), at, before in zip(got, ready, [0, *(e for _, e in got)]): assert b == max(at, before)  # and never idle without need
    assert math.isclose(got[-1][1], max(r+sum(seconds[j:]) for j, r in enumerate(ready)), abs_tol=1e-9)

def test_buckets_wait_their_turn_though_complete():
    assert sc.send_buckets([3, 1], [1, 1]) == [(3, 4), (4, 5)]  # all ranks send in one order

@pytest.mark.parametrize('ready, seconds', [([1], []), ([-1], [1]), ([1], [-1]), ([math.nan], [1]), ([1, 2], [1, math.inf])])
def test_impossible_buckets_are_refused(ready, seconds):
    with pytest.raises(ValueError): sc.send_buckets(ready, seconds)

@given(f=spans, t=spans, c=spans, k=st.integers(1, 30))
def test_a_step_has_its_closed_form(f, t, c, k):
    send = lambda n: c*n/7  # of 7 bytes in all
    assert math.isclose(sc.step_time(f, t, 7*k, send, k), f+max(t+c, t/k+k*c), abs_tol=1e-9)
    assert math.isclose(sc.step_time(f, t, 7*k, send, k, overlap=False), f+t+k*c, abs_tol=1e-9)
    assert sc.step_time(f, t, 7*k, send, k) <= sc.step_time(f, t, 7*k, send, k, False)+1e-9
    assert math.isclose(sc.step_time(f, t, 7, send), f+t+c, abs_tol=1e-9)  # one bucket hides nothing

def test_steps_are_refused():
    for kw, match in ((dict(buckets=0), 'buckets=0'), (dict(forward=-1), 'forward'), (dict(backward=math.inf), 'backward'), (dict(nbytes=-1), 'nbytes')):
        with pytest.raises(ValueError, match=match): sc.step_time(**{**dict(forward=1, backward=1, nbytes=1, send=float), **kw})

def test_amdahl():
    assert sc.amdahl(1, .3) == 1 and math.isclose(sc.amdahl(8, 0), 8) and sc.amdahl(8, 1) == 1 and math.isclose(sc.amdahl(4, .2), 1/(.2+.8/4))
    assert math.isclose(sc.amdahl(10**9, .05), 20, rel_tol=1e-6)
    for p, s in ((0, .5), (2, -.1), (2, 1.1), (2, math.nan)):
        with pytest.raises(ValueError): sc.amdahl(p, s)

# Memory ---------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('stage, want', [(0, (4, 4, 8)), (1, (4, 4, 2)), (2, (4, 1, 2)), (3, (1, 1, 2))])
def test_each_stage_shards_one_thing_more(stage, want):
    assert sc.state_bytes(1000, 4, stage) == tuple(1000*w for w in want)
    assert sc.state_bytes(1000, 1, stage) == (4000, 4000, 8000)

def test_the_papers_example():
    got = [sum(sc.state_bytes(7_500_000_000, 64, s, 2, 2, 12))/1e9 for s in range(4)]
    assert [round(g, 1) for g in got] == [120, 31.4, 16.6, 1.9]

@pytest.mark.parametrize('opt_func, each', [(tr.SGD, 0), (op.Momentum, 4), (op.RMSProp, 4), (op.Adam, 8), (op.AdamW, 8)])
def test_our_optimisers_hold_what_it_says(opt_func, each):
    model = mo.Sequential(mo.Linear(7, 5), mo.ReLU(), mo.Linear(5, 3))
    loss_func, opt = tr.CrossEntropy(), opt_func(model.parameters(), lr=.1)
    tr.backprop(loss_func(model(randn(6, 7)), torch.arange(6) % 3), model, loss_func)
    opt.step()
    ps = [*model.parameters()]
    held = [sum(t.nbytes for t in ts) for ts in (ps, [p.grad for p in ps], [t for s in opt.state.values() for t in s.values() if torch.is_tensor(t)])]
    assert tuple(held) == sc.state_bytes(sum(p.numel() for p in ps), optimizer=each)

def sharded(group, path):
    "Bytes of weights, gradients and Adam's state that `fully_shard` leaves this rank of a layer of 64·64 weights, after a step"
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    dist.init_process_group('gloo', init_method=f'file:///{path}', rank=group.rank, world_size=group.size)
    try:
        model = nn.Linear(64, 64, bias=False)
        fully_shard(model, mesh=init_device_mesh('cpu', (group.size,)))
        opt = torch.optim.Adam(model.parameters(), foreach=False)
        model(torch.ones(2, 64)).sum().backward()
        opt.step()
        p, = model.parameters()
        local = lambda t: t.to_local().numel()*t.element_size()
        return local(p), local(p.grad), sum(local(t) for k, t in opt.state[p].items() if k != 'step')
    finally: dist.destroy_process_group()

def test_fully_shard_holds_what_stage_3_says(tmp_path):
    fsdp = pytest.importorskip('torch.distributed.fsdp')
    if not hasattr(fsdp, 'fully_shard') or not torch.distributed.is_gloo_available(): pytest.skip('this PyTorch has no fully_shard, or no gloo')
    for got in pa.run_processes(sharded, 2, (tmp_path/'meet').as_posix().lstrip('/')): assert got == sc.state_bytes(64*64, 2, 3)

@pytest.mark.parametrize('n, kw, match', [(0, {}, 'n=0'), (1, dict(p=0), 'p=0'), (1, dict(stage=4), 'stage=4: pass 0, 1, 2 or 3'), (1, dict(grad=-1), 'grad=-1'), (1, dict(optimizer=math.inf), 'optimizer=inf')])
def test_impossible_memories_are_refused(n, kw, match):
    with pytest.raises(ValueError, match=match): sc.state_bytes(n, **kw)

# Noise ----------------------------------------------------------------------------------------------------------------------------------

def test_noise_and_signal_solve_the_two_equations():
    for noise, signal, b, n in ((5., 2., 1, 8), (0., 3., 4, 5), (7., 0., 2, 1000)):
        got = sc.noise_and_signal(signal+noise/b, signal+noise/n, b, n)
        assert all(math.isclose(g, w, abs_tol=1e-9) for g, w in zip(got, (noise, signal)))

def test_both_are_unbiased():
    "4,000 times eight shares of three items each, of a known gradient and a known noise"
    G, spread = randn(20, dtype=F64), 3*torch.rand(20, generator=gen(1), dtype=F64)
    gs = G + spread*torch.randn(4000, 8, 20, generator=gen(2), dtype=F64)/3**.5
    got = sc.noise_and_signal(gs.pow(2).sum(-1).mean(1), gs.mean(1).pow(2).sum(-1), 3, 24)
    for e, want in zip(got, (spread.pow(2).sum(), G.pow(2).sum())): assert (e.mean()-want).abs() < 4*e.std()/4000**.5 < .1*want

@pytest.mark.parametrize('small, big', [(8, 8), (9, 8), (0, 8), (1.5, 8)])
def test_sizes_that_are_none_are_refused(small, big):
    with pytest.raises(ValueError): sc.noise_and_signal(2., 1., small, big)

def test_the_square_of_a_gradient():
    ps = [nn.Parameter(torch.zeros(2, dtype=torch.float16)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
    ps[0].grad, ps[1].grad = torch.tensor([300., 400], dtype=torch.float16), torch.tensor([1.])
    assert sc.grad_square(iter(ps)) == 250_001 and sc.grad_square([]) == 0

def nets():
    "The same network, ours and PyTorch's"
    ours = mo.Sequential(cv.Conv2d(1, 2, 3), mo.ReLU(), cv.Flatten(), mo.Linear(18, 3)).to(F64)
    theirs = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).double()
    theirs.load_state_dict(ours.state_dict())
    return (ours, tr.CrossEntropy()), (theirs, F.cross_entropy)

def test_noise_of_items_is_their_covariance():
    "Trace of the sample covariance of all gradients; and the squared mean less what noise adds to it"
    torch.manual_seed(0)
    x, y = randn(7, 1, 5, 5, dtype=F64), torch.arange(7) % 3
    for model, loss_func in nets():
        gs = []
        for i in range(7):
            for p in model.parameters(): p.grad = None
            tr.backprop(loss_func(model(x[i:i+1]), y[i:i+1]), model, loss_func)
            gs.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        trace = torch.stack(gs).T.cov().trace().item()
        got = sc.example_noise(model, loss_func, x, y)
        assert math.isclose(got[0], trace, rel_tol=1e-9) and math.isclose(got[1], torch.stack(gs).mean(0).pow(2).sum().item()-trace/7, rel_tol=1e-9)
        assert all(p.grad is None for p in model.parameters())

def test_a_parameter_without_a_gradient_does_not_count():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)
        def forward(self, x): return self.used(x)
    torch.manual_seed(0)
    model, x, y = Half(), randn(4, 2), torch.tensor([0, 1, 1, 0])
    assert sc.example_noise(model, F.cross_entropy, x, y) == sc.example_noise(model.used, F.cross_entropy, x, y)

def test_one_item_has_no_noise_to_see():
    with pytest.raises(ValueError, match='1 items are not fewer than 1'): sc.example_noise(nn.Linear(2, 2), F.cross_entropy, torch.ones(1, 2), torch.tensor([0]))

# The best batch -------------------------------------------------------------------------------------------------------------------------

above = st.floats(1e-4, 1e4)
@given(p=counts, noise=above, seconds=above, fixed=above)
def test_no_batch_is_faster_than_the_best(p, noise, seconds, fixed):
    b = sc.best_batch(p, noise, seconds, fixed)
    t = sc.time_to_loss(b, p, noise, seconds, fixed, 3)
    assert math.isclose(t, 3*(math.sqrt(noise*seconds/p)+math.sqrt(fixed))**2, rel_tol=1e-9)
    assert all(sc.time_to_loss(b*k, p, noise, seconds, fixed, 3) > t for k in (.1, .7, 1.4, 10))

def test_time_to_a_loss_by_hand():
    assert sc.time_to_loss(20, 4, 60, .1, .5, 100) == 100*(1+3)*(.1*20/4+.5)
    assert sc.time_to_loss(20, 4, 0, .1, .5) == 1  # without noise, one step of a kind

@pytest.mark.parametrize('f, args', [(sc.time_to_loss, (0, 1, 1, 1, 1)), (sc.time_to_loss, (1, 0, 1, 1, 1)), (sc.time_to_loss, (1, 1, -1, 1, 1)), (sc.time_to_loss, (1, 1, 1, math.nan, 1)), (sc.time_to_loss, (1, 1, 1, 1, -1)),
                                     (sc.best_batch, (0, 1, 1, 1)), (sc.best_batch, (1, -1, 1, 1)), (sc.best_batch, (1, 1, 0, 1)), (sc.best_batch, (1, 1, 1, math.inf))])
def test_impossible_trainings_are_refused(f, args):
    with pytest.raises(ValueError): f(*args)

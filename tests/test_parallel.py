"Processes that send each other tensors, three ways to sum, and gradients in buckets"
import math, os, pickle, subprocess, sys, threading, time, types
from pathlib import Path
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
import parallel_workers as pw
from draws import F64, layouts, randn, seeds, some
from notes import convolutions as cv, exports as ex, modules as mo, parallel as pa, training as tr
from parallel_workers import DTYPES, SHAPES, WAYS

EACH_WAY = pytest.mark.parametrize('all_reduce', WAYS, ids=lambda f: f.__name__.split('_')[-1])
LIMIT = 15  # seconds for what takes none, on a busy machine

def threads(f, p, *args, timeout=120): return pa.run_threads(f, p, *args, timeout=timeout)

# All-reduce -----------------------------------------------------------------------------------------------------------

@EACH_WAY
@some
@given(p=st.integers(1, 6), shape=st.lists(st.integers(0, 5), max_size=3), dtype=st.sampled_from([F64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.complex64]))
def test_everyone_has_the_sum_and_the_same_bits(all_reduce, p, shape, dtype):
    xs = [pw.number(shape, dtype, r) for r in range(p)]
    got = [x for x, *_ in threads(pw.sums, p, all_reduce, shape, dtype, timeout=LIMIT)]
    for x in got: assert x.dtype == dtype and x.shape == torch.Size(shape) and x.equal(got[0])
    expected = torch.stack(xs).to(torch.complex128 if dtype.is_complex else F64 if dtype.is_floating_point else torch.int64).sum(0)
    if not dtype.is_floating_point and not dtype.is_complex: assert got[0].equal(expected.to(dtype))  # uint8 wraps in both
    else: torch.testing.assert_close(got[0].to(expected.dtype), expected, rtol=p*(torch.finfo(dtype).eps if dtype != F64 else 1e-13), atol=1e-9)

@EACH_WAY
@some
@given(p=st.integers(1, 5), layout=layouts, seed=seeds)
def test_any_layout_is_summed_in_place(all_reduce, p, layout, seed):
    if layout == 'expanded': layout = 'transposed'  # its elements share memory: PyTorch refuses to write there
    xs = [randn(4, 3, seed=seed+r, layout=layout, dtype=F64) for r in range(p)]
    total, strides = sum(x.clone() for x in xs), [x.stride() for x in xs]
    def work(group):
        x = xs[group.rank]
        assert all_reduce(x, group) is x
    threads(work, p)
    for x, s in zip(xs, strides):
        assert x.stride() == s and x.equal(xs[0])
        torch.testing.assert_close(x, total, rtol=1e-13, atol=1e-13)

@EACH_WAY
def test_a_parameter_is_summed_without_autograd(all_reduce):
    ps = [nn.Parameter(torch.full((3,), r+1.)) for r in range(3)]
    threads(lambda group: all_reduce(ps[group.rank], group), 3)
    for p in ps: assert p.tolist() == [6, 6, 6] and p.is_leaf

@pytest.mark.parametrize('p', range(1, 10))
def test_bytes_and_steps_are_those_of_the_formulas(p):
    n, up = 8*2520, math.ceil(math.log2(p))  # bytes; 2520 numbers make equal chunks for each p
    direct, tree, ring = ([s[1:] for s in threads(pw.sums, p, f, (2520,), F64, timeout=LIMIT)] for f in WAYS)
    assert {*direct} == {((p-1)*n, p-1)}
    assert {*ring} == {(2*(p-1)*n//p, 2*(p-1))}
    assert tree[0] == (up*n, 2*up) == max(tree) and sum(s for s, _ in tree) == 2*(p-1)*n  # up once and down once
    if p > 1: assert tree[-1 if p % 2 == 0 else 1] == (n, 2)

@pytest.mark.parametrize('n', [0, 1, 2, 3, 5, 11, 100])
@pytest.mark.parametrize('p', [3, 4, 7])
def test_uneven_chunks_lose_nothing_and_add_nothing(p, n):
    got = threads(pw.sums, p, pa.all_reduce_ring, (n,), F64)
    sizes = [len(c) for c in torch.zeros(n).tensor_split(p)]
    assert [s for _, s, _ in got] == [8*(2*n-sizes[(r+1) % p]-sizes[(r+2) % p]) for r in range(p)] and {k for *_, k in got} == {2*(p-1)}

def test_in_which_order_they_add():
    "By rank; in pairs; chunk c from rank c on: to the last bit"
    p = 5
    xs = torch.stack([pw.number((10,), F64, r) for r in range(p)])
    direct, tree, ring = (threads(pw.sums, p, f, (10,), F64)[0][0] for f in WAYS)
    by_rank = sum(xs[1:], xs[0])
    assert direct.equal(by_rank) and tree.equal(((xs[0]+xs[1])+(xs[2]+xs[3]))+xs[4])
    assert ring.equal(torch.cat([sum((xs[(c+i) % p, 2*c:2*c+2] for i in range(1, p)), xs[c, 2*c:2*c+2]) for c in range(p)]))

def test_large_next_to_small_is_the_same_on_all_ranks():
    mine = torch.tensor([[1e16], [1.], [-1e16]], dtype=F64)
    for f in WAYS:
        got = threads(lambda group: f(mine[group.rank].clone(), group).item(), 3)
        assert len({*got}) == 1, f

@EACH_WAY
@pytest.mark.parametrize('x, error, match', [([1.], TypeError, 'no tensor'), (torch.ones(2, dtype=torch.bool), ValueError, r'x\.int\(\)'), (torch.ones(2, device='meta'), ValueError, r'x\.cpu\(\)')], ids=['list', 'bool', 'elsewhere'])
def test_what_can_not_be_summed(all_reduce, x, error, match):
    for p in (1, 2):
        with pytest.raises(error, match=match): threads(lambda group: all_reduce(x, group), p)

@EACH_WAY
def test_sizes_that_differ_are_an_error_and_no_mixture(all_reduce):
    with pytest.raises(ValueError, match='rank . sent'): threads(lambda group: all_reduce(torch.zeros(4+4*group.rank), group), 2)

# Messages ---------------------------------------------------------------------------------------------------------------

def test_messages_keep_their_order_and_are_counted():
    def work(group):
        xs = [torch.arange(3.)+k for k in range(5)]
        if group.rank == 0:
            for x in xs: group.send(x, 1)
        else:
            got = torch.zeros(3)
            for x in xs:
                group.recv(got, 0)
                assert got.equal(x)
        return group.rank, group.size, group.sent, group.steps
    assert threads(work, 2) == [(0, 2, 60, 5), (1, 2, 0, 5)]

def test_all_exchange_large_ones_at_once():
    n = 1_000_000  # more than a pipe takes
    def work(group):
        x, y, p = torch.full((n,), float(group.rank)), torch.zeros(n), group.size
        group.exchange(x, (group.rank+1) % p, y, (group.rank-1) % p)
        return y.unique().tolist(), group.sent, group.steps
    assert threads(work, 3, timeout=LIMIT) == [([2.], 4*n, 1), ([0.], 4*n, 1), ([1.], 4*n, 1)]

def test_small_ones_may_all_be_sent_first(): assert threads(pw.send_first, 2, 1) == [None, None]

@pytest.mark.parametrize('n', [1, 3])
def test_a_message_of_another_size(n):
    def work(group):
        if group.rank: group.send(torch.zeros(n), 0)
        else: group.recv(torch.zeros(2), 1)
    with pytest.raises(ValueError, match=f'rank 1 sent {4*n} bytes, and rank 0 wanted 8'): threads(work, 2)

def test_who_waits_has_a_limit():
    def work(group):
        if group.rank: time.sleep(1)
        else: group.recv(torch.zeros(2), 1)
    with pytest.raises(TimeoutError, match='rank 0 waited to hear from rank 1, up to 0.2 s'): threads(work, 2, timeout=.2)

def test_the_limit_counts_from_the_start():
    def work(group):
        time.sleep(.3)
        if group.rank == 0: group.recv(torch.zeros(1), 1)
        time.sleep(.3)
    with pytest.raises(TimeoutError): threads(work, 2, timeout=.2)

def test_who_has_ended_is_gone():
    def work(group):
        if group.rank == 0: group.recv(torch.zeros(1), 1)
    with pytest.raises(ConnectionError, match='rank 1 has ended'): threads(work, 2)

@pytest.mark.parametrize('to', [0, 2, -1])
def test_ranks_that_are_none(to):
    def work(group):
        if group.rank == 0: group.send(torch.zeros(1), to)
    with pytest.raises(ValueError, match=f'rank 0 of 2 has no link to {to}'): threads(work, 2)

def test_gaps_are_not_sent():
    with pytest.raises(ValueError, match='contiguous'): threads(lambda group: group.send(torch.zeros(4)[::2], 1-group.rank), 2)

def test_the_first_cause_is_raised():
    def work(group):
        if group.rank == 2: raise KeyError('here')
        group.recv(torch.zeros(1), 2)
    with pytest.raises(KeyError, match='here'): threads(work, 4)

@pytest.mark.parametrize('size', [0, -1, 1.5, 2., True, None, [2]])
@pytest.mark.parametrize('run', [pa.run_threads, pa.run_processes])
def test_sizes_that_are_none(run, size):
    with pytest.raises(ValueError, match='size='): run(pw.waits, size)

def test_a_thread_that_ends_itself_has_not_done_it():
    def work(group):
        if group.rank: sys.exit(3)
        return 1
    with pytest.raises(RuntimeError, match=r'rank 1: SystemExit\(3\)'): threads(work, 2)

# Processes --------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def alone(): return {kind: threads(pw.trained, 1, kind)[0] for kind in pw.TRAINING}

def same(run, alone):
    assert run[0] == pytest.approx(alone[0], rel=1e-12)
    for k, t in alone[1].items(): assert ex.rel_error(run[1][k], t) < 1e-12, k

@pytest.mark.parametrize('p', [2, 4])
def test_processes_do_what_threads_do_and_train_what_one_trains(p, alone):
    xs = torch.zeros(3)
    got = pa.run_processes(pw.everything, p, xs, timeout=400)
    assert xs.tolist() == [0, 0, 0] and all(g['xs'].tolist() == [1, 1, 1] for g in got)  # each had a copy
    assert len({os.getpid(), *(g['pid'] for g in got)}) == p+1 and {g['threads'] for g in got} == {1}
    assert [g['left'] for g in got] == [(r-1) % p for r in range(p)]
    expected = [threads(pw.sums, p, f, shape, dtype) for f in WAYS for shape in SHAPES for dtype in DTYPES]
    for i, ranks in enumerate(expected):
        for r, (x, *counts) in enumerate(ranks):
            y, *found = got[r]['sums'][i]
            assert y.equal(x) and y.dtype == x.dtype and found == counts
    for kind, one in alone.items():
        for g in got:
            same(g['trained'][kind], one)
            for k, t in got[0]['trained'][kind][1].items(): assert g['trained'][kind][1][k].equal(t)

ENDS = {  # f, what is said of it, the limit
    'killed': (pw.killed, r'rank 1 of 2: it ended with exit code -?\d+$', 60),  # and no hint at a script's guard
    'killed in background': (pw.killed_in_background, r'rank 1 of 2: it ended with exit code', 60),
    'raises': (pw.raises, r"rank 1 of 2: KeyError: 'no such digit'\n\n.*in raises\n", 60),
    'exits': (pw.exits, r'rank 0 of 2: it ended with exit code 7', 60),
    'no result': (pw.returns_what_cannot_be_sent, r"rank 1 of 2: .*[Pp]ickle", 60),
    'deadlock': (pw.send_first, r'rank [01] of 2: TimeoutError: rank [01] waited to send to rank [01], up to 1 s', 1),
    'sleeps': (pw.sleeps, r'rank 0 of 2 has not finished within 0.5 s', .5),
}

@pytest.mark.parametrize('what', ENDS)
def test_one_that_fails_ends_all_with_rank_and_reason(what):
    f, said, timeout = ENDS[what]
    before = {*threading.enumerate()}
    with pytest.raises(RuntimeError, match='(?s)'+said): pa.run_processes(f, 2, timeout=timeout)
    assert not pa.mp.active_children() and {*threading.enumerate()} <= before

def test_what_no_process_can_run():
    with pytest.raises((pickle.PicklingError, AttributeError)): pa.run_processes(lambda group: 1, 2)
    assert not pa.mp.active_children()

def test_a_notebooks_function_is_refused(monkeypatch):
    def f(group): return 1
    f.__module__ = '__main__'
    monkeypatch.setitem(sys.modules, '__main__', types.ModuleType('__main__'))
    with pytest.raises(ValueError, match='f is defined in a notebook'): pa.run_processes(f, 2)

SCRIPT = '''
import sys
from pathlib import Path
from notes import parallel as pa
import parallel_workers as pw
{}pa.run_processes(pw.sleeps, 2, Path(sys.argv[1]), timeout=300)
'''

def started(path, guard):
    (path/'script.py').write_text(SCRIPT.format(guard))
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(pa.__file__).parent.parent), str(Path(__file__).parent)])}
    return subprocess.Popen([sys.executable, path/'script.py', path], env=env, stderr=subprocess.PIPE, text=True)

def alive(pid):
    "Does it run? One that nobody has waited for has ended, too"
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return not Path('/proc/self').exists()  # macOS has no /proc

@pytest.mark.skipif(sys.platform == 'win32', reason='os.kill(pid, 0) ends a process there')
def test_processes_end_with_who_started_them(tmp_path):
    with started(tmp_path, "if __name__ == '__main__': ") as p:
        def pids(): return [int(t) for r in range(2) if (f := tmp_path/str(r)).exists() and (t := f.read_text())]
        end = time.monotonic()+100
        while len(pids()) < 2 and time.monotonic() < end: time.sleep(.05)
        p.kill()
        p.wait()  # not for its output, which those that outlive it would hold open
        assert len(pids()) == 2
        end = time.monotonic()+15
        while any(map(alive, pids())) and time.monotonic() < end: time.sleep(.05)
        left = [pid for pid in pids() if alive(pid)]
        for pid in left: os.kill(pid, 9)
        assert not left

def test_a_script_without_its_guard_ends_at_once(tmp_path):
    with started(tmp_path, '') as p:
        try: assert "of 2: it ended with exit code 1 (a script calls this under `if __name__=='__main__':`)" in p.communicate(timeout=100)[1].split('RuntimeError')[-1]
        finally: p.kill()
    assert p.returncode == 1

# Buckets ------------------------------------------------------------------------------------------------------------------

class Link:
    "Sums that end when they are waited for; doubles what it gets"
    def __init__(self): self.log = []
    def __call__(self, flat):
        self.log.append(flat.numel())
        def wait():
            self.log.append('wait')
            flat.mul_(2)
        return types.SimpleNamespace(wait=wait)

def params(*shapes, dtype=torch.float32): return [nn.Parameter(torch.zeros(s, dtype=dtype)) for s in shapes]

@some
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12), size=st.integers(1, 200), kinds=st.integers(1, 3), seed=seeds)
def test_buckets_hold_each_once_last_ones_first(sizes, size, kinds, seed):
    dtypes = [torch.float32, F64, torch.float16][:kinds]
    ps = [nn.Parameter(torch.zeros(n, dtype=dtypes[(seed >> i) % kinds])) for i, n in enumerate(sizes)]
    at = {id(p): i for i, p in enumerate(ps)}
    buckets = [[at[id(p)] for p in b] for b in pa.Buckets(iter(ps), None, size).buckets]
    assert sorted(sum(buckets, [])) == [*range(len(ps))]
    for b in buckets: assert b == sorted(b, reverse=True) and len({ps[i].dtype for i in b}) == 1 and (len(b) == 1 or sum(ps[i].nbytes for i in b) <= size)
    assert [b[-1] for b in buckets] == sorted((b[-1] for b in buckets), reverse=True)  # as they get full
    for d in {p.dtype for p in ps}:  # none could have taken the next one too
        mine = [b for b in buckets if ps[b[0]].dtype == d]
        for a, b in zip(mine, mine[1:]): assert sum(ps[i].nbytes for i in a)+ps[b[0]].nbytes > size

@some
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), size=st.integers(1, 60), data=st.data())
def test_buckets_start_in_one_order_whatever_gets_ready_when(sizes, size, data):
    ps = params(*((n,) for n in sizes))
    link = Link()
    buckets = pa.Buckets(ps, link, size)
    whole = [sum(p.numel()+1 for p in b) for b in buckets.buckets]  # and whether there is a gradient
    for _ in range(2):  # and once more
        link.log.clear()
        for i, p in enumerate(ps): p.grad = torch.full_like(p, i+1.)
        told = set()
        for p in data.draw(st.permutations(ps)):
            buckets.ready(p)
            told.add(id(p))
            full = [all(id(q) in told for q in b) for b in buckets.buckets]
            assert link.log == whole[:(full+[False]).index(False)]
        buckets.finish()
        assert link.log == whole+['wait']*len(whole)
        for i, p in enumerate(ps): assert p.grad.equal(torch.full_like(p, 2*(i+1.)))

def test_a_gradient_that_is_missing():
    a, b, c = ps = params((2,), (3,), ())
    a.grad = torch.ones(2)
    c.grad = torch.tensor(3.)
    link = Link()
    buckets = pa.Buckets(ps, link, 12)
    buckets.ready(a)
    buckets.ready(c)
    assert link.log == [2]  # b holds up a
    buckets.finish()
    assert link.log == [2, 4, 3, 'wait', 'wait', 'wait']
    assert a.grad.tolist() == [2, 2] and b.grad is None and c.grad == 6

def test_ranks_whose_gradients_differ_in_being_there():
    def work(group):
        ps = params((2,), (3,))
        if group.rank == 0: ps[0].grad = torch.ones(2)
        if group.rank == 1: ps[1].grad = torch.ones(3)
        pa.Buckets(ps, pa.Background(group), 1).finish()
        return [p.grad.tolist() for p in ps]
    assert threads(work, 3) == [[[1, 1], [1, 1, 1]]]*3

@some
@given(data=st.data(), n=st.integers(1, 6), p=st.integers(1, 3), size=st.integers(1, 60), dtype=st.sampled_from([torch.float32, F64, torch.float16, torch.bfloat16, torch.complex64]))
def test_no_gradient_stays_none_where_no_rank_has_one(data, n, p, size, dtype):
    "Also with weights: a share of none counts for nothing, whatever its gradient is"
    has = data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=p, max_size=p))
    weights = [data.draw(st.sampled_from([0, 1/60000, .5, 1])) for _ in range(p)]
    def work(group):
        ps, w, background = params(*((i,) for i in range(n)), dtype=dtype), weights[group.rank], pa.Background(group)
        for i, q in enumerate(ps):
            if has[group.rank][i]: q.grad = torch.full_like(q, 2. if w else float('nan'))
        buckets = pa.Buckets(ps, lambda flat: background(flat.mul_(w) if w else flat.zero_()), size)
        buckets.finish()
        return [q.grad for q in ps]
    for grads in threads(work, p):
        for i, g in enumerate(grads):
            there = [w for w, h in zip(weights, has) if h[i] and w]
            if not there: assert g is None
            else: torch.testing.assert_close(g, torch.full((i,), 2*sum(there), dtype=dtype))

def test_decay_leaves_alone_what_nobody_uses():
    "As in one process: SGD and Adam pass over a parameter without gradient"
    def work(group):
        used, spare = ps = params((2,), (3,))
        with torch.no_grad(): spare.fill_(1)
        opt, buckets = torch.optim.AdamW(ps, .1, weight_decay=.5), pa.Buckets(ps, pa.Background(group))
        for _ in range(2):
            opt.zero_grad()
            used.grad = torch.ones(2)
            buckets.finish()
            opt.step()
        return used.tolist(), spare.tolist()
    for used, spare in threads(work, 2): assert used[0] < 0 and spare == [1, 1, 1]

def test_a_sum_that_fails_leaves_nothing_behind():
    p, = params((2,))
    p.grad = torch.ones(2)
    def fails(flat, group): raise KeyError('lost')
    buckets = pa.Buckets([p], pa.Background(None, fails))
    for _ in range(2):
        buckets.ready(p)
        with pytest.raises(KeyError, match='lost'): buckets.finish()

def test_gradients_in_another_layout_keep_it():
    p, = params((2, 3, 4, 4))
    g = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    p.grad = g.clone(memory_format=torch.preserve_format)
    pa.Buckets([p], Link()).finish()
    assert p.grad.equal(2*g) and p.grad.stride() == g.stride()

def test_what_buckets_refuse():
    p, q = params((2,), (2,))
    with pytest.raises(TypeError, match=r'\[p\]'): pa.Buckets(p, Link())
    with pytest.raises(ValueError, match='twice'): pa.Buckets([p, p], Link())
    with pytest.raises(ValueError, match='size=0'): pa.Buckets([p], Link(), 0)
    buckets = pa.Buckets([p], Link())
    with pytest.raises(ValueError, match='not one of these'): buckets.ready(q)
    buckets.ready(p)
    with pytest.raises(RuntimeError, match='finish'): buckets.ready(p)
    buckets.finish()
    buckets.ready(p)

@pytest.mark.parametrize('kind', ['ours', 'nn'])
def test_they_start_during_the_backward_pass(kind):
    model, (x, y), link = pw.net(kind), pw.digits(5), Link()
    seen = []
    ps = [*model.parameters()]
    for p in [model] if kind == 'ours' else ps: p.register_post_accumulate_grad_hook(lambda p: seen.append([*link.log]))
    buckets = pa.Buckets(model.parameters(), link, 8*(7*4+4))  # the last layer; what of the first fits
    handles = buckets.watch(model)
    loss_func = tr.CrossEntropy() if kind == 'ours' else nn.CrossEntropyLoss()
    tr.backprop(loss_func(model(x), y), model, loss_func)
    assert link.log == [34, 8, 43] and seen[:3] == [[], [], [34]] and seen[3][0] == 34
    grads = [p.grad.clone() for p in ps]
    buckets.finish()
    for p, g in zip(ps, grads): assert p.grad.equal(2*g)
    for h in handles: h.remove()
    link.log.clear()
    tr.backprop(loss_func(model(x), y), model, loss_func)
    assert link.log == []

def test_frozen_ones_are_not_waited_for():
    model, (x, y), link = pw.net('nn'), pw.digits(5), Link()
    model[0].weight.requires_grad_(False)
    buckets = pa.Buckets([p for p in model.parameters() if p.requires_grad], link, 1)
    buckets.watch(model)
    nn.functional.cross_entropy(model(x), y).backward()
    assert link.log == [5, 29, 8]
    buckets.finish()
    assert model[0].weight.grad is None

@pytest.mark.parametrize('kind', ['ours', 'nn'])
def test_a_shared_weight_is_told_once_and_complete(kind):
    of = mo if kind == 'ours' else nn
    a, b = of.Linear(6, 6), of.Linear(6, 6)
    b.weight = a.weight
    model, link = of.Sequential(a, of.ReLU(), b).to(F64), Link()
    buckets = pa.Buckets(model.parameters(), link, 1)
    buckets.watch(model)
    loss_func = tr.CrossEntropy() if kind == 'ours' else nn.CrossEntropyLoss()
    tr.backprop(loss_func(model(pw.digits(5)[0]), pw.digits(5)[1]), model, loss_func)
    g = a.weight.grad.clone()
    buckets.finish()
    assert a.weight.grad.equal(2*g)

def test_background_keeps_the_order_and_raises_in_wait():
    done = []
    def slow(x, group):
        time.sleep(.02*(len(x) == 1))
        if len(x) == 3: raise KeyError('three')
        done.append(len(x))
    start = pa.Background(None, slow)
    works = [start(torch.zeros(n)) for n in (1, 2, 3, 4)]
    for n, w in enumerate(works, 1):
        if n == 3:
            with pytest.raises(KeyError, match='three'): w.wait()
        else: w.wait()
    assert done == [1, 2, 4]

# Training -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ['ours', 'nn'])
@pytest.mark.parametrize('p', [2, 3, 5])  # of batches of eight, and two at last: uneven shares, empty ones
def test_the_weights_are_those_of_one(kind, p, alone):
    for run in threads(pw.trained, p, kind): same(run, alone[kind])

@pytest.mark.parametrize('kind', ['ours', 'nn'])
def test_one_alone_is_the_plain_loop(kind, alone):
    model, losses = pw.net(kind), []
    opt, loss_func = torch.optim.SGD(model.parameters(), .2), tr.CrossEntropy() if kind == 'ours' else nn.CrossEntropyLoss()
    for xb, yb in zip(*(t.split(8) for t in pw.digits(154))):
        opt.zero_grad()
        loss = loss_func(model(xb), yb)
        tr.backprop(loss, model, loss_func)
        opt.step()
        losses.append(loss.item())
    assert len(losses) == 20 and losses[-1] < losses[0]
    same(alone[kind], (losses, model.state_dict()))

@settings(max_examples=10, deadline=None)
@given(p=st.integers(2, 4), size=st.sampled_from([1, 100, 300, 1 << 20]), batch=st.integers(1, 9))
def test_any_bucket_and_batch_size(p, size, batch):
    one, = threads(pw.trained, 1, 'ours', batch, 20)
    for run in threads(pw.trained, p, 'ours', batch, 20, size): same(run, one)

def test_a_convolutional_network_of_ours():
    def net(): return mo.Sequential(cv.Conv2d(1, 3, 3), mo.ReLU(), cv.MaxPool2d(2), cv.Flatten(), mo.Linear(3*9, 4)).to(F64)
    torch.manual_seed(0)
    state, x, y = net().state_dict(), torch.randn(30, 1, 8, 8, dtype=F64), torch.arange(30) % 4
    def work(group):
        with pw.LOCK: model = net()
        model.load_state_dict(state)
        return pa._train(group, model, x, y, 7, .1, 500)
    one, = threads(work, 1)
    for run in threads(work, 3): same(run, one)

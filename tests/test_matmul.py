"The matmul rungs, broadcast_shapes and einsum against torch's, over random shapes and strides"
import itertools, random, subprocess, sys
import pytest, torch
from hypothesis import example, given, settings, strategies as st
from notes import matmul as mm

ON_TENSORS = [mm.matmul_loops, mm.matmul_numba, mm.matmul_elementwise, mm.matmul_broadcast, mm.matmul_einsum, mm.matmul]
FAST = [mm.matmul_numba, mm.matmul_broadcast, mm.matmul_einsum, mm.matmul]
TOL = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-11, atol=1e-11)}
quick = settings(deadline=None, max_examples=40)

def matrix(m, n, layout, dtype, seed):
    "A random matrix that lies in memory in one of several ways"
    g = torch.Generator().manual_seed(seed)
    def r(*s): return torch.randn(*s, generator=g, dtype=dtype)
    return {'plain': lambda: r(m,n), 'transposed': lambda: r(n,m).t(), 'columns': lambda: r(m,2*n)[:,::2], 'rows': lambda: r(3*m,n)[::3],
            'inside': lambda: r(m+2,n+3)[1:m+1,2:n+2], 'row expanded': lambda: r(n).expand(m,n), 'column expanded': lambda: r(m,1).expand(m,n),
            'one number': lambda: r(1,1).expand(m,n)}[layout]()

layouts = st.sampled_from(['plain','transposed','columns','rows','inside','row expanded','column expanded','one number'])
dtypes = st.sampled_from([torch.float32, torch.float64])

def check(f, a, b):
    a0, b0, res, want = a.clone(), b.clone(), f(a,b), a@b
    assert res.dtype == want.dtype and res.shape == want.shape
    torch.testing.assert_close(res, want, **TOL[a.dtype])
    assert torch.equal(a,a0) and torch.equal(b,b0), "the operands were changed"

@quick
@given(st.integers(0,4), st.integers(0,5), st.integers(0,4), layouts, layouts, dtypes, st.integers(0,99))
@example(0, 3, 2, 'plain', 'plain', torch.float32, 0)
@example(2, 0, 3, 'plain', 'plain', torch.float32, 0)
@example(2, 3, 0, 'plain', 'plain', torch.float64, 0)
@example(0, 0, 0, 'plain', 'plain', torch.float64, 0)
def test_every_rung(m, k, n, la, lb, dtype, seed):
    a, b = matrix(m,k,la,dtype,seed), matrix(k,n,lb,dtype,seed+1)
    for f in ON_TENSORS: check(f, a, b)
    res = mm.matmul_lists(a.tolist(), b.tolist())
    if k: torch.testing.assert_close(torch.tensor(res, dtype=dtype).reshape(m,n), a@b, **TOL[dtype])
    else: assert len(res) == m  # a list without rows can't say how many columns it has

@quick
@given(st.integers(0,70), st.integers(0,300), st.integers(0,90), layouts, layouts, dtypes, st.integers(0,99))
def test_larger(m, k, n, la, lb, dtype, seed):
    for f in FAST: check(f, matrix(m,k,la,dtype,seed), matrix(k,n,lb,dtype,seed+1))

@pytest.mark.parametrize('f', [f for f in ON_TENSORS if f is not mm.matmul_numba])
def test_whole_numbers(f):
    a, b = torch.arange(6).view(2,3), torch.arange(12).view(3,4)
    assert torch.equal(f(a,b), a@b) and f(a,b).dtype == torch.int64
    assert torch.equal(f(a.int(),b.int()), (a@b).int())

def test_gradients_go_through():
    for f in (mm.matmul_elementwise, mm.matmul_broadcast, mm.matmul_einsum, mm.matmul, lambda a,b: mm.einsum('ik,kj->ij', a, b)):
        a, b = torch.randn(3,4,dtype=torch.float64,requires_grad=True), torch.randn(4,2,dtype=torch.float64,requires_grad=True)
        assert torch.autograd.gradcheck(f, (a,b))

@pytest.mark.parametrize('m,k,n', [(0,2,3), (2,0,3), (2,3,0), (0,0,0)])
@pytest.mark.parametrize('f', [f for f in ON_TENSORS if f is not mm.matmul_numba] + [lambda a,b: mm.einsum('ik,kj->ij', a, b)])
def test_an_empty_product_has_gradients(f, m, k, n):
    a, b = torch.ones(m,k,requires_grad=True), torch.ones(k,n,requires_grad=True)
    c = f(a,b)
    assert torch.equal(c, torch.zeros(m,n))
    for g, t in zip(torch.autograd.grad(c.sum(), (a,b)), (a,b)): assert torch.equal(g, torch.zeros_like(t))

BAD_SHAPES = [((2,3),(2,3)), ((3,),(3,2)), ((2,3),(3,)), ((),(2,2)), ((1,2,3),(3,2)), ((0,3),(2,2)), ((2,0),(1,2))]

@pytest.mark.parametrize('f', ON_TENSORS)
@pytest.mark.parametrize('sa,sb', BAD_SHAPES)
def test_shapes_that_do_not_fit(f, sa, sb):
    with pytest.raises(ValueError) as e: f(torch.ones(sa), torch.ones(sb))
    assert str(tuple(sa)) in str(e.value) and str(tuple(sb)) in str(e.value)

@pytest.mark.parametrize('f', ON_TENSORS)
def test_dtypes_that_do_not_fit(f):
    with pytest.raises(ValueError, match='float32.*float64'): f(torch.ones(2,2), torch.ones(2,2).double())

@pytest.mark.parametrize('f', [mm.matmul_numba])
@pytest.mark.parametrize('dtype', [torch.int64, torch.float16, torch.bfloat16, torch.bool, torch.complex64])
def test_dtypes_that_the_kernels_do_not_take(f, dtype):
    with pytest.raises(ValueError, match=str(dtype)): f(torch.ones(2,2).to(dtype), torch.ones(2,2).to(dtype))

@pytest.mark.parametrize('f', [mm.matmul_numba])
def test_what_the_kernels_refuse(f):
    "No gradient is lost in silence, and no device is guessed"
    a, w = torch.ones(2,3), torch.ones(3,2,requires_grad=True)
    for args in ((a,w), (w,a)):
        with pytest.raises(ValueError, match='gives no gradients.*detach'): f(*args)
    with torch.no_grad(): assert torch.equal(f(a,w), a@w)
    with pytest.raises(ValueError, match='on meta'): f(a.to('meta'), w.detach().to('meta'))

def test_lists():
    assert mm.matmul_lists([[1,2],[3,4]], [[5,6],[7,8]]) == [[19,22],[43,50]]
    assert mm.matmul_lists([], [[1,2]]) == []
    assert mm.matmul_lists([[],[]], []) == [[],[]]
    assert mm.matmul_lists([[1,2]], [[3],[4]]) == [[11]]
    with pytest.raises(ValueError, match=r'\(1, 2\) and \(1, 1\)'): mm.matmul_lists([[1,2]], [[3]])
    with pytest.raises(ValueError, match='different lengths'): mm.matmul_lists([[1,2],[3]], [[1],[2]])
    with pytest.raises(ValueError, match='different lengths'): mm.matmul_lists([[1,2]], [[1],[2,3]])

def test_frobenius_norm():
    assert mm.frobenius_norm(torch.tensor([[1.,2,3],[4,5,6],[7,7,8]])).item() == pytest.approx(253**.5, rel=1e-6)
    for s in ((3,4),(0,4),(5,),(),(2,3,4)):
        x = torch.randn(s, dtype=torch.float64)
        torch.testing.assert_close(mm.frobenius_norm(x), x.norm())

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.complex64])
def test_frobenius_norm_in_any_dtype(dtype):
    "Squares don't fit into bytes, nor does the largest negative number's absolute value; and a complex number's length is real"
    x = torch.tensor([100, 100, -100 if dtype.is_signed else 100, 0]).to(dtype)
    if not dtype.is_floating_point and not dtype.is_complex and dtype != torch.bool: x = torch.cat([x, torch.tensor([torch.iinfo(dtype).min, torch.iinfo(dtype).max], dtype=dtype)])
    want = (x.to(torch.complex128).abs()**2).sum().sqrt()
    torch.testing.assert_close(mm.frobenius_norm(x), want.float())
    assert torch.equal(mm.frobenius_norm(torch.tensor([3j, 4])), torch.tensor(5.))

# broadcasting

def attempt(f, *args):
    try: return tuple(f(*args))
    except (ValueError, RuntimeError): return 'error'

shapes = st.lists(st.sampled_from([0,1,1,2,3]), max_size=5).map(tuple)

@settings(deadline=None, max_examples=500)
@given(st.lists(shapes, max_size=4))
@example([])
@example([()])
@example([(0,),(1,)])
@example([(0,),(3,)])
@example([(256,256,3),(3,)])
@example([(3,256,256),(3,)])
@example([(8,1,6),(7,1)])
def test_broadcast_shapes(shapes):
    want, res = attempt(torch.broadcast_shapes, *shapes), attempt(mm.broadcast_shapes, *shapes)
    assert res == want
    if shapes and res != 'error': assert res == sum(torch.zeros(s) for s in shapes).shape

def test_broadcast_shapes_takes_torch_sizes_and_names_what_fails():
    assert mm.broadcast_shapes(torch.zeros(2,1).shape, torch.zeros(3).shape) == (2,3)
    with pytest.raises(ValueError, match=r'\(2, 3\).*\(2,\).*\[2, 3\]'): mm.broadcast_shapes((2,3), (2,))
    with pytest.raises(ValueError, match=r'\[3, 256\] meet'): mm.broadcast_shapes((3,256,256), (3,))

# einsum

@st.composite
def specs(draw):
    "A spec and its operands, in random layouts"
    letters = draw(st.sampled_from(['abcd','ijkl','Aazb']))
    size = {l: draw(st.sampled_from([0,1,2,2,3,3,4])) for l in letters}
    ins = draw(st.lists(st.text(letters, max_size=4), min_size=1, max_size=3))
    used = sorted(set(''.join(ins)))
    spec = draw(st.sampled_from([',',', '])).join(ins)
    if draw(st.integers(0,4)):
        out = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
        spec += draw(st.sampled_from(['->',' -> ']))+''.join(out)
    g = torch.Generator().manual_seed(draw(st.integers(0,99)))
    ts = []
    for i in ins:
        t = torch.randn([size[l] for l in i], generator=g, dtype=torch.float64)
        kind = draw(st.sampled_from(['plain','reversed','sliced','expanded']))
        back = tuple(reversed(range(t.ndim)))
        if kind=='reversed': t = t.permute(back).contiguous().permute(back)
        if kind=='sliced': t = torch.stack((torch.full_like(t,7),t), -1)[...,1]  # with an offset into the storage
        if kind=='expanded' and t.ndim and t.shape[0]: t = t[:1].expand_as(t)
        ts.append(t)
    return spec, ts

@settings(deadline=None, max_examples=400)
@given(specs())
def test_einsum(spec_ts):
    spec, ts = spec_ts
    res, want = mm.einsum(spec, *ts), torch.einsum(spec, *ts)
    assert res.shape == want.shape and res.dtype == want.dtype
    torch.testing.assert_close(res, want, rtol=1e-10, atol=1e-10)

@pytest.mark.parametrize('dtype', [torch.float32, torch.int64, torch.int32])
def test_einsum_keeps_the_dtype(dtype):
    a, b = torch.arange(6).view(2,3).to(dtype), torch.arange(12).view(3,4).to(dtype)
    res = mm.einsum('ik,kj', a, b)
    assert res.dtype == dtype and torch.equal(res, torch.einsum('ik,kj', a, b))

def test_einsum_gives_new_memory():
    a = torch.ones(2,3)
    mm.einsum('ij->ij', a).zero_()
    assert torch.equal(a, torch.ones(2,3))

@pytest.mark.parametrize('spec,shapes,says', [
    ('ik,kj->ij', [(2,3),(4,5)], 'k is 3 in one place and 4 in another'), ('ii->i', [(2,3)], 'i is 2 in one place and 3 in another'),
    ('ik,kj->ij', [(2,1),(4,5)], 'k is 1 in one place and 4 in another'), ('ik,kj->ij', [(2,4),(1,5)], 'k is 4 in one place and 1 in another'),
    ('ij->', [(2,)], r"'ij' names 2 axes, and its operand has shape \(2,\)"), ('i,j', [(2,)], '2 operands, and 1'), ('i', [(2,),(3,)], '1 operands, and 2'),
    ('ij->ik', [(2,3)], 'no operand has k'), ('ij->ii', [(2,3)], 'twice'), ('...i->i', [(2,3)], 'only letters'), ('i->i->i', [(2,)], 'only letters'),
    ('i->i,', [(2,)], 'only letters'), ('i1->i', [(2,3)], 'only letters'), ('é->é', [(2,)], 'only letters')])
def test_einsum_errors(spec, shapes, says):
    with pytest.raises(ValueError, match=says): mm.einsum(spec, *(torch.ones(s) for s in shapes))

def test_einsum_dtypes():
    with pytest.raises(ValueError, match='float32, torch.float64 differ'): mm.einsum('i,i', torch.ones(2), torch.ones(2).double())

OPTIMISED = '''
import torch
from notes import matmul as mm
assert False, "-O is not on"
def must(f, *args, says):
    try: f(*args)
    except ValueError as e:
        if all(s in str(e) for s in says): return
        raise SystemExit(f"{f.__name__} says: {e}")
    raise SystemExit(f"{f.__name__} does not complain")
a, b = torch.ones(2,3), torch.ones(4,5)
for f in (mm.matmul_loops, mm.matmul_numba, mm.matmul_elementwise, mm.matmul_broadcast, mm.matmul_einsum, mm.matmul):
    must(f, a, b, says=("(2, 3)","(4, 5)"))
    must(f, a, b[:3].double(), says=("float32","float64"))
must(mm.matmul_lists, a.tolist(), b.tolist(), says=("(2, 3)","(4, 5)"))
must(mm.broadcast_shapes, (2,3), (4,5), says=("(2, 3)","(4, 5)"))
must(mm.einsum, 'ik,kj->ij', a, b, says=("(2, 3)","(4, 5)"))
import sys
if 'numba' in sys.modules or 'matplotlib' in sys.modules: raise SystemExit("loaded although nothing needed it")
'''

def test_errors_under_python_O():
    "An assert is dropped by `python -O`; these errors are not. Nor does a refused call load numba"
    r = subprocess.run([sys.executable, '-O', '-c', OPTIMISED], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout+r.stderr

# ---- the timer

class Clock:
    "A clock that moves only when a function says how long it took"
    def __init__(self): self.now, self.log = 0., []
    def perf_counter(self): return self.now
    def work(self, name, seconds):
        it = iter(seconds) if isinstance(seconds, list) else None
        def f():
            self.log.append(name)
            self.now += next(it) if it else seconds
        return f

@pytest.fixture
def clock(monkeypatch):
    c = Clock()
    monkeypatch.setattr(mm, 'time', c)
    return c

def test_timer_counts_calls_until_they_last_long_enough(clock):
    t = mm.timeit(clock.work('f', 2.**-8), repeats=3, min_time=.02)
    assert (t.times, t.median, t.calls, t.threads) == ((2.**-8,)*3, 2.**-8, 8, 1)
    assert len(clock.log) == 1 + (1+2+4+8) + 3*8

def test_timer_throws_the_warm_up_away_and_reports_median_and_quartiles(clock):
    t = mm.timeit(clock.work('f', [100., 50., 1., 2., 3., 4., 90.]), repeats=5)
    assert t.times == (1, 2, 3, 4, 90) and (t.best, t.q1, t.median, t.q3) == (1, 2, 3, 4)

def test_comparison_takes_turns(clock):
    res = mm.compare_times({'a': clock.work('a', 1.), 'b': clock.work('b', 2.)}, repeats=3)
    log = ''.join(clock.log)
    assert log[:4] == 'aabb' and all(sorted(log[i:i+2]) == ['a', 'b'] for i in range(4, 10, 2)) and len(log) == 10
    assert res['b']/res['a'] == 2 and list(res) == ['a', 'b']

def test_comparison_changes_the_order(clock):
    "Nothing is always measured behind the same neighbour, and nobody else's random numbers are drawn"
    state = random.getstate()
    for _ in range(2):
        res = mm.compare_times({k: clock.work(k, 1.) for k in 'abc'}, repeats=30)
        assert list(res) == ['a', 'b', 'c'] and random.getstate() == state
    rounds = [''.join(clock.log[i:i+3]) for i in range(6, 96, 3)]
    assert {*map(''.join, itertools.permutations('abc'))} == {*rounds}
    assert clock.log[:96] == clock.log[96:]  # the same orders each time

def test_table(clock):
    res = mm.compare_times({'slow one': clock.work('a', .5), 'fast': clock.work('b', 2.**-12)}, repeats=2)
    assert repr(res).splitlines() == ['          median   IQR  speed-up', 'slow one  500 ms  0 ns         1', 'fast      244 µs  0 ns     2,048',
                                      '2 measurements of each, taken in turn, 1 thread']

def test_threads_are_set_while_measuring_and_restored_after(clock):
    before, seen = torch.get_num_threads(), set()
    def f():
        seen.add(torch.get_num_threads())
        clock.now += 1
    for n in 1, 2: assert mm.timeit(f, threads=n).threads == n
    assert seen == {1, 2} and torch.get_num_threads() == before
    def fails(): raise RuntimeError('no')
    with pytest.raises(RuntimeError): mm.timeit(fails, threads=before+1)
    assert torch.get_num_threads() == before

def test_nothing_to_measure():
    with pytest.raises(ValueError, match='0 functions'): mm.compare_times({})
    with pytest.raises(ValueError, match='0 repeats'): mm.timeit(lambda: 0, repeats=0)

@pytest.mark.parametrize('s,text', [(0, '0 ns'), (8.5e-8, '85 ns'), (1.37e-4, '137 µs'), (9.994e-7, '999 ns'), (9.996e-7, '1 µs'), (.9999, '1 s'),
                                    (.25, '250 ms'), (59.96, '60 s'), (999.6, '1,000 s'), (1234567, '1,234,567 s')])
def testfmt_time(s, text): assert mm.fmt_time(s) == text

def test_timing_reads_well():
    t = mm.Timing((1.8e-3, 2e-3, 2.4e-3), 16)
    assert repr(t) == str(t) == '2 ms, IQR 300 µs (3 × 16 calls, 1 thread)'
    assert '2 threads' in repr(mm.Timing((1,), 1, 2))

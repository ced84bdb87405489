"The kernel of our own against `@`: over random shapes and layouts, at the edges of tiles and blocks, and what it refuses"
import subprocess, sys
import numpy as np, pytest, torch
from hypothesis import example, given, strategies as st
from notes import kernel as ke
from test_matmul import BAD_SHAPES, TOL, check, dtypes, layouts, matrix, quick

@quick
@given(st.integers(0,70), st.integers(0,300), st.integers(0,90), layouts, layouts, dtypes, st.integers(0,99))
@example(0, 3, 2, 'plain', 'plain', torch.float32, 0)
@example(2, 0, 3, 'plain', 'plain', torch.float32, 0)
@example(2, 3, 0, 'plain', 'plain', torch.float64, 0)
@example(0, 0, 0, 'plain', 'plain', torch.float64, 0)
@example(1, 1, 1, 'plain', 'columns', torch.float32, 0)
@example(3, 4, 2, 'column expanded', 'row expanded', torch.float64, 0)
def test_blocked(m, k, n, la, lb, dtype, seed): check(ke.matmul_blocked, matrix(m,k,la,dtype,seed), matrix(k,n,lb,dtype,seed+1))

@pytest.mark.parametrize('dtype,tile', [('float32',(64,14,2)), ('float32',(32,6,2)), ('float32',(16,8,3)), ('float64',(32,6,2)), ('float64',(16,6,2))])
def test_blocked_for_every_processor(dtype, tile):
    "The tiles of other processors are right on this one, with blocks so small that all edges meet"
    nr = tile[0]//np.dtype(dtype).itemsize*tile[2]
    f = ke._blocked(dtype, *tile, kc=7, mc=2, nc=2*nr)
    rng = np.random.default_rng(0)
    for m in (1, tile[1]-1, tile[1], tile[1]+1, 3*tile[1]+2):
        for n in (1, nr-1, nr, nr+1, 4*nr+3):
            for k in (1, 7, 8, 20):
                a, b, c = rng.standard_normal((m,k)).astype(dtype), rng.standard_normal((k,n)).astype(dtype), np.ones((m,n), dtype)
                f(a, b, c)
                np.testing.assert_allclose(c, a@b+1, rtol=1e-3, atol=1e-4 if dtype=='float32' else 1e-12)

def test_packing():
    "Strips of `w` columns, one after the other, the last one filled up with zeros"
    for w,x in ((4,np.arange(12.).reshape(2,6)), (3,np.arange(12.).reshape(6,2).T), (5,np.arange(3.).reshape(1,3))):
        k, n = x.shape
        out = np.full(k*-(-n//w)*w+1, -1.)
        ke._pack()(x, w, out)
        padded = np.pad(x, ((0,0),(0,-n%w)))
        want = np.concatenate([padded[:,j:j+w].ravel() for j in range(0,n,w)])
        assert out.tolist() == [*want, -1]

@pytest.mark.parametrize('m,k,n', [(225,257,1025), (14,600,32), (449,3,2049), (1,2000,1)])
def test_blocked_beyond_its_blocks(m, k, n):
    for dtype in (torch.float32, torch.float64):
        a, b = matrix(m,k,'plain',dtype,0), matrix(k,n,'transposed',dtype,1)
        torch.testing.assert_close(ke.matmul_blocked(a,b), a@b, rtol=1e-3, atol=1e-3 if dtype==torch.float32 else 1e-10)

def test_blocked_keeps_what_is_not_finite():
    a, b = torch.randn(17,40), torch.randn(40,35)
    a[3,5], b[7,9], a[16,0] = float('inf'), float('nan'), float('-inf')
    torch.testing.assert_close(ke.matmul_blocked(a,b), a@b, equal_nan=True, rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('sa,sb', BAD_SHAPES)
def test_shapes_that_do_not_fit(sa, sb):
    with pytest.raises(ValueError) as e: ke.matmul_blocked(torch.ones(sa), torch.ones(sb))
    assert str(tuple(sa)) in str(e.value) and str(tuple(sb)) in str(e.value)

def test_dtypes_that_differ():
    with pytest.raises(ValueError, match='float32.*float64'): ke.matmul_blocked(torch.ones(2,2), torch.ones(2,2).double())

@pytest.mark.parametrize('dtype', [torch.int64, torch.float16, torch.bfloat16, torch.bool, torch.complex64])
def test_dtypes_that_it_does_not_take(dtype):
    with pytest.raises(ValueError, match=str(dtype)): ke.matmul_blocked(torch.ones(2,2).to(dtype), torch.ones(2,2).to(dtype))

def test_what_it_refuses():
    "No gradient is lost in silence, and no device is guessed"
    a, w = torch.ones(2,3), torch.ones(3,2,requires_grad=True)
    for args in ((a,w), (w,a)):
        with pytest.raises(ValueError, match='gives no gradients.*detach'): ke.matmul_blocked(*args)
    with torch.no_grad(): assert torch.equal(ke.matmul_blocked(a,w), a@w)
    with pytest.raises(ValueError, match='on meta'): ke.matmul_blocked(a.to('meta'), w.detach().to('meta'))

def test_kernels_in_threads():
    "Each call has buffers of its own"
    from concurrent.futures import ThreadPoolExecutor
    pairs = [(matrix(40+i,300,'plain',torch.float64,i), matrix(300,50,'transposed',torch.float64,i)) for i in range(16)]
    with ThreadPoolExecutor(4) as ex: res = list(ex.map(lambda p: ke.matmul_blocked(*p), pairs))
    for (a,b), c in zip(pairs, res): torch.testing.assert_close(c, a@b, **TOL[torch.float64])

OPTIMISED = '''
import sys, torch
from notes.kernel import matmul_blocked
assert False, "-O is not on"
a, b = torch.ones(2,3), torch.ones(4,5)
for args, says in (((a,b), ("(2, 3)","(4, 5)")), ((a,b[:3].double()), ("float32","float64"))):
    try: matmul_blocked(*args)
    except ValueError as e:
        if not all(s in str(e) for s in says): raise SystemExit(f"it says: {e}")
    else: raise SystemExit("it does not complain")
if 'numba' in sys.modules or 'matplotlib' in sys.modules: raise SystemExit("loaded although nothing needed it")
'''

def test_errors_under_python_O():
    "An assert is dropped by `python -O`; these errors are not. Nor does a refused call load numba"
    r = subprocess.run([sys.executable, '-O', '-c', OPTIMISED], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout+r.stderr

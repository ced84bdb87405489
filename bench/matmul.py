"""The matrix product, rung by rung

Every rung of [01_matmul](01_matmul.ipynb), and the kernel of [01a_kernel](01a_kernel.ipynb), on the series' example, 5 images of 784 pixels by 784×10 weights, and on square matrices as far as each can go in the
time. BLAS is what stands behind `@`. The peak is the fastest that any product ran here: BLAS at its best size, or the innermost tile of `matmul_blocked` on data
that stay in the first-level cache. All in float32.
"""
BLAS = '@ (BLAS)'
SIZES = 8, 16, 32, 64, 128, 256, 512, 1024, 1536, 2048
LIMIT = .5  # seconds that one product may take, by its rate at the size before

def rungs(a, b):
    "The product of `a` and `b` on every rung, as functions"
    import torch
    from notes import kernel as k, matmul as m
    la, lb = a.tolist(), b.tolist()
    return {'three loops, tensors': lambda: m.matmul_loops(a, b), 'three loops, lists': lambda: m.matmul_lists(la, lb),
            'row by column': lambda: m.matmul_elementwise(a, b), 'broadcasting': lambda: m.matmul_broadcast(a, b),
            'einsum, ours': lambda: m.einsum('ik,kj->ij', a, b), 'einsum, PyTorch': lambda: m.matmul_einsum(a, b),
            'three loops, numba': lambda: m.matmul_numba(a, b), 'matmul_blocked': lambda: k.matmul_blocked(a, b), BLAS: lambda: torch.matmul(a, b)}

def tile(calls=500, k=256):
    "The innermost tile of `matmul_blocked` by itself, and the operations that one call of it makes"
    import numpy as np
    from numba import njit
    from notes.kernel import _micro, _register_tile
    nbytes, mr, nv = _register_tile()
    nr = nv*nbytes//4
    micro, a, b, c = _micro('float32', nbytes//4, mr, nv), np.ones(mr*k, np.float32), np.ones(nr*k, np.float32), np.zeros(mr*nr, np.float32)
    @njit
    def many(a, b, c):
        for _ in range(calls): micro(a, 0, b, 0, k, c, 0, nr)
    return lambda: many(a, b, c), calls*2*mr*nr*k

def run(b):
    import torch
    from notes.exports import test_near
    x, y = torch.randn(5, 784), torch.randn(784, 10)
    fs = rungs(x, y)
    for f in fs.values(): test_near(torch.as_tensor(f()), x@y, rtol=1e-4, atol=1e-3)
    t = b.times('5×784 @ 784×10', fs, flop=2*5*784*10)
    b.ratio('time of three loops over tensors ÷ time of @, 5×784 @ 784×10', t['three loops, tensors'], t[BLAS], at_least=75_000)
    seconds, before = dict.fromkeys(fs, 0), 1
    for n in SIZES[:3] if b.quick else SIZES:
        fs = {k: f for k, f in rungs(torch.randn(n, n), torch.randn(n, n)).items() if k in seconds and seconds[k]*(n/before)**3 <= LIMIT}
        t = b.times(f'n×n, n = {n}', fs, min_time=.05, flop=2*n**3, n=n)
        b.ratio(f'rate of matmul_blocked ÷ @, n = {n}', t[BLAS], t['matmul_blocked'], at_least=.5 if n == 1024 else None)
        seconds, before = {k: min(s) for k, s in t.items()}, n
    f, flop = tile()
    b.times('the processor', {'innermost tile, data in the first-level cache': f}, flop=flop)

ALT = "Rate of every rung in GFLOP/s against the size of square matrices, both on logarithmic axes. Each rung is a line with a marker of its own; a dashed line is the most that any product reached."
def draw(d, fig):
    "Rates against size, and the peak"
    from .harness import rate
    ax = fig.subplots()
    squares = [rows for rows in d.values() if 'n' in next(iter(rows.values()))['s']]
    for k in squares[0]:
        at = {rows[k]['s']['n']: rate(rows[k]) for rows in squares if k in rows}
        ax.loglog(list(at), list(at.values()), label=k)
    ax.axhline(max(rate(fs) for rows in d.values() for fs in rows.values()), color='.5', ls='--', label='peak')
    ax.set(xlabel='n, for n×n times n×n', ylabel='GFLOP/s', xticks=SIZES[::2], xticklabels=SIZES[::2])
    ax.yaxis.set_major_formatter('{x:g}')
    ax.minorticks_off()
    fig.legend(loc='outside lower center', ncols=2)

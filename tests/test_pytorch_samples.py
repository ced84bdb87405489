"""PyTorch's own sample inputs, fed to our functions and layers.

PyTorch tests its operators on samples that it keeps in a private module: odd shapes, empty ones, every setting. Each sample goes to PyTorch and to ours. Ours
must agree, in outputs and gradients, or refuse in words of its own; nothing may be wrong, and nothing refused obscurely. `pytest -n0 -s` shows the table.
What PyTorch refuses, its `error_inputs`, ours must refuse as well.
Importing that module changes flags and seeds for the whole process, so it happens in one of its own: this file, run as a program.
"""
import collections, json, linecache, os, re, subprocess, sys, traceback
from pathlib import Path
import pytest, torch
from notes import convolutions as cv, fully_connected as fc, kernel as ke, matmul as mm, modules as mo, normalization as no, training as tr

ROOT = Path(mm.__file__).resolve().parent
TOL = {torch.float64: dict(rtol=1e-9, atol=1e-10), torch.float32: dict(rtol=1e-4, atol=1e-3)}  # samples go up to 9, and their sums to some hundred
FLOATS, WITH_INTS = (torch.float64, torch.float32), (torch.float64, torch.float32, torch.int64, torch.uint8)
COLUMNS = 'tried', 'agreed', 'refused', 'no such setting', 'obscure', 'wrong'
CASES = {}  # name -> (PyTorch's operator or module, its variant, dtypes, what tries one sample)

def case(name, op, variant='', dtypes=FLOATS):
    "Register a function of PyTorch's operator, input, arguments and keywords. It gives pairs of ours and theirs, ours first called"
    def add(f):
        CASES[name] = op, variant, dtypes, f
        return f
    return add

def only(kw, **same):
    "Keywords without those that say what happens without them; the others go to ours, which must refuse what it doesn't know"
    return {k: v for k, v in kw.items() if not (k in same and type(v) in (type(same[k]), tuple) and v in (same[k], (same[k],)*2))}

def leaf(t): return t.detach().requires_grad_(t.is_floating_point())

def with_autograd(ours, theirs, *ts):
    "Outputs, and gradients of ours and theirs by autograd"
    got = ours(*(a := [leaf(t) for t in ts]))
    want = theirs(*(b := [leaf(t) for t in ts]))
    yield got, want
    if want.requires_grad:
        g = torch.randn(want.shape, dtype=want.dtype)
        yield from zip(torch.autograd.grad(got, a, g), torch.autograd.grad(want, b, g))

def by_hand(ours, ours_grad, theirs, x, *others):
    "Outputs, and the gradient by `x` of ours by hand and theirs by autograd; a loss's gradient is 1"
    got = ours(x.detach(), *others)
    want = theirs(b := leaf(x), *others)
    yield got, want
    if want.requires_grad:
        g = torch.randn(want.shape, dtype=want.dtype)
        yield ours_grad(g, x.detach(), *others), torch.autograd.grad(want, b, g)[0]

# Functions ------------------------------------------------------------------------------------------------------------

def product(f, lists=False):
    def try_(op, a, args, kw):
        if f in (mm.matmul_numba, ke.matmul_blocked): yield f(a.detach(), *(b.detach() for b in args)), op(a, *args)
        elif lists: yield f(a.tolist(), args[0].tolist()), (op(*(t if t.is_floating_point() else t.long() for t in (a, *args)))[:, :10*a.shape[1]]).tolist()  # a list without rows has no columns
        else: yield from with_autograd(f, op, a, *args)
    return try_
for name in ('matmul_loops', 'matmul_numba', 'matmul_elementwise', 'matmul_broadcast', 'matmul_einsum', 'matmul', 'matmul_blocked'):
    for op in ('mm', 'matmul'):
        case(f'{name}, of {op}', op, dtypes=FLOATS if name in ('matmul_numba', 'matmul_blocked') else WITH_INTS)(product(getattr(mm, name, None) or ke.matmul_blocked))
case('matmul_lists, of mm', 'mm', dtypes=WITH_INTS)(product(mm.matmul_lists, lists=True))

@case('einsum', 'einsum', dtypes=(*FLOATS, torch.int64))  # sums of bytes stay bytes in ours, as all dtypes do
def _(op, ts, args, kw): return with_autograd(lambda *ts: mm.einsum(*args, *ts), lambda *ts: op(ts, *args), *ts)

@case('broadcast_shapes', 'broadcast_shapes', dtypes=[torch.float32])
def _(op, shape, args, kw): yield (mm.broadcast_shapes(shape, *args), tuple(op(shape, *args)))

@case('frobenius_norm', 'norm', 'fro')
def _(op, x, args, kw): return with_autograd(lambda x: mm.frobenius_norm(x, *[a for a in args if a != 'fro'], **kw), lambda x: op(x, *args, **kw), x)

@case('frobenius_norm, of vector_norm', 'linalg.vector_norm')
def _(op, x, args, kw): return with_autograd(lambda x: mm.frobenius_norm(x, *args, **only(kw, ord=2)), lambda x: op(x, *args, **kw), x)

@case('relu', 'nn.functional.relu', dtypes=WITH_INTS)
def _(op, x, args, kw):
    yield from with_autograd(fc.relu, op, x)
    yield from by_hand(fc.relu, fc.relu_grad, op, x)

@case('lin', 'nn.functional.linear', dtypes=WITH_INTS)
def _(op, x, args, kw):
    w, b = [*args, None][:2]
    ts = [t for t in (x, w, b) if t is not None]
    yield from with_autograd(lambda x, w, b=None: fc.lin(x, w.t() if w.ndim > 1 else w, b), op, *ts)
    if x.is_floating_point():
        want = op(*(leaves := [leaf(t) for t in ts]))
        g = torch.randn(want.shape, dtype=want.dtype)
        gx, gw, gb = fc.lin_grad(g, x.detach(), w.detach().t(), None if b is None else b.detach())
        yield from zip((gx, gw.t(), gb), torch.autograd.grad(want, leaves, g))

@case('mse', 'nn.functional.mse_loss')
def _(op, pred, args, kw):
    return by_hand(lambda p, t: fc.mse(p.unsqueeze(-1), t, **only(kw, reduction='mean')), lambda g, p, t: fc.mse_grad(g, p.unsqueeze(-1), t).squeeze(-1), lambda p, t: op(p, t, **kw), pred, args[0].detach())

def last(x, dim): return x.movedim(dim, -1) if x.ndim else x
def rows(ours, ours_grad):
    "Ours work on the last dimension, so the other one is moved there"
    def try_(op, x, args, kw):
        dim, = args
        back = lambda t: t.movedim(-1, dim) if t.ndim else t
        return by_hand(lambda x: back(ours(last(x, dim), **kw)), lambda g, x: back(ours_grad(last(g, dim), last(x, dim))), lambda x: op(x, *args, **kw), x)
    return try_
for variant in ('', 'with_dtype'):
    case(f"softmax{', '*bool(variant)}{variant}", 'softmax', variant)(rows(tr.softmax, tr.softmax_grad))
    case(f"log_softmax{', '*bool(variant)}{variant}", 'log_softmax', variant)(rows(tr.log_softmax, tr.log_softmax_grad))

@case('logsumexp', 'logsumexp', dtypes=WITH_INTS)
def _(op, x, args, kw):
    dims, keep = args[0] if isinstance(args[0], (tuple, list)) else [args[0]], args[1] if len(args) > 1 else False
    tail = lambda x: x.movedim(dims, [*range(-len(dims), 0)]).flatten(-len(dims)) if x.ndim else x
    def untail(g):
        moved = x.movedim(dims, [*range(-len(dims), 0)])
        return g.view(moved.shape).movedim([*range(-len(dims), 0)], dims)
    shape = op(x, *args).shape
    return by_hand(lambda x: tr.logsumexp(tail(x)).view(shape), lambda g, x: untail(tr.logsumexp_grad(g.reshape(tail(x).shape[:-1]), tail(x))), lambda x: op(x, dims, keep), x)

LOSS = dict(reduction='mean', weight=None, ignore_index=-100, label_smoothing=0.)
def loss(ours, ours_grad):
    def try_(op, x, args, kw):
        return by_hand(lambda x: ours(x, *args, **only(kw, **LOSS)), lambda g, x: ours_grad(g, x, *args), lambda x: op(x, *args, **kw), x)
    return try_
case('nll', 'nn.functional.nll_loss')(loss(tr.nll, tr.nll_grad))
case('cross_entropy', 'nn.functional.cross_entropy')(loss(tr.cross_entropy, tr.cross_entropy_grad))

@case('conv2d', 'nn.functional.conv2d', dtypes=(*FLOATS, torch.int64))
def _(op, x, args, kw):
    w, b = [*args, None][:2]
    ours_kw, ts = only(kw, groups=1), [t for t in (x, w, b) if t is not None]
    yield from with_autograd(lambda x, w, b=None: cv.conv2d(x, w, b, **ours_kw), lambda *ts: op(*ts, **kw), *ts)
    if x.is_floating_point():
        want = op(*(leaves := [leaf(t) for t in ts]), **kw)
        g = torch.randn(want.shape, dtype=want.dtype)
        yield from zip(cv.conv2d_grad(g, *(None if t is None else t.detach() for t in (x, w, b)), **ours_kw), torch.autograd.grad(want, leaves, g))

def pool(ours, ours_grad, names, **same):
    def try_(op, x, args, kw):
        kw = dict(zip(names, args), **kw)
        ours_kw = {k: (None if k == 'stride' and v in ((), []) else v) for k, v in only(kw, **same).items()}
        if kw.get('return_indices') is False: kw.pop('return_indices')
        return by_hand(lambda x: ours(x, **ours_kw), lambda g, x: ours_grad(g, x, **ours_kw), lambda x: op(x, **kw), x)
    return try_
MAX, AVG = dict(dilation=1, ceil_mode=False, return_indices=False), dict(ceil_mode=False, count_include_pad=True, divisor_override=None)
case('max_pool2d', 'nn.functional.max_pool2d', dtypes=WITH_INTS)(pool(cv.max_pool2d, cv.max_pool2d_grad, ('kernel_size', 'stride', 'padding', 'dilation', 'ceil_mode'), **MAX))
case('avg_pool2d', 'nn.functional.avg_pool2d', dtypes=(*FLOATS, torch.int64))(pool(cv.avg_pool2d, cv.avg_pool2d_grad, ('kernel_size', 'stride', 'padding', *AVG), **AVG))

@case('unfold and fold', 'nn.functional.unfold')
def _(op, x, args, kw):
    "The gradient of one is the other"
    k, d, p, s = (*args, *(1, 0, 1)[len(args)-1:])
    return by_hand(lambda x: cv.unfold(x, k, s, p, d), lambda g, x: cv.fold(g, x.shape[2:], k, s, p, d), lambda x: op(x, *args), x)

# Layers ---------------------------------------------------------------------------------------------------------------

def layer(Ours, **same):
    def try_(Theirs, made, given):
        with torch.random.fork_rng():
            theirs, args = Theirs(*made.args, **made.kwargs), [*given.args, *given.kwargs.values()]
            ours = Ours(*made.args, **only(made.kwargs, device='cpu', **same))
        dtype = args[0].dtype
        theirs, ours = theirs.to(dtype), ours.to(dtype)
        if state := dict(theirs.state_dict()): ours.load_state_dict(state)
        if Ours is mo.MSE: args[0] = args[0].unsqueeze(-1)
        got = ours(*(a.detach() for a in args))
        if Ours is mo.MSE: args[0] = args[0].squeeze(-1)
        want = theirs(b := leaf(args[0]), *args[1:])
        yield got, want
        g = torch.randn(want.shape, dtype=want.dtype)
        gx, *gp = torch.autograd.grad(want, [b, *theirs.parameters()], g)
        yield ours.backward(g).view(gx.shape), gx
        yield from zip((p.grad for p in ours.parameters()), gp, strict=True)
    return try_
for Ours, op, same in ((mo.Linear, 'Linear', {}), (mo.ReLU, 'ReLU', {}), (mo.MSE, 'MSELoss', dict(reduction='mean')), (tr.CrossEntropy, 'CrossEntropyLoss', LOSS),
                       (cv.Conv2d, 'Conv2d', {}), (cv.MaxPool2d, 'MaxPool2d', {}), (cv.AvgPool2d, 'AvgPool2d', {}),
                       *((getattr(no, k), k, {}) for k in ('BatchNorm1d', 'BatchNorm2d', 'LayerNorm', 'GroupNorm', 'RMSNorm'))):
    case(f'{Ours.__name__}, a layer', f'nn.{op}')(layer(Ours, **same))

@case('Flatten, a layer', 'flatten')
def _(op, x, args, kw):
    kw = kw or dict(start_dim=1)  # the layer's default, which isn't the function's
    l = cv.Flatten(**kw)
    return by_hand(lambda x: l(x), lambda g, x: l.backward(g), lambda x: op(x, **kw), x)

# The program ----------------------------------------------------------------------------------------------------------

def samples(op, dtype, module):
    "Pairs of arguments for a try, and what is said of them"
    if module:
        return [((op.module_cls, i.constructor_input, i.forward_input), f'{i.constructor_input} {i.forward_input}') for i in op.module_inputs_func(op, device='cpu', dtype=dtype, requires_grad=True, training=True)]
    ss = [*op.reference_inputs('cpu', dtype, requires_grad=dtype.is_floating_point)]
    if dtype == torch.float64: ss += [*(s.noncontiguous() for s in ss), *([e.sample_input for e in op.error_inputs('cpu')] if op.error_inputs_func else ())]
    return [((op.op, s.input, s.args, s.kwargs), s) for s in ss]

def verdict(f, args, dtype):
    "Which column, and why: ours agrees, or refuses from a `raise` in our package, or hasn't the keyword; anything else must not be"
    try: pairs = [*f(*args)]
    except Exception as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        line = linecache.getline(where.filename, where.lineno)
        if isinstance(e, TypeError) and where.filename == __file__ and re.search('unexpected keyword|positional argument|takes no arguments', str(e)): return 'no such setting', e
        ours = Path(where.filename).resolve().parent == ROOT and re.search(r'\braise\b', line)
        return ('refused' if ours and isinstance(e, (ValueError, TypeError)) else 'obscure'), f'{e!r} at {where.filename}:{where.lineno}'
    try:
        for got, want in pairs:
            if type(want) is not tuple: torch.testing.assert_close(got, want, equal_nan=True, **TOL.get(dtype, dict(rtol=0, atol=0)))
            elif got != want: raise AssertionError(f"{got} for {want}")
    except AssertionError as e: return 'wrong', e
    return 'agreed', None

def table(counts):
    width = max(map(len, counts))
    return '\n'.join([' '*width + ''.join(f'{c:>17}' for c in COLUMNS), *(f'{k:{width}}' + ''.join(f'{v.get(c, 0):17}' for c in COLUMNS) for k, v in counts.items())])

def main():
    torch.set_num_threads(1)
    try:
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
        ops = {(o.name, getattr(o, 'variant_test_name', '')): o for o in [*op_db, *module_db]}
        chosen = {k: ops[v[:2]] for k, v in CASES.items()}
    except (ImportError, AttributeError, KeyError) as e: return dict(moved=repr(e))
    counts, bad = collections.defaultdict(collections.Counter), []
    for name, (op, _, dtypes, f) in CASES.items():
        for dtype in dtypes:
            torch.manual_seed(0)
            for args, said in samples(chosen[name], dtype, op.startswith('nn.') and op[3].isupper()):
                what, why = verdict(f, args, dtype)
                counts[name].update(['tried', what])
                if what in ('obscure', 'wrong'): bad.append(f'{name}, {dtype}, {what}: {said}\n    {why}')
    return dict(counts=counts, bad=bad)

@pytest.fixture(scope='module')
def tried():
    env = {**os.environ, 'PYTHONPATH': os.environ.get('PYTHONPATH') or str(ROOT.parent)}
    r = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stderr
    res = json.loads(r.stdout.splitlines()[-1])
    if 'moved' in res:
        pinned = re.search(r'^torch==(\S+)', (Path(__file__).resolve().parent.parent/'requirements.txt').read_text(encoding='utf-8'), re.M)[1]
        here = torch.__version__.partition('+')[0]
        if here == pinned: pytest.fail(f"PyTorch {here} is the version in requirements.txt, and its samples can't be had: {res['moved']}", pytrace=False)
        pytest.skip(f"PyTorch {here} doesn't keep its samples where {pinned} has them: {res['moved']}")
    return res

def test_agreed_or_refused_clearly(tried):
    print('\n' + table(tried['counts']))
    if tried['bad']: pytest.fail('\n'.join([table(tried['counts']), '', *tried['bad'][:20]]), pytrace=False)

def test_every_case_has_samples_and_agrees_on_some(tried):
    for name in CASES: assert tried['counts'][name].get('agreed') or name in NONE_AGREE, f"{name}: {tried['counts'][name]}\n{table(tried['counts'])}"
NONE_AGREE = {'softmax, with_dtype', 'log_softmax, with_dtype'}  # ours take no dtype

if __name__ == '__main__': print(json.dumps(main()))

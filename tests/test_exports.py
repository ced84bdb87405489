"""notes.exports: the exporter against nbdev's, the comparisons, the gradient checks and the timer."""
import ast, itertools, json, math, os, random, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from notes import exports as ex

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
ENV = {**os.environ, 'PYTHONPATH': str(Path(ex.__file__).resolve().parent.parent)}  # the package that is tested here, wherever a script runs
few = settings(deadline=None, max_examples=40)
number = st.just(0.) | st.floats(1e-100, 1e3) | st.floats(-1e3, -1e-100)  # what a square still tells from zero

def write_nb(path, *cells):
    cells = [dict(cell_type='markdown' if s.startswith('# ') else 'code', id=f'c{i}', metadata={}, source=s,
                  **({} if s.startswith('# ') else dict(outputs=[], execution_count=None))) for i, s in enumerate(cells)]
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding='utf-8')
    return path

def parts(path):
    "Docstring, set of the names in `__all__`, and the rest of a module, as a parser sees it"
    tree = ast.parse(path.read_text(encoding='utf-8'))
    doc, body = ast.get_docstring(tree) or '', tree.body[1:] if ast.get_docstring(tree) else tree.body
    is_all = lambda o: isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == '__all__'
    names = next(ast.literal_eval(o.value) for o in body if is_all(o))
    assert len(names) == len(set(names))
    return doc, set(names), [ast.dump(o) for o in body if not is_all(o)]

def same_as_nbdev(path, tmp):
    from nbdev.export import nb_export
    ours = ex.export_notebook(path, tmp/'ours'/'notes')
    nb_export(str(path), lib_path=tmp/'theirs'/'notes')
    a, b = parts(ours), parts(tmp/'theirs'/'notes'/ours.name)
    assert b[0].startswith(a[0])  # nbdev may add a link to the site
    assert a[1:] == b[1:]

# ---- the exporter

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.stem)
def test_exporter_writes_nbdevs_program(path, tmp_path): same_as_nbdev(path, tmp_path)

def test_exporter_on_an_awkward_notebook(tmp_path):
    same_as_nbdev(write_nb(tmp_path/'05_odd.ipynb', '# Odd\n\n> One \\ "line"\n> and another', '#| default_exp odd',
        '#| export\nfrom notes.exports import set_seed,rel_error\nfrom notes import data\nfrom os.path import join',
        '#| hide\n#| export\na,b = 1,2\nd = e = "é: from notes.data import x"\nf:int = 4\n_g = 5\nd2 = {}\nd2["k"] = 1',
        '#| export\nclass A:\n    x = 1\n    def m(self): y = 2\nasync def go(): pass\ndef _private(): pass',
        '#| export\nfrom fastcore.basics import patch,patch_to\n@patch\ndef m2(self:A): pass\n@patch_to(A)\ndef m3(self): pass\n@patch(cls_method=True)\ndef m4(cls:A): pass',
        'not_exported = 1', 'x = "#| export"\ny = 1'), tmp_path)

def test_module_lands_in_the_given_folder_and_imports_relatively(tmp_path):
    write_nb(tmp_path/'0.ipynb', '#| default_exp one', '#| export\nx = 1')
    write_nb(tmp_path/'1.ipynb', '#| default_exp two', '#| export\nfrom notes.one import x\ny = x+1')
    for n in '01': ex.export_notebook(tmp_path/f'{n}.ipynb', tmp_path/'elsewhere')
    (tmp_path/'elsewhere'/'__init__.py').write_text('')
    out = subprocess.run([sys.executable, '-c', 'from elsewhere.two import y; print(y)'], cwd=tmp_path, capture_output=True, text=True)
    assert out.stdout.strip() == '2', out.stderr

@pytest.mark.parametrize('src,names', [
    ('x = y = 1', ['x', 'y']), ('a,(b,*c) = z', ['a', 'b', 'c']), ('x:int = 1', ['x']), ('d["k"] = 1\na.b = 1', []),
    ('def f(): pass\ndef f(): pass', ['f']), ('async def f(): pass', ['f']), ('class A: x = 1', ['A']), ('_x = 1\ndef _f(): pass', []),
    ('"""\ndef f(): pass\n"""', []), ('@patch\ndef f(self:A): pass', []), ('@patch_to(A)\ndef f(self): pass', []), ('@cache\ndef f(): pass', ['f']), ('', [])])
def test_public_names(src, names): assert ex._public_names(src) == names

@pytest.mark.parametrize('src,out', [
    ('from notes.a import b', 'from .a import b'), ('from notes import a', 'from . import a'), ('from  notes.a.b import c', 'from .a.b import c'),
    ('from notesx.a import b', 'from notesx.a import b'), ('from x.notes.a import b', 'from x.notes.a import b'), ('from .a import b', 'from .a import b'),
    ('from notes.notes.a import b', 'from .notes.a import b'), ('from notes.a import (\n    b,\n    c)', 'from .a import (\n    b,\n    c)'),
    ('s = """\nfrom notes.a import b"""', 's = """\nfrom notes.a import b"""'), ('# from notes.a import b', '# from notes.a import b')])
def test_relative_imports(src, out): assert ex._relative_imports(src, 'notes') == out

def test_relative_imports_of_another_package(): assert ex._relative_imports('from mine.a import b\nfrom notes.a import b', 'mine') == 'from .a import b\nfrom notes.a import b'

def test_marks_stop_at_the_first_line_of_code():
    assert ex._marks('#| export\n#|hide\n#| fig-alt: Two: words\n\n#| echo: false') == {'export': '', 'hide': '', 'fig-alt': 'Two: words'}
    assert ex._marks(' #| export') == ex._marks('') == {}

def test_a_notebook_names_one_module(tmp_path):
    with pytest.raises(ValueError, match=r'a\.ipynb.*has 0'): ex.export_notebook(write_nb(tmp_path/'a.ipynb', '#| export\nx = 1'), tmp_path)
    with pytest.raises(ValueError, match='has 2'): ex.export_notebook(write_nb(tmp_path/'a.ipynb', '#| default_exp a', '#| default_exp b'), tmp_path)

def test_notebook_runs_where_its_file_and_nbdev_are_missing(tmp_path):
    "As on Colab: an empty folder, and the package installed without its development tools"
    nb = json.loads((ROOT/'nbs'/'00_exports.ipynb').read_text(encoding='utf-8'))
    cells = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code']
    (tmp_path/'cells.json').write_text(json.dumps([c for c in cells if '%pip' not in c]), encoding='utf-8')
    code = 'import sys,json,matplotlib; matplotlib.use("agg"); sys.modules["nbdev"] = None\nfor c in json.load(open("cells.json")): exec(c, globals())'
    out = subprocess.run([sys.executable, '-X', 'utf8', '-c', code], cwd=tmp_path, env=ENV, capture_output=True, text=True, encoding='utf-8')
    assert out.returncode == 0, out.stderr[-2000:]
    assert 'nbdev is not installed here' in out.stdout

# ---- seeds and comparisons

def test_set_seed_covers_three_generators():
    def draw(): return random.random(), np.random.rand(), torch.rand(1).item()
    ex.set_seed(3)
    a = draw()
    ex.set_seed(3)
    assert draw() == a
    ex.set_seed(4)
    assert all(p != q for p, q in zip(draw(), a))

@pytest.mark.parametrize('a,b', [([1, 2], (1., 2.)), (torch.ones(2).double(), np.ones(2)), (np.arange(3)[::-1], [2, 1, 0]),
    (np.broadcast_to(1., 3), [1, 1, 1]), ([torch.tensor(1.), torch.tensor(2.)], [1, 2]), (torch.ones(2, requires_grad=True), [1, 1]), (1+9e-6, 1), (9e-7, 0), ([], [])])
def test_near_accepts(a, b): ex.test_near(a, b)

@pytest.mark.parametrize('a,b', [(1, 1+2e-5), (0, 2e-6), ([1, 2], [1, 2, 3]), (torch.ones(3, 1), torch.ones(3)), (torch.ones(1), 1), (math.nan, math.nan),
    (math.inf, 1), ([1., 2.], [1., 2.1])])
def test_near_refuses(a, b):
    with pytest.raises(AssertionError): ex.test_near(a, b)

def test_near_keeps_the_digits_of_python_numbers():
    with pytest.raises(AssertionError): ex.test_near(1+1e-9, 1., rtol=1e-12, atol=0)

def test_near_zero():
    ex.test_near_zero([1e-3, -1e-3, 0])
    ex.test_near_zero(torch.zeros(0))
    for bad in 2e-3, [0, -2e-3], math.nan, [0, math.inf], torch.tensor([0, -128], dtype=torch.int8), torch.iinfo(torch.int64).min:
        with pytest.raises(AssertionError, match='within 0.001 of zero'): ex.test_near_zero(bad)
    with pytest.raises(AssertionError): ex.test_near_zero(1e-5, atol=1e-6)

def test_checks_hold_without_asserts():
    code = '''
import torch
from notes import exports as ex
assert False, "this line is dropped by -O"
def fails(exc, f):
    try: f()
    except exc: return
    raise SystemExit("no error")
x = torch.ones(2).double()
fails(AssertionError, lambda: ex.test_near(1,2))
fails(AssertionError, lambda: ex.test_near_zero(1))
fails(AssertionError, lambda: ex.check_grads(lambda x: x.sum(), {'x':x}, {'x':2*x}))
fails(ValueError, lambda: ex.rel_error(x, x[:1]))
fails(ValueError, lambda: ex.numerical_grad(lambda x: x, x))
'''
    out = subprocess.run([sys.executable, '-O', '-c', code], capture_output=True, text=True, cwd=ROOT, env=ENV)
    assert out.returncode == 0, out.stderr

@few
@given(st.lists(st.tuples(number, number), max_size=6), st.floats(1e-30, 1e30))
def test_rel_error_is_symmetric_bounded_and_blind_to_scale(pairs, c):
    a, b = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).T
    e = ex.rel_error(a, b)
    assert 0 <= e <= 2+1e-12
    assert e == pytest.approx(ex.rel_error(b, a), rel=1e-9, abs=1e-15)
    assert (e == 0) == torch.equal(a, b)
    assert e == pytest.approx(ex.rel_error(c*a, c*b), rel=1e-6, abs=1e-12)

def test_rel_error_by_hand():
    one = torch.ones(3)
    assert ex.rel_error(one, 2*one) == pytest.approx(.5)
    assert ex.rel_error(one*1e-30, -one*1e-30) == pytest.approx(2)
    assert not ex.rel_error(one.double()*1e-250, -one.double()*1e-250) < 1e-6  # too small to square: it may not pass
    assert ex.rel_error(torch.tensor([3., 0]), torch.tensor([3., 4])) == pytest.approx(.8)
    assert ex.rel_error(torch.zeros(0), torch.zeros(0)) == ex.rel_error(torch.zeros(2), torch.zeros(2)) == 0
    for bad in math.nan, math.inf:
        assert math.isnan(ex.rel_error(one, one*bad)) and math.isnan(ex.rel_error(one*bad, one))
    with pytest.raises(ValueError, match=r'\(3,\) and \(3, 1\)'): ex.rel_error(one, one[:, None])

# ---- gradients

@few
@given(st.lists(st.integers(0, 4), max_size=3), st.booleans(), st.integers(0, 99))
def test_numerical_grad_of_any_shape_and_stride(shape, flip, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if flip: x = x.permute(tuple(reversed(range(x.dim()))))
    before = x.clone()
    g = ex.numerical_grad(lambda t: (t**3+t.sin()).sum(), x)
    assert torch.equal(x, before) and g.shape == x.shape
    assert ex.rel_error(g, 3*x**2+x.cos()) < 1e-8

def test_numerical_grad_with_a_function_that_works_in_place():
    x = torch.tensor([-1., 2., 3.], dtype=torch.float64)
    g = ex.numerical_grad(lambda t: t.mul_(2).clamp_min_(0).pow_(2).sum(), x, eps=1e-5)
    assert ex.rel_error(g, 8*x.clamp_min(0)) < 1e-8 and x.tolist() == [-1, 2, 3]

def test_numerical_grad_takes_leaves_expanded_tensors_numbers_and_its_width():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert ex.numerical_grad(lambda t: (3*t).sum().item(), x).tolist() == pytest.approx([3, 3])
    assert ex.numerical_grad(lambda t: t.sum()[None], x.detach()[:1].expand(2, 3)).sum().item() == pytest.approx(6)
    assert ex.numerical_grad(lambda t: t**3, torch.tensor(1., dtype=torch.float64), eps=.5).item() == pytest.approx(3.25)

def test_numerical_grad_puts_every_element_back():
    "Exact for a product at any width, as long as only one element moves"
    x = torch.tensor([2., 3., 4.], dtype=torch.float64)
    assert ex.numerical_grad(torch.prod, x, eps=1.).tolist() == [12, 8, 6]

def test_numerical_grad_refuses():
    x = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match='x is torch.float32'): ex.numerical_grad(torch.sum, x.float())
    with pytest.raises(ValueError, match=r'one number.*\(2,\)'): ex.numerical_grad(lambda t: t, x)
    with pytest.raises(ValueError, match='returned torch.float32'): ex.numerical_grad(lambda t: t.float().sum(), x)

def _xw(): return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
def _f(x, w): return (x**2*w).sum()

def test_check_grads_accepts_the_right_gradients():
    x, w = _xw()
    res = ex.check_grads(_f, dict(x=x, w=w), dict(x=2*x*w, w=x**2))
    assert all(e < 1e-8 for es in res.values() for e in es) and res.keys() == {'x', 'w'}
    assert repr(res).splitlines() == ['tensor  numerical  autograd', 'x         < 1e-06   < 1e-06', 'w         < 1e-06   < 1e-06']
    ex.check_grads(lambda x, w: (x**2).sum(), dict(x=x, w=w), dict(x=2*x, w=torch.zeros_like(w)))   # w plays no part

@pytest.mark.parametrize('spoil,name', [(lambda g: g*(1+1e-5), 'x'), (lambda g: -g, 'w'), (lambda g: g*0, 'x'), (lambda g: g*math.nan, 'w'), (lambda g: g.flip(0), 'x')])
def test_check_grads_catches(spoil, name):
    x, w = _xw()
    gs = dict(x=2*x*w, w=x**2)
    gs[name] = spoil(gs[name])
    with pytest.raises(AssertionError, match='tensor  numerical  autograd'): ex.check_grads(_f, dict(x=x, w=w), gs)

def test_check_grads_needs_both_witnesses():
    "A backward of PyTorch's that is wrong agrees with the same slip made by hand; differences don't"
    class Slip(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2
        @staticmethod
        def backward(ctx, g): return g*ctx.saved_tensors[0]
    x = _xw()[0]
    with pytest.raises(AssertionError) as e: ex.check_grads(lambda x: Slip.apply(x).sum(), dict(x=x), dict(x=x))
    assert str(e.value).splitlines()[-1].split() == ['x', '0.5', '<', '1e-06']
    with pytest.raises(AssertionError) as e: ex.check_grads(lambda x: Slip.apply(x).sum(), dict(x=x), dict(x=2*x))
    assert str(e.value).splitlines()[-1].split() == ['x', '<', '1e-06', '0.5']

def test_check_grads_refuses_what_does_not_fit():
    x, w = _xw()
    with pytest.raises(ValueError, match='gradients for'): ex.check_grads(_f, dict(x=x, w=w), dict(x=x))
    with pytest.raises(ValueError, match=r'\(4,\) and \(3, 4\)'): ex.check_grads(_f, dict(x=x, w=w), dict(x=x[0], w=x**2))
    with pytest.raises(ValueError, match='float64'): ex.check_grads(_f, dict(x=x.float(), w=w.float()), dict(x=x, w=w))

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
    monkeypatch.setattr(ex, 'time', c)
    return c

def test_timer_counts_calls_until_they_last_long_enough(clock):
    t = ex.timeit(clock.work('f', 2.**-8), repeats=3, min_time=.02)
    assert (t.times, t.median, t.calls, t.threads) == ((2.**-8,)*3, 2.**-8, 8, 1)
    assert len(clock.log) == 1 + (1+2+4+8) + 3*8

def test_timer_throws_the_warm_up_away_and_reports_median_and_quartiles(clock):
    t = ex.timeit(clock.work('f', [100., 50., 1., 2., 3., 4., 90.]), repeats=5)
    assert t.times == (1, 2, 3, 4, 90) and (t.q1, t.median, t.q3) == (2, 3, 4)

def test_comparison_takes_turns(clock):
    res = ex.compare_times({'a': clock.work('a', 1.), 'b': clock.work('b', 2.)}, repeats=3)
    log = ''.join(clock.log)
    assert log[:4] == 'aabb' and all(sorted(log[i:i+2]) == ['a', 'b'] for i in range(4, 10, 2)) and len(log) == 10
    assert res['b']/res['a'] == 2 and list(res) == ['a', 'b']

def test_comparison_changes_the_order(clock):
    "Nothing is always measured behind the same neighbour, and nobody else's random numbers are drawn"
    state = random.getstate()
    for _ in range(2):
        res = ex.compare_times({k: clock.work(k, 1.) for k in 'abc'}, repeats=30)
        assert list(res) == ['a', 'b', 'c'] and random.getstate() == state
    rounds = [''.join(clock.log[i:i+3]) for i in range(6, 96, 3)]
    assert {*map(''.join, itertools.permutations('abc'))} == {*rounds}
    assert clock.log[:96] == clock.log[96:]  # the same orders each time

def test_table(clock):
    res = ex.compare_times({'slow one': clock.work('a', .5), 'fast': clock.work('b', 2.**-12)}, repeats=2)
    assert repr(res).splitlines() == ['          median   IQR  speed-up', 'slow one  500 ms  0 ns         1', 'fast      244 µs  0 ns     2,048',
                                      '2 measurements of each, taken in turn, 1 thread']

def test_threads_are_set_while_measuring_and_restored_after(clock):
    before, seen = torch.get_num_threads(), set()
    def f():
        seen.add(torch.get_num_threads())
        clock.now += 1
    for n in 1, 2: assert ex.timeit(f, threads=n).threads == n
    assert seen == {1, 2} and torch.get_num_threads() == before
    def fails(): raise RuntimeError('no')
    with pytest.raises(RuntimeError): ex.timeit(fails, threads=before+1)
    assert torch.get_num_threads() == before

def test_nothing_to_measure():
    with pytest.raises(ValueError, match='0 functions'): ex.compare_times({})
    with pytest.raises(ValueError, match='0 repeats'): ex.timeit(lambda: 0, repeats=0)

@pytest.mark.parametrize('s,text', [(0, '0 ns'), (8.5e-8, '85 ns'), (1.37e-4, '137 µs'), (9.994e-7, '999 ns'), (9.996e-7, '1 µs'), (.9999, '1 s'),
                                    (.25, '250 ms'), (59.96, '60 s'), (999.6, '1,000 s'), (1234567, '1,234,567 s')])
def testfmt_time(s, text): assert ex.fmt_time(s) == text

def test_timing_reads_well():
    t = ex.Timing((1.8e-3, 2e-3, 2.4e-3), 16)
    assert repr(t) == str(t) == '2 ms, IQR 300 µs (3 × 16 calls, 1 thread)'
    assert '2 threads' in repr(ex.Timing((1,), 1, 2))

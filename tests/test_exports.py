"""notes.exports: the exporter against nbdev's, and the comparisons."""
import ast, json, math, os, random, re, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
import directives
from notes import exports as ex

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
ENV = {**os.environ, 'PYTHONPATH': str(Path(ex.__file__).resolve().parent.parent)}  # the package that is tested here, wherever a script runs
few = settings(deadline=None, max_examples=40)
number = st.just(0.) | st.floats(1e-100, 1e3) | st.floats(-1e3, -1e-100)  # what a square still tells from zero

def cell(i, s):
    "Cell number `i` of a made-up notebook: code, prose where it begins with a title, or what a dict says"
    kind = 'markdown' if isinstance(s, str) and re.match('# [A-Z]', s) else 'code'
    c = dict(cell_type=kind, id=f'c{i}', metadata={}, source=s) if isinstance(s, str) else {'cell_type': 'code', 'id': f'c{i}', 'metadata': {}, **s}
    return c if c['cell_type'] != 'code' else {'outputs': [], 'execution_count': None, **c}

def write_nb(path, *cells, metadata=None):
    path.write_text(json.dumps(dict(cells=[cell(*c) for c in enumerate(cells, 1)], metadata=metadata or {}, nbformat=4, nbformat_minor=5)), encoding='utf-8')
    return path

def parts(path):
    "Docstring, set of the names in `__all__`, and the rest of a module, as a parser sees it"
    tree = ast.parse(path.read_text(encoding='utf-8'))
    doc, body = ast.get_docstring(tree) or '', tree.body[1:] if ast.get_docstring(tree) else tree.body
    is_all = lambda o: isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '') == '__all__'
    names = next(ast.literal_eval(o.value) for o in body if is_all(o))
    assert len(names) == len(set(names))
    return doc, set(names), [ast.dump(o) for o in body if not is_all(o)], cell_texts(path)

def cell_texts(path):
    "(id, text) of the cells in a module that have any"
    found = re.split(r'\n\n# %% \S+ #(\w+)\n', path.read_text(encoding='utf-8').removesuffix('\n'))
    return [(i, s) for i, s in zip(found[1::2], found[2::2]) if i != '0' and s.strip()]

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

# What stands in odd notebooks behind the cells DEF and X: name -> (the cells, what nbdev makes of them, where ours refuses them or None).
# nbdev writes a module with all that is marked ('writes'), one that Python can't read ('broken'), none ('nothing'), or raises an error
# ('raises'); it may also leave something out without a word ('leaves out').
DEF, X = '#| default_exp odd', '#| export\nx = 1'
ODD = {
    'black': (['# | export\ny = 2', '# | hide\nz = 3'], 'writes', None),
    'no space': (['#|export\ny = 2'], 'writes', None),
    'spaces': (['  #  |   export  \ny = 2', '\t#|\texport\ny = 2'], 'writes', None),
    'colon': (['#| export:\ny = 2', '#| export: true\nz = 3', '#| export :true\nu = 4'], 'writes', None),
    'blank lines': (['\n \n#| export\n\n\ny = 2\n\n', '\f\n#| export\x0b\nz = 3'], 'writes', None),
    'several marks': (['#| hide\n\n# | export\n#| fig-alt: A: b\n#| varies: text\ny = 2'], 'writes', None),
    'twice': (['#| export\n#| export\ny = 2'], 'writes', None),
    'magic above a cell that stays': (['%%time\n#| hide\ny = 2', '%matplotlib inline\nimport os', '!ls\n?x', "%%bash\necho it's"], 'writes', None),
    'a mark in a string': (['#| export\ny = """\n#| export\n#| other\n"""', 'z = """\n#| export\n"""'], 'writes', None),
    'a comment that is none': (['##| export\ny = 2', '#! | export\ny = 2'], 'writes', None),
    'no code': (['#| export', '#| export\n\n', '#| export\n# A comment', ''], 'writes', None),
    'U+2028': (['#| export\ny = "a\u2028b\u2029c"', '#| export\n# a\u2028b'], 'writes', None),
    'form feed and its kin': (['#| export\ny = "a\fb\x0bc\x1cd\x1de\x1ef\x85g"\n\f\ndef f(): pass'], 'writes', None),
    'carriage returns': (['#| export\r\ny = 2\r\nz = """a\r\nb"""', '#| export\ny = 2\rz = 3'], 'writes', None),
    'no newline, many newlines': (['#| export\ny = 2\n\n\n', '#| export\ny = """\n\n\n"""  '], 'writes', None),
    'names': (['#| export\na,(b,*c) = 1,(2,3)\n[d,e] = f.g = h[0] = 4,5\nx += 1\ni:int = 6\n(j) = 7\nfor k in (): l = 1\nif m := 2: n = 3'], 'writes', None),
    'decorators': (['#| export\n@patch\ndef a(): pass\n@patch_to(A)\ndef b(): pass\n@patch.x\ndef c(): pass\n@a.patch()\nclass D: pass\n@functools.cache\ndef e(): pass'], 'writes', None),
    'imports': (['#| export\nfrom  notes.a import b # from notes.a\nfrom notes import c; import os\nfrom notes_.a import d\nimport notes.a\n\nif x: from notes.a import b'], 'writes', None),
    'a text that holds what parts the module': (['#| export\ny = """\n\n# %% odd.ipynb c9\nz"""'], 'writes', None),
    'the mark with the name': (['#| export\n#| hide\ny = 2', '#| eval: false\n# | export\nz = 1'], 'writes', None),
    'exports': (['#| exports\ny = 2'], 'writes', 'cell 4 (id c4), line 1: nobody knows the mark `exports`'),
    'exporti': (['#| hide\n\n#| exporti\ny = 2'], 'writes', 'cell 4 (id c4), line 3: nobody knows the mark `exporti`'),
    'exportd': (['#| exportd\ny = 2'], 'writes', 'cell 4 (id c4), line 1: nobody knows the mark `exportd`'),
    'a slip': (['#| exprt\ny = 2'], 'leaves out', 'cell 4 (id c4), line 1: nobody knows the mark `exprt`'),
    'no mark': (['#|\n#| export\ny = 2'], 'writes', 'cell 4 (id c4), line 1: nobody knows the mark ``'),
    'a table in a comment': (['# | a | b |\ny = 2'], 'writes', 'cell 4 (id c4), line 1: nobody knows the mark `a`'),
    'other module': (['#| export other\ny = 2'], 'raises', 'cell 4 (id c4), line 1: `export` takes no name, and has `other`'),
    'other module, black': (['y = 2', '\n# | export: other\ny = 2'], 'raises', 'cell 5 (id c5), line 2: `export` takes no name, and has `other`'),
    'words': (['#| export this cell\ny = 2'], 'raises', 'cell 4 (id c4), line 1: `export` takes no name'),
    'below an import': (['import os\n#| export\ny = 2'], 'leaves out', 'cell 4 (id c4), line 2: a mark below code'),
    'below a comment': (['# why\n# | export\ny = 2'], 'leaves out', 'cell 4 (id c4), line 2: a mark below code'),
    'below a line magic': (['%time\n#| export\ny = 2'], 'leaves out', 'cell 4 (id c4), line 2: a mark below code'),
    'below what Python cannot read': (["!echo it's\n#| export\ny = 2"], 'leaves out', 'cell 4 (id c4), line 2: a mark below code'),
    'behind code': (['y = 2 #| export'], 'leaves out', 'cell 4 (id c4), line 1: a mark below code'),
    'ends in U+2028': (['#| export\u2028y = 2'], 'writes', 'cell 4 (id c4), line 1: `export` takes no name, and has `y = 2`'),
    'ends in a carriage return': (['#| export\ry = 2'], 'writes', 'cell 4 (id c4), line 1: `export` takes no name, and has `y = 2`'),
    'in prose': ([dict(cell_type='markdown', source='#| export\nMore about it')], 'writes', 'cell 4 (id c4), line 1: a mark belongs at the top of a code cell'),
    'in a raw cell': ([dict(cell_type='raw', source='\n# | export\ny = 2')], 'leaves out', 'cell 4 (id c4), line 2: a mark belongs at the top of a code cell'),
    'in the metadata': ([dict(source='y = 2', metadata={'nbdev': {'export': 'true'}})], 'writes', 'cell 4 (id c4), line 1: a mark in the metadata'),
    'magic above': (['%%time\n#| export\ny = 2'], 'broken', "cell 4 (id c4), line 1 can't go into a module: "),
    'magic below': (['#| export\n%%time\ny = 2'], 'broken', "cell 4 (id c4), line 2 can't go into a module: "),
    'line magic': (['#| export\ny = 2\n%matplotlib inline'], 'broken', "cell 4 (id c4), line 3 can't go into a module: "),
    'shell': (['#| export\n\n!ls'], 'broken', "cell 4 (id c4), line 3 can't go into a module: "),
    'question': (['#| export\ny?'], 'broken', "cell 4 (id c4), line 2 can't go into a module: "),
    'no Python': (['#| export\n\ny = ('], 'broken', "cell 4 (id c4), line 3 can't go into a module: "),
    'await': (['#| export\nawait f()'], 'broken', "cell 4 (id c4), line 2 can't go into a module: "),
    'return': (['#| export\ny = 2\nreturn y'], 'broken', "cell 4 (id c4), line 3 can't go into a module: "),
    'below a lone carriage return': (['y = 2\r#| export\rz = 3'], 'leaves out', 'cell 4 (id c4), line 2: a mark below code'),
    'half a letter': (['#| export\ny = "\ud800"'], 'raises', "cell 4 (id c4), line 1 can't go into a module: "),
    'future below code': (['#| export\nfrom __future__ import annotations'], 'broken', "cell 4 (id c4), line 2 can't go into a module: from __future__"),
    'relative import': (['#| export\nimport os\nfrom .a import b'], 'raises', "cell 4 (id c4), line 3 can't go into a module: write one line `from notes.x import y`"),
    'import in brackets': (['#| export\n\nfrom notes.a import (\n    b)'], 'writes', "cell 4 (id c4), line 3 can't go into a module: write one line"),
    'import over two lines': (['#| export\nfrom notes.a import \\\n    b'], 'writes', "cell 4 (id c4), line 2 can't go into a module: write one line"),
    'import behind code': (['#| export\ny = 2; from notes.a import b'], 'writes', "cell 4 (id c4), line 2 can't go into a module: write one line"),
    'second import in a line': (['#| export\nfrom notes.a import b; from notes.c import d'], 'writes', "cell 4 (id c4), line 2 can't go into a module: write one line"),
    'import with a tab': (['#| export\nfrom\tnotes.a import b'], 'writes', "cell 4 (id c4), line 2 can't go into a module: write one line"),
    '_all_': (['#| export\ny = 2\n_all_ = ["_y"]'], 'writes', "cell 4 (id c4), line 3 can't go into a module: `_all_`"),
    'module in a folder': ([dict(source='#| hide\n#| default_exp a.b')], 'writes', 'cell 4 (id c4), line 2: `a.b` can\'t name a module'),
    'module without a name': ([dict(source='#| default_exp')], 'raises', "cell 4 (id c4), line 1: `` can't name a module"),
    'module with two names': ([dict(source='# | default_exp a b')], 'raises', "cell 4 (id c4), line 1: `a b` can't name a module"),
    'two modules': ([dict(source='# | default_exp: other')], 'writes', 'needs one cell with `#| default_exp name`, and has 2'),
}

@pytest.mark.parametrize('row', ODD)
def test_odd_cells_are_exported_as_nbdev_does_or_refused(row, tmp_path):
    from nbdev.export import nb_export
    cells, nbdev, where = ODD[row]
    path = write_nb(tmp_path/'odd.ipynb', '# Odd\n\n> Cells', DEF, X, *cells)
    try: nb_export(str(path), lib_path=tmp_path/'theirs'/'notes')
    except Exception: did = 'raises'
    else:
        theirs = next((tmp_path/'theirs').rglob('*.py'))
        try: compile(theirs.read_bytes(), 'theirs', 'exec')
        except (SyntaxError, ValueError): did = 'broken'
        else: did = 'leaves out' if nbdev == 'leaves out' and cell_texts(theirs) == [('c3', 'x = 1')] else 'writes'
    assert did == nbdev, "nbdev does something else than it did: what should ours do?"
    if where:
        with pytest.raises(ValueError) as e: ex.export_notebook(path, tmp_path/'ours')
        assert where in str(e.value) and (re.search(r'odd\.ipynb, cell \d \(id c\d\), line \d', str(e.value)) or 'has 2' in str(e.value))
        assert not (tmp_path/'ours').exists()
    else: same_as_nbdev(path, tmp_path)

def test_odd_notebooks(tmp_path):
    "What isn't a cell's fault, and a null byte, which Python's versions take differently"
    with pytest.raises(ValueError, match=r"cell 2 \(id c2\), line \d can't go into a module"): ex.export_notebook(write_nb(tmp_path/'0.ipynb', DEF, '#| export\ny = "\0"'), tmp_path)
    for n, (cells, says) in enumerate([([DEF, 'x = 1'], 'nothing to export'), ([DEF], 'nothing to export'), ([X], 'has 0'), ([DEF, DEF, X], 'has 2'), ([], 'has 0')]):
        with pytest.raises(ValueError, match=says): ex.export_notebook(write_nb(tmp_path/f'{n}.ipynb', *cells), tmp_path/'ours')
    with pytest.raises(ValueError, match=r'cell 1 \(id c1\), line 1.*metadata'): ex.export_notebook(write_nb(tmp_path/'a.ipynb', DEF, X, metadata={'nbdev': {'export': 'true'}}), tmp_path)
    for n, cells in enumerate([['# Title', DEF, X], [DEF, '# Title\n\n> One\n>  and >more\n\n> not this', X], ['# T\n\n> Say "so" and \\n', DEF, X], ['Prose\n> none', DEF, X][1:]]):
        same_as_nbdev(write_nb(tmp_path/f'b{n}.ipynb', *cells), tmp_path/str(n))

def test_an_import_below_an_odd_line_end_is_made_relative(tmp_path):
    "Where nbdev counts lines as `str.splitlines` does, and leaves `from notes.a` as it is"
    assert ex._relative_imports('s = "\u2028"\nfrom notes.a import b', 'notes') == 's = "\u2028"\nfrom .a import b'
    assert ex._relative_imports('import os\n\f\nfrom notes.a import b', 'notes') == 'import os\n\f\nfrom .a import b'

@pytest.mark.parametrize('row', [r for r in ODD if not r.startswith('ends in')])
def test_all_read_one_cell_alike(row):
    "nbdev, the notebook's exporter, and what the runner, the tests and the site share"
    from fastcore.nbio import NbCell
    for s in ODD[row][0]:
        src, c = (s, NbCell(0, cell(1, s))) if isinstance(s, str) else (s['source'], NbCell(0, cell(1, {**s, 'metadata': {}})))
        assert directives.directives(src) == c.directives
        assert {k: v for k, v in ex._marks(src).items() if k} == c.directives
        c.remove_directives()
        assert directives.code_of(src) == c.source
        assert bool([*directives.passed_over(src)]) == any('nobody' in why or 'below' in why for _, why in ex._refused(src))

def test_marks_have_one_list(): assert ex._KNOWN == directives.KNOWN

def test_module_lands_in_the_given_folder_and_imports_relatively(tmp_path):
    write_nb(tmp_path/'0.ipynb', '#| default_exp one', '#| export\nx = 1')
    write_nb(tmp_path/'1.ipynb', '#| default_exp two', '#| export\nfrom notes.one import x\ny = x+1')
    for n in '01': ex.export_notebook(tmp_path/f'{n}.ipynb', tmp_path/'elsewhere')
    (tmp_path/'elsewhere'/'__init__.py').write_text('')
    out = subprocess.run([sys.executable, '-c', 'from elsewhere.two import y; print(y)'], cwd=tmp_path, capture_output=True, text=True)
    assert out.stdout.strip() == '2', out.stderr

@pytest.mark.parametrize('src,names', [
    ('x = y = 1', ['x', 'y']), ('a,(b,*c) = z', ['a']), ('x:int = 1', ['x']), ('d["k"] = 1\na.b = 1', []),
    ('def f(): pass\ndef f(): pass', ['f']), ('async def f(): pass', ['f']), ('class A: x = 1', ['A']), ('_x = 1\ndef _f(): pass', []),
    ('"""\ndef f(): pass\n"""', []), ('@patch\ndef f(self:A): pass', []), ('@patch_to(A)\ndef f(self): pass', []), ('@cache\ndef f(): pass', ['f']), ('@patches.more\ndef f(): pass', ['f']), ('x += 1', ['x']), ('', [])])
def test_public_names(src, names): assert ex._public_names(src) == names

@pytest.mark.parametrize('src,out', [
    ('from notes.a import b', 'from .a import b'), ('from notes import a', 'from . import a'), ('from  notes.a.b import c', 'from  .a.b import c'),
    ('from notesx.a import b', 'from notesx.a import b'), ('from x.notes.a import b', 'from x.notes.a import b'), 
    ('from notes.notes.a import b', 'from .notes.a import b'), ('from notes_.a import (\n    b)', 'from notes_.a import (\n    b)'), ('import os\rfrom notes.a import b', 'import os\rfrom .a import b'),
    ('s = """\nfrom notes.a import b"""', 's = """\nfrom notes.a import b"""'), ('# from notes.a import b', '# from notes.a import b')])
def test_relative_imports(src, out): assert ex._relative_imports(src, 'notes') == out

def test_relative_imports_of_another_package(): assert ex._relative_imports('from mine.a import b\nfrom notes.a import b', 'mine') == 'from .a import b\nfrom notes.a import b'

def test_marks_stop_at_the_first_line_of_code():
    assert ex._marks('#| export\n#|hide\n#| fig-alt: Two: words\nx\n#| echo: false') == {'export': '', 'hide': '', 'fig-alt': 'Two: words'}
    assert ex._marks('##| export') == ex._marks('') == {}
    assert ex._marks('\n%%time\n# | export\nx = 1') == {'export': ''}

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
    with pytest.raises(AssertionError, match='the largest is nan'): ex.test_near_zero([0., math.nan])

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
fails(ValueError, lambda: ex.rel_error(x, x[:1]))
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

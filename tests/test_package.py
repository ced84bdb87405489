"What `pip install` gives: built, installed in an environment of its own, imported and used outside the repo"
import builtins, dis, email, importlib, inspect, os, re, shutil, subprocess, sys, tarfile, types, venv, zipfile
import pytest
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib  # Python 3.10
from fastcore.docments import docments
from project import MODULES, ROOT, none

DATA = {f'notes/{n}' for n in ('mnist.npz', 'mnist_test.npz', 'mnist.LICENSE', 'fashion.npz', 'fashion_test.npz', 'fashion.LICENSE')}
each = pytest.mark.parametrize('module', MODULES)

def sh(*args, **kw):
    "Run a command without this process's PYTHONPATH; its output, or a failure that shows it"
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    r = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace', env={**env, 'MPLBACKEND': 'agg', 'PYTHONIOENCODING': 'utf-8'}, **kw)
    if r.returncode: pytest.fail(f"{' '.join(map(str, args))[:500]}\n\n{r.stdout[-5000:]}", pytrace=False)
    return r.stdout

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "(wheel, sdist), made from a copy of the checkout"
    d = tmp_path_factory.mktemp('build')
    shutil.copytree(ROOT, d/'src', ignore=shutil.ignore_patterns('.*', '_build', '_docs', 'build', 'dist', '*.egg-info', '__pycache__', 'nbs'))
    sh(sys.executable, '-m', 'build', '--no-isolation', '--outdir', d/'dist', d/'src')
    (wheel,), (sdist,) = (list((d/'dist').glob(p)) for p in ('*.whl', '*.tar.gz'))
    return wheel, sdist

@pytest.fixture(scope='module')
def fresh(built, tmp_path_factory):
    "The python of a fresh environment, outside the repo, that holds the wheel and what it asks for"
    d = tmp_path_factory.mktemp('env')
    venv.create(d, with_pip=True)
    python = d/('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    index = os.environ.get('TORCH_INDEX') or re.search(r'^TORCH_INDEX \?= (\S+)', (ROOT/'Makefile').read_text(encoding='utf-8'), re.M)[1]
    pip = [python, '-m', 'pip', 'install', '-q', '--no-compile', '-c', ROOT/'requirements.txt']
    sh(*pip, '--no-deps', '--retries', '1', '--extra-index-url', index, 'torch', cwd=d)  # torch for the CPU, as `make` installs it
    sh(*pip, built[0], cwd=d)
    return python

def test_other_torches_are_tried_on_every_module():
    "The workflow names its files one by one, since some tests want the pinned torch"
    named = (ROOT/'.github'/'workflows'/'test.yaml').read_text(encoding='utf-8')
    own = [p.name for p in (ROOT/'tests').glob('test_*.py') if p.stem[5:] in MODULES]
    assert len(own) > 9 and [n for n in own if f'tests/{n}' not in named] == []

@each
def test_a_module_can_be_read_at_a_sitting(module):
    "Lines of ours: the marks that nbdev writes above each cell are not"
    n = sum(not l.startswith('# %% ') for l in (ROOT/'notes'/f'{module}.py').read_text(encoding='utf-8').splitlines())
    assert n <= 400, f'notes/{module}.py has {n} lines: 400 are allowed'

def metadata(wheel):
    with zipfile.ZipFile(wheel) as z: return email.message_from_bytes(z.read(next(n for n in z.namelist() if n.endswith('.dist-info/METADATA'))))

def version(): return re.search(r'__version__ = "(.+)"', (ROOT/'notes'/'__init__.py').read_text(encoding='utf-8'))[1]

def test_wheel_holds_the_package_and_nothing_else(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as z: names = z.namelist()
    inside = {n for n in names if '.dist-info/' not in n}
    assert inside == {*DATA, *(f'notes/{p.name}' for p in (ROOT/'notes').glob('*.py'))}
    for licence in ('LICENSE', 'notes/mnist.LICENSE', 'notes/fashion.LICENSE'):
        with zipfile.ZipFile(wheel) as z: text = z.read(next(n for n in names if n.endswith(f'.dist-info/licenses/{licence}')))
        assert len(text) > 200 and text == (ROOT/licence).read_bytes()
    assert wheel.stat().st_size < 50e6, "the wheel may take 50 MB"
    m = metadata(wheel)
    assert (m['Name'], m['Version'], m['Requires-Python']) == ('foundation-notes', version(), '>=3.10')
    needs = {re.match(r'[\w-]+', r)[0] for r in m.get_all('Requires-Dist') if 'extra ==' not in r}
    none(sorted(imported() - needs), "Imported by notes/, and not among the requirements in settings.ini")
    none(sorted(needs - imported()), "Among the requirements in settings.ini, and not imported by notes/")

def imported():
    "Distributions that the modules of the package import"
    pat = re.compile(r'^\s*(?:from (\w+)[\w.]* import|import ((?:\w[\w.]*(?: as \w+)?,? ?)+))', re.M)
    tops = {n.strip().split()[0].split('.')[0] for p in (ROOT/'notes').glob('[!_]*.py') for m in pat.finditer(p.read_text(encoding='utf-8')) for n in (m[1] or m[2]).split(',') if n.strip()}
    return {{'PIL': 'pillow'}.get(n, n) for n in tops} - set(sys.stdlib_module_names) - {'notes'}

def test_sdist_holds_what_builds_it(built):
    with tarfile.open(built[1]) as t: names = {n.partition('/')[2] for n in t.getnames()}
    assert {'setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE', *DATA} <= names
    assert not [n for n in names if n.startswith(('tests', 'nbs', 'tools', '_'))]

def readme_example():
    m = re.search(r'^```python\n(.*?)^```', (ROOT/'README.md').read_text(encoding='utf-8'), re.S | re.M)
    assert m, "the README shows no python"
    return m[1]

@pytest.mark.parametrize('flags', [(), ('-O',)], ids=['', 'O'])
def test_readme_example(fresh, tmp_path, flags):
    code = readme_example()
    assert 'from notes.fully_connected import *' in code
    assert len([l for l in code.splitlines() if re.match(r'(?!from |import |#)\s*\S', l)]) <= 10, "ten lines should do"
    sh(fresh, *flags, '-c', code, cwd=tmp_path)

def test_wheel_works_outside_the_repo(fresh, tmp_path):
    modules = '\n'.join(f'from notes.{m} import *' for m in MODULES)
    out = sh(fresh, '-c', f'''{modules}
import notes, torch
from importlib.metadata import version
from notes.data import final_test_set, get_data, get_fashion
for f in (get_data, get_fashion): assert [tuple(t.shape) for t in f()] == [(50000, 784), (50000,), (10000, 784), (10000,)]
for name in ("mnist", "fashion"): assert [tuple(t.shape) for t in final_test_set(name)] == [(10000, 784), (10000,)]
assert version("foundation-notes") == notes.__version__
print(notes.__file__)''', cwd=tmp_path)
    assert str(fresh.parent.parent) in out, f"imported from elsewhere: {out}"

def test_sdist_installs_the_same(fresh, built, tmp_path):
    (tmp_path/'w').mkdir()
    sh(fresh, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', tmp_path/'w', built[1], cwd=tmp_path)
    again, = (tmp_path/'w').glob('*.whl')
    with zipfile.ZipFile(built[0]) as a, zipfile.ZipFile(again) as b:
        content = [{n: z.read(n) for n in z.namelist() if not n.endswith(('WHEEL', 'RECORD'))} for z in (a, b)]
    assert content[0] == content[1]
    sh(fresh, '-m', 'pip', 'uninstall', '-q', '-y', 'foundation-notes', cwd=tmp_path)
    gone = subprocess.run([fresh, '-c', 'import notes'], cwd=tmp_path, capture_output=True, env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'})
    assert gone.returncode, "notes comes from somewhere else"
    sh(fresh, '-m', 'pip', 'install', '-q', '--no-deps', '--no-compile', again, cwd=tmp_path)
    sh(fresh, '-c', 'import notes.data; assert len(notes.data.get_data()[0]) == 50000', cwd=tmp_path)

# Importing ------------------------------------------------------------------------------------------------------------

@each
def test_import_is_cheap(module):
    "Less of the processor's time than `import torch`, which takes some fifty times as long, and no heavy library"
    code = f'''import sys, time
start = time.process_time()
import torch
after = time.process_time()
import notes.{module}
print(time.process_time()-after < after-start, *[m for m in ("matplotlib", "numba", "IPython", "fastdownload", "PIL", "pandas") if m in sys.modules])'''
    less, *heavy = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}).stdout.split()
    none(heavy, f"import notes.{module} loads what only some functions use: import it in those")
    if less != 'True': pytest.fail(f"import notes.{module} takes longer than import torch", pytrace=False)

# What is exported -----------------------------------------------------------------------------------------------------

def load(module): return importlib.import_module(f'notes.{module}')
def own(m): return [getattr(m, n) for n in m.__all__ if getattr(getattr(m, n), '__module__', None) == m.__name__]

@each
def test_exports_are_documented(module):
    "A docstring of one line for every exported function and class, and a meaning for every parameter and result"
    missing = []
    for f in own(load(module)):
        doc = inspect.getdoc(f) or ''
        if not doc: missing.append(f"{f.__name__}: no docstring")
        if '\n' in doc: missing.append(f"{f.__name__}: the docstring has more than one line; the rest belongs into the prose")
        d = docments(f, full=True)
        missing += [f"{f.__name__}: parameter {n}" for n, p in d.items() if n not in ('return', 'self', 'args', 'kwargs') and not p['docment']]
        if inspect.isfunction(f) and (r := d.get('return')) and r['anno'] not in (None, inspect.Parameter.empty, type(None)) and not r['docment']: missing.append(f"{f.__name__}: what it returns")
    none(missing, f"notes.{module}: without a meaning")

@each
def test_no_undefined_names(module):
    "Every global name in the exported code exists (star imports hide this from ruff)"
    m = load(module)
    def codes(c):
        yield c
        for k in c.co_consts:
            if isinstance(k, types.CodeType): yield from codes(k)
    top = compile(inspect.getsource(m), m.__file__, 'exec')
    used = {i.argval for c in codes(top) if c is not top for i in dis.get_instructions(c) if i.opname == 'LOAD_GLOBAL'}
    none(sorted(n for n in used if not hasattr(m, n) and not hasattr(builtins, n)), f"notes/{module}.py: used and never defined")

@each
def test_all_names_what_exists(module):
    m = load(module)
    assert len(set(m.__all__)) == len(m.__all__) and all(hasattr(m, n) for n in m.__all__)

# For those who work on it ------------------------------------------------------------------------------------------------

def test_quick_chooses_the_tests_of_one_notebook():
    import sys
    sys.path.insert(0, str(ROOT/'tools'))
    import quick
    path, = quick.notebooks(['02a'])
    chosen = subprocess.run([sys.executable, '-m', 'pytest', '--collect-only', '-q', '-n0', *quick.tests_of(path)], cwd=ROOT, capture_output=True, text=True, encoding='utf-8').stdout.splitlines()
    tests = [t for t in chosen if '::' in t]
    of = lambda file: [t for t in tests if t.startswith(f'tests/{file}::')]
    assert len(of('test_modules.py')) > 10 and of('test_answers.py') and len(of('test_notebooks.py')) > 10 and len(tests) == sum(len(of(f'test_{n}.py')) for n in ('modules', 'answers', 'notebooks'))
    assert not [t for t in tests if '02_fully_connected' in t] and any('test_stored_outputs[02a_modules]' in t for t in tests)

def test_citation_agrees_with_the_package():
    "CITATION.cff holds what the format asks for, and the version and the address that hold elsewhere"
    import yaml
    c = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert {'cff-version', 'message', 'title', 'authors', 'version', 'license', 'type'} <= c.keys()
    assert c['cff-version'] == '1.2.0' and c['type'] == 'software' and c['version'] == version()
    assert all(a.keys() <= {'name', 'given-names', 'family-names', 'orcid', 'affiliation', 'email', 'website'} and a for a in c['authors'])
    project = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']
    assert [a['name'] for a in c['authors']] == [a['name'] for a in project['authors']] and project['license'] == ' AND '.join([c['license'], *(r['license'] for r in c['references'] if r['type'] == 'data')])
    assert c['abstract'] == project['description'] + '.' and '/OWNER/' not in str(c)
    if '/OWNER/' not in (url := project['urls']['Repository']): assert c['repository-code'] == url

def test_documents_name_what_exists():
    "Functions and files that SECURITY.md and CONTRIBUTING.md speak of"
    names = {n for m in MODULES for n in vars(load(m))}
    text = (ROOT/'SECURITY.md').read_text(encoding='utf-8')
    none([n for n in re.findall(r'`(\w+)\(?\)?`', text) if n not in names and n not in {'make'}], "SECURITY.md speaks of what the package doesn't have")
    for doc in ('SECURITY.md', 'CONTRIBUTING.md'):
        text = (ROOT/doc).read_text(encoding='utf-8')
        none([p for p in re.findall(r'`((?:tests|tools|notes|nbs|bench)/[\w./]+)`', text) if not (ROOT/p).exists()], f"{doc} speaks of files that aren't there")

"The notebooks: in sync with the package, outputs that a fresh run gives again, and the house's rules"
import ast, base64, importlib, io, json, os, re, shutil, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import nbformat, pytest
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib  # Python 3.10
from PIL import Image, ImageDraw
import count, lint, outputs, project
from directives import directives
from project import PATHS, ROOT, none, read

runner = project.runner()
FRESH = ROOT/'_build'/'nbs'
each = pytest.mark.parametrize('path', PATHS, ids=lambda p: p.stem)

# In sync, clean ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "A copy of the project, its modules written afresh from its notebooks, and the notebooks cleaned"
    d = tmp_path_factory.mktemp('export')
    shutil.copytree(ROOT/'nbs', d/'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints', '__pycache__'))
    (d/'notes').mkdir()
    for f in [ROOT/'notes'/'__init__.py', *(p for p in ROOT.iterdir() if p.suffix in ('.toml', '.ini', '.md') or p.name == 'setup.py')]: shutil.copy(f, d/f.relative_to(ROOT))
    sh = lambda module, name: subprocess.run([sys.executable, '-c', f'from nbdev.{module} import {name}; {name}()'], cwd=d, check=True, env={**os.environ, 'PYTHONPATH': str(d)})
    sh('doclinks', 'nbdev_export')
    sh('clean', 'nbdev_clean')
    return d

def test_modules_are_the_notebooks_exports(exported):
    fresh, here = ({p.name: p.read_text(encoding='utf-8') for p in (d/'notes').glob('*.py')} for d in (exported, ROOT))
    none(sorted(here.keys() - fresh.keys()), "Stale modules in notes/, which no notebook exports: delete them")
    none(sorted(n for n in fresh if fresh[n] != here.get(n)), "Modules in notes/ that are not what the notebooks export: run `make export` (and make changes in nbs/)")

@each
def test_clean(exported, path):
    if (exported/'nbs'/path.name).read_text(encoding='utf-8') != path.read_text(encoding='utf-8'): none([path.name], "nbdev-clean changes this notebook: run `.venv/bin/nbdev-clean`")

def test_one_module_each():
    "Two notebooks with one `default_exp` would overwrite each other in silence"
    mods = [(runner.module_of(read(p)), p.name) for p in PATHS]
    none([n for m, n in mods if not m], "Notebooks without `#| default_exp`")
    none([f"{n}: {m}" for m, n in mods if [k for k, _ in mods].count(m) > 1], "Notebooks that export one module")
    none([f"{p.name}: {d}" for p in PATHS for c in read(p).cells if c.cell_type == 'code' for k, d in directives(c.source).items() if k in ('export', 'exports', 'exporti') and d],
         "Exports into another notebook's module")

if os.environ.get('CI') and (ROOT/'.git').exists():  # `make` exports before the tests run: in CI that must have changed nothing
    def test_checkout_is_as_committed():
        none(subprocess.run(['git', 'status', '--porcelain'], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines(),
             "Export and clean change what is committed: run `make export`, and commit")

# Stored outputs are fresh ones --------------------------------------------------------------------------------------------

@each
def test_stored_outputs(path):
    fresh, cache = FRESH/path.name, ROOT/'_build'/'cache'/f'{path.stem}.json'
    if not (fresh.exists() and cache.exists() and json.loads(cache.read_text(encoding='utf-8'))['key'] == runner.key(path)):
        none([path.name], "No fresh run, or an older one than the code, the modules or the pinned versions: `make run` first")
    none(outputs.differences(read(path), read(fresh)), f"{path.name}: the stored outputs are not those of a fresh run; `make store` stores them")

def test_no_run_left_over():
    none(sorted(p.name for p in FRESH.glob('*.ipynb') if not (ROOT/'nbs'/p.name).exists()), "_build/nbs has runs of notebooks that are gone: `make clean`")

# The runner ---------------------------------------------------------------------------------------------------------------

@pytest.fixture
def run_cells(tmp_path, monkeypatch):
    "Runs a notebook of the given cells as `make run` does; returns the seconds it took, None where it was up to date"
    monkeypatch.setattr(runner, 'NBS', tmp_path/'nbs')
    monkeypatch.setattr(runner, 'BUILD', tmp_path/'_build')
    (tmp_path/'nbs').mkdir()
    def f(*sources):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s, id=f'c{i}') for i, s in enumerate(sources)])
        path = tmp_path/'nbs'/'00_x.ipynb'
        nbformat.write(nb, path)
        return runner.run(path, lambda: None)
    f.fresh = tmp_path/'_build'/'nbs'/'00_x.ipynb'
    return f

def test_run_is_kept_until_the_code_changes(run_cells):
    assert run_cells('x = 1', 'x+1') and run_cells('x = 1', 'x+1') is None
    assert read(run_cells.fresh).cells[1].outputs[0].data['text/plain'] == '2'
    assert run_cells('x = 1', 'x+2')
    assert read(run_cells.fresh).cells[1].outputs[0].data['text/plain'] == '3'

def test_run_is_kept_until_the_figures_change(run_cells, tmp_path, monkeypatch):
    "Those of bench/results/ that a cell reads"
    monkeypatch.setattr(runner, 'ROOT', tmp_path)
    (tmp_path/'bench'/'results').mkdir(parents=True)
    cell = "'mine.json'"
    assert run_cells(cell)
    for name, again in (('other', False), ('mine', True)):
        (tmp_path/'bench'/'results'/f'{name}.json').write_text('{}')
        assert bool(run_cells(cell)) == again

def test_failing_cell_is_shown(run_cells):
    with pytest.raises(runner.CellFailed) as e: run_cells('x = 0', 'y = 1\n1/x')
    for part in ('00_x.ipynb', 'cell 2', 'id c1', 'y = 1\n1/x', 'ZeroDivisionError: division by zero'): assert part in str(e.value)
    assert not run_cells.fresh.exists()

def test_no_network(run_cells):
    "Neither by address nor by name; the machine itself may be asked"
    tries = 'import socket\ndef f(*a):\n    try: socket.create_connection(a, timeout=5)\n    except OSError as e: return str(e)\n'
    run_cells(tries, 'f("192.0.2.1", 80)', 'f("example.com", 80)', 's = socket.create_server(("127.0.0.1", 0))\nf(*s.getsockname())')
    said = [c.outputs[0].data['text/plain'] if c.outputs else None for c in read(run_cells.fresh).cells]
    assert 'without a network' in said[1] and 'without a network' in said[2] and said[3] is None

def test_directives_tell_who_is_alone():
    "Others run beside each other, nothing runs beside one that is alone, and it doesn't wait for ever"
    turns, log, lock, gate = runner.Turns(), [], threading.Lock(), threading.Barrier(2, timeout=60)
    def work(name, alone, meet=None):
        with turns.turn(alone):
            with lock: log.append(('in', name))
            if meet: meet.wait()
            time.sleep(.01)
            with lock: log.append(('out', name))
    with ThreadPoolExecutor(2) as pool: [f.result() for f in [pool.submit(work, n, False, gate) for n in 'ab']]  # each waits for the other to be in
    log.clear()
    def worker(name, cells):
        for alone in cells: work(name, alone)
    with ThreadPoolExecutor(3) as pool: [f.result() for f in [pool.submit(worker, 'a', [True]*5), pool.submit(worker, 'b', [False]*50), pool.submit(worker, 'c', [True, False]*5)]]
    inside = []
    for what, name in log:
        inside = [*inside, name] if what == 'in' else [n for n in inside if n != name]
        assert 'a' not in inside or inside == ['a'], log
    assert not inside and len(log) == 2*65 and log.index(('out', 'a')) < 60, "whoever wants to be alone goes first"
    turns.stop()
    with pytest.raises(runner.Stopped):
        with turns.turn(): pass

@pytest.fixture
def run_all(tmp_path, monkeypatch, capsys):
    "Runs notebooks, given as name -> cells, as tools/run.py does; returns its exit code and what it printed"
    monkeypatch.setattr(runner, 'NBS', tmp_path/'nbs')
    monkeypatch.setattr(runner, 'BUILD', tmp_path/'_build')
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    (tmp_path/'nbs').mkdir()
    def f(*names, **notebooks):
        for name, sources in notebooks.items():
            nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s, id=f'c{i}') for i, s in enumerate(sources)]), tmp_path/'nbs'/f'{name[1:]}.ipynb')
        monkeypatch.setattr(sys, 'argv', ['run.py', *names])
        code = 0
        try: runner.main()
        except SystemExit as e: code = e.code
        return code, capsys.readouterr().out
    f.fresh = lambda name: [''.join(o.data['text/plain'] for o in c.outputs) for c in read(tmp_path/'_build'/'nbs'/f'{name}.ipynb').cells]
    return f

def test_two_run_at_a_time_and_a_measuring_cell_alone(run_all):
    "Each on one thread; alone with the machine's, unless the notebook says how many"
    took = 'import time\nstart = time.time()\ntime.sleep(.3)\nstart, time.time()'
    threads = 'import os, torch\nos.environ["OMP_NUM_THREADS"], torch.get_num_threads()'
    code, _ = run_all(n00_a=[took, took, '#| alone: true\n'+took, took, threads, '#| alone: true\ntorch.get_num_threads()', threads],
                      n01_b=['import os, torch\ntorch.set_num_threads(1)', '#| alone: true\ntorch.get_num_threads()', *[took]*6])
    a, b = run_all.fresh('00_a'), run_all.fresh('01_b')
    assert code == 0 and a[4:] == ["('1', 1)", '2', "('1', 1)"] and b[1] == '1'
    start, end = ast.literal_eval(a[2])
    others = [ast.literal_eval(t) for t in (a[0], a[1], a[3], *b[2:])]
    assert all(e <= start or s >= end for s, e in others), "nothing beside the cell that is alone"

def test_a_failure_stops_the_others(run_all):
    start = time.perf_counter()
    code, said = run_all(n00_a=['1', 'import time\ntime.sleep(3000)', '2'], n01_b=['1/0'], n02_c=['3'])
    assert code == 1 and time.perf_counter()-start < 1000
    assert '01_b.ipynb, cell 1 (id c0)' in said and 'ZeroDivisionError' in said and 'KeyboardInterrupt' not in said
    assert [w for w in ('stopped', 'failed', '02_c') if w in said] == ['stopped', 'failed']

def test_storing_writes_what_others_read(run_all):
    "Folds, the texts of pictures, and the language"
    code, said = run_all('--store', n00_a=[f"#| code-summary: A picture\n#| fig-alt: A curve that rises.\nfrom IPython.display import Image\nimport base64\nImage(base64.b64decode('{curve()}'))"])
    stored = read(runner.NBS/'00_a.ipynb')
    assert code == 0 and stored.metadata.language_info == runner.LANGUAGE and stored.cells[0].metadata == {'jupyter': {'source_hidden': True}, 'cellView': 'form'}
    assert stored.cells[0].outputs[0].metadata == {'image/png': {'alt': 'A curve that rises.'}}

def test_names_of_notebooks(run_all):
    run_all(n02_full=['1'], n02a_mod=['2'], n03_x=['3'])
    names = lambda *n: [p.stem for p in runner.notebooks(n)]
    assert names('02') == names('02_full') == names('02_f') == ['02_full'] and names('02a', '03') == ['02a_mod', '03_x'] and len(names()) == 3
    for wrong in ('04', '0', '02b'):
        with pytest.raises(SystemExit, match=f'no one notebook {wrong} in'): names(wrong)

# The house's rules --------------------------------------------------------------------------------------------------------

@each
@pytest.mark.parametrize('rule', lint.RULES, ids=lambda r: r.__name__)
def test_rules(path, rule): none(lint.broken(read(path), path, [rule]), f"{path.name}: {rule.__doc__}")

def test_terms():
    "Each is marked once, and the words that readers look for are among them"
    sys.path.append(str(ROOT/'tools'/'site'))
    import glossary
    found = {t.lower() for t in glossary.collect({p.stem: read(p) for p in PATHS})}
    none([t for t in ('gradient', 'autograd', 'learning rate', 'epoch', 'overfitting', 'regularisation', 'test set', 'iqr') if t not in found], "No notebook marks these as <dfn>term</dfn>")

@each
def test_light_enough_to_read(path):
    n = count.count(read(path))
    none([f"{k}: {count.show(k, n[k])}, at most {count.show(k, count.most(k, n))}" for k in count.over(n)], f"{path.name} is too heavy (tools/count.py says what is counted)")

@each
def test_no_undefined_names(path):
    "Star imports hide them from ruff: here each is written out"
    def names(m):
        mod = importlib.import_module(m[1])
        return f"from {m[1]} import {', '.join(getattr(mod, '__all__', [n for n in vars(mod) if n[0] != '_']))}"
    code = '\n'.join(lint.TransformerManager().transform_cell(c.source) for _, c in lint.cells(read(path), 'code') if c.source.strip() != lint.HIDDEN)
    code = re.sub(r'^from (\S+) import \*', names, code, flags=re.M)
    r = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--isolated', '-q', '--select', 'F821', '--output-format', 'concise', '-'], input=code, capture_output=True, text=True, encoding='utf-8')
    none(r.stdout.splitlines(), f"{path.name}: used and never defined")

@each
def test_exports_are_shown(path):
    "Every exported name is used in the notebook, in a cell other than the one that defines it"
    nb = read(path)
    module = (ROOT/'notes'/f'{runner.module_of(nb)}.py').read_text(encoding='utf-8')
    names = re.search(r'__all__ = \[(.*?)\]', module, re.S)
    cells = [c.source for c in nb.cells if c.cell_type == 'code']
    none([n for n in re.findall(r"'(\w+)'", names[1] if names else '')
          if not any(re.search(rf'\b{n}\b', s) and not re.search(rf'^(def|class) {n}\b|^{n} *=', s, re.M) for s in cells)], f"{path.name}: exported and never used")

# The comparison can fail --------------------------------------------------------------------------------------------------

def stream(text, name='stdout'): return nbformat.v4.new_output('stream', text=text, name=name)
def result(**data): return nbformat.v4.new_output('execute_result', data={k.replace('_', '/'): v for k, v in data.items()})
def png(draw, size=(320, 240)):
    im = Image.new('RGB', size, 'white')
    draw(ImageDraw.Draw(im))
    buf = io.BytesIO()
    im.save(buf, 'png')
    return base64.b64encode(buf.getvalue()).decode()
def curve(dy=0, **k): return png(lambda d: d.line([(x, 120 + dy + (x*37 % 80)) for x in range(20, 300, 20)], fill='black', width=2), **k)
def notebook(*outs, source='1', kind='code'):
    c = nbformat.v4.new_code_cell(source, outputs=list(outs)) if kind == 'code' else nbformat.v4.new_markdown_cell(source)
    c.id = 'a1'
    return nbformat.v4.new_notebook(cells=[c])
def diff(a, b, source='1'): return outputs.differences(notebook(a, source=source), notebook(b, source=source))

TEXTS = dict(tensor='tensor([-0.0058,  0.9924])', count='50,000 images of 784 pixels', name="'kaiming_uniform'", norm='15.9060', small='2.5e-05',
             table='<table><tr><td>row</td><td>0.1304</td></tr></table>', item='1.2345678806304932')

@pytest.mark.parametrize('kind', ['text_plain', 'text_html', 'text_markdown', 'stream'])
@pytest.mark.parametrize('a,b', [
    (TEXTS['tensor'], 'tensor([-0.0057,  0.9924])'), (TEXTS['tensor'], 'tensor([ 0.0058,  0.9924])'), (TEXTS['tensor'], 'tensor([-0.0058,  0.9926])'),
    (TEXTS['tensor'], 'tensor([-0.0058])'), (TEXTS['count'], '50,001 images of 784 pixels'), (TEXTS['count'], '50,000 images of 785 pixels'), (TEXTS['count'], '50,000 pictures of 784 pixels'),
    (TEXTS['name'], "'kaiming_normal'"), (TEXTS['norm'], '15.9090'), (TEXTS['norm'], '15.9960'), (TEXTS['small'], '3.5e-05'), (TEXTS['small'], '2.5e-04'),
    (TEXTS['table'], TEXTS['table'].replace('0.1304', '0.1307')), (TEXTS['table'], TEXTS['table'].replace('row', 'column')), (TEXTS['item'], '1.2349678806304932'),
    ('True', 'False'), ('x', ''), ('0.1', 'nan'), ('< 1e-6', '> 1e-6')])
def test_changed_text_is_caught(kind, a, b):
    out = stream if kind == 'stream' else lambda t: result(**{kind: t})
    assert diff(out(a), out(b)) and diff(out(b), out(a))
    assert not diff(out(a), out(a))

@pytest.mark.parametrize('a,b', [
    ('1.23456780', '1.23456801'), ('0.9924', '0.9923'), ('tensor([1., 2.])', 'tensor([1.0000, 2.0000])'), ('3e-9', '7e-10'), ('tensor([ 0.0000])', 'tensor([-0.0000])'),
    ('<function f at 0x7f0012345678>', '<function f at 0x7f99abcdef01>'), ('/home/a/notes/x.py', '/tmp/b c/../d/notes/x.py'.replace('b c/../', '')), ('/tmp/tmpab12cd34/x', '/var/tmp/tmpzz99yy88/x'),
    ('10%\r50%\r100%', '20%\r100%')])
def test_harmless_difference_is_none(a, b):
    assert not diff(stream(a), stream(b)) and not diff(result(text_plain=b), result(text_plain=a))

@pytest.mark.parametrize('a,b', [('12.3 µs ± 4.5 ns per loop, 10,000 loops', '1.2 ms ± 300 µs per loop, 100 loops'), ('| a | 3 GFLOP/s | 75,000× |', '| a | 12.34 GFLOP/s | 9× |')])
def test_masks(a, b):
    numbers = '#| varies: numbers\ntimeit(f)'
    assert diff(stream(a), stream(b)) and not diff(stream(a), stream(b), numbers)
    assert diff(stream(a), stream(b.replace('loop', 'turn').replace('a', 'b')), numbers), "words still count"
    assert diff(stream(a), stream(b.replace('12.34', '').replace('300', '')), numbers), "a number must be there"
    assert not diff(stream('anything'), stream('else'), '#| varies: text\nf()') and diff(stream('anything'), stream(''), '#| varies: text\nf()')
    assert diff(stream(a), stream(b), '#| varies: picture\nf()')

def test_kinds_and_counts():
    one, two = stream('a 1\n'), stream('b 2\n')
    nb = lambda *o: notebook(*o)
    assert not outputs.differences(nb(stream('a 1\nb 2\n')), nb(one, two)), "streams that follow each other are one"
    assert outputs.differences(nb(one), nb(stream('a 1\n', 'stderr')))
    assert outputs.differences(nb(one), nb()) and outputs.differences(nb(), nb(one))
    assert outputs.differences(nb(result(text_plain='1')), nb(one))
    assert outputs.differences(nb(result(text_plain='1')), nb(nbformat.v4.new_output('display_data', data={'text/plain': '1'})))
    assert outputs.differences(nb(result(text_plain='1')), nb(result(text_plain='1', text_html='<b>1</b>')))
    error = lambda v: nbformat.v4.new_output('error', ename='ValueError', evalue=v, traceback=[])
    assert outputs.differences(nb(error('(2, 3) and (4,)')), nb(error('(2, 3) and (5,)')))
    assert not outputs.differences(nb(error('x')), nb(error('x')))

def test_other_cells_are_caught():
    assert outputs.differences(notebook(stream('1'), source='f(1)'), notebook(stream('1'), source='f(2)'))
    assert outputs.differences(notebook(), nbformat.v4.new_notebook())
    assert outputs.differences(notebook(source='# A', kind='markdown'), notebook(source='# B', kind='markdown'))

def test_pictures():
    pic = lambda data, **k: result(image_png=data, text_plain='<Figure>')
    assert not diff(pic(curve()), pic(curve()))
    assert not diff(pic(curve()), pic(curve(size=(321, 240)))), "a pixel more at the edge is harmless"
    assert diff(pic(curve()), pic(curve(dy=3))), "a curve that moved"
    assert diff(pic(curve()), pic(png(lambda d: d.ellipse((50, 50, 150, 150), fill='blue'))))
    assert diff(pic(curve()), pic(curve(size=(400, 240))))
    assert diff(pic(curve()), pic(png(lambda d: None)))
    assert not diff(pic(curve()), pic(curve(dy=9)), '#| varies: picture\nplot(timings)')
    assert diff(pic(curve()), result(text_plain='<Figure>'), '#| varies: picture\nplot(timings)'), "there must be one"
    svg = lambda y: result(**{'image_svg+xml': f'<svg><path d="M 0 {y}"/></svg>'})
    assert diff(svg(1.25), svg(1.75)) and not diff(svg(1.25), svg(1.25))

def test_pictures_inside_html():
    page = lambda data, t='1.50': result(text_html=f'<figure><img src="data:image/png;base64,{data}"> {t}</figure>')
    assert not diff(page(curve()), page(curve()))
    assert diff(page(curve()), page(curve(dy=5))) and diff(page(curve()), page(curve(), '2.50'))
    assert not diff(page(curve()), page(curve(dy=5)), '#| varies: picture\nx')
    assert diff(page(curve()), page(curve(), '2.50'), '#| varies: picture\nx')

@each
def test_hand_changed_outputs_are_caught(path):
    "In every stored text that isn't masked the first number that is 0.001 or more, and in every picture a square of 12 pixels"
    nb, missed = read(path), []
    for i, c in lint.cells(nb, 'code'):
        masks = outputs.varies(c['source'])
        for o in c['outputs']:
            bundle = {'text/plain': o['text']} if 'text' in o else o.get('data', {})
            for kind, value in bundle.items():
                if kind in ('text/plain', 'text/html', 'text/markdown') and not masks & {'numbers', 'text'}:
                    changed = change_number(value)
                    if changed and not outputs.text_difference(value, changed): missed.append(f"{lint.where(i, c)}: {value[:60]!r}")
                if kind == 'image/png' and 'picture' not in masks:
                    raw = base64.b64decode(value)
                    if not outputs.picture_difference(raw, change_square(raw)): missed.append(f"{lint.where(i, c)}: a square of the picture")
    none(missed, f"{path.name}: changed by hand and not caught")

def change_square(raw):
    im = Image.open(io.BytesIO(raw)).convert('RGB')
    box = (im.width//2, im.height//2, im.width//2+12, im.height//2+12)
    im.paste(im.crop(box).point(lambda v: (v+128) % 256), box)
    buf = io.BytesIO()
    im.save(buf, 'png')
    return buf.getvalue()

def change_number(text):
    "`text` with a digit of its first number changed, the third of those that count or the last before it; or None"
    clean = re.sub(r'<[^>]*>', lambda m: ' '*len(m[0]), text)
    for m in re.finditer(r'(?<![\w./\\-])\d+\.?\d*(?![\w./\\-])', clean):
        if float(m[0]) < 1e-3: continue
        digits = [j for j, ch in enumerate(m[0]) if ch.isdigit() and float(m[0][:j+1]) > 0]
        j = m.start() + digits[min(2, len(digits)-1)]
        return text[:j] + str((int(text[j])+1) % 10) + text[j+1:]

# The rules can fail -------------------------------------------------------------------------------------------------------

HEAD = '| stands on | builds | minutes |\n|---|---|---|\n'
GOOD = [('markdown', '# Title\n\n> One promise'), ('code', '#| default_exp x'),
        ('markdown', f'It stands on $a_b$ and costs \\$5. See [below](#more-of-it).\n\n{HEAD}| [00_exports](00_exports.ipynb) | `f` | 5 |'), ('code', lint.HIDDEN), ('markdown', '## More of it\n\nA 5×784 matrix, three times; `3 ms` is code.'), ('code', '#| export\nimport math'),
        ('code', '#| export\ndef f(x): return x.squeeze(-1)'), ('markdown', '## Summary\n\n- Done\n- Next, [00a_data](00a_data.ipynb): more'),
        ('markdown', '## Questions\n\n<details><summary>Why?</summary>\n\nSo:\n\n```python\nassert f(1)\n```\n\n</details>'), ('markdown', '## Further reading')]

def made(*changes, outs=()):
    "The good notebook with cells put in before the summary; `outs` are the outputs of the last of them"
    cells = GOOD[:7] + list(changes) + GOOD[7:]
    nb = nbformat.v4.new_notebook(cells=[(nbformat.v4.new_code_cell if k == 'code' else nbformat.v4.new_markdown_cell)(s) for k, s in cells])
    for i, c in enumerate(nb.cells): c.id = f'c{i}'
    if outs: nb.cells[6+len(changes)].outputs = list(outs)
    runner.dress(nb)
    return nb

def found(nb): return {m.partition(':')[0] for m in lint.broken(nb, ROOT/'nbs'/'00_x.ipynb')}

def test_good_notebook_passes(): assert lint.broken(made(), ROOT/'nbs'/'00_x.ipynb') == []

MD = [('portable', s) for s in (':::{note}\nx\n:::', '{{< include x >}}', '```{note}\nx\n```', 'see {ref}`x`', '<div>x</div>', '> [!NOTE]\n> x', 'a[^1]', '\\(x\\)', 'costs $5',
                                '<details><summary>q</summary>\nx\n\n</details>', '<details><summary>q</summary>\n\nx\n</details>', '<!-- x -->', '<details>')] + \
     [('measured', s) for s in ('It takes 12.3 µs.', 'It takes 3 ms', 'now 1.5 seconds', 'about 20 GFLOP/s', 'at 12 GB/s', 'some 75,000× quicker', '$45{,}000$ is 3,700 times faster', 'ten times as fast', 'it took 4 s', 'two to three times slower')] + \
     [('alt_text', '![](x.png)'), ('alt_text', '<img src="x.png">'), ('links', '[x](99_none.ipynb)'), ('links', '[x](#nowhere)'), ('links', '[x](http://a.b)'), ('structure', '#### Too deep'), ('structure', '# Twice'), ('structure', ' '),
      ('questions', '<details><summary>q</summary>\n\n```\ncode\n```\n\n</details>'), ('directive_lines', '#| hide\nWords'), ('directive_lines', '\n# | export')]
CODE = [('code', s) for s in ('#| export\ndef f(x): return x.squeeze()', '#| export\ndef f(x): return torch.squeeze(x)', 'assert True', 'raise NotImplemented', 'pickle.load(f)', '#| export\ndef f(x): assert x', 'import os\nos.getcwd()',
                              'def f(input): return 1', 'try: f()\nexcept: pass', '\n'.join(f'x = {i}' for i in range(31)), 'x = (')] + \
       [('directive_lines', '#| exprt\nx'), ('directive_lines', '#| varies: colours\nx'), *(('directive_lines', s) for s in ('x = 1\n#| hide\ny = 2', 'x = 1\n# | hide', '# Why\n#| hide\nx', 'x = 1 #| hide', "!echo it's\n#| hide", '# | hide\nx', '#|hide\nx', ' #| hide\nx', '#| exports\nx', '#|\nx')),
        ('needless_masks', '#| varies: numbers\nx+1'), ('alt_text', '#| fig-alt: A curve that rises.\nf()')]

@pytest.mark.parametrize('rule,source', MD)
def test_bad_prose_is_caught(rule, source): assert rule in found(made(('markdown', source)))

@pytest.mark.parametrize('rule,source', CODE)
def test_bad_code_is_caught(rule, source): assert rule in found(made(('code', source)))

@pytest.mark.parametrize('source', ['A 28×28 picture: $3\\times 4$ of 5 × 6.', 'in the 1980s', 'repeat it ten times', '`timeit` says; `12 ms` is code', '```python\nx = "3 ms"\n```', 'H2O<sub>2</sub> and 10 MB'])
def test_harmless_prose_passes(source): assert not found(made(('markdown', source)))

@pytest.mark.parametrize('source', ['#| export\n#| code-summary: What it does\nx = 1', '#| code-summary:\nx', '#| code-summary: true\nx', '#| code-summary: what it does\nx',
                                    '#| code-summary: What it does.\nx', '#| code-summary: What `f` does\nx', '# | code-summary: What it does\nx'])
def test_bad_folds_are_caught(source): assert 'folds' in found(made(('code', source)))

def test_metadata_that_fold_otherwise_are_caught():
    assert not found(made(('code', '#| code-summary: What it does\n#| export\ny = 1'), ('code', '#| hide\ny')))
    for i, change in ((7, {}), (7, {'jupyter': {'source_hidden': True}}), (7, {'jupyter': {'source_hidden': False}, 'cellView': 'form'}), (8, {'cellView': 'form'})):
        nb = made(('code', '#| code-summary: What it does\nx'), ('code', 'y'))
        nb.cells[i].metadata = nbformat.from_dict(change)
        assert found(nb) == {'dressed'}

def test_metadata_of_pictures_and_language_are_written_and_missed():
    nb = made(('code', '#| fig-alt: A curve "that" rises.\nf()'), outs=[result(image_png=curve(), text_plain='Figure'), result(text_plain='1')])
    assert [o.metadata for o in nb.cells[7].outputs] == [{'image/png': {'alt': 'A curve "that" rises.'}}, {}] and not found(nb)
    for change in (lambda nb: nb.cells[7].outputs[0].metadata.clear(), lambda nb: nb.metadata.pop('language_info'), lambda nb: nb.metadata.language_info.update(version='3.11.2')):
        other = nbformat.from_dict(json.loads(json.dumps(nb)))
        change(other)
        assert found(other) == {'dressed'}

def test_what_others_make_of_the_metadata():
    "nbconvert's script is Python, and its page of old says what is in a picture (JupyterLab, and nbconvert's page like it, read no alternative text); nbdev-clean keeps all of it"
    from nbconvert import HTMLExporter, ScriptExporter
    from nbdev.clean import clean_nb
    nb = made(('code', '#| code-summary: How it is drawn\n#| fig-alt: A curve that rises.\nf()'), outs=[result(image_png=curve(), text_plain='Figure')])
    text, how = ScriptExporter().from_notebook_node(nb)
    assert how['output_extension'] == '.py' and compile(text, 'x', 'exec')
    assert 'alt="A curve that rises."' in HTMLExporter(template_name='classic').from_notebook_node(nb)[0]
    keys = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['tool']['nbdev']
    cleaned = json.loads(json.dumps(nb))
    clean_nb(cleaned, repair=False, **{k: v for k, v in keys.items() if k.startswith('allowed')})
    assert cleaned['metadata'] == nb.metadata and [c['metadata'] for c in cleaned['cells']] == [c.metadata for c in nb.cells] and cleaned['cells'][7]['outputs'][0]['metadata'] == nb.cells[7].outputs[0].metadata

@each
def test_a_script_of_it_is_python(path):
    from nbconvert import ScriptExporter
    text, how = ScriptExporter().from_notebook_node(read(path))
    assert how['output_extension'] == '.py'
    compile(text, path.name, 'exec')

def test_bad_reaches_are_caught():
    cell, shown = ('code', '#| reaches: {} of ten thousand\nx'), [result(text_plain="'98%'")]
    assert not found(made(cell, outs=shown))
    assert found(made(cell)) == {'reach'}
    for other in ('reaches: much', 'reaches: {} of {}', 'reaches:'): assert found(made(('code', f'#| {other}\nx'), outs=shown)) == {'reach'}
    nb = made(cell, cell, outs=shown)
    nb.cells[7].outputs = shown
    assert found(nb) == {'reach'}

@pytest.mark.parametrize('old,new', [('| 5 |', '| 10 |'), ('| 5 |', '| five |'), (' minutes |', ' time |'), ('[00_exports](00_exports.ipynb)', 'the first'), ('(00_exports.ipynb)', '(05_learner.ipynb)'),
                                     ('(00_exports.ipynb)', '(00_none.ipynb)'), ('| `f` |', '| |'), (HEAD, HEAD+'\n'), ('- Next, [00a_data](00a_data.ipynb)', '- Next, the data'),
                                     ('- Next, [00a_data](00a_data.ipynb): more', '- Next, [00a_data](00a_data.ipynb)\n- More'), ('(00a_data.ipynb)', '(02_fully_connected.ipynb)')])
def test_bad_heads_are_caught(old, new):
    nb = made()
    assert sum(c.source.count(old) for c in nb.cells) == 1
    for c in nb.cells: c.source = c.source.replace(old, new)
    assert 'heads' in found(nb)

def test_heads_of_the_first_and_the_last():
    "The first stands on nothing, nothing follows the last, and a side road may be passed by"
    nb = made()
    nb.cells[2].source = nb.cells[2].source.replace('[00_exports](00_exports.ipynb)', 'nothing')
    nb.cells[7].source = '## Summary\n\n- Done'
    assert lint.broken(nb, ROOT/'nbs'/'99_last.ipynb', [lint.heads]) == []
    nb.cells[7].source = '## Summary\n\nNext, [02](02_fully_connected.ipynb).'
    assert lint.broken(nb, ROOT/'nbs'/'01_matmul.ipynb', [lint.heads]) == []
    nb.cells[7].source = '## More\n\n## Summary\n\n- Done\n\nNext, [02](02_fully_connected.ipynb).\n\n## Questions\n\n[00a](00a_data.ipynb)'
    assert lint.broken(nb, ROOT/'nbs'/'01_matmul.ipynb', [lint.heads]) == []
    nb.cells[7].source = '## Summary\n\nNext, [02a](02a_modules.ipynb).'
    assert lint.broken(nb, ROOT/'nbs'/'01_matmul.ipynb', [lint.heads])

@pytest.mark.parametrize('source', ['A <dfn>tensor</dfn> is a block of numbers.', '## Tensors\n\nA <dfn>fan_in</dfn> is.\n\n| a |\n|---|\n\nA <dfn>layer</dfn> is.', 'A <dfn title="kernel (compiled)">kernel</dfn> is compiled, an <dfn>epoch</dfn> is a pass.'])
def test_terms_pass(source): assert not found(made(('markdown', source)))

@pytest.mark.parametrize('source', ['## A <dfn>tensor</dfn>', '| a <dfn>tensor</dfn> |\n|---|\n| 1 |', 'A <dfn></dfn> is a block.', 'A <dfn>`x`</dfn> is a block.', 'A <dfn class="x">tensor</dfn> is.', 'A <dfn>tensor is a block.',
                                    '<details><summary>Why?</summary>\n\nA <dfn>tensor</dfn> is a block.\n\n</details>'])
def test_bad_terms_are_caught(source): assert 'terms' in found(made(('markdown', source)))

HEAVY = {'cells': ['x']*76, 'unfolded': ['x']*61, 'median': ['\n'.join('abcdef')], 'p90': ['x']*3+['\n'.join('abcdefghijklmnopqrst')], 'wide': ['#| hide\nx = 1 # '+'a'*81], 'long': ['#| export\ndef f(x):\n'+'    y\n'*15, *['x']*12]}

@pytest.mark.parametrize('what', [*HEAVY, 'words'])
def test_a_heavy_notebook_is_caught(what):
    cells = [nbformat.v4.new_code_cell(s) for s in HEAVY.get(what, ['x'])] + [nbformat.v4.new_markdown_cell('a formula $b + c$ says '*(626 if what == 'words' else 1))]
    n = count.count(nbformat.v4.new_notebook(cells=cells))
    assert what in count.over(n) and set(count.over(n)) - {what} <= {'cells': {'unfolded'}, 'median': set(), 'p90': set()}.get(what, set())

def test_what_is_not_counted():
    code = ['x']*60 + ['#| code-summary: A proof\n'+'y\n'*20]*7 + ['#| hide\n'+'y\n'*20]*8
    wide = '#| fig-alt: '+'a'*100+'\nf()'
    prose = ['word '*2500, '<details><summary>Why so?</summary>\n\nBecause\n\n</details>', '$$a = b$$', '```\ncode\n```', '- | * # >']
    n = count.count(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, [*code[1:], wide]), *map(nbformat.v4.new_markdown_cell, prose)]))
    assert count.over(n) == [] and (n['cells'], n['unfolded'], n['words'], n['median'], n['p90'], n['wide']) == (75, 60, 2500, 1, 1, 0)
    derives = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('word '*2990 + '\n\n$$x$$\n\n'*5)])
    assert count.over(count.count(derives)) == []
    derives.cells[0].source = derives.cells[0].source.replace('$$x$$', '', 1)
    assert count.over(count.count(derives)) == ['words']

def test_definitions_that_are_long():
    "Patched methods and classes count, what isn't exported doesn't, and one in ten may be long"
    f, long = '#| export\n@patch\ndef f(self): pass', '#| export\nclass A:\n'+'    x = 1\n'*15
    share = lambda *cells: count.count(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in cells]))['long']
    assert share(*[f]*9, long) == .1 and share(f, long) == .5 and share(f, long.partition('\n')[2]) == 0

def test_bad_outputs_are_caught():
    error, pic = nbformat.v4.new_output('error', ename='E', evalue='x', traceback=[]), result(image_png=curve())
    assert 'errors' in found(made(('code', 'f()'), outs=[error]))
    assert 'alt_text' in found(made(('code', 'f()'), outs=[pic]))
    assert 'alt_text' in found(made(('code', 'f()'), outs=[result(text_html='<img src="x">')]))
    assert not found(made(('code', '#| fig-alt: A curve that rises.\nf()'), outs=[pic]))
    assert 'leftovers' in found(made(('code', 'f()'), outs=[result(text_plain="[Text(0.5, 0, 'loss')]")]))
    meant = made(('code', 'f()'), outs=[error])
    meant.cells[7].metadata['tags'] = ['raises-exception']
    assert not found(meant)
    meant.cells[7].outputs = []
    assert 'errors' in found(meant)

def test_marks_in_the_metadata_are_caught():
    for part in (lambda nb: nb, lambda nb: nb.cells[5]):
        nb = made()
        part(nb).metadata['nbdev'] = {'export': 'true'}
        assert found(nb) == {'directive_lines'}

@pytest.mark.parametrize('source', ['%%time\n#| hide\nx', '#| hide\n\n#| varies: text\ntimeit(x)', 's = """\n#| hide\n"""', 'x = "a\u2028#| hide"', '##| hide\nx', "%%bash\necho it's"])
def test_harmless_directives_pass(source): assert 'directive_lines' not in found(made(('code', source)))

def test_what_a_cell_does_not_show_is_no_line_of_it():
    "U+2028 ends no line, and marks are no code, however they are written"
    assert found(made(('code', '# | hide\n\n' + '\n'.join(f'x = "{i}\u2028"' for i in range(30))))) == {'directive_lines'}
    assert 'needless_masks' in found(made(('code', '# | varies: numbers, speed\nx+1'), outs=[result(text_plain='1')]))

def test_the_runner_reads_directives_as_nbdev_does():
    nb = lambda *cells: nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in cells])
    for s in ('#| default_exp a', '# | default_exp: a', '\n#| hide\n#|default_exp a\n', '%%time\n#| default_exp  a \nx'): assert runner.module_of(nb('x', s)) == 'a'
    assert runner.module_of(nb('x', 's = """\n#| default_exp a\n"""', 'x\n#| default_exp a')) is None

def test_bad_structure_is_caught():
    for i in (0, 1, 3, 7, 8, 9):
        nb = made()
        del nb.cells[i]
        assert 'structure' in found(nb), GOOD[i]
    nb = made()
    nb.cells[3].id = nb.cells[4].id
    assert 'ids' in found(nb)

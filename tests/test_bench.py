"The benchmarks run, keep what they should, and name what is missing; what they measured is judged nowhere in the tests"
import importlib, json, math, os, re, statistics, subprocess, sys
from types import SimpleNamespace
import pytest
from project import ROOT

if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
from bench import NAMES, harness

each = pytest.mark.parametrize('name', NAMES)
TOP = {'name': str, 'date': str, 'command': str, 'commit': (str, type(None)), 'quick': bool, 'seed': int, 'threads': int, 'load_before': (float, type(None)), 'seconds': float,
       'machine': dict, 'versions': dict, 'missing': dict, 'ratios': list, 'figures': list}

def complete(d):
    "Fail unless a result has all that the issue of a figure's provenance needs"
    assert d.keys() == TOP.keys() and all(isinstance(d[k], t) for k, t in TOP.items())
    assert d['machine'].keys() == {'cpu', 'simd', 'cores', 'memory_gib', 'system'} and d['machine']['cpu'] and d['machine']['cores'] >= 1
    assert {'python', 'torch', 'numpy'} <= d['versions'].keys() and d['threads'] >= 1 and d['command'].startswith(f"python -m bench {d['name']}")
    assert d['figures'] and all(why for why in d['missing'].values())
    assert len({(f['group'], f['name'], f['unit']) for f in d['figures']}) == len(d['figures'])
    for f in d['figures']+d['ratios']:
        least = 1 if d['quick'] or f.get('group', '').endswith('one seed') else 2 if f.get('group', '').endswith('tuning') else 3
        assert f['repeats'] >= least and f['unit'] in ('s', 'B', '×', '%', 'rate', 'loss', 'pp', 'steps', 'digits', '', 'waits', 'float64', 'float32', 'bfloat16')
        assert (-math.inf if f['unit'] == 'pp' else -1 if f['unit'] in ('', 'waits', 'float64', 'float32', 'bfloat16') else 0) < f['q1'] <= f['median'] <= f['q3'] < math.inf, f
        if 'seeds' in f: assert len(f['values']) == len({*f['seeds']}) == f['repeats']
        if 'mean' in f:
            assert min(f['values']) <= f['mean'] <= max(f['values'])
            assert f['half'] is None and f['repeats'] == 1 or f['half'] >= 0
    for r in d['ratios']: assert {'what', 'at_most', 'at_least', 'met'} <= r.keys() and (r['met'] is None) == (r['at_most'] is None and r['at_least'] is None)

def bench(*args, **kw):
    return subprocess.run([sys.executable, '-m', 'bench', *args], cwd=ROOT, capture_output=True, text=True, encoding='utf-8', **kw)

def test_every_benchmark_is_listed():
    assert sorted(NAMES) == sorted(p.stem for p in (ROOT/'bench').glob('[!_]*.py') if p.stem != 'harness')
    out = bench('--list').stdout
    assert [l.split()[0] for l in out.splitlines()] == NAMES
    for n in NAMES: assert all(harness.docs(n)) and harness.docs(n)[0] in out
    assert not {p.stem for p in harness.RESULTS.glob('*')}-set(NAMES), "results of no benchmark"

@each
def test_stored_figures_are_complete(name):
    path = harness.RESULTS/f'{name}.json'
    if not path.exists(): pytest.skip(f'no figures of {name} are stored')
    d = json.loads(path.read_text(encoding='utf-8'))
    complete(d)
    assert d['name'] == name and not d['quick'], "a quick run is no measurement"

@each
def test_a_benchmark_costs_nothing_to_import(name):
    code = f"import sys, bench.{name} as m; assert callable(m.run) and callable(m.draw) and m.ALT; print(*{{'torch', 'numpy', 'matplotlib', 'numba'}} & sys.modules.keys())"
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not r.stdout.split()

def test_an_unknown_benchmark_is_an_error():
    r = bench('matmull')
    assert r.returncode == 2 and 'matmull' in r.stderr and 'matmul,' in r.stderr

# ---- The harness

@pytest.fixture
def tiny():
    "A benchmark of two sums, one memory and two peers"
    def run(b):
        t = b.times('sums', {'short': lambda: sum(range(10)), 'long': lambda: sum(range(10_000))})
        b.ratio('long ÷ short', t['long'], t['short'], at_least=2)
        def peer(): b.peer('no-such-library')
        def broken(): return harness.child('raise ImportError("operator does not exist")')
        b.rounds('others', {'ours': lambda: harness.cost('n = 10', 'x = bytearray(30_000_000); x = None'), 'a peer': peer, 'a broken one': broken})
    return SimpleNamespace(__name__='bench.tiny', run=run)

def test_what_is_kept(tiny, tmp_path):
    path = harness.save(harness.measure(tiny, quick=True, threads=1), tmp_path)
    d = json.loads(path.read_text(encoding='utf-8'))
    complete(d)
    assert [p.name for p in tmp_path.iterdir()] == ['tiny.json']
    assert d['missing'] == {'a peer': 'no-such-library is not installed', 'a broken one': 'ImportError: operator does not exist'}
    assert [(f['name'], f['unit']) for f in d['figures']][:3] == [('short', 's'), ('long', 's'), ('ours', 's')]
    assert d['ratios'][0]['met'] and d['ratios'][0]['median'] > 2
    if sys.platform == 'linux':
        memory, = (f['median'] for f in d['figures'] if f['unit'] == 'B')
        assert 29e6 < memory < 33e6

def test_memory_of_tensors_is_counted():
    if not (got := harness.cost('import torch', 'x = torch.ones(5_000_000); y = x*2; x = None; z = y*2').get('B')): pytest.skip('no high-water mark here')
    assert 39e6 < got < 45e6  # two of 20 MB at once

def test_rounds_change_the_order_and_keep_that_of_the_rows():
    calls, names = [], 'abcd'
    def f(k):
        calls.append(k)
        if k == 'c' and len(calls) > 20: raise harness.Missing('gone')
        return {'s': len(calls)}
    b = harness.Run('x')
    got = b.rounds('g', {k: lambda k=k: f(k) for k in names}, repeats=20, warm_up=1)
    assert list(got['s']) == list(names) == [f['name'] for f in b.figures] and b.missing == {'c': 'gone'}
    assert len(got['s']['a']) == 20 > len(got['s']['c'])
    assert len({''.join(calls[i:i+4]) for i in range(0, 20, 4)}) > 1

def test_the_interval_of_a_mean():
    "By hand, with Student's t from a table"
    for n, t in ((2, 12.7062), (3, 4.3027), (5, 2.7764), (8, 2.3646), (31, 2.0423)):
        values = [i**2/10 for i in range(n)]
        got = harness.interval(values)
        assert abs(got['mean']-statistics.mean(values)) < 1e-9 and abs(got['half']/(t*statistics.stdev(values)/math.sqrt(n))-1) < 1e-4
    assert harness.interval([7.]) == {'mean': 7., 'half': None}
    b = harness.Run('x')
    b.keep_seeds('g', 'a', '%', [98., 98.5], (4, 5), lr=.05)
    b.keep_seeds('g', 'a', 'pp', [-.5, .1], (4, 5))
    assert b.figures[0]['values'] == [98., 98.5] and b.figures[0]['seeds'] == [4, 5] and b.figures[0]['median'] == 98.25
    _, head, (row,) = next(harness.figure_tables({'figures': b.figures}))
    assert head == ['', 'accuracy', 'points more', 'learning rate', 'repeats'] and row == ['a', '98.25 ± 3.18%', '−0.20 ± 3.81', '0.05', '2']

def test_a_run_that_was_broken_off_goes_on(tmp_path):
    calls, kept = [], tmp_path/'sub'/'x.jsonl'
    def f(x): return lambda: calls.append(x) or [x, 1.5]
    for _ in range(2):
        b = harness.Run('x', kept=kept)
        assert b.once('a', f(1)) == [1, 1.5] == b.once('a', f(1)) and b.once('b', f(2)) == [2, 1.5]
    assert b.earlier > 0
    assert calls == [1, 2] and len(kept.read_text().splitlines()) == 2
    b = harness.Run('x')
    assert b.once('a', f(3)) == b.once('a', f(4)) == [3, 1.5]

def test_aims():
    b = harness.Run('x')
    b.aim('a', [1, 2, 9], at_most=2)
    b.aim('b', [1, 2, 9], at_least=2.5)
    b.aim('c', [1, 2, 9])
    b.ratio('d', [2, 9, 4], [1, 3, 4])
    assert [r['met'] for r in b.ratios] == [True, False, None, None]
    assert [b.ratios[0][k] for k in ('q1', 'median', 'q3', 'repeats')] == [1.5, 2, 5.5, 3] and b.ratios[3]['median'] == 2

def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    harness.save({'name': 'x', 'figures': [1]}, tmp_path)
    with pytest.raises(TypeError): harness.save({'name': 'x', 'figures': [object()]}, tmp_path)
    assert json.loads((tmp_path/'x.json').read_text()) == {'name': 'x', 'figures': [1]}

def test_a_quick_run(tmp_path):
    "A benchmark through the command: its table and its figures"
    r = bench('matmul', '--quick', '--out', str(tmp_path), env={**os.environ, 'COLUMNS': '200'})
    assert r.returncode == 0, r.stderr
    d = json.loads((tmp_path/'matmul.json').read_text(encoding='utf-8'))
    complete(d)
    assert d['quick'] and d['command'] == 'python -m bench matmul --quick' and 'matmul_blocked' in r.stdout and 'a quick run' in r.stdout

def test_a_missing_peer_is_named(capsys, tiny):
    from rich.console import Console
    from bench.__main__ import show
    d = harness.measure(tiny, quick=True, threads=1) | {'name': NAMES[0]}
    show(Console(width=200), d)
    assert 'Missing: a peer (no-such-library is not installed)' in capsys.readouterr().out

def test_steps_do_the_same_work():
    import torch
    from bench.step import OUTER, check, steps
    torch.manual_seed(0)
    fs = steps(6)
    assert OUTER in fs
    check(fs)
    right = fs[OUTER]
    with pytest.raises(RuntimeError, match='differ'): check(fs | {OUTER: lambda: [g*1.01 for g in right()]})

def test_idx(tmp_path):
    import torch
    from bench.loader import read_idx, write_idx
    x = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
    write_idx(tmp_path/'x', x)
    assert (tmp_path/'x').read_bytes()[:8] == bytes([0, 0, 8, 3, 0, 0, 0, 2]) and read_idx(tmp_path/'x').equal(x)

def test_convolutions_do_the_same_work():
    import torch
    from bench import conv
    from notes.exports import rel_error
    torch.manual_seed(0)
    for fs in (conv.convolutions((2, 6, 5), (3, 2, 3, 2), 2), conv.networks(2)):
        expected, others = fs.pop(conv.TORCH)(), {k: f() for k, f in fs.items()}
        assert conv.OURS in others and all(rel_error(g, e) < 1e-4 for gs in others.values() for g, e in zip(gs, expected, strict=True))
    assert conv.LOOPS in conv.convolutions((1, 3, 3), (1, 1, 2, 2), 1)

def test_epochs_start_alike_and_give_one_order():
    import torch
    from bench import epoch
    (net, train, valid), (other, again, _) = epoch.start(3, 120), epoch.start(3, 120)
    assert [len(y) for _, y in train] == [50, 50, 20] == [len(y) for _, y in valid]
    for a, b in ((train, again), (train, train)): assert all(map(torch.equal, *([x for x, _ in dl] for dl in (a, b))))
    assert not torch.cat([x for x, _ in train]).equal(train.dataset.x) and all(map(torch.equal, net.parameters(), other.parameters()))
    assert not all(map(torch.equal, net.parameters(), epoch.start(4, 120)[0].parameters()))

def test_the_watch_stands_while_it_counts():
    import torch
    from bench import recipes
    clock, y = [0.], torch.arange(1000)%10
    shown = torch.nn.functional.one_hot(y, 10).float()
    def predict(x):
        clock[0] += 1000
        return x.roll(right, 1) if right else x
    right, w = 1, recipes.Watch(predict, shown, y)
    w.now, w.start = lambda: clock[0], 0.
    for _ in range(5):
        clock[0] += 1
        w.batch(2000)
    assert w.points == [(3., 0.), (5., 0.)]
    right = 0
    clock[0] += 3
    with pytest.raises(recipes.Done): w.batch(5000)
    assert w.points[-1] == (8., 100.)

def test_the_finder_starts_the_same_each_time():
    from bench import finder
    sets = finder.datasets(200, 50)
    for state in ('untrained', 'trained'):
        start = finder.starts(sets, ('CNN', 'Adam', 16, state), 3)
        assert finder.loss(start(), .01) == finder.loss(start(), .01) != finder.loss(start(), .002)
    assert finder.loss(start(), 1e9) == finder.TOP

def test_rules_of_the_finder():
    "On losses that fall and rise by as much a batch, least at 0.1"
    import numpy as np
    from bench import finder
    from notes.callbacks import LRFinder
    f = LRFinder()
    f.lrs = np.geomspace(1e-5, 10, 101).tolist()
    f.losses = [1+abs(i-200/3)/50 for i in range(101)]
    near = lambda x: lambda rate: x/1.3 < rate < x*1.3
    expected = {finder.OURS: lambda rate: .01 < rate < .1, 'minimum ÷ 3': near(.033), 'minimum ÷ 4': near(.025), 'minimum ÷ 10': near(.01),
                'steepest fall': lambda rate: rate < .1, "valley, as fastai's": lambda rate: 1e-4 < rate < 1e-1, finder.BEFORE: near(.01)}
    assert expected.keys() == finder.RULES.keys() and all(expected[k](rule(f)) for k, rule in finder.RULES.items())

# ---- Activations and optimisers

def test_a_rate_is_tuned_and_the_grid_continued():
    from bench.activations import tuned
    best = lambda at: lambda lr, seed: 90-abs(math.log2(lr/at))+seed
    grid, lr = tuned(best(.1), [.05, .1, .2], (0, 1))
    assert lr == .1 and list(grid) == [.05, .1, .2] and grid[.1] == [90, 91]
    for at in (.8, .0125):
        grid, lr = tuned(best(at), [.05, .1, .2], (0,))
        assert lr == at and min(grid) < at < max(grid) and len(grid) == 6
    assert len(tuned(best(1e9), [.05, .1], (0,), most=2)[0]) == 4 and tuned(best(1e9), [.05, .1], (0,), most=0)[1] == .1

def test_an_activation_is_the_only_difference():
    "Same weights and same batches, whatever the activation; one setting and seed, one result"
    import torch
    from bench import activations as a
    from notes.activations import GeneralReLU
    from notes.data import get_data
    from notes.exports import set_seed
    sets, nets = a.digits(get_data, 300), []
    for settings in a.ACTIVATIONS.values():
        set_seed(3)
        nets.append(a.network(lambda: GeneralReLU(**settings), 1, 28, 10))
    for net in nets[1:]: assert all(map(torch.equal, net.parameters(), nets[0].parameters()))
    outs = [net(sets[0].x[:50]) for net in nets]
    assert outs[0].shape == (50, 10) and all(not o.equal(outs[0]) for o in outs[1:])
    got = [a.one(sets, settings, .05, 3, 1) for settings in (*a.ACTIVATIONS.values(), a.ACTIVATIONS[a.BASE])]
    assert got[0] == got[-1] and len({*got}) > 1 and set(a.TUNING).isdisjoint(a.SEEDS)

@pytest.fixture
def pictures(tmp_path):
    "A folder of pictures of two classes, light and dark, of several sizes and kinds"
    import numpy as np
    from PIL import Image
    draw = np.random.default_rng(0).integers
    for part, n in (('train', 12), ('val', 4)):
        for c, base in (('n01 dark', 0), ('n02', 150)):
            (tmp_path/'woof'/part/c).mkdir(parents=True)
            for i in range(n):
                im = Image.fromarray(draw(base, base+100, (20+i, 30, 3), dtype=np.uint8))
                (im.convert('L') if i%2 else im).save(tmp_path/'woof'/part/c/f'{i}.{"png" if i%3 else "JPEG"}')
    (tmp_path/'woof'/'train'/'.DS_Store').write_text('')
    return tmp_path/'woof'

def test_a_folder_of_images_is_read(pictures):
    from bench.activations import from_folder
    train, valid = from_folder(pictures, size=16)
    assert train.x.shape == (24, 3, 16, 16) and valid.x.shape == (8, 3, 16, 16) and train.y.bincount().tolist() == [12, 12] and valid.y.bincount().tolist() == [4, 4]
    for c in train.x.unbind(1): assert abs(c.mean()) < 1e-5 and abs(c.std()-1) < 1e-5
    assert train.x[train.y == 0].max() < train.x[train.y == 1].mean()
    for path in (pictures/'train', pictures/'train'/'n02'):
        with pytest.raises(ValueError, match='holds no'): from_folder(path)
    for f in (pictures/'val').rglob('*.*'): f.unlink()
    with pytest.raises(ValueError, match='val holds no images'): from_folder(pictures)

def test_the_activations_on_a_folder(pictures, tmp_path):
    "Through the command"
    from bench.activations import ACTIVATIONS
    r = bench('activations', '--quick', '--folder', str(pictures), '--out', str(tmp_path/'out'), env={**os.environ, 'COLUMNS': '200'})
    assert r.returncode == 0, r.stderr
    d = json.loads((tmp_path/'out'/'activations.json').read_text(encoding='utf-8'))
    complete(d)
    assert {f['group'] for f in d['figures']} == {'woof', 'woof, tuning'} and {f['name'] for f in d['figures'] if f['group'] == 'woof'} == set(ACTIVATIONS)
    assert d['command'].endswith(f'--folder {pictures}') and 'points more' in r.stdout
    for args, said in ((('matmul', '--folder', str(pictures)), 'for activations alone'), (('activations', '--folder', str(tmp_path/'none')), 'there is no folder'),
                       (('activations', '--folder', 'https://example.org/a.tgz'), 'must hash to')):
        r = bench(*args)
        assert r.returncode == 2 and said in r.stderr

def test_an_archive_is_opened_if_it_is_the_right_one(pictures, tmp_path):
    import hashlib, tarfile
    from bench.activations import fetched
    archive = tmp_path/'woof.tgz'
    with tarfile.open(archive, 'w:gz') as t: t.add(pictures, 'woof')
    url, right, base = archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest(), tmp_path/'base'
    with pytest.raises(ValueError, match='pass its --sha256'): fetched(url)
    with pytest.raises(ValueError, match='it was not opened'): fetched(url, '0'*64, base)
    assert not [*base.rglob('train')] and not [*base.rglob('*.tgz')]
    for sha256 in (right, right.upper()):
        folder = fetched(url, sha256, base)
        assert folder.name == 'woof' and len([*folder.rglob('*.png')]) == 20
    assert fetched(pictures) == pictures.resolve()

def test_optimisers_step_alike_and_muon_moves_everything():
    import torch
    from bench import optimizers as o
    from notes.data import get_fashion
    from notes.modules import ReLU
    torch.manual_seed(0)
    assert o.optimisers().keys() == o.THEIRS.keys() == o.GRIDS.keys() and all(len(g) == 6 for g in o.GRIDS.values()) and set(o.TUNING).isdisjoint(o.SEEDS)
    for name in o.THEIRS: o.check(name, o.steppers(name))
    opts = o.steppers('Adam')
    opts[o.OURS].param_groups[0]['betas'] = .8, .999
    with pytest.raises(RuntimeError, match='differ'): o.check('Adam', opts)
    model = o.network(ReLU, 1, 28, 10)
    params = list(model.parameters())
    opt, before = o.muon(params, .01), [p.clone() for p in params]
    for p in params: p.grad = torch.randn_like(p)
    opt.step()
    assert not any(map(torch.equal, params, before)) and sorted({g['lr'] for g in opt.param_groups}) == [.001, .01]
    opt.zero_grad()
    assert all(p.grad is None for p in params)
    sets = o.digits(get_fashion, 200)
    assert o.one(sets, 'Muon', 'one_cycle', .02, 3) == o.one(sets, 'Muon', 'one_cycle', .02, 3)

@pytest.mark.parametrize('name', ['activations', 'optimizers'])
def test_figures_with_seeds_are_drawn(name, tmp_path):
    "From a quick run, through the command"
    from matplotlib.figure import Figure
    r = bench(name, '--quick', '--out', str(tmp_path))
    assert r.returncode == 0, r.stderr
    d = json.loads((tmp_path/f'{name}.json').read_text(encoding='utf-8'))
    complete(d)
    fig = Figure()
    importlib.import_module(f'bench.{name}').draw(harness.groups(d), fig)
    assert all(ax.lines and ax.get_yticklabels() for ax in fig.axes)

def test_steps_to_a_loss():
    "One setting and seed, one number; what has not arrived counts with the most; a rate is continued where the best lies at an end"
    from bench import scaling as s
    sets = s.images(300)
    assert [len(t) for t in sets] == [300, 300, 500, 500]
    assert s.steps_to(sets, 8, .05, 3, 5) == 5
    seen = [k for k in range(1, 400) if s.looks(k)]
    assert seen[:15] == [*range(1, 16)] and all(b <= max(a+1, 1.06*a+1) for a, b in zip(seen, seen[1:]))
    asked = []
    def f(k, seed, least):
        asked.append(k)
        return 100+abs(k-5)
    grid, best = s.tuned(f, 2)
    assert best == 5 and sorted(grid) == [1, 2, 3, 4, 5, 6] and len(asked) == 2*len(grid) and s.tuned(f, 2, most=0)[1] == 3
    (noise, signal), = s.noise(sets, .05, 3, 3, n=20)
    assert noise > 0 and set(s.TUNING).isdisjoint(s.SEEDS)

# ---- The page

@pytest.fixture
def measured():
    sys.path.insert(0, str(ROOT/'tools'/'site'))
    import measured
    yield measured
    sys.path.remove(str(ROOT/'tools'/'site'))

def test_the_page_names_every_benchmark(measured):
    text = measured.page()
    for n in NAMES: assert f'\n## {harness.docs(n)[0]}\n' in text and f'python -m bench {n}' in text

@each
def test_the_page_types_no_figure(name):
    "Prose about a benchmark holds no number that a machine decides"
    module = importlib.import_module(f'bench.{name}')
    for text in (harness.docs(name)[1], module.ALT, *getattr(module, 'WHY', {}).values()):
        assert not re.search(r'\d\s*(%|[mµn]?s\b|[MG]B|GFLOP|× (as|faster|slower)|times)', text)

def test_missed_aims_and_missing_peers_are_said(measured, tiny):
    d = harness.measure(tiny, quick=True, threads=1)
    d['ratios'] += [{**d['ratios'][0], 'what': f'{w} slow', 'met': False} for w in ('x', 'y')]
    assert measured.reasons(d, {'x': 'Because.', 'z': 'No.'})[2:] == ['- *x*: Because.', '- *y slow*: not explained yet.', '']
    d['name'] = NAMES[0]
    text = '\n'.join(measured.section(NAMES[0], d))
    assert '**Not measured here:** a peer (no-such-library is not installed)' in text
    before, _, folded = text.partition('<details><summary>')
    assert '```{image}' in before and '|' not in before, "the picture comes first, figures and verdicts are folded"
    met = [r['met'] for r in d['ratios'] if r['met'] is not None]
    assert folded.startswith(f'{sum(met)} of {len(met)} aims met</summary>\n\n') and 'Because.' not in before and 'not explained yet' in folded

def test_rows_of_kernels_are_views():
    "As they lie in memory: what Muon moves are the kernels themselves"
    import torch
    from bench.optimizers import rows
    for shape in ((4, 3, 3, 3), (4, 1, 3, 3), (4, 3, 1, 1)):
        for order in (torch.contiguous_format, torch.channels_last):
            p = torch.randn(shape).contiguous(memory_format=order)
            m = rows(p, p)
            assert m.shape == (4, p[0].numel()) and m.data_ptr() == p.data_ptr()
            m[1] = 7.
            assert (p[1] == 7).all() and not (p[0] == 7).any()
            assert torch.equal(rows(p, torch.ones(shape).contiguous()), torch.ones_like(m))

def test_a_residual_step_is_timed_only_if_each_gradient_is_right():
    "A wrong one that is small beside the others, a bias's, is seen too"
    import torch
    from bench import residual
    big, small = torch.randn(50, 50), 1e-2*torch.ones(3)
    def f(): return [big.clone(), small.clone()]
    residual.check({'PyTorch': f, 'ours': f})
    for wrong in ([big, 1.01*small], [1.01*big, small], [big, 0*small]):
        with pytest.raises(RuntimeError, match='differ'): residual.check({'PyTorch': f, 'ours': lambda: wrong})

def test_a_training_of_the_residual_network_goes_on(tmp_path, monkeypatch):
    "Cut off in its second epoch, it ends with the networks of one that wasn't, the last and the mean"
    import torch
    from bench import resnet
    from notes.augmentation import AveragedWeights
    group, how = next(iter(resnet.RUNS)), dict(n=520, epochs=2)
    whole, nets = resnet.train(group, 0, **how)
    with monkeypatch.context() as m:
        step = AveragedWeights.after_step
        def cut(self):
            step(self)
            if self.steps == 4: raise KeyboardInterrupt
        m.setattr(AveragedWeights, 'after_step', cut)
        with pytest.raises(KeyboardInterrupt): resnet.train(group, 0, folder=tmp_path, **how)
    for _ in range(2):  # the second time there is nothing to do
        again, other = resnet.train(group, 0, folder=tmp_path, **how)
        assert {k: v for k, v in again.items() if k != 'seconds'} == {k: v for k, v in whole.items() if k != 'seconds'} and again['parameters'] < 100_000
        for k, net in nets.items(): assert all(map(torch.equal, net.state_dict().values(), other[k].state_dict().values()))
    assert not nets[''].state_dict()['5.weight'].equal(nets[', averaged'].state_dict()['5.weight'])

# ---- On a GPU

def test_the_checks_for_a_gpu_without_one(tmp_path):
    "The same on the CPU, through the command: none fails, and each check is among the figures"
    from bench import _checks
    from matplotlib.figure import Figure
    from bench import gpu
    r = bench('gpu', '--quick', '--out', str(tmp_path), env={**os.environ, 'COLUMNS': '200', 'NOTES_DEVICE': 'cpu'})
    assert r.returncode == 0, r.stderr
    d = json.loads((tmp_path/'gpu.json').read_text(encoding='utf-8'))
    complete(d)
    assert not d['missing']
    checks = {f"{f['group'].removeprefix('checks: ')}: {f['name']}": f for f in d['figures'] if f['group'].startswith('checks')}
    assert checks.keys() == _checks.CHECKS.keys() and len(checks) > 70
    found = {r['what']: r['median'] for r in d['ratios']}
    assert found['checks that fail'] == 0 and found['checks that were made'] == sum(len(dtypes) for _, dtypes, _ in _checks.CHECKS.values())
    assert {f['name'] for f in d['figures'] if f['group'] == "04's network, float32"} == {gpu.BARE, gpu.OURS, gpu.LAYERS, gpu.BARE+gpu.THERE, gpu.OURS+gpu.THERE}
    assert 'images a second' in r.stdout and 'error in float64' in r.stdout
    gpu.draw(harness.groups(d), fig := Figure())
    assert fig.axes[0].patches

def test_a_check_that_fails_is_named_and_the_rest_goes_on(monkeypatch, capsys):
    import torch
    from bench import _checks, gpu
    def broken(on): raise ZeroDivisionError('two\nlines')
    wrong = lambda on: [on.randn(3)*(1 if on.exact else 1.001)]
    few = {'a: raises': broken, 'a: wrong': wrong, 'a: right': lambda on: [on.randn(3)], 'a: nan': lambda on: [on.randn(3)*(1 if on.exact else math.nan)]}
    monkeypatch.setattr(_checks, 'CHECKS', {k: (f, (torch.float32,), _checks.ERRORS) for k, f in few.items()})
    gpu.checks('cpu', (0, 1))
    found = [json.loads(l)[1:] for l in capsys.readouterr().out.splitlines() if l.startswith('["check"')]
    whys = {name: why for name, *_, why in found}
    assert whys['a: raises'] == 'ZeroDivisionError: two lines' and whys['a: wrong'].startswith('relative error 0.001') and not whys['a: right'] and 'not finite' in whys['a: nan']
    b = harness.Run('x')
    gpu.keep_checks(b, found)
    assert b.missing == {f'check “{k}”, float32': why for k, why in whys.items() if why} and [f['name'] for f in b.figures] == ['right'] and b.figures[0]['repeats'] == 2
    assert {r['what']: (r['median'], r['met']) for r in b.ratios} == {'checks that fail': (3, False), 'checks that were made': (4, None)}

def test_a_process_that_dies_takes_one_check_with_it(monkeypatch):
    from bench import gpu
    assert [*gpu.rows('say', 'x', 1, seconds=60)] == [['x', 1], ['ends', 0, 'it gave no reason']]
    *_, end = gpu.rows('os._exit', 7, seconds=60)
    assert end[:2] == ['ends', 7]
    *_, end = gpu.rows('time.sleep', 100, seconds=1)
    assert end[0] == 'ends' and end[1] and 'longer than 1 seconds' in end[2]
    said = iter([[['begins', 'a: x', 'float32'], ['check', 'a: x', 'float32', [0.], ''], ['begins', 'a: y', 'float32'], ['ends', -6, 'device-side assert']],
                 [['begins', 'a: z', 'float32'], ['check', 'a: z', 'float32', [0.], ''], ['ends', 0, '']]])
    skipped = []
    def rows(what, device, seeds, skip, seconds):
        skipped.append([*skip])
        yield from next(said)
    monkeypatch.setattr(gpu, 'rows', rows)
    found = gpu.checked(harness.Run('x'), 'cuda', (0,))
    assert [(r[0], r[3]) for r in found] == [('a: x', ''), ('a: y', 'the process ended: device-side assert'), ('a: z', '')] and skipped[1] == [['a: x', 'float32'], ['a: y', 'float32']]

def test_without_a_gpu_nothing_is_kept(tmp_path, monkeypatch):
    from bench import gpu
    monkeypatch.setattr(gpu, 'gpu', lambda: 'cpu')
    with pytest.raises(harness.Missing, match='no GPU'): gpu.run(harness.Run('gpu'))
    r = bench('gpu', '--out', str(tmp_path), env={**os.environ, 'NOTES_DEVICE': 'cpu'})
    assert r.returncode == 0 and 'gpu: not measured' in r.stdout and not [*tmp_path.iterdir()]

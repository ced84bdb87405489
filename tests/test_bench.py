"The benchmarks run, keep what they should, and name what is missing; what they measured is judged nowhere in the tests"
import importlib, json, math, os, re, subprocess, sys
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
        assert f['repeats'] >= (1 if d['quick'] else 3) and f['unit'] in ('s', 'B', '×', '%', 'rate', 'loss')
        assert 0 < f['q1'] <= f['median'] <= f['q3'] < math.inf, f
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

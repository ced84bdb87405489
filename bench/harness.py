"Measure side by side, and keep what came out together with what it was measured on"
import ast, importlib.metadata, json, os, platform, random, re, shlex, statistics, subprocess, sys, time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/'bench'/'results'
# What a peer is imported as, where that isn't its name
MODULES = {'fastai': 'fastai.vision.all'}

class Missing(Exception):
    "Something can't be measured here: the message says why"

def spread(values):
    "Median and quartiles"
    q1, mid, q3 = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [*values]*3
    return {'median': mid, 'q1': q1, 'q3': q3, 'repeats': len(values)}

def interval(values):
    "Mean, and half of the interval that holds the true one with probability 0.95; None for that where there is one value only"
    from notes.activations import mean_interval
    return dict(zip(('mean', 'half'), mean_interval(values) if len(values) > 1 else (values[0], None)))

class Run:
    """One run of a benchmark: `figures` are what was measured, `ratios` what is compared with an aim, `missing` what could not be had

    `folder` is where images of the user's lie, for a benchmark that takes some. What `once` has done is kept in the file `kept`.
    """
    def __init__(self, name, quick=False, threads=1, seed=0, folder=None, kept=None):
        self.name, self.quick, self.threads, self.seed, self.folder, self.kept = name, quick, threads, seed, folder, kept
        self.figures, self.ratios, self.missing, self.peers = [], [], {}, {}
        before = [json.loads(l) for l in kept.read_text().splitlines()] if kept and kept.exists() else []
        self.done, self.earlier = {key: value for key, value, _ in before}, sum(seconds for *_, seconds in before)

    def keep(self, group, name, unit, values, /, **more):
        self.figures.append({'group': group, 'name': name, 'unit': unit, **spread(values), **more})

    def keep_seeds(self, group, name, unit, values, seeds, **more):
        "The same for a value of each seed: all of them are kept, with their mean and its interval"
        self.keep(group, name, unit, values, values=list(values), seeds=list(seeds), **interval(values), **more)

    def once(self, key, f):
        "What `f()` returned under the name `key`, which is kept so that a run that is broken off can go on"
        if key not in self.done:
            start = time.perf_counter()
            self.done[key] = f()
            if self.kept:
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                with self.kept.open('a') as o: o.write(json.dumps([key, self.done[key], time.perf_counter()-start])+'\n')
        return self.done[key]

    def times(self, group, fs, repeats=9, min_time=.02, **more):
        "Seconds of functions of this process, by the notebooks' own timer: {name: seconds in each round}"
        from notes.matmul import compare_times
        res = compare_times(fs, 3 if self.quick else repeats, min_time/10 if self.quick else min_time, self.threads)
        for k, t in res.items(): self.keep(group, k, 's', t.times, calls=t.calls, **more)
        return {k: t.times for k, t in res.items()}

    def rounds(self, group, fs, repeats=7, warm_up=1, **more):
        """Figures that functions return as {unit: number}, taken in turn, round after round, in an order drawn anew for each: {unit: {name: numbers}}

        A function that raises `Missing` is left out of the rounds that follow, and named.
        """
        got, names, draw = {}, list(fs), random.Random(self.seed).sample
        for i in range(0 if self.quick else -warm_up, 1 if self.quick else repeats):
            for k in draw(names, len(names)):
                try: res = fs[k]()
                except Missing as e:
                    self.missing[k] = str(e)
                    names.remove(k)
                    continue
                if i >= 0:
                    for unit, v in res.items(): got.setdefault(unit, {}).setdefault(k, []).append(v)
        got = {unit: {k: d[k] for k in fs if k in d} for unit, d in got.items()}
        for unit, d in got.items():
            for k, values in d.items(): self.keep(group, k, unit, values, **more)
        return got

    def aim(self, what, values, unit='×', at_most=None, at_least=None):
        "Keep `values` under the name `what`, with the aim they are to reach, if there is one"
        s = spread(values)
        met = None if at_most is at_least is None else s['median'] <= at_most if at_least is None else s['median'] >= at_least
        self.ratios.append({'what': what, 'unit': unit, **s, 'at_most': at_most, 'at_least': at_least, 'met': met})

    def ratio(self, what, a, b, **aim):
        "The same for `a` over `b`, round by round, so that a slow moment of the machine weighs on both"
        self.aim(what, [x/y for x, y in zip(a, b)], **aim)

    def peer(self, name, check=True):
        "Note the version of a library that is measured beside ours; `Missing` where it isn't installed or, with `check`, can't be imported"
        try: self.peers[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError: raise Missing(f'{name} is not installed') from None
        if check: child(f'import {MODULES.get(name, name)}; print(0)')

# ---- In a fresh interpreter

def child(code, threads=1, timeout=900, **env):
    "What `code` prints last, read as JSON, in an interpreter of its own; `Missing` with the error where it fails"
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'KERAS_BACKEND': 'torch', 'MPLBACKEND': 'agg', 'OMP_NUM_THREADS': str(threads), **env}
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True, text=True, encoding='utf-8', timeout=timeout)
    if r.returncode: raise Missing((r.stderr.strip() or 'it gave no reason').split('\n')[-1])
    return json.loads(r.stdout.strip().split('\n')[-1])

def cost(setup, code, threads=1, after=''):
    "Seconds, and memory beyond what was there before, of the line `code` between `setup` and `after`, in an interpreter of its own"
    code = f'{setup}\nfrom bench.harness import Cost\nwith Cost() as cost: {code}\n{after}\nprint(cost.json())'
    return child(code, threads, MALLOC_MMAP_THRESHOLD_='65536')  # see Cost

def memory(setup, code, threads=1):
    "The memory alone"
    return {k: v for k, v in cost(setup, code, threads).items() if k == 'B'}

class Cost:
    """Seconds of a `with` block, and the most memory that it held beyond what the process had before

    By the kernel's count of the process's pages, so that whoever asks for memory is counted: PyTorch, NumPy, BLAS, Python. `cost`
    has every block from 64 KiB on given back when it is freed; otherwise the C library would keep some, and a later use go unseen.
    """
    def __enter__(self):
        self.before = self._mark()
        self.start = time.perf_counter()
        return self
    def __exit__(self, *_):
        self.seconds = time.perf_counter()-self.start
        self.bytes = self._peak()-self.before if self.before else None
    def json(self): return json.dumps({'s': self.seconds} | ({'B': self.bytes} if self.before else {}))
    def _mark(self):
        "Bytes held now, the high-water mark set back to them; 0 where there is no such mark"
        try: Path('/proc/self/clear_refs').write_text('5')  # Linux: the mark is of this process alone, and can be set back
        except OSError: pass
        return self._peak()
    def _peak(self):
        try: return int(re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())[1])*1024
        except OSError: pass
        try: import resource
        except ImportError: return 0  # Windows
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes

# ---- On what

def cpu():
    try: return re.search(r'^model name\s*: (.+)$', Path('/proc/cpuinfo').read_text(), re.M)[1]
    except (OSError, TypeError): pass
    if sys.platform == 'darwin': return subprocess.run(['sysctl', '-n', 'machdep.cpu.brand_string'], capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()

def machine():
    import torch
    try: memory = round(os.sysconf('SC_PAGE_SIZE')*os.sysconf('SC_PHYS_PAGES')/2**30)
    except (AttributeError, ValueError, OSError): memory = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return {'cpu': cpu(), 'simd': torch.backends.cpu.get_cpu_capability(), 'cores': cores, 'memory_gib': memory, 'system': f'{platform.system()} {platform.machine()}'}

def versions():
    found = {'python': platform.python_version()}
    for name in ('torch', 'numpy', 'numba', 'foundation-notes'):
        try: found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError: pass
    return found

def commit():
    "The commit that was measured, with a + where files differ from it"
    git = lambda *a: subprocess.run(['git', *a], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    try: return git('rev-parse', '--short', 'HEAD') + '+'*bool(git('status', '--porcelain', '--', 'notes', 'nbs', 'tools', 'bench/*.py')) or None
    except OSError: return None

def measure(bench, quick, threads, seed=0, folder=None, kept=None):
    "Run a benchmark, a module with `run`: all that is kept of it"
    from notes.exports import set_seed
    name, load = bench.__name__.split('.')[-1], os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    res, start, when = Run(name, quick, threads, seed, folder, kept), time.perf_counter(), datetime.now(timezone.utc)
    set_seed(seed)
    bench.run(res)
    command = shlex.join(['python', '-m', 'bench', name, *['--quick']*quick, *(['--threads', str(threads)] if threads != 1 else []), *(['--folder', str(folder)] if folder else [])])
    return {'name': name, 'date': when.isoformat(timespec='seconds'), 'command': command, 'commit': commit(), 'quick': quick, 'seed': seed,
            'threads': threads, 'load_before': load, 'seconds': time.perf_counter()-start+res.earlier, 'machine': machine(),
            'versions': versions() | res.peers, 'missing': res.missing, 'ratios': res.ratios, 'figures': res.figures}

def save(result, folder):
    "Write the result to `folder`; the file is there whole, or as it was before"
    path = Path(folder)/f"{result['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_suffix('.tmp')
    tmp.write_text(json.dumps(result, indent=1, ensure_ascii=False)+'\n', encoding='utf-8')
    tmp.replace(path)
    return path

# ---- For people

def docs(name):
    "Title of a benchmark, and the text about it"
    text = ast.get_docstring(ast.parse((ROOT/'bench'/f'{name}.py').read_text(encoding='utf-8')))
    return text.split('\n', 1)[0], text.split('\n', 1)[1].strip()

def fmt(value, unit):
    "A figure with three digits and its unit"
    from notes.matmul import fmt_time
    if unit == 's': return fmt_time(value)
    if unit == 'B': value, unit = (value/1e6, ' MB') if value >= 999.5e3 else (value/1e3, ' kB')
    return (f'{value:.3g}' if abs(value) < 999.5 else f'{value:,.0f}')+unit

def fmt_mean(f):
    "A mean and half of its interval, in the digits that a percentage point needs"
    return f"{f['mean']:{'+' if f['unit'] == 'pp' else ''}.2f}".replace('-', '−')+(f" ± {f['half']:.2f}" if f['half'] is not None else '')

def fmt_range(a, b, unit):
    a, b = fmt(a, unit), fmt(b, unit)
    number, own = re.match(r'([\d.,]+)(.*)', a).groups()
    return f'{number if b.endswith(own) else a} to {b}'

RATIOS = ['what', 'measured', 'aim', '', 'quartiles']
def ratio_row(r):
    "The cells of RATIOS for a ratio"
    aim = next((f'{sign} {fmt(r[k], r["unit"])}' for sign, k in (('≤', 'at_most'), ('≥', 'at_least')) if r[k] is not None), '')
    return [r['what'], fmt(r['median'], r['unit']), aim, {True: 'met', False: 'missed', None: ''}[r['met']], fmt_range(r['q1'], r['q3'], r['unit'])]

def groups(d):
    "The figures of a result as {group: {name: {unit: figure}}}"
    res = {}
    for f in d['figures']: res.setdefault(f['group'], {}).setdefault(f['name'], {})[f['unit']] = f
    return res

def figure_tables(d):
    "Each group of figures as its name, a head and rows: time, rate where the operations are known, memory, and means with the half of their interval side by side"
    spread = lambda f: [fmt(f['median'], f['unit']), fmt_range(f['q1'], f['q3'], f['unit'])] if f else ['', '']
    columns = {'s': (['time', 'quartiles'], lambda fs: spread(fs.get('s'))),
               'flop': (['GFLOP/s'], lambda fs: [fmt(rate(fs), '')]),
               'images': (['images a second'], lambda fs: [f"{fs['s']['images']/fs['s']['median']:,.0f}"]),
               'float64': (['error in float64'], lambda fs: error(fs, 'float64')),
               'float32': (['in float32'], lambda fs: error(fs, 'float32')),
               'bfloat16': (['in bfloat16'], lambda fs: error(fs, 'bfloat16')),
               'waits': (['waits', 'quartiles'], lambda fs: [f"{fs['waits'][k]:g}" if k == 'median' else f"{fs['waits']['q1']:g} to {fs['waits']['q3']:g}" for k in ('median', 'q1')]),
               'B': (['memory', 'quartiles'], lambda fs: spread(fs.get('B'))),
               '%': (['accuracy'], lambda fs: [fmt(fs['%']['median'], '%') if 'mean' not in fs['%'] else fmt_mean(fs['%'])+'%'] if '%' in fs else ['']),
               'pp': (['points more'], lambda fs: [fmt_mean(fs['pp']) if 'pp' in fs else '']),
               'lr': (['learning rate'], lambda fs: [fmt(fs['%']['lr'], '') if '%' in fs else '']),
               'rate': (['learning rate'], lambda fs: [fmt(fs['rate']['median'], '') if 'rate' in fs else '']),
               'steps': (['steps'], lambda fs: [fmt_mean(fs['steps']) if 'mean' in fs['steps'] else fmt(fs['steps']['median'], '')] if 'steps' in fs else ['']),
               'digits': (['digits'], lambda fs: [fmt_mean(fs['digits']) if 'digits' in fs else '']),
               'loss': (['loss'], lambda fs: [fmt(fs['loss']['median'], '') if 'loss' in fs else '']),
               '×': (['÷ the best', 'quartiles'], lambda fs: spread(fs.get('×'))),
               'repeats': (['repeats'], lambda fs: [' and '.join(dict.fromkeys(str(f['repeats']) for f in fs.values()))])}
    for group, rows in groups(d).items():
        known = {k for fs in rows.values() for k in (*fs, *fs.get('s', ()), *fs.get('%', ()), 'repeats')}
        heads, cells = zip(*(columns[k] for k in columns if k in known))
        yield group, ['', *sum(heads, [])], [[name, *(c for f in cells for c in f(fs))] for name, fs in rows.items()]

def error(fs, unit):
    "A relative error, to one digit"
    return [f"{fs[unit]['median']:.0e}" if fs[unit]['median'] else '0'] if unit in fs else ['']

def rate(fs):
    "Billions of floating-point operations a second"
    return fs['s']['flop']/fs['s']['median']/1e9

def about(d):
    "The machine and the run, in a line"
    m, load = d['machine'], d['load_before']
    return (f"{m['cpu']} ({m['simd']}), {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}; {d['threads']} thread{'s'*(d['threads'] > 1)}; "
            + ', '.join(f'{k} {v}' for k, v in d['versions'].items()) + f"; seed {d['seed']}, commit {d['commit']}, {d['date'][:16].replace('T', ' ')} UTC"
            + (f', load average before {load:.1f}' if load is not None else '') + f", took {d['seconds']:.0f} s" + ', a quick run'*d['quick'])

"""Run the notebooks from the top, each in a fresh kernel without a network, and keep their outputs in `_build/nbs`.

A notebook is run again only when its code, a module it stands on, or a pinned version has changed.
`--store` writes the outputs into `nbs/` as well: that is how the stored outputs are made.

Two notebooks run at a time, each on one thread. A cell that says `#| alone: true` measures something: it waits until no other cell runs, nothing
runs beside it, and it has the machine's threads, unless its notebook sets their number itself.
"""
import argparse, asyncio, hashlib, json, os, platform, re, shutil, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from directives import directives, metadata

ROOT = Path(__file__).resolve().parent.parent
NBS, NOTES, BUILD = ROOT/'nbs', ROOT/'notes', ROOT/'_build'
LANGUAGE = {'name': 'python', 'file_extension': '.py', 'mimetype': 'text/x-python', 'pygments_lexer': 'ipython3', 'nbconvert_exporter': 'python'}  # no version: it is any
TIMEOUT = 3600  # seconds for one cell, or for a kernel to answer: against what hangs, and no machine is so slow
# Runs in the kernel before the first cell. The kernel's own sockets are ZeroMQ's, which Python's socket module doesn't see.
NO_NETWORK = '''
import socket as _s
def _local(a): return not isinstance(a, tuple) or a[0] in ('localhost','127.0.0.1','::1','')
def _guard(f):
    def g(self, address, *a):
        if not _local(address): raise OSError(f"the notebooks run without a network, and this one asked for {address}")
        return f(self, address, *a)
    return g
_s.socket.connect, _s.socket.connect_ex = _guard(_s.socket.connect), _guard(_s.socket.connect_ex)
def _lookup(host, *a, _f=_s.getaddrinfo, **k):
    if not _local((host,)): raise OSError(f"the notebooks run without a network, and this one asked for {host}")
    return _f(host, *a, **k)
_s.getaddrinfo = _lookup
del _s
'''

def notebooks(names=()):
    "Paths of the notebooks that `names` mean (all of them without), in the order of the series: 02_fully_connected, or 02, or 02_f"
    paths = sorted(NBS.glob('[0-9]*.ipynb'))
    if not names: return paths
    def meant(name): return next((f for test in (lambda s: s == name, lambda s: s.split('_')[0] == name, lambda s: s.startswith(name)) if (f := [p for p in paths if test(p.stem)])), [])
    if unknown := sorted({n for n in names if len(meant(n)) != 1}):
        sys.exit(f"no one notebook {', '.join(unknown)} in nbs/: there are {', '.join(p.stem for p in paths)}")
    chosen = [p for n in names for p in meant(n)]
    return [p for p in paths if p in chosen]

def read(path): return nbformat.read(path, as_version=4)
def code_cells(nb): return [c for c in nb.cells if c.cell_type == 'code']

def module_of(nb):
    "Name of the module that notebook `nb` exports, or None"
    return next((m for c in code_cells(nb) if (m := directives(c.source).get('default_exp'))), None)

def key(path):
    "Digest of all that decides what the notebook at `path` prints"
    nb = read(path)
    mods = {m for p in notebooks() if p.name <= path.name and (m := module_of(read(p)))}  # 00 borrows one of a later notebook
    mods |= {m for c in code_cells(nb) for m in re.findall(r'^from notes\.(\w+) import', c.source, re.M)}
    h = hashlib.sha256(platform.python_version().encode())
    for f in [Path(__file__), Path(__file__).with_name('directives.py'), ROOT/'requirements.txt', *sorted(NOTES.glob('*.npz')), *(NOTES/f'{m}.py' for m in sorted(mods))]:
        if f.exists(): h.update(f.read_bytes())
    h.update(json.dumps([c.source for i, c in enumerate(nb.cells) if i == 0 or c.cell_type == 'code']).encode())
    return h.hexdigest()

class Turns:
    """Whose turn it is: any number at once, or one alone

    Whoever waits to be alone goes first, or the others could keep it waiting for ever. After `stop` nobody's turn comes, and kernels that run are interrupted.
    """
    def __init__(self): self.changed, self.running, self.waiting, self.alone, self.stopped, self.kernels = threading.Condition(), 0, 0, False, False, set()
    @contextmanager
    def turn(self, alone=False):
        with self.changed:
            self.waiting += alone
            self.changed.wait_for(lambda: self.stopped or not self.alone and not (self.running if alone else self.waiting))
            self.waiting -= alone
            if self.stopped: raise Stopped
            self.alone, self.running = alone, self.running + 1
        try: yield
        finally:
            with self.changed:
                self.alone, self.running = False, self.running - 1
                self.changed.notify_all()
            if self.stopped: raise Stopped
    def stop(self):
        with self.changed:
            if self.stopped: return
            self.stopped, kernels = True, [*self.kernels]
            self.changed.notify_all()
        for k in kernels:
            with suppress(Exception): asyncio.run(k.interrupt_kernel())

class Stopped(Exception): "Another notebook failed, or somebody pressed Ctrl-C"

def threads_for(c, nb):
    "Code that gives a kernel the machine's threads for a cell that is alone, and code that takes them back"
    if 'alone' not in directives(c.source) or any('set_num_threads' in c.source for c in code_cells(nb)): return ()
    return [f"__import__('sys').modules['torch'].set_num_threads({n}) if 'torch' in __import__('sys').modules else None" for n in (os.cpu_count() or 1, 1)]

def execute(path, on_cell, turns=None):
    "Outputs of every code cell of the notebook at `path`, run in a folder of its own that holds a copy of the series"
    nb, cwd = read(path), BUILD/'run'/path.stem
    shutil.rmtree(cwd, ignore_errors=True)
    cwd.mkdir(parents=True)
    for p in notebooks(): shutil.copy(p, cwd)
    for c in code_cells(nb): c.outputs, c.execution_count = [], None
    client = NotebookClient(nb, timeout=TIMEOUT, startup_timeout=TIMEOUT, iopub_timeout=TIMEOUT, kernel_name='python3', extra_arguments=['--IPKernelApp.log_level=40'],
                            resources={'metadata': {'path': str(cwd)}}, coalesce_streams=True,  # a progress bar is stored as it ends
                            on_cell_executed=lambda **_: on_cell())
    turns, silent = turns or Turns(), lambda code: client.kc.execute(code, silent=True, store_history=False)
    # One thread each, so that two kernels share the cores and sums come out in one order. One that waits for work must not spin: beside another busy process that costs ten times the time.
    env = {**os.environ, 'PYTHONHASHSEED': '0', 'OMP_WAIT_POLICY': 'passive', **{f'{lib}_NUM_THREADS': '1' for lib in ('OMP', 'MKL', 'OPENBLAS')}}
    with _kernel(client, env, turns):
        for i, c in enumerate(nb.cells):
            if c.cell_type != 'code': continue
            try:
                with turns.turn('alone' in directives(c.source)):
                    first, *after = threads_for(c, nb) or ('',)
                    if first: silent(first)
                    client.execute_cell(c, i)
                    for code in after: silent(code)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
                raise CellFailed(path, i, c, getattr(e, 'evalue', None) or str(e)) from None
    shutil.rmtree(cwd)
    return [c.outputs for c in code_cells(nb)]

@contextmanager
def _kernel(client, env, turns):
    "The notebook's kernel, started when it is anybody's turn"
    with ExitStack() as stack:
        with turns.turn():
            stack.enter_context(client.setup_kernel(env=env))
            turns.kernels.add(client.km)
            stack.callback(turns.kernels.discard, client.km)
        client.kc.execute(NO_NETWORK, silent=True, store_history=False)
        yield

class CellFailed(Exception):
    def __init__(self, path, i, cell, why):
        tb = [l for o in cell.get('outputs', []) if o.output_type == 'error' for l in o.traceback]
        trace = re.sub(r'\x1b\[[0-9;]*m', '', '\n'.join(tb)) or why
        super().__init__(f"{path.name}, cell {i+1} (id {cell.id}):\n\n{cell.source}\n\n{trace}")

def fill(nb, outputs):
    "Put `outputs` into the code cells of `nb`"
    for n, (c, o) in enumerate(zip(code_cells(nb), outputs)): c.outputs, c.execution_count = o, n+1
    return nb

def dress(nb):
    "Write into the metadata of `nb` what its `#|` lines ask of others: JupyterLab and Colab to fold a cell, nbconvert to describe a picture; and that it is Python"
    nb.metadata['language_info'] = nbformat.from_dict(LANGUAGE)
    for c in code_cells(nb):
        for k in ('jupyter', 'cellView'): c.metadata.pop(k, None)
        c.metadata.update(nbformat.from_dict(metadata(c.source)))
        alt = directives(c.source).get('fig-alt')
        for o in c.outputs:
            if 'data' in o: o.metadata = nbformat.from_dict({kind: {'alt': alt} for kind in o.data if alt and kind.startswith('image/')})
    return nb

def run(path, on_cell, turns=None):
    "Bring `_build/nbs` up to date for one notebook; returns seconds, or None where nothing had to be run"
    cache, fresh = BUILD/'cache'/f'{path.stem}.json', BUILD/'nbs'/path.name
    for d in (cache.parent, fresh.parent): d.mkdir(parents=True, exist_ok=True)
    k, took = key(path), None
    try: d = json.loads(cache.read_text(encoding='utf-8'))
    except (OSError, ValueError): d = {}
    if d.get('key') != k:
        start = time.perf_counter()
        outputs = execute(path, on_cell, turns)
        took = time.perf_counter() - start
        d = {'key': k, 'outputs': outputs}
        tmp = cache.with_suffix('.tmp')
        tmp.write_text(json.dumps(d), encoding='utf-8')
        tmp.replace(cache)
    nb = fill(read(path), nbformat.from_dict(d['outputs']))
    text = nbformat.writes(nb)
    if not fresh.exists() or fresh.read_text(encoding='utf-8') != text: fresh.write_text(text, encoding='utf-8')
    return took

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('names', nargs='*', help="notebooks to run, such as 01_matmul (default: all)")
    ap.add_argument('--store', action='store_true', help="write the outputs into nbs/ too")
    args = ap.parse_args()
    sys.stdout.reconfigure(errors='replace')  # a console that can't show an error's every letter
    con, failed = Console(highlight=False, soft_wrap=True), None
    paths, start, turns, rows = notebooks(args.names), time.perf_counter(), Turns(), {}
    def work(p):
        if turns.stopped: raise Stopped
        nb, t0 = read(p), time.perf_counter()
        row = lambda took, status: rows.update({p: (p.stem, took, str(len(nb.cells)), status)})
        task = bar.add_task(p.stem, total=sum(bool(c.source.strip()) for c in code_cells(nb)))
        try:
            took = run(p, lambda: bar.advance(task), turns)
            if args.store:
                nbformat.write(dress(read(BUILD/'nbs'/p.name)), p)
                subprocess.run([sys.executable, '-c', 'from nbdev.clean import nbdev_clean; nbdev_clean()', str(p)], check=True, cwd=ROOT)
            row('–' if took is None else f'{took:.1f}', 'up to date' if took is None else 'run')
        except Exception as e:
            row(f'{time.perf_counter()-t0:.1f}', 'stopped' if isinstance(e, Stopped) else '[red]failed')
            turns.stop()
            raise
        finally: bar.remove_task(task)
    with Progress(TextColumn('{task.description:<24}'), BarColumn(), MofNCompleteColumn(), TextColumn('cells'), TimeElapsedColumn(),
                  console=con, transient=True) as bar:
        with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
            try:
                for f in as_completed([pool.submit(work, p) for p in paths]):
                    if (e := f.exception()) is None or isinstance(e, Stopped): continue
                    failed = failed or e
            except BaseException:  # Ctrl-C
                pool.shutdown(wait=False, cancel_futures=True)
                turns.stop()
                raise
    table = Table('notebook', 'seconds', 'cells', 'status')
    for c in table.columns[1:3]: c.justify = 'right'
    for p in paths:
        if p in rows: table.add_row(*rows[p])
    table.caption = f'{time.perf_counter()-start:.1f} seconds in all'
    con.print(table)
    if failed:
        if not isinstance(failed, CellFailed): raise failed
        con.print(f'\n{failed}', markup=False)
        sys.exit(1)

if __name__ == '__main__': main()

"""Run the notebooks from the top, each in a fresh kernel without a network, and keep their outputs in `_build/nbs`.

A notebook is run again only when its code, a module it stands on, or a pinned version has changed.
`--store` writes the outputs into `nbs/` as well: that is how the stored outputs are made.
"""
import argparse, hashlib, json, os, platform, re, shutil, subprocess, sys, time
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
    "Paths of the notebooks called `names` (all of them without), in the order of the series"
    paths = sorted(NBS.glob('[0-9]*.ipynb'))
    if not names: return paths
    if unknown := set(names) - {p.stem for p in paths}:
        sys.exit(f"no notebook {', '.join(sorted(unknown))} in nbs/: there are {', '.join(p.stem for p in paths)}")
    return [p for p in paths if p.stem in names]

def read(path): return nbformat.read(path, as_version=4)
def code_cells(nb): return [c for c in nb.cells if c.cell_type == 'code']

def module_of(nb):
    "Name of the module that notebook `nb` exports, or None"
    return next((m for c in code_cells(nb) if (m := directives(c.source).get('default_exp'))), None)

def key(path):
    "Digest of all that decides what the notebook at `path` prints"
    earlier = [p for p in notebooks() if p.name <= path.name]
    mods = [m for p in earlier if (m := module_of(read(p)))]
    h = hashlib.sha256(platform.python_version().encode())
    for f in [Path(__file__), ROOT/'requirements.txt', NOTES/'mnist.npz', *(NOTES/f'{m}.py' for m in mods)]:
        if f.exists(): h.update(f.read_bytes())
    h.update(json.dumps([c.source for i, c in enumerate(read(path).cells) if i == 0 or c.cell_type == 'code']).encode())
    return h.hexdigest()

def execute(path, on_cell):
    "Outputs of every code cell of the notebook at `path`, run in a folder of its own that holds a copy of the series"
    nb, cwd = read(path), BUILD/'run'/path.stem
    shutil.rmtree(cwd, ignore_errors=True)
    cwd.mkdir(parents=True)
    for p in notebooks(): shutil.copy(p, cwd)
    for c in code_cells(nb): c.outputs, c.execution_count = [], None
    client = NotebookClient(nb, timeout=TIMEOUT, startup_timeout=TIMEOUT, iopub_timeout=TIMEOUT, kernel_name='python3', extra_arguments=['--IPKernelApp.log_level=40'],
                            resources={'metadata': {'path': str(cwd)}}, coalesce_streams=True,  # a progress bar is stored as it ends
                            on_cell_executed=lambda **_: on_cell())
    # A thread of PyTorch's that waits for work must not spin: beside another busy process that costs ten times the time.
    with client.setup_kernel(env={**os.environ, 'PYTHONHASHSEED': '0', 'OMP_WAIT_POLICY': 'passive'}):
        client.kc.execute(NO_NETWORK, silent=True, store_history=False)
        for i, c in enumerate(nb.cells):
            try: client.execute_cell(c, i)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
                raise CellFailed(path, i, c, getattr(e, 'evalue', None) or str(e)) from None
    shutil.rmtree(cwd)
    return [c.outputs for c in code_cells(nb)]

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

def run(path, on_cell):
    "Bring `_build/nbs` up to date for one notebook; returns seconds, or None where nothing had to be run"
    cache, fresh = BUILD/'cache'/f'{path.stem}.json', BUILD/'nbs'/path.name
    for d in (cache.parent, fresh.parent): d.mkdir(parents=True, exist_ok=True)
    k, took = key(path), None
    try: d = json.loads(cache.read_text(encoding='utf-8'))
    except (OSError, ValueError): d = {}
    if d.get('key') != k:
        start = time.perf_counter()
        outputs = execute(path, on_cell)
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
    table = Table('notebook', 'seconds', 'cells', 'status')
    for c in table.columns[1:3]: c.justify = 'right'
    paths, start = notebooks(args.names), time.perf_counter()
    with Progress(TextColumn('{task.description:<24}'), BarColumn(), MofNCompleteColumn(), TextColumn('cells'), TimeElapsedColumn(),
                  console=con, transient=True) as bar:
        for p in paths:
            nb = read(p)
            n = len(nb.cells)
            task = bar.add_task(p.stem, total=sum(bool(c.source.strip()) for c in code_cells(nb)))
            t0 = time.perf_counter()
            try:
                took = run(p, lambda: bar.advance(task))
                if args.store:
                    nbformat.write(dress(read(BUILD/'nbs'/p.name)), p)
                    subprocess.run([sys.executable, '-c', 'from nbdev.clean import nbdev_clean; nbdev_clean()', str(p)], check=True, cwd=ROOT)
                table.add_row(p.stem, '–' if took is None else f'{took:.1f}', str(n), 'up to date' if took is None else 'run')
            except CellFailed as e:
                failed = e
                table.add_row(p.stem, f'{time.perf_counter()-t0:.1f}', str(n), '[red]failed')
                break
            finally: bar.remove_task(task)
    table.caption = f'{time.perf_counter()-start:.1f} seconds in all'
    con.print(table)
    if failed:
        con.print(f'\n{failed}', markup=False)
        sys.exit(1)

if __name__ == '__main__': main()

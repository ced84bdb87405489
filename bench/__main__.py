"Measure, print a table, and keep the figures in bench/results/NAME.json, which the site shows"
import argparse, importlib, shutil, sys
from pathlib import Path
from . import NAMES
from .harness import RATIOS, RESULTS, ROOT, Missing, about, docs, figure_tables, measure, ratio_row, save

def show(con, d):
    from rich.table import Table
    def table(title, head, rows, **kw):
        t = Table(head[0], *head[1:], title=title, title_justify='left', **kw)
        for c in t.columns[1:]: c.justify = 'right'
        for r in rows: t.add_row(*r)
        con.print(t)
    for group, head, rows in figure_tables(d): table(group, head, rows)
    if d['ratios']: table(docs(d['name'])[0], RATIOS, map(ratio_row, d['ratios']))
    con.print(f"{docs(d['name'])[0]}: {about(d)}")
    for k, why in d['missing'].items(): con.print(f'[bold]Missing: {k}[/] ({why})')

def main():
    ap = argparse.ArgumentParser(prog='python -m bench', description=__doc__)
    ap.add_argument('names', nargs='*', metavar='NAME', help=f"benchmarks to run, of {', '.join(NAMES)} (default: all)")
    ap.add_argument('--list', action='store_true', help="name the benchmarks, and run none")
    ap.add_argument('--quick', action='store_true', help="few repeats and small sizes, to see that it works; kept in _build/bench")
    ap.add_argument('--threads', type=int, default=1, help="threads of PyTorch and BLAS (default: 1)")
    ap.add_argument('--out', help="folder for the figures (default: bench/results)")
    ap.add_argument('--folder', help="for activations: a folder of images of yours in place of the digits, or the address of an archive of one (see there)")
    ap.add_argument('--sha256', help="what the whole archive must hash to before it is opened")
    ap.add_argument('--resume', action='store_true', help="go on with the trainings that a run of the same code, broken off, has kept in _build/bench")
    args = ap.parse_args()
    if unknown := set(args.names)-set(NAMES): ap.error(f"no benchmark {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    sys.stdout.reconfigure(errors='replace')
    if args.list: return print('\n'.join(f'{n:8} {docs(n)[0]}' for n in NAMES))
    from rich.console import Console
    con = Console(highlight=False, soft_wrap=True)
    if args.folder and args.names != ['activations']: ap.error("--folder is for activations alone")
    build, folder = ROOT/'_build'/'bench', None
    if args.folder:
        from .activations import fetched
        try: folder = fetched(args.folder, args.sha256)
        except ValueError as e: ap.error(str(e))
    out = Path(args.out or (build/folder.name if folder else build if args.quick else RESULTS))
    for n in args.names or NAMES:
        kept = None if args.quick else build/'kept'/f"{n}{f'-{folder.name}' if folder else ''}.jsonl"
        if kept and not args.resume:
            kept.unlink(missing_ok=True)
            shutil.rmtree(kept.with_suffix(''), ignore_errors=True)
        try: d = measure(importlib.import_module(f'bench.{n}'), args.quick, args.threads, folder=folder, kept=kept)
        except Missing as e:  # all of it
            con.print(f'{n}: not measured, {e}\n')
            continue
        path = save(d, out)
        if kept: kept.unlink(missing_ok=True)
        show(con, d)
        con.print(f"{path}, in {d['seconds']:.0f} s\n")

if __name__ == '__main__': main()

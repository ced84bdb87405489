"Measure, print a table, and keep the figures in bench/results/NAME.json, which the site shows"
import argparse, importlib, sys
from . import NAMES
from .harness import RATIOS, RESULTS, ROOT, about, docs, figure_tables, measure, ratio_row, save

def show(con, d):
    from rich.table import Table
    def table(title, head, rows, **kw):
        t = Table(head[0], *head[1:], title=title, title_justify='left', **kw)
        for c in t.columns[1:]: c.justify = 'right'
        for r in rows: t.add_row(*r)
        con.print(t)
    for group, head, rows in figure_tables(d): table(group, head, rows)
    table(docs(d['name'])[0], RATIOS, map(ratio_row, d['ratios']), caption=about(d))
    for k, why in d['missing'].items(): con.print(f'[bold]Missing: {k}[/] ({why})')

def main():
    ap = argparse.ArgumentParser(prog='python -m bench', description=__doc__)
    ap.add_argument('names', nargs='*', metavar='NAME', help=f"benchmarks to run, of {', '.join(NAMES)} (default: all)")
    ap.add_argument('--list', action='store_true', help="name the benchmarks, and run none")
    ap.add_argument('--quick', action='store_true', help="few repeats and small sizes, to see that it works; kept in _build/bench")
    ap.add_argument('--threads', type=int, default=1, help="threads of PyTorch and BLAS (default: 1)")
    ap.add_argument('--out', help="folder for the figures (default: bench/results)")
    args = ap.parse_args()
    if unknown := set(args.names)-set(NAMES): ap.error(f"no benchmark {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    sys.stdout.reconfigure(errors='replace')
    if args.list: return print('\n'.join(f'{n:8} {docs(n)[0]}' for n in NAMES))
    from rich.console import Console
    con = Console(highlight=False, soft_wrap=True)
    for n in args.names or NAMES:
        d = measure(importlib.import_module(f'bench.{n}'), args.quick, args.threads)
        path = save(d, args.out or (ROOT/'_build'/'bench' if args.quick else RESULTS))
        show(con, d)
        con.print(f"{path}, in {d['seconds']:.0f} s\n")

if __name__ == '__main__': main()

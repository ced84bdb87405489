"Measure, print a table, and keep the figures in bench/results/NAME.json, which the site shows"
import argparse, ast, importlib, sys
from .harness import NAMES, RESULTS, ROOT, fmt, fmt_aim, fmt_met, measure, save

def title(name): return ast.get_docstring(ast.parse((ROOT/'bench'/f'{name}.py').read_text(encoding='utf-8'))).split('\n')[0]

def show(con, d):
    from rich.table import Table
    m, t = d['machine'], Table('what', 'measured', 'quartiles', 'aim', '', title=title(d['name']), title_justify='left')
    for r in d['ratios']: t.add_row(r['what'], fmt(r['median'], r['unit']), f"{fmt(r['q1'], r['unit'])} – {fmt(r['q3'], r['unit'])}", fmt_aim(r), fmt_met(r))
    con.print(t)
    t = Table('', 'median', 'interquartile range', 'repeats')
    for c in t.columns[1:]: c.justify = 'right'
    group = None
    for f in d['figures']:
        if f['group'] != group: t.add_row(f"[bold]{(group := f['group'])}", end_section=False)
        t.add_row(f"  {f['name']}", fmt(f['median'], f['unit']), fmt(f['q3']-f['q1'], f['unit']), str(f['repeats']))
    t.caption = (f"{m['cpu']}, {m['simd']}; {m['cores']} cores, {d['threads']} thread{'s'*(d['threads'] > 1)}, load {d['load_before'] or 0:.2f} before; "
                 + ', '.join(f'{k} {v}' for k, v in d['versions'].items()))
    con.print(t)
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
    if args.list: return print('\n'.join(f'{n:8} {title(n)}' for n in NAMES))
    from rich.console import Console
    con = Console(highlight=False, soft_wrap=True)
    for n in args.names or NAMES:
        d = measure(importlib.import_module(f'bench.{n}'), args.quick, args.threads)
        path = save(d, args.out or (ROOT/'_build'/'bench' if args.quick else RESULTS))
        show(con, d)
        con.print(f"{path}, in {d['seconds']:.0f} s\n")

if __name__ == '__main__': main()

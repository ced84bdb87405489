"""How heavy each notebook is to read, against what we allow: printed by `make test`.

A folded cell has `#| code-summary: …` or `#| hide`. Lines of code are counted without blank and `#|` lines, words of prose without folded answers, links and formulas.
"""
import ast, re, sys
import numpy as np
from rich.console import Console
from rich.table import Table
from directives import code_of, directives, folded
from run import code_cells, notebooks, read

LIMITS = {'cells': 75, 'unfolded': 60, 'median': 5, 'p90': 12, 'words': 2500, 'wide': 0, 'long': .1}
WIDTH, LONG = 88, 15  # characters of a line of code, lines of an exported definition
DERIVES = 5  # formulas on lines of their own: whoever derives may use 3,000 words

def prose(nb):
    "What stands in the markdown cells, without folded answers"
    return re.sub(r'<details>.*?</details>', '', '\n\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown'), flags=re.S)

def definitions(source):
    "Lines of each function, class and patched method that an exported cell defines"
    if 'export' not in directives(source): return []
    return [o.end_lineno-o.lineno+1 for o in ast.parse(code_of(source)).body if isinstance(o, (ast.FunctionDef, ast.ClassDef))]

def count(nb):
    "What the table shows of one notebook"
    cells = [c.source for c in code_cells(nb)]
    lines = [sum(bool(l.strip()) for l in code_of(s).split('\n')) for s in cells if not folded(s)]
    text = prose(nb)
    words = len(re.sub(r'\$\$.*?\$\$|\]\([^)]*\)|[|#>*$-]', ' ', text, flags=re.S).split())
    defs = [n for s in cells for n in definitions(s)]
    return {'cells': len(cells), 'unfolded': len(lines), 'median': float(np.median(lines)), 'p90': float(np.quantile(lines, .9)), 'words': words,
            'wide': sum(any(len(l) > WIDTH and not l.startswith('#| fig-alt') for l in s.split('\n')) for s in cells),
            'long': sum(n > LONG for n in defs)/max(len(defs), 1), 'derives': text.count('$$')//2 >= DERIVES}

def minutes(n):
    "Reading time of a notebook with counts `n`, to five minutes: 200 words a minute, and a quarter of one for each cell in view"
    return 5*max(1, round((n['words']/200+n['unfolded']/4)/5))

def over(n):
    "Names of the counts that are too high"
    return [k for k, most in LIMITS.items() if n[k] > (3000 if k == 'words' and n['derives'] else most)]

def main():
    table, bad = Table('notebook', *LIMITS, 'minutes'), False
    for c in table.columns[1:]: c.justify = 'right'
    for p in notebooks():
        n = count(read(p))
        red = over(n)
        bad = bad or red
        cell = lambda k: f"{'[red]' if k in red else ''}{n[k]:,.0f}" if k != 'long' else f"{'[red]' if k in red else ''}{n[k]:.0%}"
        table.add_row(p.stem, *map(cell, LIMITS), str(minutes(n)))
    table.caption = 'at most '+', '.join(f'{k} {v:g}' for k, v in LIMITS.items())
    Console(width=110).print(table)
    sys.exit(1 if bad else 0)

if __name__ == '__main__': main()

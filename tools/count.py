"""How heavy each notebook is to read, against what we allow: `make test` prints it, and tests/test_notebooks.py judges.

A folded cell has `#| code-summary: …` or `#| hide`. Lines of code are counted without blank and `#|` lines, words of prose without folded
answers, code blocks, addresses and formulas on lines of their own; a formula within a line is a word.
"""
import ast, re, sys
import numpy as np
from rich.console import Console
from rich.table import Table
from directives import code_of, directives, folded
from run import code_cells, notebooks, read

LIMITS = {'cells': 75, 'unfolded': 60, 'median': 5, 'p90': 12, 'words': 2500, 'wide': 0, 'long': .1}
WIDTH, LONG = 88, 15  # characters of a line of code, lines of an exported definition
DERIVES, DERIVING = 5, 3000  # whoever derives, in so many formulas on lines of their own, may use so many words

def prose(nb):
    "What stands in the markdown cells, without folded answers"
    return re.sub(r'<details\b.*?</details>', '', '\n\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown'), flags=re.S)

def words(text):
    "How many words a reader of this markdown reads"
    for what, by in ((r'^[ \t]*(```+|~~~+).*?^[ \t]*\1[ \t]*$', ''), (r'\$\$.*?\$\$', ' '), (r'(?<!\\)\$[^$\n]+\$', ' x '), (r'\]\([^)]*\)', ' '), (r'</?[a-z][^>]*>', ''), (r'\|', ' ')):
        text = re.sub(what, by, text, flags=re.S | re.M)
    return sum(any(ch.isalnum() for ch in w) for w in text.split())

def definitions(source):
    "Lines of each function, class and patched method that an exported cell defines"
    if 'export' not in directives(source): return []
    return [o.end_lineno-o.lineno+1 for o in ast.parse(code_of(source)).body if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]

def count(nb):
    "What the table shows of one notebook"
    cells = [c.source for c in code_cells(nb)]
    lines = [sum(bool(l.strip()) for l in code_of(s).split('\n')) for s in cells if not folded(s)] or [0]
    defs, text = [n for s in cells for n in definitions(s)], prose(nb)
    return {'cells': len(cells), 'unfolded': sum(not folded(s) for s in cells), 'lines': sum(lines), 'median': float(np.median(lines)), 'p90': round(float(np.quantile(lines, .9)), 1),
            'words': words(text), 'wide': sum(any(len(l) > WIDTH and 'fig-alt' not in directives(l) for l in s.split('\n')) for s in cells),
            'long': sum(n > LONG for n in defs)/max(len(defs), 1), 'derives': text.count('$$')//2 >= DERIVES}

def minutes(n):
    "Reading time of a notebook with counts `n`, to five minutes: 150 words of prose a minute, or 15 lines of the code in view"
    return 5*max(1, round((n['words']/150+n['lines']/15)/5))

def most(name, n):
    "How high the count `name` may be in a notebook with counts `n`"
    return DERIVING if name == 'words' and n['derives'] else LIMITS[name]

def over(n):
    "Names of the counts that are too high"
    return [k for k in LIMITS if n[k] > most(k, n)]

def show(name, value): return f'{value:.0%}' if name == 'long' else f'{value:,g}'

def main():
    table = Table('notebook', *LIMITS, 'minutes')
    for c in table.columns[1:]: c.justify = 'right'
    for p in notebooks(sys.argv[1:]):
        n = count(read(p))
        table.add_row(p.stem, *(f"[red]{show(k, n[k])}" if k in over(n) else show(k, n[k]) for k in LIMITS), str(minutes(n)))
    table.caption = 'at most '+', '.join(f'{k} {show(k, v)}' for k, v in LIMITS.items())
    Console(width=110).print(table)

if __name__ == '__main__': main()

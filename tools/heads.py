"""The head of a notebook: a table that says what it stands on, what it builds and how many minutes it takes. And what it reaches, from a stored result.

    | stands on | builds | minutes |
    |---|---|---|
    | [00_exports](00_exports.ipynb) | the matrix product, seven times (`notes.matmul`) | 30 |

The map on the site's first page is drawn from these. A cell's line `#| reaches: {} of the digits read right` names the result, which takes the place of `{}`. Where either
is missing the map says less; tests/lint.py asks for the heads.
"""
import ast, re
from directives import directives

_table = re.compile(r'^\| *stands on *\| *builds *\| *minutes *\| *\n\|[-: |]+\| *\n\|(.+)\| *$', re.M)

def _source(cell): return ''.join(cell['source'])

def head(nb):
    "What the notebook's head says: {'stands': names of notebooks, 'builds': markdown, 'minutes': number}; None where it has none"
    found = next((m for c in nb['cells'][:8] if c['cell_type'] == 'markdown' and (m := _table.search(_source(c)))), None)
    if not found: return None
    row = [s.strip() for s in re.split(r'(?<!\\)\|', found[1])]
    if len(row) != 3 or not row[1] or not row[2].isdigit(): return None
    stands = re.findall(r'\]\((\w+)\.ipynb\)', row[0])
    if not stands and row[0] != 'nothing': return None
    return {'stands': stands, 'builds': row[1].replace(r'\|', '|'), 'minutes': int(row[2])}

def result(cell):
    "The text that a cell shows, as stored; a string without its quotes"
    for o in cell.get('outputs', []):
        text = ''.join(o.get('data', {}).get('text/plain', o.get('text', ''))).strip()
        if not text: continue
        try: value = ast.literal_eval(text)
        except (ValueError, SyntaxError): value = text
        return value if isinstance(value, str) else text

def reaches(nb):
    "What the notebook's result says about it, or None"
    for c in nb['cells']:
        if c['cell_type'] != 'code' or not (text := directives(_source(c)).get('reaches')): continue
        if '{}' not in text: return text
        if shown := result(c): return text.replace('{}', shown)
    return None

def stop(name, nb):
    "What the map shows of a notebook"
    title = re.search(r'^# (.+)$', _source(nb['cells'][0]), re.M)[1]
    return {'name': name, 'title': title, **(head(nb) or {'stands': [], 'builds': '', 'minutes': None}), 'reaches': reaches(nb)}

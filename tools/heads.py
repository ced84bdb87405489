"""The head of a notebook: a table that says what it stands on, what it builds and how many minutes it takes. And what it reaches, from a stored result.

    | stands on | builds | minutes |
    |---|---|---|
    | [00_exports](00_exports.ipynb) | the matrix product, seven times (`notes.matmul`) | 30 |

The map on the site's first page is drawn from these. A cell's line `#| reaches: {} of the digits read right` names the result, which takes the place of `{}`.
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
    if len(row) != 3 or not row[2].isdigit(): return None
    return {'stands': re.findall(r'\]\((\w+)\.ipynb\)', row[0]), 'builds': row[1].replace(r'\|', '|'), 'minutes': int(row[2])}

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

def faults(nb, name, names, minutes):
    "What is wrong with the head of the notebook called `name`, one of `names`, that takes `minutes` to read; one sentence each"
    h = head(nb)
    if h is None:
        yield "the head has no table `| stands on | builds | minutes |` with three cells below it"
        return
    if h['minutes'] != minutes: yield f"the head says {h['minutes']} minutes, and tools/count.py {minutes}"
    if not h['builds']: yield "the head doesn't say what is built"
    for s in h['stands']:
        if s not in names: yield f"it stands on {s}, and there is no such notebook"
        elif s >= name: yield f"it stands on {s}, which comes later"
    if not h['stands'] and name != min(names): yield "it stands on nothing: the head names no notebook"
    marked = [directives(_source(c))['reaches'] for c in nb['cells'] if c['cell_type'] == 'code' and 'reaches' in directives(_source(c))]
    if len(marked) > 1: yield "two cells say `#| reaches`"
    if marked and '{}' in marked[0] and '{}' in (reaches(nb) or '{}'): yield "the cell that says `#| reaches` shows no result"

"""Rules for a notebook beyond running: each takes a notebook and gives sentences that say what breaks it.

`RULES` lists them; `tests/test_notebooks.py` applies each to each notebook, and shows of each that it can fail.
"""
import ast, copy, re
from pathlib import Path
from IPython.core.inputtransformer2 import TransformerManager
import count, repository
from directives import code_of, directives, passed_over, rewritten
from heads import head as read_head
from outputs import PICTURES, VARIES, varies
from project import read
from run import dress

HTML = {'details', 'summary', 'dfn', 'code', 'img', 'sub', 'sup', 'kbd', 'br'}
HIDDEN = repository.hidden()
MAX_LINES = 30
# Figures in prose that no clock of ours decides: (part of the file name, text around the figure).
FACTS = [('02_fully_connected', 'times as fast as $')]  # the chain rule, in words

_words = r'(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|forty|fifty|hundreds?|thousands?|millions?)'
_amount = r'\d(?:[\d.,]|\\,)*'
_measured = re.compile(rf'''
    {_amount}[\s ]?(?:ns|[µμu]s|ms|seconds?|milliseconds?|microseconds?|nanoseconds?|minutes?|[kMGT]?FLOPS?(?:/s)?|[kMGT]i?B/s)(?!\w)
    | {_amount}[  ]s(?!\w)
    | {_amount}\s?×(?!\s?[\w$(])
    | (?:{_amount}|{_words})(?:\s+(?:or|to|of|and|{_amount}|{_words}))*\s?(?:×|x|times|-?fold)\s(?:(?:as\s)?(?:fast|slow|quick)|the\sspeed|speed|less\smemory|more\smemory)''', re.X)
_role, _role_fence = re.compile(r'\{[\w:.-]+\}`'), re.compile(r'^\s*(?:```+|~~~+)\s*\{', re.M)


def cells(nb, kind): return [(i, c) for i, c in enumerate(nb['cells'], 1) if c['cell_type'] == kind]
def where(i, c): return f"cell {i} (id {c.get('id')})"
def last_error(c): return next((f"{o['ename']}: {o['evalue']}" for o in c['outputs'] if o['output_type'] == 'error'), None)

def prose(md, math=False):
    "Markdown without its code, fenced or inline, and without formulas unless `math`; lines stay where they are"
    blank = lambda m: '\n'*m[0].count('\n')
    md = re.sub(r'^[ \t]*(```+|~~~+).*?^[ \t]*\1[ \t]*$', blank, md, flags=re.S | re.M)
    md = re.sub(r'(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)', blank, md, flags=re.S)
    if not math: md = re.sub(r'(?<!\\)\$\$.+?(?<!\\)\$\$|(?<![\\$])\$(?!\$)[^$]+?(?<!\\)\$', blank, md, flags=re.S)
    return md

def tree(source):
    "Syntax tree of a cell, IPython's magics rewritten"
    return ast.parse(TransformerManager().transform_cell(source))

def headings(nb):
    "(level, text) of every heading, in order"
    return [(len(m[1]), m[2].strip()) for _, c in cells(nb, 'markdown')
            for m in re.finditer(r'^(#{1,6}) +(.+?)\s*#*$', re.sub(r'^(```+).*?^\1', '', c['source'], flags=re.S | re.M), re.M)]

def slug(heading):
    "The anchor that GitHub, and the site, give a heading"
    heading = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')

# The rules ------------------------------------------------------------------------------------------------------------

def ids(nb, path):
    "Every cell has an id of its own"
    seen = set()
    for i, c in enumerate(nb['cells'], 1):
        if not c.get('id'): yield f"cell {i} has no id: nbdev would give it a new one on each save"
        elif c['id'] in seen: yield f"{where(i, c)}: another cell has this id"
        seen.add(c.get('id'))

def errors(nb, path):
    "No error output but where the cell is tagged as meant to raise"
    for i, c in cells(nb, 'code'):
        meant = 'raises-exception' in c['metadata'].get('tags', [])
        if (e := last_error(c)) and not meant: yield f"{where(i, c)} shows {e}: mend it, or tag it raises-exception"
        if meant and not last_error(c): yield f"{where(i, c)} is tagged raises-exception and raised nothing"

def structure(nb, path):
    "Title and promise first, then the module; summary, questions and further reading last"
    first = nb['cells'][0]['source'] if nb['cells'] else ''
    if not re.match(r'# [^\d\s][^\n]*\n\s*\n> [^\n]+\n?$', first): yield "cell 1 should be `# Title` (no number), an empty line and a one-line `> promise`"
    if len(nb['cells']) < 2 or 'default_exp' not in directives(nb['cells'][1]['source']): yield "cell 2 should hold `#| default_exp MODULE`"
    if not any(c['source'].strip() == HIDDEN for _, c in cells(nb, 'code')): yield f"there should be a cell that `python tools/repository.py` writes where one stands that tries to import notes:\n{HIDDEN}"
    hs = headings(nb)
    if sum(n == 1 for n, _ in hs) != 1: yield "there should be one `# ` heading"
    ends = [h for n, h in hs if n == 2][-3:]
    if ends != ['Summary', 'Questions', 'Further reading']: yield f"the last H2 headings should be Summary, Questions, Further reading, not {', '.join(ends)}"
    for (a, _), (b, h) in zip(hs, hs[1:]):
        if b > a + 1: yield f"heading {h!r} jumps from level {a} to {b}"
    for i, c in enumerate(nb['cells'], 1):
        if not c['source'].strip(): yield f"{where(i, c)} is empty"
    for i, c in cells(nb, 'markdown'):
        if 'attachments' in c: yield f"{where(i, c)} holds an attachment, which the site can't show"

def directive_lines(nb, path):
    "Only directives that the tools know, in code cells, written as the house writes them"
    for i, c in enumerate(nb['cells'], 1):
        if c['cell_type'] != 'code' and directives(c['source']): yield f"{where(i, c)}: a `#|` line belongs into a code cell"
        if 'nbdev' in {**nb['metadata'], **c['metadata']}: yield f"{where(i, c)}: `nbdev` in the metadata exports what no reader sees marked: write a `#|` line"
    for i, c in cells(nb, 'code'):
        for line, why in passed_over(c['source']): yield f"{where(i, c)}, line {line}: {why}"
        for line in rewritten(c['source']): yield f"{where(i, c)}, line {line}: write `#| name`; a formatter (black does) has changed it"
        for w in varies(c['source']) - VARIES: yield f"{where(i, c)}: `#| varies: {w}`; it can be {', '.join(sorted(VARIES))}"

def folds(nb, path):
    "A folded cell's first line says what is in it"
    for i, c in cells(nb, 'code'):
        d = directives(c['source'])
        if (s := d.get('code-summary')) is not None:
            if not c['source'].startswith('#| code-summary:'): yield f"{where(i, c)}: `#| code-summary` must be the first line, which JupyterLab shows of a folded cell"
            if not s or s[0].islower() or s[-1] == '.' or re.search(r'[`$<>]', s): yield f"{where(i, c)}: the code-summary {s!r} should be a short sentence in plain text, without a full stop"

def dressed(nb, path):
    "The metadata fold cells in JupyterLab and on Colab, and describe pictures to nbconvert, as the `#|` lines say; `make store` writes them"
    want = dress(copy.deepcopy(nb))
    if want.metadata != nb.metadata: yield f"the notebook's metadata should be {want.metadata}: `make store` writes them"
    for (i, c), (_, w) in zip(cells(nb, 'code'), cells(want, 'code')):
        if w.metadata != c.metadata: yield f"{where(i, c)}: its `#|` lines ask for the metadata {w.metadata}, and it has {c.metadata}: `make store` writes them"
        for o, p in zip(c.outputs, w.outputs):
            if p.get('metadata') != o.get('metadata'): yield f"{where(i, c)}: an output's metadata should be {p.metadata}: `make store` writes them"

def reach(nb, path):
    "One cell at most says what the notebook reaches, and shows it"
    found = [(i, c, directives(c['source'])['reaches']) for i, c in cells(nb, 'code') if 'reaches' in directives(c['source'])]
    for i, c, _ in found[1:]: yield f"{where(i, c)}: a second `#| reaches`"
    for i, c, text in found[:1]:
        if text.count('{}') != 1: yield f"{where(i, c)}: `#| reaches: {text}` needs one {{}}, in whose place the result comes"
        if not any('text/plain' in o.get('data', {}) for o in c['outputs']): yield f"{where(i, c)}: `#| reaches`, and the cell shows no result"

def heads(nb, path):
    "The first cell of prose says what the notebook stands on, what it builds and how long it takes; the summary ends with what comes next"
    series = sorted(p.name for p in path.parent.glob('[0-9]*.ipynb'))
    first = next((c for _, c in cells(nb, 'markdown')[1:]), {'source': ''})
    if not (head := read_head({'cells': [first]})):
        yield "the first cell of prose should hold the table of tools/heads.py: links to notebooks or 'nothing', what it builds, and minutes in digits"
    else:
        for n in head['stands']:
            if f'{n}.ipynb' >= path.name or not (path.parent/f'{n}.ipynb').is_file(): yield f"it stands on {n}, which is no notebook before it"
        if head['minutes'] != (m := count.minutes(count.count(nb))): yield f"its head says {head['minutes']} minutes, and tools/count.py {m}"
    later = [n for n in series if n > path.name]
    coming = later[:1]+[n for n in later if not re.match(r'\d+[a-z]', n)][:1]  # a side road may be passed by
    summary = re.search(r'^## Summary\n(.*?)(?=^## |\Z)', '\n\n'.join(c['source'] for _, c in cells(nb, 'markdown')), re.S | re.M)
    end = summary[1].strip().split('\n')[-1] if summary else ''
    if coming and not set(coming) & set(re.findall(r'\]\((\w+\.ipynb)', end)): yield f"the last line of the summary should lead to {' or '.join(coming)}, not say {end[-60:]!r}"

def terms(nb, path):
    "A term is marked in prose, in a sentence: neither in a heading, nor in a table or a folded answer"
    for i, c in cells(nb, 'markdown'):
        open_text = re.sub(r'<details\b.*?</details>|^[#|][^\n]*', '', c['source'], flags=re.S | re.M)
        if c['source'].count('<dfn') != len(re.findall(r'<dfn(?: title="[^"<>]+")?>[^<>`$*]+</dfn>', open_text)):
            yield f"{where(i, c)}: a term is marked <dfn>so</dfn>, in plain text within a sentence; or <dfn title=\"as the glossary has it\">so</dfn>"

def needless_masks(nb, path):
    "`#| varies` only where there is something that varies"
    clock = re.compile(r'tim|clock|speed|fast|slow|perf|flop|byte|memory|malloc|peak|rate|bandwidth|roof|thread|cpu|bench|ladder|measure|B/s|\bid\(|ptr|version', re.I)
    for i, c in cells(nb, 'code'):
        if not (w := varies(c['source'])): continue
        if not clock.search(code_of(c['source'])): yield f"{where(i, c)} says `varies` and nothing in its code looks like a clock, the memory or the CPU"
        data = [o['data'] for o in c['outputs'] if 'data' in o]
        if 'picture' in w and not any(PICTURES & d.keys() or '<img' in str(d.get('text/html')) or '<svg' in str(d.get('text/html')) for d in data): yield f"{where(i, c)} says `varies: picture` and shows none"
        if 'numbers' in w and not any(re.search(r'\d', str(o.get('data', o.get('text')))) for o in c['outputs']): yield f"{where(i, c)} says `varies: numbers` and shows none"

def portable(nb, path):
    "CommonMark, tables, dollars and folds: what every viewer of notebooks shows alike"
    for i, c in cells(nb, 'markdown'):
        src = c['source']
        if _role_fence.search(src): yield f"{where(i, c)}: a directive of MyST's or Quarto's in a fence"
        for m in _role.finditer(re.sub(r'\$[^$]*\$', '', src)): yield f"{where(i, c)}: {m[0]} looks like a role of MyST's"
        text = prose(src)
        for what, p in (("a ::: block", r'^\s*:::'), ("a shortcode", r'\{\{[<%]'), ("an admonition of MkDocs", r'^\s*(!!!|\?\?\?) '), ("an alert of GitHub's", r'^> \[!'),
                        ("a footnote", r'\[\^[^\]]+\]'), (r"\( or \[ for maths", r'\\[(\[].*\\[)\]]'), ("an attribute block", r'\]\{[.#]|^\{[.#][\w-]+\}')):
            if re.search(p, text, re.M): yield f"{where(i, c)}: {what}"
        for tag in {t.lower() for t in re.findall(r'<[/!]?([A-Za-z][\w-]*)(?=[\s/>])', text)} - HTML: yield f"{where(i, c)}: raw HTML <{tag}>"
        if '<!--' in text: yield f"{where(i, c)}: an HTML comment"
        if len(re.findall(r'<details\b', text)) != text.count('</details>'): yield f"{where(i, c)}: <details> without its </details>"
        if re.search(r'</summary>[^\n]*\n(?!\s*\n)|</summary>[ \t]*\S', text): yield f"{where(i, c)}: an empty line must follow </summary>, or the answer isn't markdown"
        if re.search(r'\S[^\n]*\n</details>', src): yield f"{where(i, c)}: an empty line must come before </details>"
        if re.search(r'(?<!\\)\$', text): yield f"{where(i, c)}: a dollar without its partner; write a literal one as \\$"

def measured(nb, path):
    "No time, rate or speed-up typed into prose: a cell shows it"
    for i, c in cells(nb, 'markdown'):
        text = re.sub(r'\]\([^)]*\)', ']', prose(c['source'], math=True))
        for m in _measured.finditer(text):
            around = ' '.join(text[max(0, m.start()-30):m.end()+20].split())
            if not any(part in path.name and fact in around for part, fact in FACTS): yield f"{where(i, c)}: “{around}” states a measured figure; let a cell show it"

def leftovers(nb, path):
    "No object of a drawing shown as text below it: a semicolon ends the cell"
    for i, c in cells(nb, 'code'):
        for o in c['outputs']:
            text = ''.join(o.get('data', {}).get('text/plain', ''))
            if o['output_type'] == 'execute_result' and re.search(r'\bText\(|<matplotlib\.|<Axes', text): yield f"{where(i, c)} shows {text[:40]!r}: end it with a semicolon"

def alt_text(nb, path):
    "A sentence for who can't see it, with every picture"
    for i, c in cells(nb, 'code'):
        pictures = any(PICTURES & o['data'].keys() or re.search(r'<img|<svg|<canvas|<video', str(o['data'].get('text/html', ''))) for o in c['outputs'] if 'data' in o)
        alt = directives(c['source']).get('fig-alt')
        if pictures and not alt: yield f"{where(i, c)} shows a picture and has no `#| fig-alt: …`"
        if alt is not None and (len(alt.split()) < 4 or alt[-1] not in '.!?'): yield f"{where(i, c)}: the fig-alt should be a sentence, not {alt!r}"
        if alt and not pictures: yield f"{where(i, c)} has a fig-alt and shows no picture"
    for i, c in cells(nb, 'markdown'):
        text = prose(c['source'])
        if re.search(r'!\[\s*\]\(', text) or any('alt=' not in t for t in re.findall(r'<img\b[^>]*>', text)): yield f"{where(i, c)}: a picture without alternative text"

def code(nb, path):
    "Short cells, imports in cells of their own, and none of the slips that `style.md` lists"
    for i, c in cells(nb, 'code'):
        d, lines = directives(c['source']), code_of(c['source']).split('\n')
        if len(lines) > MAX_LINES: yield f"{where(i, c)} has {len(lines)} lines (at most {MAX_LINES})"
        if c['source'].strip() == HIDDEN: continue
        try: t = tree(c['source'])
        except SyntaxError as e:
            yield f"{where(i, c)}: {e}"
            continue
        imports = [isinstance(s, (ast.Import, ast.ImportFrom)) for s in t.body]
        if any(imports) and not all(imports): yield f"{where(i, c)} mixes imports with other code: nbdev runs such a cell whole when it only wants the imports"
        yield from (f"{where(i, c)}: {what}" for what in slips(t, exported='export' in d, unpickles='data' in path.name))
        if d.get('eval') == 'false' and not (i > 1 and nb['cells'][i-2]['cell_type'] == 'markdown'): yield f"{where(i, c)}: `eval: false` without its reason in the prose above"

def slips(t, exported=False, unpickles=False):
    "What is wrong in the syntax tree `t`"
    for n in ast.walk(t):
        name = n.func.attr if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) else ''
        owner = ast.unparse(n.func.value) if name else ''
        if name == 'squeeze' and exported and not n.keywords and len(n.args) == (owner in ('torch', 'np')): yield "a bare squeeze(), which drops a batch of one: say which dimension"
        if name in ('load', 'loads') and owner == 'pickle' and (exported or not unpickles): yield "pickle.load runs what the file says"
        if isinstance(n, ast.Assert) and isinstance(n.test, ast.Constant): yield "an assert of a constant"
        if isinstance(n, ast.Assert) and exported: yield "a bare assert in exported code, which python -O drops: raise an error that says what to do"
        if isinstance(n, ast.Raise) and ast.unparse(n.exc or n).startswith('NotImplemented') and not ast.unparse(n.exc).startswith('NotImplementedError'): yield "raise NotImplemented (the error is NotImplementedError)"
        if isinstance(n, ast.ExceptHandler) and n.type is None: yield "a bare except"
        if (isinstance(n, ast.arg) and n.arg == 'input') or (isinstance(n, ast.Name) and n.id == 'input' and isinstance(n.ctx, ast.Store)): yield "`input` is a builtin: call it inp"

def links(nb, path):
    "Links to other notebooks and files, and to headings, lead somewhere"
    for i, c in cells(nb, 'markdown'):
        for url in re.findall(r'(?<!\\)\]\(<?([^)\s>]+)', prose(c['source'], math=True)):
            if re.match(r'[a-z][a-z+.-]*:', url):
                if url.startswith('http:'): yield f"{where(i, c)}: {url} should be https"
                continue
            file, _, anchor = url.partition('#')
            target = path.parent/file if file else path
            if file and not target.is_file(): yield f"{where(i, c)}: no file {file} beside the notebook"
            elif anchor and target.suffix == '.ipynb':
                other = nb if target == path else read(target)
                if anchor not in [slug(h) for _, h in headings(other)]: yield f"{where(i, c)}: no heading #{anchor} in {target.name}"

def questions(nb, path):
    "Every question asks, and has an answer with code"
    found = 0
    for i, c in cells(nb, 'markdown'):
        for q, a in re.findall(r'<details[^>]*>\s*<summary>(.*?)</summary>(.*?)</details>', c['source'], re.S):
            found += 1
            if not a.strip(): yield f"{where(i, c)}: no answer to “{q}”"
            if '```' in a and '```python' not in a: yield f"{where(i, c)}: the code of “{q}” isn't marked ```python, so nothing checks it"
    if not found: yield "no question with a folded answer"

RULES = [ids, errors, structure, directive_lines, folds, dressed, reach, heads, terms, needless_masks, portable, measured, leftovers, alt_text, code, links, questions]

def broken(nb, path, rules=RULES):
    "What breaks the rules in a notebook, one sentence each"
    return [f"{r.__name__}: {m}" for r in rules for m in r(nb, Path(path))]

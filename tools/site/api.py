"What the generated modules hold, read from their text, and a page of markdown for each of them"
import ast, importlib, inspect, json, re, sys
from pathlib import Path
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib  # Python 3.10

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']
sys.path.append(str(ROOT/'tools'))
import repository
REPO, KNOWN = repository.REPO, repository.known()  # every link of the site to the repository is made here, or not made
OWNER, NAME = REPO.split('/')[-2:]
BLOB = f'{REPO}/blob/main'

def link(text, path):
    "Markdown of a link to a file of the repository, or the text alone"
    return f'[{text}]({BLOB}/{path})' if KNOWN else text

class Module:
    "A module of `notes`: its notebook, and for each cell and each definition where it stands"
    def __init__(self, path):
        self.path, self.name, text = path, path.stem, path.read_text(encoding='utf-8')
        tree = ast.parse(text)
        self.doc = ast.get_docstring(tree) or ''
        self.notebook = Path(re.search(r'File to edit: (\S+)\.ipynb', text).group(1)).name
        self.cells = {m[2]: n+1 for n, l in enumerate(text.split('\n'), 1) if (m := re.match(r'# %% (\S+) #(\w+)$', l))}
        self.names, self.all = {}, []
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(to := node.targets[0], ast.Name):
                if to.id == '__all__': self.all = ast.literal_eval(node.value)
                elif to.id in self.all: self._keep(to.id, node)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)): self._add(node)
        self.public = [n for n in self.names if n.split('.')[0] in self.all or '.' in n and not n.startswith('_')]

    def _add(self, node, owner=''):
        name = owner+node.name
        if any(isinstance(d, ast.Name) and d.id == 'patch' for d in getattr(node, 'decorator_list', ())):
            name = f'{node.args.args[0].annotation.id}.{name}'
        if node.name.startswith('_') and node.name not in ('__call__',): return
        self._keep(name, node)
        if isinstance(node, ast.ClassDef):
            for n in node.body:
                if isinstance(n, ast.FunctionDef): self._add(n, f'{name}.')

    def _keep(self, name, node):
        first = min([node.lineno, *(d.lineno for d in getattr(node, 'decorator_list', ()))])
        self.names[name] = (first, node.end_lineno, [c for c, line in self.cells.items() if line <= first][-1])

    def source(self, name): return '{}/notes/{}.py#L{}-L{}'.format(BLOB, self.name, *self.names[name][:2])

def modules():
    "The modules in the order of their notebooks"
    return sorted((Module(p) for p in (ROOT/'notes').glob('*.py') if not p.stem.startswith('_')), key=lambda m: m.notebook)

def _type(a):
    if a in (inspect.Parameter.empty, None, type(None)): return ''
    text = a if isinstance(a, str) else inspect.formatannotation(a)
    return '`{}`'.format(re.sub(r'\b(?:\w+\.)+(?=\w)', '', text))

def _cell(s): return ' '.join(str(s or '').split()).replace('|', r'\|')

def _default(value, module):
    "How to show a default: a long text by the name of the constant that holds it"
    name = [k for k, v in vars(module).items() if k.isupper() and v is value and len(repr(v)) > 30]
    return name[0] if name else getattr(value, '__qualname__', None) or repr(value)

def _table(obj, module):
    "Parameters as a table, from docments, and the line about what comes back"
    from fastcore.docments import docments, empty
    docs = docments(obj, full=True)
    ret = docs.pop('return', None)
    for n, d in docs.items():  # docments does not see the comment behind **kwargs
        if (m := re.search(rf'(\*\*?{n}),? *# (.+)', inspect.getsource(obj))) and not d.docment: d.docment, d.shown = m[2], m[1]
    rows = [(f"`{d.get('shown', n)}`", _cell(_type(d.anno)), '' if d.default is empty else f'<span class="default">`{_cell(_default(d.default, module))}`</span>',
             f'<span class="meaning">{_cell(d.docment)}</span>' if d.docment else '')
            for n, d in docs.items() if n != 'self']
    full = [i for i, column in enumerate(zip(*rows)) if any(column)]  # names and defaults alone stand in the signature
    line = lambda cells: '| '+' | '.join(cells[i] for i in full)+' |'
    out = [line(['Parameter', 'Type', 'Default', 'Meaning']), line(['---']*4), *map(line, rows), ''] if {1, 3} & set(full) else []
    if ret and (ret.docment or _type(ret.anno)):
        out += ['**Returns** ' + ': '.join(filter(None, [_type(ret.anno), _cell(ret.docment)])), '']
    return out

class _Raw(str): __repr__ = str.__str__

def _signature(obj, module):
    try: params = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError): return ''
    raw = lambda d: d if d is inspect.Parameter.empty else _Raw(_default(d, module))
    return str(inspect.Signature([p.replace(annotation=p.empty, default=raw(p.default)) for p in params if p.name != 'self']))

def page(mod):
    "Markdown of the API page of `mod`"
    obj = importlib.import_module(f'notes.{mod.name}')
    nb, path = f'../{mod.notebook}', f'notes/{mod.name}.py'
    out = [f'# notes.{mod.name}', '', f'> {mod.doc}', '', f'```{{py:module}} notes.{mod.name}', '```', '',
           f'Made by the notebook [{mod.notebook}]({nb}.ipynb). In the repository: {link(path, path)}.', '']
    order = sorted(mod.public, key=lambda n: mod.names[n][0])
    tops = [n for n in order if '.' not in n]
    kinds = {n: _kind(getattr(obj, n)) for n in tops}
    entry = lambda n: _entry(mod, obj, n, [k for k in order if k.startswith(f'{n}.')])
    for n in tops: out += entry(n) if kinds[n] in ('class', 'function') else []
    for owner in dict.fromkeys(n.split('.')[0] for n in order if n.split('.')[0] not in tops):  # a class of another module
        out += [f'## Added to {owner}', '', f'What this module gives `{owner}`.', '']
        for n in order: out += _entry(mod, obj, n) if n.startswith(f'{owner}.') else []
    for kind, title in (('exception', 'Exceptions'), ('data', 'Data')):
        if kind in kinds.values(): out += [f'## {title}', '']
        for n in tops: out += entry(n) if kinds[n] == kind else []
    return '\n'.join(out)

def _kind(o, owner=''):
    return ('exception' if inspect.isclass(o) and issubclass(o, BaseException) else 'class' if inspect.isclass(o) else 'property' if isinstance(o, property)
            else 'method' if owner else 'function' if callable(o) else 'data')

def _entry(mod, obj, name, methods=()):
    "Lines that describe `name` of the module `obj`, and in them its `methods`"
    o, owner = obj, name.rpartition('.')[0]
    for part in name.split('.'): o = inspect.getattr_static(o, part) if inspect.isclass(o) else getattr(o, part)
    kind = _kind(o, owner)
    if kind == 'property': o = o.fget
    bare = kind == 'property' or kind == 'exception' and '__init__' not in vars(o)  # what Exception takes says nothing
    if kind == 'data': head, body = [name, f':value: {json.dumps(repr(o))}'], []
    else: head, body = [name+('' if bare else _signature(o, obj))], [inspect.getdoc(o) or '', '', *([] if bare and kind == 'exception' else _table(o, obj))]
    nb = f'../{mod.notebook}.html#cell-{mod.names[name][2]}'
    links = f'<a href="{nb}">in the notebook</a>'+(f' · <a href="{mod.source(name)}">source</a>' if KNOWN else '')
    fence = '`'*(5 if methods else 4)
    inner = [l for m in methods for l in _entry(mod, obj, m)]
    return [f'{fence}{{py:{kind}}} '+'\n'.join(head), '', *body, f'<p class="api-links">{links}</p>', '', *inner, fence, '']

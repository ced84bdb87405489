"What the generated modules hold, read from their text, and a page of markdown for each of them"
import ast, importlib, inspect, re
from pathlib import Path
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib  # Python 3.10

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']
REPO = PROJECT['urls']['Repository'].rstrip('/')  # every link of the site to the repository is made from this one
OWNER, NAME = REPO.split('/')[-2:]
BLOB = f'{REPO}/blob/main'

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
            if isinstance(node, ast.Assign) and node.targets[0].id == '__all__': self.all = ast.literal_eval(node.value)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)): self._add(node)
        self.public = [n for n in self.names if n.split('.')[0] in self.all or '.' in n]

    def _add(self, node, owner=''):
        name = owner+node.name
        if any(isinstance(d, ast.Name) and d.id == 'patch' for d in getattr(node, 'decorator_list', ())):
            name = f'{node.args.args[0].annotation.id}.{name}'
        if node.name.startswith('_') and node.name not in ('__call__',): return
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        cell = [c for c, line in self.cells.items() if line <= first][-1:]
        self.names[name] = (first, node.end_lineno, cell[0] if cell else '')
        if isinstance(node, ast.ClassDef):
            for n in node.body:
                if isinstance(n, ast.FunctionDef): self._add(n, f'{name}.')

    def source(self, name): return '{}/notes/{}.py#L{}-L{}'.format(BLOB, self.name, *self.names[name][:2])

def modules():
    "The modules in the order of their notebooks"
    return sorted((Module(p) for p in (ROOT/'notes').glob('*.py') if not p.stem.startswith('_')), key=lambda m: m.notebook)

def _type(a):
    if a is inspect.Parameter.empty or a is None: return ''
    text = a if isinstance(a, str) else inspect.formatannotation(a)
    return '`{}`'.format(re.sub(r'\b(?:\w+\.)+(?=\w)', '', text))

def _cell(s): return ' '.join(str(s or '').split()).replace('|', r'\|')

def _table(obj):
    "Parameters as a table, from docments, and the line about what comes back"
    from fastcore.docments import docments, empty
    docs = docments(obj, full=True)
    ret = docs.pop('return', None)
    rows = [f"| `{n}` | {_cell(_type(d.anno))} | {'' if d.default is empty else f'`{_cell(repr(d.default))}`'} | {_cell(d.docment)} |"
            for n, d in docs.items() if n != 'self']
    out = ['| Parameter | Type | Default | Meaning |', '|---|---|---|---|', *rows, ''] if rows else []
    if ret and (ret.docment or _type(ret.anno)):
        out += ['**Returns** ' + ': '.join(filter(None, [_type(ret.anno), _cell(ret.docment)])), '']
    return out

def _signature(obj):
    try: params = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError): return ''
    params = [p.replace(annotation=p.empty) for p in params if p.name != 'self']
    return str(inspect.Signature(params))

def page(mod):
    "Markdown of the API page of `mod`"
    obj = importlib.import_module(f'notes.{mod.name}')
    nb = f'../{mod.notebook}'
    out = [f'# notes.{mod.name}', '', f'> {mod.doc}', '', f'```{{py:module}} notes.{mod.name}', '```', '',
           f'Made by the notebook [{mod.notebook}]({nb}.ipynb). In the repository: [notes/{mod.name}.py]({BLOB}/notes/{mod.name}.py).', '']
    order = sorted(mod.public, key=lambda n: [mod.names.get('.'.join(n.split('.')[:i+1]), (0,))[0] for i in range(n.count('.')+1)])
    for name in order:
        o = obj
        for part in name.split('.'): o = inspect.getattr_static(o, part) if inspect.isclass(o) else getattr(o, part)
        kind = 'class' if inspect.isclass(o) else 'property' if isinstance(o, property) else 'method' if '.' in name else 'function'
        if kind == 'property': o = o.fget
        sig = '' if kind == 'property' else _signature(o)
        _, _, cell = mod.names[name]
        out += [f'````{{py:{kind}}} {name}{sig}', '', inspect.getdoc(o) or '', '', *_table(o),
                f'<p class="api-links"><a href="{nb}.html#cell-{cell}">in the notebook</a> · <a href="{mod.source(name)}">source</a></p>', '', '````', '']
    return '\n'.join(out)

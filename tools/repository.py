"""Where the series is published: [project.urls] in pyproject.toml says it, and every link to the repository is made from there

While the owner there is `OWNER` it is published nowhere: no page and no notebook links to it, and each notebook's hidden cell says what to do where the
package is missing. Once the owner is named, that cell installs the package from the repository. Called as a program, this writes the cell into the notebooks.
"""
import json, sys
from pathlib import Path
try: import tomllib
except ModuleNotFoundError: import tomli as tomllib  # Python 3.10

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT/'tools'))
from directives import code_of, directives

REPO = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']['urls']['Repository'].rstrip('/')
UNKNOWN = 'OWNER'

def known(repo=REPO): return repo.split('/')[-2] != UNKNOWN

# A folder called notes beside the notebook passes for the package until one asks for a module of it; then Python has to forget it.
TRY = '#| hide\ntry: import notes.exports\nexcept ImportError:\n'
INSTALL = TRY+"    %pip install -q git+{}\n    import sys; sys.modules.pop('notes', None)"
SAY = TRY+'    raise ImportError("No package `notes`: run `pip install .` in a clone")'

def hidden(repo=REPO):
    "Source of the hidden cell"
    return INSTALL.format(repo) if known(repo) else SAY

def is_hidden(source): return 'hide' in directives(source) and code_of(source).startswith('try: import notes')

def write(path, repo=REPO):
    "Put the hidden cell into the notebook at `path`; True where another stood there"
    nb = json.loads(path.read_text(encoding='utf-8'))
    old = [c for c in nb['cells'] if c['cell_type'] == 'code' and is_hidden(''.join(c['source'])) and ''.join(c['source']) != hidden(repo)]
    for c in old: c['source'] = hidden(repo).splitlines(True)
    if old: path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True)+'\n', encoding='utf-8', newline='\n')
    return bool(old)

if __name__ == '__main__':
    for p in sorted((ROOT/'nbs').glob('*.ipynb')):
        if write(p): print(f'{p.name}: the hidden cell is written anew')

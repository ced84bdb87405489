"Where things are in the project"
import importlib.util, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT/'nbs').glob('*.ipynb'))
sys.path.append(str(ROOT/'tools'))  # `directives`, which all read `#|` lines with
MODULES = sorted(p.stem for p in (ROOT/'notes').glob('[!_]*.py'))

def none(found, message):
    "Fail with `message` and what was `found`, unless that is nothing"
    if found: pytest.fail('\n'.join([message, *found]), pytrace=False)

def read(path):
    import nbformat  # half a second, which the tests that read no notebook needn't wait
    return nbformat.read(path, as_version=4)

def runner():
    "tools/run.py as a module: it knows how notebooks are run, and what a run depends on"
    spec = importlib.util.spec_from_file_location('run', ROOT/'tools'/'run.py')
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m

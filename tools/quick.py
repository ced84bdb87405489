"What `make quick NB=02` checks of a notebook after its run: how heavy it is, the rules, its answers, and its module's own tests"
import subprocess, sys
from run import ROOT, module_of, notebooks, read

def tests_of(path):
    "pytest's arguments that choose the tests about the notebook at `path`"
    own = f'test_{module_of(read(path))}.py'
    files = [f'tests/{f}' for f in ('test_notebooks.py', 'test_answers.py', own) if (ROOT/'tests'/f).exists()]
    return [*files, '-k', f'{path.stem} or {own}']

if __name__ == '__main__':
    path, = notebooks(sys.argv[1:2])
    subprocess.run([sys.executable, str(ROOT/'tools'/'count.py'), path.stem], check=True)
    sys.exit(subprocess.run([sys.executable, '-m', 'pytest', '-q', '--durations=3', *tests_of(path)], cwd=ROOT).returncode)

"The answers to the notebooks' questions hold code, and the code runs and checks itself"
import ast, re, textwrap, traceback
import pytest
import lint, project
from project import PATHS, read

runner = project.runner()

def blocks(md):
    "(question, code) for every python fence in the folded answers of a markdown cell"
    for q, answer in re.findall(r'<summary>(.*?)</summary>(.*?)</details>', md, re.S):
        for m in re.finditer(r'^([ \t]*)```python[ \t]*\n(.*?)^[ \t]*```[ \t]*$', answer, re.S | re.M): yield ' '.join(q.split()), textwrap.dedent(m[2])

def answers():
    for p in PATHS:
        nb = read(p)
        for c in nb.cells:
            if c.cell_type == 'markdown': yield from ((p.stem, q, code, prelude(nb)) for q, code in blocks(c.source))

def prelude(nb):
    "What the notebook's own cells import, and its module: what a reader who pastes an answer into it has"
    cells = [c.source for _, c in lint.cells(nb, 'code')]
    only = [s for s in cells if (body := lint.tree(s).body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)]
    return '\n'.join([*only, f'from notes.{runner.module_of(nb)} import *'])

def checks_itself(code):
    "Does `code` assert something, or call a `test_…` or `expect_fail`?"
    name = lambda n: getattr(n.func, 'id', getattr(n.func, 'attr', ''))
    return any(isinstance(n, ast.Assert) or isinstance(n, ast.Call) and re.match('test_|expect_fail$', name(n)) for n in ast.walk(ast.parse(code)))

def run(where, code, imports):
    "Run `code` in a namespace of its own; returns what went wrong, or None"
    try:
        if not checks_itself(code): return f"{where}: the code of the answer checks nothing\n\n{code}"
        ns = {'__name__': '__main__'}
        exec(imports, ns)
        exec(compile(code, 'answer', 'exec'), ns)
    except Exception as e:
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == 'answer'] or [getattr(e, 'lineno', 0)]
        shown = '\n'.join(f"{'→' if n == lines[0] else ' '} {l}" for n, l in enumerate(code.split('\n'), 1))
        return f"{where}: {type(e).__name__}: {e}\n\n{shown}"

@pytest.mark.parametrize('notebook,question,code,imports', [pytest.param(*a, id=f'{a[0]}: {a[1]}') for a in answers()])
def test_answer(notebook, question, code, imports):
    if wrong := run(f"{notebook}, “{question}”", code, imports): pytest.fail(wrong, pytrace=False)

ANSWER = "<details><summary>Why {}?</summary>\n\nBecause:\n\n```python\n{}\n```\n\n</details>"

@pytest.mark.parametrize('code,wrong', [
    ('assert tensor(1.)+1==2', None), ('test_eq(math.floor(1.5), 1)', None), ('with expect_fail(ValueError): raise ValueError', None), ('set_seed(0)\nassert True or x', None),
    ('x = 1', 'checks nothing'), ('assert 1+1==3', '→ assert 1+1==3'), ('x = 1\ntest_eq(x, 2)', '→ test_eq'), ('assert nothing', 'NameError'), ('assert (', 'SyntaxError'), ('1/0\nassert 1', 'ZeroDivisionError')])
def test_wrong_answers_are_caught(code, wrong):
    (question, found), = blocks(ANSWER.format('so', code))
    assert question == 'Why so?' and found.strip() == code
    said = run('here', found, 'import math\nfrom torch import tensor\nfrom fastcore.test import *\nfrom notes.exports import set_seed')
    assert said is None if wrong is None else said.startswith('here: ') and wrong in said

def test_answers_don_t_share_names():
    assert not run('a', 'shared = 1\nassert shared', '') and 'NameError' in run('b', 'assert shared', '')

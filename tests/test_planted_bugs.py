"""Bugs planted in a copy of the package, one at a time: the tests must see each of them.

A check that has never failed shows nothing. Among these bugs are the slips that other notes of this kind have made.
"""
import os, re, shutil, subprocess, sys
import pytest
import lint
from project import PATHS, ROOT, read

BUGS = {  # what was done: (module, the code as it is, the code with the bug, the tests that must fail)
    'init: / for *': ('fully_connected', 'return relu_gain(a)*math.sqrt', 'return relu_gain(a)/math.sqrt', 'test_fully_connected.py'),
    'init: gain 2/(1+a)': ('fully_connected', '2/(1+a**2)', '2/(1+a)', 'test_fully_connected.py'),
    'init: fan_in and fan_out swapped': ('fully_connected', 'return w.shape[1]*k,w.shape[0]*k', 'return w.shape[0]*k,w.shape[1]*k', 'test_fully_connected.py'),
    'MSE: (n,1) minus (n,)': ('fully_connected', 'return (pred.squeeze(-1)-targ).pow(2)', 'return (pred-targ).pow(2)', 'test_fully_connected.py'),
    'MSE gradient: no 1/n': ('fully_connected', '.unsqueeze(-1)/targ.numel()', '.unsqueeze(-1)', 'test_fully_connected.py'),
    'ReLU lets negatives pass': ('fully_connected', 'return x.clamp_min(0.)', 'return x.clamp_min(-.01)', 'test_fully_connected.py'),
    'ReLU gradient: 1 at 0': ('fully_connected', 'return g*(x>0)', 'return g*(x>=0)', 'test_fully_connected.py'),
    'linear gradient: no transpose': ('fully_connected', 'return g@w.t(), x.t()@g', 'return g@w, x.t()@g', 'test_fully_connected.py'),
    'linear gradient: mean for sum': ('fully_connected', 'g.sum(0)', 'g.mean(0)', 'test_fully_connected.py'),
    'Module: submodules forgotten': ('fully_connected', 'mods[name] = True', 'pass', 'test_fully_connected.py'),
    'matmul: any shapes': ('matmul', 'or a.shape[1]!=b.shape[0]', '', 'test_matmul.py'),
    'broadcast_shapes accepts anything': ('matmul', 'if len(wanted)>1: raise', 'if len(wanted)>99: raise', 'test_matmul.py'),
    'einsum: no diagonals': ('matmul', 'sum(s for l,s in zip(letters,t.stride()) if l==o)', 'next((s for l,s in zip(letters,t.stride()) if l==o), 0)', 'test_matmul.py'),
    'blocked: last tile overwrites': ('matmul', 'c[i+r,j+s] += tile', 'c[i+r,j+s] = tile', 'test_matmul.py'),
    'test_near: tolerance of 1': ('exports', 'rtol=rtol, atol=atol', 'rtol=1., atol=atol', 'test_exports.py'),
    'numerical_grad: half the width': ('exports', '/(2*eps)', '/eps', 'test_exports.py'),
    'check_grads: one good one is enough': ('exports', 'if not all(e<tol', 'if not any(e<tol', 'test_exports.py'),
    'unpickler allows everything': ('data', 'raise pickle.UnpicklingError(f"it asks', 'return super().find_class(module, name)\n            raise pickle.UnpicklingError(f"it asks', 'test_data.py'),
    'download: hash not checked': ('data', 'if got!=sha256: raise', 'if False: raise', 'test_data.py'),
    'download: half a file stays': ('data', 'finally: part.unlink(missing_ok=True)', 'finally: pass', 'test_data.py'),
}

def run_tests(folder, selection):
    "Exit code and output of the tests in `selection`, with the package in `folder`"
    file, _, k = selection.partition(' ')
    env = {**os.environ, 'PYTHONPATH': str(folder), 'HYPOTHESIS_PROFILE': 'ci', 'PYTHONDONTWRITEBYTECODE': '1'}
    r = subprocess.run([sys.executable, '-m', 'pytest', '-x', '-q', '-n0', '--tb=line', *(['-k', k] if k else []), '-c', str(ROOT/'pyproject.toml'), str(ROOT/'tests'/file)],
                       cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace', timeout=300)
    return r.returncode, r.stdout

@pytest.fixture
def package(tmp_path):
    shutil.copytree(ROOT/'notes', tmp_path/'notes', ignore=shutil.ignore_patterns('__pycache__'))
    return tmp_path

@pytest.mark.parametrize('selection', sorted({b[3] for b in BUGS.values()}))
def test_without_a_bug_they_pass(package, selection):
    code, out = run_tests(package, selection)
    assert code == 0, out

@pytest.mark.parametrize('bug', BUGS)
def test_bug_is_seen(package, bug):
    module, old, new, selection = BUGS[bug]
    path = package/'notes'/f'{module}.py'
    text = path.read_text(encoding='utf-8')
    if text.count(old) != 1: pytest.fail(f"notes/{module}.py has {old!r} {text.count(old)} times: the bug must be planted anew", pytrace=False)
    path.write_text(text.replace(old, new), encoding='utf-8')
    code, out = run_tests(package, selection)
    # 1: tests ran and some failed. A module that doesn't even import would give 2.
    assert code == 1 and re.search(r'^1 failed|, 1 failed', out, re.M) is not None, f"tests/{selection} passed with this bug in notes/{module}.py: {old!r} → {new!r}\n\n{out[-1500:]}"

def test_bare_squeeze_is_seen():
    "On (n,1) predictions it changes nothing, until a batch of one meets other code: no test of values sees it, so a rule does"
    seen = 0
    for p in PATHS:
        for c in read(p).cells:
            if c.cell_type == 'code' and 'export' in c.source and '.squeeze(-1)' in c.source:
                wrong = c.source.replace('.squeeze(-1)', '.squeeze()')
                assert not [*lint.slips(lint.tree(c.source), exported=True)] and [*lint.slips(lint.tree(wrong), exported=True)]
                seen += 1
    assert seen

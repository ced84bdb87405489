"""Bugs planted in a copy of the package, one at a time: the tests must see each of them.

A check that has never failed shows nothing. Among these bugs are the slips that other notes of this kind have made.
"""
import os, re, shutil, subprocess, sys
import pytest
from project import ROOT

FC, MM, EX, DA, TR, CV, LE, CA, CK = ((m, f'test_{m}.py') for m in ('fully_connected', 'matmul', 'exports', 'data', 'training', 'convolutions', 'learner', 'callbacks', 'checkpoints'))
BACKWARD = 'fully_connected', 'test_backward.py'
BUGS = {  # what was done: (module and file of its tests, the tests that must fail, the code as it is, the code with the bug)
    'init: / for *': (FC, 'kaiming_std', 'return relu_gain(a)*math.sqrt', 'return relu_gain(a)/math.sqrt'),
    'init: gain 2/(1+a)': (FC, 'kaiming', '2/(1+a**2)', '2/(1+a)'),
    'init: fan_in and fan_out swapped': (FC, 'kaiming', 'return w.shape[1]*k,w.shape[0]*k', 'return w.shape[0]*k,w.shape[1]*k'),
    'MSE: (n,1) minus (n,)': (FC, 'forward', 'return (pred.squeeze(-1)-targ).pow(2)', 'return (pred-targ).pow(2)'),
    'MSE: bare squeeze()': (FC, 'keeps_every', 'return (pred.squeeze(-1)-targ).pow(2)', 'return (pred.squeeze()-targ).pow(2)'),
    'MSE gradient: bare squeeze()': (FC, 'keeps_every', '2*(pred.squeeze(-1)-targ)', '2*(pred.squeeze()-targ)'),
    'MSE gradient: no 1/n': (BACKWARD, 'test_backward', '.unsqueeze(-1)/targ.numel()', '.unsqueeze(-1)'),
    'ReLU lets negatives pass': (FC, 'forward', 'return x.clamp_min(0.)', 'return x.clamp_min(-.01)'),
    'ReLU gradient: 1 at 0': (FC, 'corner', 'return g*(x>0)', 'return g*(x>=0)'),
    'linear gradient: no transpose': (BACKWARD, 'test_backward', 'return g@w.t() if', 'return g@w if'),
    'linear gradient: mean for sum': (BACKWARD, 'test_backward', 'x.t()@g, g.sum(0)', 'x.t()@g, g.mean(0)'),
    'no gradient for the input: none for the hidden layers either': (FC, 'leaves_out', 'self.needs_input_grad or i>0', 'self.needs_input_grad'),
    'no gradient for the input: computed all the same': (FC, 'leaves_out', 'self.needs_input_grad or i>0', 'True'),
    'no gradient for the input: none from then on': (FC, 'leaves_out', 'self.needs_input_grad = input_grad', 'self.needs_input_grad &= input_grad'),
    'convolution gradient: without that of the input there is none': (('convolutions', 'test_backward.py'), 'test_backward', 'if not input_grad: return None,g_w,g_b', 'if not input_grad: return None,g_w*0,g_b'),
    'Module: submodules forgotten': (FC, 'module', 'isinstance(value, (nn.Parameter,Module)): names', 'isinstance(value, nn.Parameter): names'),
    'matmul: any shapes': (MM, 'shapes_that', 'or a.shape[1]!=b.shape[0]', ''),
    'broadcast_shapes accepts anything': (MM, 'broadcast_shapes', 'if len(wanted)>1: raise', 'if len(wanted)>99: raise'),
    'einsum: no diagonals': (MM, 'einsum', 'sum(s for l,s in zip(letters,t.stride()) if l==o)', 'next((s for l,s in zip(letters,t.stride()) if l==o), 0)'),
    'blocked: last tile overwrites': (MM, 'beyond', 'c[i+r,j+s] += tile', 'c[i+r,j+s] = tile'),
    'test_near: tolerance of 1': (EX, 'near_refuses', 'rtol=rtol, atol=atol', 'rtol=1., atol=atol'),
    'numerical_grad: half the width': (EX, 'numerical_grad', '/(2*eps)', '/eps'),
    'compare_times: always in one order': (EX, 'changes_the_order', 'draw([*fs], len(fs))', 'fs'),
    'check_grads: one good one is enough': (EX, 'check_grads', 'if not all(e<tol', 'if not any(e<tol'),
    'unpickler allows everything': (DA, 'hostile', 'raise pickle.UnpicklingError(f"it asks', 'return super().find_class(module, name)\n            raise pickle.UnpicklingError(f"it asks'),
    'download: hash not checked': (DA, 'wrong_hash', 'if got!=sha256: raise', 'if False: raise'),
    'download: half a file stays': (DA, 'one_clear_error', 'finally: part.unlink(missing_ok=True)', 'finally: pass'),
    'logsumexp overflows': (TR, 'softmax_and', 'm = m.masked_fill(m.isinf(), 0.)', 'm = m*0.'),
    'log_softmax: large numbers subtracted last': (TR, 'shift', 'x = x - x.detach().amax(-1, keepdim=True)', 'x = x + 0'),
    'log_softmax gradient: the sum forgotten': (('training', 'test_backward.py'), 'test_backward', 'return g - logsumexp_grad(g.sum(-1), x)', 'return g + 0'),
    'cross-entropy gradient: no 1/n': (('training', 'test_backward.py'), 'test_backward', 'return softmax(x)/len(x) + nll_grad(x, targ)', 'return softmax(x) + nll_grad(x, targ)'),
    'class -1 counts from the end': (TR, 'wrong_input', 'if lo<0 or hi>=c:', 'if hi>=c:'),
    'SGD: gradients stay': (TR, 'sgd_is', 'for p,_ in self._pairs(): p.grad = None', 'pass'),
    'sampler: one order for all epochs': (TR, 'sampler', 'torch.randperm(self.n, generator=self.generator)', 'torch.randperm(self.n, generator=torch.Generator().manual_seed(3))'),
    'batches: the short one is always dropped': (TR, 'batch_sampler', 'if len(batch)==self.batch_size or not self.drop_last: yield', 'if len(batch)==self.batch_size: yield'),
    'get_dls: a loader draws from the global generator': (TR, 'global_generator', 'sampler=batches, generator=g)', 'sampler=batches)'),
    'evaluate: a short batch counts as a full one': (TR, 'test_evaluate', '.item()*len(yb)', '.item()*max(len(yb), 16)'),
    'evaluate: training mode never comes back': (TR, 'modes', 'finally: model.train(mode)', 'finally: pass'),
    'fit: the mean of the batches\' means': (TR, 'printed_training_loss', 'sum(l*k for l,k in zip(losses, sizes))/sum(sizes)', 'sum(losses)/len(losses)'),
    'train: inner modules forgotten': (TR, 'train_and_eval', 'for m in self.children(): m.train(mode)', 'pass'),
    'fit: gradients add up': (TR, 'plain_loop', '        opt.zero_grad()\n', ''),
    'confusion matrix: rows and columns swapped': (TR, 'confusion', 'targ.long()*c + pred.long()', 'pred.long()*c + targ.long()'),
    'convolution: last position forgotten': (CV, 'conv_size', '//stride + 1', '//stride'),
    'windows: stride and dilation swapped': (CV, 'unfold_fold', 'row*d[0],col*d[1],row*s[0],col*s[1]', 'row*s[0],col*s[1],row*d[0],col*d[1]'),
    'fold: the last copy overwrites': (CV, 'unfold_fold', '+= u[:,:,i,j]', '= u[:,:,i,j]'),
    'fold: no dilation': (CV, 'unfold_fold', 'top,left = i*dh,j*dw', 'top,left = i,j'),
    'convolution gradient: mean for sum': (CV, 'whole_range', 'g.sum(1)', 'g.mean(1)'),
    'convolution gradient: kernels not transposed': (CV, 'whole_range', '(w.flatten(1).t()@g)', '(w.transpose(0,1).reshape(w[0].numel(),-1)@g)'),
    'max pooling: a frame of zeros': (CV, 'negative_pixels', 'value=-math.inf', 'value=0.'),
    'max pooling gradient: to all that tie': (CV, 'ties', 'first = (v==largest)&free', 'first = v==largest'),
    'Conv2d: bias from the channels only': (CV, 'test_Conv2d', 'math.sqrt(fans(w)[0])', 'math.sqrt(n_in)'),
    'receptive field: stride too early': (CV, 'receptive_field', 'size + d*(k-1)*stride,start', 'size + d*(k-1)*stride*s,start'),
    'accumulation: mean of the batches': (CA, 'accumulated_steps', '        k = len(l.xb)\n', '        k = 1\n'),
    'accumulation: last group left out': (CA, 'accumulated_steps or once_a_group', 'if self.batches<self.n and l.iter+1<len(l.dl)', 'if self.batches<self.n'),
    'clipping: each tensor by itself': (CA, 'clip_is_torchs', 'for g in gs: g.mul_(scale)', 'for g in gs: g.mul_((self.max_norm/(g.norm()+1e-6)).clamp(max=1))'),
    'clipping after the step': (CA, 'clip_is_torchs or accumulated', '    def after_backward(self):\n        gs = [p.grad', '    def after_step(self):\n        gs = [p.grad'),
    'metrics: a short batch counts as a full one': (LE, 'short_last_batch', '@n/n.sum()).item()', '.mean()).item()'),
    'loop: gradients carry over': (LE, 'bare_loop', '        self.zero_grad()\n        self.backward()', '        self.backward()'),
    'loop: validation in training mode': (LE, 'bare_loop', 'self.model.train(training)', 'self.model.train()'),
    'loop: order ignored': (LE, 'order', 'self.cbs.sort(key=lambda cb: cb.order)', 'pass'),
    'loop: no clean-up after an exception': (LE, 'reaches_the_caller', "stack.callback(cb.cleanup_fit)", "pass"),
    'resume: weights and no random numbers': (CK, 'interrupted_and_resumed', "    set_rng(s['rng'], l.dls)", "    pass"),
    'resume: shuffled anew': (CK, 'interrupted_and_resumed', "set_rng(self.state['epoch_rng'], self.learn.dls)", "pass"),
    'resume: no optimiser': (('callbacks', 'test_checkpoints.py'), 'interrupted_and_resumed', "return opt.load_state_dict(state)", "return"),
    'resume: what others did before the fit stays': (CK, 'starts_anew', "    if self.state: return self._put_back()\n", "    if self.state: return\n"),
    'accumulation: gradients of other parameters': (CA, 'didnt_use', "[None if p.grad is None else k*p.grad for p in ps]", "[k*p.grad for p in ps if p.grad is not None]"),
    'checkpoint: saves what can not be read': (CK, 'could_not_be_read', "    except pickle.UnpicklingError:\n        tmp", "    except ZeroDivisionError:\n        tmp"),
    'receptive field of a global pooling': (CV, 'receptive_field_refuses', "if getattr(l, 'transposed', False) or", "if False and"),
    'checkpoint: the one before is not kept': (CK, 'one_before', "if path.exists(): os.replace(path, _previous(path))", "pass"),
    'checkpoint: runs what is in it': (CK, 'does_not_run', "map_location='cpu', weights_only=True", "map_location='cpu', weights_only=False"),
    'checkpoint: damage not looked for': (CK, 'flipped', 'bad = z.testzip()', 'bad = None'),
    'checkpoint: weights changed before they are checked': (CK, 'changes_nothing', "    _check_fits(l.model.state_dict(), s['model'])\n", "    l.model.load_state_dict(s['model'])\n"),
    'checkpoint: a class that has moved is another': (CK, 'classes_moved', r"return re.sub(r'(?<![\w.])notes\.\w+\.', 'notes.', str(kinds))", 'return str(kinds)'),
    'checkpoint: the class alone is looked at': (CK, 'another_class', r"return re.sub(r'(?<![\w.])notes\.\w+\.', 'notes.', str(kinds))", r"return re.sub(r'[\w.]+\.', '', str(kinds))"),
    'LR finder: random numbers not put back': (CA, 'puts_everything_back', '        set_rng(rng, self.dls)', '        pass'),
    'early stopping: last weights kept': (CA, 'test_early_stopping', 'if self.weights: self.learn', 'if False: self.learn'),
    'progress: lines kept back in a pipe': (LE, 'seen_at_once', '        sys.stdout.flush()\n', ''),
    'LR finder: a multiple of the least loss': (CA, 'negative_losses or noise_is_no', 'return m[-1]-m.min() > self.factor*scale', 'return self.losses[-1] > 4*min(self.losses)'),
    'LR finder: no noise, only the fall': (CA, 'noise_is_no', 'max(m[0]-m.min(), 10*np.std(losses[:10]))', 'm[0]-m.min()'),
    'LR finder: nan is the least loss': (CA, 'no_number', 'if math.isfinite(l)', ''),
    'progress: a bar in a pipe': (LE, 'in_a_pipe', 'disable=None', 'disable=False'),
}

def run_tests(folder, files, k):
    "Exit code and output of the tests in `files` that `k` chooses, run in `folder`"
    env = {**os.environ, 'PYTHONPATH': str(folder), 'HYPOTHESIS_PROFILE': 'planted', 'PYTHONDONTWRITEBYTECODE': '1',
           'EVIL': str(folder/'evil-ran')}  # what the hostile pickles of test_data.py write, where they get through
    (folder/'evil-ran').unlink(missing_ok=True)
    r = subprocess.run([sys.executable, '-m', 'pytest', '-x', '-q', '-n0', '--tb=line', '--assert=plain', '-p', 'no:cacheprovider', '-k', k, *(f'tests/{f}' for f in files)],
                       cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace', timeout=3600)
    return r.returncode, r.stdout

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the project: a bug that gets through may do harm there and not here"
    d = tmp_path_factory.mktemp('planted')
    for name in ('notes', 'tests', 'tools', 'nbs'): shutil.copytree(ROOT/name, d/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for p in ROOT.glob('*.*'):
        if p.is_file(): shutil.copy(p, d)
    return d

def test_without_a_bug_they_pass(copy):
    code, out = run_tests(copy, sorted({f for (_, f), *_ in BUGS.values()}), ' or '.join(sorted({k for _, k, *_ in BUGS.values()})))
    if code: pytest.fail(out, pytrace=False)

@pytest.mark.parametrize('bug', BUGS)
def test_bug_is_seen(copy, bug):
    (module, file), k, old, new = BUGS[bug]
    path = copy/'notes'/f'{module}.py'
    text = path.read_text(encoding='utf-8')
    if text.count(old) != 1: pytest.fail(f"notes/{module}.py has {old!r} {text.count(old)} times: this bug must be planted anew", pytrace=False)
    path.write_text(text.replace(old, new), encoding='utf-8')
    try: code, out = run_tests(copy, [file], k)
    finally: path.write_text(text, encoding='utf-8')
    # 1: tests ran, and one failed. With a module that doesn't even import it would be 2, without a test 5.
    if code != 1 or not re.search(r'^1 failed', out, re.M): pytest.fail(f"not seen by tests/{file} -k {k} (exit code {code}): {old!r} → {new!r}\n\n{out[-2000:]}", pytrace=False)

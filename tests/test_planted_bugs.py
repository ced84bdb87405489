"""Bugs planted in a copy of the package, one at a time: the tests must see each of them.

A check that has never failed shows nothing. Among these bugs are the slips that other notes of this kind have made.
"""
import json, os, re, shutil, subprocess, sys
import pytest
from project import ROOT

FC, MM, EX, DA, TR, CV, LE, CA, CK, OP = ((m, f'test_{m}.py') for m in ('fully_connected', 'matmul', 'exports', 'data', 'training', 'convolutions', 'learner', 'callbacks', 'checkpoints', 'optimizers'))
NO = 'normalization', 'test_normalization.py'
MO, KE, AC, RS = ('modules', 'test_modules.py'), ('kernel', 'test_kernel.py'), ('activations', 'test_activations.py'), ('resnet', 'test_resnet.py')
AU = 'augmentation', 'test_augmentation.py'
OV = 'overfitting', 'test_overfitting.py'
PA = 'parallel', 'test_parallel.py'
DI, DC = ('distributed', 'test_distributed.py'), ('checkpoints', 'test_distributed.py')
SC = 'scaling', 'test_scaling.py'
BACKWARD = 'fully_connected', 'test_backward.py'
BUGS = {  # what was done: (module and file of its tests, the tests that must fail, the code as it is, the code with the bug)
    'init: / for *': (FC, 'kaiming_std', 'return relu_gain(a)*math.sqrt', 'return relu_gain(a)/math.sqrt'),
    'init: gain 2/(1+a)': (FC, 'kaiming', '2/(1+a**2)', '2/(1+a)'),
    'init: fan_in and fan_out swapped': (FC, 'kaiming', 'return w.shape[1]*k,w.shape[0]*k', 'return w.shape[0]*k,w.shape[1]*k'),
    'MSE: (n,1) minus (n,)': (FC, 'forward', 'return (pred.squeeze(-1)-targ).pow(2)', 'return (pred-targ).pow(2)'),
    'MSE: bare squeeze()': (FC, 'keeps_every', 'return (pred.squeeze(-1)-targ).pow(2)', 'return (pred.squeeze()-targ).pow(2)'),
    'MSE gradient: bare squeeze()': (FC, 'keeps_every', '2*g*(pred.squeeze(-1)-targ)', '2*g*(pred.squeeze()-targ)'),
    'MSE gradient: no 1/n': (BACKWARD, 'mse_grad', '.unsqueeze(-1)/targ.numel()', '.unsqueeze(-1)'),
    'ReLU lets negatives pass': (FC, 'forward', 'torch.threshold(x, 0, 0)', 'torch.threshold(x, -.1, 0)'),
    'ReLU gradient: 1 at 0': (FC, 'corner', 'threshold_backward(g, x, 0)', 'threshold_backward(g, x, -1e-30)'),
    'linear gradient: no transpose': (BACKWARD, 'lin_grad', 'return g@w.t() if', 'return g@w if'),
    'linear gradient: mean for sum': (BACKWARD, 'lin_grad', 'None if b is None else g.sum(0)', 'None if b is None else g.mean(0)'),
    'no gradient for the input: none for the hidden layers either': (MO, 'leaves_out', 'want or i>0', 'want'),
    'no gradient for the input: computed all the same': (MO, 'leaves_out', 'want or i>0', 'True'),
    'no gradient for the input: none from then on': (MO, 'leaves_out', "vars(self)['needs_input_grad'] = input_grad", "vars(self)['needs_input_grad'] = self.needs_input_grad and input_grad"),
    'convolution gradient: without that of the input there is none': (('convolutions', 'test_backward.py'), 'conv2d_grad', 'if not input_grad: return None,g_w,g_b', 'if not input_grad: return None,g_w*0,g_b'),
    'Module: submodules forgotten': (MO, 'keeps_nn_modules_books', "'module' if isinstance(value, Module) else None", 'None'),
    'Module: a batch is kept without gradients': (MO, 'without_gradients', "if torch.is_grad_enabled(): self._keep", "if True: self._keep"),
    'Module: a layer used twice goes through its last call twice': (MO, 'needs_a_call', "finally: del d['_saved']", 'finally: pass'),
    'Module: gradients overwritten': (MO, 'add_up or one_weight', 'p.grad = g if p.grad is None else p.grad+g', 'p.grad = g'),
    'Module: parameters lost in lists of lists': (MO, 'however_deep', 'any(_holds_parameters(o, seen) for o in', 'any(isinstance(o, (nn.Parameter,Module)) for o in'),
    'Sum: one branch alone goes back': (MO, 'residual', 'return sum(gs[1:], gs[0]) if', 'return gs[0] if'),
    'to: counts become floats': (MO, 'test_to', 'if t is None or t.is_floating_point():', 'if True:'),
    'state_dict: passing buffers too': (MO, 'test_buffers', "(*m._own('parameter'),*m._own('buffer'))", "(*m._own('parameter'),*m._own('buffer', 'passing buffer'))"),
    'hooks: a shared gradient is told half': (('hooks', 'test_modules.py'), 'complete', "if m is not self and any('_saved' in", "if False and any('_saved' in"),
    'optimiser: a parameter moves twice': (TR, 'given_twice', 'if len({*map(id, ps)})<len(ps): raise', 'if False: raise'),
    'optimiser: settings of PyTorch that ours has not': (TR, 'does_not_fit', 'if g[k]!=self.fixed.get(k, math.nan)}', 'if False}'),
    'cross-entropy waits for the device': (TR, 'reads_no_number', "if targ.device.type!='cpu': return", 'pass'),
    'Learner: groups flattened': (('learner', 'test_callbacks.py'), 'ratio', "g['lr'] = lr*r", "g['lr'] = lr"),
    'Learner: frozen parts wake': (('learner', 'test_callbacks.py'), 'stays_there', 'for m in self.asleep: m.training = False', 'pass'),
    'matmul: any shapes': (MM, 'shapes_that', 'or a.shape[1]!=b.shape[0]', ''),
    'broadcast_shapes accepts anything': (MM, 'broadcast_shapes', 'if len(wanted)>1: raise', 'if len(wanted)>99: raise'),
    'einsum: no diagonals': (MM, 'einsum', 'sum(s for l,s in zip(letters,t.stride()) if l==o)', 'next((s for l,s in zip(letters,t.stride()) if l==o), 0)'),
    'blocked: last tile overwrites': (KE, 'beyond', 'c[i+r,j+s] += tile', 'c[i+r,j+s] = tile'),
    'test_near: tolerance of 1': (EX, 'near_refuses', 'rtol=rtol, atol=atol', 'rtol=1., atol=atol'),
    'numerical_grad: half the width': (FC, 'numerical_grad', '/(2*eps)', '/eps'),
    'compare_times: always in one order': (MM, 'changes_the_order', 'draw([*fs], len(fs))', 'fs'),
    'check_grads: one good one is enough': (FC, 'check_grads', 'if not all(e<tol', 'if not any(e<tol'),
    'exporter: black puts a space in': (EX, 'odd_cells and black', r"re.match(r'\s*#\s*\|\s*([^\s:]*)", r"re.match(r'#\|\s*([^\s:]*)"),
    'exporter: marks below code pass': (EX, 'odd_cells and below', 'if n>len(_top(src)) and', 'if False and'),
    'exporter: another module passes': (EX, 'odd_cells and other', "elif name=='export' and value:", "elif name=='export' and False:"),
    'exporter: nothing stands above': (EX, 'odd_cells and future', "compile(f'__all__ = ();{src}'", "compile(f'{src}'"),
    'exporter: U+2028 ends a line': (EX, 'odd_cells and U', r"'\n'.join(_relative_imports(src, pkg).split('\n')", r"'\n'.join(_relative_imports(src, pkg).splitlines()"),
    'unpickler allows everything': (DA, 'hostile', 'raise pickle.UnpicklingError(f"it asks', 'return super().find_class(module, name)\n            raise pickle.UnpicklingError(f"it asks'),
    'download: hash not checked': (DA, 'wrong_hash', 'if got!=sha256: raise', 'if False: raise'),
    'download: half a file stays': (DA, 'one_clear_error', 'finally: part.unlink(missing_ok=True)', 'finally: pass'),
    'IDX: what the header says is believed': (DA, 'damaged_idx', 'if b[:k]!=head: raise', 'if False: raise'),
    'package: a damaged file is opened': (DA, 'packaged_file_damaged', 'if hashlib.sha256(raw).hexdigest()!=_SHIPPED[name]:', 'if False:'),
    'test images: those of the validation set': (DA, 'third_part', '_digits(raw, [2])', '_digits(raw, [1])'),
    'logsumexp overflows': (TR, 'softmax_and', 'm = m.masked_fill(m.isinf(), 0.)', 'm = m*0.'),
    'log_softmax: large numbers subtracted last': (TR, 'shift', 'x = x - x.detach().amax(-1, keepdim=True)', 'x = x + 0'),
    'log_softmax gradient: the sum forgotten': (('training', 'test_backward.py'), 'log_softmax_grad', 'return g - g.sum(-1, keepdim=True)*softmax(x)', 'return g + 0'),
    'cross-entropy gradient: no 1/n': (('training', 'test_backward.py'), 'cross_entropy_grad', '(softmax(x) - one_hot.to(x))*(g.to(x.dtype)/len(x))', '(softmax(x) - one_hot.to(x))*g.to(x.dtype)'),
    'class -1 counts from the end': (TR, 'wrong_input', 'if lo<0 or hi>=c:', 'if hi>=c:'),
    'SGD: gradients stay': (TR, 'sgd_is', 'for p in self._params(): p.grad = None', 'pass'),
    'sampler: one order for all epochs': (TR, 'sampler', 'torch.randperm(self.n, generator=self.generator)', 'torch.randperm(self.n, generator=torch.Generator().manual_seed(3))'),
    'batches: the short one is always dropped': (TR, 'batch_sampler', 'if len(batch)==self.batch_size or not self.drop_last: yield', 'if len(batch)==self.batch_size: yield'),
    'get_dls: a loader draws from the global generator': (TR, 'global_generator', 'sampler=batches, generator=g)', 'sampler=batches)'),
    'evaluate: a short batch counts as a full one': (TR, 'test_evaluate', 'sizes.append(len(yb))\n            losses.append(loss_func', 'sizes.append(max(len(yb), 16))\n            losses.append(loss_func'),
    'evaluate: training mode never comes back': (('modules', 'test_training.py'), 'modes or puts_the_mode', 'for m,mode in modes: m.training = mode', 'pass'),
    'fit: the mean of the batches\' means': (TR, 'printed_training_loss', 'sum(v*k for v,k in zip(values, sizes))/sum(sizes)', 'sum(values)/len(values)'),
    'train: inner modules forgotten': (('modules', 'test_training.py'), 'train_and_eval', 'for m in self.children(): m.train(mode)', 'pass'),
    'fit: gradients add up': (TR, 'plain_loop', '        opt.zero_grad()\n', ''),
    'confusion matrix: rows and columns swapped': (TR, 'confusion', 'targ.long()*c + pred.long()', 'pred.long()*c + targ.long()'),
    'convolution: last position forgotten': (CV, 'conv_size', '//stride + 1', '//stride'),
    'windows: stride and dilation swapped': (CV, 'unfold_fold', 'row*d[0],col*d[1],row*s[0],col*s[1]', 'row*s[0],col*s[1],row*d[0],col*d[1]'),
    'fold: the last copy overwrites': (CV, 'unfold_fold', '+= u[:,:,i,j]', '= u[:,:,i,j]'),
    'fold: no dilation': (CV, 'unfold_fold', 'top,left = i*dh,j*dw', 'top,left = i,j'),
    'convolution gradient: mean for sum': (CV, 'whole_range', 'G.sum(1)', 'G.mean(1)'),
    'convolution gradient: kernels not transposed': (CV, 'whole_range', '(W.t()@G)', '(w.transpose(0,1).reshape(w[0].numel(),-1)@G)'),
    'max pooling: a frame of zeros': (CV, 'negative_pixels', 'if x.is_floating_point(): return -math.inf', 'if x.is_floating_point(): return 0.'),
    'max pooling gradient: to the last that ties': (CV, 'ties', '(v>best)|v.isnan()', '(v>=best)|v.isnan()'),
    'max pooling gradient: none in a window with a NaN': (CV, 'no_number', '(v>best)|v.isnan()', 'v>best'),
    'matmul: an empty product has no gradient': (MM, 'empty_product', 'return (a[:,:0,None]*b[:0]).sum(1, dtype=a.dtype)', 'return a.new_zeros(a.shape[0], b.shape[1])'),
    'linear: a float64 bias is rounded in silence': (FC, 'wrong_input', '    _check_dtypes(x=x, w=w, b=b, g=g)\n', ''),
    'data: pixels up to 255': (DA, 'in_range', 'x.max(initial=0)<1', 'x.max(initial=0)<256'),
    'fit_digit: centred between the pixels': (DA, 'fit_digit_gives_back', 'size//2-centre+.5', '(size-1)/2-centre+.5'),
    'fit_digit: a tie goes either way': (DA, 'fit_digit_ties', '+.5+1e-6', '+.5-1e-6'),
    'windows: three dimensions are refused by accident': (('convolutions', 'test_pytorch_samples.py'), 'agreed_or_refused', 'if x.ndim!=4 or not x.numel():', 'if not x.numel():'),
    'Conv2d: bias from the channels only': (CV, 'test_Conv2d', 'math.sqrt(fans(w)[0])', 'math.sqrt(in_channels)'),
    'receptive field: stride too early': (CV, 'receptive_field', 'size + d*(k-1)*stride,start', 'size + d*(k-1)*stride*s,start'),
    'accumulation: mean of the batches': (CA, 'accumulated_steps', 'self._add(self.learn.items)', 'self._add(1)'),
    'accumulation: last group left out': (CA, 'accumulated_steps or once_a_group', '    if not self.batches: return\n', '    return\n'),
    'clipping: each tensor by itself': (CA, 'clip_is_torchs', 'for g in gs: g.mul_(scale)', 'for g in gs: g.mul_((self.max_norm/(g.norm()+1e-6)).clamp(max=1))'),
    'clipping after the step': (CA, 'clip_is_torchs or accumulated', '    def after_backward(self):\n        gs = [p.grad', '    def after_step(self):\n        gs = [p.grad'),
    'metrics: a short batch counts as a full one': (LE, 'short_last_batch', 'np.multiply(values, n).sum(), np.sum(n)', 'np.sum(values), len(n)'),
    'loop: gradients carry over': (LE, 'bare_loop', '        self.zero_grad()\n', ''),
    'loop: validation in training mode': (LE, 'bare_loop', 'nullcontext() if training else eval_mode(self.model)', 'nullcontext()'),
    'loop: order ignored': (LE, 'order', 'self.cbs.sort(key=lambda cb: cb.order)', 'pass'),
    'loop: no clean-up after an exception': (LE, 'reaches_the_caller', "stack.callback(cb.cleanup_fit)", "pass"),
    'resume: weights and no random numbers': (CK, 'interrupted_and_resumed', "set_rng(s['rng'], l.dls)", "pass"),
    'resume: saved when the batch was drawn': (CK, 'noise_in_the_dataset', "        yield batch # and, when the loop comes back, the next is not drawn yet\n        if self.every and i%self.every==0 and i!=n: self._save(l.epoch, i)", "        if self.every and i>1 and (i-1)%self.every==0: self._save(l.epoch, i-1)\n        yield batch"),
    'resume: shuffled anew': (CK, 'interrupted_and_resumed', "if s: set_rng(s['epoch_rng'], l.dls)", "if s: pass"),
    'resume: no optimiser': (CK, 'starts_anew', "    self.state = None\n    l.opt.load_state_dict(s['opt'])\n", "    self.state = None\n"),
    'resume: what others did before the fit stays': (CK, 'starts_anew', "    if self.state: return self._put_back()\n", "    if self.state: return\n"),
    'accumulation: gradients of other parameters': (CA, 'didnt_use', "[None if p.grad is None else k*p.grad for p in ps]", "[k*p.grad for p in ps if p.grad is not None]"),
    'checkpoint: saves what can not be read': (CK, 'could_not_be_read', "        torch.load(path, map_location='meta', weights_only=True) # reads no tensor\n", ""),
    'checkpoint: a full disk leaves half a file': (CK, 'full_disk', 'with suppress(OSError): tmp.unlink()', 'pass'),
    'receptive field of a global pooling': (CV, 'receptive_field_refuses', 'if not isinstance(l, windows) or', "if not hasattr(l, 'kernel_size') or"),
    'checkpoint: the one before is not kept': (CK, 'one_before', "if path.exists(): os.replace(path, _previous(path))", "pass"),
    'checkpoint: runs what is in it': (CK, 'does_not_run', "map_location='cpu', weights_only=True", "map_location='cpu', weights_only=False"),
    'checkpoint: damage not looked for': (CK, 'bit_flip', 'if whole is False: raise _no(path, "is damaged")', 'whole = whole is not None'),
    'checkpoint: weights changed before they are checked': (CK, 'changes_nothing', "    _check_fits(l.model.state_dict(), s['model'])\n", "    l.model.load_state_dict(s['model'])\n"),
    'checkpoint: a class that has moved is another': (CK, 'classes_moved', r"return re.sub(r'(?<![\w.])notes\.\w+\.', 'notes.', str(kinds))", 'return str(kinds)'),
    'checkpoint: the class alone is looked at': (CK, 'another_class', r"return re.sub(r'(?<![\w.])notes\.\w+\.', 'notes.', str(kinds))", r"return re.sub(r'[\w.]+\.', '', str(kinds))"),
    'LR finder: random numbers not put back': (CA, 'puts_everything_back', 'finally: set_rng(rng, self.dls)', 'finally: pass'),
    'LR finder: callbacks are not copied': (CA, 'touches_nothing', 'memo = {**_shared(self), id(self): new}', 'memo = {**_shared(self), id(self): new, **{id(cb): cb for cb in self.cbs}}'),
    'early stopping: last weights kept': (CA, 'test_early_stopping', 'if self.weights: self.learn', 'if False: self.learn'),
    'progress: lines kept back in a pipe': (LE, 'seen_at_once', '        sys.stdout.flush()\n', ''),
    'LR finder: a multiple of the least loss': (CA, 'negative_losses or noise_is_no', 'return m[-1]-m.min() > self.factor*scale', 'return self.losses[-1] > 4*min(self.losses)'),
    'LR finder: no noise, only the fall': (CA, 'noise_is_no', 'max(m[0]-m.min(), 10*np.std(losses[:10]))', 'm[0]-m.min()'),
    'LR finder: nan is the least loss': (CA, 'no_number', 'if math.isfinite(l)', ''),
    'progress: a bar in a pipe': (LE, 'in_a_pipe', 'disable=None', 'disable=False'),
    'progress: a bar that stands still': (LE, 'bar_moves', 'def batch(self): self.bar.update()', 'def batch(self): pass'),
    'progress: an axis with room for what was done only': (LE, 'bar_moves', 'rec.start[0]+self.n)', 'None)'),
    'hooks: a fit that fails leaves them': (AC, 'is_left_after_an_exception', "if hooks := vars(self).pop('hooks', None): hooks.remove()", "vars(self).pop('hooks', None)"),
    'statistics: who else asks the model is counted': (AC, 'only_the_training', "    if not self.on or not self.learn.model.training: return\n    if hook not in self.seen: # of a layer that runs twice, the first time\n", "    if self.learn.training:\n"),
    'statistics: predictions between are counted': (AC, 'asked_for_between', 'if not self.on or not self.learn.model.training: return', 'if not self.on: return'),
    'statistics: what is never above 0 is dead': (AC, 'dead_units', '(lo==hi).to(x)', '(hi<=0).to(x)'),
    'statistics: a resumed run begins anew': (AC, 'resumed_run', '_table=self._fetch())', '_table=None)'),
    'updates: gradients as they were before clipping': (AC, 'clipping_left', 'order,in_trials,in_preds,restore_first = 100,', 'order,in_trials,in_preds,restore_first = 5,'),
    'general ReLU gradient: the power forgotten': (('activations', 'test_backward.py'), 'general_relu', 'up = power*torch.where', 'up = torch.where'),
    'general ReLU gradient: rounded to float32': (AC, 'is_torchs', 'up = torch.ones_like(x)', 'up = torch.ones(())'),
    'general ReLU: LSUV\'s shift is in no checkpoint': (AC, 'a_shift', "self.register_buffer('sub', torch.tensor(float(sub), dtype=dtype))", 'self.sub = torch.tensor(float(sub))'),
    'LSUV: measured in training': (AC, 'measures_in_evaluation', 'with torch.no_grad(),eval_mode(model),_re', 'with torch.no_grad(),_re'),
    'LSUV: half of it stays after an error': (AC, 'changes_nothing', '        model.load_state_dict(was)\n        raise', '        raise'),
    'LSUV: frozen layers too': (AC, 'frozen', ' if not _frozen(m)}', '}'),
    'interval: 1.96 for eight seeds too': (AC, 'test_mean_interval', '_t95(len(v)-1)*v.std', '1.96*v.std'),
    'Adam: the root of the square plus eps': (OP, 'each_rule', 'root = v.sqrt().div_(math.sqrt(1-b2**t)).add_(eps)', 'root = v.add(eps).sqrt_().div_(math.sqrt(1-b2**t))'),
    'Adam: the square is not corrected': (OP, 'each_rule', '.div_(math.sqrt(1-b2**t))', ''),
    'AdamW: the decay is coupled': (OP, 'each_rule', 'dict(decoupled_weight_decay=True),True', 'dict(decoupled_weight_decay=True),False'),
    'momentum: the first step is dampened': (OP, 'each_rule', "state['momentum_buffer'] = g.clone()", "state['momentum_buffer'] = g*(1-dampening)"),
    'momentum: the sum is the gradient itself': (OP, 'leaves_the_gradient', "state['momentum_buffer'] = g.clone()", "state['momentum_buffer'] = g"),
    'Nesterov looks back': (OP, 'each_rule', 'g = g.add(b, alpha=momentum) if nesterov', 'g = b.add(g, alpha=momentum) if nesterov'),
    'RMSProp: the average begins at the first square': (OP, 'each_rule', "g,s = _with_l2(p, weight_decay),_average(p, state, 'square_avg')", "g = _with_l2(p, weight_decay)\n    s = state.setdefault('square_avg', g*g)"),
    'RMSProp: the variance without its mean': (OP, 'each_rule', 'if centered: s = (s -', 'if False: s = (s -'),
    'optimisers: sparse gradients pass': (OP, 'sparse', 'if p.grad.layout==torch.strided: return p.grad', 'return p.grad'),
    'Muon: tall matrices as wide ones': (OP, 'muon', 'math.sqrt(max(1, len(p)/p.shape[1]))', 'math.sqrt(max(1, p.shape[1]/len(p)))'),
    'one-cycle: a step late': (OP, 'step_for_step', 'return between(start, 1., step/top)', 'return between(start, 1., (step-1)/top)'),
    'Schedule: a step early': (OP, 'recorded_rates', 'l.epoch*self.size + l.iter//self.group', 'l.epoch*self.size + l.iter//self.group + 1'),
    'Schedule: batches for steps': (OP, 'steps_are_counted', 'math.prod(cb.n for cb in l.cbs if isinstance(cb, GradAccum))', '1'),
    'Schedule: the last rate stays': (OP, 'recorded_rates', 'self.learn.set_lr(self.before)', 'pass'),
    'Schedule: a resumed run begins at its own rate': (OP, 'uninterrupted', "= ('top','before'),None", '= (),None'),
    'Schedule: a broken start leaves a rate of the middle': (OP, 'breaks_off_at_its_start', '-30,False,False,True', '-30,False,False,False'),
    'Adam: a large gradient overflows': (OP, 'large_gradients', 'v.mul_(b2).addcmul_(g, g, value=1-b2)', 'v.lerp_(g*g, 1-b2)'),
    'norm: the variance over n-1': (NO, 'test_standardize', 'v = d.square().mean(dims, keepdim=True)', 'v = x.var(dims, keepdim=True)'),
    'norm: eps outside the root': (NO, 'eps_stands', 'r = (v+eps).rsqrt()', 'r = 1/(v.sqrt()+eps)'),
    'norm gradient: the mean forgotten': (NO, 'has_no_mean', 'if center: g_x -= s/n', 'if False: g_x -= s/n'),
    'norm gradient: that of the variance forgotten': (NO, 'has_no_mean', '(x_hat*(-sx/n)).add_(g)', 'x_hat*0 + g'),
    'norm: a graph loses what it needs': (NO, 'autograd_goes', 'd*r if d.requires_grad else d.mul_(r)', 'd.mul_(r)'),
    'batch norm: the gradient stops at the statistics': (NO, 'settings_and_modes', 'return g_x if batch else g*r', 'return g*r'),
    'batch norm: the gradient of training in evaluation': (NO, 'settings_and_modes', 'return g_x if batch else g*r', 'return g_x'),
    'batch norm: the running variance is that over n': (NO, 'settings_and_modes', '(self.running_var,v*(n/(n-1)))', '(self.running_var,v)'),
    'batch norm: momentum is the share of the old': (NO, 'share_of_the_new', 'view_as(old), share)', 'view_as(old), 1-share)'),
    'batch norm: momentum None begins with the start values': (NO, 'plain_average', 'share = 1/self.num_batches_tracked.item()', 'share = 1/(1+self.num_batches_tracked.item())'),
    'batch norm: evaluation asks the batch': (NO, 'asks_nobody', 'if batch := self.training or self.running_mean is None:', 'if batch := True:'),
    'batch norm: evaluation moves the statistics': (NO, 'in_training_only', 'if batch := self.training or self.running_mean is None:', 'if batch := True:'),
    'batch norm: a batch of one passes': (NO, 'batch_of_one', '''_check_several(x, self.num_features, 'channel', "a larger batch, or eval()")''', 'pass'),
    'batch norm: a single picture is refused': (NO, 'settings_and_modes', 'if x.numel()<=n: raise', 'if len(x)<2: raise'),
    'group norm: every k-th channel': (NO, 'group_norm_is', 'rows = x.reshape(len(x), self.num_groups, -1)', 'rows = x.reshape(len(x), -1, self.num_groups).transpose(1, 2).contiguous()'),
    'RMS norm: a fixed eps': (NO, 'row_norms_are', 'torch.finfo(x.dtype).eps if self.eps is None', '1e-5 if self.eps is None'),
    'RMS norm: one eps for all types': (NO, 'eps_that_rms', 'torch.finfo(x.dtype).eps if self.eps is None', '1e-14 if self.eps is None'),
    'norms: half types pass': (NO, 'half_types', 'if x.dtype.itemsize<4:', 'if False:'),
    'norms: a gradient replaces the one that is there': (NO, 'settings_and_modes', 'accumulate_grad(p, g().reshape(p.shape))', 'p.grad = g().reshape(p.shape)'),
    'norms: without a weight the output is what is kept': (NO, 'whoever_changes', 'return x_hat.clone()', 'return x_hat'),
    'norms: a gradient of another shape is found too late': (NO, 'another_shape', '_check_g(g, x_hat.shape)\n    self._grads', 'self._grads'),
    "norms: the bias' gradient is that of the output": (NO, 'memory_of_their_own', 'g.sum_to_size(shape).clone()', 'g.sum_to_size(shape)'),
    'global pooling gradient: the whole to each place': (('resnet', 'test_backward.py'), 'GlobalAvgPool', '(g/x[0,0].numel())[:,:,None,None]', 'g[:,:,None,None]'),
    'residual block: the shortcut keeps its stride to itself': (RS, 'test_shapes', 'conv_norm(c_in, c_out, 1, stride, False, of)', 'conv_norm(c_in, c_out, 1, 1, False, of)'),
    'residual block: a ReLU before the sum': (RS, 'begins_with_the_shortcut or identity_where', 'conv_norm(c_in, c_out, 1, stride, False, of)', 'conv_norm(c_in, c_out, 1, stride, True, of)'),
    'residual block: a shortcut that is no identity': (RS, 'identity_where', 'same = c_in==c_out and stride==1', 'same = False'),
    'residual block: the first norm begins at zero': (RS, 'zero_begins', 'nn.init.zeros_(branch[1][1].weight)', 'nn.init.zeros_(branch[0][1].weight)'),
    'resnet: strides that are too few': (RS, 'cannot_be', 'if len(strides)!=len(widths)-1: raise', 'if False: raise'),
    "PyTorch's sum: the first branch alone": (RS, 'test_sum or statistics_are', 'return sum(outs[1:], outs[0])', 'return outs[0]'),
    'multiply-adds: at the parameters alone': (RS, 'half_of_what', 'return places.numel()*l.weight[0].numel() if', 'return places[0,0].numel()*l.weight.numel() if'),
    'summary: a layer in two places counts once': (RS, 'two_places', 'before+_madds(m, args, out)', '_madds(m, args, out)'),
    'summary: a shared weight counts twice': (RS, 'each_parameter', 'rows.params = _params(model)', 'rows.params = sum(map(_params, names))'),
    "multiply-adds: a transposed convolution's at its outputs": (RS, 'other_layers', 'places = args[0] if isinstance(l, _TRANSPOSED) else out', 'places = out'),
    'summary: statistics of the batch are kept': (RS, 'changes_nothing', 'with torch.no_grad(),eval_mode(model),Hooks', 'with torch.no_grad(),Hooks'),
    'affine: the map there for the map back': (AU, 'slow_loop or with_its_matrix', 'i,j = cos*i-sin*j,cos*j+sin*i', 'i,j = cos*i+sin*j,cos*j-sin*i'),
    'affine: edges at the middle of pixels': (AU, 'bilinear_is', '[(2*j+1)/w-1, (2*i+1)/h-1]', '[2*j/(w-1)-1, 2*i/(h-1)-1]'),
    'affine: rows and columns swapped': (AU, 'bilinear_is', '[(2*j+1)/w-1, (2*i+1)/h-1]', '[(2*i+1)/h-1, (2*j+1)/w-1]'),
    'bilinear: the far corner weighs most': (AU, 'bilinear_is', 'a,b = i-top,j-left', 'a,b = 1-(i-top),1-(j-left)'),
    'move: comes in again at the other edge': (AU, 'padded_crop', 'return torch.where(inside[:,None], got, fill).contiguous()', 'return x[n,:,i%h,j%w].movedim(-1, 1).contiguous()'),
    'changes: one draw for all images': (AU, 'draw_of_its_own', 'u = torch.rand(len(x), k, generator=generator, device=device)', 'u = torch.rand(1, k, generator=generator, device=device).expand(len(x), -1)'),
    'changes: paper of the whole batch': (AU, 'padded_crop or mean_of_softmax', 'return x.amin((1,2,3), keepdim=True)', 'return x.amin()'),
    'changes: a float64 fill is rounded': (AU, 'bilinear_is', 'torch.as_tensor(fill, dtype=x.dtype, device=x.device)', 'torch.as_tensor(fill).to(x)'),
    'shift: the last pixel never drawn': (AU, 'alike_often', '(u*(2*most+1)).floor()', '(u*2*most).floor()'),
    'Augment: validation too': (AU, 'training_batches_alone', 'for f in self.fs if l.training else ():', 'for f in self.fs:'),
    'Augment: own generators are in no checkpoint': (AU, 'same_bits', "return dict(generators=[g.get_state() for g in _own_generators(self.fs)])", 'return dict(generators=[])'),
    'averaged weights: statistics forgotten': (AU, 'averaged_model', 'else: ts = [*model.parameters(),*model.buffers()]', 'else: ts = [*model.parameters()]'),
    'averaged weights: the share from the first step on': (AU, 'averaged_model', 'share = min(self.share, self.steps/(1+self.steps))', 'share = self.share'),
    'averaged weights: a resumed run begins anew': (AU, 'same_bits', "        self.model.load_state_dict(state['model'])\n", ''),
    'averaged weights: tied weights move twice': (AU, 'tied', "ts = [t for _,t in model._all('parameter','buffer')]", 'ts = [*model.state_dict().values()]*2'),
    'smoothing: the right class gets no share': (AU, 'smoothed_is', '- (s*log_p.mean() if s else 0)', '- s*(log_p.sum()/len(x)+nll(log_p, targ))/(x.shape[1]-.999999)'),
    'smoothing gradient: the even share forgotten': (('augmentation', 'test_backward.py'), 'smooth_cross', 'return (1-label_smoothing)*sharp + label_smoothing*even', 'return (1-label_smoothing)*sharp'),
    'predict: in training mode': (AU, 'mean_of_softmax', '    with eval_mode(model): return torch.cat([mean(xb)', '    if True: return torch.cat([mean(xb)'),
    'predict: an iterator of views is used up': (AU, 'mean_of_softmax', '    views = [*views] # more than one batch looks\n', ''),
    'predict: the image itself does not count': (AU, 'mean_of_softmax', 'seen = xb,*(f(xb) for f in views)', 'seen = [f(xb) for f in views] or [xb]'),
    'calibration: a bin begins with its lower end': (AU, 'slow_loop', '(sure*bins).ceil().long().clamp(1, bins)-1', '(sure*bins).long().clamp(0, bins-1)'),
    'ECE: bins count alike': (AU, 'slow_loop', '((n*(sure-right).abs()).nansum()/n.sum())', '(sure-right).abs().nanmean()'),
    'read_picture: light ink is paper': (AU, 'wherever', 'ink = away if most==away.max() else -away', 'ink = -away'),
    'read_picture: grain is ink': (AU, 'wherever', '(ink-most/4).clamp_min(0)', 'ink.clamp_min(0)'),
    'read_picture: a turned camera': (AU, 'turned_cameras', 'ImageOps.exif_transpose(im).convert', 'im.convert'),
    'dropout: nothing makes up for what is gone': (OV, 'is_scaled', 'if p<1: mask /= 1-p', 'if False: mask /= 1-p'),
    'dropout: p is the share that stays': (OV, 'distribution', 'mask = (u>=p)', 'mask = (u<p)'),
    'dropout: one mask for all rows': (OV, 'distribution', 'u = torch.rand(x.shape,', 'u = torch.rand(x.shape[-1:] if x.ndim>1 else (1,),'),
    'dropout: goes on in evaluation': (OV, 'in_evaluation', 'if self.training and self.p else', 'if self.p else'),
    'dropout: a mask of its own on the way back': (('overfitting', 'test_backward.py'), 'Dropout', 'return g if mask is None else dropout_backward(g, mask)', 'return g if mask is None else dropout(g, self.p)[0]'),
    'dropout: on the way back nothing is scaled': (('overfitting', 'test_backward.py'), 'dropout_backward', 'return g*mask', 'return g*(mask!=0)'),
    'dropout: p=1 divides by 0': (OV, 'the_ends', 'if p<1: mask /= 1-p', 'mask /= 1-p'),
    'dropout: float64 draws another mask': (OV, 'all_dtypes', ', dtype=torch.float32)', ')'),
    'dropout: what is no number is a probability': (OV, 'no_probability', 'isinstance(n, bool) or not isinstance(n, Real) or', 'isinstance(n, bool) or'),
    'dropout: in evaluation any gradient goes back': (OV, 'in_evaluation', '        _check_g(g, shape)\n', ''),
    'test_near: numbers of two devices are never near': (('exports', 'test_elsewhere.py'), 'test_near', 'check_device=False', 'check_device=True'),
    'cross-entropy gradient waits for the device': (('training', 'test_elsewhere.py'), 'waits and plain', '(g.to(x.dtype)/len(x))', '(g.to(x)/len(x))'),
    'affine: places are made on the CPU': (('augmentation', 'test_elsewhere.py'), 'waits and augmented', 'torch.arange(h, device=x.device).to(turn)', 'torch.arange(h).to(turn)'),
    'set_rng: as many GPUs as there were': (('callbacks', 'test_elsewhere.py'), 'more_gpus', ':torch.cuda.device_count() if cuda else 0]', ':9 if cuda else 0]'),
    'GradClip waits for the device': (('callbacks', 'test_elsewhere.py'), 'waits and watched', 'self.norm = torch.stack([g.norm() for g in gs]).norm()', 'self.norm = torch.tensor(sum(g.norm().item()**2 for g in gs)**.5)'),
    'max pooling gradient: places on the CPU': (('convolutions', 'test_elsewhere.py'), 'MaxPool2d', '(torch.arange(n, device=u.device)*s - p', '(torch.arange(n)*s - p'),
    'all-reduce: added as they come': (PA, 'same_on_all_ranks', 'total = parts[0].clone()', 'parts = parts[r:]+parts[:r]; total = parts[0].clone()'),
    'tree: the first parts are lost': (PA, 'same_bits and tree', 'flat += come', 'flat.copy_(come)'),
    'tree: a number that is no power of two': (PA, 'formulas', 'if r%(2*d)==0 and r+d<p]', 'if r%(2*d)==0 and r+2*d<=p]'),
    'ring: one chunk stays behind': (PA, 'same_bits and ring', 'for k in range(p-1): group.exchange(', 'for k in range(p-2): group.exchange('),
    'exchange: all send first': (PA, 'exchange_large', '    _take(self, y, source)\n    _finish(self, sending, to)', '    _finish(self, sending, to)\n    _take(self, y, source)'),
    'recv: any size': (PA, 'another_size', 'if n!=len(into): raise', 'if False: raise'),
    'processes: nobody hears of a death': (PA, 'rank_and_reason and killed and not background', '            theirs.close() #', '            pass #'),
    'processes: they outlive who started them': (PA, 'end_with_who', 'os._exit(1)', 'pass'),
    'processes: an effect is taken for the cause': (PA, 'first_cause', 'raise min(bad, key=_kind)', 'raise max(bad, key=_kind)'),
    'buckets: first ones first': (PA, 'last_ones_first', 'for p in reversed(ps):', 'for p in ps:'),
    'buckets: out of turn': (PA, 'whatever_gets_ready', 'if self._missing[i] and not incomplete: break', 'if sum(map(len, self._missing[i:])) and i and not incomplete: break'),
    'buckets: zeros where nobody has a gradient': (PA, 'stays_none', '                else: p.grad = None', '                elif p.grad is None: p.grad = torch.zeros_like(p)'),
    'buckets: decay of what nobody uses': (PA, 'decay_leaves', 'p.new_full((1,), p.grad is not None)', 'p.new_ones(1)'),
    'buckets: a failed sum stays behind': (PA, 'nothing_behind', '    finally: self._reset()', '    except RuntimeError: raise\n    self._reset()'),
    'threads: one that ended has done it': (PA, 'ends_itself', '    except SystemExit as e: bad.append(', '    except SystemExit as e: print('),
    'buckets: told twice': (PA, 'buckets_refuse', 'if id(p) not in missing: raise', 'if False: raise'),
    'training: the mean of uneven shares': (PA, 'weights_are_those and ours', 'xb.new_tensor(len(mine)/len(xb))', 'xb.new_tensor(1/group.size)'),
    'training: who has nothing keeps out': (PA, 'weights_are_those and ours', '        buckets.finish()\n', '        if len(mine): buckets.finish()\n'),
    'shares: what is left over is lost': (DI, 'shares_are', 'min(r, n%k) for r', '0 for r'),
    'shares: who has none gets none': (DI, 'indices_is_cut', '(batch[a:b] if a<b else batch)', 'batch[a:b]'),
    'shares: old workers keep their order': (DI, 'workers', "{k: shared, '_iterator': None}", '{k: shared}'),
    'distributed: every rank shuffles for itself': (DI, 'by_forks', 'from_rank_0([*self.batches] if self.part[0]==0 else None)', '[*self.batches]'),
    'distributed: a mean over ranks': (DI, 'by_forks', 'l.loss = l.loss*(part*self.size)', 'pass'),
    'distributed: buckets are not weighed': (DI, 'by_forks', 'flat.mul_(n/total)', 'flat.div_(self.size)'),
    'distributed: the loss is that of the own share': (DI, 'by_forks', 'self.learn.loss,self.learn.items = self.loss,self.total', 'self.learn.items = self.total'),
    'distributed: a lent batch counts': (DI, 'by_forks', 'l.items = self.n #', 'l.items = len(l.xb) #'),
    'distributed: a sum for every batch of a group': (DI, 'by_forks', 'if not self.accum: self.undo +=', 'if True: self.undo +='),
    'distributed: all drop the same': (DI, 'by_forks', '    if self.rank==0: return\n', '    return\n'),
    'distributed: resumed with the random numbers of rank 0': (DI, 'by_forks', "set_rng(state['rng'][self.rank]", "set_rng(state['rng'][0]"),
    'distributed: statistics of their own': (DI, 'by_forks', 'for t in (*ps,*m.buffers()): _take(t.detach())', 'for t in ps: _take(t.detach())'),
    'distributed: predictions of the own share': (DI, 'by_forks', '    l.pred,l.yb,l.items = self._gather(l.pred),', '    return; l.pred,l.yb,l.items = self._gather(l.pred),'),
    'distributed: each decides by metrics of its own': (DI, 'by_forks', 'self.learn.metrics = from_rank_0(self.learn.metrics)', 'pass'),
    'shares: one item for batch norm': (DI, 'may_need', 'min(size, n//least)', 'min(size, n)'),
    'distributed: a loader that is gone': (DI, 'by_forks', "    if not self.undo: self.shared = {} # outside a fit nothing is kept\n    if id(dl) not in self.shared: # it holds `dl`: no other gets that id\n        self.shared[id(dl)] = dl,", "    if id(dl) not in self.shared:\n        self.shared[id(dl)] = None,"),
    'distributed: random numbers of every fit alike': (DI, 'by_forks', '_seed(g, self.rank, state[k])', "_seed(g, self.rank, state['torch'])"),
    'distributed: predictions of two models': (DI, 'by_forks', 'if not (self.undo or hasattr', 'if not (True or hasattr'),
    'distributed: statistics when a pass begins': (DI, 'by_forks', 'if not l.training: self._spread()', 'pass'),
    'distributed: data that differ': (DI, 'by_forks', 'data=_short(labels), ', ''),
    'distributed: callbacks that differ': (DI, 'by_forks', 'callbacks=[type(cb).__name__ for cb in l.cbs if cb.on_all],', ''),
    'distributed: shared twice': (DI, 'by_forks', '    _check_sampler(dl)\n', ''),
    'distributed: the loss before others add to it': (DI, 'by_forks', '    def after_loss(self): self.owner._sum_loss() #', '    Distributed.after_loss = lambda self: self._sum_loss() #'),
    'sums of a checkpoint are on the CPU': (('callbacks', 'test_elsewhere.py'), 'no_batch_left', 's.to(p.device)/self.items', 's/self.items'),
    'distributed: the victim is blamed': (DI, 'what_failed', "said.sort(key=", "said.sort(reverse=True, key="),
    'checkpoint: every rank writes it': (DC, 'by_forks', 'if l.rank==0: save_checkpoint', 'if True: save_checkpoint'),
    'checkpoint: random numbers last': (DC, 'by_forks', "    if _rng_is_right(s): set_rng(s['rng'], l.dls)\n    for cb,state in zip(self._stateful(), s['cbs']): cb.load_state_dict(state)", "    for cb,state in zip(self._stateful(), s['cbs']): cb.load_state_dict(state)\n    if _rng_is_right(s): set_rng(s['rng'], l.dls)"),
    'Learner: all ranks show': (('learner', 'test_distributed.py'), 'rank_0_alone', 'if cb.on_all or self.rank==0', 'if True'),
    'ring: as many rounds as processes': (SC, 'by_hand', 'return 2*(p-1)*message_time(nbytes/p,', 'return 2*p*message_time(nbytes/p,'),
    'ring: whole messages': (SC, 'group_counts', 'return 2*(p-1)*message_time(nbytes/p,', 'return 2*(p-1)*message_time(nbytes,'),
    'tree: rounds rounded down': (SC, 'rounds_of_a_tree', 'return (p-1).bit_length()', 'return p.bit_length()-1'),
    'crossing: the ring sends all': (SC, 'cross_where', '(r-(p-1)/p)', '(r-1)'),
    'a line: the largest decides': (SC, 'errors_that_count', 'rows = torch.stack([1/y, x/scale/y], 1)\n    a,b = torch.linalg.lstsq(rows, torch.ones_like(y)[:,None])',
                                      'rows = torch.stack([torch.ones_like(y), x/scale], 1)\n    a,b = torch.linalg.lstsq(rows, y[:,None])'),
    'timings: a warm-up counts': (SC, 'warm_up', '[f(x) for _ in range(5)][1:]', '[f(x) for _ in range(5)]'),
    'buckets: two at a time on the link': (SC, 'one_bucket_at_a_time', 'begin = max(at, free)', 'begin = at'),
    'step: the first bucket is complete at once': (SC, 'closed_form', 'backward*(i+1)/buckets if overlap', 'backward*i/buckets if overlap'),
    'sharding: gradients one stage too early': (SC, 'each_stage', 'part(grad, stage>1)', 'part(grad, stage>0)'),
    'noise: it is left in the signal': (SC, 'unbiased', 'return noise,(n_big*big-n_small*small)/(n_big-n_small)', 'return noise,big'),
    'noise of items: gradients add up': (SC, 'noise_of_items', '        for p in ps: p.grad = None\n', ''),
    'noise: a square overflows': (SC, 'square_of_a_gradient', 'g.detach().double().pow(2)', 'g.detach().pow(2)'),
    'best batch: that of one process': (SC, 'no_batch_is_faster', 'math.sqrt(noise_scale*fixed*p/seconds)', 'math.sqrt(noise_scale*fixed/seconds)'),
}

# A process that has imported what takes seconds, and forks for each run. Only Linux can fork a process with PyTorch in it safely.
SERVER = '''
import json, os, sys, hypothesis, numpy, pytest, torch, torch.utils.data, torch.testing, fastcore.test, nbformat
for line in sys.stdin:
    folder, env, args = json.loads(line)
    if not (pid := os.fork()):
        out = os.open(os.path.join(folder, 'said'), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for fd in (1, 2): os.dup2(out, fd)
        os.chdir(folder)
        os.environ.update(env)
        sys.path.insert(0, folder)
        code = pytest.main(args)
        for f in (sys.stdout, sys.stderr): f.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
'''

def run_tests(folder, server, file, k):
    "Exit code and output of the tests in `file` that `k` chooses, run in `folder`"
    env = {'PYTHONPATH': str(folder), 'HYPOTHESIS_PROFILE': 'planted', 'PYTHONDONTWRITEBYTECODE': '1',
           'EVIL': str(folder/'evil-ran')}  # what the hostile pickles of test_data.py write, where they get through
    (folder/'evil-ran').unlink(missing_ok=True)
    args = ['-x', '-q', '-n0', '--tb=line', '--assert=plain', '-p', 'no:cacheprovider', '-k', k, f'tests/{file}']
    if server is None:
        r = subprocess.run([sys.executable, '-m', 'pytest', *args], cwd=folder, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, encoding='utf-8', errors='replace', timeout=3600)
        return r.returncode, r.stdout
    server.stdin.write(json.dumps([str(folder), env, args]) + '\n')
    server.stdin.flush()
    return int(server.stdout.readline()), (folder/'said').read_text(encoding='utf-8', errors='replace')

@pytest.fixture(scope='module')
def server(copy):
    if sys.platform != 'linux': yield None
    else:
        with subprocess.Popen([sys.executable, '-c', SERVER], cwd=copy, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
            yield p
            p.stdin.close()

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the project: a bug that gets through may do harm there and not here"
    d = tmp_path_factory.mktemp('planted')
    for name in ('notes', 'tests', 'tools', 'nbs', 'bench'): shutil.copytree(ROOT/name, d/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'results'))
    for p in ROOT.glob('*.*'):
        if p.is_file(): shutil.copy(p, d)
    return d

FILES = {file: k for (_, file), k, *_ in BUGS.values()}

@pytest.mark.parametrize('file', FILES)
def test_without_a_bug_they_pass(copy, server, file):
    "Of each file those of one bug: all of them pass in the original, where they are run anyway"
    code, out = run_tests(copy, server, file, FILES[file])
    if code: pytest.fail(out, pytrace=False)

@pytest.mark.parametrize('bug', BUGS)
def test_bug_is_seen(copy, server, bug):
    (module, file), k, old, new = BUGS[bug]
    path = copy/'notes'/f'{module}.py'
    text = path.read_text(encoding='utf-8')
    if text.count(old) != 1: pytest.fail(f"notes/{module}.py has {old!r} {text.count(old)} times: this bug must be planted anew", pytrace=False)
    path.write_text(text.replace(old, new), encoding='utf-8')
    try: code, out = run_tests(copy, server, file, k)
    finally: path.write_text(text, encoding='utf-8')
    # 1: tests ran, and one failed. With a module that doesn't even import it would be 2, without a test 5.
    if code != 1 or not re.search(r'^1 failed', out, re.M): pytest.fail(f"not seen by tests/{file} -k {k} (exit code {code}): {old!r} → {new!r}\n\n{out[-2000:]}", pytrace=False)

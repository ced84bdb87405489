"""What bench/gpu.py asks of the package: each check does something on a device, and the same on the CPU in float64

A check is a function of `on`, an `On` that draws its numbers and says where they are to lie. It returns tensors, which are compared with what
it returns for the CPU; or it raises `AssertionError` where something is wrong that no comparison would show.
"""
import copy, tempfile, warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import torch, torch.nn.functional as F
from torch import nn
from notes import activations as ac, augmentation as au, callbacks as cb, checkpoints as ck, convolutions as cv, data as da, distributed as ds, exports as ex, fully_connected as fc, hooks, learner as le, matmul as ma, modules as mo
from notes import normalization as no, optimizers as op, overfitting as ov, parallel as pa, resnet as rn, scaling as sc, training as tr

F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
# Largest relative error; in float32 PyTorch may multiply in TF32 within a convolution of its own, which has ten bits, and a bfloat16 has seven
ERRORS = {F64: 1e-9, F32: 1e-4, BF16: 5e-2}
NETS = ERRORS | {F32: 1e-2}
CHECKS = {}

def check(group, name, dtypes=(F64, F32), errors=ERRORS):
    def add(f):
        CHECKS[f'{group}: {name}'] = f, dtypes, errors
        return f
    return add

class On:
    "Draws the numbers of a check: the same for every device, rounded to `dtype`, and then, if `exact`, handed out in float64"
    def __init__(self, device, dtype, seed, exact=False):
        self.device, self.rounded, self.dtype, self.exact = torch.device(device), dtype, F64 if exact else dtype, exact
        self.g = torch.Generator().manual_seed(seed)
        self.seed = seed
    def cpu(self, t): return t.to(self.rounded).to(self.dtype) if t.is_floating_point() else t
    def put(self, t): return self.cpu(t).to(self.device)
    def randn(self, *shape): return self.put(torch.randn(shape, generator=self.g, dtype=F64))
    def classes(self, n, c=10): return self.put(torch.randint(c, (n,), generator=self.g))
    def net(self, make):
        "A model that is made on the CPU and moved"
        ex.set_seed(self.seed)
        return make().to(self.rounded).to(self.device, self.dtype)

def error(got, want):
    "The largest relative error among pairs of tensors"
    assert len(got) == len(want), f'{len(got)} results, and {len(want)} on the CPU'
    worst = 0.
    for g, w in zip(got, want):
        assert g.isfinite().all().item() == w.isfinite().all().item(), 'numbers that are not finite on one of the two alone'
        worst = max(worst, ex.rel_error(g.detach().cpu(), w.detach().cpu()))
    return worst

def run(name, device, dtype, seed):
    "Error of a check, and the largest that is allowed"
    f, _, errors = CHECKS[name]
    want = f(On('cpu', dtype, seed, exact=True))
    return error(f(On(device, dtype, seed)), want), errors[dtype]

def same_device(on, *ts):
    for t in ts: assert t.device.type == on.device.type, f'a result is on {t.device}'
    return [*ts]

def back(on, model, x, g=None):
    "Output, gradients, parameters and buffers of a model of ours"
    out = model(x)
    g = on.randn(*out.shape) if g is None else g
    g_x = model.backward(g)
    return same_device(on, out, g_x, *(p.grad for p in model.parameters()), *model.state_dict().values())

# ---- Layers and losses, forward and backward

IMAGES, ROWS = (6, 4, 9, 8), (7, 5)
LAYERS = {'Linear': (lambda: mo.Linear(5, 3), ROWS), 'Linear without bias': (lambda: mo.Linear(5, 3, bias=False), ROWS), 'ReLU': (mo.ReLU, ROWS), 'Identity': (mo.Identity, ROWS),
    'Sequential and Sum': (lambda: mo.Sequential(mo.Linear(5, 4), mo.Sum(mo.Sequential(mo.ReLU(), mo.Linear(4, 4)), mo.Identity())), ROWS),
    'GeneralReLU': (lambda: ac.GeneralReLU(.1, .4, .9), ROWS), 'Conv2d': (lambda: cv.Conv2d(4, 5, 3), IMAGES),
    'Conv2d, stride, padding, dilation': (lambda: cv.Conv2d(4, 5, (3, 2), (2, 1), (1, 2), (1, 2)), IMAGES), 'MaxPool2d': (lambda: cv.MaxPool2d(2), IMAGES),
    'MaxPool2d, windows that overlap': (lambda: cv.MaxPool2d(3, 2, 1), IMAGES), 'AvgPool2d': (lambda: cv.AvgPool2d(3, 2, 1), IMAGES), 'Flatten': (cv.Flatten, IMAGES),
    'GlobalAvgPool': (rn.GlobalAvgPool, IMAGES)}
NORMS = {'BatchNorm1d': (lambda: no.BatchNorm1d(5), ROWS), 'BatchNorm2d': (lambda: no.BatchNorm2d(4), IMAGES), 'BatchNorm2d, all batches alike': (lambda: no.BatchNorm2d(4, momentum=None), IMAGES),
    'BatchNorm2d in evaluation': (lambda: no.BatchNorm2d(4).eval(), IMAGES), 'LayerNorm': (lambda: no.LayerNorm((9, 8)), IMAGES), 'RMSNorm': (lambda: no.RMSNorm(8, eps=1e-5), IMAGES),
    'GroupNorm': (lambda: no.GroupNorm(2, 4), IMAGES)}
for k, (make, shape) in (LAYERS | NORMS).items():
    check('layers', k, (F64, F32, BF16) if k in LAYERS else (F64, F32))(lambda on, make=make, shape=shape: back(on, on.net(make), on.randn(*shape)))

def cnn(m, width=4):
    return m.Sequential(m.Conv2d(1, width, 3, padding=1, bias=False), m.BatchNorm2d(width), m.ReLU(), m.MaxPool2d(2), m.Flatten(), m.Linear(width*36, 10))
OURS = SimpleNamespace(Sequential=mo.Sequential, Conv2d=cv.Conv2d, BatchNorm2d=no.BatchNorm2d, ReLU=mo.ReLU, MaxPool2d=cv.MaxPool2d, Flatten=cv.Flatten, Linear=mo.Linear)

@check('layers', "09's residual network", errors=NETS)
def _(on): return back(on, on.net(lambda: rn.resnet((4, 8, 8), strides=(2, 1))), on.randn(5, 1, 12, 12))

@check('layers', 'Dropout', (F64, F32, BF16))
def _(on):
    layer, x, g = ov.Dropout(.4), 1+on.randn(40, 50).abs(), on.randn(40, 50)
    out = layer(x)
    mask = (out != 0).to(x)/(1-.4)
    assert out.equal(x*mask) and layer.backward(g).equal(g*mask) and 500 < (out == 0).sum().item() < 1100
    out, mask = ov.dropout(x, .4, torch.Generator().manual_seed(3))  # one that both devices draw alike
    return same_device(on, out, mask, ov.dropout_backward(g, mask))

@check('layers', 'unfold, fold', (F64, F32, BF16))
def _(on):
    u = cv.unfold(on.randn(*IMAGES), (3, 2), 2, 1)
    return same_device(on, u, cv.fold(u, IMAGES[2:], (3, 2), 2, 1))

@check('layers', 'to and fro: parameters, gradients, buffers')
def _(on):
    m = on.net(lambda: cnn(OURS))
    back(on, m, on.randn(4, 1, 12, 12))
    ps, before = [*m.parameters()], copy.deepcopy(m)
    m.to('cpu')
    assert {t.device.type for t in (*ps, *(p.grad for p in ps), *m.buffers())} == {'cpu'}
    m.to(on.device)
    assert all(a is b for a, b in zip(m.parameters(), ps)) and m[1].num_batches_tracked.dtype == torch.int64
    for t, u in zip(m.state_dict().values(), before.state_dict().values()): assert t.equal(u)
    other = cnn(OURS).to(on.dtype)
    other.load_state_dict(m.state_dict())  # from the device into one on the CPU
    m.load_state_dict(other.state_dict())
    return same_device(on, *m.state_dict().values(), *(p.grad for p in ps))

@check('losses', 'cross_entropy, nll, softmax, logsumexp', (F64, F32, BF16))
def _(on):
    x, y, g, one = 3*on.randn(8, 10), on.classes(8), on.randn(8, 10), on.randn()
    p = tr.log_softmax(x)
    ts = [tr.cross_entropy(x, y), tr.nll(p, y), p, tr.softmax(x), tr.logsumexp(x), tr.cross_entropy_grad(one, x, y), tr.nll_grad(one, p, y), tr.log_softmax_grad(g, x),
          tr.softmax_grad(g, x), tr.logsumexp_grad(g[:, 0], x), tr.accuracy(x, y)]
    return same_device(on, *ts)

for k, loss in {'CrossEntropy': tr.CrossEntropy, 'SmoothCrossEntropy': au.SmoothCrossEntropy}.items():
    @check('losses', f'{k}, backward from 1', (F64, F32, BF16))
    def _(on, loss=loss):
        loss = loss()
        out = loss(on.randn(8, 10), on.classes(8))
        return same_device(on, out, loss.backward())

@check('losses', 'MSE, backward from 1', (F64, F32, BF16))
def _(on):
    loss = mo.MSE()
    out = loss(on.randn(8, 1), on.randn(8))
    return same_device(on, out, loss.backward())

@check('gradients', 'central differences', (F64,))
def _(on):
    x, w, b = on.randn(3, 4), on.randn(4, 2), on.randn(2)
    f = lambda x, w, b: fc.relu(fc.lin(x, w, b)).pow(2).sum()
    out = fc.lin(x, w, b)
    gs = fc.lin_grad(fc.relu_grad(2*fc.relu(out), out), x, w, b)
    fc.check_grads(f, dict(x=x, w=w, b=b), dict(zip('xwb', gs)))
    return same_device(on, *gs)

@check('gradients', "ours within PyTorch's autograd")
def _(on):
    x = on.randn(4, 5).requires_grad_()
    fc.ReLUFunction.apply(x).pow(2).sum().backward()
    return same_device(on, x.grad)

@check('gradients', 'hooks: each gradient told once')
def _(on):
    m, told = on.net(lambda: cnn(OURS)), []
    m.register_post_accumulate_grad_hook(lambda p: told.append(p.grad.clone()))
    back(on, m, on.randn(4, 1, 12, 12))
    assert len(told) == len([*m.parameters()])
    return same_device(on, *told)

@check('functions', 'matrix products')
def _(on):
    a, b = on.randn(4, 5), on.randn(5, 3)
    return same_device(on, *(f(a, b) for f in (ma.matmul_loops, ma.matmul_elementwise, ma.matmul_broadcast, ma.matmul_einsum, ma.matmul)), ma.einsum('ik,kj->ij', a, b), ma.frobenius_norm(a))

@check('functions', 'a kernel for the CPU refuses the tensor')
def _(on):
    a = on.randn(4, 4)
    if on.device.type == 'cpu': return []
    try: ma.matmul_numba(a, a)
    except ValueError as e: assert 'runs on the CPU' in str(e)
    else: raise AssertionError('matmul_numba took it')
    return []

@check('functions', 'test_near, test_near_zero, rel_error')
def _(on):
    x = on.randn(3, 4)
    ex.test_near(x, x.clone())
    ex.test_near_zero(0*x)
    ex.test_near(x.cpu(), x)  # what one has on a GPU is compared with what one has on the CPU
    ex.test_near(x.sum()*0+2, 2.)
    assert ex.rel_error(x, x) == 0
    return []

@check('functions', 'normalize, confusion_matrix, calibration, ece, mean_interval')
def _(on):
    x, y = on.randn(40, 10), on.classes(40)
    p = tr.softmax(on.cpu(x.cpu()).double().to(on.device) if on.dtype == F64 else x)
    return [*same_device(on, fc.normalize(x, x.mean(), x.std()), tr.confusion_matrix(x.argmax(1), y, 10).double() if on.dtype == F64 else tr.confusion_matrix(x.argmax(1), y, 10)),
            *(t.nan_to_num() for t in au.calibration(p, y)), torch.tensor(au.ece(p, y)), torch.tensor(ac.mean_interval([v.item() for v in x[0]]))]

@check('functions', 'kaiming_init, lsuv', errors=NETS)
def _(on):
    m = on.net(lambda: mo.Sequential(cv.Conv2d(1, 4, 3, stride=2), ac.GeneralReLU(.1, .4), cv.Flatten(), mo.Linear(100, 10)))
    x = on.randn(64, 1, 12, 12)
    found = ac.lsuv(m, x)
    res = [*copy.deepcopy(m).state_dict().values(), torch.tensor([*found.values()])]
    ac.kaiming_init(m)
    same_device(on, *m.parameters())
    return res

@check('functions', 'show_image draws what lies there')
def _(on):
    from matplotlib.figure import Figure
    da.show_image(on.randn(1, 8, 8), Figure().subplots())
    return []

# ---- Optimisers

def steps(on, make, n=6):
    "Parameters after `n` steps, in the midst of which the optimiser was saved, and another one goes on"
    ps = [on.randn(6, 4), on.randn(5, 7)]
    opt = make(ps)
    for i in range(n):
        if i == n//2:
            state = torch.load(saved(opt.state_dict()), map_location='cpu', weights_only=True)
            opt = make(ps)
            opt.load_state_dict(state)
        for p in ps: p.grad = on.randn(*p.shape)
        opt.step()
        opt.zero_grad()
    return same_device(on, *ps)

def saved(o):
    import io
    f = io.BytesIO()
    torch.save(o, f)
    f.seek(0)
    return f

for k, f in {'SGD': tr.SGD, 'Momentum, Nesterov': partial(op.Momentum, nesterov=True, weight_decay=.1), 'RMSProp, centred': partial(op.RMSProp, centered=True, momentum=.9),
             'Adam': partial(op.Adam, weight_decay=.1), 'AdamW': op.AdamW, 'Muon': op.Muon, 'Muon beside AdamW': lambda ps, lr: op.Together(op.Muon(ps[:1], lr), op.AdamW(ps[1:], lr))}.items():
    check('optimisers', k, (F64, F32) if 'Muon' in k or 'RMS' in k else (F64, F32, BF16))(lambda on, f=f: steps(on, partial(f, lr=.1)))

# ---- Augmentation

def changed(f, x, **kw): return f(x, generator=torch.Generator().manual_seed(3), **kw)
for k, f in {'shift': au.shift, 'flip': au.flip, 'affine': partial(au.affine, degrees=20, scale=.1, shear=.1, shift=2), 'erase': partial(au.erase, p=.8), 'erase to a value': partial(au.erase, p=.8, fill=0)}.items():
    @check('augmentation', f'{k}, drawn on the CPU')
    def _(on, f=f): return same_device(on, changed(f, on.randn(8, 2, 12, 12)))
    @check('augmentation', f'{k}, drawn on the device')
    def _(on, f=f):
        x = on.randn(8, 2, 12, 12)
        a, b = (f(x, generator=torch.Generator(on.device).manual_seed(3)) for _ in range(2))
        assert a.equal(b), 'one seed gave two results'
        same_device(on, a)
        return []

@check('augmentation', 'move, bilinear')
def _(on):
    x = on.randn(8, 2, 12, 12)
    i, j = (t.expand(8, 12, 12)+.25 for t in (torch.arange(12.)[:, None], torch.arange(12.)))
    return same_device(on, au.move(x, 2, -1), au.move(x, torch.arange(8), 1), au.bilinear(x, on.put(i), on.put(j)))

@check('augmentation', 'move, numbers that lie on the device')
def _(on):
    x = on.randn(8, 2, 12, 12)
    return same_device(on, au.move(x, torch.arange(8, device=on.device), 1))

@check('augmentation', 'predict, with views', errors=NETS)
def _(on): return same_device(on, au.predict(on.net(lambda: cnn(OURS)), on.randn(9, 1, 12, 12), [lambda x: au.move(x, 1)], 4))

# ---- Learner

def sets(on, n=80):
    "Images and classes on the CPU, where loaders have them"
    x, y = (torch.randn(n, 1, 12, 12, generator=on.g, dtype=F64), torch.randint(10, (n,), generator=on.g))
    return tr.Dataset(on.cpu(x), y)

def learner(on, of, cbs=(), opt=op.Momentum, lr=.02, device=True, batch=16, net=None):
    model = on.net(net or (lambda: cnn(of))).to('cpu')  # Device is to move it
    loss = tr.CrossEntropy() if of is OURS else F.cross_entropy
    first = [le.Device(on.device), le.Metrics(accuracy=tr.accuracy), le.Recorder()] if device else []
    return le.Learner(model, tr.get_dls(sets(on), sets(on, 30), batch, seed=on.seed), loss, opt, lr, [*first, *cbs])

def told(l): return [*l.model.state_dict().values(), torch.tensor(l.recorder.losses), torch.tensor([l.metrics['valid_loss'], l.metrics['accuracy']])]

for who, of in {'our layers': OURS, "PyTorch's layers": nn}.items():
    @check('Learner', f'an epoch, {who}', errors=NETS)
    def _(on, of=of):
        l = learner(on, of)
        l.fit(1)
        same_device(on, *l.model.parameters())
        return told(l)
    @check('Learner', f'Schedule, GradAccum, GradClip, AveragedWeights, EarlyStopping, {who}', errors=NETS)
    def _(on, of=of):
        mean = au.AveragedWeights(.9)
        l = learner(on, of, [op.Schedule(op.one_cycle), cb.GradAccum(2), cb.GradClip(.5), mean, cb.EarlyStopping()])
        l.fit(2)
        return [*told(l), *mean.model.state_dict().values()]
    @check('Learner', f'ActivationStats, UpdateStats, {who}', errors=NETS)
    def _(on, of=of):
        stats, up = ac.ActivationStats(bins=10), ac.UpdateStats()
        l = learner(on, of, [stats, up])
        l.fit(1)
        return [stats.mean, stats.std, up.ratio, up.grad, *told(l)]
    @check('Learner', f'Augment, {who}', errors=NETS)
    def _(on, of=of):
        l = learner(on, of, [au.Augment(partial(au.shift, generator=torch.Generator().manual_seed(3)))])
        l.fit(1)
        return told(l)
    @check('Learner', f'get_preds, {who}', errors=NETS)
    def _(on, of=of):
        l = learner(on, of)
        return same_device(on, *l.get_preds())
    @check('Learner', f'lr_find changes nothing, {who}', errors=NETS)
    def _(on, of=of):
        l = learner(on, of)
        l.fit(1)
        before, rng = copy.deepcopy(l.model.state_dict()), draw(on)
        finder = l.lr_find(n=20)
        for a, b in zip(before.values(), l.model.state_dict().values()): assert a.equal(b)
        assert rng().equal(rng()) and finder.suggestion > 0
        l.fit(1)
        return [torch.tensor(finder.losses[:8]), *told(l)]

def draw(on):
    "A function that draws on the device, always from here on"
    state = cb.get_rng()
    def f():
        cb.set_rng(state)
        return torch.randn(5, device=on.device)
    return f

@check('Learner', 'Device joins for one fit', errors=NETS)
def _(on):
    l = learner(on, OURS, device=False)
    l.fit(1, cbs=[le.Device(on.device), le.Metrics(accuracy=tr.accuracy), le.Recorder()])
    return [*l.model.state_dict().values()]

@check('Learner', 'Muon and AdamW', errors=NETS)
def _(on):
    def opt(ps, lr):
        ms = [p for p in ps if p.ndim == 2]
        return op.Together(op.Muon(ms, lr=lr), op.Momentum([p for p in ps if p.ndim != 2], lr=lr))
    l = learner(on, OURS, opt=opt)
    l.fit(1)
    return told(l)

# ---- Several processes

class Done:
    def __init__(self, flat): self.flat = flat
    def wait(self): self.flat.mul_(2)

for who, of in {'our layers': OURS, "PyTorch's layers": nn}.items():
    @check('parallel', f'Buckets, {who}', errors=NETS)
    def _(on, of=of):
        m, sent = on.net(lambda: cnn(of)), []
        def start(flat):
            sent.append(flat)
            return Done(flat)
        buckets = pa.Buckets(m.parameters(), start, size=1000)
        buckets.watch(m)
        loss = tr.CrossEntropy() if of is OURS else F.cross_entropy
        tr.backprop(loss(m(on.randn(16, 1, 12, 12)), on.classes(16)), m, loss)
        buckets.finish()
        assert len(sent) == len(buckets.buckets) > 1
        return same_device(on, *(p.grad for p in m.parameters()))
    @check('parallel', f'noise of single gradients, {who}', errors=NETS)
    def _(on, of=of):
        m = on.net(lambda: of.Sequential(of.Flatten(), of.Linear(144, 10)))
        return [torch.tensor(sc.example_noise(m, tr.CrossEntropy() if of is OURS else F.cross_entropy, on.randn(8, 1, 12, 12), on.classes(8)))]
    @check('parallel', f'Distributed in a process alone, {who}', errors=NETS)
    def _(on, of=of):
        l = learner(on, of, [ds.Distributed()])
        l.fit(1)
        return told(l)

SCRIPT = """
import sys, torch, torch.distributed as dist
from bench import _checks as c
path, device, dtype, seed = sys.argv[1:]
on = c.On(device, getattr(torch, dtype), int(seed))
got = c.shared(on)
if 'cuda' in device:
    assert dist.get_backend(torch.distributed.group.WORLD) is not None
    x = torch.ones(3, device=device)
    dist.all_reduce(x, async_op=True).wait()
    dist.broadcast(x, 0)
    n = dist.get_world_size()
    parts = [torch.empty_like(x) for _ in range(n)]
    dist.all_gather(parts, x)
    assert parts[0].tolist() == [n]*3 and c.ds.from_rank_0('a') == 'a' and c.ds.from_all('b') == ['b']*n
if dist.get_rank() == 0: torch.save([t.cpu() for t in got], path)
dist.destroy_process_group()
"""

def shared(on):
    "What a fit gives that all processes here share, for our layers and for PyTorch's, and some callbacks"
    res = []
    for of in (OURS, nn):
        l = learner(on, of, [ds.Distributed(timeout=60), cb.GradClip(1.)], net=lambda: of.Sequential(of.Conv2d(1, 4, 3, padding=1), of.ReLU(), of.MaxPool2d(2), of.Flatten(), of.Linear(144, 10)))
        l.fit(2)
        same_device(on, *l.model.parameters())
        res += told(l)
    return res

def launched(on, n):
    with folder() as f:
        (f/'fit.py').write_text(SCRIPT, encoding='utf-8')
        ds.launch(f/'fit.py', n, f/'got.pt', on.device.type, str(on.dtype).removeprefix('torch.'), on.seed, timeout=60)
        return torch.load(f/'got.pt', weights_only=True)

@check('parallel', 'Distributed, two processes, each with a GPU of its own, if there are two', (F64,))
def _(on): return launched(on, 2) if on.device.type == 'cuda' and torch.cuda.device_count() > 1 else shared(on)

@check('parallel', "Distributed, one process that torchrun starts, the device's own backend", (F64,))
def _(on): return launched(on, 1) if on.device.type == 'cuda' else shared(on)

@check('parallel', 'what goes through pipes refuses the tensor')
def _(on):
    def add(group): return pa.all_reduce_ring(x, group)
    x = on.randn(4)
    if on.device.type == 'cpu': return []
    try: pa.run_threads(add, 2)
    except ValueError as e: assert 'call x.cpu()' in str(e)
    else: raise AssertionError('it was sent')
    return []

# ---- Checkpoints, and random numbers

class Stop(le.Callback):
    "Cuts a fit off"
    def __init__(self, after): self.after, self.state_dict = after, None
    def after_step(self):
        self.after -= 1
        if not self.after: raise KeyboardInterrupt

@contextmanager
def folder():
    with tempfile.TemporaryDirectory() as d: yield Path(d)

def cut(make, path, every=2, after=8):
    "A fit of two epochs that is cut off in the second and gone on with"
    try: make([ck.Checkpoint(path, every=every), Stop(after)]).fit(2)
    except KeyboardInterrupt: pass
    else: raise AssertionError('it was not cut off')
    l = make([ck.Checkpoint(path, every=every)])
    l.fit(2)
    return l

for who, of in {'our layers': OURS, "PyTorch's layers": nn}.items():
    @check('checkpoints', f'cut off and resumed, {who}', errors=NETS)
    def _(on, of=of):
        make = lambda cbs: learner(On(on.device, on.rounded, on.seed, on.exact), of, [*cbs, cb.GradAccum(2), cb.EarlyStopping(), au.AveragedWeights(.9)])
        with folder() as f: l = cut(make, f/'a.pt', after=4)
        return told(l)
    @check('checkpoints', f'saved on the device, gone on with on the CPU, {who}', errors=NETS)
    def _(on, of=of):
        def make(cbs, device=on.device): return learner(On(device, on.rounded, on.seed, on.exact), of, cbs)
        with folder() as f:
            make([ck.Checkpoint(f/'a.pt')]).fit(1)
            state = ck.load_checkpoint(f/'a.pt')
            assert all(t.device.type == 'cpu' for t in state['model'].values())
            l = make([ck.Checkpoint(f/'a.pt')], 'cpu')
            l.fit(2)
        return told(l)

@check('checkpoints', 'dropout on the device, cut off and resumed', (F32,), NETS)
def _(on):
    def make(cbs):
        ex.set_seed(5)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(.5), nn.Linear(144, 10))
        return le.Learner(model, tr.get_dls(sets(On('cpu', F32, 1)), sets(On('cpu', F32, 2), 30), 16, seed=1), F.cross_entropy, op.Momentum, .02, [le.Device(on.device), *cbs])
    whole = make([])
    whole.fit(2)
    with folder() as f: again = cut(make, f/'a.pt')
    assert error([*again.model.parameters()], [*whole.model.parameters()]) < 1e-6, 'it did not go on as it would have'
    return []

@check('random numbers', 'get_rng, set_rng', (F32,))
def _(on):
    with folder() as f:
        g = torch.Generator(on.device).manual_seed(7)
        dl = SimpleNamespace(generator=g, dataset=None)
        def drawn(): return [torch.randn(5), torch.randn(5, device=on.device), torch.randn(5, device=on.device, generator=g)]
        ck.save_checkpoint(f/'a', cb.get_rng([dl]))
        first = drawn()
        cb.set_rng(ck.load_checkpoint(f/'a'), [dl])
        for a, b in zip(first, drawn()): assert a.equal(b)
    return []

@check('random numbers', 'set_seed; kaiming_normal_, kaiming_uniform_', (F32,))
def _(on):
    def drawn():
        ex.set_seed(4)
        return fc.kaiming_normal_(torch.empty(8, 8, device=on.device)), fc.kaiming_uniform_(torch.empty(8, 8, device=on.device)), mo.Linear(4, 4, device=on.device).weight
    for a, b in zip(drawn(), drawn()): assert a.equal(b)
    return []

# ---- Coarser numbers

@check('mixed', 'our layers in bfloat16, a step of SGD', (BF16,), {BF16: .1})
def _(on):
    m, loss = on.net(lambda: mo.Sequential(mo.Linear(12, 16), mo.ReLU(), mo.Linear(16, 10))), tr.CrossEntropy()
    tr.backprop(loss(m(on.randn(32, 12)), on.classes(32)), m, loss)
    tr.SGD(m.parameters(), lr=.1).step()
    return same_device(on, *m.parameters(), *(p.grad for p in m.parameters()))

@check('mixed', "PyTorch's layers in autocast, an epoch", (F32,), {F32: .1})
def _(on):
    class Mixed(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
        def forward(self, x):
            if on.exact: return self.model(x)
            with torch.autocast(on.device.type, BF16): return self.model(x).float()
    l = learner(on, nn)
    l.model = Mixed(l.model)
    l.fit(1)
    return [torch.tensor(l.recorder.losses)]

@check('mixed', 'our layers in autocast say what they need', (F32,))
def _(on):
    if on.exact: return []
    m, x = on.net(lambda: mo.Sequential(mo.Linear(12, 16), mo.ReLU(), mo.Linear(16, 10))), on.randn(8, 12)
    try:
        with torch.autocast(on.device.type, BF16): m(x)
    except ValueError as e: assert 'dtypes differ' in str(e)
    return []

# ---- What waits for the device

def waits(device):
    "Times that the processor waits for the GPU in each training batch, for some ways to train: {name: numbers}"
    res = {}
    class Count(le.Callback):
        order = 1000
        def before_epoch(self): self.seen.clear()
        def after_batch(self):
            if self.learn.training: self.n.append(sum('synchroniz' in str(w.message) for w in self.seen))
            self.seen.clear()
    for who, of in {'our layers': OURS, "PyTorch's layers": nn}.items():
        for where in ('from the CPU', 'data on the GPU'):
            for what, cbs in {'': (), ', with ActivationStats, GradClip, AveragedWeights': (ac.ActivationStats(), cb.GradClip(1.), au.AveragedWeights(.9)),
                              ', Augment(shift, flip)': (au.Augment(au.shift, au.flip),)}.items():
                on, count = On(device, F32, 0), Count()
                count.n = []
                l = learner(on, of, [*cbs, count])
                if where != 'from the CPU': l.dls = tuple(tr.get_dls(*(tr.Dataset(s.x.to(device), s.y.to(device)) for s in (sets(on), sets(on, 30))), 16, seed=0))
                always = torch.is_warn_always_enabled()
                torch.set_warn_always(True)
                torch.cuda.set_sync_debug_mode('warn')
                try:
                    with warnings.catch_warnings(record=True) as seen:
                        warnings.simplefilter('always')
                        count.seen = seen
                        l.fit(2)
                finally:
                    torch.cuda.set_sync_debug_mode('default')
                    torch.set_warn_always(always)
                res[f'{who}, {where}{what}'] = count.n[1:]
    return res

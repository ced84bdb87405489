"The training loop, its callbacks, and runs that are killed"
import base64, copy, functools, importlib, itertools, math, os, pickle, random, re, signal, subprocess, sys, textwrap, types, zipfile
import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn
from project import ROOT
from notes import fully_connected as fc, learner as le, training as tr
from notes.exports import rel_error

F64 = torch.float64

def data(n=37, n_in=6, c=3, dtype=F64):
    g = torch.Generator().manual_seed(1)
    return tr.Dataset(torch.randn(n, n_in, generator=g, dtype=dtype), torch.randint(c, (n,), generator=g))

def loaders(n=37, bs=8, seed=3, **kw): return tr.get_dls(data(n, **kw), data(11, **kw), bs, seed=seed)

def mlp(seed=0, nh=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, nh), nn.ReLU(), nn.Linear(nh, 3)).double()

def ours(seed=0, nh=5):
    torch.manual_seed(seed)
    return fc.Sequential(fc.Linear(6, nh), fc.ReLU(), fc.Linear(nh, 3)).to(F64)

def learner(cbs=(), model=None, dls=None, **kw): return le.Learner(model or mlp(), dls or loaders(), F.cross_entropy, cbs=cbs, **kw)
def weights(model): return torch.cat([p.detach().flatten() for p in model.parameters()])
def std_cbs(): return [le.Metrics(accuracy=tr.accuracy), le.Recorder()]

class Log(le.Callback):
    "Notes every event; raises what `at` says at the given event of the given batch"
    def __init__(self, name='', order=0, log=None, **at): self.name, self.order, self.log, self.at = name, order, [] if log is None else log, at
    def see(self, event):
        self.log.append(self.name+event)
        l = self.learn
        for e, (when, what) in self.at.items():
            if e == event and when(l): raise what
for e in le.EVENTS: setattr(Log, e, lambda self, e=e: self.see(e))

train_batch = lambda i: lambda l: l.training and l.epoch == 0 and l.iter == i
always = lambda l: True
first = lambda l: l.epoch == 0

# The loop -----------------------------------------------------------------------------------------------------------------

def bare(model, dls, epochs, lr=.1, opt=torch.optim.SGD):
    opt, losses = opt(model.parameters(), lr=lr), []
    for _ in range(epochs):
        model.train()
        for xb, yb in dls[0]:
            loss = F.cross_entropy(model(xb), yb)
            opt.zero_grad(); loss.backward(); opt.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad(): valid = [(F.cross_entropy(model(x), y).item(), len(y)) for x, y in dls[1]]
    return losses, sum(l*n for l, n in valid)/sum(n for _, n in valid)

@pytest.mark.parametrize('opt', [tr.SGD, torch.optim.SGD, torch.optim.Adam])
def test_same_as_a_bare_loop(opt):
    "Dropout draws from the global generator: nothing else in the loop may"
    models = [nn.Sequential(mlp(), nn.Dropout(.3)) for _ in range(2)]
    torch.manual_seed(7)
    losses, valid = bare(models[0], loaders(), 3, opt=opt)
    l = learner(std_cbs(), models[1], opt_func=opt)
    torch.manual_seed(7)
    l.fit(3)
    assert torch.equal(weights(models[0]), weights(models[1])) and l.recorder.losses == losses
    assert abs(l.metrics['valid_loss'] - valid) < 1e-12 and not models[1].training

def test_ours_and_torch_models_train_alike():
    a, b = mlp(), ours()
    assert torch.equal(weights(a), weights(b))
    learner(model=a).fit(3)
    le.Learner(b, loaders(), tr.CrossEntropy()).fit(3)
    assert rel_error(weights(a), weights(b)) < 1e-12

def test_events_in_order():
    log = Log()
    dls = loaders(9, 8)
    learner([log], dls=dls).fit(1)
    step = ['before_batch', 'after_predict', 'after_loss', 'after_backward', 'after_step', 'after_batch']
    valid = ['before_batch', 'after_predict', 'after_loss', 'after_batch']*len(dls[1])
    assert log.log == ['before_fit', 'before_epoch', *step*2, *valid, 'after_epoch', 'after_fit', 'cleanup_fit']
    assert set(log.log) == set(le.EVENTS)

def test_order_is_stable():
    log = []
    learner([Log('a', 1, log), Log('b', 0, log), Log('c', 1, log), Log('d', -1, log)]).fit(1, cbs=[Log('e', 0, log)])
    assert [x[0] for x in log[:5]] == list('dbeac') and [x[0] for x in log[-5:]] == list('caebd')
    assert {x[1:] for x in log[-5:]} == {'cleanup_fit'}

def test_fit_callbacks_go_again():
    l, log = learner([Log()]), Log()
    l.fit(1, cbs=[log])
    n = len(log.log)
    l.fit(1)
    assert len(log.log) == n and len(l.cbs) == 1 and l.cbs[0].log

def test_no_validation_and_no_epochs():
    l = learner(std_cbs(), dls=(loaders()[0], None))
    l.fit(1)
    assert set(l.metrics) == {'train_loss'}
    before = weights(l.model)
    l.fit(0)
    assert torch.equal(before, weights(l.model))

def test_gradients_do_not_carry_over():
    l = learner()
    l.fit(1)
    a = weights(l.model)
    for p in l.model.parameters(): p.grad = torch.full_like(p, 1e6)
    m = learner()
    m.fit(1)
    m.fit(1); l.fit(1)
    assert torch.equal(weights(m.model), weights(l.model)) and not torch.equal(a, weights(l.model))

def test_grad_is_off_in_validation_only():
    seen = set()
    class See(le.Callback):
        def after_predict(self): seen.add((self.learn.training, self.learn.model.training, self.learn.pred.requires_grad, torch.is_grad_enabled()))
    learner([See()]).fit(1)
    assert seen == {(True,)*4, (False,)*4} and torch.is_grad_enabled()

@pytest.mark.parametrize('step,value', [('predict', 'pred'), ('get_loss', 'loss')])
def test_steps_can_be_replaced(step, value):
    calls = []
    def f(self):
        calls.append(step)
        getattr(super(L, self), step)()
        setattr(self, value, getattr(self, value)*2)
    L = type('L', (le.Learner,), {step: f})
    l = L(mlp(), loaders(), F.cross_entropy)
    l.fit(1)
    m = learner()
    m.fit(1)
    assert len(calls) == 5+2 and not torch.equal(weights(l.model), weights(m.model))

def test_optimiser_steps_can_be_replaced():
    class L(le.Learner):
        def step(self): pass
    l = L(mlp(), loaders(), F.cross_entropy)
    l.fit(1)
    assert torch.equal(weights(l.model), weights(mlp()))
    class L(le.Learner):
        def zero_grad(self): pass
    l = L(mlp(), loaders(), F.cross_entropy)
    l.fit(1)
    m = learner()
    m.fit(1)
    assert not torch.equal(weights(l.model), weights(m.model))
    class L(le.Learner):
        def backward(self): (2*self.loss).backward()
    l = L(mlp(), loaders(), F.cross_entropy, lr=.05)
    l.fit(1)
    assert rel_error(weights(l.model), weights(m.model)) < 1e-12

def test_learning_rate():
    l = learner(std_cbs(), lr=.1)
    l.fit(1)
    l.fit(1, lr=.02)
    l.fit(1)
    assert l.recorder.lrs == [.1]*5 + [.02]*10
    class Halve(le.Callback):
        def after_batch(self):
            if self.learn.training: self.learn.set_lr(self.learn.opt.param_groups[0]['lr']/2)
    l.fit(1, lr=1., cbs=[Halve()])
    assert l.recorder.lrs[-5:] == [1, .5, .25, .125, .0625]

@pytest.mark.parametrize('kw,error,says', [
    (dict(dls=loaders()[:1]), ValueError, 'the second None for no validation'), (dict(cbs=[le.Recorder]), TypeError, 'instances'), (dict(cbs=[3]), TypeError, 'instances')], ids=['dls', 'class', 'number'])
def test_bad_learners(kw, error, says):
    with pytest.raises(error, match=says): learner(**kw)

def test_bad_fits():
    l = learner()
    with pytest.raises(ValueError, match='n_epochs=-1'): l.fit(-1)
    with pytest.raises(TypeError, match='instances'): l.fit(1, cbs=[le.Recorder])
    assert l.cbs == []
    with pytest.raises(TypeError, match='before_bacth would never'):
        type('Typo', (le.Callback,), dict(before_bacth=lambda self: None))

# Cancelling, and exceptions -----------------------------------------------------------------------------------------------

def run(event, when, what, **kw):
    "Names of the events that a second callback sees when the first one raises `what`; the learner"
    log = Log(order=1)
    l = learner([Log(**{event: (when, what)}), log, *std_cbs()], **kw)
    l.fit(2)
    return log.log, l

@pytest.mark.parametrize('event,rest', [('before_batch', 5), ('after_predict', 4), ('after_loss', 3), ('after_backward', 2), ('after_step', 1), ('after_batch', 0)])
def test_cancel_batch(event, rest):
    whole, _ = run('before_fit', lambda l: False, None)
    log, l = run(event, train_batch(2), le.CancelBatch())
    assert len(whole)-len(log) == rest+1 and log.count('before_batch') + (event == 'before_batch') == whole.count('before_batch')
    assert len(l.recorder.losses) == 9 + (event == 'after_batch') and l.recorder.epochs[-1]['epoch'] == 2

def test_cancel_step():
    log, l = run('after_backward', train_batch(2), le.CancelStep())
    whole, m = run('before_fit', lambda l: False, None)
    assert log.count('after_step') == 9 and log.count('after_batch') == whole.count('after_batch') and len(l.recorder.losses) == 10
    l = learner([Log(after_backward=(always, le.CancelStep()))])
    l.fit(1)
    assert torch.equal(weights(l.model), weights(mlp()))

@pytest.mark.parametrize('event', ['before_epoch', 'before_batch', 'after_loss', 'after_batch', 'after_epoch'])
def test_cancel_epoch(event):
    log, l = run(event, first if 'epoch' in event else train_batch(2), le.CancelEpoch())
    assert len(l.recorder.epochs) == 1 + (event == 'after_epoch') and log.count('after_epoch') == 1 and log[-2:] == ['after_fit', 'cleanup_fit']
    assert log.count('before_epoch') == 2 - (event == 'before_epoch')
    if event == 'after_loss': assert log[:log.index('before_epoch', 3)].count('before_batch') == 3

def test_cancel_epoch_in_validation():
    log, l = run('before_batch', lambda l: not l.training and l.epoch == 0, le.CancelEpoch())
    assert len(l.recorder.epochs) == 1 and len(l.recorder.losses) == 10

@pytest.mark.parametrize('event', [e for e in le.EVENTS if e != 'cleanup_fit'])
def test_cancel_fit(event):
    log, l = run(event, always, le.CancelFit())
    assert log[-1:] == ([] if event == 'before_fit' else ['cleanup_fit']) and 'after_fit' not in log and len(l.recorder.epochs) <= (event in ('after_epoch', 'after_fit'))*2
    assert not l.model.training

@pytest.mark.parametrize('event', le.EVENTS)
def test_exception_reaches_the_caller_and_leaves_the_learner_usable(event):
    "Whatever the event: clean-up runs for every callback whose before_fit did, and the same learner can fit again"
    log = []
    bad = Log('b', 0, log, **{event: (always, ZeroDivisionError('here'))})
    l = learner([Log('a', -1, log)])
    with pytest.raises(ZeroDivisionError, match='here'): l.fit(2, cbs=[bad, Log('c', 1, log)])
    cleaned = [x for x in log if x.endswith('cleanup_fit')]
    assert cleaned == ['bcleanup_fit', 'acleanup_fit'] if event == 'before_fit' else cleaned == ['ccleanup_fit', 'bcleanup_fit', 'acleanup_fit']
    assert len(l.cbs) == 1 and torch.is_grad_enabled() and not l.model.training
    l.model = mlp()
    l.opt = tr.SGD(l.model.parameters(), .1)
    l.dls = loaders()
    l.fit(2)
    m = learner()
    m.fit(2)
    assert torch.equal(weights(l.model), weights(m.model))

@pytest.mark.parametrize('what', [KeyboardInterrupt, SystemExit, StopIteration, le.CancelFit])
def test_clean_up_runs_for_every_way_out(what):
    log = Log()
    l = learner([log, Log(order=1, after_loss=(train_batch(1), what()))])
    if what is le.CancelFit: l.fit(1)
    else:
        with pytest.raises(what): l.fit(1)
    assert log.log[-1] == 'cleanup_fit'

def test_two_exceptions():
    l = learner([Log(cleanup_fit=(always, KeyError('second'))), Log(after_loss=(always, ValueError('first')))])
    with pytest.raises(KeyError) as e: l.fit(1)
    assert repr(e.value.__context__) == "ValueError('first')"

@pytest.mark.parametrize('event,what', [('before_epoch', le.CancelBatch), ('before_fit', le.CancelEpoch), ('after_fit', le.CancelEpoch), ('before_batch', le.CancelStep)])
def test_cancelling_what_does_not_run_is_an_error(event, what):
    with pytest.raises(what): run(event, always, what())

# Metrics and recorder -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('n,bs', [(37, 8), (1, 8), (8, 8), (9, 8)])
def test_metrics_weigh_a_short_last_batch(n, bs):
    dls = loaders(n, bs)
    l = learner(std_cbs(), dls=(dls[0], dls[0]))
    l.fit(1, lr=1e-12)
    x, y = data(n)[:]
    with torch.no_grad(): p = l.model(x)
    assert abs(l.metrics['valid_loss'] - F.cross_entropy(p, y).item()) < 1e-12 and abs(l.metrics['train_loss'] - l.metrics['valid_loss']) < 1e-9
    assert abs(l.metrics['accuracy'] - tr.accuracy(p, y).double().item()) < 1e-7
    assert list(l.metrics) == ['train_loss', 'valid_loss', 'accuracy']

def test_recorder_without_metrics():
    l = learner([le.Recorder()])
    l.fit(2)
    assert [set(e) for e in l.recorder.epochs] == [{'epoch', 'step', 'train_loss'}]*2 and set(l.metrics) == {'train_loss'}

def test_metrics_may_be_numbers():
    l = learner([le.Metrics(size=lambda p, y: float(len(y)))])
    l.fit(1)
    assert abs(l.metrics['size'] - (8*8+3*3)/11) < 1e-12

def test_recorder_over_several_fits():
    l = learner(std_cbs())
    l.fit(2)
    l.fit(1)
    assert [e['epoch'] for e in l.recorder.epochs] == [1, 2, 3] and [e['step'] for e in l.recorder.epochs] == [5, 10, 15]
    assert len(l.recorder.losses) == len(l.recorder.lrs) == 15 and all(type(x) is float for x in l.recorder.losses)
    l.recorder.plot()

def test_nothing_waits_for_the_device_within_an_epoch(monkeypatch):
    "No .item(), .tolist() or float() of a tensor between the batches: on a GPU each would stop the queue"
    inside, calls = [], []
    for name in ('item', 'tolist', '__float__', '__bool__', 'cpu', 'numpy'):
        old = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, old=old, name=name, **k: (calls.append(name) if inside else None, old(self, *a, **k))[1])
    class Mark(le.Callback):
        order = -1000
        def before_batch(self): inside.append(1)
    class Unmark(le.Callback):
        order = 1000
        def after_batch(self): inside.clear()
    learner([Mark(), le.Device('cpu'), le.Metrics(hits=lambda p, y: (p.argmax(1) == y).double().mean()), le.Recorder(), le.GradClip(1.), Unmark()], opt_func=torch.optim.SGD).fit(1)
    assert not calls and not inside

# Progress -------------------------------------------------------------------------------------------------------------------

def start(body, **kw):
    "A process of its own that runs python code; this file is `t` there"
    head = f"import sys; sys.path.insert(0, {str(ROOT/'tests')!r})\nimport os, signal, torch, test_learner as t\nfrom notes import learner as le, training as tr\n"
    return subprocess.Popen([sys.executable, '-c', head + textwrap.dedent(body)], cwd=ROOT, env={**os.environ, 'PYTHONPATH': os.environ.get('PYTHONPATH') or str(ROOT), 'PYTHONUNBUFFERED': ''}, **kw)

def test_progress_in_a_pipe(capsys):
    "Rows under one heading: no carriage return, no colour, nothing on stderr"
    learner([*std_cbs(), le.Progress()]).fit(3)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert '\r' not in out and '\x1b' not in out and not err
    assert lines[0].split() == ['epoch', 'train_loss', 'valid_loss', 'accuracy'] and [l.split()[0] for l in lines[1:]] == ['1', '2', '3']
    assert all(re.fullmatch(r' +\d(  +\d\.\d{4}){3}', l) for l in lines[1:]) and len({len(l) for l in lines}) == 1

def test_progress_in_a_pipe_is_seen_at_once(tmp_path):
    "A reader gets an epoch's line when the epoch ends, not when a buffer is full; a file is as good as a pipe, and can be read without waiting"
    out = tmp_path/'out'
    def said(): return [l.split()[0] for l in out.read_text().splitlines()]
    with out.open('w') as f: p = start('''
        class Wait(le.Callback):
            def before_epoch(self):
                if self.learn.epoch:
                    print('waiting', file=sys.stderr, flush=True)
                    sys.stdin.readline()
        t.learner([*t.std_cbs(), le.Progress(), Wait()]).fit(2)''', stdin=subprocess.PIPE, stdout=f, stderr=subprocess.PIPE, text=True)
    assert 'waiting\n' in iter(p.stderr.readline, '')
    early = said()
    p.communicate('go on\n')
    assert [early, said(), p.returncode] == [['epoch', '1'], ['epoch', '1', '2'], 0]

@pytest.mark.skipif(os.name == 'nt', reason="pseudo-terminals are POSIX's")
def test_progress_in_a_terminal():
    import fcntl, struct, termios
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    p = start('t.learner([*t.std_cbs(), le.Progress()]).fit(2)', stdout=its, stderr=its, stdin=its)
    os.close(its)
    out = b''
    while True:
        try: part = os.read(ours, 4096)
        except OSError: break
        if not part: break
        out += part
    assert p.wait() == 0, out.decode()
    text = out.decode()
    seen = [l.rpartition('\r')[2] for l in text.replace('\r\n', '\n').split('\n')]
    assert 'batch' in text and '\r' in text and sum(bool(re.match(r' +[12]  ', l)) for l in seen) == 2

class Display:
    "Stands in for IPython in a notebook: keeps what each display shows at last, and counts"
    def __init__(self): self.shown, self.updates = [], 0
    def display(self, o, raw, display_id):
        i, self.shown = len(self.shown), [*self.shown, o]
        def update(o, raw): self.shown[i], self.updates = o, self.updates+1
        return types.SimpleNamespace(update=update)

@pytest.fixture
def notebook(monkeypatch):
    importlib.import_module("matplotlib.pyplot").close(importlib.import_module("matplotlib.pyplot").figure())  # while there is no kernel, which it would ask for things
    d = Display()
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=1), display=d))
    monkeypatch.setitem(sys.modules, 'IPython.display', d)
    return d

def test_progress_in_a_notebook(notebook, capsys, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(le, 'time', types.SimpleNamespace(perf_counter=lambda: next(ticks)))  # a drawing takes a second
    l = learner([*std_cbs(), le.Progress()])
    l.fit(2)
    picture, table = notebook.shown
    assert base64.b64decode(picture['image/png'])[:8] == b'\x89PNG\r\n\x1a\n' and len(table['text/plain'].splitlines()) == 3 and not ''.join(capsys.readouterr())
    before = notebook.updates
    l.fit(2)
    assert len(notebook.shown) == 4 and len(notebook.shown[3]['text/plain'].splitlines()) == 3, "a second fit shows its own epochs"
    assert notebook.updates - before == 2, "drawing may take a fiftieth of the time"

def test_progress_after_an_exception(notebook):
    l = learner([*std_cbs(), le.Progress(), Log(after_loss=(lambda l: l.epoch == 1, ZeroDivisionError()))])
    with pytest.raises(ZeroDivisionError): l.fit(2)
    assert len(notebook.shown[1]['text/plain'].splitlines()) == 2

def test_progress_wants_a_recorder():
    with pytest.raises(ValueError, match='Recorder'): learner([le.Progress()]).fit(1)

def test_terminal_ipython_is_no_notebook(monkeypatch):
    assert not le._in_notebook()
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace()))
    assert not le._in_notebook()
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: None))
    assert not le._in_notebook()

# Device ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('cuda,mps,want', [(1, 1, 'cuda'), (0, 1, 'mps'), (0, 0, 'cpu')])
def test_default_device(monkeypatch, cuda, mps, want):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: bool(mps))
    assert le.default_device() == torch.device(want) and le.Device().device == torch.device(want)

def test_device_moves_model_and_batches():
    "The device 'meta' computes shapes only: an operation that mixes it with the CPU raises"
    seen = []
    class See(le.Callback):
        def after_batch(self): seen.append((str(self.learn.xb.device), str(self.learn.pred.device), self.learn.pred.shape[1]))
    l = le.Learner(mlp(), loaders(), Shapes(), cbs=[le.Device('meta'), See()])
    assert {p.device.type for p in l.model.parameters()} == {'meta'} == {p.device.type for g in l.opt.param_groups for p in g['params']}
    l.fit(1)
    assert set(seen) == {('meta', 'meta', 3)} and len(seen) == 7
    with pytest.raises((RuntimeError, ValueError)): l.model(torch.randn(3, 6)).item()

class Shapes(nn.Module):
    "A loss that looks at no value, with a weight of its own"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3).double())
    def forward(self, pred, targ): return (pred*self.w).mean() + targ.double().mean()*0

def test_module_to():
    m = ours()
    ps = list(m.parameters())
    assert m.to(torch.float32) is m and [p.dtype for p in m.parameters()] == [torch.float32]*4 and all(a is b for a, b in zip(ps, m.parameters()))

# Gradients: clipping, accumulation --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('make,loss', [(mlp, F.cross_entropy), (ours, tr.CrossEntropy())], ids=['torch', 'ours'])
@pytest.mark.parametrize('max_norm', [1e-3, .3, 1e3])
def test_clip_is_torchs(make, loss, max_norm):
    l, grads = le.Learner(make(), loaders(), loss, cbs=[le.GradClip(max_norm)]), []
    class Peek(le.Callback):
        def __init__(self, order): self.order = order
        def after_backward(self): grads.append([p.grad.clone() for p in self.learn.model.parameters()])
    l.fit(1, cbs=[Peek(0), Peek(99)])
    for before, after in zip(grads[::2], grads[1::2]):
        ps = [nn.Parameter(g.clone()) for g in before]
        for p, g in zip(ps, before): p.grad = g.clone()
        nn.utils.clip_grad_norm_(ps, max_norm)
        for p, a in zip(ps, after): assert rel_error(p.grad, a) < 1e-12
        assert torch.stack([a.norm() for a in after]).norm() <= max_norm*(1+1e-9)
    assert (rel_error(grads[0][0], grads[1][0]) == 0) == (max_norm == 1e3)

@pytest.mark.parametrize('make,loss', [(mlp, F.cross_entropy), (ours, tr.CrossEntropy())], ids=['torch', 'ours'])
@pytest.mark.parametrize('n,small,k', [(32, 4, 2), (31, 4, 2), (37, 4, 3), (37, 8, 5), (5, 8, 3), (37, 1, 8)])
def test_accumulated_steps_are_those_of_large_batches(make, loss, n, small, k):
    "Also where the last batch is short, and where the last group of batches is"
    runs = []
    for bs, cbs in ((small*k, []), (small, [le.GradAccum(k)])):
        l = le.Learner(make(), loaders(n, bs), loss, cbs=[*cbs, le.GradClip(.5)])
        l.fit(3)
        runs.append(weights(l.model))
    assert rel_error(*runs) < 1e-13

def test_accumulation_steps_once_a_group():
    log = Log()
    learner([le.GradAccum(2), log]).fit(1)
    assert log.log.count('after_step') == 3 and log.log.count('after_batch') == 5+2

def test_accumulation_goes_on_with_sums_from_a_file():
    "They come back on the CPU, wherever the gradients are"
    l = le.Learner(mlp(), loaders(), Shapes(), cbs=[le.Device('meta'), a := le.GradAccum(4)])
    class Load(le.Callback):
        def before_batch(self):
            if train_batch(0)(self.learn): a.load_state_dict(dict(sums=[torch.zeros(5, 6), torch.zeros(5), torch.zeros(3, 5), torch.zeros(3)], items=8, batches=1))
    l.fit(1, cbs=[Load()])
    assert {p.grad.device.type for p in l.model.parameters()} == {'meta'}

def test_accumulation_starts_afresh_after_an_exception():
    l = learner([le.GradAccum(4)])
    with pytest.raises(ZeroDivisionError): l.fit(1, cbs=[Log(after_loss=(train_batch(2), ZeroDivisionError()))])
    assert torch.equal(weights(l.model), weights(mlp()))
    l.dls = loaders()
    l.fit(1)
    m = learner([le.GradAccum(4)])
    m.fit(1)
    assert torch.equal(weights(l.model), weights(m.model))

@pytest.mark.parametrize('make,says', [(lambda: le.GradClip(0), 'max_norm=0'), (lambda: le.GradClip(math.nan), 'nan'), (lambda: le.GradAccum(0), 'n=0'),
    (lambda: le.LRFinder(1, .1), 'start'), (lambda: le.LRFinder(n=3), 'n >= 10'), (lambda: le.LRFinder(factor=1), 'factor > 1'), (lambda: le.EarlyStopping(patience=0), 'patience=0')], ids=range(7))
def test_bad_settings(make, says):
    with pytest.raises(ValueError, match=says): make()

# Early stopping -----------------------------------------------------------------------------------------------------------------

class Scripted(le.Callback):
    "Metrics as given, one an epoch, and the weights of each epoch"
    order = 0
    def __init__(self, values, name='valid_loss'): self.values, self.name, self.weights = values, name, []
    def after_epoch(self):
        self.learn.metrics = {self.name: self.values[self.learn.epoch]}
        self.weights.append(weights(self.learn.model))

@pytest.mark.parametrize('values,kw,epochs,best', [
    ([3, 2, 1, 2, 3, 4, 5], dict(patience=3), 6, 2), ([3, 2, 1, 2, 3, 4, 5], dict(patience=1), 4, 2), ([3, 2, 2, 2, 1], dict(patience=2), 4, 1), ([3, 2, 2, 2, 1], dict(patience=3), 5, 4),
    ([1, 2, 3, 2, 1, 0], dict(patience=2, higher=True), 5, 2), ([3, math.nan, math.nan, 1], dict(patience=2), 3, 0)], ids=range(6))
def test_early_stopping(values, kw, epochs, best):
    s = Scripted(values)
    l = learner([le.EarlyStopping(**kw), s])
    l.fit(len(values))
    assert len(s.weights) == epochs and torch.equal(weights(l.model), s.weights[best])

def test_early_stopping_wants_its_metric():
    with pytest.raises(ValueError, match='there are train_loss, valid_loss, accuracy'): learner([*std_cbs(), le.EarlyStopping('acuracy')]).fit(1)
    with pytest.raises(ValueError, match='add Metrics'): learner([le.EarlyStopping()]).fit(1)

# Learning rate finder -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('opt', [tr.SGD, lambda ps, lr: torch.optim.SGD(ps, lr, momentum=.9), torch.optim.Adam], ids=['ours', 'momentum', 'Adam'])
def test_lr_find_puts_everything_back(opt):
    "A fit after it is bit for bit the fit without it, dropout, shuffling and the optimiser's memory included"
    runs = []
    for find in (False, True):
        torch.manual_seed(5); random.seed(5); np.random.seed(5)
        l = learner(std_cbs(), nn.Sequential(mlp(), nn.BatchNorm1d(3).double(), nn.Dropout(.2)), opt_func=opt)
        l.fit(1)
        if find:
            f = l.lr_find(n=30)
            assert 1 < len(f.losses) <= 30 and l.recorder.epochs[-1]['epoch'] == 1 and len(l.recorder.losses) == 5 and l.dls[1] is not None
        l.fit(1)
        runs.append((weights(l.model), l.recorder.losses, random.random(), np.random.rand(), torch.rand(1).item(), l.opt.param_groups[0]['lr']))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1:] == runs[1][1:]

def test_lr_find_rises_and_stops_at_the_explosion():
    l = learner(opt_func=tr.SGD)
    f = l.lr_find(1e-4, 1e4, n=60)
    ratios = np.diff(np.log(f.lrs))
    assert np.allclose(ratios, ratios[0]) and f.lrs[0] == 1e-4 and len(f.losses) < 60 and not f.losses[-1] <= 4*min(f.losses)
    assert all(x <= 4*min(f.losses[:i+1]) for i, x in enumerate(f.losses[:-1])) and f.lrs[0] < f.suggestion < f.lrs[-1]
    f.plot()
    assert abs(learner().lr_find(1e-9, 1e-8, n=20).lrs[-1]/1e-8 - 1) < 1e-9

def test_lr_find_leaves_the_mode():
    for mode in (True, False):
        l = learner()
        l.model.train(mode)
        l.lr_find(n=10)
        assert l.model.training == mode

def test_suggestion_where_the_loss_is_no_number():
    "nan ends a trial; it is not the least loss, and too few losses before it are an error"
    f = le.LRFinder()
    f.lrs, f.losses = [10.**i for i in range(-9, 2)], [5, 5, .5, 5, 5, 4, 3, 2, 3, 9, math.nan]
    assert f.suggestion == pytest.approx(1e-4)
    f.losses = [5, 4, 3, 9, math.nan]
    with pytest.raises(ValueError, match='exploded after 4 batches: pass a smaller start'): f.plot()

def test_lr_find_restores_after_an_exception():
    l = learner([Log(after_loss=(train_batch(3), ZeroDivisionError()))])
    a, lr = weights(l.model), l.opt.param_groups[0]['lr']
    with pytest.raises(ZeroDivisionError): l.lr_find()
    assert torch.equal(a, weights(l.model)) and l.opt.param_groups[0]['lr'] == lr and l.dls[1] is not None

def test_suggestion_does_not_fear_one_low_batch():
    f = le.LRFinder()
    f.lrs, f.losses = [10.**i for i in range(-9, 1)], [5, 5, .5, 5, 5, 4, 3, 2, 3, 9]
    assert f.suggestion == pytest.approx(1e-4)

# Predictions ----------------------------------------------------------------------------------------------------------------------

def test_get_preds():
    l = learner([*std_cbs(), le.Device('cpu')])
    l.fit(1)
    before = {k: v for k, v in vars(l).items()}
    p, y = l.get_preds()
    x, t = data(11)[:]
    with torch.no_grad(): assert rel_error(p, l.model(x)) < 1e-14 and torch.equal(y, t)
    assert vars(l) == before and not p.requires_grad
    class Flip(le.Callback):
        def before_batch(self): self.learn.xb = self.learn.xb.flip(1)
    q, _ = l.get_preds(cbs=[Flip()])
    with torch.no_grad(): assert rel_error(q, l.model(x.flip(1))) < 1e-14
    assert len(l.get_preds(loaders()[0])[0]) == 37

def test_get_preds_in_the_middle_of_an_epoch():
    class Peek(le.Callback):
        def after_batch(self):
            if self.learn.training: self.learn.get_preds()
    a, b = (learner(std_cbs(), nn.Sequential(mlp(), nn.Dropout(.5))) for _ in range(2))
    torch.manual_seed(0); a.fit(2)
    torch.manual_seed(0); b.fit(2, cbs=[Peek()])
    assert torch.equal(weights(a.model), weights(b.model)) and a.metrics == b.metrics

# Weights by name ------------------------------------------------------------------------------------------------------------------

def test_module_state():
    a, b = ours(0), ours(1)
    assert list(a.state_dict()) == list(mlp().state_dict()) and not torch.equal(weights(a), weights(b))
    b.load_state_dict(a.state_dict())
    assert torch.equal(weights(a), weights(b))
    next(a.parameters()).add_(1)
    assert not torch.equal(weights(a), weights(b)), "a copy"
    c = mlp()
    c.load_state_dict(a.state_dict())
    assert torch.equal(weights(a), weights(c))

def broken_states():
    s = ours(1).state_dict()
    yield 'misses 2.bias', {k: v for k, v in s.items() if k != '2.bias'}
    yield 'has more', {**s, 'more': torch.ones(1)}
    yield r'2.bias has shape \(4,\), and here it is \(3,\)', {**s, '2.bias': torch.ones(4)}
    yield '2.bias has shape', {**s, '2.bias': 3.}

@pytest.mark.parametrize('says,state', list(broken_states()), ids=range(4))
def test_weights_that_do_not_fit_change_nothing(says, state):
    m = ours()
    with pytest.raises(ValueError, match=says): m.load_state_dict(state)
    assert torch.equal(weights(m), weights(ours()))

# Checkpoints ----------------------------------------------------------------------------------------------------------------------

class Noise(le.Callback):
    "Draws from every generator there is"
    def before_batch(self):
        if self.learn.training: self.learn.xb = self.learn.xb + .1*torch.randn_like(self.learn.xb) + .1*random.random() + .1*np.random.rand()

class Die(le.Callback):
    "Kills this process, without a chance to clean up, at the start of a batch"
    order = 5
    def __init__(self, epoch, i): self.at = epoch, i, True
    def before_batch(self):
        if (self.learn.epoch, self.learn.iter, self.learn.training) == self.at: die()

def die(*a): os.kill(os.getpid(), signal.SIGKILL if os.name != 'nt' else signal.SIGTERM)

def long_run(path, cbs=(), epochs=3, kind='torch'):
    "A fit with everything that has a state; the learner"
    random.seed(1); np.random.seed(1); torch.manual_seed(1)
    model = ours() if kind == 'ours' else nn.Sequential(mlp(), nn.BatchNorm1d(3).double(), nn.Dropout(.2))
    dls, loss = loaders(), tr.CrossEntropy() if kind == 'ours' else F.cross_entropy
    if kind == 'own loader':  # of 03, with the global generator
        dls = tuple(tr.DataLoader(data(n), 8, shuffle=n == 37) for n in (37, 11))
    if kind == "torch's loader": dls = tuple(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data(n)[:]), 8, shuffle=n == 37) for n in (37, 11))
    opt = tr.SGD if kind == 'ours' else lambda ps, lr: torch.optim.SGD(ps, lr, momentum=.9)
    l = le.Learner(model, dls, loss, opt, .1, [*std_cbs(), Noise(), le.GradAccum(2), le.GradClip(1.), le.EarlyStopping(patience=3)])
    l.fit(epochs, cbs=[*([le.Checkpoint(path, every=2)] if path else []), *cbs])
    return l

@functools.lru_cache
def whole(kind='torch', epochs=3):
    "The same without a break: the learner, and what its generators give next"
    l = long_run(None, kind=kind, epochs=epochs)
    return l, (random.random(), np.random.rand(), torch.rand(1).item())

def same(a, b):
    "Are two runs the same, to the last bit: weights, buffers, optimiser, history, random numbers?"
    for k, v in a.model.state_dict().items(): assert torch.equal(v, b.model.state_dict()[k]), k
    assert a.recorder.losses == b.recorder.losses and a.recorder.lrs == b.recorder.lrs and a.recorder.epochs == b.recorder.epochs
    for x, y in zip(le._generators(a.dls), le._generators(b.dls)): assert torch.equal(x.get_state(), y.get_state())
    if hasattr(a.opt, 'state_dict'):
        for x, y in zip(a.opt.state_dict()['state'].values(), b.opt.state_dict()['state'].values()): assert torch.equal(x['momentum_buffer'], y['momentum_buffer'])

class Boom(le.Callback):
    order = 5
    def __init__(self, epoch, i, training=True): self.at = epoch, i, training
    def before_batch(self):
        if (self.learn.epoch, self.learn.iter, self.learn.training) == self.at: raise ZeroDivisionError

KINDS = ['torch', 'ours', 'own loader', "torch's loader"]

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('at', [(0, 0), (0, 1), (1, 0), (1, 3), (1, 1, False), (2, 4)], ids=str)
def test_interrupted_and_resumed_is_as_uninterrupted(tmp_path, kind, at):
    p = tmp_path/'run.ckpt'
    with pytest.raises(ZeroDivisionError): long_run(p, [Boom(*at)], kind=kind)
    random.seed(99); np.random.seed(99); torch.manual_seed(99)
    resumed = long_run(p, kind=kind)
    after = random.random(), np.random.rand(), torch.rand(1).item()
    assert after == whole(kind)[1]
    same(whole(kind)[0], resumed)

def test_saving_changes_nothing(tmp_path): same(whole()[0], long_run(tmp_path/'a'))

def test_finished_run_is_not_run_again(tmp_path):
    a, log = long_run(tmp_path/'a'), Log()
    b = long_run(tmp_path/'a', [log])
    assert 'before_epoch' not in log.log
    same(a, b)

def test_more_epochs_go_on(tmp_path):
    long_run(tmp_path/'a', epochs=2)
    same(whole()[0], long_run(tmp_path/'a', epochs=3))

class Anew(le.Callback):
    "Starts anew before a fit, as an initialisation or a scheduler would"
    def before_fit(self):
        with torch.no_grad():
            for p in self.learn.model.parameters(): p.zero_()
        self.learn.set_lr(9.)

@pytest.mark.parametrize('epochs', [2, 3])
def test_resume_wins_over_what_starts_anew(tmp_path, epochs):
    "A finished run gives its weights, and one that goes on goes on from them, whatever others did before the fit"
    long_run(tmp_path/'a', epochs=2)
    same(whole(epochs=epochs)[0] if epochs == 3 else long_run(None, epochs=2), long_run(tmp_path/'a', [Anew()], epochs=epochs))

def test_early_stopping_remembers_the_best_of_a_finished_run(tmp_path):
    class Scripted(le.Callback):
        order = 45  # after Metrics, before EarlyStopping
        def after_epoch(self): self.learn.metrics['valid_loss'] = [1., .5, .7, .8, .9, .95][self.learn.epoch]
    def go(n):
        stop = le.EarlyStopping(patience=9)
        l = learner([*std_cbs(), Scripted(), stop, le.Checkpoint(tmp_path/'a')])
        l.fit(n)
        return weights(l.model), stop
    first, _ = go(4)
    for n in (4, 6):
        again, stop = go(n)
        assert torch.equal(again, first) and stop.best == .5

def test_what_could_not_be_read_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match='call float'): learner(lr=np.float64(.1), cbs=[le.Checkpoint(tmp_path/'a')]).fit(1)
    assert not list(tmp_path.iterdir())

def test_interrupted_twice(tmp_path):
    for at in ((0, 3), (2, 1)):
        with pytest.raises(ZeroDivisionError): long_run(tmp_path/'a', [Boom(*at)])
    same(whole()[0], long_run(tmp_path/'a'))

def test_start_anew(tmp_path):
    p = tmp_path/'a'
    long_run(p)
    l = learner()
    l.fit(1, cbs=[le.Checkpoint(p, resume=False)])
    m = learner()
    m.fit(1)
    assert torch.equal(weights(l.model), weights(m.model)) and le.load_checkpoint(p)['epoch'] == 1

def die_in_save(f, nth):
    "Put `f`, which dies, in the place of the `nth` move of a file"
    n, real = itertools.count(1), os.replace
    le.os = types.SimpleNamespace(**{**vars(os), 'replace': lambda a, b: f() if next(n) == nth else real(a, b)})

def half_a_file(s, f):
    if (s['epoch'], s['iter']) != (1, 2): return torch.save(s, f)
    f.write(b'PK' + bytes(1000))
    f.flush()
    die()

KILL = {  # where a process dies, and what it has saved by then
    'in mid-epoch': (lambda: None, (1, 3), (1, 2)), 'at the start of an epoch': (lambda: None, (2, 0), (2, 0)),
    'with half a file written': (lambda: setattr(le, 'torch', types.SimpleNamespace(**{**vars(torch), 'save': half_a_file})), None, (1, 0)),
    'before a save moves the old file away': (lambda: die_in_save(die, 8), None, (1, 0)), 'before a save moves the new one there': (lambda: die_in_save(die, 9), None, (1, 0))}

def run_and_die(path, how):
    prepare, at, _ = KILL[how]
    prepare()
    long_run(path, [Die(*at)] if at else [])

@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    "Folders that hold what runs have left that were killed in each of the ways; python and torch are started once, and fork. (With one thread instead of as many as here, a sum could differ in its last bit.)"
    if os.name == 'nt': pytest.skip("fork is POSIX's")
    d = tmp_path_factory.mktemp('killed')
    child = start(f"""
        for i, how in enumerate(t.KILL):
            if not (pid := os.fork()):
                t.run_and_die({str(d)!r} + f'/{{i}}', how)
                os._exit(0)
            print(os.waitpid(pid, 0)[1], flush=True)""", stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate()
    assert out.split() == [str(int(signal.SIGKILL))]*len(KILL)
    return {how: d/str(i) for i, how in enumerate(KILL)}

@pytest.mark.parametrize('how', KILL)
def test_killed_and_resumed_is_as_uninterrupted(killed, how):
    s = le.load_checkpoint(killed[how])
    assert (s['epoch'], s['iter']) == KILL[how][2]
    same(whole()[0], long_run(killed[how]))

def test_killed_from_outside(tmp_path):
    "By another process, wherever it happens to be; and on Windows too"
    p = tmp_path/'run.ckpt'
    child = start(f"""
        class Say(le.Callback):
            def after_epoch(self): print('epoch', flush=True)
        t.long_run({str(p)!r}, [Say()], epochs=10**6)""", stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline()
    child.kill()
    assert child.wait()
    at = le.load_checkpoint(p)['epoch']
    same(whole(epochs=at+1)[0], long_run(p, epochs=at+1))

def saved(tmp_path):
    p = tmp_path/'run.ckpt'
    long_run(p)
    return p

def test_what_is_written_reaches_the_disk(tmp_path, monkeypatch):
    "The file before it gets its name, and the folder after that"
    did, real = [], os.replace
    monkeypatch.setattr(le, '_sync', lambda p: did.append(p.name))
    monkeypatch.setattr(os, 'replace', lambda a, b: (did.append('move'), real(a, b))[1])
    le.save_checkpoint(tmp_path/'a', dict(x=1))
    assert did == ['a.tmp', 'move', tmp_path.name]

def test_sync(tmp_path, monkeypatch):
    (tmp_path/'a').write_text('x')
    synced, real = [], os.fsync
    monkeypatch.setattr(os, 'fsync', lambda fd: (synced.append(fd), real(fd)))
    for p in (tmp_path, tmp_path/'a'): le._sync(p)
    assert len(synced) == (1 if os.name == 'nt' else 2)

def test_the_one_before_is_kept(tmp_path):
    p = saved(tmp_path)
    prev = le.load_checkpoint(tmp_path/'run.ckpt.prev')
    assert sorted(f.name for f in tmp_path.iterdir()) == ['run.ckpt', 'run.ckpt.prev'] and (prev['epoch'], prev['iter']) == (2, 4)
    p.unlink()
    assert le.load_checkpoint(p)['iter'] == 4
    same(whole()[0], long_run(p))

@pytest.mark.parametrize('share', [0, .01, .3, .9, .999])
def test_truncated_is_refused_and_the_one_before_survives(tmp_path, share):
    p = saved(tmp_path)
    raw, prev = p.read_bytes(), (tmp_path/'run.ckpt.prev').read_bytes()
    p.write_bytes(raw[:int(share*len(raw))])
    with pytest.raises(le.CheckpointError, match='delete it, and run.ckpt.prev'): long_run(p)
    assert (tmp_path/'run.ckpt.prev').read_bytes() == prev
    p.unlink()
    same(whole()[0], long_run(p))

def test_truncated_without_one_before(tmp_path):
    (tmp_path/'a').write_bytes(b'PK')
    with pytest.raises(le.CheckpointError, match='start again'): learner().fit(1, cbs=[le.Checkpoint(tmp_path/'a')])

def test_every_flipped_bit_is_seen(tmp_path):
    "Of those that stand for content: zip headers hold some that nobody reads"
    p = tmp_path/'a'
    le.save_checkpoint(p, dict(x=torch.arange(200.)))
    raw = bytearray(p.read_bytes())
    start = raw.index(torch.arange(200.).numpy().tobytes())
    for i in range(start, start+800, 37):
        bad = bytearray(raw)
        bad[i] ^= 4
        p.write_bytes(bad)
        with pytest.raises(le.CheckpointError, match='damaged'): le.load_checkpoint(p)

class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, 'w')

@pytest.mark.parametrize('save', [torch.save, lambda o, p: torch.save(o, p, _use_new_zipfile_serialization=False), lambda o, p: p.write_bytes(pickle.dumps(o))], ids=['zip', 'legacy', 'pickle'])
def test_code_in_a_checkpoint_does_not_run(tmp_path, save):
    p, ran = tmp_path/'a', tmp_path/'ran'
    save(dict(format='notes.learner 1', model=Evil(str(ran))), p)
    with pytest.raises(le.CheckpointError) as e: learner().fit(1, cbs=[le.Checkpoint(p)])
    assert not ran.exists() and str(p) in str(e.value)
    torch.save(dict(model=Evil(str(ran))), p)
    torch.load(p, weights_only=False)['model'].close()
    assert ran.exists(), "the trap works"

def zip_with_text(p):
    with zipfile.ZipFile(p, 'w') as z: z.writestr('a.txt', 'x')

@pytest.mark.parametrize('make,says', [
    (lambda p: torch.save([1], p), 'was not written by Checkpoint'), (lambda p: torch.save({'model': 1}, p), 'was not written by'), (lambda p: p.write_text('hello'), 'is no checkpoint'),
    (lambda p: zip_with_text(p), 'no checkpoint')], ids=['list', 'dict', 'text', 'zip'])
def test_foreign_files_are_refused(tmp_path, make, says):
    p = tmp_path/'a'
    make(p)
    m = mlp()
    with pytest.raises(le.CheckpointError, match=says): learner(model=m).fit(1, cbs=[le.Checkpoint(p)])
    assert torch.equal(weights(m), weights(mlp()))

def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint'): le.load_checkpoint(tmp_path/'a')

@pytest.mark.parametrize('change,says', [
    (dict(model=mlp(nh=4)), r'another model: 0.weight has shape \(5, 6\), and here it is \(4, 6\)'), (dict(model=nn.Sequential(nn.Linear(6, 3).double())), 'another model: it has 2.bias'),
    (dict(dls=loaders(bs=4)), 'its batches 5, here 10'), (dict(cbs=[*std_cbs(), le.EarlyStopping()]), 'its callbacks'), (dict(epochs=1), 'holds 2 epochs, and this fit is of 1'),
    (dict(opt_func=torch.optim.Adam), 'its optimiser notes.training.SGD, here torch.optim.adam.Adam')], ids=['shape', 'names', 'batches', 'callbacks', 'epochs', 'optimiser'])
def test_checkpoint_of_another_run_changes_nothing(tmp_path, change, says):
    p = tmp_path/'a'
    learner(std_cbs()).fit(2, cbs=[le.Checkpoint(p)])
    raw, epochs = p.read_bytes(), change.pop('epochs', 2)
    l = learner(**{'cbs': std_cbs(), **change})
    before, opt = weights(l.model), copy.deepcopy(l.opt.param_groups[0]['lr'])
    with pytest.raises(ValueError, match=says): l.fit(epochs, cbs=[le.Checkpoint(p)])
    assert torch.equal(before, weights(l.model)) and l.opt.param_groups[0]['lr'] == opt and p.read_bytes() == raw

def test_own_optimiser_without_a_state_is_refused(tmp_path):
    class Momentum(tr.SGD): pass
    with pytest.raises(TypeError, match='Momentum can.t be saved'): learner(opt_func=Momentum).fit(1, cbs=[le.Checkpoint(tmp_path/'a')])

def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    p = tmp_path/'a'
    le.save_checkpoint(p, dict(x=1))
    with pytest.raises(Exception): le.save_checkpoint(p, dict(x=lambda: 1))
    monkeypatch.setattr(le.os, 'fsync', lambda f: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'): le.save_checkpoint(p, dict(x=2))
    assert le.load_checkpoint(p) == dict(x=1)

def test_rng_round_trip():
    dls = loaders()
    s = le.get_rng(dls)
    draw = lambda: (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item(), [y.tolist() for _, y in dls[0]])
    a = draw()
    b = draw()
    le.set_rng(s, dls)
    assert draw() == a != b
    assert len(s['loaders']) == 2

# What a review found ------------------------------------------------------------------------------------------------------

def test_get_preds_leaves_the_mode_as_it_was():
    l = learner(dls=(loaders()[0], None))
    l.fit(1)
    l.get_preds(loaders()[1])
    assert not l.model.training
    l.model.train()
    l.get_preds(loaders()[1])
    assert l.model.training
    with pytest.raises(ValueError, match='pass dl'): l.get_preds()

def test_callbacks_given_to_two_learners_see_the_one_that_fits():
    cbs = std_cbs()
    one, two = learner(cbs), learner(cbs)
    two.fit(1)
    n = len(cbs[1].losses)
    one.fit(1)
    assert len(cbs[1].losses) == 2*n and cbs[1].learn is one

def test_accumulation_with_a_layer_that_a_batch_didnt_use():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers, self.i = nn.ModuleList([nn.Linear(6, 3).double(), nn.Linear(6, 3).double()]), 0
        def forward(self, x):
            self.i += 1
            return self.layers[self.i % 2](x)
    model, ds = Either(), data(16)
    was = [p.detach().clone() for p in model.parameters()]
    le.Learner(model, (tr.DataLoader(ds, 8), None), F.cross_entropy, lr=.5, cbs=[le.GradAccum(2)]).fit(1)
    for k, i in ((1, slice(0, 8)), (0, slice(8, 16))):  # each layer saw half of the items
        ps = [was[2*k].clone().requires_grad_(), was[2*k+1].clone().requires_grad_()]
        gs = torch.autograd.grad(F.cross_entropy(F.linear(ds.x[i], *ps), ds.y[i]), ps)
        for p, w, g in zip(model.layers[k].parameters(), ps, gs): assert torch.allclose(p, w - .5*g/2, rtol=1e-12)

def test_lr_find_leaves_callbacks_as_they_were():
    class Counts(le.Callback):
        n = 0
        def after_step(self): self.n += 1
    l = learner([cb := Counts()])
    l.lr_find(n=20)
    assert cb.n == 0

@pytest.mark.parametrize('name', ['epoch', 'step', 'train_loss', 'valid_loss'])
def test_metrics_refuses_names_that_are_taken(name):
    with pytest.raises(ValueError, match=name): le.Metrics(**{name: tr.accuracy})

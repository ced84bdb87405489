"The training loop, and what most fits want"
import base64, importlib, itertools, math, os, re, subprocess, sys, types
import pytest, torch
import torch.nn.functional as F
from torch import nn
from fits import Log, NoLen, Shapes, always, data, first, learner, loaders, mlp, ours, start, std_cbs, train_batch, weights
from notes import callbacks as ca, learner as le, training as tr
from notes.exports import rel_error

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

def test_what_several_processes_ask_of_a_learner():
    "`items` weigh, `all_sum` has the last word on a mean, `rank` and `on_all` say who is called"
    class Few(le.Callback):
        def after_predict(self): self.learn.items = 1
    class Shows(le.Callback):
        on_all, called = False, ()
        def before_fit(self): self.called += 'before_fit',
        def after_train(self): self.called += 'after_train',
        def cleanup_fit(self): self.called += 'cleanup_fit',
    plain, few = learner(std_cbs()), learner([*std_cbs(), Few()])
    for l in (plain, few): l.fit(1)
    assert plain.rank == 0 and plain.all_sum(3) == 3 and plain.items == 3 and plain.recorder.items == [8]*4+[5] and few.recorder.items == [1]*5
    assert few.metrics['valid_loss'] != plain.metrics['valid_loss']
    for rank in (0, 1):
        l = learner([*std_cbs(), shows := Shows()])
        l.rank, l.all_sum = rank, lambda x: x+[20, 10]  # as if another had ten items with a mean of two
        l.fit(1)
        assert abs(l.metrics['valid_loss']-(11*plain.metrics['valid_loss']+20)/21) < 1e-12 and l.metrics['train_loss'] == plain.metrics['train_loss']
        assert shows.called == (() if rank else ('before_fit', 'after_train', 'cleanup_fit'))

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
    assert log.log == ['before_fit', 'before_epoch', *step*2, 'after_train', *valid, 'after_epoch', 'after_fit', 'cleanup_fit']
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
    if event != 'cleanup_fit': assert log[log.index('b'+event)-1] == 'a'+event and 'c'+event not in log, "whoever comes later is not called"
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
    learner([Mark(), le.Device('cpu'), le.Metrics(hits=lambda p, y: (p.argmax(1) == y).double().mean()), le.Recorder(), ca.GradClip(1.), Unmark()], opt_func=torch.optim.SGD).fit(1)
    assert not calls and not inside

# Progress -------------------------------------------------------------------------------------------------------------------

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

def test_module_to():
    m = ours()
    ps = list(m.parameters())
    assert m.to(torch.float32) is m and [p.dtype for p in m.parameters()] == [torch.float32]*4 and all(a is b for a, b in zip(ps, m.parameters()))

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

@pytest.mark.parametrize('name', ['epoch', 'step', 'train_loss', 'valid_loss'])
def test_metrics_refuses_names_that_are_taken(name):
    with pytest.raises(ValueError, match=name): le.Metrics(**{name: tr.accuracy})

# No silent nothing --------------------------------------------------------------------------------------------------------

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): return iter(zip(*data(37)[:]))

used_up = lambda: iter(list(loaders()[0]))

@pytest.mark.parametrize('make', [lambda: ([], None), lambda: (loaders()[0], []), lambda: (used_up(), None), lambda: (loaders()[0], used_up())], ids=['training', 'validation', 'iterator', 'iterator for validation'])
def test_a_loader_without_batches_is_refused(make):
    "At whatever pass: the iterators have batches for one epoch"
    l = learner(dls=make())
    with pytest.raises(ValueError, match='gave no batches'): l.fit(3)
    assert l.epoch == any(hasattr(dl, '__next__') for dl in l.dls) and not l.model.training

def test_no_loader_for_training():
    with pytest.raises(ValueError, match='no loader for training'): learner(dls=(None, None)).fit(1)

@pytest.mark.parametrize('wrap', [NoLen, lambda dl: torch.utils.data.DataLoader(Stream(), 8)], ids=['ours', 'IterableDataset'])
def test_a_loader_without_a_length(wrap, capsys, notebook, monkeypatch):
    "Does what the same loader with a length does: fit, trial, accumulation, progress in a terminal and a notebook"
    runs = []
    for dl in (torch.utils.data.DataLoader(data(37), 8), wrap(torch.utils.data.DataLoader(data(37), 8))):
        l = learner([*std_cbs(), le.Progress(), ca.GradAccum(3), ca.GradClip(1.)], dls=(dl, loaders()[1]))
        with monkeypatch.context() as m:
            m.delitem(sys.modules, 'IPython')
            l.fit(2)
        assert len(l.lr_find(n=12).losses) > 1
        l.fit(1)
        runs.append((l.recorder.losses, l.recorder.epochs, l.metrics, weights(l.model).tolist(), capsys.readouterr().out))
    assert runs[0] == runs[1] and len(runs[0][0]) == 15

@pytest.mark.parametrize('batch,says', [
    (dict(x=1, y=2), 'a batch is a dict of 2, no pair'), (torch.zeros(2, 6), 'a batch is a Tensor of 2, no pair'), ((1, 2, 3), 'a batch is a tuple of 3, no pair'), ([1], 'a batch is a list of 1, no pair'), ('ab', 'str of 2, no pair'), (7, 'int of 0, no pair')], ids=str)
def test_a_batch_that_is_no_pair(batch, says):
    l = learner(dls=([batch], None))
    with pytest.raises(ValueError, match=says): l.fit(1)
    with pytest.raises(ValueError, match=r'no pair \(x, y\)'): l.get_preds([batch])

def test_pairs_may_be_lists_or_named():
    for make in (list, __import__('collections').namedtuple('Batch', 'x y')._make): learner(dls=([make(b) for b in loaders()[0]], None)).fit(1)

@pytest.mark.parametrize('metric,says', [(lambda p, y: p.mean().view(1), r'odd of a batch has shape \(1,\)'), (lambda p, y: p.mean(0), r'shape \(3,\)'), (lambda p, y: [1., 2.], r'shape \(2,\)')])
def test_a_metric_that_is_no_number(metric, says):
    with pytest.raises(ValueError, match=says): learner([le.Metrics(odd=metric)]).fit(1)

def test_a_loss_that_is_no_number():
    l = learner(std_cbs())
    l.loss_func = lambda p, y: F.cross_entropy(p, y).view(1)
    with pytest.raises(ValueError, match=r'loss of a batch has shape \(1,\)'): l.fit(1)

@pytest.mark.parametrize('lr', [math.nan, math.inf, -.1])
@pytest.mark.parametrize('opt', [tr.SGD, torch.optim.SGD])
def test_a_learning_rate_that_is_none(lr, opt):
    l = learner(opt_func=opt)
    for use in (lambda: l.fit(1, lr=lr), lambda: l.set_lr(lr), lambda: learner(opt_func=opt, lr=lr)):
        with pytest.raises(ValueError, match='lr'): use()
    assert l.lr == .1
    l.fit(1)

def test_predictions_of_nothing():
    l = learner()
    with pytest.raises(ValueError, match='gave no batches'): l.get_preds([])
    with pytest.raises(ValueError, match='every batch was cancelled'): l.get_preds(cbs=[Log(before_batch=(always, le.CancelBatch()))])

def test_a_second_recorder_is_refused_when_it_is_added():
    l = learner(std_cbs())
    rec, n = l.recorder, len(l.cbs)
    for add in (lambda: l.add_cbs([le.Recorder()]), lambda: l.fit(1, cbs=[le.Recorder()])):
        with pytest.raises(ValueError, match='a Recorder already'): add()
        assert l.recorder is rec and len(l.cbs) == n
    with pytest.raises(ValueError, match='this Recorder has joined already'): l.add_cbs([rec])
    with pytest.raises(ValueError, match='a Recorder already'): learner([le.Recorder(), le.Recorder()])
    l = learner()
    for _ in range(2): l.fit(1, cbs=[le.Recorder()])  # one for each fit
    with pytest.raises(ValueError, match='Recorder'): l.fit(1, cbs=[le.Progress()])  # none for this one
    l.fit(1)

def test_callbacks_added_during_a_fit_are_refused():
    class Adds(le.Callback):
        def before_epoch(self): self.learn.add_cbs([le.Recorder()])
    l = learner([Adds()])
    with pytest.raises(ValueError, match='a fit is running'): l.fit(1)
    l.cbs.clear()
    l.add_cbs(std_cbs())
    l.fit(1)
    assert len(l.recorder.losses) == 5

def test_two_metrics_keep_the_numbers_of_both():
    l = learner([le.Metrics(a=tr.accuracy), le.Metrics(b=tr.accuracy), le.Recorder()])
    l.fit(2)
    assert list(l.recorder.epochs[-1]) == ['epoch', 'step', 'train_loss', 'valid_loss', 'a', 'b'] and l.metrics['a'] == l.metrics['b']

def test_trials_and_predictions_are_chosen_apart():
    seen = []
    def make(trials, preds): return type('C', (le.Callback,), dict(in_trials=trials, in_preds=preds, after_predict=lambda self: seen.append((trials, preds))))()
    l = learner([make(t, p) for t in (True, False) for p in (True, False)])
    l.lr_find(n=10)
    assert {*seen} == {(True, True), (True, False)}
    seen.clear()
    l.get_preds()
    assert {*seen} == {(True, True), (False, True)}
    with pytest.raises(TypeError, match='in_trials and in_preds'): type('Old', (le.Callback,), dict(records=True))

def test_a_callback_in_two_fits_at_once_finds_the_right_learner():
    "A fit, or predictions, of another learner within an event: its callbacks come back"
    class Where(le.Callback):
        def after_batch(self): seen.append(self.learn)
    seen, where = [], Where()
    inner = learner([where])
    class Asks(le.Callback):
        def before_batch(self):
            inner.get_preds()
            inner.fit(1)
    outer = learner([where, Asks()])
    outer.fit(1)
    assert seen.count(outer) == 7 and seen.count(inner) == 7*(2+7)

def test_the_bar_moves_and_the_axis_has_room(monkeypatch, notebook):
    "A bar that knows its end and gets there; a plot that shows from the start how far the fit will go"
    bars, ends = [], []
    class Bar:
        def __init__(self, total, initial, **kw): self.total, self.n = total, initial; bars.append(self)
        def update(self): self.n += 1
        def write(self, line): pass
        def close(self): pass
    monkeypatch.setattr(importlib.import_module('tqdm'), 'tqdm', Bar)
    monkeypatch.setattr(le, 'time', types.SimpleNamespace(perf_counter=itertools.count().__next__))  # a drawing takes a second
    plot = le.Recorder.plot
    monkeypatch.setattr(le.Recorder, 'plot', lambda self, *a: ends.append(plot(self, *a).get_xlim()))
    l = learner([*std_cbs(), le.Progress()])
    l.fit(3)
    assert ends == [(0, 15)]*2  # at the first batch, and at the end
    l.fit(1)
    assert ends[-1] == (0, 20)
    monkeypatch.delitem(sys.modules, 'IPython')
    l.fit(2)
    assert [(b.total, b.n) for b in bars] == [(10, 10)]

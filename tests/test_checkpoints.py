"Runs that are killed"
import copy, errno, functools, itertools, json, os, pickle, random, shutil, signal, subprocess, types, zipfile
import numpy as np
import pytest, torch
import torch.nn.functional as F
from torch import nn
from torch.utils import data as tud
from fits import F64, Log, NoLen, Noisy, data, learner, loaders, mlp, ours, start, std_cbs, weights
from notes import callbacks as ca, checkpoints as ck, learner as le, modules as mo, training as tr
from project import ROOT

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
    l = le.Learner(model, dls, loss, opt, .1, [*std_cbs(), Noise(), ca.GradAccum(2), ca.GradClip(1.), ca.EarlyStopping(patience=3)])
    l.fit(epochs, cbs=[*([ck.Checkpoint(path, every=2)] if path else []), *cbs])
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
    for x, y in zip(ca._generators(a.dls), ca._generators(b.dls)): assert str(ca._get(x)) == str(ca._get(y)) if not isinstance(x, torch.Generator) else torch.equal(x.get_state(), y.get_state())
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
        stop = ca.EarlyStopping(patience=9)
        l = learner([*std_cbs(), Scripted(), stop, ck.Checkpoint(tmp_path/'a')])
        l.fit(n)
        return weights(l.model), stop
    first, _ = go(4)
    for n in (4, 6):
        again, stop = go(n)
        assert torch.equal(again, first) and stop.best == .5

def test_what_could_not_be_read_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match='call float'): learner(lr=np.float64(.1), cbs=[ck.Checkpoint(tmp_path/'a')]).fit(1)
    assert not list(tmp_path.iterdir())

def test_interrupted_twice(tmp_path):
    for at in ((0, 3), (2, 1)):
        with pytest.raises(ZeroDivisionError): long_run(tmp_path/'a', [Boom(*at)])
    same(whole()[0], long_run(tmp_path/'a'))

def test_what_was_recorded_is_there_when_the_others_begin(tmp_path):
    class Looks(le.Callback):
        order = 40
        def before_fit(self): seen.append((len(self.learn.recorder.losses), len(self.learn.recorder.epochs)))
    seen = []
    for epochs in (1, 2): long_run(tmp_path/'a', [Looks()], epochs=epochs)
    assert seen == [(0, 0), (5, 1)]

def test_start_anew(tmp_path):
    p = tmp_path/'a'
    long_run(p)
    l = learner()
    l.fit(1, cbs=[ck.Checkpoint(p, resume=False)])
    m = learner()
    m.fit(1)
    assert torch.equal(weights(l.model), weights(m.model)) and ck.load_checkpoint(p)['epoch'] == 1

def die_in_save(f, nth):
    "Put `f`, which dies, in the place of the `nth` move of a file"
    n, real = itertools.count(1), os.replace
    ck.os = types.SimpleNamespace(**{**vars(os), 'replace': lambda a, b: f() if next(n) == nth else real(a, b)})

def half_a_file(s, f):
    if (s['epoch'], s['iter']) != (1, 2): return torch.save(s, f)
    f.write(b'PK' + bytes(1000))
    f.flush()
    die()

KILL = {  # where a process dies, and what it has saved by then
    'in mid-epoch': (lambda: None, (1, 3), (1, 2)), 'at the start of an epoch': (lambda: None, (2, 0), (2, 0)),
    'with half a file written': (lambda: setattr(ck, 'torch', types.SimpleNamespace(**{**vars(torch), 'save': half_a_file})), None, (1, 0)),
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
            print(os.waitpid(pid, 0)[1], flush=True)""", 'test_checkpoints', stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate()
    assert out.split() == [str(int(signal.SIGKILL))]*len(KILL)
    return {how: d/str(i) for i, how in enumerate(KILL)}

@pytest.mark.parametrize('how', KILL)
def test_killed_and_resumed_is_as_uninterrupted(killed, how):
    s = ck.load_checkpoint(killed[how])
    assert (s['epoch'], s['iter']) == KILL[how][2]
    same(whole()[0], long_run(killed[how]))

def test_killed_from_outside(tmp_path):
    "By another process, wherever it happens to be; and on Windows too"
    p = tmp_path/'run.ckpt'
    child = start(f"""
        class Say(le.Callback):
            def after_epoch(self): print('epoch', flush=True)
        t.long_run({str(p)!r}, [Say()], epochs=10**6)""", 'test_checkpoints', stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline()
    child.kill()
    assert child.wait()
    at = ck.load_checkpoint(p)['epoch']
    same(whole(epochs=at+1)[0], long_run(p, epochs=at+1))

def saved(tmp_path):
    p = tmp_path/'run.ckpt'
    long_run(p)
    return p

def test_what_is_written_reaches_the_disk(tmp_path, monkeypatch):
    "The file before it gets its name, and the folder after that"
    did, real = [], os.replace
    monkeypatch.setattr(ck, '_sync', lambda p: did.append(p.name))
    monkeypatch.setattr(os, 'replace', lambda a, b: (did.append('move'), real(a, b))[1])
    ck.save_checkpoint(tmp_path/'a', dict(x=1))
    assert did == ['a.tmp', 'move', tmp_path.name]

def test_sync(tmp_path, monkeypatch):
    (tmp_path/'a').write_text('x')
    synced, real = [], os.fsync
    monkeypatch.setattr(os, 'fsync', lambda fd: (synced.append(fd), real(fd)))
    for p in (tmp_path, tmp_path/'a'): ck._sync(p)
    assert len(synced) == (1 if os.name == 'nt' else 2)

def test_the_one_before_is_kept(tmp_path):
    p = saved(tmp_path)
    prev = ck.load_checkpoint(tmp_path/'run.ckpt.prev')
    assert sorted(f.name for f in tmp_path.iterdir()) == ['run.ckpt', 'run.ckpt.prev'] and (prev['epoch'], prev['iter']) == (2, 4)
    p.unlink()
    assert ck.load_checkpoint(p)['iter'] == 4
    same(whole()[0], long_run(p))

@pytest.mark.parametrize('share', [0, .01, .3, .9, .999])
def test_truncated_is_refused_and_the_one_before_survives(tmp_path, share):
    p = saved(tmp_path)
    raw, prev = p.read_bytes(), (tmp_path/'run.ckpt.prev').read_bytes()
    p.write_bytes(raw[:int(share*len(raw))])
    with pytest.raises(ck.CheckpointError, match='delete it, and run.ckpt.prev'): long_run(p)
    assert (tmp_path/'run.ckpt.prev').read_bytes() == prev
    p.unlink()
    same(whole()[0], long_run(p))

def test_truncated_without_one_before(tmp_path):
    (tmp_path/'a').write_bytes(b'PK')
    with pytest.raises(ck.CheckpointError, match='start again'): learner().fit(1, cbs=[ck.Checkpoint(tmp_path/'a')])

class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (self.path, 'w')

@pytest.mark.parametrize('save', [torch.save, lambda o, p: torch.save(o, p, _use_new_zipfile_serialization=False), lambda o, p: p.write_bytes(pickle.dumps(o))], ids=['zip', 'legacy', 'pickle'])
def test_code_in_a_checkpoint_does_not_run(tmp_path, save):
    p, ran = tmp_path/'a', tmp_path/'ran'
    save(dict(format='notes.learner 1', model=Evil(str(ran))), p)
    with pytest.raises(ck.CheckpointError) as e: learner().fit(1, cbs=[ck.Checkpoint(p)])
    assert not ran.exists() and str(p) in str(e.value)
    torch.save(dict(model=Evil(str(ran))), p)
    torch.load(p, weights_only=False)['model'].close()
    assert ran.exists(), "the trap works"

def zip_with_text(p):
    with zipfile.ZipFile(p, 'w') as z: z.writestr('a.txt', 'x')

@pytest.mark.parametrize('make,says', [
    (lambda p: torch.save([1], p), 'was not written by'), (lambda p: torch.save({'model': 1}, p), 'was not written by'), (lambda p: ck.save_checkpoint(p, {'model': 1}), 'was not written by Checkpoint'), (lambda p: p.write_text('hello'), 'is no checkpoint'),
    (lambda p: zip_with_text(p), 'no checkpoint')], ids=['list', 'dict', 'with a digest', 'text', 'zip'])
def test_foreign_files_are_refused(tmp_path, make, says):
    p = tmp_path/'a'
    make(p)
    m = mlp()
    with pytest.raises(ck.CheckpointError, match=says): learner(model=m).fit(1, cbs=[ck.Checkpoint(p)])
    assert torch.equal(weights(m), weights(mlp()))

def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint'): ck.load_checkpoint(tmp_path/'a')

@pytest.mark.parametrize('change,says', [
    (dict(model=mlp(nh=4)), r'another model: 0.weight has shape \(5, 6\), and here shape \(4, 6\)'), (dict(model=nn.Sequential(nn.Linear(6, 3).double())), 'another model: it has 2.bias'),
    (dict(dls=loaders(bs=4)), 'its batches 5, here 10'), (dict(dls=tr.get_dls(Noisy(*data(37)[:]), data(11), 8, seed=3)), 'its loaders have 2 generators, here 5'), (dict(cbs=[*std_cbs(), ca.EarlyStopping()]), 'its callbacks'), (dict(epochs=1), 'holds 2 epochs, and this fit is of 1'),
    (dict(opt_func=torch.optim.Adam), 'its optimiser notes.training.SGD, here torch.optim.adam.Adam')], ids=['shape', 'names', 'batches', 'generators', 'callbacks', 'epochs', 'optimiser'])
def test_checkpoint_of_another_run_changes_nothing(tmp_path, change, says):
    p = tmp_path/'a'
    learner(std_cbs()).fit(2, cbs=[ck.Checkpoint(p)])
    raw, epochs = p.read_bytes(), change.pop('epochs', 2)
    l = learner(**{'cbs': std_cbs(), **change})
    before, opt = weights(l.model), copy.deepcopy(l.opt.param_groups[0]['lr'])
    with pytest.raises(ValueError, match=says): l.fit(epochs, cbs=[ck.Checkpoint(p)])
    assert torch.equal(before, weights(l.model)) and l.opt.param_groups[0]['lr'] == opt and p.read_bytes() == raw

def renamed(path, old, new):
    "Writes the checkpoint at `path` again, with `new` for `old` in what must be the same in a run; returns that"
    s = ck.load_checkpoint(path)
    s['run'] = json.loads(json.dumps(s['run']).replace(old, new))
    ck.save_checkpoint(path, s)
    return s['run']

def test_file_from_before_the_classes_moved(tmp_path):
    "`GradAccum` and `EarlyStopping` were in notes.learner, and the optimiser may move as well"
    p = tmp_path/'a'
    with pytest.raises(ZeroDivisionError): long_run(p, [Boom(1, 3)], kind='ours')
    renamed(p, 'notes.training.', 'notes.optimizers.')
    run = renamed(p, 'notes.callbacks.', 'notes.learner.')
    assert run == dict(optimiser='notes.optimizers.SGD', batches=5, callbacks=['notes.learner.Recorder', 'notes.learner.GradAccum', 'notes.learner.EarlyStopping'])
    same(whole('ours')[0], long_run(p, kind='ours'))

@pytest.mark.parametrize('old,new', [('notes.callbacks.', 'mine.'), ('notes.callbacks.', 'my.notes.callbacks.'), ('notes.callbacks.', 'notes_.callbacks.'), ('GradAccum', 'GradClip'), ('5', '6')])
def test_another_class_of_that_name_is_refused(tmp_path, old, new):
    p = tmp_path/'a'
    long_run(p)
    renamed(p, old, new)
    with pytest.raises(ValueError, match='of another run'): long_run(p)

def test_a_file_of_the_first_version_is_read(tmp_path):
    "Written before optimisers had a memory and modules had buffers; two epochs are in it"
    g = torch.Generator().manual_seed(0)
    ds = tr.Dataset(torch.randn(12, 3, generator=g, dtype=F64), torch.randint(2, (12,), generator=g))
    model = mo.Sequential(mo.Linear(3, 4), mo.ReLU(), mo.Linear(4, 2)).to(F64)
    old = shutil.copy(ROOT/'tests'/'data'/'checkpoint-1.pt', tmp_path/'a')
    saved = ck.load_checkpoint(old)
    l = le.Learner(model, tr.get_dls(ds, ds, batch_size=4, seed=3), tr.CrossEntropy(), lr=.5, cbs=[le.Metrics(), le.Recorder(), ca.EarlyStopping(patience=9), ca.GradAccum(2)])
    l.fit(2, cbs=[ck.Checkpoint(old)])
    assert l.lr == .1 and all(torch.equal(v, saved['model'][k]) for k, v in model.state_dict().items())
    assert l.recorder.losses[-1] == pytest.approx(0.6353268226563381, rel=1e-9)
    l.fit(3, cbs=[ck.Checkpoint(old)])
    assert len(l.recorder.losses) == 9 and l.recorder.epochs[-1]['epoch'] == 3 and not torch.equal(model[0].weight, saved['model']['0.weight'])

def test_own_optimiser_without_a_state_is_refused(tmp_path):
    class Plain:
        def __init__(self, params, lr): self.param_groups = [dict(params=params, lr=lr)]
        def step(self): pass
        zero_grad = step
    with pytest.raises(TypeError, match='Plain can.t be saved'): learner(opt_func=Plain).fit(1, cbs=[ck.Checkpoint(tmp_path/'a')])

def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    p = tmp_path/'a'
    ck.save_checkpoint(p, dict(x=1))
    with pytest.raises(Exception): ck.save_checkpoint(p, dict(x=lambda: 1))
    monkeypatch.setattr(ck.os, 'fsync', lambda f: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'): ck.save_checkpoint(p, dict(x=2))
    assert ck.load_checkpoint(p) == dict(x=1)

# The state that made the batch --------------------------------------------------------------------------------------------------------

LOADERS = {  # all draw noise for every item or batch, from global generators and from the dataset's own
    'get_dls': lambda ds: tr.get_dls(ds, data(11), 8, seed=3)[0], 'ours': lambda ds: tr.DataLoader(ds, 8, shuffle=True), "torch's": lambda ds: tud.DataLoader(ds, 8, shuffle=True),
    'with replacement': lambda ds: tud.DataLoader(ds, 8, sampler=tud.RandomSampler(ds, replacement=True, num_samples=37)), 'no length': lambda ds: NoLen(tr.DataLoader(ds, 8, shuffle=True))}

def noisy_run(path, kind, cbs=(), every=2, epochs=3):
    "Dropout in the model, noise in the dataset and in a callback; the learner"
    random.seed(1); np.random.seed(1); torch.manual_seed(1)
    dls = LOADERS[kind](Noisy(*data(37)[:])), loaders()[1]
    l = le.Learner(nn.Sequential(nn.Dropout(.3), mlp(), nn.Dropout(.2)), dls, F.cross_entropy, lambda ps, lr: torch.optim.SGD(ps, lr, momentum=.9), .1, [*std_cbs(), Noise(), ca.GradAccum(2)])
    l.fit(epochs, cbs=[*([ck.Checkpoint(path, every)] if path else []), *cbs])
    return l

@functools.lru_cache
def noisy_whole(kind):
    l = noisy_run(None, kind)
    return l, (random.random(), np.random.rand(), torch.rand(1).item(), l.dls[1].dataset)

@pytest.mark.parametrize('kind', LOADERS)
@pytest.mark.parametrize('at', [(0, 0), (0, 1), (0, 3), (1, 0), (1, 4), (1, 1, False), (2, 4)], ids=str)
def test_resumed_with_noise_in_the_dataset_is_as_uninterrupted(tmp_path, kind, at):
    with pytest.raises(ZeroDivisionError): noisy_run(tmp_path/'a', kind, [Boom(*at)])
    resumed = noisy_run(tmp_path/'a', kind)
    after = random.random(), np.random.rand(), torch.rand(1).item()
    assert after == noisy_whole(kind)[1][:3]
    same(noisy_whole(kind)[0], resumed)

@pytest.mark.parametrize('every', [1, 5])
def test_resumed_at_the_end_of_an_epoch(tmp_path, every):
    "Five batches: of a loader without a length nobody knows that the fifth was the last, so there is a file from before a sixth"
    for kind, at in (('no length', 5 if every == 5 else 4), ('get_dls', 0 if every == 5 else 4)):
        with pytest.raises(ZeroDivisionError): noisy_run(tmp_path/kind, kind, [Boom(1, 0, False)], every)
        s = ck.load_checkpoint(tmp_path/kind)
        assert s['epoch'] == 1 and s['iter'] == (5 if kind == 'no length' else at)
        same(noisy_whole(kind)[0], noisy_run(tmp_path/kind, kind, every=every))

def test_a_loader_that_has_become_shorter(tmp_path):
    with pytest.raises(ZeroDivisionError): noisy_run(tmp_path/'a', 'no length', [Boom(1, 4)])
    with pytest.raises(ValueError, match='fewer than the 4 batches'): learner([*std_cbs(), ca.GradAccum(2)], dls=(NoLen(tr.DataLoader(Noisy(*data(17)[:]), 8)), loaders()[1]), model=nn.Sequential(nn.Dropout(.3), mlp(), nn.Dropout(.2)),
        opt_func=torch.optim.SGD).fit(3, cbs=[ck.Checkpoint(tmp_path/'a')])

@pytest.mark.skipif(os.name == 'nt', reason="workers are slow to start there")
def test_resumed_with_workers(tmp_path):
    "They draw their seeds where the epoch began, and draw anew what was drawn"
    def go(path, *cbs):
        torch.manual_seed(1)
        dl = tud.DataLoader(Plain(*data(37)[:]), 8, shuffle=True, num_workers=2)
        l = le.Learner(nn.Sequential(mlp(), nn.Dropout(.2)), (dl, None), F.cross_entropy, cbs=[le.Recorder()])
        l.fit(2, cbs=[*([ck.Checkpoint(path, 2)] if path else []), *cbs])
        return l
    with pytest.raises(ZeroDivisionError): go(tmp_path/'a', Boom(1, 3))
    same(go(None), go(tmp_path/'a'))

class Plain(tr.Dataset):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + .1*torch.randn(x.shape), y

class OldSave(le.Callback):
    "Writes what the first version wrote, when it did: without a digest, and with the random numbers from after the batch was drawn"
    order = -100
    def __init__(self, path, *at): self.path, self.at = path, at
    def before_epoch(self): self.rng = ca.get_rng(self.learn.dls)
    def before_batch(self):
        l = self.learn
        if not l.training or (l.epoch, l.iter) != self.at: return
        cb = ck.Checkpoint(self.path)
        cb.learn = l
        torch.save(dict(format='notes.learner 1', run=cb._run(), epoch=l.epoch, iter=l.iter, rng=ca.get_rng(l.dls), epoch_rng=self.rng, model=l.model.state_dict(), opt=l.opt.state_dict(), cbs=[c.state_dict() for c in cb._stateful()]), self.path)
        raise ZeroDivisionError

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('at', [(0, 0), (1, 0), (1, 3)], ids=str)
def test_a_file_of_the_first_version_goes_on_in_mid_epoch(tmp_path, kind, at):
    with pytest.raises(ZeroDivisionError): long_run(None, [OldSave(tmp_path/'a', *at)], kind=kind)
    same(whole(kind)[0], long_run(tmp_path/'a', kind=kind))

def test_saving_reads_no_random_numbers_that_nobody_asked_for(tmp_path, monkeypatch):
    "Without `every`: at the start of an epoch and at the end of the fit, however many batches there are"
    calls, real = [], ck.get_rng
    monkeypatch.setattr(ck, 'get_rng', lambda *a: (calls.append(1), real(*a))[1])
    counts = []
    for bs in (8, 1):
        calls.clear()
        learner(dls=loaders(bs=bs)).fit(2, cbs=[ck.Checkpoint(tmp_path/str(bs))])
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 7

def test_ratios_of_groups_survive_a_rate_of_zero(tmp_path):
    def go(path, *cbs):
        l = learner([le.Recorder()], opt_func=lambda ps, lr: torch.optim.SGD([dict(params=ps[:1], lr=lr/10), dict(params=ps[1:])], lr=lr))
        class Warm(le.Callback):
            def before_batch(self): self.learn.set_lr(.1*self.learn.iter)
        l.fit(2, cbs=[ck.Checkpoint(path), Warm(), *cbs])
        return [g['lr'] for g in l.opt.param_groups], weights(l.model)
    class Zero(le.Callback):
        order = 99
        def after_epoch(self): self.learn.set_lr(0.)
    with pytest.raises(ZeroDivisionError): go(tmp_path/'a', Zero(), Boom(1, 0))
    assert ck.load_checkpoint(tmp_path/'a')['opt']['param_groups'][1]['lr'] == 0
    a, b = go(tmp_path/'a'), go(tmp_path/'b')
    assert a[0] == b[0] and torch.equal(a[1], b[1])

# What would be lost is said ---------------------------------------------------------------------------------------------------------

class Count(le.Callback):
    n = 0
    def after_batch(self): self.n += 1

class Has(le.Callback):
    "A callback whose `x` is made by one function and, after every training step, changed by another"
    def __init__(self, x, change, **kw):
        self.x, self.change, self.config = x, change, dict(a=[1, 2], b=torch.ones(2))
        vars(self).update(kw)
    def after_step(self):
        self.last = self.learn.loss  # written anew before anybody reads it
        self.x = self.change(self.x) or self.x

@torch.no_grad()
def average(m):
    for p in m.parameters(): p.lerp_(torch.ones_like(p), .1)

HAS = {'number': (0., lambda x: x+1), 'list': ([], lambda x: x.append(1)), 'same length': ([1], lambda x: x.insert(0, x.pop()+1)), 'dict': ({}, lambda x: x.update(a=x.get('a', 0)+1)),
    'tensor': (torch.zeros(2), lambda x: x.add_(1) is None), 'module': (nn.Linear(2, 2), average), 'array': (np.zeros(2), lambda x: x.__iadd__(1) is None), 'python': (random.Random(0), lambda x: x.random() > 2),
    'numpy': (np.random.default_rng(0), lambda x: x.random() > 2), 'torch': (torch.Generator(), lambda x: torch.rand((), generator=x) > 2)}

@pytest.mark.parametrize('what', HAS)
@pytest.mark.parametrize('epochs,every', [(2, 0), (1, 2), (1, 0)])
def test_a_callback_that_would_forget_is_named(tmp_path, what, epochs, every):
    with pytest.warns(UserWarning, match='Has has no state_dict, but x changes') as w: learner([Has(*copy.deepcopy(HAS[what]))]).fit(epochs, cbs=[ck.Checkpoint(tmp_path/'a', every)])
    assert len(w) == 1

def test_a_number_of_the_class_is_state_too(tmp_path):
    with pytest.warns(UserWarning, match='Count has no state_dict, but n changes'): learner([Count()]).fit(1, cbs=[ck.Checkpoint(tmp_path/'a')])

@pytest.mark.filterwarnings('error')
def test_nobody_is_named_who_forgets_nothing(tmp_path):
    "What stays as it is; what is written before it is read; what belongs to the learner; who has a `state_dict`, or says that none is needed; all of ours"
    class Own(Count):
        def state_dict(self): return dict(n=self.n)
        def load_state_dict(self, s): self.n = s['n']
    class None_(Count): state_dict = None
    class Rows(le.Callback):  # begins anew in each epoch
        def before_epoch(self): self.rows = []
        def after_batch(self):
            if not self.learn.training: self.rows.append(1)
    class Sees(le.Callback):
        def before_fit(self): self.m, self.o, self.d, self.r, self.f = self.learn.model, self.learn.opt, self.learn.dls[0], self.learn.recorder, lambda x: x
    l = learner([*le.default_cbs(plot=False), ca.GradClip(1.), ca.GradAccum(2), ca.EarlyStopping(patience=9), Own(), None_(), Rows(), Sees()])
    for i, has in enumerate(([Has(1, lambda x: x)], [])): l.fit(2, cbs=[ck.Checkpoint(tmp_path/str(i), 2), *has])

def test_a_finished_run_says_that_there_is_nothing_to_do(tmp_path, capsys):
    def said(n):
        learner().fit(n, cbs=[ck.Checkpoint(tmp_path/'a')])
        return capsys.readouterr().out
    assert not said(2) and said(2) == f"{tmp_path/'a'} holds all 2 epochs: there is nothing to do\n" and not said(3) and 'all 3' in said(3)

# Files that are damaged, and disks --------------------------------------------------------------------------------------------------------

def read_or_refused(path, raw, state):
    "Is the file `raw` refused as a damaged checkpoint? What it gives is right, or the test fails"
    with open(path, 'r+b' if path.exists() else 'wb') as f: f.write(raw); f.truncate()
    try: s = ck.load_checkpoint(path)
    except ck.CheckpointError: return True
    assert s.keys() == state.keys() and all(torch.equal(s[k], v) if torch.is_tensor(v) else s[k] == v for k, v in state.items())
    return False

SMALL = dict(x=torch.tensor([1., 2.]), i=3, t='three')

def test_every_single_bit_flip_is_seen(tmp_path):
    "Of the whole file: content, names, the table at its end, the digest"
    p = tmp_path/'a'
    ck.save_checkpoint(p, SMALL)
    raw = bytearray(p.read_bytes())
    with open(p, 'r+b', buffering=0) as f:  # in place: to make a file anew takes a thousand times as long
        def put(i, byte): f.seek(i); f.write(bytes([byte]))
        for i in range(8*len(raw)):
            put(i//8, raw[i//8] ^ 1 << i%8)
            with pytest.raises(ck.CheckpointError): ck.load_checkpoint(p)
            put(i//8, raw[i//8])
    assert not read_or_refused(p, raw, SMALL)

def damaged(raw, rnd):
    "One of four damages, and sometimes two"
    n = len(raw)
    i, j, k = sorted(rnd.randrange(n) for _ in range(3))
    short = slice(i, min(n, i+rnd.randrange(1, 100)))
    bad = [raw[:i], raw[i:], raw[:i]+raw[j:], raw[:i]+rnd.randbytes(len(raw[short]))+raw[short.stop:], raw[:i]+bytes(len(raw[short]))+raw[short.stop:], raw[:i]+raw[j:k]+raw[i:j]+raw[k:], raw[:k]+raw[i:k]+raw[k:], raw+raw, raw+raw[i:]][rnd.randrange(9)]
    return damaged(bad, rnd) if rnd.random() < .2 and len(bad) > 9 else bad

def test_a_thousand_random_damages(tmp_path):
    "Truncated, overwritten, swapped, doubled, also where the digest is gone: every one is refused in words, or was none"
    p, rnd = tmp_path/'a', random.Random(0)
    with pytest.raises(ZeroDivisionError): learner(std_cbs()).fit(1, cbs=[ck.Checkpoint(p, 1), Boom(0, 1)])
    ck.save_checkpoint(tmp_path/'b', SMALL)
    for q in (p, tmp_path/'b'):
        raw = q.read_bytes()
        bads = [damaged(raw, rnd) for _ in range(500)] + [raw[:-77], raw[:-1], raw[:-77]+rnd.randbytes(77)]
        for bad in bads: assert read_or_refused(tmp_path/'c', bad, {}) if bad != raw else True

def test_a_bit_in_the_table_that_torch_believes(tmp_path):
    "The folder bit: PyTorch takes the part for empty, and gives what the memory held before. A file of the first version is read right all the same"
    p, x = tmp_path/'a', torch.arange(50.)
    torch.save(dict(format='notes.learner 1', x=x), p)
    raw, at = bytearray(p.read_bytes()), 0
    with zipfile.ZipFile(p) as z: names = z.namelist()
    for name in names:
        at = raw.index(b'PK\x01\x02', at+1)
        if name.endswith('/0'): raw[at+38] ^= 16
    p.write_bytes(raw)
    assert torch.equal(ck.load_checkpoint(p)['x'], x)

def test_a_digest_leaves_an_archive(tmp_path):
    ck.save_checkpoint(tmp_path/'a', SMALL)
    assert torch.equal(torch.load(tmp_path/'a', weights_only=True)['x'], SMALL['x']) and zipfile.ZipFile(tmp_path/'a').testzip() is None
    torch.save(SMALL, tmp_path/'b')
    with pytest.raises(ck.CheckpointError, match='has no digest'): ck.load_checkpoint(tmp_path/'b')

class Full:
    "A file on a disk that has room for so many bytes"
    def __init__(self, f, room): self.f, self.room = f, room
    def __enter__(self): return self
    def __exit__(self, *a): self.f.close()
    def write(self, b):
        self.room -= len(b)
        if self.room < 0: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.f.write(b)
    def __getattr__(self, name): return getattr(self.f, name)

@pytest.mark.parametrize('room', [0, 100, 1000, 3000])
def test_a_full_disk_is_said_and_nothing_stays_behind(tmp_path, monkeypatch, room):
    p = tmp_path/'a'
    ck.save_checkpoint(p, SMALL)
    raw = p.read_bytes()
    monkeypatch.setattr(ck, 'open', lambda path, mode: Full(open(path, mode), room) if 'w' in mode else open(path, mode), raising=False)
    with pytest.raises(OSError, match='No space left.*what was saved before is still there') as e: ck.save_checkpoint(p, dict(x=torch.zeros(1000)))
    assert e.value.errno == errno.ENOSPC and e.value.filename == str(p) and p.read_bytes() == raw and [f.name for f in tmp_path.iterdir()] == ['a']

def test_an_interrupted_save_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(ck, '_sync', lambda p: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): ck.save_checkpoint(tmp_path/'a', SMALL)
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('name', ['a', 'a.prev'])
def test_a_folder_is_refused_and_stays(tmp_path, name):
    (tmp_path/name/'mine').mkdir(parents=True)
    p = tmp_path/'a'
    for use in (lambda: learner().fit(1, cbs=[ck.Checkpoint(p, resume=False)]), lambda: ck.Checkpoint(p), lambda: ck.save_checkpoint(p, SMALL), lambda: ck.load_checkpoint(p)):
        with pytest.raises(ValueError, match='is a folder: pass the name of a file'): use()
    assert [f.name for f in tmp_path.iterdir()] == [name] and (tmp_path/name/'mine').is_dir()
    if os.name != 'nt':
        with pytest.raises(ValueError, match='no plain file'): ck.Checkpoint('/dev/null', resume=False)

def test_home_and_missing_folders(tmp_path, monkeypatch):
    for k in ('HOME', 'USERPROFILE'): monkeypatch.setenv(k, str(tmp_path))
    learner().fit(1, cbs=[ck.Checkpoint('~/runs/first/run.ckpt')])
    assert sorted(f.name for f in (tmp_path/'runs'/'first').iterdir()) == ['run.ckpt', 'run.ckpt.prev'] and ck.load_checkpoint('~/runs/first/run.ckpt')['epoch'] == 1
    (tmp_path/'file').write_text('x')
    with pytest.raises(OSError, match='could not be saved'): ck.save_checkpoint(tmp_path/'file'/'a', SMALL)
    with pytest.raises(FileNotFoundError, match='no checkpoint'): ck.load_checkpoint(tmp_path/'none'/'a')

def test_a_path_means_the_same_file_wherever_one_goes(tmp_path, monkeypatch):
    (tmp_path/'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path)
    class Goes(le.Callback):
        def before_epoch(self): os.chdir(tmp_path/'elsewhere')
    learner().fit(1, cbs=[ck.Checkpoint('a'), Goes()])
    assert sorted(f.name for f in tmp_path.iterdir()) == ['a', 'a.prev', 'elsewhere'] and not list((tmp_path/'elsewhere').iterdir())

@pytest.mark.skipif(os.name == 'nt', reason="links ask for rights there")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path/'big').mkdir()
    (tmp_path/'a').symlink_to(tmp_path/'big'/'run')
    for i in range(2): ck.save_checkpoint(tmp_path/'a', dict(i=i))
    assert (tmp_path/'a').is_symlink() and sorted(f.name for f in (tmp_path/'big').iterdir()) == ['run', 'run.prev'] and ck.load_checkpoint(tmp_path/'a') == dict(i=1)

def test_bad_settings_of_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match='every=-1'): ck.Checkpoint(tmp_path/'a', -1)
    with pytest.raises(ValueError, match='a Checkpoint already'): learner([ck.Checkpoint(tmp_path/'a')]).fit(1, cbs=[ck.Checkpoint(tmp_path/'b')])

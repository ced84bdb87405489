"What bench/gpu.py checks on a GPU, on a device that isn't there: nothing is left on the CPU, and the numbers are right"
import os, subprocess, sys
from types import SimpleNamespace
import pytest, torch
from elsewhere import elsewhere
from project import ROOT
if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
from bench import _checks as c
from notes import activations as ac, augmentation as au, callbacks as cb, learner as le, optimizers as op, training as tr

# It draws nothing, and autocast doesn't know it
UNKNOWN = 'drawn on the device', 'in autocast', 'get_rng, set_rng'

@pytest.mark.parametrize('name', [k for k in c.CHECKS if not k.endswith(UNKNOWN) and 'in autocast' not in k])
def test_a_check(name):
    f, (dtype, *_), errors = c.CHECKS[name]
    want = f(c.On('cpu', dtype, 0, exact=True))
    with elsewhere(): got = [t.cpu() for t in f(c.On('meta', dtype, 0))]
    assert c.error(got, want) <= errors[dtype]

def test_it_refuses_what_a_gpu_refuses():
    x, far = torch.arange(3.), None
    with elsewhere() as waits:
        far = x.to('meta')
        assert far.device.type == 'meta' and (far+1).tolist() == [1, 2, 3] and len(waits) == 2
        assert (far*torch.tensor(2.))[torch.tensor([0, 2])].cpu().equal(torch.tensor([0., 4]))
        for f in (lambda: far+x, lambda: x.add_(far), lambda: torch.cat([far, x]), lambda: torch.where(far > 0, far, x), lambda: far@x):
            with pytest.raises(RuntimeError): f()

@pytest.mark.parametrize('of', [c.OURS, c.nn], ids=['ours', 'nn'])
@pytest.mark.parametrize('how', ['plain', 'watched', 'augmented'])
def test_a_training_batch_waits_for_its_images_alone(of, how):
    "Not for a loss, a norm, a statistic or a mean of weights; random numbers that are drawn on the CPU are moved"
    cbs = {'plain': (), 'augmented': (au.Augment(au.flip, au.affine),),
           'watched': (ac.ActivationStats(), ac.UpdateStats(), cb.GradClip(1.), au.AveragedWeights(.9), op.Schedule(op.one_cycle), cb.GradAccum(2))}[how]
    got = []
    class Count(le.Callback):
        order = 1000
        def before_epoch(self): waits.clear()
        def after_batch(self):
            if self.learn.training: got.append([*waits])
            waits.clear()
    with elsewhere() as waits:
        l = c.learner(c.On('meta', torch.float32, 0), of, [*cbs, Count()])
        l.fit(2)
    moved = ['learner.py:before_batch']*2 + ['augmentation.py:_draw']*2*(how == 'augmented')
    assert len(got) == 10 and {*map(tuple, got)} == {tuple(f'a tensor is moved in {w}' for w in moved)}

def test_sums_of_a_checkpoint_with_no_batch_left():
    "They are on the CPU, and the step that is due at an epoch's end takes them"
    with elsewhere():
        l = c.learner(c.On('meta', torch.float32, 0), c.OURS, [acc := cb.GradAccum(2)])
        acc.load_state_dict(dict(sums=[torch.ones(p.shape) for p in l.model.parameters()], items=2, batches=1))
        with l._with_cbs([]): acc.after_train()
        grads = [p.grad for p in l.model.parameters()]
    assert grads and all(g.device.type == 'meta' and g.near.eq(.5).all() for g in grads)

def test_a_state_of_more_gpus_than_there_are(monkeypatch):
    "A run that was saved where there were four goes on where there are two"
    done = []
    monkeypatch.setattr(cb, '_gpus', lambda: (True, False))
    for k, f in dict(device_count=lambda: 2, get_rng_state_all=lambda: [torch.tensor([i], dtype=torch.uint8) for i in range(4)], set_rng_state=lambda s, i: done.append((s.item(), i))).items():
        monkeypatch.setattr(torch.cuda, k, f)
    g = torch.Generator().manual_seed(1)
    state = cb.get_rng([SimpleNamespace(generator=g)])
    cb.set_rng(state, [SimpleNamespace(generator=g)])
    assert done == [(0, 0), (1, 1)]
    monkeypatch.setattr(cb, '_gpus', lambda: (False, False))
    cb.set_rng(state, [SimpleNamespace(generator=g)])
    assert len(done) == 2

def test_what_is_made_lies_where_notes_device_says():
    "In a process of its own: numbers, what a generator of the CPU draws, and PyTorch's loaders as they were"
    code = '''import torch, where
from notes import training as tr
g = torch.Generator().manual_seed(0)
for t in (torch.ones(2), torch.tensor([1.]), torch.arange(3), torch.randn(3, generator=g), torch.zeros(2, dtype=torch.float64)): assert t.is_meta
assert not torch.ones(2, device='cpu').is_meta and not torch.as_tensor(torch.ones(2, device='cpu')).is_meta
x = torch.ones(4, 1, device='cpu')
for dl in tr.get_dls(tr.Dataset(x, x), tr.Dataset(x, x), 2, seed=0)[1:]: assert [len(xb) for xb, _ in dl] == [2, 2]
'''
    env = {**os.environ, 'NOTES_DEVICE': 'meta', 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT/'tests')])}
    r = subprocess.run([sys.executable, '-c', code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert not r.returncode, r.stderr

"Small fits that the tests of the learner, its callbacks and its checkpoints share"
import os, random, subprocess, sys, textwrap
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from project import ROOT
from notes import learner as le, modules as mo, training as tr

F64 = torch.float64

def data(n=37, n_in=6, c=3, dtype=F64):
    g = torch.Generator().manual_seed(1)
    return tr.Dataset(torch.randn(n, n_in, generator=g, dtype=dtype), torch.randint(c, (n,), generator=g))

class Noisy(tr.Dataset):
    "Draws noise for every item or batch from all generators there are, three of its own"
    def __init__(self, *args):
        super().__init__(*args)
        self.gen, self.rng, self.random = torch.Generator().manual_seed(4), np.random.default_rng(4), random.Random(4)
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + .1*torch.randn(x.shape) + .1*torch.randn(x.shape, generator=self.gen) + .1*(random.random()+np.random.rand()+self.rng.random()+self.random.random()), y

class NoLen:
    "A loader that can't say how many batches it gives"
    def __init__(self, dl): self.dl, self.dataset = dl, getattr(dl, 'dataset', None)
    def __iter__(self): return iter(self.dl)

def loaders(n=37, bs=8, seed=3, **kw): return tr.get_dls(data(n, **kw), data(11, **kw), bs, seed=seed)

def mlp(seed=0, nh=5):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, nh), nn.ReLU(), nn.Linear(nh, 3)).double()

def ours(seed=0, nh=5):
    torch.manual_seed(seed)
    return mo.Sequential(mo.Linear(6, nh), mo.ReLU(), mo.Linear(nh, 3)).to(F64)

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

def start(body, module='fits', **kw):
    "A process of its own that runs python code; `module`, of this folder, is `t` there"
    head = f"import sys; sys.path.insert(0, {str(ROOT/'tests')!r})\nimport os, signal, torch, {module} as t\nfrom notes import learner as le, training as tr\n"
    return subprocess.Popen([sys.executable, '-c', head + textwrap.dedent(body)], cwd=ROOT, env={**os.environ, 'PYTHONPATH': os.environ.get('PYTHONPATH') or str(ROOT), 'PYTHONUNBUFFERED': ''}, **kw)

class Shapes(nn.Module):
    "A loss that looks at no value, with a weight of its own"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3).double())
    def forward(self, pred, targ): return (pred*self.w).mean() + targ.double().mean()*0

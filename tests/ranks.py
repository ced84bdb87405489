"What each rank of test_distributed.py does: run by `launch`, or without a launcher, in one process"
import os, signal, sys
from pathlib import Path
import numpy as np
import torch, torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils import data as tud
from fits import data, learner, loaders, mlp, ours, weights
from notes import callbacks as ca, checkpoints as ck, distributed as di, learner as le, modules as mo, training as tr

class Seen(le.Callback):
    "Loss, and the items of all ranks, of every batch"
    order = -105
    def __init__(self): self.batches, self.rows = [], []
    def after_predict(self):
        l = self.learn
        if not l.training: return
        x = l.xb[:l.items, 0].tolist()
        self.batches.append(sum(di.from_all(x), []) if dist.is_initialized() else x)

def cbs(*more): return [seen := Seen(), le.Metrics(accuracy=tr.accuracy), le.Recorder(), di.Distributed(), *more], seen

def fit(model, dls, epochs=4, more=(), loss=None, opt=tr.SGD, lr=.3, seed=1):
    "Everything that a fit leaves behind"
    torch.manual_seed(seed)
    all_, seen = cbs(*more)
    loss = loss or (tr.CrossEntropy() if isinstance(model, mo.Module) else F.cross_entropy)
    l = le.Learner(model, dls, loss, opt, lr, all_)
    l.fit(epochs)
    return l, dict(weights=weights(l.model), losses=l.recorder.losses, epochs=l.recorder.epochs, batches=seen.batches, items=l.recorder.items)

def torch_loaders(n, bs=8, **kw):
    ds = [tud.TensorDataset(*data(k)[:]) for k in (n, 11)]
    return tuple(tud.DataLoader(d, bs, shuffle=i == 0, **kw) for i, d in enumerate(ds))

class Stream(tud.IterableDataset):
    def __iter__(self): return iter(zip(*data(37)[:]))

def own(n): return tuple(tr.DataLoader(data(k), 8, shuffle=k == n) for k in (n, 11))
def lists(n, bs=8): return tuple([(x, y) for x, y in tr.DataLoader(data(k), bs)] for k in (n, 11))
def sgd(ps, lr): return torch.optim.SGD(ps, lr, momentum=.9)

def equal():
    "What must be the same for any number of processes"
    out = {}
    for k, m in (('ours', ours), ('nn', mlp)):
        out[k] = fit(m(), loaders(37))[1]
        out[k+', one left'] = fit(m(), loaders(33))[1]
        out[k+', fewer than ranks'] = fit(m(), loaders(5, 2))[1]
        out[k+', accumulated'] = fit(m(), loaders(33), more=[ca.GradAccum(2), ca.GradClip(.5)])[1]
    out['clipped'] = fit(ours(), loaders(37), more=[ca.GradClip(.5)])[1]
    for k, dls in (('own', own(37)), ("torch's", torch_loaders(37)), ('a list', lists(37)), ('a stream', (tud.DataLoader(Stream(), 8), None))):
        out[k] = fit(mlp(), dls, opt=sgd, lr=.05)[1]
    return out

if __name__ == '__main__':
    torch.set_num_threads(1)
    what, folder = sys.argv[1:3]
    rank, size = di.join(30)
    res = globals()[what]()
    torch.save(res, Path(folder)/f'{what}-{size}-{rank}.pt')

"What each rank of test_distributed.py does: run by `launch`, or without a launcher, in one process"
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import torch, torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils import data as tud
from fits import data, loaders, mlp, ours, weights
from notes import callbacks as ca, checkpoints as ck, distributed as di, learner as le, modules as mo, training as tr

try: from torch.distributed.fsdp import fully_shard
except ImportError: fully_shard = None  # before PyTorch 2.6

class Seen(le.Callback):
    "Loss, and the items of all ranks, of every batch"
    order, state_dict = -105, None
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

def own(n, m=11): return tuple(tr.DataLoader(data(k), 8, shuffle=k == n) for k in (n, m))
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

class Die(le.Callback):
    order = -105
    def __init__(self, rank, epoch, i): self.at = rank, epoch, i
    def before_batch(self):
        l = self.learn
        if l.training and (l.rank, l.epoch, l.iter) == self.at: os.kill(os.getpid(), signal.SIGKILL if os.name != 'nt' else signal.SIGTERM)

def run(kind, folder=None, die=()):
    "A fit with momentum, accumulation and a checkpoint"
    more = [ca.GradAccum(2), ca.EarlyStopping()] if kind == 'nn' else []
    if folder: more.append(ck.Checkpoint(Path(folder)/f'{kind}.pt', every=2))
    return fit(mlp() if kind == 'nn' else ours(), loaders(37), more=[*more, *die], opt=sgd if kind == 'nn' else tr.SGD, lr=.05)[1]

def killed(folder):
    "The first run is done, the second dies in its second epoch, on rank 2"
    run('nn', folder, [Die(2, 1, 3)] )
def resumed(folder): return {k: run(k, folder) for k in ('nn', 'ours')}

def hangs():
    if di.join()[0]: time.sleep(100)
    fit(mlp(), loaders(37))

# What one process can't show, or shows otherwise ---------------------------------------------------------------------------------

def raised(f, *errors):
    "What `f` raises, as text"
    try: f()
    except errors or Exception as e: return f'{type(e).__name__}: {e}'

class Draws(le.Callback):
    "Numbers of the global generators, which dropout and augmentation draw from"
    state_dict = None
    def before_fit(self): self.got = []
    def before_batch(self):
        if self.learn.training: self.got.append((torch.rand(()).item(), random.random(), np.random.rand()))

class Boom(le.Callback):
    def before_batch(self):
        l = self.learn
        if l.training and (l.epoch, l.iter) == (2, 3): raise ZeroDivisionError

class Local(le.Callback):
    "A metric that each rank sees otherwise"
    order = -15
    def after_epoch(self): self.learn.metrics['mine'] = float(1+self.learn.epoch)**(1-2*self.learn.rank)

class Sums(le.Callback):
    "How many sums over all ranks there were of more than one number"
    state_dict = None
    def before_fit(self):
        self.n, self.real = 0, dist.all_reduce
        def count(x, *args, **kw):
            self.n += x.numel() > 1
            return self.real(x, *args, **kw)
        dist.all_reduce = count
    def cleanup_fit(self): dist.all_reduce = self.real

def noisy(bn=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), *([nn.BatchNorm1d(5)] if bn else []), nn.ReLU(), nn.Dropout(.3), nn.Linear(5, 3)).double()

class Spare(nn.Module):
    "A model with a part that no batch uses"
    def __init__(self):
        super().__init__()
        self.body, self.spare = mlp(), nn.Linear(2, 2).double()
    def forward(self, x): return self.body(x)

def shard(model):
    "Parameters in parts, one on each rank, where there are several"
    if dist.is_initialized():
        from torch.distributed.device_mesh import init_device_mesh
        mesh = init_device_mesh('cpu', (dist.get_world_size(),))
        for m in model:
            if isinstance(m, nn.Linear): fully_shard(m, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model

def whole(l): return torch.cat([(p.full_tensor() if hasattr(p, 'full_tensor') else p).detach().flatten() for p in l.model.parameters()])

def sharded():
    if fully_shard is None: return {}
    out = {}
    for k, more in (('plain', []), ('clipped', [ca.GradClip(.5)]), ('accumulated', [ca.GradAccum(2)])):
        torch.manual_seed(1)
        all_, seen = cbs(*more)
        l = le.Learner(shard(mlp()), loaders(33), F.cross_entropy, sgd, .1, all_)
        l.fit(4)
        out[k] = dict(weights=whole(l), losses=l.recorder.losses, epochs=l.recorder.epochs)
    return out

def others(shards=True):
    out = dict(sharded=sharded()) if shards else {}
    for k, m in (('ours', ours), ('nn', mlp)):
        l = fit(m(), loaders(33), 1)[0]
        before = weights(l.model)
        finder = l.lr_find(n=60)
        out[k+' finder'] = dict(losses=finder.losses, suggestion=finder.suggestion, kept=torch.equal(before, weights(l.model)))
        out[k+' preds'] = [*l.get_preds(), *l.get_preds(tr.DataLoader(data(37), 9))]
        out[k+' fits on'] = (l.fit(1, .1), weights(l.model))[1]
    out['unused'] = fit(Spare(), loaders(37), more=[], opt=tr.SGD)[1] if not dist.is_initialized() else unused()
    return out

def unused():
    torch.manual_seed(1)
    l = le.Learner(Spare(), loaders(37), F.cross_entropy, tr.SGD, .3, [le.Recorder(), di.Distributed(find_unused_parameters=True)])
    l.fit(4)
    return dict(weights=weights(l.model), losses=l.recorder.losses)

def several(folder):
    "What is of several processes only"
    out, rank = {}, di.join()[0]
    draws = Draws()
    l, out['noisy'] = fit(noisy(), loaders(37), more=[draws])
    out['draws'], out['buffers'] = draws.got, [b.clone() for b in l.model.buffers()]
    out.update(broken(folder))
    out['stopped'] = stopped()
    for k, m in (('ours', ours), ('nn', mlp)):
        for n in (1, 2):
            s = Sums()
            fit(m(), loaders(37), 1, more=[s]+[ca.GradAccum(n)]*(n > 1))
            out[f'sums {k} {n}'] = s.n
    out['errors'] = [
        raised(lambda: fit(ours(), loaders(37), more=[ca.GradAccum(2), ck.Checkpoint(Path(folder)/'no.pt', every=3)])),
        raised(lambda: fit(ours(nh=5+rank), loaders(37))),
        raised(lambda: fit(ours(), loaders(37+8*rank))),
        raised(lambda: fit(ours(), loaders(37), more=[di.Distributed()])),
        raised(lambda: fit(mlp(), loaders(37), more=[ck.Checkpoint(Path(folder)/str(rank)/'own.pt')])),
        raised(lambda: fit(mlp(), loaders(37), 5, more=[ck.Checkpoint(Path(folder)/str(rank)/'own.pt')]))]
    if fully_shard: out['errors'].append(raised(lambda: fit(shard(mlp()), loaders(37), more=[ck.Checkpoint(Path(folder)/'no.pt')])))
    l = le.Learner(ours(), loaders(37), tr.CrossEntropy(), cbs=[*le.default_cbs(), di.Distributed()])
    l.fit(2)
    out['shows'] = [type(cb).__name__ for cb in l.cbs]
    return out

def broken(folder):
    "A fit with random numbers, whole; and one that breaks off and goes on"
    out = {}
    for k, more in (('', ()), (' cut', (Boom(),)), (' on', ())):
        extra = [ck.Checkpoint(Path(folder)/f'noisy{not k}.pt', every=2), Draws(), *more]
        raised(lambda: out.update({'noise'+k: fit(noisy(False), loaders(37), more=extra)[1]}), ZeroDivisionError)
    return out

class Grow(le.Callback):
    "A state, on rank 0 alone"
    on_all, n = False, 0
    def after_batch(self): self.n += 1
    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, state): self.n = state['n']

class Stop(le.Callback):
    def after_batch(self):
        if self.learn.training and self.learn.iter == 2: raise le.CancelFit

class More(le.Callback):
    "Adds to the loss"
    def after_loss(self):
        if self.learn.training: self.learn.loss = self.learn.loss+100

class Numpy(le.Callback):
    state_dict = None
    def __init__(self): self.got = []
    def before_fit(self): self.got.append(np.random.rand())

class Short(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()
        self.register_buffer('short', torch.tensor(3, dtype=torch.int16))
    def forward(self, x): return self.body(x)

def decayed(ps, lr): return torch.optim.SGD(ps, lr, momentum=.9, weight_decay=.1)

def alike():
    "In short, for any number of processes: what a callback adds to a loss; a part that no batch uses, with accumulation and decay; loaders that are gone after the call"
    l, more = fit(mlp(), own(9, 9), 1, more=[More()])
    ds = data(9)
    return {'more loss': more, 'spare': fit(Spare(), own(35, 9), 2, more=[ca.GradAccum(2)], opt=decayed, lr=.1)[1],
            'made in the call': torch.cat([l.get_preds(tr.DataLoader(tr.Dataset(ds.x+i, ds.y), 4))[0] for i in range(4)])}

def apart(folder):
    "What ranks would do each for itself, or be refused"
    rank, x, out = di.join()[0], data(11).x, {}
    def mine(m):
        with torch.no_grad(): return m.eval()(x)
    learn = lambda m, dls, *more: le.Learner(m, dls, F.cross_entropy, tr.SGD, .1, [di.Distributed(), *more])
    for k, m, more, epochs in (('never fitted', mlp(seed=rank), [], 0), ('cancelled', noisy(), [Stop()], 1), ('cancelled in a group', noisy(), [Stop(), ca.GradAccum(2)], 1)):
        l = learn(m, own(37), *more)
        if epochs: l.fit(epochs)
        own_model = mine(m)
        out[k] = l.get_preds(tr.DataLoader(data(11), 4))[0], own_model, mine(m)
    l = learn(mlp(), loaders(37), draws := Numpy())
    for _ in range(2): l.fit(1)
    out['numpy'] = draws.got
    file = Path(folder)/'grow.pt'
    for n in (1, 2):
        grow = Grow()
        out['grown'] = raised(lambda: fit(mlp(), loaders(37), n, more=[grow, ck.Checkpoint(file)])) or grow.n
    torch.manual_seed(rank)
    split, ds = tud.random_split(tud.TensorDataset(*data(40)[:]), [30, 10]), tud.TensorDataset(*data(40)[:])
    out['errors'] = [
        raised(lambda: learn(Short(), loaders(37), ca.GradAccum(2)).fit(1)),  # DistributedDataParallel can't
        raised(lambda: learn(mlp(), [tud.DataLoader(d, 8) for d in split]).fit(1)),
        raised(lambda: learn(mlp(), (own(37)[0], tr.DataLoader(tr.Dataset(x, data(11).y.roll(rank)), 8))).fit(1)),
        raised(lambda: learn(mlp(), (tud.DataLoader(ds, 8, sampler=tud.DistributedSampler(ds, 2, rank)), None)).fit(1)),
        raised(lambda: learn(mlp(), loaders(37), *[Numpy()]*(rank == 0)).fit(1))]
    return out

def stopped(): return len(fit(mlp(), loaders(37), 6, more=[Local(), ca.EarlyStopping('mine', patience=1)])[1]['epochs'])

def quick(folder):
    "Much of the above, in few steps"
    rank, sums = di.join()[0], Sums()
    l, out = fit(mlp(), own(35, 9), 2)
    out = dict(nn=out, alike=alike(), preds=l.get_preds()[0], ours=fit(ours(), own(35, 9), 2)[1], accumulated=fit(ours(), own(33, 9), 2, more=[ca.GradAccum(2), *([sums] if dist.is_initialized() else [])])[1])
    if not dist.is_initialized(): return out
    out['apart'] = apart(folder)
    l = fit(noisy(), own(37), 2, more=[draws := Draws()])[0]
    fit(mlp(), loaders(37), 1, more=[ck.Checkpoint(Path(folder)/str(rank)/'own.pt')])
    noise = broken(folder)
    return {**out, 'sums': sums.n, 'draws': draws.got, 'buffers': [b.clone() for b in l.model.buffers()], 'stopped': stopped(), **{k: v['weights'] for k, v in noise.items()}}

if __name__ == '__main__':
    torch.set_num_threads(1)
    what, folder = sys.argv[1], Path(sys.argv[2])
    rank, size = di.join(6 if what == 'hangs' else 60)
    save = lambda res, name=what: torch.save(res, folder/f'{name}-{rank}.pt')
    if what == 'four':
        norm = fit(noisy(), loaders(37))[1]  # 5 items are left for the last batch
        save(dict(equal=equal(), norm=norm))
        killed(folder)
    elif what == 'two': save(dict(equal=equal(), resumed=resumed(folder), others=others(), several=several(folder), alike=alike(), apart=apart(folder)))
    else: hangs()

"What the processes of test_parallel.py run: a new process imports this and little else"
import os, signal, sys, threading, time
import torch
from torch import nn
from notes import modules as mo, parallel as pa, training as tr

F64 = torch.float64
LOCK = threading.Lock()  # threads share PyTorch's generator
WAYS = [pa.all_reduce_direct, pa.all_reduce_tree, pa.all_reduce_ring]
SHAPES, DTYPES = [(), (1,), (3,), (4, 5), (1000, 7)], [torch.float64, torch.float32, torch.bfloat16, torch.int64]

def number(shape, dtype, rank):
    g = torch.Generator().manual_seed(rank)
    return (torch.rand(shape, generator=g, dtype=F64)*100).to(dtype)

def sums(group, all_reduce, shape, dtype):
    group.sent = group.steps = 0
    x = number(shape, dtype, group.rank)
    assert all_reduce(x, group) is x
    return x, group.sent, group.steps

def net(kind):
    of = mo if kind == 'ours' else nn
    with LOCK:
        torch.manual_seed(3)
        return of.Sequential(of.Linear(6, 7), of.ReLU(), of.Linear(7, 4)).to(F64)

def digits(n, seed=5):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=g, dtype=F64), torch.randint(4, (n,), generator=g)

def train_nn(group, model, x, y, batch, lr, size):
    "`parallel._train` for an `nn.Module`"
    opt, buckets, losses = torch.optim.SGD(model.parameters(), lr), pa.Buckets(model.parameters(), pa.Background(group), size), []
    buckets.watch(model)
    for xb, yb in zip(x.split(batch), y.split(batch)):
        mine, targ = (t.tensor_split(group.size)[group.rank] for t in (xb, yb))
        opt.zero_grad()
        loss = xb.new_zeros(())
        if len(mine):
            loss = nn.functional.cross_entropy(model(mine), targ)*len(mine)/len(xb)
            loss.backward()
        buckets.finish()
        opt.step()
        losses.append(pa.all_reduce_ring(loss.detach(), group).item())
    return losses, model.state_dict()

TRAINING = dict(ours=pa._train, nn=train_nn)

def trained(group, kind, batch=8, n=154, size=200): # 20 batches, the last one of two
    return TRAINING[kind](group, net(kind), *digits(n), batch, .2, size)

def everything(group, xs):
    "What one start of processes proves"
    xs.add_(1)  # a copy, so that nobody else sees it
    x, y = torch.full((500_000,), float(group.rank)), torch.zeros(500_000)
    if group.size > 1: group.exchange(x, (group.rank+1)%group.size, y, (group.rank-1)%group.size)
    return dict(pid=os.getpid(), xs=xs, left=y[0].item(), threads=torch.get_num_threads(),
                sums=[sums(group, f, shape, dtype) for f in WAYS for shape in SHAPES for dtype in DTYPES],
                trained={kind: trained(group, kind) for kind in TRAINING})

def waits(group): group.recv(torch.zeros(1), 1-group.rank)

def killed(group):
    if group.rank == 1: os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))
    pa.all_reduce_ring(torch.ones(9), group)

def killed_in_background(group):
    if group.rank == 1: os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))
    pa.Background(group)(torch.ones(9)).wait()

def raises(group):
    if group.rank == 1: raise KeyError('no such digit')
    pa.all_reduce_ring(torch.ones(9), group)

def exits(group):
    if group.rank == 0: sys.exit(7)
    waits(group)

def returns_what_cannot_be_sent(group):
    return (lambda: 1) if group.rank == 1 else 1

def send_first(group, n=5_000_000):
    x = torch.zeros(n)
    group.send(x, 1-group.rank)
    group.recv(x, 1-group.rank)

def sleeps(group, path=None):
    if path: (path/str(group.rank)).write_text(str(os.getpid()))
    time.sleep(600)

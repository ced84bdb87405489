"""A device that isn't there, with numbers all the same

Tensors `to('meta')` within `elsewhere()` keep their numbers on the CPU, say that they lie on the device 'meta', and refuse to meet a tensor of the CPU, as on a GPU: but for one of a single number without axes,
and for indices. `waits` has a line for each time that the processor would wait for a GPU: for a number that is read, a tensor that is moved.
"""
import traceback, warnings
from contextlib import contextmanager
from pathlib import Path
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from project import ROOT

aten = torch.ops.aten
INDEX = aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_
READ = aten._local_scalar_dense, aten.equal, aten.nonzero, aten.is_nonzero, aten.masked_select, aten._unique2, aten.bincount
waits = []

def wait(what):
    where = [f'{Path(f.filename).name}:{f.name}' for f in traceback.extract_stack() if Path(f.filename).parent == ROOT/'notes']
    waits.append(f"{what} in {where[-1] if where else 'nothing of ours'}")

class Far(torch.Tensor):
    "A tensor elsewhere; its numbers are in `near`"
    __torch_function__ = torch._C._disabled_torch_function_impl
    @staticmethod
    def __new__(cls, near):
        res = torch.Tensor._make_wrapper_subclass(cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, layout=near.layout, device='meta')
        res.near = near
        return res
    def __init__(self, near): pass
    def __repr__(self): return f'Far({self.near})'
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return call(func, args, kwargs or {})
    def tolist(self):
        wait('numbers are read')
        return self.near.tolist()
    def __reduce_ex__(self, protocol): return self.near.__reduce_ex__(protocol)
    def __deepcopy__(self, memo):
        if id(self) not in memo:
            res = Far(self.near.clone())
            memo[id(self)] = torch.nn.Parameter(res, self.requires_grad) if isinstance(self, torch.nn.Parameter) else res
        return memo[id(self)]

def is_far(o): return isinstance(o, Far)
def near(o): return o.near if is_far(o) else o
def is_there(device): return torch.device(device).type == 'meta'

def moved(func, args, kwargs):
    x, device = args[0], kwargs.pop('device', None)
    to_far = is_far(x) if device is None else is_there(device)
    if is_far(x) != to_far: wait('a tensor is moved')
    res = func(near(x), **kwargs)
    return Far(res) if to_far else res

def copied(args):
    a, b = args[:2]
    if is_far(a) != is_far(b): wait('a tensor is moved')
    aten.copy_(near(a), near(b))
    return a

def refuse_to_meet(func, args, kwargs):
    tensors, index = [o for o in tree_leaves((args, kwargs)) if isinstance(o, torch.Tensor)], func.overloadpacket in INDEX
    if not any(map(is_far, tensors)): return False
    for t in tensors:
        if is_far(t): continue
        if t.ndim and not (index and not t.is_floating_point()): raise RuntimeError(f'{func}: a tensor of the CPU, {tuple(t.shape)}, meets one elsewhere')
        if index: wait('an index is moved')
    if args and isinstance(args[0], torch.Tensor) and not is_far(args[0]) and func._schema.name.endswith('_'): raise RuntimeError(f'{func}: from elsewhere into a tensor of the CPU')
    return True

def call(func, args, kwargs):
    name = func.overloadpacket
    if name is aten._to_copy: return moved(func, args, {**kwargs})
    if name is aten.copy_: return copied(args)
    there, device = refuse_to_meet(func, args, kwargs), kwargs.get('device')
    if there and name in READ: wait('a number is read')
    if device is not None: there, kwargs = is_there(device), {**kwargs, 'device': torch.device('cpu')}
    out = func(*tree_map(near, args), **tree_map(near, kwargs))
    if not there: return out
    same = {id(t.near): t for t in tree_leaves((args, kwargs)) if is_far(t)}  # what works in place gives back what it was given
    return tree_map(lambda o: same.get(id(o), Far(o)) if isinstance(o, torch.Tensor) else o, out)

class Calls(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None): return call(func, args, kwargs or {})

class Made(TorchFunctionMode):
    "`tensor` and `as_tensor` go to a device by a way that no `Calls` sees"
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        device = kwargs.get('device')
        if func not in (torch.tensor, torch.as_tensor) or device is None or not is_there(device): return func(*args, **kwargs)
        del kwargs['device']
        return args[0].to(device, kwargs.get('dtype')) if isinstance(args[0], torch.Tensor) else func(*args, **kwargs).to(device)

@contextmanager
def elsewhere():
    load = torch.load
    def without_modes(*args, **kwargs):
        with _disable_current_modes(): return load(*args, **kwargs)
    torch.load = without_modes
    waits.clear()
    try:
        with Calls(), Made(), warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='.*meta.*')
            yield waits
    finally: torch.load = load

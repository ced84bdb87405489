"""Has what is made without a device lie on the one that `NOTES_DEVICE` names, from when this is imported

As `torch.set_default_device` does, but that what a generator of the CPU draws is drawn there and moved, and PyTorch's loaders are left alone.
"""
import os, sys
from pathlib import Path
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

DEVICE, LOADERS = torch.device(os.environ['NOTES_DEVICE']), Path(torch.utils.data.__file__).parent

class There(TorchFunctionMode):
    made = _device_constructors()
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in self.made or kwargs.get('device') is not None or LOADERS in Path(sys._getframe(1).f_code.co_filename).parents: return func(*args, **kwargs)
        if func is torch.as_tensor and args and isinstance(args[0], torch.Tensor): return func(*args, **kwargs)
        if (g := kwargs.get('generator')) is not None and g.device.type == 'cpu': return func(*args, **kwargs).to(DEVICE)
        return func(*args, **{**kwargs, 'device': DEVICE})

if DEVICE.type != 'cpu': There().__enter__()

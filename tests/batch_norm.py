"A batch norm in few lines, as notebook 08 will have it: what `Module` must be able to hold"
import torch
from torch import nn
from notes.modules import Module, accumulate_grad

class BatchNorm(Module):
    "`nn.BatchNorm1d`, with a gradient of its own"
    def __init__(self, n, eps=1e-5, momentum=.1):
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = (nn.Parameter(t, requires_grad=False) for t in (torch.ones(n), torch.zeros(n)))
        for k, t in dict(running_mean=torch.zeros(n), running_var=torch.ones(n), num_batches_tracked=torch.tensor(0)).items(): self.register_buffer(k, t)
    def forward(self, x):
        m, v = (x.mean(0), x.var(0, correction=0)) if self.training else (self.running_mean, self.running_var)
        if self.training:
            self.num_batches_tracked += 1
            for r, new in ((self.running_mean, m), (self.running_var, v*len(x)/(len(x)-1))): r.lerp_(new.detach(), self.momentum)
        std = (v + self.eps).sqrt()
        self.save_for_backward((x - m)/std, std, self.training)
        return (x - m)/std*self.weight + self.bias
    def bwd(self, g, x_hat, std, training):
        accumulate_grad(self.weight, (g*x_hat).sum(0))
        accumulate_grad(self.bias, g.sum(0))
        g = g*self.weight
        return (g - g.mean(0) - x_hat*(g*x_hat).mean(0))/std if training else g/std

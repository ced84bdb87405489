"What the tests draw: sizes, seeds, and random tensors in the layouts that callers have"
import torch
from hypothesis import settings, strategies as st

F64 = torch.float64
some = settings(deadline=None, max_examples=25)
sizes = st.one_of(st.just(1), st.integers(1, 40))
seeds = st.integers(0, 2**31)
# What callers get by transposing, slicing with a step, or flipping a stride to 0.
layouts = st.sampled_from(['contiguous', 'transposed', 'strided', 'expanded'])

def gen(seed=0): return torch.Generator().manual_seed(seed)

def laid_out(draw, shape, layout='contiguous'):
    "A tensor of `shape` that `draw(*shape)` fills, in a layout"
    if layout == 'transposed' and len(shape) > 1: return draw(*shape[::-1]).permute(*range(len(shape))[::-1])
    if layout == 'strided' and shape: return draw(*shape[:-1], 2*shape[-1])[..., ::2]
    if layout == 'expanded' and shape: return draw(1, *shape[1:]).expand(shape)
    return draw(*shape)

def randn(*shape, seed=0, layout='contiguous', dtype=None):
    g = gen(seed)
    return laid_out(lambda *s: torch.randn(*s, generator=g, dtype=dtype), shape, layout)

"Dropout, forward and backward, beside PyTorch's, and in the loop"
import copy, math, pickle
import numpy as np, pytest, torch, torch.nn.functional as F
from hypothesis import given, strategies as st
from torch import nn
from draws import F64, gen, layouts, randn, seeds, sizes, some
from notes import callbacks as ca, checkpoints as ck, fully_connected as fc, learner as le, modules as mo, overfitting as ov, training as tr

DTYPES = pytest.mark.parametrize('dtype', [torch.float32, F64, torch.float16, torch.bfloat16])
PS = pytest.mark.parametrize('p', [0, .1, .5, .9, 1])

def theirs(z, p, seed=7):
    torch.manual_seed(seed)
    return F.dropout(z, p)

# The functions ----------------------------------------------------------------------------------------------------------------------

@some
@given(n=sizes, m=sizes, p=st.floats(0, 1), layout=layouts, seed=seeds)
def test_what_is_left_is_scaled(n, m, p, layout, seed):
    x = randn(n, m, seed=seed, layout=layout, dtype=F64)
    before = x.clone()
    y, mask = ov.dropout(x, p, gen(seed))
    assert x.equal(before) and (y.shape, y.dtype, mask.shape, mask.dtype) == (x.shape, F64, x.shape, F64)
    assert y.equal(x*mask) and y.isfinite().all()
    assert all(v == 0 or p < 1 and math.isclose(v, 1/(1-p), rel_tol=1e-15) for v in mask.unique().tolist())

@PS
@DTYPES
def test_with_the_same_mask_output_and_gradient_are_pytorchs_bit_for_bit(p, dtype):
    x, g = randn(2, 60, 7, dtype=F64).to(dtype)
    mask = theirs(torch.ones_like(x), p)  # the mask that PyTorch draws
    leaf = x.clone().requires_grad_()
    out = theirs(leaf, p)
    out.backward(g)
    assert out.detach().equal(x*mask) and leaf.grad.equal(ov.dropout_backward(g, mask))
    ours = ov.dropout(torch.ones(2000, dtype=dtype), p, gen())[1]
    wanted = theirs(torch.ones(2000, dtype=dtype), p)
    assert ours.dtype == dtype and {*ours.tolist()} == {*wanted.tolist()}  # the same two numbers, to the last bit

@pytest.mark.parametrize('p', [.05, .3, .5, .8])
def test_the_distribution_is_pytorchs(p):
    n, sd = 200_000, math.sqrt(p*(1-p)/200_000)
    torch.manual_seed(0)
    for out in (ov.dropout(torch.ones(n), p)[0], nn.Dropout(p)(torch.ones(n)), ov.Dropout(p)(torch.ones(n))):
        gone = (out == 0).double()
        assert abs(gone.mean() - p) < 5*sd
        assert abs(out.double().mean() - 1) < 5*sd/(1-p)  # the mean stays
        assert abs(out.double().var() - p/(1-p)) < .05*p/(1-p) + .01
        z = gone - gone.mean()  # neighbours know nothing of each other, in rows and columns
        for lag in (1, 2, 500): assert abs((z[lag:]*z[:-lag]).mean()/z.square().mean()) < 5/math.sqrt(n)

def test_each_call_draws_anew_and_a_seed_or_generator_decides():
    x = randn(50, 40)
    torch.manual_seed(1)
    a, b = ov.dropout(x)[0], ov.dropout(x)[0]
    torch.manual_seed(1)
    assert ov.dropout(x)[0].equal(a) and not a.equal(b)
    state = torch.get_rng_state()
    c = ov.dropout(x, generator=gen(5))[0]
    assert ov.dropout(x, generator=gen(5))[0].equal(c) and not ov.dropout(x, generator=gen(6))[0].equal(c) and torch.get_rng_state().equal(state)

def test_a_seed_drops_the_same_in_all_dtypes_and_layouts():
    x = randn(30, 20, dtype=F64)
    masks = [ov.dropout(t, .4, gen())[1] != 0 for t in (x, x.float(), x.bfloat16(), x.t().contiguous().t())]
    assert all(m.equal(masks[0]) for m in masks)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(F64)
        assert (ov.dropout(x, .4, gen())[1] != 0).equal(masks[0])
    finally: torch.set_default_dtype(before)

def test_the_gradient_goes_through_the_saved_mask():
    x, g = randn(2, 5, 6, dtype=F64)
    mask = ov.dropout(x, .5, gen(2))[1]
    f = lambda x: (ov.dropout(x, .5, gen(2))[0]*g).sum()
    assert (fc.numerical_grad(f, x) - ov.dropout_backward(g, mask)).abs().max() < 1e-8
    leaf = x.clone().requires_grad_()
    f(leaf).backward()  # autograd goes through, too
    assert leaf.grad.equal(ov.dropout_backward(g, mask))

@pytest.mark.parametrize('p', [-.1, 1.1, math.nan, math.inf, True, False, np.True_, np.float32(1.5), torch.tensor(True), torch.tensor([.5, .5]), '0.5', None, .5j, [.5]])
def test_what_is_no_probability_is_refused(p):
    for f in (lambda: ov.dropout(randn(3), p), lambda: ov.Dropout(p)):
        with pytest.raises(ValueError, match='pass a probability'): f()

@pytest.mark.parametrize('p', [np.float32(.25), np.float64(.25), torch.tensor(.25)])
def test_numbers_of_numpy_and_pytorch_are_probabilities(p):
    x = randn(40, 30)
    assert ov.dropout(x, p, gen())[0].equal(ov.dropout(x, .25, gen())[0])
    assert (ov.Dropout(p)(x) == 0).any()

def test_what_can_not_be_dropped_is_refused():
    with pytest.raises(ValueError, match='complex64: pass real numbers'): ov.dropout(torch.ones(2)+0j)
    with pytest.raises(ValueError, match='int64: call x.float'): ov.dropout(torch.arange(3))
    with pytest.raises(TypeError, match='list: pass a tensor'): ov.dropout([1.])
    with pytest.raises(ValueError, match='shape'): ov.dropout_backward(randn(3, 2), randn(3))

def test_empty_and_without_axes():
    assert ov.dropout(torch.ones(0, 3))[0].shape == (0, 3) and ov.dropout(torch.tensor(1.), 1)[0] == 0

# The layer --------------------------------------------------------------------------------------------------------------------------

def test_in_evaluation_what_comes_in_goes_out_and_nothing_is_drawn():
    layer, x = ov.Dropout(.7).eval(), randn(4, 5)
    state = torch.get_rng_state()
    assert layer(x).equal(x) and layer.backward(x).equal(x) and torch.get_rng_state().equal(state)
    layer(x)
    with pytest.raises(ValueError, match='g must have the shape of the output'): layer.backward(torch.ones(2))
    layer.train()
    assert not layer(x).equal(x)

@pytest.mark.parametrize('p', [0, 1])
def test_the_ends(p):
    layer, other, x = ov.Dropout(p), nn.Dropout(p), randn(4, 5)
    state = torch.get_rng_state()
    assert layer(x).equal(other(x)) and layer.backward(torch.ones_like(x)).equal(torch.full_like(x, 1-p))
    if p == 0: assert torch.get_rng_state().equal(state)

def test_the_backward_pass_is_that_of_the_last_call():
    layer, x = ov.Dropout(.5), torch.ones(300)
    for _ in range(3):
        y = layer(x)
        assert layer.backward(x).equal(y)
    y = layer(x)
    layer.eval()  # as a validation between the two passes
    with torch.no_grad(): layer(x)
    assert layer.backward(x).equal(y)
    with pytest.raises(RuntimeError, match='call the module first'): layer.backward(x)

def test_copies_pickles_and_state():
    layer = ov.Dropout(.3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))): assert other.p == .3 and other.training
    assert not [*layer.parameters()] and layer.state_dict() == {} and repr(layer) == 'Dropout(p=0.3)'

def net(): return mo.Sequential(mo.Linear(6, 20), mo.ReLU(), ov.Dropout(.4), mo.Linear(20, 3)).to(F64)
def data(n=40): return randn(n, 6, dtype=F64), torch.arange(n) % 3

class Masks(nn.Module):
    "Multiplies by what the layer of ours drew"
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
    def forward(self, x): return x*vars(self.layer)['_saved'][0]

def test_a_network_steps_as_autograd_would():
    torch.manual_seed(0)
    model, (x, y), loss = net(), data(), tr.CrossEntropy()
    for _ in range(5):
        loss(model(x), y)
        leaves = [p.detach().clone().requires_grad_() for p in model.parameters()]
        w, b, w2, b2 = leaves
        F.cross_entropy(Masks(model[2])(F.relu(x@w.t() + b))@w2.t() + b2, y).backward()
        model.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        for p, q in zip(model.parameters(), leaves, strict=True): torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-13)
        with torch.no_grad():
            for p in model.parameters(): p -= .1*p.grad

def learner(cbs=(), seed=0):
    torch.manual_seed(seed)
    x, y = data()
    ds = tr.Dataset(x, y)
    return le.Learner(net(), tr.get_dls(ds, ds, 8, seed=1), tr.CrossEntropy(), lr=.1, cbs=[le.Metrics(), le.Recorder(), *cbs])

def test_in_the_loop_it_drops_in_training_only():
    learn = learner()
    learn.fit(2)
    x, y = data()
    assert learn.model(x).equal(learn.model(x))
    preds, _ = learn.get_preds()
    assert preds.equal(learn.model(x)) and math.isclose(learn.metrics['valid_loss'], tr.cross_entropy(preds, y).item(), rel_tol=1e-12)

def test_a_run_that_is_killed_and_resumed_drops_the_same(tmp_path):
    whole = learner()
    torch.manual_seed(3)
    whole.fit(4)
    class Kill(le.Callback):
        order = 90
        def after_epoch(self):
            if self.learn.epoch == 1: raise KeyboardInterrupt
    broken = learner([ck.Checkpoint(tmp_path/'run.pt'), Kill()])
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt): broken.fit(4)
    resumed = learner([ck.Checkpoint(tmp_path/'run.pt')], seed=9)
    torch.manual_seed(77)
    resumed.fit(4)
    assert all(p.equal(q) for p, q in zip(whole.model.parameters(), resumed.model.parameters(), strict=True)) and whole.recorder.losses == resumed.recorder.losses

def test_trials_of_rates_leave_the_draws_alone():
    a, b = learner(), learner()
    for learn in (a, b):
        torch.manual_seed(5)
        if learn is a: learn.lr_find(n=20)
        learn.fit(1)
    assert a.recorder.losses == b.recorder.losses

# What the notebook says -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('p', [.2, .5])
def test_on_average_it_is_a_decay_weighed_by_the_inputs(p):
    x, w = randn(2, 12, seed=3, dtype=F64)
    g, targ = gen(1), .7
    drawn = (targ - ov.dropout(x.expand(100_000, -1), p, g)[0]@w).square()
    said = (targ - x@w).square() + p/(1-p)*(w*x).square().sum()
    assert abs(drawn.mean() - said) < 5*drawn.std()/math.sqrt(len(drawn))

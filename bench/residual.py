"""One training step of a residual network, by hand and by autograd

The network of [09_resnet](09_resnet.ipynb), its layers, gradients, cross-entropy and optimiser ours on one side and PyTorch's on the other: a forward pass, the gradients of all
parameters, and a step of AdamW, on digits of 28×28 in float32. Before anything is timed, both must have given the same gradients.
"""
NETS = {'(8, 16, 32)': (8, 16, 32), '(8, 16, 32, 64)': (8, 16, 32, 64)}
BATCHES = 50, 250
OURS, THEIRS = 'ours', 'PyTorch'

def steps(widths, n):
    "Functions that do one step on a batch of `n` and return the gradients that they used"
    import torch
    import torch.nn.functional as F
    from notes import optimizers, resnet, training
    from notes.data import get_data
    x, y, *_ = get_data()
    x, y = ((x[:n]-.1304)/.3073).view(-1, 1, 28, 28), y[:n]
    state = resnet.resnet(widths).state_dict()
    def step(of, opt_func, loss_func):
        model = resnet.resnet(widths, of=of)
        model.load_state_dict(state)
        ps = list(model.parameters())
        opt = opt_func(ps, lr=1e-4)
        def f():
            loss = loss_func(model(x), y)
            opt.zero_grad()
            training.backprop(loss, model, loss_func)
            opt.step()
            return [p.grad for p in ps]
        return f
    return {THEIRS: step(resnet.TORCH, torch.optim.AdamW, F.cross_entropy), OURS: step(resnet.OURS, optimizers.AdamW, training.CrossEntropy())}

def check(fs):
    "Do the functions in `fs` agree on the gradient of each parameter?"
    import torch
    a, b = (f() for f in fs.values())
    whole = torch.stack([g.norm() for g in a]).norm()  # one that is 0 but for rounding may be another rounding's
    if not all((g-h).norm() <= 1e-3*g.norm() + 1e-6*whole for g, h in zip(a, b, strict=True)): raise RuntimeError("the gradients differ: there is nothing to compare")

def run(b):
    for name, widths in list(NETS.items())[:1 if b.quick else None]:
        for n in BATCHES[:1] if b.quick else BATCHES:
            fs = steps(widths, n)
            check(fs)
            t = b.times(f'widths {name}, batch {n}', fs, repeats=15, min_time=.1, n=n)
            b.ratio(f'{OURS} ÷ {THEIRS}, widths {name}, batch {n}', t[OURS], t[THEIRS], at_most=2.5)

ALT = "Milliseconds of a training step for each image, a row for each network and batch size and a marker for ours and PyTorch's; ours lie to the right."
def draw(d, fig):
    "Milliseconds for each image"
    ax = fig.subplots()
    rows = list(d)
    for who, marker in ((THEIRS, 'o'), (OURS, 's')):
        ax.plot([1e3*d[g][who]['s']['median']/d[g][who]['s']['n'] for g in rows], range(len(rows)), ls='', marker=marker, label=who)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel='milliseconds of a step for each image', xlim=(0, None), ylim=(len(rows)-.5, -.5))
    fig.legend(loc='outside lower center', ncols=2)

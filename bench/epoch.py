"""One epoch, by five training loops

The network of [04_convolutions](04_convolutions.ipynb) goes once through the 50,000 training images, in batches of 50 with plain SGD, and then through the 10,000 validation images
for loss and accuracy. All start from the same weights and get the same batches in the same order from a loader of PyTorch's, and all but Keras train the same `nn.Sequential` with `torch.optim.SGD`. Keras, here on its
PyTorch backend, has layers and an optimiser of its own, and counts the training accuracy too. Progress bars, logs and checkpoints are off. Each epoch runs in an interpreter of its own, where the same loop has just trained on a few batches. The accuracies must agree within half
a percentage point, since rounding differs. In one row more our `Learner` trains our own layers with our own optimiser, without autograd.
"""
LR = .15
BARE, OURS, LAYERS = 'bare PyTorch loop', 'Learner', 'Learner, our own layers'

def bare(model, train, valid, opt_func=None, lr=LR, device=None):
    "Share of the validation images read right after an epoch; with `device`, model and batches are brought there"
    import torch
    import torch.nn.functional as F
    there = lambda dl: ((xb.to(device), yb.to(device)) for xb, yb in dl) if device else dl
    if device: model.to(device)
    opt = (opt_func or torch.optim.SGD)(model.parameters(), lr=lr)
    model.train()
    for xb, yb in there(train):
        loss = F.cross_entropy(model(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    n = loss = hits = 0
    with torch.no_grad():
        for xb, yb in there(valid):
            out = model(xb)
            n += len(yb)
            loss += F.cross_entropy(out, yb)*len(yb)
            hits += (out.argmax(1) == yb).sum()
    return (hits/n).item()

def learner(model, dls, loss_func, opt_func):
    from notes.learner import Learner, Progress, default_cbs
    from notes.training import accuracy
    learn = Learner(model, dls, loss_func, opt_func, LR, [cb for cb in default_cbs(accuracy=accuracy) if not isinstance(cb, Progress)])
    learn.fit(1)
    return float(learn.metrics['accuracy'])

def ours(model, train, valid):
    import torch
    import torch.nn.functional as F
    return learner(model, (train, valid), F.cross_entropy, torch.optim.SGD)

def our_layers(model, train, valid):
    from notes.training import CrossEntropy, SGD
    from .conv import our_cnn
    own = our_cnn()
    own.load_state_dict(model.state_dict())
    return learner(own, (train, valid), CrossEntropy(), SGD)

def fastai(model, train, valid):
    from functools import partial
    import torch
    import torch.nn.functional as F
    from fastai.vision.all import DataLoaders, Learner, OptimWrapper, accuracy
    learn = Learner(DataLoaders(train, valid), model, F.cross_entropy, partial(OptimWrapper, opt=torch.optim.SGD), LR, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn.recorder.values[-1][-1]

def lightning(model, train, valid):
    import lightning as L, torch
    import torch.nn.functional as F
    class Net(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model
        def training_step(self, batch):
            xb, yb = batch
            return F.cross_entropy(self.model(xb), yb)
        def validation_step(self, batch):
            xb, yb = batch
            out = self.model(xb)
            figures = {'loss': F.cross_entropy(out, yb), 'accuracy': (out.argmax(1) == yb).float().mean()}
            self.log_dict(figures, on_epoch=True, batch_size=len(yb))
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=LR)
    trainer = L.Trainer(max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                        num_sanity_val_steps=0)
    trainer.fit(Net(), train, valid)
    return trainer.callback_metrics['accuracy'].item()

def keras(model, train, valid):
    import keras as K
    from keras import layers
    net = K.Sequential([K.Input((1, 28, 28)), layers.Conv2D(20, 5, activation='relu', data_format='channels_first'), layers.MaxPooling2D(2, data_format='channels_first'),
                        layers.Conv2D(40, 5, activation='relu', data_format='channels_first'), layers.MaxPooling2D(2, data_format='channels_first'),
                        layers.Flatten(data_format='channels_last'), layers.Dense(100, activation='relu'), layers.Dense(10)])
    net.set_weights([p.detach().permute(*({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[p.ndim])).numpy() for p in model.parameters()])
    net.compile(K.optimizers.SGD(LR), K.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])
    return net.fit(train, validation_data=valid, epochs=1, verbose=0).history['val_accuracy'][-1]

WAYS = {BARE: bare, OURS: ours, LAYERS: our_layers, 'fastai': fastai, 'lightning': lightning, 'keras': keras}
PEERS = 'fastai', 'lightning', 'keras'

def start(seed, images=None):
    "A network and its two loaders"
    from notes.data import get_data
    from notes.exports import set_seed
    from notes.fully_connected import normalize
    from notes.training import Dataset, get_dls
    from torch.utils.data import DataLoader
    from .conv import torch_cnn
    xt, yt, xv, yv = get_data()
    mean, std = xt.mean(), xt.std()
    sets = [Dataset(normalize(x[:images], mean, std).view(-1, 1, 28, 28), y[:images]) for x, y in ((xt, yt), (xv, yv))]
    set_seed(seed)
    train, valid = get_dls(*sets, 50, seed=seed)
    order = [*train.sampler]  # a list: Keras starts a pass before the one that trains, and a sampler would draw another order
    return torch_cnn(), DataLoader(sets[0], batch_size=None, sampler=order), valid

def one(name, threads, seed, images=None):
    "Seconds and accuracy of an epoch, after a little one that is not counted"
    import logging, time, torch
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    WAYS[name](*start(seed, 500))
    things = start(seed, images)
    before = time.perf_counter()
    accuracy = WAYS[name](*things)
    return {'s': time.perf_counter()-before, '%': 100*accuracy}

def run(b):
    from .harness import Missing, child
    same = {}
    def epoch(name):
        if name in PEERS and name not in b.peers: b.peer(name)
        args = f'{name!r}, {b.threads}, {b.seed}, {2_000 if b.quick else None}'
        try: res = child(f'import json\nfrom bench.epoch import one\nprint(json.dumps(one({args})))', b.threads)
        except Missing as e:
            if name in PEERS: raise
            raise RuntimeError(f'{name}: {e}') from None
        if abs(res['%']-same.setdefault('%', res['%'])) > .5: raise RuntimeError(f"the loops didn't do the same: {name} has {res['%']} % right, and the first one {same['%']} %")
        return res
    t = b.rounds('one epoch', {k: lambda k=k: epoch(k) for k in WAYS}, repeats=5, warm_up=0)['s']
    b.ratio(f'{OURS} ÷ {BARE}', t[OURS], t[BARE], at_most=1.05)
    for k in PEERS:
        if k in t: b.ratio(f'{k} ÷ {OURS}', t[k], t[OURS], at_least=1)
    b.ratio(f'{LAYERS} ÷ {BARE}', t[LAYERS], t[BARE])

ALT = "Bars of the time that one epoch takes over that of the bare loop, a row for each training loop, with a line at 1."
def draw(d, fig):
    "Seconds over those of the bare loop"
    (rows,), ax = d.values(), fig.subplots()
    base = rows[BARE]['s']['median']
    ax.barh(list(rows), [f['s']['median']/base for f in rows.values()], color=['C1' if k in PEERS else 'C0' for k in rows])
    ax.axvline(1, color='.5', lw=1)
    ax.set(xlabel='time ÷ time of the bare loop')
    ax.invert_yaxis()
    ax.grid(axis='y', visible=False)

"""Four activations in one network

ReLU, ReLU shifted down by a half, the same with its positive part raised to the power 0.9, and a leaky ReLU with a slope of 0.1 below 0, which [06_activations](06_activations.ipynb) builds: which one reads most images? The network has four
convolutions of 3×3 weights with stride 2, each followed by the activation, and a linear layer, all layers of ours, without normalisation between them. For a seed, all four start from the same weights (the convolutions' from `kaiming_uniform_` for a
ReLU, whatever follows; the linear layer's and the biases as PyTorch draws them) and get the same batches of 128 in the same order, for two epochs with momentum and the one-cycle schedule. The activation is the only difference, but for the highest
learning rate of the schedule: each has its own, with the best mean accuracy over two seeds on a grid in which each rate is twice the one before. Where the best one lies at an end of the grid, the grid is continued there. The seeds of the figures had no part in that.

The 50,000 training images and the 10,000 validation images of MNIST and Fashion-MNIST are used, and no test image. Rates are chosen on the validation images on which they are then compared, which flatters each of them a little, and all alike. What is kept is the accuracy for each seed, and the mean with
the interval in which the true mean lies with a probability of 0.95, by Student's t; and seed by seed the percentage points by which an activation is ahead of the ReLU, with mean and interval. An interval that holds 0 says that these seeds don't tell the two apart; and of twenty such intervals, one misses the true mean. Initialisation for a ReLU may favour the ReLU, and what holds for a small network after two epochs needn't
hold for another.

On images of yours, the same is `python -m bench activations --folder PATH`, where PATH holds a folder `train` and a folder `val` with a folder of images for each class. They are brought to 64×64 pixels, and trained on for ten epochs. An archive's address does as well, with `--sha256` and what the whole
file must hash to: it is fetched with fastdownload and opened if the hash is right. For [ImageWoof](https://github.com/fastai/imagenette), ten breeds of dogs, the address is `https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz`. Its hash is not known here, and nothing is opened
without one.
"""
ACTIVATIONS = {'ReLU': {}, 'ReLU − 0.5': {'sub': .5}, 'ReLU^0.9 − 0.5': {'sub': .5, 'power': .9}, 'leaky ReLU': {'leak': .1}}
BASE = 'ReLU'
WIDTHS, BATCH, EPOCHS, FOLDER_EPOCHS, SIZE = (8, 16, 32, 32), 128, 2, 10, 64
RATES, MOST = [.0125*2**i for i in range(6)], 4  # the grid, and how far it is continued at most
TUNING, SEEDS = (0, 1), tuple(range(2, 12))

# ---- Images

def digits(get, n=None):
    "Training and validation set from one of the functions of 00a: images (n, 1, 28, 28), normalised"
    x, y, xv, yv = (t[:n] for t in get())
    return normalized(x.view(-1, 1, 28, 28), y, xv.view(-1, 1, 28, 28), yv)

def normalized(x, y, xv, yv):
    "Sets of images with a mean of 0 and a standard deviation of 1 in each channel of the training set"
    import torch
    from notes.fully_connected import normalize
    from notes.training import Dataset
    stats = [(c.mean(), c.std()) for c in x.unbind(1)]
    norm = lambda t: torch.stack([normalize(c, *s) for c, s in zip(t.unbind(1), stats)], 1)
    return Dataset(norm(x), y), Dataset(norm(xv), yv)

def from_folder(path, size=SIZE):
    "Training and validation set from the images in train/CLASS/ and val/CLASS/ of the folder `path`, (n, 3, size, size)"
    import numpy as np, torch
    from pathlib import Path
    from PIL import Image
    path, tensors = Path(path), []
    classes = sorted(p.name for p in (path/'train').glob('[!.]*') if p.is_dir())
    if len(classes) < 2: raise ValueError(f"{path} holds no folder train with a folder of images for each of two classes or more")
    for part in ('train', 'val'):
        files = [(f, i) for i, c in enumerate(classes) for f in sorted((path/part/c).glob('[!.]*')) if f.is_file()]
        if not files: raise ValueError(f"{path/part} holds no images of the classes {', '.join(classes)}")
        images = np.empty((len(files), size, size, 3), np.uint8)
        for out, (f, _) in zip(images, files):
            with Image.open(f) as im: out[:] = im.convert('RGB').resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2)
        tensors += [torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous(), torch.tensor([i for _, i in files])]
    return normalized(*tensors)

def fetched(place, sha256=None, base='~/.fastdownload'):
    "The folder `place`, or that in the archive (.tgz) at the address `place`, which is opened if it has the right hash; `ValueError` where there is none"
    import hashlib, tarfile
    from pathlib import Path
    if '://' not in str(place):
        if not (p := Path(place).expanduser()).is_dir(): raise ValueError(f"there is no folder {p}")
        return p.resolve()
    if not sha256: raise ValueError(f"what {place} must hash to isn't known here, and an unchecked archive isn't opened: pass its --sha256, or unpack one that you trust and pass the folder")
    from fastdownload import FastDownload
    d = FastDownload(base=base, archive='archive', data='data')
    path = Path(d.download(str(place)))
    with path.open('rb') as f: got = hashlib.file_digest(f, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') else hashlib.sha256(f.read()).hexdigest()
    if got != sha256.lower():
        path.unlink()
        raise ValueError(f"{place} hashes to {got} and not to {sha256}: it was not opened, and removed")
    to = d.data_path()/got
    if not to.exists():
        tmp = to.with_name(got+'.part')
        with tarfile.open(path) as t: t.extractall(tmp, filter='data')  # nothing outside of it
        tmp.rename(to)
    inside = [p for p in to.iterdir() if p.is_dir()]
    return inside[0] if len(inside) == 1 and not (to/'train').exists() else to

# ---- One training

def network(activation, channels, size, classes):
    "Four convolutions, each with what `activation` makes behind it, and a linear layer"
    from notes.convolutions import Conv2d, Flatten, conv_size
    from notes.modules import Linear, Sequential
    layers = []
    for a, b in zip((channels, *WIDTHS), WIDTHS):
        layers += [Conv2d(a, b, 3, stride=2, padding=1, a=0.), activation()]
        size = conv_size(size, 3, 2, 1)
    return Sequential(*layers, Flatten(), Linear(b*size*size, classes))

def one(sets, settings, lr, seed, epochs=EPOCHS):
    "Accuracy on the validation images in %, after one training"
    from notes.activations import GeneralReLU
    from notes.exports import set_seed
    from notes.learner import Learner
    from notes.optimizers import Momentum, Schedule, one_cycle
    from notes.training import CrossEntropy, evaluate, get_dls
    x, y = sets[0].x, sets[0].y
    set_seed(seed)
    model = network(lambda: GeneralReLU(**settings), x.shape[1], x.shape[2], int(y.max())+1)
    train, valid = get_dls(*sets, BATCH, seed=seed)
    Learner(model, (train, None), CrossEntropy(), Momentum, lr, [Schedule(one_cycle)]).fit(epochs)
    return 100*evaluate(model, CrossEntropy(), valid)[1]

# ---- All of them

def tuned(accuracy, rates=RATES, seeds=TUNING, most=MOST):
    "{rate: accuracies for the seeds} for `rates`, continued where the best one is at an end; and the best rate"
    seen = {}
    def mean(lr):
        if lr not in seen: seen[lr] = [accuracy(lr, seed) for seed in seeds]
        return sum(seen[lr])
    rates = list(rates)
    for _ in range(most+1):
        best = max(rates, key=mean)
        if best not in (rates[0], rates[-1]): break
        rates = [rates[0]/2, *rates] if best == rates[0] else [*rates, rates[-1]*2]
    return {lr: seen[lr] for lr in sorted(seen)}, best

def run(b):
    import torch
    from notes.data import get_data, get_fashion
    torch.set_num_threads(b.threads)
    n = 1_000 if b.quick else None
    datasets = {b.folder.name: lambda: from_folder(b.folder)} if b.folder else {'MNIST': lambda: digits(get_data, n), 'Fashion-MNIST': lambda: digits(get_fashion, n)}
    epochs, rates, tuning, seeds = FOLDER_EPOCHS if b.folder else EPOCHS, RATES, TUNING, SEEDS
    if b.quick: epochs, rates, tuning, seeds = 1, RATES[2:4], TUNING[:1], SEEDS[:2]
    for data, load in datasets.items():
        sets, at, right = load(), {}, {}
        def accuracy(name, lr, seed):
            return b.once(f'{data}, {name}, {lr:g}, seed {seed}', lambda: one(sets, ACTIVATIONS[name], lr, seed, epochs))
        for name in ACTIVATIONS:
            grid, at[name] = tuned(lambda lr, seed: accuracy(name, lr, seed), rates, tuning, 0 if b.quick else MOST)
            for lr, values in grid.items(): b.keep(f'{data}, tuning', f'{name} at {lr:g}', '%', values, values=values, seeds=tuning, activation=name, lr=lr)
        for seed in seeds:
            for name in ACTIVATIONS: right.setdefault(name, []).append(accuracy(name, at[name], seed))
        for name, values in right.items(): b.keep_seeds(data, name, '%', values, seeds, lr=at[name])
        for name in ACTIVATIONS:
            if name != BASE: b.keep_seeds(data, name, 'pp', [x-y for x, y in zip(right[name], right[BASE])], seeds, than=BASE)

ALT = "For each set of images and each activation but the ReLU, the percentage points by which it is ahead of the ReLU: a small dot for each seed, and the mean with its interval, beside a line at 0."
def draw(d, fig):
    "Percentage points ahead of the ReLU, seed by seed"
    groups = {k: [(name, f['pp']) for name, f in rows.items() if 'pp' in f] for k, rows in d.items() if not k.endswith(', tuning')}
    for ax, (group, rows) in zip(fig.subplots(len(groups), 1, squeeze=False).flat, groups.items()):
        for i, (_, f) in enumerate(rows):
            ax.plot(f['values'], [i+.22]*len(f['values']), 'o', color='C4', ms=3)
            ax.errorbar(f['mean'], i, xerr=f['half'] or 0, fmt='s', color='C0', capsize=4, ls='')
        ax.axvline(0, color='.5', lw=1)
        ax.set_yticks(range(len(rows)), [name for name, _ in rows])
        ax.set(title=group, ylim=(len(rows)-.5, -.5))
        ax.grid(axis='y', visible=False)
    ax.set_xlabel('percentage points more than with ReLU', loc='right')

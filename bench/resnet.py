"""How far the residual network gets

The residual network of [09_resnet](09_resnet.ipynb), in PyTorch's layers with the channels last in memory, trained by our `Learner` with what [07_optimizers](07_optimizers.ipynb) and [09a_augmentation](09a_augmentation.ipynb) build: Muon for the kernels of the convolutions and AdamW for the rest, the one-cycle
schedule, smoothed labels, a running mean of the weights, and training images that are moved a little (MNIST), or mirrored (Fashion-MNIST). The 50,000 training images are trained on, and nothing else.

Every choice was made on the 10,000 validation images: optimiser, rates, network and augmentation by hand, in some fifteen trainings of smaller networks with other seeds (the stronger augmentation of the longer trainings was no better there, and was taken because a larger network overfits sooner); and of the four ways to read a network (its last weights or their running mean, an image as it is or the mean over shifted and mirrored views of it) the one with
the best mean over the validation images and all seeds. That one alone is then counted on the test images, at the end of this program, once for each network: *test*. *Validation* figures flatter a little, since choices were made by them; *test* figures don't.

On a processor that multiplies bfloat16 numbers by itself, the Fashion-MNIST networks are trained in mixed precision (`torch.autocast`), which is quicker there. A training saves itself every so many batches (`Checkpoint`), and goes on when the program is started again.
"""
SEEDS, SMOOTH = (2, 3, 4), .1
SMALL, WIDE = (16, 32, 48, 48), (32, 64, 128, 256)
RUNS = {'MNIST, 5 epochs': dict(data='mnist', widths=SMALL, strides=(2, 2, 1), epochs=5, seeds=(5, 6, 7), smooth=.05),
        'Fashion-MNIST, 5 epochs': dict(data='fashion', widths=WIDE, epochs=5, seeds=SEEDS),
        'Fashion-MNIST, 20 epochs': dict(data='fashion', widths=WIDE, epochs=20, seeds=SEEDS),
        'Fashion-MNIST, 30 epochs, one seed': dict(data='fashion', widths=WIDE, epochs=30, seeds=(2,))}
BATCH, LR, REST, DECAY = 256, .02, .2, .1

def source(data):
    "The function of 00a that gives a set of images"
    from notes.data import get_data, get_fashion
    return {'mnist': get_data, 'fashion': get_fashion}[data]

def has_bfloat16():
    "Does this processor multiply bfloat16 numbers by itself?"
    import torch
    return torch.backends.cpu.get_cpu_capability().startswith('AVX512') and torch.ops.mkldnn._is_mkldnn_bf16_supported()

def network(widths, strides, mixed):
    "The residual network in PyTorch's layers, channels last; in mixed precision if `mixed`"
    import torch
    from notes.resnet import TORCH, resnet
    from . import harness
    model = resnet(widths, strides=strides, of=TORCH).to(memory_format=torch.channels_last)
    return harness.mixed(model) if mixed else model

def augment(data, epochs):
    "What changes the training images: more, where they are seen more often"
    from functools import partial
    from notes.augmentation import Augment, affine, erase, flip, shift
    if data == 'mnist': return Augment(partial(affine, degrees=10, scale=.1, shear=.15, shift=2))
    return Augment(flip, *[partial(shift, most=1), partial(erase, p=.3, area=(.02, .15))]*(epochs > 5))

def views(data):
    "An image moved by a pixel in each direction; clothes mirrored, too"
    from functools import partial
    from notes.augmentation import move
    moved = [partial(move, down=d, right=r) for d, r in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    mirror = lambda x: x.flip(3)
    return moved if data == 'mnist' else [*moved, mirror, *(lambda x, f=f: f(mirror(x)) for f in moved)]

def train(group, seed, folder=None, n=None, epochs=None, threads=1, read=True):
    "Train one network, or go on with it: {way to read it: % of the validation images} if `read`, seconds, parameters; and the networks, with last and mean weights"
    import time
    from functools import partial
    from pathlib import Path
    import torch
    from notes.augmentation import AveragedWeights
    from notes.callbacks import _Keeps
    from notes.checkpoints import Checkpoint
    from notes.exports import set_seed
    from notes.learner import Callback, Learner
    from notes.optimizers import Schedule, one_cycle
    from notes.training import get_dls
    from .activations import digits
    from .optimizers import muon
    class Clock(_Keeps):
        "Seconds of training, those before an interruption included"
        kept, seconds = ('seconds',), 0.
        def before_epoch(self): self.start = time.perf_counter()
        def after_epoch(self): self.seconds += time.perf_counter()-self.start
    class ChannelsLast(Callback):
        order = 20
        def before_batch(self): self.learn.xb = self.learn.xb.contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(threads)
    r = RUNS[group]
    sets = digits(source(r['data']), n)
    set_seed(seed)
    mixed = r['data'] == 'fashion' and has_bfloat16()
    model = network(r['widths'], r.get('strides'), mixed)
    train_dl = get_dls(*sets, BATCH, seed=seed)[0]
    mean, clock = AveragedWeights(.99), Clock()
    cbs = [augment(r['data'], r['epochs']), ChannelsLast(), Schedule(partial(one_cycle, warm=.2)), mean, clock]
    if folder: cbs.append(Checkpoint(Path(folder)/f"{group.replace(', ', '-').replace(' ', '-')}-{seed}.pt", every=100))
    loss = torch.nn.CrossEntropyLoss(label_smoothing=r.get('smooth', SMOOTH))
    Learner(model, (train_dl, None), loss, partial(muon, rest=REST, decay=DECAY), LR, cbs).fit(epochs or r['epochs'])
    nets = {'': model, ', averaged': mean.model}
    right = {f'validation{m}{v}': hits(net, *vars(sets[1]).values(), fs) for m, net in nets.items() for v, fs in (('', ()), (', views', views(r['data']))) if read}
    return dict(right, seconds=clock.seconds, parameters=sum(p.numel() for p in model.parameters()), mixed=mixed), nets

def hits(model, x, y, views=()):
    "% of images that `model` reads right, by the mean of its predictions for their views"
    from notes.augmentation import predict
    return 100*(predict(model, x, views).argmax(1) == y).float().mean().item()

def run(b):
    folder = b.kept and b.kept.with_suffix('')  # where the trainings save themselves
    for group, r in RUNS.items():
        how = dict(folder=None, n=600, epochs=1) if b.quick else dict(folder=folder)
        seeds = r['seeds'][:1] if b.quick else r['seeds']
        rows = [b.once(f'{group}, seed {seed}', lambda: train(group, seed, threads=b.threads, **how)[0]) for seed in seeds]
        more = dict(parameters=rows[0]['parameters'], mixed=rows[0]['mixed'])
        ways = {k: [row[k] for row in rows] for k in rows[0] if k.startswith('validation')}
        for k, values in ways.items(): b.keep_seeds(group, k, '%', values, seeds, **more)
        if not b.quick:
            best = max(ways, key=lambda k: sum(ways[k]))
            values, opened = b.once(f'{group}, test', lambda: test(group, best, folder, b.threads))
            b.keep_seeds(group, 'test', '%', values, seeds, chosen=best, opened=opened, **more)
        b.keep(group, 'training', 's', [row['seconds'] for row in rows], threads=b.threads)

def test(group, best, folder, threads):
    "% of the test images that the trained networks of a group read right in the way `best`, one for each seed; and when they were opened"
    from datetime import datetime, timezone
    from notes.data import final_test_set
    from notes.fully_connected import normalize
    r = RUNS[group]
    seen, *_ = source(r['data'])()
    x, y = final_test_set(r['data'])
    x, nets = normalize(x, seen.mean(), seen.std()).view(-1, 1, 28, 28), [train(group, seed, folder, threads=threads, read=False)[1] for seed in r['seeds']]
    values = [hits(net[', averaged' if 'averaged' in best else ''], x, y, views(r['data']) if 'views' in best else ()) for net in nets]
    return values, datetime.now(timezone.utc).isoformat(timespec='seconds')

ALT = "For each training, the share of the validation and of the test images that is read right: a small dot for each seed, and the mean with its interval."
def draw(d, fig):
    "Accuracy on validation and test images, a panel for each set of images"
    names = {'validation': 'validation', 'validation, averaged, views': 'averaged, views', 'test': 'test'}
    groups = {g: {k: f['%'] for k, f in rows.items() if k in names and '%' in f} for g, rows in d.items()}
    panels = {data: [g for g in groups if g.startswith(data)] for data in ('MNIST', 'Fashion-MNIST')}
    panels = {k: v for k, v in panels.items() if v}
    for ax, (data, gs) in zip(fig.subplots(len(panels), 1, squeeze=False, height_ratios=[len(v) for v in panels.values()]).flat, panels.items()):
        for j, k in enumerate(names):
            fs = [(i+.25*(j-1), groups[g][k]) for i, g in enumerate(gs) if k in groups[g]]
            for y, f in fs: ax.plot(f['values'], [y+.1]*len(f['values']), 'o', color='C4', ms=3, ls='')
            ax.errorbar([f['mean'] for _, f in fs], [y for y, _ in fs], xerr=[f['half'] or 0 for _, f in fs], fmt='os^'[j], color=f'C{j}', capsize=3, ls='', label=names[k])
        ax.set_yticks(range(len(gs)), [g.split(', ', 1)[1] for g in gs])
        ax.set(title=data, ylim=(len(gs)-.5, -.5))
        ax.grid(axis='y', visible=False)
    ax.set_xlabel('% of the images read right', loc='right')
    h, l = ax.get_legend_handles_labels()
    fig.legend(h, l, loc='outside lower center', ncols=3)

"""Train the network that reads digits on the first page, and write what the page loads: `static/digits.js`, and `static/digits.png` for where no script runs

The network is the residual one of 09_resnet. Its layers, their backward, the loss, the optimiser, the schedule and the loop are the package's; autograd is
off. The training digits are turned, scaled, sheared and shifted a little, at random, since nobody draws as they were written. When the file is written, each
batch norm goes into the convolution before it, which changes no output, and weights are rounded to 8 bits, with one scale for each row of a weight; the
accuracy in the file is that of the rounded network, on the validation digits.
"""
import argparse, base64, json, platform, sys
from functools import partial
from pathlib import Path
import torch
HERE = Path(__file__).resolve().parent
ROOT, STATIC = HERE.parents[1], HERE/'static'
FILE, PICTURE = STATIC/'digits.js', STATIC/'digits.png'
HEAD = ('// Written by tools/site/digits.py, which says what it holds. The ten samples are digits of MNIST, by Yann LeCun and Corinna Cortes, CC BY-SA 3.0\n'
        'window.digits = ')
if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
import notes
from notes.augmentation import Augment, affine
from notes.convolutions import Conv2d
from notes.data import get_data
from notes.exports import set_seed
from notes.fully_connected import normalize
from notes.learner import Learner, Metrics, Progress, Recorder
from notes.modules import Sequential, Sum
from notes.normalization import BatchNorm2d
from notes.optimizers import AdamW, Schedule, one_cycle
from notes.resnet import resnet
from notes.training import CrossEntropy, Dataset, accuracy, evaluate, get_dls, softmax

WIDTHS, SEED, EPOCHS, BATCH, RATE, DECAY = (8, 16, 32, 64), 42, 8, 200, .008, .02
MOVED = dict(degrees=10, scale=.1, shear=.15, shift=2.5)  # how far, at most, a training digit is turned, scaled, sheared and shifted
SHOWN = 3  # the digit in the picture

def into(conv, norm):
    "A convolution that gives what `conv` and then `norm` give in evaluation"
    w, factor = conv.weight.data, norm.weight.data/(norm.running_var+norm.eps).sqrt()
    one = Conv2d(w.shape[1], w.shape[0], conv.kernel_size, conv.stride, conv.padding)
    one.weight.data, one.bias.data = w*factor.view(-1, 1, 1, 1), norm.bias.data-norm.running_mean*factor
    return one

def folded(layers):
    "`layers` in one row, without batch norms"
    row = []
    for l in layers:
        if isinstance(l, BatchNorm2d): row[-1] = into(row[-1], l)
        elif isinstance(l, Sequential): row += folded(l)
        elif isinstance(l, Sum): row.append(Sum(*(folded(b) if isinstance(b, Sequential) else b for b in l)))
        else: row.append(l)
    return Sequential(*row)

def network(): return folded(resnet(WIDTHS))

def digits():
    "Normalised images (n, 1, 28, 28) and labels for training and validation; mean and std of the training pixels"
    xt, yt, xv, yv = get_data()
    mean, std = xt.mean(), xt.std()
    xt, xv = (normalize(x, mean, std).view(-1, 1, 28, 28) for x in (xt, xv))
    return xt, yt, xv, yv, mean.item(), std.item()

def train(epochs=EPOCHS):
    "The trained network, with its batch norms; autograd is never asked"
    xt, yt, xv, yv, *_ = digits()
    set_seed(SEED)
    learn = Learner(resnet(WIDTHS), get_dls(Dataset(xt, yt), Dataset(xv, yv), BATCH, seed=SEED), CrossEntropy(), partial(AdamW, weight_decay=DECAY), RATE,
                    [Metrics(accuracy=accuracy), Recorder(), Progress(), Schedule(one_cycle), Augment(partial(affine, **MOVED))])
    learn.fit(epochs)
    assert not any(p.requires_grad for p in learn.model.parameters())
    return learn.model

def text(t): return base64.b64encode(t.contiguous().numpy().tobytes()).decode()
def numbers(s, dtype): return torch.frombuffer(bytearray(base64.b64decode(s)), dtype=dtype)

def rounded(w):
    "Weights as whole numbers from -127 to 127, and the scale of each row"
    scale = w.flatten(1).abs().amax(1)/127
    return (w/scale.view(-1, *[1]*(w.ndim-1))).round().to(torch.int8), scale

def single(pair):
    "The number that both of a pair are: the page knows no other"
    if pair[0] != pair[1]: raise ValueError(f'{pair} is another number up than across')
    return pair[0]

def packed(layer):
    "A layer as the file holds it"
    d = {'layer': type(layer).__name__}
    if isinstance(layer, (Sequential, Sum)): return {**d, 'layers': [packed(l) for l in layer]}
    if not hasattr(layer, 'weight'): return d
    if isinstance(layer, Conv2d): d |= {'stride': single(layer.stride), 'padding': single(layer.padding)}
    q, scale = rounded(layer.weight.data)
    return {**d, 'shape': list(q.shape), 'weight': text(q), 'scale': text(scale), 'bias': text(layer.bias.data)}

def unpacked(layer, saved):
    "Give `layer` the weights that the file holds for it; `ValueError` where it is another"
    here = packed(layer)
    for k in here.keys()-{'layers', 'weight', 'scale', 'bias'}|{'layer'}:
        if here[k] != saved.get(k): raise ValueError(f'{FILE.name} holds {k} {saved.get(k)} where the network has {here[k]}')
    if 'layers' in here:
        if len(layer) != len(saved['layers']): raise ValueError(f"{FILE.name} holds {len(saved['layers'])} layers where the network has {len(layer)}")
        for l, s in zip(layer, saved['layers']): unpacked(l, s)
    if 'weight' not in here: return
    w = layer.weight
    w.data = numbers(saved['weight'], torch.int8).view(w.shape)*numbers(saved['scale'], torch.float32).view(-1, *[1]*(w.ndim-1))
    layer.bias.data = numbers(saved['bias'], torch.float32)

def load(path=FILE):
    "What the file holds, and the network with its weights"
    d = json.loads(path.read_text(encoding='utf-8').removeprefix(HEAD).rstrip('\n;'))
    model = network()
    unpacked(model, {'layer': 'Sequential', 'layers': d['layers']})
    return d, model.eval()

def write(d): FILE.write_text(HEAD+json.dumps(d, separators=(',', ':'))+'\n', encoding='utf-8', newline='\n')

def save(model, command):
    "Write the file: the network, ten digits that it has not been trained on, and how all of it was made"
    *_, xv, yv, mean, std = digits()
    first = [(yv == i).nonzero()[0, 0] for i in range(10)]
    pixels = (get_data()[2][torch.stack(first)]*256).round().to(torch.uint8)
    made = {'command': command, 'seed': SEED, 'widths': WIDTHS, 'epochs': EPOCHS, 'batch_size': BATCH, 'rate': RATE, 'decay': DECAY, 'moved': MOVED,
            'python': platform.python_version(), 'torch': torch.__version__, 'foundation-notes': notes.__version__}
    write({'made': made, 'mean': mean, 'std': std, 'layers': [packed(l) for l in folded(model)], 'samples': text(pixels)})
    d, small = load()
    dl = get_dls(Dataset(xv, yv), Dataset(xv, yv), BATCH)[1]
    d['made']['accuracy'] = {name: evaluate(m, CrossEntropy(), dl)[1] for name, m in (('trained', model), ('rounded', small))}
    write(d)
    print(d['made'], f'{FILE.stat().st_size/1024:.0f} KiB')

def picture():
    "Draw what the page does with a digit, for where no script runs"
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    d, model = load()
    pixels = numbers(d['samples'], torch.uint8).view(10, 28, 28)[SHOWN]/256
    x = normalize(pixels, d['mean'], d['std'])[None, None]
    p, maps = softmax(model(x))[0], model[:2](x)[0]
    fig = plt.figure(figsize=(8.8, 4.4), layout='constrained')
    top, low = fig.subfigures(2, 1, height_ratios=(3, 1.2))
    left, right = top.subplots(1, 2, width_ratios=(1, 1.3))
    left.imshow(pixels, cmap='gray_r')
    left.axis('off')
    right.barh(range(10), p, color=['#0072B2' if i == p.argmax() else '#999999' for i in range(10)])
    right.set(yticks=range(10), ylim=(9.6, -.6), xlim=(0, 1), xlabel='how sure the network is of each digit')
    right.spines[['top', 'right']].set_visible(False)
    for ax, m in zip(low.subplots(1, len(maps)), maps):
        ax.imshow(m, cmap='gray_r', vmin=0, vmax=maps.max())
        ax.set(xticks=[], yticks=[])
    fig.savefig(PICTURE, dpi=100, metadata={'Software': None})

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--picture', action='store_true', help="draw the picture only, with the weights that are there")
    args = ap.parse_args()
    torch.set_num_threads(1)
    if not args.picture: save(train(), 'python tools/site/digits.py')
    picture()

if __name__ == '__main__': main()

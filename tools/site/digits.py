"""Train the network that reads digits on the first page, and write what the page loads: `static/digits.js`, and `static/digits.png` for where no script runs

The network is that of 04_convolutions. Its layers, their backward, the loss, the optimiser and the loop are the package's; autograd is off. The training
digits are shifted by up to two pixels, at random, since nobody draws in the middle. Weights are rounded to 8 bits, with one scale for each row of a weight;
the accuracy in the file is that of the rounded network, on the validation digits.
"""
import argparse, base64, json, platform, sys
from pathlib import Path
import torch
HERE = Path(__file__).resolve().parent
ROOT, STATIC = HERE.parents[1], HERE/'static'
FILE, PICTURE = STATIC/'digits.js', STATIC/'digits.png'
HEAD = ('// Written by tools/site/digits.py, which says what it holds. The ten samples are digits of MNIST, by Yann LeCun and Corinna Cortes, CC BY-SA 3.0\n'
        'window.digits = ')
if str(ROOT) not in sys.path: sys.path.insert(0, str(ROOT))
import notes
from notes.convolutions import Conv2d, Flatten, MaxPool2d
from notes.data import get_data
from notes.exports import set_seed
from notes.fully_connected import normalize
from notes.modules import Linear, ReLU, Sequential
from notes.training import SGD, CrossEntropy, Dataset, evaluate, fit, get_dls, softmax

SEED, SHIFT, BATCH, PLAN = 42, 2, 50, [(8, .15), (4, .03)]  # epochs, and the learning rate in them
SHOWN = 3  # the digit in the picture

def network():
    return Sequential(Conv2d(1, 20, 5), ReLU(), MaxPool2d(2), Conv2d(20, 40, 5), ReLU(), MaxPool2d(2),
                      Flatten(), Linear(40*4*4, 100), ReLU(), Linear(100, 10))

def shifted(x, most=SHIFT):
    "Each image of `x`, (n, 1, h, w), moved by up to `most` pixels each way; what comes in is paper, as in the first corner"
    n, _, h, w = x.shape
    paper = x[0, 0, 0, 0].item()
    big = x.new_full((n, h+2*most, w+2*most), paper)
    big[:, most:most+h, most:most+w] = x[:, 0]
    dy, dx = torch.randint(2*most+1, (2, n))
    rows, cols = dy[:, None]+torch.arange(h), dx[:, None]+torch.arange(w)
    return big[torch.arange(n)[:, None, None], rows[:, :, None], cols[:, None]][:, None]

class Shifted(Dataset):
    "Images that are moved anew each time they are asked for"
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return shifted(x), y

def digits():
    "Normalised images (n, 1, 28, 28) and labels for training and validation; mean and std of the training pixels"
    xt, yt, xv, yv = get_data()
    mean, std = xt.mean(), xt.std()
    xt, xv = (normalize(x, mean, std).view(-1, 1, 28, 28) for x in (xt, xv))
    return xt, yt, xv, yv, mean.item(), std.item()

def train(plan=PLAN):
    "The trained network; autograd is never asked"
    xt, yt, xv, yv, *_ = digits()
    set_seed(SEED)
    model = network()
    dls = get_dls(Shifted(xt, yt), Dataset(xv, yv), BATCH, seed=SEED)
    for epochs, lr in plan: fit(epochs, model, CrossEntropy(), SGD(model.parameters(), lr), *dls)
    assert not any(p.requires_grad for p in model.parameters())
    return model

def text(t): return base64.b64encode(t.contiguous().numpy().tobytes()).decode()
def numbers(s, dtype): return torch.frombuffer(bytearray(base64.b64decode(s)), dtype=dtype)

def rounded(w):
    "Weights as whole numbers from -127 to 127, and the scale of each row"
    scale = w.flatten(1).abs().amax(1)/127
    return (w/scale.view(-1, *[1]*(w.ndim-1))).round().to(torch.int8), scale

def packed(layer):
    "A layer as the file holds it"
    name = type(layer).__name__
    if name == 'MaxPool2d': return {'layer': name, 'size': layer.kernel_size[0]}
    if name in ('ReLU', 'Flatten'): return {'layer': name}
    q, scale = rounded(layer.weight.data)
    return {'layer': name, 'shape': list(q.shape), 'weight': text(q), 'scale': text(scale), 'bias': text(layer.bias.data)}

def load(path=FILE):
    "What the file holds, and the network with its weights"
    d = json.loads(path.read_text(encoding='utf-8').removeprefix(HEAD).rstrip('\n;'))
    model = network()
    for layer, saved in zip(model, d['layers']):
        if type(layer).__name__ != saved['layer']: raise ValueError(f"{path.name} holds {saved['layer']} where the network has {type(layer).__name__}")
        if 'weight' not in saved: continue
        if list(layer.weight.shape) != saved['shape']: raise ValueError(f"{path.name} holds {saved['shape']} for {tuple(layer.weight.shape)}")
        scale = numbers(saved['scale'], torch.float32).view(-1, *[1]*(layer.weight.ndim-1))
        layer.weight.data = numbers(saved['weight'], torch.int8).view(layer.weight.shape)*scale
        layer.bias.data = numbers(saved['bias'], torch.float32)
    return d, model

def write(d): FILE.write_text(HEAD+json.dumps(d, separators=(',', ':'))+'\n', encoding='utf-8', newline='\n')

def save(model, command):
    "Write the file: the network, ten digits that it has not been trained on, and how all of it was made"
    *_, xv, yv, mean, std = digits()
    first = [(yv == i).nonzero()[0, 0] for i in range(10)]
    pixels = (get_data()[2][torch.stack(first)]*256).round().to(torch.uint8)
    d = {'made': {'command': command, 'seed': SEED, 'shift': SHIFT, 'batch_size': BATCH, 'plan': PLAN, 'python': platform.python_version(),
                  'torch': torch.__version__, 'foundation-notes': notes.__version__},
         'mean': mean, 'std': std, 'layers': [packed(l) for l in model], 'samples': text(pixels)}
    write(d)
    d, small = load()
    d['made']['accuracy'] = {name: evaluate(m, CrossEntropy(), get_dls(Dataset(xv, yv), Dataset(xv, yv), BATCH)[1])[1] for name, m in
                             (('trained', model), ('rounded', small))}
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
    fig = plt.figure(figsize=(8.8, 5.2), layout='constrained')
    top, low = fig.subfigures(2, 1, height_ratios=(3, 2.2))
    left, right = top.subplots(1, 2, width_ratios=(1, 1.3))
    left.imshow(pixels, cmap='gray_r')
    left.axis('off')
    right.barh(range(10), p, color=['#0072B2' if i == p.argmax() else '#999999' for i in range(10)])
    right.set(yticks=range(10), ylim=(9.6, -.6), xlim=(0, 1), xlabel='how sure the network is of each digit')
    right.spines[['top', 'right']].set_visible(False)
    for ax, m in zip(low.subplots(2, 10).flat, maps):
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

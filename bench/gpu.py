"""On a GPU

What the package does on a GPU, checked and timed on one. A check does something there and the same on the CPU in float64: layers and losses with their gradients, optimisers, augmentation, fits by the `Learner` with its callbacks, checkpoints that
are written there and read back, random numbers that are put back. What is compared is the relative error; in float64 it can be as small as rounding, in float32 the GPU may multiply in fewer bits (TF32), and bfloat16 has few. Each check is made for three draws of its numbers.
What fails is named, and the rest goes on.

Then the networks of [04_convolutions](04_convolutions.ipynb) and [09_resnet](09_resnet.ipynb), and a wider one of the second kind, go once through the 50,000 training images of MNIST and then through the 10,000 validation images: in a bare loop in PyTorch and with our `Learner`, which train the same `nn.Sequential`, in float32 and in mixed
precision (`torch.autocast` to bfloat16); and with the `Learner` our own layers, whose gradients are ours too, in float32. Batches come from the CPU, where a loader makes them of single images' indices; in float32 also from images that lie on the GPU as a whole. All start from the same weights and get the same batches in the same order.

It is also counted how often the processor waits for the GPU in a training batch: whoever waits can't prepare the next step meanwhile. Two such waits are those for the images and the classes of a batch to arrive.
"""
import json, os, random, subprocess, sys, threading, time
BARE, OURS, LAYERS = 'bare PyTorch loop', 'Learner', 'Learner, our own layers'
THERE = ', data on the GPU'
CNN, RES, WIDE = "04's network", "09's network", 'a wider one'
SEEDS, REPEATS = (0, 1, 2), 4
# How a network is trained: its batch size and rate; and the seconds after which no further round begins
NETS = {CNN: dict(batch=50, lr=.15, seconds=60), RES: dict(batch=250, lr=.01, seconds=45), WIDE: dict(batch=250, lr=.01, seconds=30, there=False)}
BROKEN = 3  # how a process ends that gives way to another
CHECKING, WAITING, TOTAL = 110, 30, 285  # seconds at most
FORMATS = {'float64': 'F64', 'float32': 'F32', 'bfloat16': 'BF16'}

# ---- In a process of its own: what a GPU breaks is then broken there alone

def say(*row): print(json.dumps(row), flush=True)

def checks(device, seeds, skip=()):
    "Say the error of each check as soon as it is known, and before that which one it is"
    import torch
    from . import _checks as c
    warm = torch.ones(8, 8, device=device)
    (warm@warm).sum().item()
    for name, (_, dtypes, _) in c.CHECKS.items():
        for dtype in dtypes:
            word = str(dtype).removeprefix('torch.')
            if [name, word] in skip or dtype == torch.float64 and device == 'mps': continue
            say('begins', name, word)
            errors, why = [], ''
            for seed in seeds:
                try:
                    e, most = c.run(name, device, dtype, seed)
                    errors.append(e)
                    if not e <= most: why = f'relative error {e:.1g}, where {most:g} is allowed'
                except Exception as e: why = f'{type(e).__name__}: {" ".join(str(e).split())[:300]}'
                if why: break
            say('check', name, word, errors, why)
            if why and device == 'cuda' and not alive(): os._exit(BROKEN)

def alive():
    "Does the GPU still do something for this process? After an assertion within a kernel it does not"
    import torch
    try: return bool(torch.ones(1, device='cuda').item())
    except Exception: return False

def waits(device):
    from . import _checks as c
    for k, n in c.waits(device).items(): say('waits', k, n)

def network(net, of):
    from notes.resnet import OURS, TORCH, resnet
    from .conv import our_cnn, torch_cnn
    if net == CNN: return our_cnn() if of == LAYERS else torch_cnn()
    return resnet((32, 64, 128, 256) if net == WIDE else (8, 16, 32, 64), of=OURS if of == LAYERS else TORCH)

def mixed(model, device):
    import torch
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
        def forward(self, x):
            with torch.autocast(device, torch.bfloat16): return self.model(x).float()
    return Mixed()

def bare(model, train, valid, device, opt_func, lr):
    import torch
    import torch.nn.functional as F
    model.to(device)
    opt = opt_func(model.parameters(), lr=lr)
    model.train()
    for xb, yb in train:
        xb, yb = xb.to(device), yb.to(device)
        loss = F.cross_entropy(model(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    n = loss = hits = 0
    with torch.no_grad():
        for xb, yb in valid:
            xb, yb = xb.to(device), yb.to(device)
            out = model(xb)
            n += len(yb)
            loss += F.cross_entropy(out, yb)*len(yb)
            hits += (out.argmax(1) == yb).sum()
    return (hits/n).item()

def ours(model, train, valid, device, opt_func, lr, loss_func):
    from notes.learner import Device, Learner, Metrics, Recorder
    from notes.training import accuracy
    learn = Learner(model, (train, valid), loss_func, opt_func, lr, [Device(device), Metrics(accuracy=accuracy), Recorder()])
    learn.fit(1)
    return float(learn.metrics['accuracy'])

def loaders(sets, batch, seed):
    from notes.training import get_dls
    from torch.utils.data import DataLoader
    train, valid = get_dls(*sets, batch, seed=seed)
    return DataLoader(sets[0], batch_size=None, sampler=[*train.sampler]), valid  # one order for all

def epochs(net, device, n, repeats, seed=0):
    "Say seconds and accuracy of an epoch of each way to train, round after round"
    import torch
    import torch.nn.functional as F
    from notes import optimizers, training
    from notes.data import get_data
    from notes.exports import set_seed
    from .activations import digits
    how, begin = NETS[net], time.perf_counter()
    near = digits(get_data, n)
    far = [training.Dataset(s.x.to(device), s.y.to(device)) for s in near]
    few = [[training.Dataset(s.x[:how['batch']*4], s.y[:how['batch']*4]) for s in sets] for sets in (near, far)]
    set_seed(seed)
    state = network(net, BARE).state_dict()
    theirs, own = (torch.optim.SGD, training.SGD) if net == CNN else (torch.optim.AdamW, optimizers.AdamW)
    def way(who, there, half):
        def f(sets):
            model = network(net, who)
            model.load_state_dict(state)
            if half: model = mixed(model, device)
            dls = loaders(sets[there], how['batch'], seed)
            if who == BARE: return bare(model, *dls, device, theirs, how['lr'])
            loss, opt = (training.CrossEntropy(), own) if who == LAYERS else (F.cross_entropy, theirs)
            return ours(model, *dls, device, opt, how['lr'], loss)
        return f
    ways = {(f'{net}, {word}', who+THERE*there): way(who, there, half) for half, word in ((0, 'float32'), (1, 'bfloat16')) for there in (0, 1) for who in (BARE, OURS, LAYERS)
            if not (who == LAYERS and (half or there) or there and (half or not how.get('there', True)))}
    broken = set()
    def once(key, sets, tell):
        try:
            start = time.perf_counter()
            hits = ways[key](sets)  # a number, which waits for all that the GPU has to do
            if tell: say('epoch', *key, time.perf_counter()-start, 100*hits)
        except Exception as e:
            broken.add(key)
            say('fails', *key, f'{type(e).__name__}: {" ".join(str(e).split())[:300]}')
    for key in ways: once(key, few, False)
    shuffled = random.Random(seed).sample
    for i in range(repeats):
        if i >= 3 and time.perf_counter()-begin > how['seconds']: break
        for key in shuffled([*ways], len(ways)):
            if key not in broken: once(key, (near, far), True)

# ---- What starts them

def rows(what, *args, seconds):
    "What the function `what` of this module says in a process of its own, until it has ended, or `seconds` have passed; at last how it ended"
    code = f'from bench import gpu; gpu.{what}(*{args!r})'
    from .harness import ROOT
    p = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'MPLBACKEND': 'agg', 'OMP_NUM_THREADS': '1'},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8')
    said, late = [], []
    def stop():
        late.append(True)
        p.kill()
    timer, reader = threading.Timer(seconds, stop), threading.Thread(target=lambda: said.extend(p.stderr), daemon=True)
    timer.start()
    reader.start()
    try:
        for line in p.stdout:
            if line.startswith('['): yield json.loads(line)
        p.wait()
    finally:
        timer.cancel()
        p.kill()
        p.wait()
    reader.join(5)
    yield ['ends', p.returncode, f'it took longer than {seconds:.0f} seconds' if late else ' '.join(l.strip() for l in said[-1:]) or 'it gave no reason']

def checked(b, device, seeds):
    "Rows of all checks: [name, format, errors, why it failed]; one in which the process dies fails, and the rest goes on in another"
    found, end = [], time.perf_counter()+CHECKING
    while True:
        last, known = None, len(found)
        for kind, *row in rows('checks', device, seeds, [r[:2] for r in found], seconds=max(5, end-time.perf_counter())):
            if kind == 'begins': last = row
            if kind == 'check':
                found.append(row)
                last = None
                if row[3]: print(f'fails: {row[0]}, {row[1]}: {row[3]}', flush=True)
        code, why = row  # of the end
        if code and code != BROKEN: found.append([*(last or ('all that were left', '')), [], f'the process ended: {why}'])
        if not code or code != BROKEN and not last or len(found) == known or time.perf_counter() > end: return found

def gpu():
    "PyTorch's name for the GPU here, or 'cpu' where there is none; what `NOTES_DEVICE` says comes first"
    import torch
    if where := os.environ.get('NOTES_DEVICE'): return where
    if torch.cuda.is_available(): return 'cuda'
    return 'mps' if torch.backends.mps.is_available() else 'cpu'

def name_it(b, device):
    "Keep which one it is"
    import torch
    if device != 'cpu': b.peers['on'] = torch.cuda.get_device_name() if device == 'cuda' else device
    if device == 'cuda': b.peers['CUDA'] = torch.version.cuda

def run(b):
    from .harness import Missing
    device = gpu()
    if device == 'cpu' and not b.quick: raise Missing('there is no GPU here')
    name_it(b, device)
    end = time.perf_counter()+TOTAL
    def left(seconds): return max(10, min(seconds, end-time.perf_counter()))
    keep_checks(b, b.once('checks', lambda: checked(b, device, SEEDS[:1] if b.quick else SEEDS)))
    if device == 'cuda': keep_waits(b, b.once('waits', lambda: told(rows('waits', device, seconds=left(WAITING)))))
    for net, how in list(NETS.items())[:1 if b.quick else None]:
        args = (200, 1) if b.quick else (None, REPEATS)
        keep_epochs(b, net, b.once(net, lambda: told(rows('epochs', net, device, *args, seconds=left(2*how['seconds'])))))

def told(found):
    "All of the rows, each shown when it comes"
    res = []
    for r in found:
        print(*r[1:], flush=True)
        res.append(r)
    return res

def keep_checks(b, found):
    failed = [r for r in found if r[3]]
    for name, word, errors, why in failed: b.missing[f'check “{name}”, {word}'] = why
    for name, word, errors, why in found:
        group, what = name.split(': ', 1) if ': ' in name else ('checks', name)
        if errors and not why: b.keep(f'checks: {group}', what, word, errors)
    n = 1 if b.quick else len(SEEDS)
    b.aim('checks that fail', [len(failed)]*n, unit='', at_most=0)
    b.aim('checks that were made', [len(found)]*n, unit='')

def keep_waits(b, found):
    for kind, *row in found:
        if kind == 'waits': b.keep('waits for the GPU in a batch', row[0], 'waits', row[1])
        elif row[0]: b.missing['waits for the GPU'] = row[1]

def keep_epochs(b, net, found):
    got = {}
    for kind, *row in found:
        if kind == 'epoch': got.setdefault(row[0], {}).setdefault(row[1], []).append(row[2:])
        elif kind == 'fails': b.missing[f'{row[0]}: {row[1]}'] = row[2]
        elif row[0]: b.missing[f'{net}, further rounds'] = row[1]
    order = [w+t for t in ('', THERE) for w in (BARE, OURS, LAYERS)]
    for group, ways in sorted(got.items(), key=lambda kv: kv[0].endswith('bfloat16')):
        for k in sorted(ways, key=order.index):
            seconds, hits = zip(*ways[k])
            b.keep(group, k, 's', seconds, images=60_000 if not b.quick else 400)
            b.keep(group, k, '%', hits)
        for t in ('', THERE):
            for who in (OURS, LAYERS):
                if who+t in ways and BARE+t in ways: b.ratio(f'{group}: {who} ÷ {BARE}{t}', [s for s, _ in ways[who+t]], [s for s, _ in ways[BARE+t]], **(dict(at_most=1.05) if who == OURS else {}))
    for t in ('', THERE):
        a, c = (got.get(f'{net}, {w}', {}).get(BARE+t) for w in ('bfloat16', 'float32'))
        if a and c: b.ratio(f'{net}: bfloat16 ÷ float32, {BARE}{t}', [s for s, _ in a], [s for s, _ in c])

_SMALL = "A step of so small a network takes the GPU less time than the processor needs to ask for it: what is timed is the processor, and the rounds of one and the same loop lie further apart than the aim."
WHY = {CNN: _SMALL, RES: _SMALL, WIDE: _SMALL}

ALT = "Bars of the time of an epoch over that of the bare loop with its batches from the CPU, a group for each network and number format, and a bar for each way to train."
def draw(d, fig):
    "Seconds over those of the bare loop"
    ax = fig.subplots()
    groups = {k: rows for k, rows in d.items() if BARE in rows}
    for i, who in enumerate(w+t for t in ('', THERE) for w in (BARE, OURS, LAYERS)):
        bars = [(j+.13*(i-2.5), rows[who]['s']['median']/rows[BARE]['s']['median']) for j, rows in enumerate(groups.values()) if who in rows]
        if bars: ax.barh(*zip(*bars), height=.12, color=f'C{i%3}', alpha=.55 if who.endswith(THERE) else 1, label=who)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.axvline(1, color='.5', lw=1)
    ax.set(xlabel='time ÷ time of the bare loop')
    ax.invert_yaxis()
    ax.grid(axis='y', visible=False)
    if groups: fig.legend(loc='outside lower center', ncols=1, fontsize=9)

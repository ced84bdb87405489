"""Sixty thousand digits into four tensors

`get_data()` of [00a_data](00a_data.ipynb) in its three ways: from the package's own file, through fastdownload from an archive, and from fastdownload's cache. Beside
it MNIST's own format as torchvision reads it, from files that need no unpacking, brought into the same four tensors; and torchvision itself, where it is
installed. The archive and the files are written by the benchmark, so nothing is downloaded. Each load is in an interpreter of its own, with the imports done; memory is
what is held at most, over the size of the tensors that come out.
"""
OURS, FETCH, CACHE, IDX, PEER = 'packaged file', 'fastdownload, first', 'fastdownload, cached', 'IDX files', 'torchvision'
LOAD = {
    OURS: ('from notes.data import get_data', 'ts = get_data()'),
    FETCH: ('from notes.data import get_data\nimport fastdownload, filelock, tempfile',
            'ts = get_data({url!r}, sha256={sha256!r}, base=tempfile.mkdtemp(dir={folder!r}), progress=False)'),
    CACHE: ('from notes.data import get_data\nimport fastdownload, filelock', 'ts = get_data({url!r}, sha256={sha256!r}, base={base!r}, progress=False)'),
    IDX: ('from bench.loader import four, read_idx', 'ts = four(read_idx({images!r}), read_idx({labels!r}))'),
    PEER: ('from bench.loader import four\nfrom torchvision.datasets import MNIST', 'd = MNIST({folder!r}); ts = four(d.data, d.targets)'),
}

def read_idx(path):
    "Tensor of bytes in a file of MNIST's own format: two zeros, the type, the number of axes, their sizes in big-endian order, the numbers"
    import math, numpy as np, torch
    from pathlib import Path
    raw = Path(path).read_bytes()
    if raw[:3] != b'\0\0\x08': raise ValueError(f'{path} holds no bytes in IDX format')
    shape = [int.from_bytes(raw[4*i:4*i+4], 'big') for i in range(1, raw[3]+1)]
    return torch.from_numpy(np.frombuffer(raw, np.uint8, math.prod(shape), 4+4*raw[3]).reshape(shape).copy())

def write_idx(path, x):
    path.write_bytes(bytes([0, 0, 8, x.ndim])+b''.join(n.to_bytes(4, 'big') for n in x.shape)+x.numpy().tobytes())

def four(images, labels):
    "What `get_data` returns, from images and labels as bytes"
    parts = slice(50_000), slice(50_000, None)
    return [t for p in parts for t in (images[p].flatten(1).float().div_(256), labels[p].long())]

def digests(tensors):
    import hashlib
    return [hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in tensors]

def write(folder):
    "The digits in the other two formats, below `folder`; the names that LOAD wants"
    import gzip, hashlib, pickle, torch
    from notes.data import get_data
    xt, yt, xv, yv = get_data()
    pairs = [(x.numpy(), y.numpy()) for x, y in ((xt, yt), (xv, yv), (xv[:1], yv[:1]))]  # training, validation, and a test set that is not looked at
    archive, raw = folder/'mnist.pkl.gz', folder/'MNIST'/'raw'
    with gzip.open(archive, 'wb', compresslevel=6) as f: pickle.dump(pairs, f, protocol=2)
    raw.mkdir(parents=True)
    images, labels = torch.cat([xt, xv]).mul(256).byte().view(-1, 28, 28), torch.cat([yt, yv]).byte()
    for part, n in (('train', None), ('t10k', 1)):
        write_idx(raw/f'{part}-images-idx3-ubyte', images[:n])
        write_idx(raw/f'{part}-labels-idx1-ubyte', labels[:n])
    return dict(url=archive.as_uri(), sha256=hashlib.sha256(archive.read_bytes()).hexdigest(), base=str(folder/'cache'), folder=str(folder),
                images=str(raw/'train-images-idx3-ubyte'), labels=str(raw/'train-labels-idx1-ubyte'))

def run(b):
    import tempfile
    from pathlib import Path
    from notes.data import get_data
    from .harness import cost
    ts = get_data()
    size, after = sum(t.nbytes for t in ts), f'from bench.loader import digests\nif digests(ts) != {digests(ts)}: raise SystemExit("the tensors differ")'
    with tempfile.TemporaryDirectory() as folder:
        names = write(Path(folder))
        def load(k):
            if k == PEER and PEER not in b.peers: b.peer(PEER)
            return cost(f'import torch\ntorch.set_num_threads({b.threads})\n{LOAD[k][0]}', LOAD[k][1].format(**names), b.threads, after)
        t = b.rounds('four tensors', {k: lambda k=k: load(k) for k in LOAD})
    b.aim(f'{OURS}, seconds', t['s'][OURS], 's', at_most=1)
    for k in LOAD:
        if k in t['s'] and k != OURS: b.ratio(f'{k} ÷ {OURS}, seconds', t['s'][k], t['s'][OURS])
    for k, v in t.get('B', {}).items(): b.aim(f'{k}, memory ÷ that of the four tensors', [m/size for m in v], at_most=2 if k == OURS else None)

ALT = "Two charts of bars side by side, a row for each way to load the digits: seconds on the left, the most memory that was held on the right."
def draw(d, fig):
    "Seconds and memory, as bars"
    (rows,), axs = d.values(), fig.subplots(1, 2, sharey=True)
    for ax, unit, scale, label in zip(axs, 'sB', (1, 1e-6), ('seconds', 'MB, at most')):
        if unit in next(iter(rows.values())): ax.barh(list(rows), [f[unit]['median']*scale for f in rows.values()], color=['C1' if k in (IDX, PEER) else 'C0' for k in rows])
        ax.set(xlabel=label)
    axs[0].invert_yaxis()
    for ax in axs: ax.grid(axis='y', visible=False)

"""Make notes/mnist.npz from mnist.pkl.gz, byte for byte: python tools/mnist.py [ADDRESS] [--out FILE]

ADDRESS is http, https or file. The bytes depend on zlib, of which some builds of Python carry another make; what they hold doesn't.
"""
import argparse, hashlib, io, zipfile
from pathlib import Path
import numpy as np, torch
from notes import data

def pack(images, labels):
    "Bytes of the archive: `images` (n,28,28) and `labels` (n,), both uint8; no dates and no owners in it"
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for name, a in (('images', images), ('labels', labels)):
            with z.open(f'{name}.npy', 'w') as g: np.lib.format.write_array(g, a, allow_pickle=False)
    return f.getvalue()

def archive(x_train, y_train, x_valid, y_valid):
    "The archive of the four tensors of `get_data`, training first"
    x, y = torch.cat([x_train, x_valid]), torch.cat([y_train, y_valid])
    return pack((x*256).byte().view(-1, 28, 28).numpy(), y.byte().numpy())

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('url', nargs='?', default=data.MNIST_URL, help="where mnist.pkl.gz is (default: %(default)s)")
    ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'notes'/'mnist.npz')
    args = ap.parse_args()
    raw = archive(*data.get_data(args.url))
    args.out.write_bytes(raw)
    print(f"{args.out}: {len(raw):,} bytes, sha256 {hashlib.sha256(raw).hexdigest()}")

if __name__ == '__main__': main()

"""Make the four files of data in notes/ from mnist.pkl.gz and Fashion-MNIST's IDX files, byte for byte: python tools/data.py [--mnist URL] [--fashion URL] [--out FOLDER]

The addresses are http, https or file. The bytes depend on zlib, of which some builds of Python carry another make; what they hold doesn't.
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

def archive(*tensors):
    "The archive of images, labels, images, labels and so on, as `get_data` returns them, in this order"
    x, y = torch.cat(tensors[::2]), torch.cat(tensors[1::2])
    return pack((x*256).byte().view(-1, 28, 28).numpy(), y.byte().numpy())

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--mnist', default=data.MNIST_URL, help="where mnist.pkl.gz is (default: %(default)s)")
    ap.add_argument('--fashion', default=data.FASHION_URL, help="the folder that Fashion-MNIST's four files are in (default: %(default)s)")
    ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'notes')
    args = ap.parse_args()
    made = dict(mnist=data.get_data(args.mnist), mnist_test=data.final_test_set('mnist', args.mnist),
                fashion=data.get_fashion(args.fashion), fashion_test=data.final_test_set('fashion', args.fashion))
    for name, tensors in made.items():
        f, raw = args.out/f'{name}.npz', archive(*tensors)
        f.write_bytes(raw)
        print(f"{f}: {len(raw):,} bytes, sha256 {hashlib.sha256(raw).hexdigest()}")

if __name__ == '__main__': main()

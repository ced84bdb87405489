"""Are the outputs stored in a notebook those of a fresh run? `differences(stored, fresh)` answers with a list of sentences.

The rules:

- Outputs are compared cell by cell: how many, of which kinds, in which order. Streams that follow each other count as one.
- Words must be equal, except for what no two runs share: memory addresses, uuids, folders, and the width of blank space.
- Whole numbers must be equal. Other numbers may differ by `RTOL`, or by one unit of the last digit shown where that is
  at most `RTOL_DIGIT`, and by `ATOL`. Sums in float32 come out differently on different CPUs: the error is about 1e-6 of
  the terms, seldom more than 1e-5 after a deep network, and where it crosses a rounding edge the last digit turns over.
- A picture must have the same size within `PIXELS`, and when laid over the other, differ by at most `MEAN` on average and
  by at most `BLOCK` in any block of 8×8 pixels (1 is black against white). matplotlib brings its own fonts, so the same
  figure is the same to a pixel or so on every machine; a moved curve or another digit is over `BLOCK`.
- What a clock, the memory or the kind of CPU decides is masked where a cell says so, in a line `#| varies: WHAT`:
  `numbers` (and the units after them), `picture` (there must be one of that kind), `text` (there must be some).
"""
import base64, io, re
import numpy as np
from PIL import Image, ImageSequence
from directives import directives

RTOL, RTOL_DIGIT, ATOL = 1e-4, 1e-3, 1e-6
PIXELS, MEAN, BLOCK = 2, .002, .1
VARIES = {'numbers', 'picture', 'text'}
PICTURES = {'image/png', 'image/jpeg', 'image/gif', 'image/svg+xml'}

_number = re.compile(r'(?:(?<![\w)\].])[-+])?(?<![\w.])(?:\d{1,3}(?:[,_]\d{3})+(?!\d)(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?', re.I)
_unit = re.compile(r'\s?(?:[nµμum]?s|seconds?|min|[kMGT]?i?B(?:/s)?|[kMGT]?FLOPS?(?:/s)?|[kMG]?Hz|[×x%])(?!\w)')
_noise = [(re.compile(p), r) for p, r in (
    (r'\x1b\[[0-9;]*m', ''),  # colours
    (r'[^\n]*\r(?!\n)', ''),  # what a progress bar has written over
    (r'[-─━═_]{3,}', '---'),  # rules, as wide as what they are under
    (r'0x[0-9a-fA-F]{6,}', 'address'),
    (r'\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b', 'uuid'),
    (r'(?<![\w/:.<])(?:[A-Za-z]:|file:/{0,2})?(?:[\\/][\w.+@~-]+)+[\\/](?=[\w.+@~-])', '…/'),  # the folder of an absolute path
    (r'\btmp[a-z0-9_]{8}\b', 'tmp…'))]
_data_uri = re.compile(r'data:(image/[\w+]+);base64,([\w+/=\\\n]+)')


def varies(source):
    "What a cell says that varies from run to run"
    return {w.strip() for w in directives(source).get('varies', '').split(',') if w.strip()}

def joined(outputs):
    "`outputs` with the streams that follow each other made one"
    res = []
    for o in outputs:
        if o['output_type'] == 'stream' and res and res[-1]['output_type'] == 'stream' and res[-1]['name'] == o['name']:
            res[-1] = {**res[-1], 'text': res[-1]['text'] + o['text']}
        else: res.append(o)
    return res

def _as_text(x): return x if isinstance(x, str) else ''.join(map(str, x)) if isinstance(x, list) else str(x)

def _split(text, masked):
    "The words between the numbers of `text`, and the numbers"
    for p, r in _noise: text = p.sub(r, text)
    nums = [m[0] for m in _number.finditer(text)]
    words = _number.split(text)
    if masked: words = words[:1] + [_unit.sub('', w, count=1) if _unit.match(w) else w for w in words[1:]]
    return [' '.join(w.split()) for w in words], nums

def same_number(a, b):
    "Do the numerals `a` and `b` stand for one number, within the tolerance above?"
    a, b = re.sub('[,_]', '', a).lower(), re.sub('[,_]', '', b).lower()
    if not re.search(r'[.e]', a + b): return int(a) == int(b)
    x, y = float(a), float(b)
    if x == y: return True
    size = max(abs(x), abs(y))
    return abs(x - y) <= ATOL + max(RTOL*size, min(1.01*max(_digit(a), _digit(b)), RTOL_DIGIT*size))

def _digit(s):
    "One unit of the last digit shown in the numeral `s`"
    mantissa, _, exponent = s.partition('e')
    return 10.**(int(exponent or 0) - len(mantissa.partition('.')[2]))

def text_difference(a, b, masked=False):
    "What differs between the texts `a` and `b`, or None"
    if a == b: return None
    (wa, na), (wb, nb) = _split(a, masked), _split(b, masked)
    for i, (u, v) in enumerate(zip(wa, wb)):
        if u != v: return f"stored {_excerpt(u, v)}, fresh {_excerpt(v, u)}"
        if i < len(na) and i < len(nb) and not masked and not same_number(na[i], nb[i]): return f"stored {na[i]}, fresh {nb[i]}, after {u[-40:]!r}"
    if len(wa) != len(wb): return f"stored has {len(na)} numbers, fresh has {len(nb)}"
    return None

def _excerpt(a, b, n=60):
    i = next((i for i, (u, v) in enumerate(zip(a, b)) if u != v), min(len(a), len(b)))
    return repr(a[max(0, i-20):i+n])

def picture_difference(a, b):
    "What differs between the pictures in the bytes `a` and `b`, or None"
    if a == b: return None
    fa, fb = ([np.asarray(_on_white(f), dtype=np.float32)/255 for f in ImageSequence.Iterator(Image.open(io.BytesIO(x)))] for x in (a, b))
    if len(fa) != len(fb): return f"stored has {len(fa)} frames, fresh has {len(fb)}"
    for i, (x, y) in enumerate(zip(fa, fb)):
        if max(abs(x.shape[0] - y.shape[0]), abs(x.shape[1] - y.shape[1])) > PIXELS:
            return f"stored is {x.shape[1]}×{x.shape[0]} pixels, fresh {y.shape[1]}×{y.shape[0]}"
        h, w = min(x.shape[0], y.shape[0]), min(x.shape[1], y.shape[1])
        d = np.abs(x[:h, :w] - y[:h, :w]).mean(-1)
        padded = np.pad(d, ((0, -h % 8), (0, -w % 8)))
        block = padded.reshape(padded.shape[0]//8, 8, -1, 8).mean((1, 3)).max()
        if d.mean() > MEAN or block > BLOCK:
            return f"pictures differ{f' in frame {i}' if len(fa) > 1 else ''}: {d.mean():.4f} on average (at most {MEAN}), {block:.2f} in one block (at most {BLOCK})"
    return None

def _on_white(im):
    im = im.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im).convert('RGB')

def _bundle_difference(a, b, masks):
    "What differs between two of Jupyter's bundles of one output in several formats"
    if a.keys() != b.keys(): return f"stored has {', '.join(sorted(a))}; fresh has {', '.join(sorted(b))}"
    for kind in a:
        u, v = _as_text(a[kind]), _as_text(b[kind])
        if kind == 'image/svg+xml': d = None if 'picture' in masks else text_difference(u, v)
        elif kind.startswith('image/'): d = None if 'picture' in masks else picture_difference(base64.b64decode(u), base64.b64decode(v))
        else: d = _page_difference(u, v, masks)
        if d: return f"{kind}: {d}"
    return None

def _page_difference(u, v, masks):
    "What differs between two texts that may hold pictures as data URIs"
    pu, pv = (_data_uri.findall(x) for x in (u, v))
    if len(pu) != len(pv) and 'picture' not in masks: return f"stored has {len(pu)} pictures inside, fresh has {len(pv)}"
    if 'picture' not in masks:
        for (_, p), (_, q) in zip(pu, pv):
            if d := picture_difference(*(base64.b64decode(x.replace('\\\n', '').replace('\n', '')) for x in (p, q))): return d
    if 'text' in masks: return None if bool(u.strip()) == bool(v.strip()) else "one of them is empty"
    return text_difference(_data_uri.sub('picture', u), _data_uri.sub('picture', v), 'numbers' in masks)

def _output_difference(a, b, masks):
    if a['output_type'] != b['output_type']: return f"stored is {a['output_type']}, fresh is {b['output_type']}"
    if a['output_type'] == 'stream':
        if a['name'] != b['name']: return f"stored is {a['name']}, fresh is {b['name']}"
        return _page_difference(a['text'], b['text'], masks)
    if a['output_type'] == 'error': return _page_difference(f"{a['ename']}: {a['evalue']}", f"{b['ename']}: {b['evalue']}", masks)
    return _bundle_difference(a['data'], b['data'], masks)

def cell_differences(stored, fresh):
    "Sentences that say where the outputs of the code cells `stored` and `fresh` differ"
    masks, a, b = varies(stored['source']), joined(stored['outputs']), joined(fresh['outputs'])
    ka, kb = ([o['output_type'] for o in x] for x in (a, b))
    if len(a) != len(b): return [f"stored has {len(a)} outputs ({', '.join(ka) or 'none'}), fresh has {len(b)} ({', '.join(kb) or 'none'})"]
    return [d for u, v in zip(a, b) if (d := _output_difference(u, v, masks))]

def differences(stored, fresh):
    "Sentences that say where the outputs of the notebook `stored` are not those of `fresh`, which holds the same cells"
    a, b = ([(c['id'], c['cell_type'], c['source']) for c in nb['cells']] for nb in (stored, fresh))
    if a != b: return ["the fresh run was made from other cells"]
    last = lambda c: c['source'].strip().split('\n')[-1]
    return [f"cell {i} (id {s['id']}): {d}\n    {last(s)}"
            for i, (s, f) in enumerate(zip(stored['cells'], fresh['cells']), 1) if s['cell_type'] == 'code' for d in cell_differences(s, f)]

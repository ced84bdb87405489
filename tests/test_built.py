"The page “What you have built”: the package's code, whole, with links that work"
# ruff: noqa: F811 (fixtures)
import ast, importlib, inspect, re, sys, textwrap
from collections import defaultdict
from functools import partial
from urllib.parse import urlsplit
import pytest, torch
from test_site import MODULES, notebook, read, site, src  # noqa: F401
import built
from notes.augmentation import Augment, affine
from notes.data import fit_digit
from notes.fully_connected import normalize
from notes.learner import Learner
from notes.optimizers import AdamW, Schedule, one_cycle
from notes.resnet import resnet
from notes.training import CrossEntropy, Dataset, backprop, get_dls, softmax

PIECES = [p for part in built.PARTS.values() for _, _, names in part for p in built.pieces(names, MODULES)]
KEYS = [p.key for p in PIECES]

def function(key):
    "What the package has under this name, as Python finds it"
    module, *names = key.split('.')
    o = importlib.import_module(f'notes.{module}')
    for n in names: o = inspect.getattr_static(o, n)
    return inspect.unwrap(o.fget if isinstance(o, property) else o)

def bare(f):
    "Its parsed source without types"
    f, = ast.parse(textwrap.dedent(f if isinstance(f, str) else inspect.getsource(f))).body
    for n in ast.walk(f.args):
        if isinstance(n, ast.arg): n.annotation = None
    return f

def test_each_stands_once(): assert len({*KEYS}) == len(KEYS) and built.FIRST <= {*KEYS}

def refuses(line): return re.match(r'["\']|(\w+\.)?_check\w*\(', line) or re.fullmatch(r'if [^\n]+\n    raise [^\n]+', line)

@pytest.mark.parametrize('piece', PIECES, ids=KEYS)
def test_its_code_is_the_packages(piece):
    here, there = bare(re.sub(r'^@.+\n', '', piece.code)), bare(function(piece.key))
    assert here.name == there.name and ast.dump(here.args) == ast.dump(there.args)
    marks = [ast.unparse(d) for d in there.decorator_list]
    assert [m for m in marks if not m.startswith('patch')] == re.findall(r'^@(.+)$', piece.code, re.M)
    left = [ast.unparse(n) for n in there.body]
    for n in map(ast.unparse, here.body):  # all of it, in this order; what is missing only says or refuses something
        while left[0] != n:
            gone = left.pop(0)
            assert refuses(gone), gone
        left.pop(0)
    assert all(map(refuses, left)) and max(map(len, piece.code.split('\n'))) <= 100

def test_the_page_shows_all_of_it(site):
    assert read('index').links.count('built.html') == 2  # beside the paper, and in the list of pages
    blocks = [b['text'] for b in read('built').blocks if b['tag'] == 'pre']
    assert [b.rstrip() for b in blocks] == [p.code for p in PIECES]

@pytest.mark.parametrize('piece', PIECES, ids=KEYS)
def test_its_links_lead_to_it(site, piece):
    "To the cell that defines it, and to the API's entry for it; a helper has none"
    *_, own = piece.key.split('.')
    cell = next(c for c in notebook(piece.notebook)['cells'] if c.get('id') == piece.cell)
    assert re.search(rf'def {own}\(', src(cell)) and f'cell-{piece.cell}' in read(piece.notebook).ids
    links = read('built').links
    assert f'{piece.notebook}.html#cell-{piece.cell}' in links
    if own.startswith('_') and (piece.key.count('.') == 1 or piece.api is None):  # a helper; and one of a class of another module
        assert piece.api is None
        return
    page, anchor = urlsplit(piece.api).path, urlsplit(piece.api).fragment
    assert piece.api in links and anchor in read(page.removesuffix('.html')).ids
    entry = importlib.import_module('.'.join(anchor.split('.')[:2]))
    for n in anchor.split('.')[2:]: entry = inspect.getattr_static(entry, n)
    if inspect.isclass(entry): entry = inspect.getattr_static(entry, own) if own in vars(entry) else getattr(entry, own)  # a base gives it, or it's a helper in it
    assert inspect.unwrap(entry.fget if isinstance(entry, property) else entry) is function(piece.key)

# ---- Nothing is missing

PLACES = defaultdict(list)
for m in MODULES.values():
    for name, node in built.definitions(m.path).items(): PLACES[m.name].append((built.start(node), node.end_lineno, name))

def checks(frame):
    "Is this within a function that only refuses what doesn't fit?"
    while frame and not frame.f_code.co_name.startswith('_check'): frame = frame.f_back
    return frame is not None

def passed(f):
    "The package's functions that run in `f`, as `module.name`; what stands inside one counts as it"
    found = set()
    def look(frame, event, arg):
        path = frame.f_code.co_filename.replace('\\', '/')
        if event != 'call' or not (m := re.search(r'/notes/(\w+)\.py$', path)) or checks(frame): return
        line = frame.f_code.co_firstlineno
        found.update(f'{m[1]}.{name}' for a, b, name in PLACES[m[1]] if a <= line <= b)
    sys.setprofile(look)
    try: f()
    finally: sys.setprofile(None)
    return {k for k in found if not (own := k.split('.')[-1]).startswith('_check') and own not in built.LEFT_OUT}

def test_a_reading_passes_nothing_else():
    def read_one():
        with torch.no_grad(): softmax(model(normalize(fit_digit(torch.eye(40)), .1, .3).view(1, 1, 28, 28)))
    model = resnet().eval()
    found, part = passed(read_one), {p.key for _, _, names in built.READING for p in built.pieces(names, MODULES)}
    assert found <= part
    assert part-found == built.FIRST & part | {'resnet.resnet', 'resnet.res_block', 'resnet.conv_norm', 'modules.Identity.forward'}  # to build it; and its blocks have all another size

def test_a_step_passes_nothing_else():
    torch.manual_seed(0)
    model, loss, x, y = resnet((2, 3)), CrossEntropy(), torch.rand(8, 1, 28, 28), torch.arange(8)
    opt = AdamW(model.parameters(), .01)
    def step():
        l = loss(model(x), y)
        opt.zero_grad()
        backprop(l, model, loss)
        opt.step()
    assert passed(step) <= {*KEYS}

def test_all_that_trains_is_passed_by_a_fit():
    torch.manual_seed(0)
    ds = Dataset(torch.rand(8, 1, 28, 28), torch.arange(8))
    cbs = [Schedule(one_cycle), Augment(partial(affine, degrees=10))]
    learn = Learner(resnet((2, 3, 3), strides=(2, 1)), get_dls(ds, ds, 4, seed=0), CrossEntropy(), AdamW, .01, cbs)
    training = {p.key for _, _, names in built.READING+built.TRAINING for p in built.pieces(names, MODULES)}
    assert {p for p in training if p not in built.FIRST}-passed(lambda: learn.fit(1)) <= {p.key for _, _, names in built.READING[:2] for p in built.pieces(names, MODULES)}

def test_a_step_together_passes_nothing_else():
    "That of rank 0, whose neighbour runs beside it; the gradients are the mean of both"
    from threading import Thread
    from types import SimpleNamespace
    from notes import parallel
    links, grads = parallel._all_links(2, parallel.mp.Pipe), {}
    def work(rank):
        torch.manual_seed(0)
        model, loss, x, y = resnet((2, 3)), CrossEntropy(), torch.rand(8, 1, 28, 28)*(rank+1), torch.arange(8)
        group = parallel.Group(rank, links[rank])
        def start(flat):  # not in a thread of its own, in which nobody looks on
            parallel.all_reduce_ring(flat, group)
            return SimpleNamespace(wait=lambda: None)
        buckets = parallel.Buckets(model.parameters(), start, size=300)
        buckets.watch(model)
        def step():
            backprop(loss(model(x), y), model, loss)
            buckets.finish()
            grads[rank] = [p.grad for p in model.parameters()]
        return step
    other = Thread(target=work(1), daemon=True)
    step = work(0)
    other.start()
    found, part = passed(step), {p.key for _, _, names in built.TOGETHER for p in built.pieces(names, MODULES)}
    other.join(60)
    assert found <= {*KEYS} and part-found == built.FIRST & part | {'parallel.Background.__call__', 'parallel.Buckets.watch', 'hooks._add_hook', 'hooks._users'}  # before it
    assert grads.keys() == {0, 1} and all(map(torch.equal, *grads.values()))

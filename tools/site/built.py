"The page “What you have built”: the package's code that a digit passes on its way through 09's network, the code that trained it, and that by which several processes would train it, read from the modules"
import ast, re
from html import escape

# What a section says, and the definitions in it, as `module.name`; the code that is shown is the package's. Those in FIRST are how it began: no longer run.
READING = [
    ('The pixels', 'A drawing is cropped, scaled and put into the middle as the digits of the training set were. Then its pixels lose the mean of that set, and are divided by its standard deviation.',
     'data.fit_digit data._drawing data._crop data._area data._start fully_connected.normalize'),
    ('The network', 'Here it is built. What a digit becomes on its way, how many weights that takes, and how many products, each added to a sum:\n\n{table}',
     'resnet.resnet resnet.res_block resnet.conv_norm'),
    ('A layer is called', 'To call a module is to run its `forward`. It also keeps what the way back will need, where one is to come; a reading keeps nothing. A `Sequential` hands the result from each layer to the next.',
     'modules.Module.__call__ modules.Module._forward modules.Module.save_for_backward modules.Sequential.forward modules._Layers.__iter__ modules.Module._own'),
    ('Convolution', 'All windows of the picture are laid out as columns; the kernels, as rows, meet them in one product. `unfold` was the first to make these columns; `conv2d` makes them by itself.',
     'convolutions.Conv2d.forward convolutions.Conv2d._how convolutions.conv2d convolutions._windows convolutions.conv_size convolutions._pad convolutions.unfold'),
    ('The matrix product', 'Nearly all multiplications of the network stand in ten convolutions and a linear layer, and each of these is one matrix product. It began as three loops over lists; then came a row at a time; now it is `@`, and [01a](01a_kernel.ipynb) shows what is in that.',
     'matmul.matmul_lists matmul.matmul_broadcast matmul.matmul'),
    ('Batch norm', 'Each channel loses its mean and is divided by its standard deviation, then gets a scale and a shift that were learned. In training both come from the batch; in a reading, from what was counted in training.',
     'normalization._BatchNorm.forward normalization._Norm._scaled'),
    ('ReLU, the sum, the mean', 'What is negative becomes 0. A block adds up two branches: two convolutions, and a shortcut around them. After the last block only the mean of each channel is left.',
     'modules.ReLU.forward fully_connected.relu modules.Sum.forward modules.Identity.forward resnet.GlobalAvgPool.forward'),
    ('Ten numbers, ten probabilities', 'One more product makes ten logits of the means. Softmax makes them positive, with a sum of 1: how sure the network is of each digit.',
     'modules.Linear.forward fully_connected.lin training.softmax training.log_softmax'),
]
TRAINING = [
    ('The loss', 'How wrong the ten numbers were: minus the logarithm of the right digit\'s probability. Its gradient is short: softmax, less 1 at the right digit.',
     'training.CrossEntropy.forward training.cross_entropy training.nll training.CrossEntropy.bwd training.cross_entropy_grad'),
    ('The way back', 'The layers in reverse: each takes the gradient of its output, adds to those of its weights, and gives that of its input. Where a branch began, gradients are added up.',
     'training.backprop modules.Module._keep modules.Module.backward modules._going_back modules.Sequential.bwd modules._Layers._way_back modules.Module._walk modules.Linear.bwd modules.accumulate_grad fully_connected.lin_grad '
     'resnet.GlobalAvgPool.bwd modules.ReLU.bwd fully_connected.relu_grad modules.Sum.bwd modules.Identity.bwd'),
    ('Back through batch norm', 'Mean and variance depend on every number of the batch, so each number\'s gradient has a part of all the others. Training also counts the statistics that a reading uses.',
     'normalization.standardize normalization._BatchNorm._track normalization._BatchNorm.bwd normalization.standardize_backward normalization._Norm._grads'),
    ('Back through a convolution', 'Two matrix products, one for the weights and one for the columns; then each column\'s gradient goes back to the pixels that it was made of, which `fold` did first.',
     'convolutions.Conv2d.bwd convolutions.conv2d_grad convolutions._add_windows convolutions.fold'),
    ('The step', 'An optimiser is one rule, `update`, called for each parameter. The first took the rate times the gradient; the network of the first page was trained by the last one here.',
     'training.Optimizer.zero_grad training.Optimizer._params training.Optimizer.step training.SGD.update optimizers.Adam.update optimizers._grad optimizers._average optimizers._count'),
    ('The rate', 'It rises at first and then falls to nearly nothing, set anew before each batch.',
     'optimizers.Schedule.before_batch optimizers.Schedule._place optimizers.one_cycle optimizers._cos learner.Learner.set_lr learner.Learner.lr'),
    ('The batches', 'An order is drawn for each epoch, and batches are fetched in it. Their digits are turned, scaled, sheared and shifted at random before the network sees them.',
     'training.Sampler.__iter__ training.BatchSampler.__iter__ training.Dataset.__getitem__ augmentation.Augment.before_batch augmentation.affine augmentation._draw augmentation._paper augmentation._places'),
    ('The loop', 'Epochs, batches, and what is done with a batch; between the lines callbacks are asked. It began as a function of 03, which stands at the end.',
     'learner.Learner.fit learner.Learner.__call__ learner.Learner._epoch learner.Learner._pass learner.Learner._batch learner.Learner.predict learner.Learner.get_loss '
     'learner.Learner._update learner.Learner.zero_grad learner.Learner.backward learner.Learner.step training._train'),
]
TOGETHER = [
    ('The sum over all', 'Several processes, each with its part of every batch, need the mean of their gradients, which is a sum with weights. The data go round a ring in chunks: each is added up on its way, and goes round once more, to be known. It began with everyone who sends to everyone, and with a tree.',
     'parallel.all_reduce_direct parallel.all_reduce_tree parallel.all_reduce_ring parallel._flat parallel._put_back'),
    ('A message', 'To the neighbour on one side, and from that on the other, at the same time: who sent first and received then would wait for ever. A thread sends while the process receives.',
     'parallel.Group.exchange parallel._start parallel._take parallel._finish parallel._link parallel._left parallel._bytes'),
    ('Gradients on their way', 'A gradient that is complete goes into a bucket, and a full bucket is sent while the way back still runs.',
     'hooks.Module.register_post_accumulate_grad_hook hooks._add_hook hooks._users hooks.Module._tell_grads hooks.Module._complete modules.Module.parameters modules.Module.named_parameters modules.Module._all modules._once parallel.Buckets.watch parallel.Buckets.ready parallel.Buckets._send parallel.Background.__call__ parallel.Buckets.finish parallel.Buckets._reset'),
]
PARTS = {'Reading a digit': READING, 'Learning to read': TRAINING, 'Learning together': TOGETHER}
FIRST = set('matmul.matmul_lists matmul.matmul_broadcast matmul.matmul convolutions.unfold convolutions.fold fully_connected.lin_grad training.SGD.update training._train parallel.all_reduce_direct parallel.all_reduce_tree'.split())
LEFT_OUT = ['_pair', '_pairs', '_any', '__len__', '__init__', '__setattr__']  # run too: a number as a pair, a tensor to compare dtypes with, a count, what makes an object, an assignment
CLASSES = {'_BatchNorm': 'BatchNorm2d', '_Norm': 'BatchNorm2d', '_Layers': 'Sequential'}  # where the API describes what a private base gives

def definitions(path):
    "{name: node} of a module's functions and methods, patched ones by the name of their class"
    found = {}
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.ClassDef): found |= {f'{node.name}.{n.name}': n for n in node.body if isinstance(n, ast.FunctionDef)}
        if not isinstance(node, ast.FunctionDef): continue
        patched = any(getattr(getattr(d, 'func', d), 'id', '') == 'patch' for d in node.decorator_list)
        found[f'{node.args.args[0].annotation.id}.{node.name}' if patched else node.name] = node
    return found

def start(node): return min([node.lineno, *(d.lineno for d in getattr(node, 'decorator_list', ()))])

def refuses(node):
    "Is this a docstring, or a line that only refuses what doesn't fit?"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant): return True
    if isinstance(node, ast.If): return not node.orelse and all(isinstance(n, ast.Raise) for n in node.body)
    called = getattr(getattr(node, 'value', None), 'func', None) if isinstance(node, ast.Expr) else None
    return (getattr(called, 'id', '') or getattr(called, 'attr', '')).startswith('_check')

def code(text, node):
    "What a definition does: its signature in one line, and its lines as they stand in the module's `text`, without what only refuses"
    a, src = node.args, lambda n: ast.get_source_segment(text, n)
    plain = [*a.posonlyargs, *a.args]
    named = [p.arg for p in plain[:len(plain)-len(a.defaults)]] + [f'{p.arg}={src(d)}' for p, d in zip(plain[len(plain)-len(a.defaults):], a.defaults)]
    if a.vararg or a.kwonlyargs: named.append('*'+(a.vararg.arg if a.vararg else ''))
    named += [p.arg+(f'={src(d)}' if d else '') for p, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: named.append('**'+a.kwarg.arg)
    marks = [src(d) for d in node.decorator_list if 'patch' not in src(d)]
    head, body = f'def {node.name}({", ".join(named)}):', [n for n in node.body if not refuses(n)]
    if body[0].lineno == node.lineno: return '\n'.join([*(f'@{m}' for m in marks), f'{head} {"; ".join(src(n) for n in body)}'])
    lines, rows = text.split('\n'), sorted({i for n in body for i in range(start(n), n.end_lineno+1)})  # whole lines: a comment may stand behind the code
    return '\n'.join([*(f'@{m}' for m in marks), head, *('    '+lines[i-1][body[0].col_offset:] for i in rows)])

def inline(md): return re.sub(r'`([^`]+)`', r'<code>\1</code>', escape(md, quote=False))

class Piece:
    "A definition of the package: its code, and where it stands in a notebook and in the API"
    def __init__(self, module, name, text, node):
        owner, self.key, self.lines = name.rpartition('.')[0], f'{module.name}.{name}', (start(node), node.end_lineno)
        shown = CLASSES.get(owner, owner)
        self.name, public = f'{shown}.{node.name}' if owner else name, name if name in module.public else shown
        self.code, self.says = code(text, node), re.split(r'; `|$', ast.get_docstring(node) or '')[0].removesuffix('.')
        self.notebook, self.cell = module.notebook, [c for c, line in module.cells.items() if line <= start(node)][-1]
        self.api = f'api/{module.name}.html#notes.{module.name}.{public}' if public in module.public else None

    def markdown(self, titles):
        name, says = f'<code>{escape(self.name)}</code>', f': {inline(self.says)}'*bool(self.says)
        if self.api: name = f'<a href="{self.api}">{name}</a>'
        at = f'<a class="defined" href="{self.notebook}.html#cell-{self.cell}">{titles[self.notebook]}</a>'
        first = '<span class="first">as it began</span> · '*(self.key in FIRST)
        return f'<p class="piece">{name}{says}<br>{first}{at}</p>\n\n```python\n{self.code}\n```\n'

def pieces(names, modules):
    "What the names of a section stand for"
    for key in names.split():
        module, name = key.split('.', 1)
        path = modules[module].path
        if name not in (found := definitions(path)): raise LookupError(f'the package has no {key}, which tools/site/built.py names')
        yield Piece(modules[module], name, path.read_text(encoding='utf-8'), found[name])

def table():
    "What a digit becomes in the network: outputs, parameters and multiply-adds of its parts"
    import torch
    from notes.resnet import resnet, summary
    model, parts = resnet(), {}
    for k, (_, shape, params, madds) in summary(model, torch.zeros(1, 1, 28, 28)).items():
        part = parts.setdefault(int(k.split('.')[0]), [None, 0, 0])
        part[:] = shape[1:], part[1]+params, part[2]+madds
    blocks = iter(range(1, len(parts)))
    names = {i: 'stem' if not i else f'block\u00a0{next(blocks)}' if hasattr(l, '__iter__') else {'GlobalAvgPool': 'mean', 'Linear': 'linear'}[type(l).__name__] for i, l in enumerate(model)}
    row = lambda name, shape, params, madds: f'| {name} | {"×".join(map(str, shape))} | {params:,} | {madds:,} |'
    total = [sum(p[i] for p in parts.values()) for i in (1, 2)]
    return '\n'.join(['| part | output | weights | products |', '|---|---|--:|--:|', *(row(names[i], *p) for i, p in parts.items()), row('all', (), *total)])

def possible(modules):
    "Are the modules there that the page is about? A series of fewer notebooks has no such page"
    return {key.split('.')[0] for part in PARTS.values() for *_, names in part for key in names.split()} <= {m.name for m in modules}

def page(modules, titles):
    "Markdown of the page; `titles` are those of the notebooks, by name"
    modules, titles = {m.name: m for m in modules}, {n: f'{re.match("[0-9]+[a-z]?", n)[0]} · {t}' for n, t in titles.items()}
    parts = [(title, [(t, prose, [*pieces(names, modules)]) for t, prose, names in part]) for title, part in PARTS.items()]
    run = [[p for *_, ps in part for p in ps if p.key not in FIRST] for _, part in parts]
    n, m, k = ([len(ps), sum(p.code.count('\n')+1 for p in ps)] for ps in run)
    out = ['# What you have built', '', '> The code that a digit passes on its way to ten probabilities, the code that trained what it passes, and the code by which several processes train together, every line of it written in this series', '',
           f'On the [first page](index.md) you draw a digit, and the residual network of [09](09_resnet.ipynb) reads it. To make the network and read one, {n[0]} functions of this package run, {n[1]} lines in all; to learn how, {m[0]} more, {m[1]} lines; to learn it in several processes, {k[0]} more, {k[1]} lines. '
           'Here they stand in the order in which a digit passes them, as they are in the package. Under each name is the notebook that it was written in; the name itself leads to the API.', '',
           f"Left out is what only refuses arguments that don't fit, and {len(LEFT_OUT)} small helpers: {', '.join(f'`{n}`' for n in LEFT_OUT)}. What is borrowed are PyTorch's tensors, and what is done to their elements: no layer, loss, gradient, optimiser or loop is PyTorch's.", '']
    for title, part in parts:
        out += [f'## {title}', '']
        for t, prose, ps in part: out += [f'### {t}', '', prose.replace('{table}', table() if '{table}' in prose else ''), '', *(p.markdown(titles) for p in ps)]
    return '\n'.join(out)

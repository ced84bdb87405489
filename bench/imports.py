"""What an import costs

Each library is imported in an interpreter of its own, after `import torch`, which all of them need: so what is measured is what it adds. The files have been read
before, by a first round that is not counted.
"""
PEERS = {'fastai.vision.all': 'fastai', 'lightning': 'lightning', 'keras': 'keras'}
CODE = '''
import importlib, json, time
start = time.perf_counter()
import torch
after = time.perf_counter()
importlib.import_module({module!r})
print(json.dumps([after-start, time.perf_counter()-after]))
'''

def run(b):
    from .harness import ROOT, child
    imports = lambda module: child(CODE.format(module=module), b.threads)
    def peer(module):
        b.peer(PEERS[module], check=False)  # the import that is measured is the check
        return {'s': imports(module)[1]}
    ours = [f'notes.{p.stem}' for p in sorted((ROOT/'notes').glob('[!_]*.py'))]
    b.rounds('by itself', {'torch': lambda: {'s': imports('torch')[0]}})
    t = b.rounds('beyond torch', {m: lambda m=m: {'s': imports(m)[1]} for m in ours} | {m: lambda m=m: peer(m) for m in PEERS})['s']
    dearest = max(ours, key=lambda m: sum(t[m]))
    b.aim(f'{dearest}, the slowest of ours, beyond torch', t[dearest], 's', at_most=.05)
    for m in PEERS:
        if m in t: b.ratio(f'{m} ÷ {dearest}, both beyond torch', t[m], t[dearest])

ALT = "The time that each import adds to that of torch, a row for each, on a logarithmic axis: the modules of the series are on the left of a dashed line, the aim, and the other libraries on its right."
def draw(d, fig):
    "Milliseconds beyond torch"
    ax, (rows,) = fig.subplots(), (rows for group, rows in d.items() if group == 'beyond torch')
    for ours, label in ((True, 'the series'), (False, 'others')):
        ms = {m: f['s']['median']*1000 for m, f in rows.items() if m.startswith('notes.') == ours}
        ax.semilogx(list(ms.values()), list(ms), ls='', label=label)
    ax.axvline(50, color='.5', ls='--', label='aim for ours')
    ax.set(xlabel='ms beyond import torch')
    ax.xaxis.set_major_formatter('{x:g}')
    ax.invert_yaxis()
    fig.legend(loc='outside lower center', ncols=3)

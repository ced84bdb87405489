"The page of what was measured, made from the figures in bench/results and what bench/NAME.py says about them"
import importlib, io, json
from bench import NAMES
from bench.harness import HEADS, RESULTS, about, docs, figure_row, groups, ratio_row

COLOURS = {'light': ('#222222', ['#0067a5', '#b3491a', '#00735c', '#8b3f7a', '#5f5f5f']),
           'dark': ('#e8e8e8', ['#6cbcf0', '#ffac5c', '#4fd1ae', '#eba0d3', '#c0c0c0'])}
INTRO = '''# Measured

> What the series costs and how fast it is, beside what others use

What is compared was measured in one run on one machine: each contestant in turn, round after round after a warm-up, on a fixed number of threads. So a slow moment of the machine falls on all
of them, and the ratios, taken round by round, are worth more than the seconds; those belong to the machine that is named beside them. Every figure is a median; the quartiles, or the
interquartile range (IQR), say how far the rounds lie apart. No test depends on any of this.

## Measure it yourself

In a clone of the repository, `make bench` sets up an environment with the other libraries, measures everything there, prints the tables and keeps the figures in `bench/results`, from which `make site` makes this page. One
benchmark is `make bench B=NAME`. In any environment that has the series, `python -m bench NAME` does without the libraries that are missing, and names them.

## What was aimed at
'''

def table(head, rows, left=1):
    "Rows as a markdown table; all but the first `left` columns to the right"
    line = lambda cells: '| '+' | '.join(str(c).replace('|', r'\|') for c in cells)+' |'
    return '\n'.join([line(head), line([':--']*left+['--:']*(len(head)-left)), *map(line, rows)])+'\n'

def results():
    return {n: json.loads((RESULTS/f'{n}.json').read_text(encoding='utf-8')) for n in NAMES if (RESULTS/f'{n}.json').exists()}

def reasons(d, why):
    "Why aims were missed"
    missed = [r['what'] for r in d['ratios'] if r['met'] is False]
    texts = {next((t for start, t in why.items() if w.startswith(start)), f'*{w}* has not been explained yet.'): 0 for w in missed}
    return ['**Why an aim is missed.** '+' '.join(texts), ''] if texts else []

def section(name, d):
    title, text = docs(name)
    out = [f'## {title}', '', text, '']
    if not d: return out+[f'Not measured yet: `python -m bench {name}` does it.', '']
    bench = importlib.import_module(f'bench.{name}')
    out += [table(HEADS[0], map(ratio_row, d['ratios']))]
    out += [f'```{{image}} measured/{name}-{theme}.svg\n:class: only-{theme}\n:alt: {bench.ALT}\n```' for theme in COLOURS]
    out += ['', *reasons(d, getattr(bench, 'WHY', {}))]
    out += [f'**Not measured here:** {k} ({why}).\n' for k, why in d['missing'].items()]
    out += [f'<details><summary>All figures of <code>{d["command"]}</code></summary>', '']
    for group, rows in groups(d).items():
        full = [[f'**{group}**', *HEADS[1][1:]], *(figure_row(k, f) for k, f in rows.items())]
        keep = [i for i in range(len(full[0])) if any(r[i] for r in full[1:])]  # no memory was measured: no such column
        full = [[r[i] for i in keep] for r in full]
        out += [table(full[0], full[1:])]
    return out+['</details>', '', about(d), '']

def page():
    "Markdown of the page"
    ds = results()
    aims = [ratio_row(r) for d in ds.values() for r in d['ratios'] if r['met'] is not None]
    out = [INTRO, table(HEADS[0], aims) if aims else 'Nothing has been measured yet.\n']
    return '\n'.join(out+[l for n in NAMES for l in section(n, ds.get(n))])

def pictures():
    "The pictures of the page, light and dark: {name of the file: text}"
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure
    res = {}
    for name, d in results().items():
        for theme, (ink, colours) in COLOURS.items():
            cycle = cycler(color=colours*2) + cycler(marker=list('os^Dv<>P*X')) + cycler(ls=['-']*5+['--']*5)
            rc = {'text.color': ink, 'axes.edgecolor': ink, 'axes.labelcolor': ink, 'xtick.color': ink, 'ytick.color': ink, 'axes.prop_cycle': cycle,
                  'axes.facecolor': 'none', 'figure.facecolor': 'none', 'legend.frameon': False, 'font.size': 11, 'svg.hashsalt': name, 'axes.spines.top': False,
                  'axes.spines.right': False, 'axes.grid': True, 'grid.alpha': .25, 'axes.axisbelow': True, 'lines.markersize': 5}
            with matplotlib.rc_context(rc):
                fig, text = Figure(figsize=(6, 4.2), layout='constrained'), io.StringIO()
                importlib.import_module(f'bench.{name}').draw(groups(d), fig)
                fig.savefig(text, format='svg', metadata={'Date': None})
            res[f'{name}-{theme}.svg'] = text.getvalue()
    return res

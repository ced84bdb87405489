"The page of what was measured, made from the figures in bench/results and what bench/NAME.py says about them"
import importlib, io, json, re
from html import escape
from bench import NAMES
from bench.harness import RATIOS, RESULTS, about, docs, figure_tables, groups, ratio_row

# Ink, then the colours of what is drawn
COLOURS = {'light': ('#222222', '#0067a5', '#b3491a', '#00735c', '#8b3f7a', '#5f5f5f'), 'dark': ('#e8e8e8', '#6cbcf0', '#ffac5c', '#4fd1ae', '#eba0d3', '#c0c0c0')}
INTRO = '''# Measured

> What the series costs and how fast it is, beside what others use

'''
HOW = '''What is compared was measured in one run on one machine: each contestant in turn, round after round after a warm-up, in an order drawn anew for each round, on a fixed number of threads. So a slow moment of the machine falls on all
of them, and the ratios, taken round by round, are worth more than the seconds; those belong to the machine that is named beside them. Every figure is a median; the
quartiles say how far the rounds lie apart. Only where a network was trained once for each of several seeds is it the mean of those, and what stands behind ± is half of the interval in which the true mean lies with a probability of 0.95 (Student's t). No test depends on any of this.

'''
# What comes first: the median of a ratio, and the words for it, true of any number
FINDINGS = [('matmul', 'time of three loops over tensors ÷ time of @, 5×784 @ 784×10', 'Three loops over tensors take **{:,.0f} times** as long as `@` for the same product, five images by the weights of ten digits.'),
            ('step', 'ours, modules ÷ nn modules, batch 1,000', "A training step through our modules, every gradient by hand, takes **{:.2f} times** as long as through PyTorch's, which ask autograd."),
            ('epoch', 'Learner ÷ bare PyTorch loop', 'An epoch with our `Learner` takes **{:.2f} times** as long as a bare loop in PyTorch.')]
YOURSELF = '''## Measure it yourself

In a clone of the repository, `make bench` sets up an environment with the other libraries, measures everything there, prints the tables and keeps the figures in `bench/results`, from which `make site` makes this page. One
benchmark is `make bench B=NAME`. In any environment that has the series, `python -m bench NAME` does without the libraries that are missing, and names them.
'''

def table(head, rows):
    "Rows as a markdown table, the figures to the right and each in one line"
    line = lambda cells: '| '+' | '.join([str(cells[0]), *(c.replace(' ', '\u00a0') for c in cells[1:])])+' |'
    return '\n'.join(['<div class="figures">\n', line(head), line([':--']+['--:']*(len(head)-1)), *map(line, rows), '\n</div>\n'])

def results():
    return {n: json.loads((RESULTS/f'{n}.json').read_text(encoding='utf-8')) for n in NAMES if (RESULTS/f'{n}.json').exists()}

def reasons(d, why):
    "Why aims were missed: the texts of `why` for the ratios whose names begin as their keys do"
    missed = [r['what'] for r in d['ratios'] if r['met'] is False]
    known = [f'- *{k}*: {text}' for k, text in why.items() if any(w.startswith(k) for w in missed)]
    other = [f'- *{w}*: not explained yet.' for w in missed if not w.startswith(tuple(why))]
    return ['Why an aim is missed:', '', *known, *other, ''] if missed else []

def fold(summary, *lines):
    return [f'<details><summary>{summary}</summary>', '', *lines, '</details>', '']

def verdict(rows):
    "How many of the aims among the ratios `rows` are met"
    aims = [r['met'] for r in rows if r['met'] is not None]
    return f"{sum(aims)} of {len(aims)} aims met" if aims else 'Ratios'

def section(name, d):
    title, text = docs(name)
    out = [f'## {title}', '', text, '']
    if not d: return [*out, f'Not measured yet: `python -m bench {name}` does it.', '']
    bench = importlib.import_module(f'bench.{name}')
    out += [f'```{{image}} measured/{name}-{theme}.svg\n:class: only-{theme}\n:alt: {bench.ALT}\n```' for theme in COLOURS]
    out += ['', *(f'**Not measured here:** {k} ({escape(why)}).\n' for k, why in d['missing'].items())]
    if d['ratios']: out += fold(verdict(d['ratios']), table(RATIOS, map(ratio_row, d['ratios'])), *reasons(d, getattr(bench, 'WHY', {})))
    out += fold('All figures', *(table([f'**{group}**', *head[1:]], rows) for group, head, rows in figure_tables(d)))
    return [*out, *fold('The machine and the run', f'<p class="about">{escape(about(d))}: <code>{d["command"]}</code></p>', '')]

def findings(ds):
    "The three sentences, as far as what they name was measured"
    return [f'- {text.format(r["median"])}' for name, what, text in FINDINGS for r in ds.get(name, {}).get('ratios', ()) if r['what'] == what]

def page():
    "Markdown of the page"
    ds = results()
    aims = [r for d in ds.values() for r in d['ratios'] if r['met'] is not None]
    out = [INTRO, *findings(ds), '', HOW, *(fold(f'{verdict(aims)}: show all', table(RATIOS, map(ratio_row, aims))) if aims else ['Nothing has been measured yet.\n'])]
    return '\n'.join([*out, *(l for n in NAMES for l in section(n, ds.get(n))), YOURSELF])

def pictures():
    "The pictures of the page, light and dark: {name of the file: text}"
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure
    ink, *colours = light = COLOURS['light']
    cycle = cycler(color=colours*2) + cycler(marker=list('os^Dv<>P*X')) + cycler(ls=['-']*5+['--']*5)
    rc = {**dict.fromkeys(('text.color', 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color'), ink), 'axes.prop_cycle': cycle, 'axes.facecolor': 'none',
          'figure.facecolor': 'none', 'legend.frameon': False, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.alpha': .25,
          'axes.axisbelow': True, 'lines.markersize': 5, 'font.size': 11}
    res = {}
    for name, d in results().items():
        with matplotlib.rc_context({**rc, 'svg.hashsalt': name}):  # the same figures, the same file
            fig, text = Figure(figsize=(5.2, 4), layout='constrained'), io.StringIO()
            importlib.import_module(f'bench.{name}').draw(groups(d), fig)
            fig.savefig(text, format='svg', metadata={'Date': None})
        for theme, to in COLOURS.items():
            change = dict(zip(light, to))
            res[f'{name}-{theme}.svg'] = re.sub('|'.join(light), lambda m: change[m[0]], text.getvalue())
    return res

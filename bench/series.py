"""The series itself: how long it takes to make

What `make` does, in copies of the project: write the modules from the notebooks, run the notebooks, build the site. For the growth, a copy holds the series once, twice and four
times, each further notebook with a module of its own. A run's growth is measured on copies of the notebook that is quickest to run: every run has a
kernel of its own, so more of the same is all that a longer series can add.
"""
import math, os, re, shutil, subprocess, sys, time
FIRST = 'running the notebooks, one by one'
EXPORT, SITE, WARM, RUN = 'writing the modules', 'building the site', 'make, when nothing has changed', 'running one notebook and its copies'
STORED = '''
import json, sys
sys.path.insert(0, 'tools')
import run
(run.BUILD/'cache').mkdir(parents=True)
for p in run.notebooks():
    outputs = [c.outputs for c in run.code_cells(run.read(p))]
    (run.BUILD/'cache'/f'{p.stem}.json').write_text(json.dumps({'key': run.key(p), 'outputs': outputs}), encoding='utf-8')
'''

class Project:
    "A copy of the project in `folder`, its series `k` times as long; it is as after `make`, the stored outputs being taken for fresh ones"
    def __init__(self, folder, k):
        from .harness import ROOT
        self.folder, self.k = folder, k
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns('.*', '_build', '_docs', 'build', 'dist', '*.egg-info', '__pycache__', 'tests'))
        self.names = [p.stem for p in sorted((folder/'nbs').glob('[0-9]*.ipynb'))]
        for name in self.names:
            text = (folder/'nbs'/f'{name}.ipynb').read_text(encoding='utf-8')
            for i in range(2, k+1):
                own = re.sub(r'^( *"#\| default_exp \w+)"', rf'\1_{i}"', text, flags=re.M)
                (folder/'nbs'/f'{name}_{i}.ipynb').write_text(own, encoding='utf-8')
        self.export()
        self.python('-c', STORED)
        self.warm()
    def python(self, *args):
        "Seconds that Python takes for `args`"
        start = time.perf_counter()
        r = subprocess.run([sys.executable, *args], cwd=self.folder, env={**os.environ, 'PYTHONPATH': str(self.folder)}, capture_output=True, text=True, encoding='utf-8')
        if r.returncode: raise RuntimeError(f"python {' '.join(args)[:200]}\n{r.stdout}{r.stderr}")
        return time.perf_counter()-start
    def export(self): return self.python('-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()')
    def run(self, *names):
        for n in names: (self.folder/'_build'/'cache'/f'{n}.json').unlink(missing_ok=True)
        return self.python('tools/run.py', *names)
    def site(self):
        for d in [self.folder/'_docs', *(self.folder/'_build').glob('site*')]:
            if d.is_dir(): shutil.rmtree(d)
            else: d.unlink()
        return self.python('tools/site/build.py')
    def warm(self): return self.export()+self.python('tools/run.py')+self.python('tools/site/build.py')

def run(b):
    import tempfile
    from pathlib import Path
    with tempfile.TemporaryDirectory() as folder:
        ps = [Project(Path(folder)/f'{k}', k) for k in ((1, 2) if b.quick else (1, 2, 4))]
        one, last = ps[0], ps[-1]
        names = one.names[:1] if b.quick else one.names
        t = b.rounds(FIRST, {n: lambda n=n: {'s': one.run(n)} for n in names}, repeats=3, warm_up=0)['s']
        first = min(t, key=lambda n: sum(t[n]))
        copies = lambda p: [first, *(f'{first}_{i}' for i in range(2, p.k+1))]
        for what, f in ((EXPORT, Project.export), (RUN, lambda p: p.run(*copies(p))), (SITE, Project.site), (WARM, Project.warm)):
            t = b.rounds(what, {f'{p.k} × {len(one.names)} notebooks': lambda p=p: {'s': f(p)} for p in ps}, repeats=3, warm_up=0)['s']
            short, *_, long = t.values()
            if what == WARM: b.aim(f'{what}, {len(one.names)} notebooks', short, 's', at_most=10)
            b.ratio(f'{what}, {last.k} times the notebooks ÷ once', long, short, at_most=last.k)

ALT = "Lines of seconds against the number of notebooks, both on logarithmic axes: writing the modules, running copies of a notebook, building the site, and make when nothing has changed, beside a dashed line of proportional growth."
def draw(d, fig):
    "Seconds against the number of notebooks, beside a line of proportional growth"
    ax = fig.subplots()
    for group, rows in d.items():
        if group == FIRST: continue
        n = [math.prod(int(i) for i in re.findall(r'\d+', name)) for name in rows]
        ax.loglog(n, [f['s']['median'] for f in rows.values()], label=group)
    ax.loglog(n, [.3*i/n[0] for i in n], color='.5', ls='--', marker='', label='in proportion')
    ax.set(xlabel='notebooks', ylabel='seconds', xticks=n, xticklabels=n)
    ax.yaxis.set_major_formatter('{x:g}')
    ax.minorticks_off()
    fig.legend(loc='outside lower center', ncols=1, labelspacing=.3)

"""Build the site into `_docs/`: from the outputs in `_build/nbs` that tools/run.py made, or with --stored from those in `nbs/`

Strict: a warning is an error. Nothing is done again that is up to date.
"""
import argparse, hashlib, importlib.util, platform, re, shutil, sys, time
from pathlib import Path
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD, OUT = ROOT/'_build', ROOT/'_docs'
SRC, STATIC, TREES, KEY = BUILD/'site-src', BUILD/'site-static', BUILD/'site-trees', BUILD/'site.key'
sys.path[:0] = [str(HERE), str(ROOT)]
sys.path.append(str(HERE.parent))

def digest(paths):
    h = hashlib.sha256(platform.python_version().encode())
    for p in paths: h.update(p.name.encode()+p.read_bytes())
    return h.hexdigest()

def write(path, text):
    "Write `text` unless it stands there already, so that Sphinx reads only what has changed"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf-8') != text: path.write_text(text, encoding='utf-8')
    return path

def landing(readme, notebooks, modules, costs=False, terms=False, built=False):
    "README.md as the first page: its links lead to pages of the site or into the repository, and badges stay outside"
    import api
    def link(m):
        target = m[2]
        if re.match(r'[a-z]+:|#', target): return m[0]
        if nb := re.match(r'nbs/(\w+\.ipynb)', target): return f'[{m[1]}]({target[4:]})' if nb[1] in notebooks else m[0]
        return api.link(m[1], target)
    text = re.sub(r'\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\]\(https?:[^)]*\)', '', readme)
    text = re.sub(r'\[([^\]]*)\]\(([^)\s]+)\)', link, text)
    series = '\n'.join(f"{re.match('[0-9]+[a-z]?', n)[0]} · {title} <{n[:-6]}>" for n, title in notebooks.items()) + '\nWhat you have built <built>'*built + '\nGlossary <glossary>'*terms
    tree = '\n```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n'
    api_pages = '\n'.join(f'api/{m.name}' for m in modules)
    return text + tree.format('The series', series) + tree.format('The package', api_pages) + (tree.format('What it costs', 'measured') if costs else '')

def assemble(nbs):
    "Put together the folder that Sphinx reads"
    import api, built, ext, front, glossary, json, measured, seriesmap
    mods, titles, parsed, kept, costs = api.modules(), {}, {}, set(), bool(measured.results())  # no page before there are figures
    for name in sorted(p.name for p in (ROOT/'nbs').glob('[0-9]*.ipynb')):
        p = nbs/name
        if not p.exists(): sys.exit(f'{name} has not been run: call tools/run.py first, or give --stored')
        text = p.read_text(encoding='utf-8')
        parsed[p.stem] = json.loads(text)
        titles[p.name] = re.search(r'^# (.+)$', ''.join(parsed[p.stem]['cells'][0]['source']), re.M)[1]
        kept.add(write(SRC/p.name, text))
    try: terms = glossary.collect(parsed)
    except ValueError as e: sys.exit(str(e))
    kept |= {write(SRC/'api'/f'{m.name}.md', api.page(m)) for m in mods}
    first = landing((ROOT/'README.md').read_text(encoding='utf-8'), titles, mods, costs, bool(terms), built.possible(mods))
    kept.add(write(SRC/'index.md', seriesmap.fill(front.fill(first), parsed)))
    if terms: kept.add(write(SRC/'glossary.md', ext.markdown(glossary.page(terms, {n[:-6]: t for n, t in titles.items()}))))
    if built.possible(mods): kept.add(write(SRC/'built.md', built.page(mods, {n[:-6]: t for n, t in titles.items()})))
    if costs:
        kept.add(write(SRC/'measured.md', measured.page()))
        kept |= {write(SRC/'measured'/name, text) for name, text in measured.pictures().items()}
    kept.add(write(SRC/'404.md', (HERE/'404.md').read_text(encoding='utf-8')))
    stale = [p for p in SRC.rglob('*') if p.is_file() and p not in kept]
    for p in stale: p.unlink()
    return sum(p.suffix != '.svg' for p in kept), bool(stale)

def mathjax():
    "Copy the parts of MathJax that a page can load: one script and the fonts"
    files = Path(importlib.util.find_spec('sphinx-mathjax-offline').origin).parent/'static'/'mathjax'
    for p in [files/'tex-chtml-full.js', *files.glob('output/chtml/fonts/woff-v2/*.woff')]:
        to = STATIC/'mathjax'/p.relative_to(files)
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(p, to)

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--stored', action='store_true', help="use the outputs stored in nbs/")
    nbs, start = ROOT/'nbs' if ap.parse_args().stored else BUILD/'nbs', time.perf_counter()
    tools = digest([*sorted(p for p in HERE.rglob('*') if p.is_file() and '__pycache__' not in p.parts),
                    *(HERE.parent/f'{m}.py' for m in ('directives', 'heads', 'repository')), ROOT/'requirements.txt', ROOT/'pyproject.toml'])
    key = tools+digest([*sorted(nbs.glob('*.ipynb')), *sorted((ROOT/'notes').glob('*.py')), ROOT/'README.md',
                        *sorted((ROOT/'bench').glob('*.py')), *sorted((ROOT/'bench'/'results').glob('*.json'))])
    old = KEY.read_text() if KEY.exists() else ''
    if old == key and (OUT/'index.html').exists(): return print('The site is up to date: _docs/index.html')
    KEY.unlink(missing_ok=True)
    n, stale = assemble(nbs)
    mathjax()
    if stale or not old.startswith(tools):  # begin anew: Sphinx removes no old page, and sees no change in our extension
        for d in (OUT, TREES): shutil.rmtree(d, ignore_errors=True)
    from sphinx.cmd.build import main as sphinx
    if sphinx(['-W', '--keep-going', '-q', '-j', 'auto', '-b', 'html', '-c', str(HERE), '-d', str(TREES), str(SRC), str(OUT)]):
        shutil.rmtree(TREES, ignore_errors=True)  # or the next build would skip the page that warned
        sys.exit('The site was not built: see the warnings above')
    KEY.write_text(key)
    print(f'Site: {n} pages in {time.perf_counter()-start:.1f} s, _docs/index.html')

if __name__ == '__main__': main()

"The site in `_docs/`: what its files say, and what a real browser makes of them"
import functools, http.server, importlib, inspect, json, os, re, shutil, subprocess, sys, threading, zlib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urljoin, urlsplit
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS, TOOL, BUILD = ROOT/'_docs', ROOT/'tools'/'site', ROOT/'_build'
sys.path.insert(0, str(TOOL))
import api, glossary
from directives import code_of, directives

NOTEBOOKS = sorted(p.stem for p in (ROOT/'nbs').glob('[0-9]*.ipynb'))
MODULES = {m.name: m for m in api.modules()}
try: TERMS = glossary.collect({n: json.loads((ROOT/'nbs'/f'{n}.ipynb').read_text(encoding='utf-8')) for n in NOTEBOOKS})
except ValueError: TERMS = {}  # one stands twice, which tests/test_notebooks.py says
PAGES = ['index', 'built', *(['glossary'] if TERMS else []), *(['measured'] if [*(ROOT/'bench'/'results').glob('*.json')] else []), *NOTEBOOKS, *(f'api/{m}' for m in MODULES)]
PREFIX = f'/{api.NAME}/'  # as on Pages
VOID = set('area base br col embed hr img input link meta source track wbr'.split())

@pytest.fixture(scope='session', autouse=True)
def site():
    "The folder of the site, built if it isn't there"
    if not (DOCS/'index.html').exists():
        fresh = all((BUILD/'nbs'/f'{n}.ipynb').exists() for n in NOTEBOOKS)
        subprocess.run([sys.executable, str(TOOL/'build.py'), *([] if fresh else ['--stored'])], check=True, cwd=ROOT)
    return DOCS

class Page(HTMLParser):
    "Ids, links, resources, pictures and blocks of text of one page"
    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links, self.resources, self.images, self.open, self.blocks = path, set(), [], [], [], [], []
        self.feed(path.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'): self.ids.add(a['id'])
        if tag in ('a', 'form') and (to := a.get('href', a.get('action'))): self.links.append(to)
        if tag in ('script', 'img', 'source', 'iframe', 'video') and a.get('src'): self.resources.append(a['src'])
        if tag == 'link' and a.get('rel') not in ('canonical', 'next', 'prev', 'author'): self.resources.append(a['href'])
        if tag == 'img': self.images.append(a)
        block = {'tag': tag, 'attrs': a, 'text': '', 'inside': [t for t, *_ in self.open]}
        if tag not in VOID: self.open.append((tag, block))
        self.blocks.append(block)
    def handle_endtag(self, tag):
        while self.open and tag in [t for t, _ in self.open]:
            if self.open.pop()[0] == tag: break
    def handle_data(self, data):
        for _, b in self.open: b['text'] += data
    def having(self, cls): return [b for b in self.blocks if cls in (b['attrs'].get('class') or '').split()]

def pages(): return [f for f in DOCS.rglob('*.html') if '_static' not in f.parts]
@functools.lru_cache(None)
def read(name): return Page(DOCS/f'{name}.html')
def notebook(name): return json.loads((DOCS/'_sources'/f'{name}.ipynb').read_text(encoding='utf-8'))
def src(cell): return ''.join(cell['source'])
def shown(name): return [b['text'].strip('\n') for b in inputs(name)]
def inputs(name):
    "Code of the page's cells, in order"
    p, out, inside = read(name), [], False
    for b in p.blocks:
        if 'cell_input' in (b['attrs'].get('class') or '').split(): inside = True
        if inside and b['tag'] == 'pre': out, inside = [*out, b], False
    return out

# ---- What the files say

def test_links_lead_somewhere():
    broken = []
    for f in pages():
        name = f.relative_to(DOCS).as_posix()
        for to in read(name[:-5]).links+read(name[:-5]).resources:
            u = urlsplit(urljoin(f'http://site/{name}', to))
            if u.netloc != 'site' or u.scheme != 'http': continue
            target = DOCS/unquote(u.path.lstrip('/') or 'index.html')
            if not target.is_file(): broken.append(f'{name}: {to}')
            elif u.fragment and target.suffix == '.html' and unquote(u.fragment) not in read(target.relative_to(DOCS).as_posix()[:-5]).ids:
                broken.append(f'{name}: {to} (no such anchor)')
    assert not broken, '\n'.join(broken)

def test_the_checker_sees_a_broken_anchor(tmp_path):
    (tmp_path/'a.html').write_text('<p id="here"></p><a href="#there">x</a><img src="p.png">', encoding='utf-8')
    p = Page(tmp_path/'a.html')
    assert (p.ids, p.links, p.resources) == ({'here'}, ['#there'], ['p.png'])

@pytest.mark.parametrize('name', [*PAGES, 'search', '404'])
def test_nothing_is_loaded_from_elsewhere(name):
    assert [r for r in read(name).resources if urlsplit(r).netloc] == []

def test_links_to_the_repository_are_made_from_one_place():
    "As many as there are labels, and none while the owner isn't known: tests/test_links.py tries both"
    owner = re.search(r'^Repository *= *"https://github.com/([^/]+)/', (ROOT/'pyproject.toml').read_text(encoding='utf-8'), re.M)[1]
    found = 0
    for f in pages():
        for to in read(f.relative_to(DOCS).as_posix()[:-5]).links:
            if m := re.match(rf'https://(?:github\.com|colab\.research\.google\.com/github)/([^/]+)/{api.NAME}(?:/|$)', to):
                assert m[1] == owner, to
                found += 1
    assert found > 10*len(NOTEBOOKS) if api.KNOWN else found == 0

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_directives_are_obeyed(name):
    page, code = read(name), shown(name)
    assert not [c for c in code if re.match(r'#\s*\|', c)]
    expected = []
    for c in notebook(name)['cells']:
        if c['cell_type'] != 'code': continue
        d, body = directives(src(c)), code_of(src(c)).strip('\n')
        if body and 'hide' not in d and d.get('echo') != 'false': expected.append(body)
        if 'hide' in d and len(body) > 20: assert body not in code
    assert code == expected
    sentences = [d['code-summary'] for c in notebook(name)['cells'] if c['cell_type'] == 'code' and 'code-summary' in (d := directives(src(c))) and 'hide' not in d]
    blocks = [(b, following) for b, following in zip(page.blocks, page.blocks[1:]) if b['tag'] == 'details' and b['attrs'].get('class') == 'hide']
    assert [s['text'] for _, s in blocks] == sentences and all(s['tag'] == 'summary' and not s['attrs'] for _, s in blocks)
    assert 'Show the code' not in ''.join(b['text'] for b in page.blocks if b['tag'] == 'summary')

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_exported_cells_are_labelled_with_the_line_they_became(name):
    page, blocks, n = read(name), iter(read(name).blocks), 0
    for b in blocks:
        if 'exported' not in (b['attrs'].get('class') or '').split(): continue
        label = next(blocks)
        code = next(x for x in blocks if x['tag'] == 'pre')['text']
        n += 1
        if not api.KNOWN:
            assert label['tag'] == 'span' and (ROOT/label['text']).exists()
            continue
        link = label['attrs']['href']
        m = re.fullmatch(re.escape(api.BLOB)+r'/(notes/\w+\.py)#L(\d+)', link)
        line = (ROOT/m[1]).read_text(encoding='utf-8').split('\n')[int(m[2])-1]
        assert line == re.sub(r'^from notes\.', 'from .', code.split('\n')[0]) or line == code.split('\n')[0], link
    exported = [c for c in notebook(name)['cells'] if c['cell_type'] == 'code' and 'export' in directives(src(c))]
    assert n == len(exported) > 0
    assert page.having('exported')[0]['attrs']['id'].startswith('cell-')

@pytest.mark.parametrize('name', PAGES)
def test_names_of_the_package_are_links(name):
    public = {n for m in MODULES.values() for n in m.all if n in m.names}
    bare = [b['text'] for b in read(name).having('literal') if b['tag'] == 'code' and b['text'].removesuffix('()') in public
            and not set(b['inside']) & {'a', 'h1', 'h2', 'h3', 'h4', 'nav'}]
    assert not bare

@pytest.mark.parametrize('mod', MODULES)
def test_api_page_has_every_public_name(mod):
    m, page = MODULES[mod], read(f'api/{mod}')
    assert m.public and {f'notes.{mod}.{n}' for n in m.public} <= page.ids
    for n in m.public:
        first, last, cell = m.names[n]
        assert (f'{api.BLOB}/notes/{mod}.py#L{first}-L{last}' in page.links) == api.KNOWN
        assert f'../{m.notebook}.html#cell-{cell}' in page.links

@pytest.mark.parametrize('mod', MODULES)
def test_api_page_is_in_order(mod):
    "Classes, each with its methods, and functions; then what is added to classes of other modules, exceptions, data. No table is empty"
    own = importlib.import_module(f'notes.{mod}')
    page = read(f'api/{mod}')
    def rank(n):
        o = getattr(own, n.split('.')[0])
        return 1 if n.split('.')[0] not in MODULES[mod].names else 2 if inspect.isclass(o) and issubclass(o, BaseException) else 0 if callable(o) else 3
    ids = [b['attrs']['id'].removeprefix(f'notes.{mod}.') for b in page.blocks if b['tag'] == 'dt' and b['attrs'].get('id')]
    assert sorted(ids) == sorted(MODULES[mod].public) and [rank(n) for n in ids] == sorted(rank(n) for n in ids)
    for a, b in zip(ids, ids[1:]):
        if '.' in b and rank(b) != 1: assert a.split('.')[0] == b.split('.')[0], f'{b} stands under {a}'
    tables = [b['text'].split() for b in page.blocks if b['tag'] == 'table']
    assert all({'Type', 'Meaning'} & set(t) and len(set(t)) > 3 for t in tables), "a table says more than the signature"

@pytest.mark.parametrize('name', PAGES)
def test_pictures_have_alternative_texts(name):
    for i in read(name).images:
        if 'logo__image' in i.get('class', ''): continue  # beside the name of the site
        assert len(i.get('alt') or '') > 3 and not i['alt'].endswith(('.png', '.svg')), i['src'][:80]

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_title_and_subtitle(name):
    title, promise = re.match(r'# (.+)\n+> (.+)', src(notebook(name)['cells'][0])).groups()
    page = read(name)
    assert next(b['text'] for b in page.blocks if b['tag'] == 'h1' and 'article' in b['inside']).rstrip('#') == title.replace('`', '')
    assert len(page.having('subtitle')) == 1
    assert page.having('subtitle')[0]['text'].strip()[:20] == promise.replace('`', '')[:20]

def test_the_glossary_has_every_term_and_leads_to_its_place():
    assert TERMS, "no notebook marks a <dfn>term</dfn>, or one is marked twice"
    page = read('glossary')
    entries = [b['text'].rstrip('#') for b in page.blocks if b['tag'] == 'dt']
    assert entries == sorted(TERMS, key=str.lower)
    for (term, (nb, _)), text in zip(sorted(TERMS.items(), key=lambda t: t[0].lower()), [b['text'] for b in page.blocks if b['tag'] == 'dd'], strict=True):
        assert f'{nb}.html#{glossary.slug(term)}' in page.links and glossary.slug(term) in read(nb).ids
        assert len(text.split()) > 5 and '$' not in text and '`' not in text

# ---- The glossary by itself

@pytest.mark.parametrize('markdown,sentence', [
    ('First, e.g. this. The <dfn>loss</dfn> of $x. Y$ (see [A. b](x.y. Z)) is `a. B`. Another.', 'The **loss** of $x. Y$ (see [A. b](x.y. Z)) is `a. B`.'),
    ('A <dfn>loss</dfn>, as\nY. Bengio says, is 0.5\nor so! Next', 'A **loss**, as Y. Bengio says, is 0.5 or so!'),
    ('Words\n\n- One thing.\n- The <dfn>loss</dfn> is another\n\nMore', 'The **loss** is another'),
    ('It is\n\nThe <dfn>loss</dfn> is\n\n$$a\n= b$$\n\nMore', 'The **loss** is\n\n$$a\n= b$$'),
    ('<dfn>Loss</dfn>, that is:\n\nMore', '**Loss**, that is.'), ('$$x$$\n\nand <dfn>loss</dfn> is it.', '**loss** is it.'),
    ('The <dfn>loss</dfn> is this.\n\n$$a$$', 'The **loss** is this.'),
    ('The (compiled) <dfn title="loss">losses</dfn> and the <dfn>kernel</dfn>.', 'The (compiled) **losses** and the kernel.'),
    ('“What for?” The **<dfn>loss</dfn>** falls.', 'The ****loss**** falls.'.replace('****', '**'))])
def test_sentences_around_terms(markdown, sentence):
    assert dict(glossary.terms(markdown))['loss'].replace('****', '**') == sentence

def test_terms_are_collected_once():
    nb = lambda *md: {'cells': [{'cell_type': 'markdown', 'source': [m]} for m in md] + [{'cell_type': 'code', 'source': '"<dfn>x</dfn>"'}]}
    assert glossary.collect({'00': nb('A <dfn>fan_in</dfn> is.'), '01': nb('A <dfn>learning\nrate</dfn> is.')}) == {'fan_in': ('00', 'A **fan_in** is.'), 'learning rate': ('01', 'A **learning rate** is.')}
    assert list(glossary.collect({'00': nb('<dfn>Early stopping</dfn> ends. <dfn>ReLU</dfn> and <dfn>IQR</dfn> are. The <dfn>Kaiming way</dfn> is. <dfn title="Logit">Logits</dfn> are.')})) == ['early stopping', 'ReLU', 'IQR', 'Kaiming way', 'Logit']
    for twice in ({'00': nb('A <dfn>loss</dfn>.', 'A <dfn>Loss</dfn>.')}, {'00': nb('A <dfn>loss</dfn>.'), '01': nb('A <dfn title="loss">losses</dfn>.')}):
        with pytest.raises(ValueError, match='stands twice, in 00 and in 0'): glossary.collect(twice)
    assert glossary.anchors('A <dfn>fan_in</dfn>, <dfn title="kernel (of a convolution)">kernel</dfn>') == 'A <dfn id="term-fan-in">fan_in</dfn>, <dfn id="term-kernel-of-a-convolution">kernel</dfn>'

def test_the_glossary_page():
    text = glossary.page({'b': ('01_x', 'A **b** is\n\n$$1\n2$$'), 'A': ('00_x', 'See [it](#here).')}, {'00_x': 'X', '01_x': 'Y'})
    assert text.index('## A') < text.index('\nA\n  See [it](00_x.ipynb#here).\n') < text.index('## B') < text.index('\nb\n  A **b** is\n\n  $$1\n  2$$\n\n  <a class="defined" href="01_x.html#term-b">Y</a>')

# ---- The extension by itself

@pytest.fixture
def prepared():
    "A notebook's cells after the extension has read them"
    import ext
    def f(*cells):
        cells = [{'cell_type': kind, 'id': f'c{i}', 'metadata': {}, 'source': s, **({'outputs': []} if kind == 'code' else {})}
                 for i, (kind, s) in enumerate(cells)]
        source = [json.dumps({'cells': cells, 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5})]
        ext.read_source(SimpleNamespace(env=SimpleNamespace(doc2path=lambda n: f'{n}.ipynb', note_dependency=lambda p: None)), 'x', source)
        return json.loads(source[0])['cells']
    return f

def test_cells_become(prepared):
    cells = prepared(('markdown', '# T\n\n> p'), ('code', '#| hide\nsecret'), ('code', '#| default_exp x'), ('code', '#| echo: false\n1'),
                     ('code', '#|code-summary: How it is drawn\n#| varies: numbers, picture\n#| fig-alt: A "line" & more.\nplot()'), ('code', 's = """\n#| export\n"""'))
    assert [c['source'] for c in cells[1:]] == ['1', 'plot()', 's = """\n#| export\n"""']
    assert cells[1]['metadata']['tags'] == ['remove-input']
    assert cells[2]['metadata'] == {'tags': ['hide-input'], 'mystnb': {'code_prompt_show': 'How it is drawn', 'image': {'alt': 'A "line" & more.'}}}

@pytest.mark.parametrize('mark', ['#| {}', '#|{}', '# | {}', '  #\t|  {}', '\n\n#| {}', '#| varies: text\n\n#| {}', '#| {}\n'])
def test_a_mark_is_read_as_nbdev_reads_it(prepared, mark):
    "As after black, under blank lines, among others: the runner and the exporter read the same cell so"
    cells = prepared(('markdown', '# T'), *(('code', mark.format(m)+'\nf()') for m in ('hide', 'echo: false', 'code-summary: A sentence', 'code-summary:', 'code-summary: true')))
    assert [(c['source'], c['metadata'].get('tags')) for c in cells[1:]] == [('f()', ['remove-input']), ('f()', ['hide-input']), ('f()', []), ('f()', [])]
    assert cells[2]['metadata']['mystnb'] == {'code_prompt_show': 'A sentence'}

def test_what_is_no_mark_stays(prepared):
    cells = prepared(('markdown', '# T'), ('code', '%%time\n#| code-summary: A sentence\nf()'), ('code', 'x\n#| hide'), ('code', '##| hide\nx'), ('code', '#| echo: true\ns = "a\u2028#| b\fc"'))
    assert [c['source'] for c in cells[1:]] == ['%%time\nf()', 'x\n#| hide', '##| hide\nx', 's = "a\u2028#| b\fc"']
    assert cells[1]['metadata']['tags'] == ['hide-input']

def test_markdown_becomes(prepared):
    _, c = prepared(('markdown', '# T'), ('markdown', '<details><summary>Is `a<b` $n^2$?</summary>\n\n[r](../README.md#use) [m](../Makefile)'))
    assert c['source'] == ('<details><summary>Is <code>a&lt;b</code> <span class="math notranslate">\\(n^2\\)</span>?</summary>\n\n'
                           f'[r](index.md#use) {api.link("m", "Makefile")}')

def test_landing_page_links():
    import build
    text = build.landing('[![ci](x/badge.svg)](x) [a](nbs/01_x.ipynb) [b](LICENSE) [c](https://x.org) [d](#use)', {'01_x.ipynb': 'X'}, [])
    assert text.split('\n')[0] == f' [a](01_x.ipynb) {api.link("b", "LICENSE")} [c](https://x.org) [d](#use)'
    assert '01 · X <01_x>' in text

def test_a_broken_link_stops_the_build(tmp_path):
    (tmp_path/'s').mkdir()
    (tmp_path/'s'/'index.md').write_text('# T\n\n[gone](nowhere.ipynb)\n', encoding='utf-8')
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-W', '-q', '-b', 'dummy', '-c', str(TOOL), str(tmp_path/'s'), str(tmp_path/'o')],
                          capture_output=True, text=True, encoding='utf-8')
    assert done.returncode and 'nowhere.ipynb' in done.stderr

# ---- In a browser

LIMIT = 3_600_000  # milliseconds that a browser may take for anything: a loaded machine is no failure

class Handler(http.server.SimpleHTTPRequestHandler):
    "Serves the site under its prefix (and at the root), with its 404 page, as Pages does"
    def log_message(self, *args): pass
    def translate_path(self, path): return super().translate_path('/'+path[len(PREFIX):] if path.startswith(PREFIX) else path)
    def send_error(self, code, *args, **kwargs):
        if code != 404: return super().send_error(code, *args, **kwargs)
        body = (DOCS/'404.html').read_bytes()
        self.send_response(404)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

@pytest.fixture(scope='session')
def host(site):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(DOCS)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

def find_browser():
    "A browser of the Chromium family, or None"
    names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome', 'microsoft-edge', 'msedge', 'brave-browser']
    programs = [os.environ.get(k) for k in ('PROGRAMFILES', 'PROGRAMFILES(X86)', 'LOCALAPPDATA')]
    places = [os.environ.get('CHROME'), *map(shutil.which, names),
              *(f'/Applications/{n}.app/Contents/MacOS/{n}' for n in ('Google Chrome', 'Chromium', 'Microsoft Edge', 'Brave Browser')),
              *(f'{d}/{n}' for d in programs if d for n in ('Google/Chrome/Application/chrome.exe', 'Microsoft/Edge/Application/msedge.exe'))]
    return next((p for p in places if p and Path(p).exists()), None)

@pytest.fixture(scope='module')  # tests/test_front.py has one too, and a process can have one at a time
def browser():
    if not (path := find_browser()):
        why = 'no Chromium-family browser found (CHROME may name one): the site was not checked in a browser'
        pytest.fail(why) if os.environ.get('REQUIRE_BROWSER') == '1' else pytest.skip(why)
    from playwright.sync_api import sync_playwright
    flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
             '--disable-component-update', '--disable-sync']
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, headless=True, args=flags, timeout=LIMIT)
        yield b
        b.close()

@pytest.fixture
def page(browser, host):
    "A new page; fails the test afterwards for anything foreign, failed or complained about on the console"
    context = browser.new_context(viewport={'width': 1280, 'height': 900}, color_scheme='light', reduced_motion='reduce')
    context.set_default_timeout(LIMIT)
    context.grant_permissions(['clipboard-read', 'clipboard-write'])
    page, bad = context.new_page(), []
    page.allowed = set()  # addresses that may answer 404
    page.on('request', lambda r: r.url.startswith((host, 'data:', 'blob:')) or bad.append(f'foreign request: {r.url}'))
    # What the page itself was still fetching when the test left it (the search reads its hits' pages) is no failure
    page.on('requestfailed', lambda r: r.failure == 'net::ERR_ABORTED' or bad.append(f'failed, {r.failure}: {r.url}'))
    page.on('response', lambda r: r.status < 400 or r.url in page.allowed or bad.append(f'{r.status}: {r.url}'))
    page.on('console', lambda m: m.type not in ('error', 'warning') or m.location.get('url') in page.allowed or bad.append(f'console: {m.text}'))
    page.on('pageerror', lambda e: bad.append(f'error: {e}'))
    yield page
    context.close()
    assert not bad, '\n'.join(bad)

def go(page, url):
    page.goto(url)
    page.wait_for_function("() => !document.querySelector('.math') || (window.MathJax && MathJax.startup && MathJax.startup.promise)")
    page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => {})")

def resize(page, width, height):
    "Give the page another size, and wait by its own clock until it has answered: the theme and site.js do so after 300 and 400 ms"
    page.evaluate("() => { let t; window.resized = new Promise(r => addEventListener('resize', () => { clearTimeout(t); t = setTimeout(r, 600) })) }")
    page.set_viewport_size({'width': width, 'height': height})
    page.evaluate('() => window.resized')

def axe(page, **options):
    """Serious and critical findings of axe-core

    Its contrast check takes half a minute for ten thousand tokens of code. Where all kinds of token in a block were seen in
    blocks before it, which have the same colours, the block is made plain text first; so are the formulas within lines.
    """
    from axe_playwright_python.sync_playwright import Axe
    page.evaluate('''() => { const seen = new Set()
        const plain = e => { e.textContent = e.textContent }
        for (const b of document.querySelectorAll('.highlight pre')) {
            const kinds = [...b.querySelectorAll('span')].map(s => s.className)
            if (kinds.every(k => seen.has(k))) plain(b)
            kinds.forEach(k => seen.add(k)) }
        document.querySelectorAll('mjx-container:not([display])').forEach(plain) }''')
    found = Axe().run(page, options={'resultTypes': ['violations'], 'preload': False, **options})
    return [f"{v['id']}: {n['html'][:200]}\n  {n.get('failureSummary', '')}" for v in found.response['violations']
            if v['impact'] in ('serious', 'critical') for n in v['nodes'][:3]]

@pytest.mark.parametrize('name', [*PAGES, 'search'])
def test_page_in_a_browser(page, host, name):
    go(page, f'{host}{PREFIX}{name}.html')
    # maths: all of it drawn, and drawn without an error
    math = page.evaluate('''() => ({asked: document.querySelectorAll('.math').length, drawn: document.querySelectorAll('.math mjx-container').length,
        wrong: [...document.querySelectorAll('mjx-merror, mjx-container [style*="color: red"]')].map(e => e.textContent)})''')
    assert math['drawn'] == math['asked'] and not math['wrong'], math
    if name in NOTEBOOKS and any('$' in re.sub(r'\\\$|`[^`]*`', '', src(c)) for c in notebook(name)['cells'] if c['cell_type'] == 'markdown'): assert math['drawn'] > 0
    text = page.evaluate('''() => { const a = document.querySelector('article, main').cloneNode(true)
        a.querySelectorAll('pre, code, mjx-container, script').forEach(e => e.remove()); return a.textContent }''')
    assert not re.search(r'\$\$|\\\(|\\\[', text)
    # folded answers open, and what is in them is rendered
    for d in page.locator('article details').all()[:3]:
        if not d.evaluate('e => e.open'): d.locator('summary').first.click()
        assert d.evaluate('e => e.open && e.children.length > 1 && e.lastElementChild.getBoundingClientRect().height > 0')
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    # every code block has its copy button
    blocks, buttons = page.locator('article .highlight pre[id^=codecell]').count(), page.locator('article button.copybtn').count()
    assert buttons == blocks >= page.locator('article .cell_input').count()
    # nothing is wider than a phone; and what scrolls can be reached by keyboard, once the theme has seen the new size
    resize(page, 390, 844)
    wide = '''() => [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > innerWidth+1)
        .slice(0, 5).map(e => e.outerHTML.slice(0, 150))'''
    assert page.evaluate('document.documentElement.scrollWidth') <= 390, page.evaluate(wide)
    assert axe(page) == []
    page.evaluate("document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'dark'")
    resize(page, 1280, 900)
    assert axe(page, runOnly=['color-contrast', 'scrollable-region-focusable', 'link-name', 'button-name']) == []

def test_search_finds_and_leads_to_the_page(page, host):
    for name in NOTEBOOKS:
        word = max(re.findall(r'[a-z]+', src(notebook(name)['cells'][0]).split('\n')[0]), key=len)
        go(page, f'{host}{PREFIX}index.html')
        box = page.locator('button.search-button-field, .search-button__button').first
        box.click()
        page.locator('input[type=search]:visible').first.fill(word)
        page.keyboard.press('Enter')
        page.wait_for_function("() => document.querySelector('#search-results .search-summary')?.innerText")  # how many were found: it comes last
        hits = page.locator(f'#search-results li a[href*="{name}.html"]')
        assert hits.count(), f'{word} does not find {name}'
    hits.first.click()
    assert page.locator('article h1').inner_text()

def test_search_finds_every_term(page, host):
    "At the top of the results stands the term's place in the glossary"
    go(page, f'{host}{PREFIX}search.html')
    page.wait_for_function("() => typeof Search !== 'undefined' && Search._index")
    first = page.evaluate("""terms => terms.map(t => { const [query, ...how] = Search._parseQuery(t)
        return Search._performSearch(query, ...how).reverse().slice(0, 1).map(r => r[0]+r[2])[0] })""", list(TERMS))
    place = {b['text'].rstrip('#'): b['attrs']['id'] for b in read('glossary').blocks if b['tag'] == 'dt'}
    assert TERMS and first == [f'glossary#{place[t]}' for t in TERMS]

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_code_is_not_cut_off(page, host, name):
    "Lines of 88 characters fit at 1280 pixels, a scroll bar's 15 taken off, with both sidebars; longer ones where there is room"
    go(page, f'{host}{PREFIX}{name}.html')
    resize(page, 1265, 900)
    assert page.locator('.bd-sidebar-primary:visible').count() == page.locator('.bd-sidebar-secondary:visible').count() == 1
    cut = """() => { document.querySelectorAll('details').forEach(d => { d.open = true })
        return [...document.querySelectorAll('article .highlight pre')].filter(e => e.scrollWidth > e.clientWidth && e.textContent.split('\\n').every(l => l.length <= 88)).map(e => e.textContent.slice(0, 200)) }"""
    assert page.evaluate(cut) == []
    assert page.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.bd-sidebar-secondary'))"), "a title is cut off in the list of contents"
    long = "n => { const p = document.querySelector('div.cell_input pre'); p.textContent = 'M'.repeat(n); return p.scrollWidth <= p.clientWidth }"
    assert [page.evaluate(long, n) for n in (88, 120)] == [True, False]
    resize(page, 1600, 900)
    assert page.evaluate(long, 120)
    size = lambda s: float(page.evaluate("s => getComputedStyle(document.querySelector(s)).fontSize", s)[:-2])
    assert .8 < size('div.cell_input pre')/size('article li') < 1

def test_paper_is_light_and_has_everything(page, host):
    page.emulate_media(color_scheme='dark')
    go(page, f'{host}{PREFIX}{NOTEBOOKS[2]}.html')
    assert page.evaluate("document.documentElement.dataset.theme") == 'dark'
    page.emulate_media(media='print', color_scheme='dark')
    resize(page, 700, 900)
    seen = page.evaluate("""() => {
        const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(Number); return (.3*r + .59*g + .11*b)/255 }
        const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return light(c) } return 1 }
        const texts = [...document.querySelectorAll('article :is(h1, h2, p, li, code, pre, pre span, summary, td)')].filter(e => e.getClientRects().length && e.textContent.trim())
        return {faint: texts.filter(e => back(e) - light(getComputedStyle(e).color) < .5).slice(0, 5).map(e => e.outerHTML.slice(0, 120)), texts: texts.length,
            around: [...document.querySelectorAll('.bd-sidebar, .bd-header, .bd-header-article, .prev-next-area, nav.sections, .copybtn, .headerlink')].filter(e => e.getClientRects().length).map(e => e.className),
            folded: [...document.querySelectorAll('details')].filter(d => !d.lastElementChild.getBoundingClientRect().height).length,
            cut: [...document.querySelectorAll('article pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length,
            wide: document.documentElement.scrollWidth} }""")
    assert seen['texts'] > 100 and (seen['faint'], seen['around'], seen['folded'], seen['cut']) == ([], [], 0, 0) and seen['wide'] <= 700

def letters(pdf):
    "How many glyphs a PDF of Chromium's shows"
    n = 0
    for m in re.finditer(rb'stream\r?\n(.*?)\r?\nendstream', pdf, re.S):
        try: text = zlib.decompress(m[1])
        except zlib.error: continue
        n += sum(len(h)//4 for shown in re.findall(rb'\[[^\]]*\]\s*TJ|<[0-9A-Fa-f]+>\s*Tj', text) for h in re.findall(rb'<([0-9A-Fa-f]+)>', shown))
    return n

@pytest.mark.parametrize('name', [NOTEBOOKS[0], '04_convolutions', NOTEBOOKS[-1], 'index'])
def test_what_is_folded_is_printed(page, host, name):
    "As many letters as with everything opened first: room on the paper is not enough"
    page.emulate_media(reduced_motion='no-preference')  # the theme fades in what is opened
    go(page, f'{host}{PREFIX}{name}.html')
    assert page.locator('article details:not([open])').count()
    as_it_is = letters(page.pdf())
    assert page.locator('article details:not([open])').count(), "it is folded again afterwards"
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.wait_for_function("() => document.getAnimations().every(a => a.playState !== 'running')")
    assert as_it_is == letters(page.pdf()) > 500

@pytest.mark.parametrize('width', [390, 1280])
def test_the_next_section_is_within_reach(page, host, width):
    name = NOTEBOOKS[2]
    page.set_viewport_size({'width': width, 'height': 844})
    go(page, f'{host}{PREFIX}{name}.html')
    heads = page.locator('article section > h2').evaluate_all("l => l.map(h => h.parentElement.id)")
    down, up = page.locator('nav.sections a.down'), page.locator('nav.sections a.up')
    for id in heads[:3]:
        page.wait_for_function("id => document.querySelector('nav.sections a.down').hash === '#'+id", arg=id)
        box = down.bounding_box()
        assert box['width'] >= 44 and box['height'] >= 44 and box['x']+box['width'] <= width and down.get_attribute('aria-label').startswith('Next section: ')
        down.focus()
        page.keyboard.press('Enter')
        page.wait_for_function("id => Math.abs(document.getElementById(id).getBoundingClientRect().top) < 120", arg=id)
    page.wait_for_function("id => document.querySelector('nav.sections a.up').hash === '#'+id", arg=heads[1])
    assert up.get_attribute('aria-label').startswith('Back to')
    page.evaluate('scrollTo(0, 1e6)')  # at the end nothing is below, and nothing is covered
    page.wait_for_function("() => document.querySelector('nav.sections a.down').hidden")
    nav, end = page.locator('nav.sections').bounding_box(), page.locator('.prev-next-area').bounding_box()
    assert end['y']+end['height'] <= nav['y'] or end['x']+end['width'] <= nav['x']
    for other in ('404', 'index'):
        go(page, f'{host}{PREFIX}{other}.html')
        assert not page.locator('nav.sections').count(), "a short page needs none, and the first has its own"

# ---- On a phone

@pytest.fixture
def phone(browser, host):
    context = browser.new_context(viewport={'width': 390, 'height': 844}, has_touch=True, is_mobile=True, reduced_motion='reduce')
    context.set_default_timeout(LIMIT)
    yield context.new_page()
    context.close()

def test_the_contents_go_when_they_have_been_used(phone, host):
    go(phone, f'{host}{PREFIX}{NOTEBOOKS[2]}.html')
    phone.locator('button.secondary-toggle:visible').tap()
    entry = phone.locator('dialog[open] a[href^="#"]:visible').nth(2)
    to = entry.get_attribute('href')
    entry.tap()
    phone.wait_for_function("() => !document.querySelector('dialog[open]')")
    assert phone.evaluate('location.hash') == to
    assert phone.locator('.bd-sidebar-secondary a').count(), "they are there to be opened again"

@pytest.mark.parametrize('name', NOTEBOOKS)
def test_code_is_broken_not_lost(phone, host, name):
    "No cell scrolls, and what goes on in a new line stands further in than where it began"
    go(phone, f'{host}{PREFIX}{name}.html')
    seen = phone.evaluate("""() => { document.querySelectorAll('details').forEach(d => { d.open = true })
        const code = [...document.querySelectorAll('article .highlight pre')].filter(e => !e.closest('.cell_output'))
        const long = code.flatMap(e => [...e.querySelectorAll('span.line')]).filter(l => l.textContent.trim().length > 70)
        const starts = l => { const r = document.createRange(); r.selectNodeContents(l); return [...r.getClientRects()].filter(b => b.width > 1) }
        return {code: code.length, cut: code.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 80)), long: long.length,
            flush: long.filter(l => { const b = starts(l), left = Math.min(...b.map(r => r.left)); return b.some(r => r.top > b[0].top + 8 && r.left < left + 8) && l.textContent[0] !== ' ' }).map(l => l.textContent).slice(0, 3)} }""")
    assert seen['code'] > 5 and seen['long'] and not seen['cut'] and not seen['flush'], seen

def test_what_scrolls_sideways_says_so(phone, host):
    go(phone, f'{host}{PREFIX}{NOTEBOOKS[2]}.html')
    wide = phone.evaluate("""async () => { const e = document.querySelector('.cell_output pre'); e.textContent = 'M'.repeat(200)
        dispatchEvent(new Event('resize')); await new Promise(r => setTimeout(r, 600)); e.id = 'wide'
        return [e.classList.contains('more'), getComputedStyle(e).maskImage.startsWith('linear-gradient')] }""")
    assert wide == [True, True]
    phone.evaluate("() => { document.querySelector('#wide').scrollLeft = 1e5 }")
    phone.wait_for_function("() => !document.querySelector('#wide').classList.contains('more')")

@pytest.mark.parametrize('name', [f'api/{m}' for m in MODULES]+NOTEBOOKS)
def test_tables_of_heads_and_parameters_fit(phone, host, name):
    go(phone, f'{host}{PREFIX}{name}.html')
    wide = phone.evaluate("""() => [...document.querySelectorAll('dl.py table td, table.stands td')].filter(e => e.getClientRects().length)
        .map(e => [e.getBoundingClientRect().right, e.textContent.slice(0, 60)])""")
    assert wide or name == 'api/hooks'
    assert max((w for w, _ in wide), default=0) <= 390, max(wide)
    if name in NOTEBOOKS: assert phone.locator('table.stands td').evaluate_all('l => l.map(e => e.dataset.head)') == ['stands on', 'builds', 'minutes']

@pytest.mark.parametrize('name', ['index', NOTEBOOKS[2], 'search'])
def test_a_finger_hits_what_it_aims_at(phone, host, name):
    go(phone, f'{host}{PREFIX}{name}.html')
    small = phone.evaluate("""() => [...document.querySelectorAll('.header-article button, .header-article a, .bd-header-article button, .digits button, .copybtn, summary, nav.sections a')]
        .filter(e => e.getClientRects().length).map(e => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()]).filter(([_, b]) => Math.min(b.width, b.height) < 39.5).map(([e, b]) => `${b.width}x${b.height} ${e}`)""")
    assert not small, '\n'.join(small)

def test_a_picture_leads_to_its_file(phone, host):
    for name in NOTEBOOKS:
        assert all('a' in b['inside'] for b in read(name).blocks if b['tag'] == 'img' and '_images/' in b['attrs']['src']), name
    go(phone, f'{host}{PREFIX}{NOTEBOOKS[1]}.html')
    phone.locator('a.picture:visible').first.tap()
    phone.wait_for_url('**/_images/*.png')

def test_where_a_link_leads_and_pictures_in_the_dark_are_quiet(phone, host):
    light = "e => { const [r, g, b] = getComputedStyle(e).backgroundColor.match(/[0-9.]+/g).map(Number); return (Math.max(r, g, b) - Math.min(r, g, b))/255 }"
    phone.emulate_media(color_scheme='dark')
    go(phone, f'{host}{PREFIX}{NOTEBOOKS[1]}.html#summary')
    assert 0 < phone.locator('#summary > h2').evaluate(light) < .2
    assert phone.locator('a.picture img').first.evaluate('e => getComputedStyle(e).filter') == 'brightness(0.8)'
    phone.emulate_media(color_scheme='light')
    phone.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    assert 0 < phone.locator('#summary > h2').evaluate(light) < .2

def test_what_the_search_shows_of_a_term_is_its_sentence(page, host):
    go(page, f'{host}{PREFIX}search.html?q=broadcasting')
    page.wait_for_function("() => document.querySelector('#search-results li p.context')")
    shown = page.locator('#search-results li p.context').first.inner_text()
    assert shown.startswith('broadcasting: ') and len(shown.split()) > 8
    go(page, f'{host}{PREFIX}search.html?q=zebrafish')
    page.wait_for_function("() => document.querySelector('#search-results .search-summary')?.innerText.startsWith('Nothing in the series')")
    go(page, f'{host}{PREFIX}search.html?q=resnet')
    page.wait_for_function("() => document.querySelector('#search-results li a[href*=\"index.html\"]')")

def test_one_search_box_and_navigation(page, host):
    go(page, f'{host}{PREFIX}{NOTEBOOKS[0]}.html')
    assert page.locator('.search-button-field:visible, .search-button:visible, form.bd-search:visible').count() == 1
    for n in NOTEBOOKS: assert page.locator(f'nav a[href$="{n}.html"], nav a.current[href="#"]').count()
    assert page.locator('.prev-next-area a').count() == 2 and page.locator('#pst-page-toc-nav a, .page-toc a').count() > 1
    links = page.locator('.article-header-buttons a').evaluate_all('l => l.map(a => a.href)')
    nb = f'{NOTEBOOKS[0]}.ipynb'
    all_links = [f'https://colab.research.google.com/github/{api.OWNER}/{api.NAME}/blob/main/nbs/{nb}', f'{host}{PREFIX}_sources/{nb}',
                 f'{api.BLOB}/nbs/{nb}', f'{api.REPO}/edit/main/nbs/{nb}']
    assert links == (all_links if api.KNOWN else all_links[1:2])

def test_dark_mode_toggles_and_stays(page, host):
    go(page, f'{host}{PREFIX}{NOTEBOOKS[0]}.html')
    seen = lambda: page.evaluate("[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]")
    def to_dark():  # the older theme's button goes round the modes, the newer one's opens a menu
        for _ in range(3):
            page.locator('.theme-switch-button:visible').first.click()
            if (item := page.locator('.theme-change-button[data-mode=dark]:visible')).count(): item.click()
            if seen()[0] == 'dark': break
    light = seen()
    to_dark()
    assert [light[0], seen()[0]] == ['light', 'dark'] and light[1] != seen()[1]
    page.reload()
    assert seen()[0] == 'dark'

def test_copy_button_copies_the_code(page, host):
    go(page, f'{host}{PREFIX}{NOTEBOOKS[0]}.html')
    page.locator('.cell_input').first.hover()
    page.locator('.cell_input button.copybtn').first.click()
    page.wait_for_function("async t => (await navigator.clipboard.readText()).trim() === t", arg=shown(NOTEBOOKS[0])[0].strip())

@pytest.mark.parametrize('prefix', [PREFIX, '/'])
def test_404_page_works_at_any_depth(page, host, prefix):
    url = f'{host}{prefix}no/such/page.html'
    page.allowed.add(url)
    assert page.goto(url).status == 404
    assert "isn't here" in page.locator('article h1').inner_text()
    assert page.evaluate("getComputedStyle(document.querySelector('.subtitle')).borderLeftWidth") == '0px'  # our style sheet has come
    page.locator('article a[href]:not(.headerlink)').first.click()
    assert page.url in (f'{host}{prefix}index.html', f'{host}{prefix}')

"""Sphinx extension: what the cells of a notebook say about themselves becomes behaviour of the page

The `#|` lines are taken off the code and obeyed; exported cells get a label that leads to the module; names of the package
become links; each notebook gets its buttons (Colab, download, source).
"""
import json, re
from html import escape
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.addnodes import pending_xref
import allreduce, api, descent, glossary
from directives import code_of, directives

MODULES = api.modules()
# `name`, `module.name`, `notes.module.name`, `Class.method` -> (module, name)
NAMES = {key: (m, n) for m in reversed(MODULES) for n in m.public for key in (n, f'{m.name}.{n}', f'notes.{m.name}.{n}')}
INTERACTIVE = {'descent': descent.html, 'allreduce': allreduce.html}  # `#| interactive: name`: a drawing takes the place of the cell's picture, where scripts run
CELLS = {(m.notebook, cell): (m, line) for m in MODULES for cell, line in m.cells.items()}

def code_cell(cell, notebook):
    "The cells that stand for one code cell on the page"
    src = ''.join(cell['source'])
    d, cell['source'] = directives(src), code_of(src).strip('\n')
    if 'hide' in d or not cell['source']: return []
    tags = cell['metadata'].setdefault('tags', [])
    if d.get('echo') == 'false': tags.append('remove-input')
    myst = cell['metadata']['mystnb'] = {}
    if s := d.get('code-summary'):
        tags.append('hide-input')
        myst['code_prompt_show'] = s
    if 'fig-alt' in d: myst['image'] = {'alt': d['fig-alt']}
    after = []
    if 'interactive' in d:
        tags.append(f'still-of-{d["interactive"]}')
        after = [{'cell_type': 'markdown', 'id': f'drawing-{cell.get("id")}', 'metadata': {}, 'source': f'```{{raw}} html\n{INTERACTIVE[d["interactive"]]()}\n```'}]
    if (notebook, cell.get('id')) not in CELLS: return [cell, *after]
    mod, line = CELLS[notebook, cell['id']]
    path = f'notes/{mod.name}.py'
    label = f'<a href="{api.BLOB}/{path}#L{line}" title="Line {line} of the module">{path}</a>' if api.KNOWN else f'<span>{path}</span>'
    label = f'<p class="exported" id="cell-{cell["id"]}">{label}</p>'
    return [{'cell_type': 'markdown', 'id': f'label-{cell["id"]}', 'metadata': {}, 'source': label}, cell, *after]

def summary(m):
    "A one-line <summary> is raw HTML, in which markdown means nothing: do its code and its maths"
    s = re.sub(r'`([^`]+)`', lambda c: f'<code>{escape(c[1], quote=False)}</code>', m[1])
    s = re.sub(r'\$([^$]+)\$', r'<span class="math notranslate">\\(\1\\)</span>', s)
    return f'<summary>{s}</summary>'

def markdown(source):
    "Markdown of a cell: one-line summaries done, and links out of nbs/ made into links to the first page or the repository"
    source = re.sub(r'<summary>(.+?)</summary>', summary, source)
    source = re.sub(r'\]\(\.\./README\.md', '](index.md', source)
    return glossary.anchors(re.sub(r'\[([^\]]*)\]\(\.\./([^)\s]*)\)', lambda m: api.link(*m.groups()), source))

def read_source(app, docname, source):
    if not str(app.env.doc2path(docname)).endswith('.ipynb'): return
    for m in MODULES: app.env.note_dependency(str(m.path))
    nb, cells = json.loads(source[0]), []
    for c in nb['cells']:
        if c['cell_type'] == 'code': cells += code_cell(c, docname)
        else: cells.append({**c, 'source': markdown(''.join(c['source']))})
    if m := re.search(r'^> (.+)$', ''.join(cells[0]['source']), re.M):
        nb['metadata']['myst'] = {'html_meta': {'description': re.sub(r'[`*$]', '', m[1])}}
    source[0] = json.dumps({**nb, 'cells': cells})

def link_names(app, doctree):
    "Subtitle, and `names` of the package as references to the page that documents them"
    own = app.env.docname
    for quote in doctree.findall(nodes.block_quote):
        if isinstance(quote.parent[0], nodes.title) and quote.parent[1] is quote: quote['classes'].append('subtitle')
    for lit in list(doctree.findall(nodes.literal)):
        found = find(lit.astext().removesuffix('()'), own)
        if not found or isinstance(lit.parent, (nodes.reference, nodes.title, pending_xref)): continue
        mod, name = found
        ref = pending_xref('', refdomain='py', reftype='obj', reftarget=f'notes.{mod.name}.{name}', refdoc=own, refexplicit=True, refwarn=True)
        lit.replace_self(ref)
        ref += lit

def find(text, notebook):
    "Module and name that `text` means in `notebook`, whose own definitions come first"
    own = [(m, text) for m in MODULES if m.notebook == notebook and text in m.public]
    return own[0] if own else NAMES.get(text)

def link_code(body, doctree, pathto):
    "Link what a notebook's code uses of earlier modules, unless the notebook gives the name another meaning"
    code = '\n'.join(n.astext() for n in doctree.findall(nodes.literal_block))
    taken = {n for pair in re.findall(r'\b(?:def|class|for|as) +(\w+)|^ *(\w+)(?:, *\w+)* *=[^=]', code, re.M) for n in pair}
    imported = re.findall(r'^from notes\.(\w+) import', code, re.M)
    names = {n: m.name for m in MODULES if m.name in imported for n in m.all if n in m.names and n not in taken}
    if not names: return body
    token = re.compile(r'(?<!<span class="o">\.</span>)<span class="n">(%s)</span>(?!<span class="o">=</span>)' % '|'.join(names))
    return token.sub(lambda m: f'<a class="code-link" href="{pathto("api/"+names[m[1]])}#notes.{names[m[1]]}.{m[1]}">{m[0]}</a>', body)

def lines(body):
    "Each line of code in a span of its own, which knows its indent: a narrow page breaks it behind a bracket or a comma, and before a dot"
    def split(m):
        out = []
        for l in m[2].removesuffix('\n').split('\n'):
            n = min(len(t := re.sub('<[^>]*>', '', l))-len(t.lstrip(' ')), 20)  # further in, a phone has no room left
            l = re.sub(r'(?<=<span class="p">)[^<]*</span>(?=.)', r'\g<0><wbr>', l).replace('<span class="o">.</span>', '<wbr><span class="o">.</span>')
            out.append('<span class="line"'+f' style="--in:{n}"'*bool(n)+f'>{l}\n</span>')
        return m[1]+''.join(out)+'</pre>'
    return re.sub(r'(<div class="highlight"><pre><span></span>)(.*?)</pre>', split, body, flags=re.S)

def pictures(body):
    "Each picture of a cell or of what was measured as a link to its file, where it is as large as it is"
    def link(m):
        theme = re.search(r'\bonly-(?:light|dark)\b', m[0])
        return f'<a class="picture{" "+theme[0] if theme else ""}" href="{m[1]}">{m[0]}</a>'
    return re.sub(r'<img [^>]*src="([^"]*_images/[^"]+)"[^>]*>', link, body)

def head_table(body):
    "The head of a notebook: its three cells know what they are, since a narrow page has no room for a row above them"
    def mark(m):
        names = iter(('stands on', 'builds', 'minutes'))
        return '<table class="table stands">'+re.sub('<td>', lambda _: f'<td data-head="{next(names)}">', m[1])+'</table>'
    return re.sub(r'<table class="table">((?:(?!</table>).)*<p>stands on</p>(?:(?!</table>).)*)</table>', mark, body, count=1, flags=re.S)

def page_context(app, pagename, templatename, context, doctree):
    if pagename == '404':  # served for any address, so its links start at the site's root: /foundation-notes/ on Pages, else /
        base = f'/{api.NAME}/'
        context['metatags'] += (f'<base href="{base}"><script>if(!location.pathname.startsWith("{base}"))document.querySelector("base").setAttribute("href","/");'
            'addEventListener("load",()=>document.querySelectorAll("a[href^=\'#\']").forEach(a=>a.href=location.pathname+a.hash))</script>')
    if 'body' in context: context['body'] = lines(pictures(context['body']))
    if 'class="series"' in context.get('body', ''): app.add_css_file('map.css')  # the first page
    if 'class="digits"' in context.get('body', ''):
        app.add_css_file('front.css')
        for name in ('digits.js', 'front.js'): app.add_js_file(name, defer='defer')
    for name in INTERACTIVE:
        if f'<div class="{name}">' in context.get('body', ''):
            app.add_css_file(f'{name}.css')
            app.add_js_file(f'{name}.js', defer='defer')
    if not context.get('sourcename', '').endswith('.ipynb'): return
    context['body'] = head_table(link_code(context['body'], doctree, context['pathto']))
    button = lambda text, url, icon, tip: {'type': 'link', 'text': text, 'url': url, 'icon': icon, 'tooltip': tip}
    colab, nb = f'https://colab.research.google.com/github/{api.OWNER}/{api.NAME}', f'nbs/{pagename}.ipynb'
    buttons = [
        button('Colab', f'{colab}/blob/main/{nb}', '_static/images/logo_colab.png', 'Open in Colab'),
        button('Notebook', f'{context["pathto"]("_sources", 1)}/{context["sourcename"]}', 'fas fa-download', 'Download the notebook'),
        button('Source', f'{api.BLOB}/{nb}', 'fab fa-github', 'The notebook in the repository'),
        button('Edit', f'{api.REPO}/edit/main/{nb}', 'fas fa-pencil-alt', 'Suggest a change')]
    context['header_buttons'][:0] = buttons if api.KNOWN else buttons[1:2]

def open_fold(self, node):
    "A folded cell under its sentence; MyST-NB has two for it, which a screen reader hears as “Toggle hidden content”"
    self.body.append(f'<details class="hide"><summary>{escape(node["prompt_show"], quote=False)}</summary>\n')

def close_fold(self, node): self.body.append('</details>\n')

def set_output_folder(app):
    "Pictures that myst-nb writes out go into the build folder, not beside the site"
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(api.ROOT/'_build'/'site-output'))

def setup(app):
    app.add_node(HideCodeCellNode, override=True, html=(open_fold, close_fold))
    app.connect('builder-inited', set_output_folder, priority=900)
    app.connect('source-read', read_source)
    app.connect('doctree-read', link_names)
    app.connect('html-page-context', page_context, priority=900)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}

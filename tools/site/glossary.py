"The glossary: every term that a notebook marks `<dfn>so</dfn>`, with the sentence that defines it"
import re

DFN = re.compile(r'<dfn(?: title="([^"]*)")?>(.*?)</dfn>', re.S)
_list = re.compile(r'^[ \t]*(?:[-*+]|\d+[.)])[ \t]+|^[ \t]*>[ \t]?', re.M)
_whole = re.compile(r'\$\$.*?\$\$|(?<!\\)\$[^$]+\$|(`+)(?!`).+?(?<!`)\1(?!`)|\]\([^)]*\)|</?\w[^>]*>', re.S)  # no sentence ends inside these
_end = re.compile(r'(?<!\be\.g)(?<!\bi\.e)(?<!\bcf)(?<!\bvs)(?<!\bFig)(?<![^A-Za-z][A-Z])[.!?][)"”’*_]*\s+(?![a-z])')

def slug(term): return 'term-'+re.sub(r'\W+', '-', term.lower().replace('_', '-')).strip('-')

def name(m): return ' '.join((m[1] or m[2]).split())

def anchors(markdown):
    "`markdown` with a place to lead to for each term"
    return DFN.sub(lambda m: f'<dfn id="{slug(name(m))}">{m[2]}</dfn>', markdown)

def blocks(markdown):
    "Paragraphs, items of lists and formulas, without the folded answers"
    for b in re.split(r'\n[ \t]*\n', re.sub(r'<details\b.*?</details>', '', markdown, flags=re.S)):
        yield from filter(str.strip, _list.split(b))

def sentence(text, at):
    "The sentence of the paragraph `text` around position `at`"
    plain = _whole.sub(lambda m: 'X'*len(m[0]), text)
    ends = [m.end() for m in _end.finditer(plain)]
    start = max([e for e in ends if e <= at], default=0)
    return ' '.join(text[start:min([e for e in ends if e > at], default=len(text))].split())

def terms(markdown):
    "(term, the sentence that defines it) for each that a cell marks; a formula that ends the sentence belongs to it"
    bs = [*blocks(markdown), '']
    for b, following in zip(bs, bs[1:]):
        for m in DFN.finditer(b):
            s = sentence(b, m.start())
            if s[-1] not in '.!?' and following.lstrip().startswith('$$'): s += '\n\n'+following.strip()
            yield name(m), DFN.sub(lambda d: f'**{d[2]}**' if name(d) == name(m) else d[2], s)

def collect(notebooks):
    "{term: (name of the notebook, sentence)} from {name: notebook}; `ValueError` for a term that is marked twice"
    found = {}
    for nb, content in notebooks.items():
        for c in content['cells']:
            if c['cell_type'] != 'markdown': continue
            for term, s in terms(''.join(c['source'])):
                if (old := next((t for t in found if t.lower() == term.lower()), None)): raise ValueError(f'<dfn>{term}</dfn> stands twice, in {found[old][0]} and in {nb}: mark it where it first stands')
                found[term] = nb, s
    return found

def page(found, titles):
    "Markdown of the page; `titles` are those of the notebooks"
    out, letter = ['# Glossary', '', '> The terms of the series, each in the sentence that defines it where it first stands', ''], ''
    for term in sorted(found, key=str.lower):
        nb, s = found[term]
        if term[0].upper() != letter: out += [*(['````', ''] if letter else []), f'## {(letter := term[0].upper())}', '', '````{glossary}']
        s = re.sub(r'\]\(#', f']({nb}.ipynb#', s)
        first, *more = s.split('\n\n', 1)
        out += [term, f'  {first}', *(f'\n  {line}' if not i else f'  {line}' for b in more for i, line in enumerate(b.split('\n'))), '',
                f'  <a class="defined" href="{nb}.html#{slug(term)}">{titles[nb]}</a>', '']
    return '\n'.join([*out, '````', ''])

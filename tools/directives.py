"""One reading of the lines `#| name: value` at the top of a cell: the runner, the tests and the site all ask here.

It is nbdev's, so that what is exported is what they say is exported: spaces don't count (black writes `# | export`), and blank
lines and magics such as `%%time` may stand among them. `notes.exports` reads them in the same way; tests/test_exports.py holds the three together.
"""
import io, re, tokenize

KNOWN = {'default_exp', 'export', 'hide', 'echo', 'code-summary', 'eval', 'fig-alt', 'varies', 'alone', 'reaches', 'interactive'}
_line = re.compile(r'\s*#\s*\|')
_top = re.compile(r'\s*(?:#\s*\||%%\w|$)')
_mark = re.compile(r'\s*#\s*\|\s*([^\s:]+)\s*:?\s?(.*?)\s*$')

def split(source):
    "The lines at the top of a cell, and the rest; a line ends in `\\n`, for U+2028 and form feeds are part of the code"
    lines = source.split('\n')
    n = next((i for i, l in enumerate(lines) if not _top.match(l)), len(lines))
    return lines[:n], lines[n:]

def directives(source):
    "What a cell says of itself: {'export': '', 'fig-alt': 'A plot', ...}"
    found = [m.groups() for l in split(source)[0] if (m := _mark.match(l))]
    return {name: '' if value == 'true' else value for name, value in found}

def code_of(source):
    "A cell without its directives: magics and what follows"
    top, rest = split(source)
    return '\n'.join([l for l in top if l.strip() and not _line.match(l)] + rest)

def comments(source):
    "{number of the line: comment}; each line counts where Python can't tell comments from strings"
    try: return {t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(source, newline=None).readline) if t.type == tokenize.COMMENT}
    except (tokenize.TokenError, SyntaxError, ValueError): return dict(enumerate(source.split('\n'), 1))

def folded(source):
    "Whether a reader sees a cell's code only when they ask for it"
    d = directives(source)
    return 'hide' in d or bool(d.get('code-summary'))

def metadata(source):
    "What asks JupyterLab, and what asks Colab, to fold a cell"
    return {'jupyter': {'source_hidden': True}, 'cellView': 'form'} if folded(source) else {}

def passed_over(source):
    "(number of the line, why) of each directive that nobody obeys"
    top = split(source)[0]
    for n, l in enumerate(top, 1):
        if _line.match(l) and not (d := directives(l)).keys() & KNOWN: yield n, f"nobody knows `#| {next(iter(d), '')}`"
    yield from ((n, "a `#|` line must stand at the cell's top") for n, l in comments(source).items() if n > len(top) and _line.match(l))

def rewritten(source):
    "Numbers of the lines at the top that aren't written `#| name`, as after black"
    return [n for n, l in enumerate(split(source)[0], 1) if _line.match(l) and not l.startswith('#| ')]

"The map of the series on the first page, drawn from the heads of the notebooks: what stands on what, the minutes, and what each reaches"
import re
from html import escape
import heads

def reduced(stops):
    "For each notebook those that it stands on and that nothing else it stands on stands on"
    above = {}
    for s in stops:
        direct = [n for n in s['stands'] if n in above]
        above[s['name']] = {*direct, *(a for n in direct for a in above[n])}
        yield s['name'], [n for n in direct if not any(n in above[o] for o in direct)]

def rails(parents):
    """For each notebook its lane, and the lines beside it: (kind, lane, number of lanes across)

    A lane belongs to a notebook from its row down to that of the last one that stands on it; a line across leads from there into the dot.
    """
    last, lanes, rows = {p: n for n, ps in parents.items() for p in ps}, [], {}
    for n, ps in parents.items():
        ending = [k for k, owner in enumerate(lanes) if owner and last[owner] == n]
        own = next((k for k, owner in enumerate(lanes) if owner is None or k in ending), len(lanes))
        if own == len(lanes): lanes.append(None)
        lines = [('ends' if k in ending else '', k, 0) for k, owner in enumerate(lanes) if owner]
        lines += [('across', min(k, own), abs(k-own)) for k, owner in enumerate(lanes) if owner in ps and k != own]
        for k in ending: lanes[k] = None
        if n in last:
            lanes[own] = n
            lines.append(('begins', own, 0))
        rows[n] = own, lines
    return rows, len(lanes)

def inline(md):
    "Markdown of one line as HTML: code, links between notebooks, and words"
    html = re.sub(r'`([^`]+)`', r'<code>\1</code>', escape(md, quote=False))
    html = re.sub(r'<code>notes\.(\w+)</code>', r'<a href="api/\1.html"><code>notes.\1</code></a>', html)
    html = re.sub(r'\[([^\]]+)\]\((\w+)\.ipynb(#[\w-]+)?\)', r'<a href="\2.html\3">\1</a>', html)
    return re.sub(r'\*([^*]+)\*', r'<em>\1</em>', html)

def number(name): return re.match('[0-9]+[a-z]?', name)[0]

def chart(stops):
    "The map of the series: a list, and beside it lines that lead from what a notebook stands on"
    rows, lanes = rails(dict(reduced(stops)))
    known, needed, items = {s['name'] for s in stops}, {n for s in stops for n in s['stands']}, []
    for s in stops:
        own, lines = rows[s['name']]
        rail = ''.join(f'<i class="{kind}" style="--at:{at};--span:{span}"></i>' for kind, at, span in lines)
        rail += f'<b class="{"needed" if s["name"] in needed else "free"}" style="--at:{own}"></b>'
        time = f'<span class="time">{s["minutes"]} min</span>' if s['minutes'] else ''
        text = [f'<p class="name"><a href="{s["name"]}.html">{number(s["name"])} · {inline(s["title"])}</a>{time}</p>']
        if s['builds']: text.append(f'<p>{inline(s["builds"])}</p>')
        if s['reaches']: text.append(f'<p class="reaches">{inline(s["reaches"])}</p>')
        if stands := [f'<a href="{n}.html">{number(n)}</a>' for n in s['stands'] if n in known]: text.append(f'<p class="from">stands on {", ".join(stands)}</p>')
        items.append(f'<li><div class="rail" aria-hidden="true">{rail}</div><div class="stop">{"".join(text)}</div></li>')
    hours = sum(s['minutes'] or 0 for s in stops)/60
    about = f'<p>{len(stops)} notebooks, about {hours:.0f} hours, in an order to read them in; each names what it stands on. On one with an empty dot nothing stands so far: you can leave it out.</p>' if hours else ''
    return f'```{{raw}} html\n{about}<ol class="series" role="list" style="--lanes:{lanes}">\n'+'\n'.join(items)+'\n</ol>\n```'

def fill(text, notebooks):
    "The README's text with the map in the place of what stands between `<!-- map -->` and `<!-- /map -->`; `notebooks` are the parsed ones by name"
    return re.sub('<!-- map -->.*?<!-- /map -->', lambda m: chart([heads.stop(n, nb) for n, nb in notebooks.items()]), text, flags=re.S)

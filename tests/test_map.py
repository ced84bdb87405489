"The map of the series: what the notebooks' heads say, and the lines that are drawn from it"
# ruff: noqa: F811 (fixtures)
import json, re
import pytest
from test_site import DOCS, TOOL, site  # noqa: F401
import heads, seriesmap

def notebook(title='T', table='', *code):
    cells = [('markdown', f'# {title}\n\n> p'), ('code', '#| default_exp x'), ('markdown', 'By the end you will have it.\n\n'+table), *code]
    return {'cells': [{'cell_type': c[0], 'source': c[1].splitlines(True), **({'outputs': [{'output_type': 'execute_result', 'data': {'text/plain': c[2]}}] if len(c) > 2 else []} if c[0] == 'code' else {})}
                      for c in cells]}

def table(stands, builds='a thing (`notes.x`)', minutes='30'): return f'| stands on | builds | minutes |\n|---|---|---|\n| {stands} | {builds} | {minutes} |\n'
def links(*names): return ', '.join(f'[{n}]({n}.ipynb)' for n in names)

def test_the_head_is_read():
    h = heads.head(notebook('T', table(links('00_a', '01b_c'), r'`a` or \| `b`', '25')+'\nMore.'))
    assert h == {'stands': ['00_a', '01b_c'], 'builds': '`a` or | `b`', 'minutes': 25}
    assert heads.head(notebook('T', table('nothing')))['stands'] == []
    for bad in ('', table('nothing', minutes='soon'), '| stands on | builds | minutes |\n|---|---|---|\n', '| a | b | c |\n|---|---|---|\n| nothing | x | 3 |'): assert heads.head(notebook('T', bad)) is None

@pytest.mark.parametrize('shown, want', [("'98.1%'", '98.1% of the digits'), ('17', '17 of the digits'), ('tensor(3)', 'tensor(3) of the digits')])
def test_what_is_reached_is_a_stored_result(shown, want):
    assert heads.reaches(notebook('T', '', ('code', 'x', "'no'"), ('code', '#| reaches: {} of the digits\nx', shown))) == want
    assert heads.reaches(notebook('T', '', ('code', '#| reaches: {} of the digits\nx'))) is None
    assert heads.reaches(notebook('T', '', ('code', '#| reaches: all of it\nx'))) == 'all of it'
    assert heads.reaches(notebook()) is None

def stops(**stands): return [{'name': n.strip('_'), 'title': 'T', 'stands': s.split(), 'builds': '', 'minutes': None, 'reaches': None} for n, s in stands.items()]

def test_what_follows_from_other_lines_is_not_drawn():
    assert dict(seriesmap.reduced(stops(_00='', _00a='00', _01='00 00a', _02='00a 01', _03='00 05'))) == {'00': [], '00a': ['00'], '01': ['00a'], '02': ['01'], '03': ['00']}

@pytest.mark.parametrize('stands', [dict(_00='', _01='00', _01a='01', _02='01'), dict(_00='', _01='', _02='00 01'), dict(_00='', _01='00', _02='00', _03='00 01', _04='02 03', _05='01'), dict(_00=''), dict(_00='', _01='', _02='')])
def test_lines_lead_from_each_to_what_stands_on_it(stands):
    "Walk the lines down from each dot: they come to those that stand on it, and to no other"
    parents = dict(seriesmap.reduced(stops(**stands)))
    rows, n = seriesmap.rails(parents)
    names = [*rows]
    for i, p in enumerate(names):
        lane, lines = rows[p]
        assert 0 <= lane < n
        reached = []
        if ('begins', lane, 0) in lines:
            for c in names[i+1:]:
                own, below = rows[c]
                kind = next(k for k, at, _ in below if at == lane and k in ('', 'ends'))
                if (kind == 'ends' and own == lane) or any(k == 'across' and {at, at+span} == {lane, own} for k, at, span in below): reached.append(c)
                if kind == 'ends': break
        assert reached == [c for c in names if p in parents[c]]

def test_the_map():
    html = seriesmap.chart([heads.stop('00_a', notebook('A `b`', table('nothing', minutes='90'))), heads.stop('01_c', notebook('C <d>', table(links('00_a'), 'x < *y* (`notes.c`)', '60'), ('code', '#| reaches: {} right\nx', "'9%'"))),
                        heads.stop('01a_e', notebook('E'))])
    assert '3 notebooks, about 2 hours' in html and '<a href="00_a.html">00 · A <code>b</code></a><span class="time">90 min</span>' in html
    assert '01 · C &lt;d&gt;' in html and '<p>x &lt; <em>y</em> (<a href="api/c.html"><code>notes.c</code></a>)</p><p class="reaches">9% right</p>' in html
    assert 'stands on <a href="00_a.html">00</a>' in html and html.count('<li>') == 3 and html.count('<b class="needed"') == 1
    assert 'an order to read them in; each names what it stands on' in html
    assert 'hours' not in seriesmap.chart([heads.stop('00_a', notebook())])  # no heads, no hours

def test_the_page_has_the_map_of_all_notebooks(site):
    names = sorted(p.stem for p in (DOCS/'_sources').glob('[0-9]*.ipynb'))
    text = (DOCS/'index.html').read_text(encoding='utf-8')
    items = re.findall(r'<div class="stop">.*?</div>', text)
    assert [re.search(r'href="(\w+)\.html"', i)[1] for i in items] == names
    for n, i in zip(names, items):
        s = heads.stop(n, json.loads((DOCS/'_sources'/f'{n}.ipynb').read_text(encoding='utf-8')))
        assert (f'{s["minutes"]} min' in i) == bool(s['minutes']) and ('class="reaches"' in i) == bool(s['reaches'])
    assert '<!-- map' not in text and '<!-- draw' not in text and 'what you will have built' not in text

def test_the_readme_names_all_notebooks():
    text = (TOOL.parents[1]/'README.md').read_text(encoding='utf-8')
    assert re.search('<!-- map -->\n.*\n<!-- /map -->', text, re.S)
    names = re.findall(r'\(nbs/(\w+)\.ipynb\)', text)
    assert names == sorted(p.stem for p in (TOOL.parents[1]/'nbs').glob('[0-9]*.ipynb'))

"The drawing of `#| interactive: allreduce`: its messages are those of notes.parallel, and it works with mouse, keyboard, finger, on paper and without scripts"
# ruff: noqa: F811 (fixtures)
import functools, http.server, json, math, re, subprocess, sys, threading
import pytest, torch
from test_descent import PIXEL, Quiet
from test_site import LIMIT, TOOL, axe, browser, go, page, prepared, read, resize, site  # noqa: F401
import allreduce
from notes import parallel

FILES = [TOOL/'static'/'allreduce.js', TOOL/'static'/'allreduce.css']
WAYS = {'direct': parallel.all_reduce_direct, 'tree': parallel.all_reduce_tree, 'ring': parallel.all_reduce_ring}
SIZES = range(2, 9)

@pytest.fixture(scope='module')
def built(site, tmp_path_factory):
    "A page by itself, made by the site's own extension"
    folder = tmp_path_factory.mktemp('allreduce')
    (folder/'s').mkdir()
    still = {'output_type': 'display_data', 'metadata': {}, 'data': {'image/png': PIXEL, 'text/plain': '<Figure>'}}
    cells = [('markdown', '# A sample\n\n> of the drawing'), ('markdown', '## Messages\n\nWords before it.'),
             ('code', '#| code-summary: How the messages are drawn\n#| fig-alt: The still of the drawing\n#| interactive: allreduce\nplot()'), ('markdown', 'Words after it.')]
    cells = [{'cell_type': kind, 'id': f'c{i}', 'metadata': {}, 'source': s, **({'execution_count': None, 'outputs': [still]} if kind == 'code' else {})} for i, (kind, s) in enumerate(cells)]
    kernel = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
    (folder/'s'/'sample.ipynb').write_text(json.dumps({'cells': cells, 'metadata': {'kernelspec': kernel}, 'nbformat': 4, 'nbformat_minor': 5}), encoding='utf-8')
    (folder/'s'/'index.md').write_text('# Without it\n\n```{toctree}\nsample\n```\n', encoding='utf-8')
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-W', '-q', '-b', 'html', '-c', str(TOOL), '-d', str(folder/'t'), str(folder/'s'), str(folder/'o')],
                          capture_output=True, text=True, encoding='utf-8')
    assert not done.returncode, done.stderr
    return folder/'o'

@pytest.fixture(scope='module')
def host(built):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

SHOWN = "() => document.querySelector('.allreduce').dataset.shown"
@pytest.fixture
def drawing(page, host):
    go(page, f'{host}/sample.html')
    page.wait_for_function(SHOWN)
    return page

def put(page, **values):
    for name, v in values.items(): page.locator(f'.allreduce input[name={name}]').evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }", v)
def choose(page, way): page.locator('.ways label').nth([*WAYS].index(way)).click()
def shown(page): return page.locator('.allreduce').get_attribute('data-shown').split()
def table(page): return dict(zip(WAYS, page.locator('.allreduce tbody tr').evaluate_all("l => l.map(e => [...e.querySelectorAll('td')].map(c => c.textContent))")))

# ---- As in Python

def traced(group, all_reduce):
    "What a rank does, one thing after the other: (to, numbers sent, from whom it hears); and what it counted"
    log = []
    def note(name, do):
        def noted(*args):
            if name == 'send': log.append((args[1], args[0].numel(), None))
            elif name == 'recv': log.append((None, 0, args[1]))
            else: log.append((args[1], args[0].numel(), args[3]))
            return do(*args)
        return noted
    for name in ('send', 'recv', 'exchange'): setattr(group, name, note(name, getattr(group, name)))
    x = torch.zeros(group.size, dtype=torch.float64)
    x[:] = 1 << group.rank
    total = all_reduce(x, group)
    assert total.eq((1 << group.size)-1).all()
    return log, group.sent/(8*group.size), group.steps

@functools.cache
def by_threads(way, p): return parallel.run_threads(traced, p, WAYS[way])

def by_script(drawing, way, p): return drawing.evaluate('([w, p]) => allReduce.schedule(w, p)', [way, p])

@pytest.mark.parametrize('way', WAYS)
def test_messages_are_those_of_notes_parallel(drawing, way):
    "The same to the same in the same order, and as large; as many steps and bytes"
    for p in SIZES:
        s, threads = by_script(drawing, way, p), by_threads(way, p)
        for r, (log, sent, steps) in enumerate(threads):
            mine = []
            for now in s['messages']:
                out, come = ([m for m in now if m[k] == r] for k in ('from', 'to'))
                assert len(out) <= 1 and len(come) <= 1, "one at a time, there and back"
                if out or come: mine.append((out[0]['to'] if out else None, len(out[0]['chunks']) if out else 0, come[0]['from'] if come else None))
            assert mine == log and len(mine) == steps and s['states'][-1][r]['sent']/p == sent
        c = drawing.evaluate('([w, p]) => allReduce.counts(w, p)', [way, p])
        assert c == {'steps': max(n for *_, n in threads), 'sent': pytest.approx(max(s for _, s, _ in threads))} and len(s['states']) == len(s['messages'])+1

FORMULAS = {'direct': lambda p: (p-1, p-1), 'tree': lambda p: (2*math.ceil(math.log2(p)), math.ceil(math.log2(p))), 'ring': lambda p: (2*(p-1), 2*(p-1)/p)}
@pytest.mark.parametrize('way', WAYS)
def test_counts_are_the_formulas(drawing, way):
    for p in SIZES:
        put(drawing, processes=p)
        choose(drawing, way)
        steps, sent = FORMULAS[way](p)
        assert drawing.evaluate('([w, p]) => allReduce.counts(w, p)', [way, p]) == {'steps': steps, 'sent': pytest.approx(sent)}
        put(drawing, step=steps)
        assert table(drawing)[way][0] == f'{steps} of {steps}' and [float(v) for v in table(drawing)[way][1].split(' of ')] == pytest.approx([sent, sent], abs=.0051)
        assert shown(drawing) == [way, str(p), str(steps)] and drawing.locator('input[name=step]').get_attribute('max') == str(steps)

@pytest.mark.parametrize('way', WAYS)
def test_parts_become_whole(drawing, way):
    "Nothing is added twice, what comes is what its sender has, and at the end everyone has everything"
    for p in SIZES:
        s, whole = by_script(drawing, way, p), (1 << p)-1
        assert s['states'][0] == [{'parts': [1 << r]*p, 'sent': 0} for r in range(p)] and all(t['parts'] == [whole]*p for t in s['states'][-1])
        for now, before, after in zip(s['messages'], s['states'], s['states'][1:]):
            want = [[*t['parts']] for t in before]
            for m in now:
                for c, parts in zip(m['chunks'], m['parts']):
                    has = before[m['to']]['parts'][c]
                    if m['added']: assert not has & parts, "a part counted twice"
                    else: assert parts == whole
                    assert parts & ~before[m['from']]['parts'][c] == 0
                    want[m['to']][c] = has | parts
            assert [t['parts'] for t in after] == want

def test_what_it_says_to_try_comes_true(drawing):
    said = drawing.locator('.allreduce p.about').last.inner_text()
    c = {w: drawing.evaluate('w => allReduce.counts(w, 8)', w) for w in WAYS}
    assert c == {'direct': {'steps': 7, 'sent': 7}, 'tree': {'steps': 6, 'sent': 3}, 'ring': {'steps': 14, 'sent': 1.75}}
    assert re.findall(r'[\d.]+(?= (?:times|steps|processes))', said.replace('7 times, in 7', '7 times in 7')) == ['8', '7', '7', '3', '6', '14', '1.75']
    assert [t['sent'] for t in by_script(drawing, 'tree', 8)['states'][-1]][0]/8 == 3

# ---- The page

def test_only_a_page_that_has_it_loads_it(built):
    has = {n: {f.name for f in FILES if f'_static/{f.name}' in (built/f'{n}.html').read_text(encoding='utf-8')} for n in ('sample', 'index')}
    assert has == {'sample': {f.name for f in FILES}, 'index': set()} and 'allreduce.js' not in ''.join(read('00_exports').resources+read('index').resources)

def test_it_is_small_and_asks_nothing_of_a_host():
    assert FILES[0].stat().st_size < 16_000 and FILES[1].stat().st_size < 8_000 and '\n\n' not in allreduce.html()
    for f in FILES: assert not re.search(r'https?:(?!//www\.w3\.org/2000/svg)|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon', f.read_text(encoding='utf-8')), f.name

def test_the_extension_puts_it_after_its_cell(prepared):
    cells = prepared(('markdown', '# T'), ('code', '#| interactive: allreduce\nplot()'), ('code', 'x'))
    assert [c['cell_type'] for c in cells] == ['markdown', 'code', 'markdown', 'code'] and cells[1]['metadata']['tags'] == ['still-of-allreduce'] and allreduce.html() in cells[2]['source']

def test_it_takes_the_stills_place(drawing, browser, host):
    assert drawing.evaluate('allReduce.ways') == [*WAYS] == [*allreduce.WAYS]
    still = 'img[alt="The still of the drawing"]'
    assert drawing.locator('.allreduce').is_visible() and not drawing.locator(still).is_visible()
    drawing.emulate_media(media='print')
    assert drawing.locator(still).is_visible() and not drawing.locator('.allreduce').is_visible()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f'{host}/sample.html')
    assert page.locator(still).is_visible() and not page.locator('.allreduce').is_visible()
    context.close()

@pytest.mark.parametrize('width', [390, 1280])
def test_nothing_jumps(browser, host, width):
    "Neither when the script has run, nor with another way or number"
    heights = []
    for stopped in (True, False):
        context = browser.new_context(viewport={'width': width, 'height': 900})
        context.set_default_timeout(LIMIT)
        page = context.new_page()
        if stopped: page.route('**/allreduce.js*', lambda r: r.abort())
        go(page, f'{host}/sample.html')
        if not stopped: page.wait_for_function(SHOWN)
        heights.append(page.locator('.allreduce').bounding_box()['height'])
        if not stopped:
            for way in WAYS:
                choose(page, way)
                for p in (2, 7, 8):
                    put(page, processes=p, step=3)
                    heights.append(page.locator('.allreduce').bounding_box()['height'])
        context.close()
    assert max(heights)-min(heights) < 1

def test_squares_show_the_parts(drawing):
    "As many cells filled as parts are there, and a frame around each whole column; they lie in the picture and apart"
    for width in (1280, 390):
        drawing.set_viewport_size({'width': width, 'height': 900})
        for way in WAYS:
            choose(drawing, way)
            for p in SIZES:
                put(drawing, processes=p)
                states = by_script(drawing, way, p)['states']
                for k in {0, 1, len(states)//2, len(states)-1}:
                    put(drawing, step=k)
                    masks, whole = [v for t in states[k] for v in t['parts']], (1 << p)-1
                    got = drawing.evaluate("() => Object.fromEntries(['part', 'done', 'frames', 'ground'].map(c => [c, (document.querySelector(`.allreduce svg > path.${c}`).getAttribute('d').match(/Z/g) ?? []).length]))")
                    assert got == {'part': sum(v.bit_count() for v in masks if v != whole), 'done': p*masks.count(whole), 'frames': masks.count(whole), 'ground': p}
                    assert [float(t.replace('sent ', '')) for t in drawing.locator('.allreduce text.sent').all_text_contents()] == pytest.approx([t['sent']/p for t in states[k]], abs=.0051)
                boxes = [[float(v) for v in re.findall(r'-?[\d.]+', d)[:3]] for d in drawing.locator('.allreduce svg > path.ground').get_attribute('d').split('Z')[:-1]]
                w = drawing.locator('.allreduce .view').bounding_box()['width']-2
                assert min(s for *_, s in boxes) > (30 if width == 390 else 45)
                for i, (x, y, s) in enumerate(boxes):
                    assert x >= 1 and y >= 15 and x+s <= w-1 and y+s+17 <= .86*w+1
                    assert all(x+s+3 <= a or a+t+3 <= x or y+s+16 <= b or b+t+16 <= y for a, b, t in boxes[i+1:]), (way, p, width)

def test_the_messages_of_a_step_are_drawn(drawing):
    heads = lambda: drawing.locator('.allreduce .lines path.head').count()
    for way in WAYS:
        choose(drawing, way)
        put(drawing, processes=5)
        assert heads() == 0
        for k, now in enumerate(by_script(drawing, way, 5)['messages'], 1):
            put(drawing, step=k)
            assert heads() == len(now)
    assert not re.search('NaN|Infinity', drawing.locator('.allreduce svg').inner_html())

def test_the_keyboard_reaches_all_of_it(drawing):
    focused, seen = "() => { const e = document.activeElement; return e.closest('.allreduce') && (e.name || e.className) }", []
    for _ in range(80):
        drawing.keyboard.press('Tab')
        if (f := drawing.evaluate(focused)): seen.append(f)
        elif seen: break
    assert seen == ['way', 'processes', 'play', 'one', 'step']
    drawing.get_by_role('radio', name='Ring').focus()
    drawing.keyboard.press('ArrowLeft')
    assert shown(drawing) == ['tree', '4', '0']
    drawing.get_by_role('slider', name='Processes').focus()
    drawing.keyboard.press('ArrowRight')
    assert shown(drawing) == ['tree', '5', '0'] and drawing.get_by_role('slider', name='Processes').get_attribute('aria-valuetext') == '5'
    drawing.get_by_role('button', name='One step').focus()
    for k in (1, 2, 3, 4, 5, 6, 0, 1):
        drawing.keyboard.press('Enter')
        assert shown(drawing) == ['tree', '5', str(k)]
    drawing.get_by_role('slider', name='Step', exact=True).focus()
    drawing.keyboard.press('ArrowRight')
    assert shown(drawing)[2] == '2' and drawing.get_by_role('slider', name='Step', exact=True).get_attribute('aria-valuetext') == '2 of 6'
    drawing.wait_for_function("() => document.querySelector('.allreduce [role=status]').textContent.startsWith('Step 2 of 6. 0 of 25 chunks are whole; the busiest has sent 1 of its data.')")
    assert drawing.locator('.allreduce svg').get_attribute('aria-label') == 'Tree, 5 processes, after 2 of 6 steps: 0 of 25 chunks are whole'

@pytest.mark.parametrize('motion', ['reduce', 'no-preference'])
def test_it_plays_and_pauses(browser, host, motion):
    "For who wants little motion it goes in jumps from step to step, and no message glides"
    context = browser.new_context(reduced_motion=motion)
    context.set_default_timeout(LIMIT)
    page = context.new_page()
    go(page, f'{host}/sample.html')
    page.wait_for_function(SHOWN)
    play = page.locator('.allreduce .play')
    assert play.inner_text() == 'Play' and shown(page) == ['ring', '4', '0'], "nothing moves by itself"
    page.evaluate("""() => { window.places = new Set(); const f = () => { const e = document.querySelector('.allreduce .moving path.edge'); if (e) places.add(e.getAttribute('d')); requestAnimationFrame(f) }; f() }""")
    play.click()
    assert play.inner_text() == 'Pause'
    page.wait_for_function("() => +document.querySelector('.allreduce').dataset.shown.split(' ')[2] == 2")
    play.click()
    assert play.inner_text() == 'Play'
    step, places = int(shown(page)[2]), page.evaluate('places.size')
    assert step in (2, 3) and (places <= step if motion == 'reduce' else places > step+2)
    page.wait_for_timeout(200)
    assert shown(page)[2] == str(step)
    put(page, step=5)
    play.click()
    page.wait_for_function("() => document.querySelector('.allreduce').dataset.shown.endsWith(' 6') && document.querySelector('.allreduce .play').textContent === 'Play'")
    play.click()
    assert shown(page)[2] == '0' and play.inner_text() == 'Pause', "from the end it begins anew"
    choose(page, 'tree')
    assert shown(page) == ['tree', '4', '0'] and play.inner_text() == 'Play'
    context.close()

@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_it_suits_a_phone_and_a_screen_reader(drawing, theme):
    drawing.evaluate("t => { document.documentElement.dataset.theme = document.documentElement.dataset.mode = t }", theme)
    put(drawing, processes=8, step=9)
    for width in (1280, 390):
        resize(drawing, width, 844)
        assert drawing.evaluate('document.documentElement.scrollWidth') <= width and axe(drawing) == []
    b = drawing.locator('.allreduce .view').bounding_box()
    assert b['x'] >= 0 and b['x']+b['width'] <= 390
    tops = drawing.locator('.allreduce .ways label').evaluate_all('l => l.map(e => e.getBoundingClientRect().top)')
    assert len({round(t) for t in tops}) == 1, 'the three ways in one line'
    # filled cells and arrows stand out from the page by 3 at least, as pictures should
    faint = drawing.evaluate("""() => { const rgb = c => { const x = document.createElement('canvas').getContext('2d'); x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data] }
        const light = c => rgb(c).slice(0, 3).map(v => (v /= 255) <= .04045 ? v/12.92 : ((v+.055)/1.055)**2.4).reduce((s, v, i) => s+v*[.2126, .7152, .0722][i], 0)
        const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((a, b) => b-a); return (x+.05)/(y+.05) }
        const page = getComputedStyle(document.body).backgroundColor
        return ['svg > path.part', 'svg > path.done', '.lines path.head'].map(s => [s, contrast(getComputedStyle(document.querySelector('.allreduce '+s)).fill, page)]).filter(([, c]) => c < 3) }""")
    assert not faint

def test_a_finger_finds_what_it_needs(browser, host):
    context = browser.new_context(viewport={'width': 390, 'height': 844}, has_touch=True, is_mobile=True, reduced_motion='reduce')
    context.set_default_timeout(LIMIT)
    page = context.new_page()
    go(page, f'{host}/sample.html')
    page.wait_for_function(SHOWN)
    assert not page.locator('.allreduce :is(button, .ways label, input[type=range])').evaluate_all('l => l.map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().height]).filter(([, h]) => h < 43.5)')
    page.locator('.ways label').first.tap()
    page.locator('.allreduce .one').tap()
    assert shown(page) == ['direct', '4', '1']
    page.locator('.allreduce tbody').scroll_into_view_if_needed()
    page.wait_for_function("() => document.body.classList.contains('at-figures')")  # nothing of the page lies on the table
    context.close()

# ---- In the series

def test_11_has_the_drawing():
    if not (parsed := read('11_parallel')).having('allreduce'): pytest.skip('not yet')
    assert len(parsed.having('allreduce')) == 1 and any('still-of-allreduce' in (b['attrs'].get('class') or '') for b in parsed.blocks)

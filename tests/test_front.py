"The first page: what a browser makes of a drawing is what Python makes of it"
# ruff: noqa: F811 (fixtures)
import json, math, re
import numpy as np, pytest, torch
from test_site import DOCS, PREFIX, TOOL, browser, go, host, page, read, site  # noqa: F401
import digits, front
from notes.data import fit_digit, get_data
from notes.exports import rel_error
from notes.fully_connected import normalize
from notes.modules import Identity, Linear, ReLU, Sequential
from notes.normalization import BatchNorm2d
from notes.resnet import GlobalAvgPool, resnet
from notes.training import softmax

FILES = [TOOL/'static'/f for f in ('digits.js', 'digits.png', 'front.js', 'front.css')]

@pytest.fixture(scope='module')
def network():
    "The network of digits.js as Python reads it: takes pixels (n, 784)"
    d, model = digits.load()
    def f(x, layers=len(model)):
        for l in [*model][:layers]: x = l(normalize(x, d['mean'], d['std']).view(-1, 1, 28, 28) if l is model[0] else x)
        return x
    return f

@pytest.fixture
def index(page, host):
    go(page, f'{host}{PREFIX}index.html')
    page.wait_for_function("() => document.querySelector('.digits')?.dataset.read")
    return page

# ---- The file

def test_the_file_is_what_its_command_writes():
    d, model = digits.load()  # fails where layers or shapes are others
    made = d['made']
    assert made['command'] == 'python tools/site/digits.py' and (made['seed'], made['epochs'], made['batch_size']) == (digits.SEED, digits.EPOCHS, digits.BATCH)
    assert (tuple(made['widths']), made['rate'], made['decay'], made['moved']) == (digits.WIDTHS, digits.RATE, digits.DECAY, digits.MOVED)
    assert {'python', 'torch', 'foundation-notes'} <= made.keys()
    assert {type(l).__module__ for l in model.modules()} == {'notes.convolutions', 'notes.modules', 'notes.resnet'}
    assert not any(p.requires_grad for p in model.parameters())

def test_it_reads_digits(network):
    *_, xv, yv = get_data()
    right = (network(xv[:1000]).argmax(1) == yv[:1000]).float().mean()
    assert right >= .99
    assert abs(right-digits.load()[0]['made']['accuracy']['rounded']) < .01
    samples = digits.numbers(digits.load()[0]['samples'], torch.uint8).view(10, 784)/256
    assert network(samples).argmax(1).tolist() == [*range(10)]
    assert all((xv == s).all(1).any() for s in samples)  # none was trained on

def test_all_of_it_is_small(): assert sum(f.stat().st_size for f in FILES) < 200_000

def test_nothing_is_asked_of_a_host():
    for f in FILES:
        if f.suffix != '.png': assert not re.search(r'https?:|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon', f.read_text(encoding='utf-8')), f.name

def lively(model):
    "Its batch norms as if it had been trained: no weight, shift or statistic is what it starts with"
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, BatchNorm2d):
            for t in (m.weight.data, m.bias.data, m.running_mean, m.running_var): t.uniform_(.5, 1.5)
    return model.eval()

@pytest.mark.parametrize('settings', [dict(), dict(widths=(3, 4, 4), strides=(3, 1))])
def test_norms_in_the_convolutions_change_nothing(settings):
    model = lively(resnet(**settings).to(torch.float64))
    before, one = model.state_dict(), digits.folded(model).to(torch.float64)
    assert not [m for m in one.modules() if isinstance(m, BatchNorm2d)] and model.state_dict().keys() == before.keys()
    x = torch.rand(20, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad(): assert rel_error(one(x), model(x)) < 1e-12

def test_what_was_rounded_reads_as_well():
    accuracy = digits.load()[0]['made']['accuracy']
    assert accuracy['rounded'] >= accuracy['trained']-.001

def test_rounded_weights_are_near():
    w = torch.randn(5, 3, 2, 2)
    q, scale = digits.rounded(w)
    assert q.dtype == torch.int8 and q.abs().amax((1, 2, 3)).tolist() == [127]*5
    assert ((q*scale.view(-1, 1, 1, 1)-w).abs() <= scale.view(-1, 1, 1, 1)*.5001).all()

def test_a_file_of_another_network_is_refused(tmp_path):
    for change, why in (((0, 'stride', 2), 'stride 2'), ((2, 'layers', []), '0 layers'), ((1, 'layer', 'Identity'), 'Identity'), ((9, 'shape', [10, 32]), 'shape')):
        d = digits.load()[0]
        i, key, value = change
        d['layers'][i][key] = value
        (f := tmp_path/'d.js').write_text(digits.HEAD+json.dumps(d), encoding='utf-8')
        with pytest.raises(ValueError, match=why): digits.load(f)
    with pytest.raises(ValueError, match='another number'): digits.packed(digits.Conv2d(1, 1, 3, stride=(1, 2)))

# ---- In a browser as in Python

def pictures():
    "Drawings of many shapes: strokes, spots, digits enlarged, hairlines, a frame that is full"
    rng, xv = np.random.default_rng(0), get_data()[2].view(-1, 28, 28)
    yield from (np.asarray(xv[i].repeat_interleave(k, 0).repeat_interleave(k, 1)) for i, k in ((0, 1), (1, 7), (2, 10), (3, 3)))
    for h, w in ((280, 280), (31, 17), (17, 31), (1, 1), (28, 28), (99, 280)): yield rng.integers(0, 256, (h, w))*(rng.random((h, w)) > .7)+np.eye(h, w)
    yield from (np.ones((1, 300)), np.ones((300, 1)), np.ones((20, 20)), np.ones((20, 10)), np.ones((280, 280)), np.triu(np.ones((60, 43)))*9)
    heavy = np.full((20, 20), .06)
    heavy[:, 0] = 1
    yield heavy
    for _ in range(20):
        spots = np.zeros((280, 280))
        for r, c in rng.integers(5, 250, (4, 2)): spots[r:r+22, c:c+22] = rng.integers(1, 256)
        yield spots

def test_a_drawing_is_fitted_as_in_python(index):
    for im in pictures():
        got = index.evaluate('([im, h, w]) => [...front.fitDigit(im, h, w)]', [np.asarray(im, float).ravel().tolist(), *im.shape])
        assert np.abs(np.array(got)-fit_digit(im).numpy()).max() <= 1e-6, im.shape
    assert index.evaluate('front.fitDigit(new Float32Array(12), 3, 4)') is None

def test_logits_are_pythons(index, network):
    x = get_data()[2][:200]
    got = torch.tensor(index.evaluate('xs => xs.map(x => front.logits(x))', x.tolist()))
    want = network(x)
    assert got.shape == (200, 10) and (got-want).abs().max() < 1e-3
    maps = index.evaluate('x => front.forward(x).map(o => [...o.data])', x[7].tolist())
    assert len(maps) == len(digits.network())
    for i, m in enumerate(maps): assert (torch.tensor(m)-network(x[7:8], i+1).flatten()).abs().max() < 1e-3, i
    p = index.evaluate('front.softmax([1000, 999, -1000])')
    assert np.allclose(p, softmax(torch.tensor([1000., 999., -1000.])))

@pytest.mark.parametrize('layer, size', [(c, (c.weight.shape[1], 9, 11)) for k, s, p in ((3, 2, 1), (1, 2, 0), (5, 1, 0), (2, 3, 2), ((2, 3), 1, 1)) for c in [digits.Conv2d(3, 4, k, s, p)]]
                         + [(digits.Sum(digits.Conv2d(2, 2, 3, 1, 1), Identity(), Sequential(digits.Conv2d(2, 2, 1), ReLU())), (2, 5, 4)), (GlobalAvgPool(), (3, 2, 5)), (Linear(12, 5), (12,))])
def test_each_layer_is_pythons(index, layer, size):
    x = torch.randn(1, *size)
    saved = digits.packed(layer)
    digits.unpacked(layer, saved)  # rounded, as the page has it
    got = index.evaluate("([l, data, size]) => { const o = front.run(front.unpack(l), {data: Float32Array.from(data), size}); return [[...o.data], o.size] }", [saved, x.flatten().tolist(), size])
    with torch.no_grad(): want = layer(x)[0]
    assert got[1] == [*want.shape] and (torch.tensor(got[0])-want.flatten()).abs().max() < 1e-4

def test_how_long_a_reading_takes(index):
    "Shown, not tested: a busy machine is no failure"
    ms = index.evaluate('''() => { const paper = document.querySelector('.paper canvas').getContext('2d'), times = []
        for (let i = 0; i < 50; i++) { const t = performance.now(); front.logits(front.fitDigit(front.ink(paper), 280, 280)); times.push(performance.now()-t) }
        return times.sort((a, b) => a-b)[25] }''')
    print(f'\na reading takes {ms:.1f} ms (median of 50); 20 are allowed')

# ---- Drawing

STROKES = {1: [[(.4, .3), (.55, .12), (.55, .9)]], 7: [[(.25, .15), (.75, .15), (.45, .9)]],
           0: [[(.5+.27*math.sin(t/12*math.pi), .5-.38*math.cos(t/12*math.pi)) for t in range(25)]]}

INK = "[...front.ink(document.querySelector('.paper canvas').getContext('2d'))]"

def paper(page):
    page.locator('.digits .paper canvas').scroll_into_view_if_needed()
    b = page.locator('.digits .paper canvas').bounding_box()
    return lambda p: (b['x']+p[0]*b['width'], b['y']+p[1]*b['height'])

def is_read(page, digit):
    page.wait_for_function("d => document.querySelector('.digits').dataset.read === d", arg=str(digit))
    assert page.locator('.digits .best').inner_text().split()[0] == str(digit)

def draw(page, strokes):
    at = paper(page)
    for s in strokes:
        page.mouse.move(*at(s[0]))
        page.mouse.down()
        for p in s[1:]: page.mouse.move(*at(p), steps=8)
        page.mouse.up()

@pytest.mark.parametrize('width', [1280, 390])
def test_what_the_mouse_draws_is_read(index, network, width):
    index.set_viewport_size({'width': width, 'height': 844})
    for digit, strokes in STROKES.items():
        draw(index, strokes)
        is_read(index, digit)
        # the browser's whole way once more in Python: from the ink to what is read
        ink = index.evaluate(f'() => {INK}')
        p = softmax(network(fit_digit(np.array(ink).reshape(280, 280))[None]))[0]
        assert p.argmax() == digit
        width = index.locator('.digits .best .bar').evaluate('e => parseFloat(e.style.width)')
        assert abs(width-100*p.max()) < .1
        index.wait_for_function("d => document.querySelector('[role=status]').textContent.startsWith(`Your drawing is read as ${d}`)", arg=digit)
        index.locator('.digits .clear').click()
        index.wait_for_function("() => document.querySelector('[role=status]').textContent === 'Nothing is drawn.'")
        assert index.locator('.digits .best').count() == 0

def test_bars_move_while_the_pen_is_down(index):
    at, seen = paper(index), set()
    index.locator('.digits .clear').click()
    index.mouse.move(*at((.25, .15)))
    index.mouse.down()
    for p in ((.75, .15), (.6, .5), (.45, .9)):
        index.mouse.move(*at(p), steps=5)
        index.evaluate('() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))')
        seen.add(tuple(index.locator('.digits .bar').evaluate_all('l => l.map(e => e.style.width)')))
    assert len(seen) == 3

def test_a_finger_draws_and_does_not_scroll(index):
    index.locator('.digits .clear').click()
    at, cdp = paper(index), index.context.new_cdp_session(index)
    before = index.evaluate('scrollY')
    touch = lambda kind, *ps: cdp.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [dict(zip('xy', at(p))) for p in ps]})
    touch('touchStart', (.5, .1))
    for y in range(15, 95, 5): touch('touchMove', (.5, y/100))
    touch('touchEnd')
    is_read(index, 1)
    assert index.evaluate('scrollY') == before

def test_a_stroke_is_no_swipe(index):
    "What the browser would make of a touch on the paper is off, so that the next tap is one"
    assert index.evaluate("""() => ['touchstart', 'touchmove', 'touchend'].map(kind => {
        const e = new Event(kind, {bubbles: true, cancelable: true}); document.querySelector('.paper canvas').dispatchEvent(e); return e.defaultPrevented })""") == [True]*3

def test_on_a_phone_the_answer_is_in_sight_where_one_draws(browser, host):
    context = browser.new_context(viewport={'width': 390, 'height': 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    go(page, f'{host}{PREFIX}index.html')
    page.wait_for_function("() => document.querySelector('.digits')?.dataset.read")
    answer, paper = (page.locator(f'.digits {s}').bounding_box() for s in ('.answer', '.paper canvas'))
    assert answer['y']+answer['height'] <= paper['y'] < answer['y']+answer['height']+24 and paper['y']+paper['height'] < 844, "without scrolling"
    assert page.locator('.answer').inner_text() == 'Read as 3, >99% sure'
    page.locator('.clear').tap()
    page.wait_for_function("() => document.querySelector('.answer').textContent === 'Draw a digit'")
    buttons = [b.bounding_box()['y'] for b in page.locator('.samples button').all()]
    assert len(set(buttons)) == 2 and buttons[:5] == [buttons[0]]*5
    context.close()

def test_paper_shows_a_picture_and_the_map_its_lines(index):
    index.emulate_media(media='print')
    assert index.locator('.digits-still img').is_visible() and not index.locator('.digits').is_visible()
    assert set(index.locator('.series .rail :is(i, b)').evaluate_all('l => l.map(e => getComputedStyle(e).printColorAdjust)')) == {'exact'}

def test_a_pen_draws(index):
    index.locator('.digits .clear').click()
    at, cdp = paper(index), index.context.new_cdp_session(index)
    pen = lambda kind, p, **kw: cdp.send('Input.dispatchMouseEvent', {'type': kind, **dict(zip('xy', at(p))), 'pointerType': 'pen', **kw})
    (first, *rest), = STROKES[7]
    pen('mousePressed', first, button='left', clickCount=1, buttons=1)
    for p in rest: pen('mouseMoved', p, button='left', buttons=1)
    pen('mouseReleased', rest[-1], button='left', clickCount=1)
    is_read(index, 7)

def test_without_a_pointer(index):
    canvas = index.locator('.digits .paper canvas')
    for _ in range(80):
        if index.evaluate("document.activeElement.matches('.paper canvas')"): break
        index.keyboard.press('Tab')
    assert index.evaluate("document.activeElement.matches('.paper canvas')")
    for d in (4, 0, 9):
        index.keyboard.press(str(d))
        is_read(index, d)
    index.keyboard.press('Delete')
    index.wait_for_function("() => document.querySelector('.digits').dataset.read === ''")
    for _ in range(11): index.keyboard.press('Shift+ArrowUp')
    assert index.locator('.digits').get_attribute('data-read') == '' and index.locator('.digits .pen').is_visible()
    for _ in range(22): index.keyboard.press('ArrowDown')
    is_read(index, 1)
    assert canvas.get_attribute('aria-describedby') == index.locator('.digits p.keys').get_attribute('id')
    index.keyboard.press('Tab')  # the paper holds nobody
    assert index.evaluate("document.activeElement.matches('.clear')")
    for d in range(10):
        index.keyboard.press('Tab')
        index.keyboard.press('Enter')
        is_read(index, d)

def test_one_click_shows_what_the_first_layer_sees(index):
    index.locator('.digits summary').click()
    n, _, h, w = digits.network()[0].weight.shape
    index.wait_for_function("n => document.querySelectorAll('.maps canvas').length === n", arg=2*n)
    said = index.locator('.digits details').evaluate("e => e.textContent + e.querySelector('.maps').getAttribute('aria-label')")
    assert f'its {front.WORDS[n]} kernels of {h}×{w}' in said and f'{front.WORDS[n].capitalize()} kernels' in said
    ink = '''() => [...document.querySelectorAll('.maps div')].map(d => {
        const copy = new OffscreenCanvas(28, 28).getContext('2d', {willReadFrequently: true})
        copy.drawImage(d.lastChild, 0, 0)
        return [...copy.getImageData(0, 0, 28, 28).data].filter((_, i) => i%4 == 3) })'''
    index.locator('.samples button').nth(7).click()
    is_read(index, 7)
    got = torch.tensor(index.evaluate(ink)).view(n, 28, 28)
    pixels = index.evaluate(f'() => [...front.fitDigit({INK}, 280, 280)]')
    d, model = digits.load()
    want = model[:2](normalize(torch.tensor(pixels), d['mean'], d['std']).view(1, 1, 28, 28))[0]
    assert (got/255-want/want.max()).abs().max() < .01
    index.locator('.digits .clear').click()
    index.wait_for_function("() => document.querySelector('.digits').dataset.read === ''")
    assert index.evaluate(ink) == [[0]*784]*n

def test_what_the_page_says_is_in_the_file(site):
    d, model = digits.load()
    text = (DOCS/'index.html').read_text(encoding='utf-8')
    assert f"{d['made']['accuracy']['rounded']:.1%}" in text and f'{round(sum(p.numel() for p in model.parameters()), -3):,} weights' in text
    assert f'{front.WORDS[len(model[0].weight)]} feature maps' in text and '<!-- draw' not in text

def test_it_works_from_the_disk(browser):
    page, bad = browser.new_page(), []
    page.on('pageerror', lambda e: bad.append(str(e)))
    page.goto((DOCS/'index.html').as_uri())
    page.wait_for_function("() => document.querySelector('.digits').dataset.read === '3'")
    draw(page, STROKES[7])
    is_read(page, 7)
    page.close()
    assert not bad

def test_without_scripts_a_picture_stands_there(browser, host):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f'{host}{PREFIX}index.html')
    still = page.locator('.digits-still img')
    assert still.is_visible() and not page.locator('.digits').is_visible()
    assert page.locator('.digits-still figcaption').is_visible() and len(still.get_attribute('alt')) > 40
    still.scroll_into_view_if_needed()
    assert still.evaluate('async e => { await e.decode(); return [e.naturalWidth, e.naturalHeight] }') == [int(still.get_attribute(k)) for k in ('width', 'height')]
    context.close()

def test_only_the_first_page_loads_it(site):
    assert {'digits.js', 'front.js', 'front.css'} <= {re.sub(r'.*/|\?.*', '', r) for r in read('index').resources}
    for name in ('00_exports', 'api/data', 'search'): assert not [r for r in read(name).resources if 'digits' in r or 'front.' in r]

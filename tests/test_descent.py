"The drawing of `#| interactive: descent`: its paths are PyTorch's, and it works with mouse, keyboard, finger, on paper and without scripts"
# ruff: noqa: F811 (fixtures)
import ast, json, math, re
import drawing_page, pytest, torch
from test_site import LIMIT, ROOT, TOOL, axe, browser, go, page, prepared, read, resize, site  # noqa: F401
import descent, ext
from directives import code_of
from notes import optimizers, training

STATIC = TOOL/'static'
FILES = [STATIC/'descent.js', STATIC/'descent.css']

@pytest.fixture(scope='module')
def built(site, tmp_path_factory): return drawing_page.built('descent', tmp_path_factory.mktemp('descent'))

@pytest.fixture(scope='module')
def host(built):
    with drawing_page.served(built) as address: yield address

SHOWN = "() => document.querySelector('.descent').dataset.shown"

@pytest.fixture
def drawing(page, host):
    go(page, f'{host}/sample.html')
    page.wait_for_function(SHOWN)
    return page

def put(page, **values):
    "Sliders to values, as a hand does it"
    for name, v in values.items(): page.locator(f'.descent input[name={name}]').evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }", v)

def lines(page): return page.locator('.descent .view path.line').evaluate_all("l => l.map(e => e.getAttribute('d'))")
def table(page): return dict(zip(descent.OPTIMISERS, page.locator('.descent tbody td').evaluate_all("l => l.map(e => [...e.children].map(c => c.textContent))")))

# ---- As in Python

COS, SIN = math.cos(math.pi/6), .5
SURFACES = {'valley': (lambda x, y: ((COS*x+SIN*y)**2+20*(COS*y-SIN*x)**2)/2, (-4., 2.5)), 'saddle': (lambda x, y: x**2/2-y**2/2+y**4/4, (-2., .01))}
PYTORCH = {'SGD': lambda p, lr, m: torch.optim.SGD(p, lr), 'Momentum': lambda p, lr, m: torch.optim.SGD(p, lr, momentum=m),
           'Nesterov': lambda p, lr, m: torch.optim.SGD(p, lr, momentum=m, nesterov=m > 0),  # PyTorch has none without momentum, where it is plain SGD
           'RMSProp': lambda p, lr, m: torch.optim.RMSprop(p, lr, alpha=.99, eps=1e-8), 'Adam': lambda p, lr, m: torch.optim.Adam(p, lr, betas=(m, .999), eps=1e-8)}
OURS = {'SGD': lambda p, lr, m: training.SGD(p, lr), 'Momentum': lambda p, lr, m: optimizers.Momentum(p, lr, momentum=m),
        'Nesterov': lambda p, lr, m: optimizers.Momentum(p, lr, momentum=m, nesterov=m > 0), 'RMSProp': lambda p, lr, m: optimizers.RMSProp(p, lr),
        'Adam': lambda p, lr, m: optimizers.Adam(p, lr, betas=(m, .999))}
RATES, MOMENTA = (.003, .03, .06, .09, .11, .3), (0., .5, .8, .9, .99)

def walk(optimiser, surface, lr, momentum, steps=60):
    "(steps+1, 2) points of a path and the value of f at each, by autograd and an optimiser"
    f, start = SURFACES[surface]
    p = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    opt, points, values = optimiser([p], lr, momentum), [], []
    for step in range(steps+1):
        loss = f(*p)
        points.append(p.detach().clone())
        values.append(loss.item())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return torch.stack(points), torch.tensor(values, dtype=torch.float64)

def near(got, want, tol=1e-9):
    "Within `tol` of the largest that the path has been so far"
    assert got.shape == want.shape
    assert ((got-want).abs() <= tol*want.abs().flatten(1).amax(1).cummax(0)[0].view(-1, *[1]*(want.dim()-1))).all(), (got-want).abs().max()

@pytest.mark.parametrize('surface', SURFACES)
@pytest.mark.parametrize('optimiser', PYTORCH)
def test_paths_are_pytorchs_and_ours(drawing, optimiser, surface):
    settings = [(lr, m) for lr in RATES for m in MOMENTA]
    found = drawing.evaluate('''([o, s, all]) => all.map(([lr, momentum]) => { const p = descent.path(o, s, {lr, momentum}); return [p, p.map(q => descent.loss(s, q))] })''', [optimiser, surface, settings])
    for (lr, m), (points, values) in zip(settings, found, strict=True):
        for rules in (PYTORCH, OURS):
            want, f = walk(rules[optimiser], surface, lr, m)
            assert len(points) == 61 and want.isfinite().all(), (lr, m)
            near(torch.tensor(points, dtype=torch.float64), want)
            near(torch.tensor(values, dtype=torch.float64)[:, None], f[:, None])
    short = drawing.evaluate("([o, s]) => descent.path(o, s, {lr: .1, momentum: .9, steps: 3})", [optimiser, surface])
    assert len(short) == 4

def test_what_the_page_says_holds_of_the_paths():
    "Where the rate ends at which a rule still comes down the valley, whose steep side has the curvature 20"
    last = lambda name, lr, m: walk(PYTORCH[name], 'valley', lr, m, 300)[1][-1].item()
    for m in (0, .5, .9):
        for name, limit in (('SGD', .1), ('Momentum', .1*(1+m)), ('Nesterov', .1*(1+m)/(1+2*m))):
            assert last(name, .97*limit, m) < 1e-2 and last(name, 1.03*limit, m) > 1e3, (name, m)

def test_what_it_says_to_try_comes_true(drawing):
    said = drawing.locator('.descent p.about').last.inner_text()
    assert all(v in said for v in ('0.09', '0.1', '0.03'))
    f = lambda n: table(drawing)[n]
    put(drawing, rate=-1.04)
    assert f('Nesterov')[1].startswith('left') and f('SGD')[1].startswith('at')
    y = [p @ torch.tensor([-SIN, COS], dtype=torch.float64) for p in walk(PYTORCH['SGD'], 'valley', .09, .8, 8)[0]]
    assert all(a*b < 0 and abs(b) < abs(a) for a, b in zip(y, y[1:])), "a zigzag, from wall to wall, that shrinks"
    for power in range(-96, -76, 2):  # 0.11 to 0.16
        put(drawing, rate=power/100)
        assert f('SGD')[1].startswith('left') and f('Momentum')[1].startswith('at')
    drawing.locator('.surfaces label').last.click()
    put(drawing, rate=-1.52)
    where = {n: [float(v.replace('−', '-')) for v in re.findall(r'[−\d.]+', f(n)[1])] for n in descent.OPTIMISERS}
    assert where['SGD'][1] < .1 and where['Momentum'][1] > .5
    nearest = {n: walk(PYTORCH[n], 'saddle', .03, .8)[0].norm(dim=1).min() for n in PYTORCH}
    assert max(nearest[n] for n in ('SGD', 'Momentum')) < .4 and min(nearest[n] for n in ('RMSProp', 'Adam')) > .8

# ---- The page

def test_only_a_page_that_has_it_loads_it(built):
    has = {n: {f.name for f in FILES if f'_static/{f.name}' in (built/f'{n}.html').read_text(encoding='utf-8')} for n in ('sample', 'index')}
    assert has == {'sample': {f.name for f in FILES}, 'index': set()}
    assert 'descent.js' not in ''.join(read('00_exports').resources+read('index').resources)

def test_it_is_small_and_asks_nothing_of_a_host():
    assert FILES[0].stat().st_size < 16_000 and FILES[1].stat().st_size < 8_000
    for f in FILES: assert not re.search(r'https?:(?!//www\.w3\.org/2000/svg)|url\(|fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon', f.read_text(encoding='utf-8')), f.name

def test_the_extension_puts_it_after_its_cell(prepared):
    cells = prepared(('markdown', '# T'), ('code', '#| interactive: descent\nplot()'), ('code', 'x'))
    assert [c['cell_type'] for c in cells] == ['markdown', 'code', 'markdown', 'code'] and cells[1]['source'] == 'plot()'
    assert cells[1]['metadata']['tags'] == ['still-of-descent'] and descent.html() in cells[2]['source']
    with pytest.raises(KeyError): prepared(('markdown', '# T'), ('code', '#| interactive: nothing\nplot()'))
    assert '\n\n' not in descent.html() and set(ext.INTERACTIVE) == {'allreduce', 'descent'}

def test_the_markup_has_what_the_script_has(drawing):
    assert drawing.evaluate('descent.steps') == 60 == int(drawing.locator('input[name=step]').get_attribute('max'))
    assert [*SURFACES] == [*descent.SURFACES] and [*PYTORCH] == descent.OPTIMISERS
    before = {n: drawing.locator(f'output[for$={n}]').inner_text() for n in ('rate', 'momentum', 'step')}
    raw = {n: re.search(rf'<output for="descent-{n}">([^<]+)', descent.html())[1] for n in before}
    assert before == raw == {'rate': '0.06', 'momentum': '0.80', 'step': '60'}

def test_the_drawing_takes_the_stills_place(drawing):
    assert drawing.locator('.descent').is_visible() and not drawing.locator('img[alt="The still of the drawing"]').is_visible()
    drawing.emulate_media(media='print')
    assert drawing.locator('img[alt="The still of the drawing"]').is_visible() and not drawing.locator('.descent').is_visible()

def test_without_scripts_the_still_stands_there(browser, host):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f'{host}/sample.html')
    assert page.locator('img[alt="The still of the drawing"]').is_visible() and not page.locator('.descent').is_visible()
    context.close()

@pytest.mark.parametrize('width', [390, 1280])
def test_nothing_jumps_when_the_script_has_run(browser, host, width):
    heights = []
    for stopped in (True, False):
        context = browser.new_context(viewport={'width': width, 'height': 900})
        context.set_default_timeout(LIMIT)
        page = context.new_page()
        if stopped: page.route('**/descent.js*', lambda r: r.abort())
        go(page, f'{host}/sample.html')
        if not stopped: page.wait_for_function(SHOWN)
        heights.append(page.locator('.descent').bounding_box()['height'])
        context.close()
    assert abs(heights[0]-heights[1]) < 1

def test_sliders_change_the_picture_and_the_table(drawing):
    seen = {(*lines(drawing),)}
    for name, v in (('rate', -1), ('momentum', .5), ('step', 20)):
        put(drawing, **{name: v})
        seen.add((*lines(drawing),))
    assert len(seen) == 4
    assert [drawing.locator(f'output[for$={n}]').inner_text() for n in ('rate', 'momentum', 'step')] == ['0.1', '0.50', '20']
    assert drawing.locator('.descent caption').inner_text() == 'After 20 steps'
    for name, (value, where) in table(drawing).items():
        points, f = walk(PYTORCH[name], 'valley', .1, .5, 20)
        shown = float(re.sub('·10(.+)', lambda m: 'e'+m[1].translate(str.maketrans('⁻⁰¹²³⁴⁵⁶⁷⁸⁹', '-0123456789')), value).replace('−', '-'))
        assert shown == pytest.approx(f[-1].item(), rel=.05), name
        if where.startswith('at'): assert [float(v.replace('−', '-')) for v in re.findall(r'[−\d.]+', where)] == pytest.approx(points[-1].tolist(), abs=.006)
    drawing.locator('.surfaces label').last.click()
    assert drawing.locator('.descent').get_attribute('data-shown').startswith('saddle') and (*lines(drawing),) not in seen
    assert 'saddle' in drawing.locator('.descent svg[role=img]').get_attribute('aria-label')

def test_rates_are_round_and_grow(drawing):
    shown, low, high = [], *(float(drawing.locator('input[name=rate]').get_attribute(k)) for k in ('min', 'max'))
    for i in range(round((high-low)/.02)+1):
        put(drawing, rate=round(low+.02*i, 2))
        shown.append(float(drawing.locator('output[for$=rate]').inner_text()))
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (.003, 1) and {.01, .03, .06, .09, .1, .11, .2, .3} <= {*shown}
    assert all(abs(v/10**(low+.02*i)-1) < .06 for i, v in enumerate(shown))

def test_who_leaves_the_picture_is_said_to(drawing):
    put(drawing, rate=-.96, momentum=.5)  # 0.11
    t, labels = table(drawing), drawing.locator('.descent .view text').all_text_contents()
    points, _ = walk(PYTORCH['SGD'], 'valley', .11, .5)
    out = lambda p: not (-5.75 <= p[0] <= 5.75 and -5.5 <= p[1] <= 3.7)
    left = next(k for k in range(61) if all(map(out, points[k:].tolist())))
    assert t['SGD'][1] == f'left the picture at step {left}' and f'SGD left at step {left}' in labels
    assert t['Momentum'][1].startswith('at (') and 'Momentum' in labels
    put(drawing, rate=0, momentum=.99)
    assert t['Nesterov'][1].startswith('left') and not [d for d in lines(drawing) if re.search('NaN|Infinity|e', d)]
    jumps = lambda name: lines(drawing)[descent.OPTIMISERS.index(name)].count('L')
    put(drawing, rate=-.96, momentum=.5)
    assert jumps('SGD') == left+1 and jumps('Momentum') == 61, "what a path does out there isn't drawn"
    faint = lambda: [float(v) for v in drawing.locator('.descent .view path.line').evaluate_all("l => l.map(e => e.style.strokeOpacity)")]
    put(drawing, rate=-1, momentum=.8)
    assert faint()[0] < .4, "a zigzag that stays hides nobody"
    put(drawing, rate=-1.22)
    assert min(faint()) == 1
    drawing.locator('.surfaces label').last.click()
    put(drawing, rate=0, momentum=.99)
    assert not [d for d in lines(drawing) if not d or re.search('NaN|Infinity|e', d)]

def test_labels_lie_apart_and_in_the_picture(drawing):
    for width in (1280, 390):
        drawing.set_viewport_size({'width': width, 'height': 900})
        for rate in (-2.52, -2, -1.5, -1.22, -1.04, -.96, -.5):
            for step in (0, 5, 60):
                put(drawing, rate=rate, step=step)
                found = drawing.evaluate("""() => { const v = document.querySelector('.descent .view').getBoundingClientRect()
                    const b = [...document.querySelectorAll('.descent .view g[class] text:not(.tick, .begin)')].filter(e => e.closest('g[class]').matches('.SGD, .Momentum, .Nesterov, .RMSProp, .Adam')).map(e => e.getBoundingClientRect())
                    return {n: b.length, out: b.filter(r => r.left < v.left-1 || r.right > v.right+1 || r.top < v.top-1 || r.bottom > v.bottom+1).length,
                        over: b.flatMap((r, i) => b.slice(i+1).filter(o => r.left < o.right-3 && o.left < r.right-3 && r.top < o.bottom-5 && o.top < r.bottom-5)).length} }""")
                assert found == {'n': 5, 'out': 0, 'over': 0}, (width, rate, step)

def test_an_optimiser_can_be_switched_off(drawing):
    box = drawing.get_by_role('checkbox', name='Nesterov')
    box.uncheck()
    assert drawing.locator('.descent .view g.Nesterov').evaluate_all("l => l.map(e => getComputedStyle(e).display)") == ['none']*3
    assert 'Nesterov' not in drawing.locator('.descent svg[role=img]').get_attribute('aria-label')
    box.check()
    assert drawing.locator('.descent .view g.Nesterov path.line').is_visible()

def test_the_keyboard_reaches_all_of_it(drawing):
    focused = "() => { const e = document.activeElement; return e.closest('.descent') && (e.name || e.className || e.closest('tr')?.dataset.name) }"
    seen = []
    for _ in range(80):
        drawing.keyboard.press('Tab')
        if (f := drawing.evaluate(focused)): seen.append(f)
        elif seen: break
    assert seen == ['surface', 'rate', 'momentum', 'play', 'one', 'step', *descent.OPTIMISERS]
    shown = lambda: drawing.locator('.descent').get_attribute('data-shown').split()
    drawing.get_by_role('radio', name='Valley').focus()
    drawing.keyboard.press('ArrowRight')
    assert shown()[0] == 'saddle'
    for name, place in (('Step', 3), ('Learning rate', 1), ('Momentum', 2)):
        s, before = drawing.get_by_role('slider', name=name, exact=True), shown()
        s.focus()
        drawing.keyboard.press('ArrowLeft')
        assert float(shown()[place]) < float(before[place]) and s.get_attribute('aria-valuetext') == drawing.locator(f'output[for={s.get_attribute("id")}]').inner_text()+' of 60'*(name == 'Step')
    drawing.get_by_role('button', name='One step').focus()
    drawing.keyboard.press('Enter')
    assert shown()[3] == '60'
    drawing.keyboard.press('Enter')
    assert shown()[3] == '0' and table(drawing)['SGD'][1] == 'at (−2.00, 0.01)'
    drawing.wait_for_function("() => /^Step 0[.] SGD 2.00, Momentum /.test(document.querySelector('.descent [role=status]').textContent)")

@pytest.mark.parametrize('motion', ['reduce', 'no-preference'])
def test_it_plays_and_pauses(browser, host, motion):
    "For who wants little motion it goes in jumps from step to step"
    context = browser.new_context(reduced_motion=motion)
    context.set_default_timeout(LIMIT)
    page = context.new_page()
    go(page, f'{host}/sample.html')
    page.wait_for_function(SHOWN)
    assert page.locator('.play').inner_text() == 'Play', "nothing moves by itself"
    page.evaluate("""() => { window.tips = new Set(); const mark = document.querySelector('.descent .view g.Adam path.mark'), f = () => { tips.add(mark.getAttribute('transform')); requestAnimationFrame(f) }; f() }""")
    page.locator('.play').click()
    assert page.locator('.play').inner_text() == 'Pause'
    page.wait_for_function("() => +document.querySelector('.descent').dataset.shown.split(' ')[3] >= 5 && +document.querySelector('.descent').dataset.shown.split(' ')[3] < 60")
    page.locator('.play').click()
    assert page.locator('.play').inner_text() == 'Play'
    step = int(page.locator('.descent').get_attribute('data-shown').split()[3])
    if motion == 'reduce': assert page.evaluate('tips.size') <= step+2
    assert page.locator('output[for$=step]').inner_text() == str(step)
    put(page, step=58)
    page.locator('.play').click()
    page.wait_for_function("() => document.querySelector('.descent').dataset.shown.endsWith(' 60') && document.querySelector('.play').textContent === 'Play'")
    context.close()

@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_it_suits_a_phone_and_a_screen_reader(drawing, theme):
    drawing.evaluate("t => { document.documentElement.dataset.theme = document.documentElement.dataset.mode = t }", theme)
    for width in (1280, 390):
        resize(drawing, width, 844)
        assert drawing.evaluate('document.documentElement.scrollWidth') <= width and axe(drawing) == []
    b = drawing.locator('.descent .view').bounding_box()
    knobs = drawing.locator('.descent .knobs').bounding_box()
    assert knobs['y']+knobs['height']-b['y'] < 450 and 0 <= knobs['y']-b['y']-b['height'] < 30, 'picture and sliders in view at once'
    assert b['x'] >= 0 and b['x']+b['width'] <= 390 and abs(b['width']/b['height']-1.25) < .01
    # lines and names stand out from the page: text 4.5, which is more than lines need
    faint = drawing.evaluate("""() => { const rgb = c => { const x = document.createElement('canvas').getContext('2d'); x.fillStyle = c; x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data] }
        const light = c => rgb(c).slice(0, 3).map(v => (v /= 255) <= .04045 ? v/12.92 : ((v+.055)/1.055)**2.4).reduce((s, v, i) => s+v*[.2126, .7152, .0722][i], 0)
        const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((a, b) => b-a); return (x+.05)/(y+.05) }
        const page = getComputedStyle(document.body).backgroundColor
        return ['SGD', 'Momentum', 'Nesterov', 'RMSProp', 'Adam'].map(n => [n, contrast(getComputedStyle(document.querySelector(`.descent .view g.${n} text`)).fill, page)]).filter(([, c]) => c < 4.5) }""")
    assert not faint

def test_a_finger_finds_what_it_needs(browser, host):
    context = browser.new_context(viewport={'width': 390, 'height': 844}, has_touch=True, is_mobile=True, reduced_motion='reduce')
    context.set_default_timeout(LIMIT)
    page = context.new_page()
    go(page, f'{host}/sample.html')
    page.wait_for_function(SHOWN)
    small = page.locator('.descent :is(button, .surfaces label, input[type=range], th label)').evaluate_all('l => l.map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().height]).filter(([, h]) => h < 43.5)')
    assert not small
    page.locator('.surfaces label').last.tap()
    page.locator('.descent tr[data-name=SGD] label').tap()
    page.wait_for_function("() => document.body.classList.contains('at-figures')")  # nothing of the page lies on the table
    b = page.locator('input[name=rate]').bounding_box()
    page.touchscreen.tap(b['x']+.9*b['width'], b['y']+b['height']/2)
    shown = page.locator('.descent').get_attribute('data-shown').split()
    assert shown[0] == 'saddle' and float(shown[1]) > -.5 and not page.get_by_role('checkbox', name='SGD').is_checked()
    context.close()

# ---- In the series

def test_07_has_the_drawing():
    assert len(read('07_optimizers').having('descent')) == 1
    assert any('still-of-descent' in (b['attrs'].get('class') or '') for b in read('07_optimizers').blocks)

def test_07_draws_the_same_surfaces():
    "The functions that the notebook defines, and the tuples (function, start) from which it draws its still"
    cells = [''.join(c['source']) for c in json.loads((ROOT/'nbs'/'07_optimizers.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    trees = [ast.parse(code_of(c)) for c in cells if re.search('valley|saddle', c)]
    own = lambda n: isinstance(n, ast.FunctionDef) and n.name in SURFACES or isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == 'turn'
    names = {'torch': torch, 'math': math}
    exec('\n'.join(ast.unparse(n) for t in trees for n in t.body if own(n)), names)
    pairs = [n.elts for t in trees for n in ast.walk(t) if isinstance(n, ast.Tuple) and len(n.elts) == 2 and isinstance(n.elts[1], ast.Tuple)]
    starts = {ast.unparse(a): ast.literal_eval(b) for a, b in pairs if ast.unparse(a) in SURFACES}
    p = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, (f, start) in SURFACES.items():
        near(names[name](p)[:, None], f(*p.T)[:, None])
        assert starts[name] == start

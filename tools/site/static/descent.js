// Paths of five optimisers on two surfaces. The rules are torch.optim's: tests/test_descent.py holds them against it, step by step.
(() => {
const STEPS = 60, EPS = 1e-8, COS = Math.cos(Math.PI/6), SIN = .5

// `view`: the left and the lower edge of the picture, and its width; it is 5 wide and 4 high
const SURFACES = {
  valley: {start: [-4, 2.5], view: [-5.75, -5.5, 11.5], tick: 2, lowest: [[0, 0]], levels: k => 1.5*k*k, n: 16,
    f([x, y]) { const u = COS*x+SIN*y, v = COS*y-SIN*x; return .5*(u*u+20*v*v) },
    grad([x, y]) { const u = COS*x+SIN*y, v = 20*(COS*y-SIN*x); return [COS*u-SIN*v, SIN*u+COS*v] }},
  saddle: {start: [-2, .01], view: [-2.5, -1.75, 4.75], tick: 1, lowest: [[0, -1], [0, 1]], levels: k => k*k/36-.25, n: 16,
    f: ([x, y]) => .5*x*x-.5*y*y+.25*y**4,
    grad: ([x, y]) => [x, y**3-y]},
}

// What a step takes off a weight with gradient g; `s` is what the rule remembers of that weight, all 0 at first
const RULES = {
  SGD: (g, s, lr) => lr*g,
  Momentum: (g, s, lr, mu) => lr*(s.m = mu*s.m+g),
  Nesterov(g, s, lr, mu) { s.m = mu*s.m+g; return lr*(g+mu*s.m) },
  RMSProp(g, s, lr) { s.v = .99*s.v+.01*g*g; return lr*g/(Math.sqrt(s.v)+EPS) },
  Adam(g, s, lr, mu) {
    s.t += 1
    s.m = mu*s.m+(1-mu)*g
    s.v = .999*s.v+.001*g*g
    return lr*(s.m/(1-mu**s.t))/(Math.sqrt(s.v/(1-.999**s.t))+EPS)
  },
}
// The start and the point after each step
function path(optimiser, surface, {lr, momentum, steps = STEPS}) {
  const {start, grad} = SURFACES[surface], points = [start], memory = start.map(() => ({t: 0, m: 0, v: 0}))
  for (let k = 0; k < steps; k++) {
    const p = points.at(-1), g = grad(p)
    points.push(p.map((w, i) => w-RULES[optimiser](g[i], memory[i], lr, momentum)))
  }
  return points
}
const loss = (surface, point) => SURFACES[surface].f(point)
window.descent = {path, loss, steps: STEPS}

// ---- The picture

const NAMES = Object.keys(RULES), WIDE = 1000, HIGH = 800
// A place of the surface as a share of the picture's width, from the upper left corner
const place = ({view: [l, b, w]}, [x, y]) => [(x-l)/w, HIGH/WIDE-(y-b)/w]
const inside = ([x, y]) => x >= 0 && x <= 1 && y >= 0 && y <= HIGH/WIDE

// Lines of equal height: marching squares, in a picture of 1000 by 800
function contours({f, view: [l, b, w], levels, n}, cell = 10) {
  const out = [], cols = WIDE/cell+1, rows = HIGH/cell+1, z = []
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) z.push(f([l+w*c*cell/WIDE, b+w*(HIGH-r*cell)/WIDE]))
  for (let k = 1; k <= n; k++) for (let r = 0; r < rows-1; r++) for (let c = 0; c < cols-1; c++) {
    const at = [[c, r], [c+1, r], [c+1, r+1], [c, r+1]], h = at.map(([c, r]) => z[r*cols+c]-levels(k)), cut = []
    for (let i = 0; i < 4; i++) {
      const j = (i+1)%4, share = h[i]/(h[i]-h[j])
      if (h[i] < 0 != h[j] < 0) cut.push([0, 1].map(a => (cell*(at[i][a]+share*(at[j][a]-at[i][a]))).toFixed(1)).join(' '))
    }
    for (let i = 0; i+1 < cut.length; i += 2) out.push(`M${cut[i]}L${cut[i+1]}`)
  }
  return out.join('')
}
// The lower, the more colour
function shade(canvas, {f, view: [l, b, w], levels, n}) {
  const [wide, high] = [200, 160], ctx = canvas.getContext('2d'), img = new ImageData(wide, high), low = levels(0), top = Math.sqrt(levels(n)-low)
  for (let i = 0; i < wide*high; i++) {
    const h = Math.sqrt(f([l+w*(i%wide+.5)/wide, b+w*(high-Math.floor(i/wide)-.5)/wide])-low)/top
    img.data.set([0, 125, 150, 120*Math.max(0, 1-h)**1.7], 4*i)
  }
  Object.assign(canvas, {width: wide, height: high})
  ctx.putImageData(img, 0, 0)
}
const MARKS = {  // signs of about the same size, so that nobody needs the colours
  SGD: 'M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z', Momentum: 'M-4.5 -4.5h9v9h-9Z', Nesterov: 'M0 -6.4L6.4 0L0 6.4L-6.4 0Z', RMSProp: 'M0 -6L5.6 4.2h-11.2Z', Adam: 'M0 6L5.6 -4.2h-11.2Z'}
const number = v => {
  if (!Number.isFinite(v)) return '∞'
  if (v && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e4)) {
    const [m, e] = v.toExponential(1).split('e')
    return `${m}·10${[...String(+e)].map(c => c == '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c]).join('')}`.replace('-', '−')
  }
  return (Math.abs(v) < 1000 ? v && v.toPrecision(3) : v.toFixed(0)).toString().replace('-', '−')
}
const places = p => p.map(v => v.toFixed(2).replace(/^-(?!0\.00)/, '−').replace('-', '')).join(', ')

// The round number next to a power of ten: 0.06, 0.09, 0.1, 0.11
function rate(power) {
  const e = Math.floor(power+1e-9), m = 10**(power-e), round = m < 2 ? .1 : m < 5 ? .2 : .5
  return +(Math.round(m/round)*round*10**e).toPrecision(2)
}

function start(root) {
  const at = s => root.querySelector(s), all = s => [...root.querySelectorAll(s)]
  const svg = at('svg'), rows = Object.fromEntries(NAMES.map(n => [n, at(`tr[data-name=${n}]`)])), play = at('.play'), said = at('[role=status]')
  const slider = Object.fromEntries(['rate', 'momentum', 'step'].map(n => [n, at(`input[name=${n}]`)]))
  const calm = matchMedia('(prefers-reduced-motion: reduce)'), drawn = {}, sides = {}
  let surface, paths, width = 0, time = STEPS, playing = 0, speaking = 0

  const add = (to, name, attributes = {}) => {
    const e = document.createElementNS('http://www.w3.org/2000/svg', name)
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
    return to.appendChild(e)
  }
  const ground = add(svg, 'g'), labels = {}
  for (const n of NAMES) {
    const g = drawn[n] = add(svg, 'g', {class: n})
    for (const c of ['line', 'dots']) add(g, 'path', {class: c})
  }
  for (const n of NAMES) {  // above all lines
    const g = labels[n] = add(svg, 'g', {class: n})
    add(g, 'path', {class: 'lead'})
    add(g, 'path', {class: 'mark', d: MARKS[n]})
    add(g, 'text')
    rows[n].querySelector('path.mark').setAttribute('d', MARKS[n])
  }

  // Surface, its lines, the lowest points, the start, the axes' numbers
  function lay() {
    const s = SURFACES[surface], {view: [l, b, w], tick} = s
    shade(at('canvas'), s)
    ground.replaceChildren()
    add(ground, 'path', {class: 'contours', d: s.contours ??= contours(s), transform: `scale(${width/WIDE})`})
    for (const p of s.lowest) { const [x, y] = place(s, p).map(v => v*width); add(ground, 'path', {class: 'lowest', d: `M${x-6} ${y}h12M${x} ${y-6}v12`}) }
    const [x, y] = place(s, s.start).map(v => v*width)
    add(ground, 'circle', {class: 'begin', cx: x, cy: y, r: 8})
    add(ground, 'text', {class: 'begin', x, y: y-14, 'text-anchor': 'middle'}).textContent = 'start'
    const number = (v, x, y, anchor) => { add(ground, 'text', {class: 'tick', x, y, 'text-anchor': anchor}).textContent = String(v).replace('-', '−') }
    for (let v = Math.ceil(l/tick)*tick; v < l+w; v += tick) if (v > l+w/20 && v < l+w*.95) number(v, (v-l)/w*width, width*HIGH/WIDE-7, 'middle')
    for (let v = Math.ceil(b/tick)*tick; v < b+w*HIGH/WIDE; v += tick) if (v > b+w/20) number(v, 7, width*(HIGH/WIDE-(v-b)/w)+4, 'start')
  }
  function compute() {
    const lr = rate(+slider.rate.value), momentum = +slider.momentum.value, s = SURFACES[surface]
    paths = Object.fromEntries(NAMES.map(n => [n, path(n, surface, {lr, momentum}).map(p => ({p, at: place(s, p)}))]))
    for (const [name, v] of [['rate', String(lr)], ['momentum', momentum.toFixed(2)]]) {
      slider[name].setAttribute('aria-valuetext', v)
      at(`output[for$=${name}]`).textContent = v
    }
  }
  // The step at which a path that is outside left, and how far it is drawn: some way across, not all that it does out there
  function reached(points) {
    const step = Math.floor(time), close = p => Math.hypot(p[0]-.5, p[1]-.4) < 1.2
    let left = step
    if (inside(points[step].at)) return {left: 0, end: time}
    while (!inside(points[left-1].at)) left--
    let end = left
    while (end < step && close(points[end].at)) end++
    return {left, end}
  }
  function between(points, t) {
    const k = Math.floor(t), a = points[k].at, b = points[k+1]?.at
    return k == t || !b ? a : a.map((v, i) => v+(t-k)*(b[i]-v))
  }
  // Far points come nearer, on the line from the middle: a browser can't draw 10²⁰
  function near(p) {
    const far = Math.hypot(...p)/300
    return p.map(v => (far > 1 ? v/far : v)*width)
  }
  // Where a path that left crossed the edge
  function edge(a, b) {
    let [lo, hi] = [0, 1]
    b = near(b).map(v => v/width)
    for (let i = 0; i < 30; i++) { const m = (lo+hi)/2; inside(a.map((v, j) => v+m*(b[j]-v))) ? lo = m : hi = m }
    return a.map((v, j) => v+lo*(b[j]-v))
  }
  function show() {
    const taken = [], step = Math.floor(time), fits = b => b[0] > 2 && b[1] > 2 && b[2] < width-2 && b[3] < width*HIGH/WIDE-18 && !taken.some(o => b[0] < o[2] && o[0] < b[2] && b[1] < o[3] && o[1] < b[3])
    const shown = NAMES.filter(n => rows[n].querySelector('input').checked), heads = {}
    for (const n of NAMES) {
      const points = paths[n], {left, end} = reached(points), on = shown.includes(n), row = rows[n], {p} = points[step]
      for (const g of [drawn[n], labels[n]]) g.style.display = on ? '' : 'none'
      row.classList.toggle('off', !on)
      row.querySelector('.loss').textContent = number(loss(surface, p))
      row.querySelector('.where').textContent = left ? `left the picture at step ${left}` : `at (${places(p)})`
      row.querySelector('.where').classList.toggle('left', !!left)
      if (!on) continue
      const tip = between(points, end), trail = [...points.slice(0, Math.floor(end)+1).map(q => q.at), tip].filter(q => q.every(Number.isFinite)).map(q => near(q).map(v => v.toFixed(1)).join(' '))
      drawn[n].children[0].setAttribute('d', 'M'+trail.join('L'))
      drawn[n].children[1].setAttribute('d', trail.slice(0, Math.floor(end)+1).map(q => `M${q}h0`).join(''))
      heads[n] = {left, at: (left ? edge(points[left-1].at, points[left].at) : inside(tip) ? tip : edge(points[step].at, tip)).map(v => v*width)}
      const [x, y] = heads[n].at
      taken.push([x-7, y-7, x+7, y+7])
    }
    // Each label near its own point and away from the others', where nothing stands; it stays where it is while that is about as good
    const gap = ([x, y], b) => Math.hypot(Math.max(b[0]-x, 0, x-b[2]), Math.max(b[1]-y, 0, y-b[3]))
    for (const n of shown) {
      const [lead, mark, text] = labels[n].children, {at: [x, y], left} = heads[n]
      text.textContent = left ? `${n} left at step ${left}` : n
      mark.setAttribute('transform', `translate(${x} ${y})`)
      const w = text.textContent.length*7.3+4, h = 17
      const box = i => {
        const far = 14+15*Math.floor(i/12), turn = (i%12)*Math.PI/6-Math.PI/6, cx = x+far*Math.cos(turn)*1.3, cy = y+far*Math.sin(turn)
        return Math.cos(turn) > .1 ? [cx, cy-h/2, cx+w, cy+h/2] : Math.cos(turn) < -.1 ? [cx-w, cy-h/2, cx, cy+h/2] : [cx-w/2, cy-h/2, cx+w/2, cy+h/2]
      }
      const cost = i => fits(box(i)) ? shown.reduce((sum, m) => sum + (m == n ? gap(heads[m].at, box(i)) : Math.max(0, 28-gap(heads[m].at, box(i)))), 0) : 1e9
      let best = sides[n] ?? 0, least = cost(best)-12
      for (let i = 0; i < 96; i++) if (cost(i) < least) [best, least] = [i, cost(i)]
      sides[n] = best
      const b = box(best), cx = Math.min(Math.max(x, b[0]), b[2]), cy = Math.min(Math.max(y, b[1]+3), b[3]-3)
      taken.push(b)
      text.setAttribute('x', b[0]+2)
      text.setAttribute('y', b[1]+13)
      lead.setAttribute('d', Math.hypot(cx-x, cy-y) > 16 ? `M${x} ${y}L${cx} ${cy}` : '')
    }
    slider.step.value = step
    slider.step.setAttribute('aria-valuetext', `${step} of ${STEPS}`)
    at('output[for$=step]').textContent = step
    at('caption').textContent = `After ${step} ${step == 1 ? 'step' : 'steps'}`
    svg.setAttribute('aria-label', `The ${surface} from above, and on it the paths of ${shown.join(', ') || 'none'} after ${step} ${step == 1 ? 'step' : 'steps'}`)
    root.dataset.shown = [surface, slider.rate.value, slider.momentum.value, step].join(' ')
    clearTimeout(speaking)  // a screen reader gets the figures when all is at rest
    if (!playing) speaking = setTimeout(() => {
      said.textContent = `Step ${step}. `+shown.map(n => `${n} ${rows[n].querySelector('.where').className.includes('left') ? rows[n].querySelector('.where').textContent : rows[n].querySelector('.loss').textContent}`).join(', ')
    }, 400)
  }

  function stop() {
    cancelAnimationFrame(playing)
    playing = 0
    time = Math.floor(time)
    play.textContent = 'Play'
  }
  function go() {
    if (time >= STEPS) time = 0
    play.textContent = 'Pause'
    let before = performance.now(), owed = 0
    const frame = now => {
      owed += Math.min(now-before, 100)*(calm.matches ? .003 : .009)  // steps for each millisecond
      before = now
      const move = calm.matches ? Math.floor(owed) : owed  // in jumps, for those who want nothing to glide
      owed -= move
      time = Math.min(time+move, STEPS)
      if (time >= STEPS) stop()
      else playing = requestAnimationFrame(frame)
      show()
    }
    playing = requestAnimationFrame(frame)
  }
  play.addEventListener('click', () => { playing ? stop() : go(); show() })
  at('.one').addEventListener('click', () => { stop(); time = time >= STEPS ? 0 : time+1; show() })
  slider.step.addEventListener('input', () => { stop(); time = +slider.step.value; show() })
  for (const n of ['rate', 'momentum']) slider[n].addEventListener('input', () => { compute(); show() })
  for (const box of all('td input, th input')) box.addEventListener('change', show)
  for (const radio of all('input[type=radio]')) radio.addEventListener('change', () => { if (radio.checked) { surface = radio.value; lay(); compute(); show() } })
  surface = at('input[type=radio]:checked').value
  compute()
  new ResizeObserver(() => {
    if (!svg.clientWidth || svg.clientWidth == width) return  // on paper it isn't there
    width = svg.clientWidth
    svg.setAttribute('viewBox', `0 0 ${width} ${width*HIGH/WIDE}`)
    lay()
    show()
  }).observe(svg)
}
const begin = () => document.querySelectorAll('.descent').forEach(start)
document.readyState == 'loading' ? addEventListener('DOMContentLoaded', begin) : begin()
})()

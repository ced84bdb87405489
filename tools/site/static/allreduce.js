// All-reduce among p processes in three ways, message by message. The schedules are those of notes.parallel: tests/test_allreduce.py holds them against it.
(() => {
// ---- Who sends what to whom. A message has the chunks that it carries and, for each, the ranks whose parts are in it, one bit for each rank.

// What each rank does in a tree, one thing after the other: from whom it hears, to whom it sends
function duties(r, p) {
  const below = []
  for (let d = 1; d < p; d *= 2) if (r%(2*d) == 0 && r+d < p) below.push(r+d)
  const hear = q => ({hear: q, send: -1}), send = (q, down) => ({hear: -1, send: q, down}), above = r & (r-1)
  return [...below.map(hear), ...r ? [send(above, false), hear(above)] : [], ...below.reverse().map(q => send(q, true))]
}
const all = p => [...Array(p).keys()]
// [from, to, chunks, is it added to what is there?] of each message of each step; `own`: what goes out is the part of that rank alone
const WAYS = {
  direct: {own: true, steps: p => all(p-1).map(k => all(p).map(r => [r, (r+k+1)%p, all(p), true]))},
  tree: {steps(p) {  // a message goes as soon as both have nothing else to do
    const left = all(p).map(r => duties(r, p)), out = []
    while (left.some(l => l.length)) {
      const now = all(p).filter(r => left[r].length && left[r][0].send >= 0 && left[left[r][0].send][0]?.hear == r)
      out.push(now.map(r => [r, left[r][0].send, all(p), !left[r][0].down]))
      for (const [r, q] of out.at(-1)) { left[r].shift(); left[q].shift() }
    }
    return out
  }},
  ring: {steps: p => {
    const at = i => (i%p+p)%p, round = (first, added) => all(p-1).map(k => all(p).map(r => [r, at(r+1), [at(r+first-k)], added]))
    return [...round(0, true), ...round(1, false)]
  }},
}
// The messages of each step; and before the first and after each: the parts that each rank has in each chunk, and how much of its data it has sent
function schedule(way, p) {
  const {own, steps} = WAYS[way], first = all(p).map(r => ({parts: all(p).map(() => 1<<r), sent: 0})), states = [first]
  const messages = steps(p).map(now => {
    const before = states.at(-1), after = before.map(s => ({parts: [...s.parts], sent: s.sent}))
    const sent = now.map(([from, to, chunks, added]) => ({from, to, chunks, added, parts: chunks.map(c => own ? 1<<from : before[from].parts[c])}))
    for (const {from, to, chunks, added, parts} of sent) {
      chunks.forEach((c, i) => { after[to].parts[c] = added ? after[to].parts[c] | parts[i] : parts[i] })
      after[from].sent += chunks.length  // in p-ths
    }
    states.push(after)
    return sent
  })
  return {messages, states}
}
const most = (state, p) => Math.max(...state.map(s => s.sent))/p
function counts(way, p) {
  const {messages, states} = schedule(way, p)
  return {steps: messages.length, sent: most(states.at(-1), p)}
}
window.allReduce = {schedule, counts, ways: Object.keys(WAYS)}

// ---- The picture

const HIGH = .86, NAMES = Object.keys(WAYS)
const number = v => String(Math.round(100*v)/100)
const rect = (x, y, w, h) => `M${x.toFixed(1)} ${y.toFixed(1)}h${w.toFixed(1)}v${h.toFixed(1)}h${(-w).toFixed(1)}Z`
// Middle of each square and its side, in a picture of the width w
function layout(way, p, w) {
  const h = HIGH*w, room = 20  // for what stands above and below a square
  if (way != 'tree') {
    const s = w*[.24, .22, .2, .17, .16, .135, .13][p-2], rx = w/2-s/2-12, ry = h/2-s/2-room
    return {s, at: all(p).map(r => { const turn = 2*Math.PI*r/p-Math.PI/2-(p == 2 ? Math.PI/2 : 0); return [w/2+Math.min(rx, 1.25*ry)*Math.cos(turn), h/2+ry*Math.sin(turn)] })}
  }
  const high = Math.ceil(Math.log2(p)), s = Math.min(.88*w/p, .2*w, (h-2*room-1.7*room*high)/(high+1)), zeros = r => r ? Math.log2(r & -r) : high
  return {s, at: all(p).map(r => [(r+.5)*w/p, room+s/2+(high-zeros(r))*(h-s-2*room)/high])}
}

function start(root) {
  const at = s => root.querySelector(s), svg = at('svg'), play = at('.play'), said = at('[role=status]'), view = at('.view')
  const slider = Object.fromEntries(['processes', 'step'].map(n => [n, at(`input[name=${n}]`)])), rows = Object.fromEntries(NAMES.map(n => [n, at(`tr[data-way=${n}]`)]))
  const calm = matchMedia('(prefers-reduced-motion: reduce)')
  let way, p, plans, plan, places, width = 0, time = 0, playing = 0, speaking = 0

  const add = (to, name, attributes = {}) => {
    const e = document.createElementNS('http://www.w3.org/2000/svg', name)
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
    return to.appendChild(e)
  }
  const [lines, ground, empty, part, done, frames, words, moving] = ['lines', 'ground', 'empty', 'part', 'done', 'frames', 'words', 'moving'].map(c => add(svg, c == 'words' || c == 'lines' || c == 'moving' ? 'g' : 'path', {class: c}))
  let labels = []

  function compute() {
    p = +slider.processes.value
    plans = Object.fromEntries(NAMES.map(n => [n, schedule(n, p)]))
    plan = plans[way]
    slider.processes.setAttribute('aria-valuetext', p)
    at('output[for$=processes]').textContent = p
    slider.step.max = plan.messages.length
    root.style.setProperty('--steps', plan.messages.length)
  }
  function lay() {
    places = layout(way, p, width)
    const {s} = places, grid = [], box = []
    words.replaceChildren()
    labels = places.at.map(([x, y], r) => {
      const [l, t] = [x-s/2, y-s/2]
      box.push(rect(l, t, s, s))
      for (let i = 1; i < p; i++) grid.push(`M${l+i*s/p} ${t}v${s}M${l} ${t+i*s/p}h${s}`)
      add(words, 'text', {x, y: t-6}).textContent = p > 6 || s < 40 ? r : `rank ${r}`
      return add(words, 'text', {x, y: t+s+15, class: 'sent'})
    })
    ground.setAttribute('d', box.join(''))
    empty.setAttribute('d', grid.join(''))
  }
  // The cells of columns with these parts, whole ones and others, `c` cells wide, from the corner l, t
  function cells(columns, l, t, c, whole, some) {
    columns.forEach((parts, i) => {
      const to = parts == (1<<p)-1 ? whole : some
      for (let q = 0; q < p; q++) if (parts>>q & 1) to.push(rect(l+i*c, t+q*c, c, c))
    })
  }
  // The way of a message: a bow to one side, so that two that meet pass each other; from edge to edge
  function bow(from, to) {
    const [a, b] = [places.at[from], places.at[to]], dx = b[0]-a[0], dy = b[1]-a[1], far = Math.hypot(dx, dy), edge = Math.min(.42, .66*places.s/far)
    const turn = way == 'tree' ? .06 : .12, c = [(a[0]+b[0])/2-turn*dy, (a[1]+b[1])/2+turn*dx]
    const point = u => [0, 1].map(i => (1-u)**2*a[i]+2*u*(1-u)*c[i]+u*u*b[i])
    return {point, edge}
  }
  function drawMessages(k, share) {
    lines.replaceChildren()
    moving.replaceChildren()
    if (k < 0) return
    const {s} = places
    for (const {from, to, chunks, parts} of plan.messages[k]) {
      const {point, edge} = bow(from, to), trail = all(21).map(i => point(edge+(1-2*edge)*i/20)), [x, y] = trail[20], [u, v] = trail[19], turn = Math.atan2(y-v, x-u)
      const broad = 1.2+2.3*chunks.length/p, head = 5+broad, wing = a => `${(x-head*Math.cos(turn+a)).toFixed(1)} ${(y-head*Math.sin(turn+a)).toFixed(1)}`
      add(lines, 'path', {d: 'M'+trail.slice(0, 20).map(q => q.map(w => w.toFixed(1)).join(' ')).join('L'), 'stroke-width': broad})
      add(lines, 'path', {class: 'head', d: `M${x.toFixed(1)} ${y.toFixed(1)}L${wing(.45)}L${wing(-.45)}Z`})
      if (share === null) continue
      const c = .62*s/p, [mx, my] = point(edge/2+(1-edge)*share), l = mx-c*chunks.length/2, t = my-c*p/2, whole = [], some = []
      cells(parts, l, t, c, whole, some)
      const g = add(moving, 'g')
      add(g, 'path', {class: 'ground', d: rect(l, t, c*chunks.length, c*p)})
      add(g, 'path', {class: 'part', d: some.join('')})
      add(g, 'path', {class: 'done', d: whole.join('')})
      add(g, 'path', {class: 'edge', d: rect(l, t, c*chunks.length, c*p)})
    }
  }
  function show() {
    const step = Math.floor(time), share = time-step, state = plan.states[step], {s} = places, some = [], whole = [], frame = []
    state.forEach(({parts, sent}, r) => {
      const [x, y] = places.at[r], l = x-s/2, t = y-s/2
      cells(parts, l, t, s/p, whole, some)
      parts.forEach((v, c) => { if (v == (1<<p)-1) frame.push(rect(l+c*s/p, t, s/p, s)) })
      labels[r].textContent = p > 6 || s < 40 ? number(sent/p) : `sent ${number(sent/p)}`
    })
    part.setAttribute('d', some.join(''))
    done.setAttribute('d', whole.join(''))
    frames.setAttribute('d', frame.join(''))
    // On the way: the messages of the step that is going on; at rest those of the one that was
    if (share) drawMessages(step, share*share*(3-2*share))
    else drawMessages(step-1, calm.matches && step ? .2 : null)
    const last = plan.messages.length, complete = state.reduce((n, {parts}) => n+parts.filter(v => v == (1<<p)-1).length, 0)
    for (const n of NAMES) {
      const {messages, states} = plans[n], k = Math.min(step, messages.length), [steps, sent] = ['.steps', '.sent'].map(c => rows[n].querySelector(c))
      steps.textContent = `${k} of ${messages.length}`
      sent.textContent = `${number(most(states[k], p))} of ${number(most(states.at(-1), p))}`
      rows[n].classList.toggle('on', n == way)
    }
    slider.step.value = step
    slider.step.setAttribute('aria-valuetext', `${step} of ${last}`)
    at('output[for$=step]').textContent = step
    at('caption').textContent = `After ${step} ${step == 1 ? 'step' : 'steps'}`
    const name = at('input[type=radio]:checked + span').textContent
    svg.setAttribute('aria-label', `${name}, ${p} processes, after ${step} of ${last} steps: ${complete} of ${p*p} chunks are whole`)
    root.dataset.shown = [way, p, step].join(' ')
    clearTimeout(speaking)  // a screen reader gets the figures when all is at rest
    if (!playing) speaking = setTimeout(() => {
      said.textContent = `Step ${step} of ${last}. ${complete} of ${p*p} chunks are whole; the busiest has sent ${number(most(state, p))} of its data.`
    }, 400)
  }

  function stop() {
    cancelAnimationFrame(playing)
    playing = 0
    play.textContent = 'Play'
  }
  function rest() { stop(); time = Math.floor(time) }
  function go() {
    if (time >= plan.messages.length) time = 0
    play.textContent = 'Pause'
    let before = performance.now(), owed = 0
    const frame = now => {
      owed += Math.min(now-before, 100)/1200  // steps
      before = now
      const move = calm.matches ? Math.floor(owed) : owed  // in jumps, for those who want nothing to glide
      owed -= move
      time = Math.min(time+move, Math.floor(time)+1, plan.messages.length)  // a moment at each step
      if (time >= plan.messages.length) stop()
      else playing = requestAnimationFrame(frame)
      if (move || !playing) show()
    }
    playing = requestAnimationFrame(frame)
  }
  play.addEventListener('click', () => { playing ? rest() : go(); show() })
  at('.one').addEventListener('click', () => { rest(); time = time >= plan.messages.length ? 0 : time+1; show() })
  slider.step.addEventListener('input', () => { rest(); time = +slider.step.value; show() })
  slider.processes.addEventListener('input', () => { rest(); time = 0; compute(); lay(); show() })
  for (const radio of root.querySelectorAll('input[type=radio]')) radio.addEventListener('change', () => { if (radio.checked) { rest(); way = radio.value; time = 0; compute(); lay(); show() } })
  calm.addEventListener('change', show)
  // On a phone the page's buttons would lie on the figures
  new IntersectionObserver(([e]) => document.body.classList.toggle('at-figures', e.isIntersecting)).observe(at('tbody'))
  way = at('input[type=radio]:checked').value
  compute()
  new ResizeObserver(() => {
    if (!view.clientWidth || view.clientWidth == width) return  // on paper it isn't there
    width = view.clientWidth
    svg.setAttribute('viewBox', `0 0 ${width} ${width*HIGH}`)
    lay()
    show()
  }).observe(view)
}
const begin = () => document.querySelectorAll('.allreduce').forEach(start)
document.readyState == 'loading' ? addEventListener('DOMContentLoaded', begin) : begin()
})()

// The first page: a drawing is fitted into 28×28 pixels as notes.data.fit_digit does it, and the network of digits.js reads it.
// digits.js is made by tools/site/digits.py; tests/test_front.py holds both against Python.
(() => {
const SIZE = 28, BOX = 20, PAPER = 280, PEN = 22, STEP = 10

// ---- As in Python: fit_digit and the layers

// Scales the rows of an h×w picture to m pixels each, every one the mean of the stretch that it covers
function scaleRows(img, h, w, m) {
  const out = new Float64Array(h*m)
  for (let i = 0; i < m; i++)
    for (let j = Math.floor(i*w/m); j < w && j*m < (i+1)*w; j++) {
      const share = (Math.min((i+1)*w, (j+1)*m) - Math.max(i*w, j*m))/w
      for (let r = 0; r < h; r++) out[r*m+i] += share*img[r*w+j]
    }
  return out
}
function turned(img, h, w) {
  const out = new Float64Array(h*w)
  for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) out[c*h+r] = img[r*w+c]
  return out
}
// Where a digit with `ink` along one axis starts: its centre of mass at size/2, within the frame
function offset(ink, size) {
  let sum = 0, moment = 0
  ink.forEach((v, i) => { sum += v; moment += i*v })
  return Math.min(Math.max(Math.floor(Math.floor(size/2) - moment/sum + .5 + 1e-6), 0), size - ink.length)
}
// A picture of h×w, 0 for paper and more for ink, as `size`×`size` numbers; null where it is blank
function fitDigit(img, h, w, size = SIZE, box = BOX) {
  let max = 0, t = h, b = 0, l = w, r = 0
  for (const v of img) if (v > max) max = v
  if (!max) return null
  for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) if (img[i*w+j] > .05*max) {
    t = Math.min(t, i); b = Math.max(b, i+1); l = Math.min(l, j); r = Math.max(r, j+1)
  }
  const n = b-t, m = r-l, k = Math.max(n, m), side = n => Math.max(1, Math.floor((2*n*box+k)/(2*k)))
  let cut = new Float64Array(n*m)
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) cut[i*m+j] = img[(t+i)*w+l+j]
  const [rows, cols] = [side(n), side(m)]
  cut = scaleRows(cut, n, m, cols)
  cut = turned(scaleRows(turned(cut, n, cols), cols, n, rows), cols, rows)
  const down = new Float64Array(rows), across = new Float64Array(cols)
  max = 0
  cut.forEach((v, i) => { down[Math.floor(i/cols)] += v; across[i%cols] += v; if (v > max) max = v })
  const y = offset(down, size), x = offset(across, size), out = new Float32Array(size*size)
  cut.forEach((v, i) => { out[(y+Math.floor(i/cols))*size + x+i%cols] = v/max*255/256 })
  return out
}

const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0))
const floats = text => new Float32Array(bytes(text).buffer)
// Weights lie in the file as whole numbers, with a scale for each row; layers may hold layers
function unpack(layer) {
  if (layer.layers) return {...layer, layers: layer.layers.map(unpack)}
  if (!layer.weight) return layer
  const q = new Int8Array(bytes(layer.weight).buffer), scale = floats(layer.scale), row = q.length/scale.length
  return {...layer, weight: Float32Array.from(q, (v, i) => v*scale[Math.floor(i/row)]), bias: floats(layer.bias)}
}

const run = (layer, x) => LAYERS[layer.layer](layer, x)
// A picture in a frame of `p` zeros
function framed({data, size: [c, h, w]}, p) {
  if (!p) return {data, size: [c, h, w]}
  const H = h+2*p, W = w+2*p, out = new Float32Array(c*H*W)
  for (let r = 0; r < c*h; r++) out.set(data.subarray(r*w, (r+1)*w), (Math.floor(r/h)*H + p + r%h)*W + p)
  return {data: out, size: [c, H, W]}
}
// Each layer takes and gives {data, size}: the numbers of one picture, and how many channels, rows and columns they are
const LAYERS = {
  Conv2d({shape: [out, ins, kh, kw], stride: t, padding, weight, bias}, x) {
    const {data, size: [, h, w]} = framed(x, padding)
    const oh = Math.floor((h-kh)/t)+1, ow = Math.floor((w-kw)/t)+1, res = new Float32Array(out*oh*ow)
    for (let o = 0; o < out; o++) {
      const to = o*oh*ow
      res.fill(bias[o], to, to+oh*ow)
      for (let c = 0; c < ins; c++) for (let i = 0; i < kh; i++) for (let j = 0; j < kw; j++) {
        const v = weight[((o*ins+c)*kh+i)*kw+j]
        for (let r = 0; r < oh; r++) {
          const from = (c*h+r*t+i)*w+j, at = to+r*ow
          for (let s = 0; s < ow; s++) res[at+s] += v*data[from+s*t]
        }
      }
    }
    return {data: res, size: [out, oh, ow]}
  },
  ReLU: (_, {data, size}) => ({data: data.map(v => Math.max(v, 0)), size}),
  Identity: (_, x) => x,
  Sequential: ({layers}, x) => layers.reduce((x, l) => run(l, x), x),
  Sum({layers}, x) {
    const {data, size} = run(layers[0], x), res = data.slice()
    for (const l of layers.slice(1)) run(l, x).data.forEach((v, i) => { res[i] += v })
    return {data: res, size}
  },
  GlobalAvgPool(_, {data, size: [c, h, w]}) {
    const res = new Float32Array(c)
    for (let o = 0; o < c; o++) res[o] = data.subarray(o*h*w, (o+1)*h*w).reduce((a, v) => a+v, 0)/(h*w)
    return {data: res, size: [c]}
  },
  Linear({shape: [out, ins], weight, bias}, {data}) {
    const res = Float32Array.from(bias)
    for (let o = 0; o < out; o++) for (let i = 0; i < ins; i++) res[o] += weight[o*ins+i]*data[i]
    return {data: res, size: [out]}
  },
}

// What each layer makes of 784 pixels from 0 to below 1: the logits come last
let net
const layers = () => net ??= digits.layers.map(unpack)
function forward(pixels) {
  let x = {data: Float32Array.from(pixels, v => (v-digits.mean)/digits.std), size: [1, SIZE, SIZE]}
  return layers().map(l => x = run(l, x))
}
const logits = pixels => [...forward(pixels).at(-1).data]
function softmax(x) {
  const top = Math.max(...x), e = x.map(v => Math.exp(v-top)), sum = e.reduce((a, b) => a+b)
  return e.map(v => v/sum)
}
// How much ink lies on each pixel of the paper, from 0 to 255
function ink(ctx) {
  const {data} = ctx.getImageData(0, 0, PAPER, PAPER), out = new Uint8Array(PAPER*PAPER)
  for (let i = 0; i < out.length; i++) out[i] = data[4*i+3]
  return out
}
window.front = {fitDigit, forward, logits, softmax, ink, run, unpack}

// ---- The page

function start(root) {
  const at = s => root.querySelector(s), all = s => [...root.querySelectorAll(s)]
  const canvas = at('.paper canvas'), ctx = canvas.getContext('2d', {willReadFrequently: true})
  const pen = at('.pen'), seen = at('.seen'), maps = at('details'), said = at('[role=status]'), bars = all('.bars li')
  const samples = bytes(digits.samples)
  let last = null, sample = null, waiting = 0, speaking = 0, cursor = [PAPER/2, PAPER/2]
  Object.assign(ctx, {lineWidth: PEN, lineCap: 'round', lineJoin: 'round', imageSmoothingEnabled: false})

  function clear() { ctx.clearRect(0, 0, PAPER, PAPER); last = sample = null; read() }
  function grey(canvas, values, h, w, top) {  // 0 is paper, `top` full ink
    const data = new ImageData(w, h)
    values.forEach((v, i) => { data.data[4*i+3] = 255*v/top })
    Object.assign(canvas, {width: w, height: h})
    canvas.getContext('2d').putImageData(data, 0, 0)
    return canvas
  }
  function load(digit) {
    clear()
    const small = grey(document.createElement('canvas'), samples.slice(784*digit, 784*(digit+1)), SIZE, SIZE, 255)
    ctx.drawImage(small, 0, 0, PAPER, PAPER)
    sample = digit
    read()
  }
  function line(from, to) {
    if (sample !== null) clear()
    ctx.beginPath(); ctx.moveTo(...from); ctx.lineTo(...to); ctx.stroke()
    read()
  }

  // One reading for each frame, however many moves it has seen
  function read() { waiting ||= requestAnimationFrame(() => { waiting = 0; show() }) }
  function show() {
    const pixels = fitDigit(ink(ctx), PAPER, PAPER), steps = pixels && forward(pixels)
    const p = pixels ? softmax([...steps.at(-1).data]) : Array(10).fill(0)
    const order = p.map((_, i) => i).sort((a, b) => p[b]-p[a]), percent = v => v > .995 ? '>99%' : `${Math.round(100*v)}%`
    bars.forEach((li, i) => {
      li.classList.toggle('best', !!pixels && i == order[0])
      li.querySelector('.bar').style.width = `${100*p[i]}%`
      li.querySelector('.share').textContent = pixels ? percent(p[i]) : ''
    })
    root.dataset.read = pixels ? order[0] : ''
    at('.answer').textContent = pixels ? `Read as ${order[0]}, ${percent(p[order[0]])} sure` : 'Draw a digit'
    grey(seen, pixels || new Float32Array(SIZE*SIZE), SIZE, SIZE, 1)
    if (maps.open) showMaps(steps)
    clearTimeout(speaking)  // a screen reader gets what is read when the pen rests
    speaking = setTimeout(() => {
      const [a, b] = order
      said.textContent = !pixels ? 'Nothing is drawn.' :
        `${sample === null ? 'Your drawing' : 'A digit from the data'} is read as ${a}, ${percent(p[a]).replace('>', 'more than ')} sure.${p[b] > .01 ? ` Next comes ${b}, ${percent(p[b])}.` : ''}`
    }, 250)
  }
  function showMaps(steps) {
    const {shape: [n, , kh, kw], weight} = layers()[0], most = Math.max(...weight.map(Math.abs)), grid = at('.maps')
    while (grid.children.length < n) {  // once: the kernels don't change, dark where a weight is positive and light where it is negative
      const i = grid.children.length, box = grid.appendChild(document.createElement('div'))
      grey(box.appendChild(document.createElement('canvas')), weight.slice(i*kh*kw, (i+1)*kh*kw).map(v => v+most), kh, kw, 2*most)
      box.appendChild(document.createElement('canvas'))
    }
    const {data, size: [, h, w]} = steps ? steps[1] : {data: new Float32Array(n), size: [n, 1, 1]}, top = Math.max(...data) || 1
    for (let i = 0; i < n; i++) grey(grid.children[i].lastChild, data.slice(i*h*w, (i+1)*h*w), h, w, top)
  }

  // Mouse, finger and pen
  const place = e => { const b = canvas.getBoundingClientRect(); return [(e.clientX-b.left)*PAPER/b.width, (e.clientY-b.top)*PAPER/b.height] }
  canvas.addEventListener('pointerdown', e => {
    if (e.button || !e.isPrimary) return
    canvas.setPointerCapture(e.pointerId)
    root.classList.remove('keys')
    last = place(e)
    const from = last
    line(from, from)
    last = from
  })
  canvas.addEventListener('pointermove', e => {
    if (!last || !e.isPrimary) return
    for (const m of e.getCoalescedEvents?.().length ? e.getCoalescedEvents() : [e]) { const to = place(m); line(last, to); last = to }
  })
  // A fast stroke is no swipe: else the browser takes the next tap, on Clear, for the end of one
  for (const touch of ['touchstart', 'touchmove', 'touchend']) canvas.addEventListener(touch, e => e.preventDefault(), {passive: false})
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { last = null })
  // Keys: arrows draw, with Shift they only move; a digit loads one, Delete clears
  canvas.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    const [x, y] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key] || [0, 0]
    if (x || y) {
      const to = [x, y].map((d, i) => Math.min(Math.max(cursor[i]+d*STEP, PEN/2), PAPER-PEN/2))
      if (!e.shiftKey) line(cursor, to)
      cursor = to
      root.classList.add('keys')
      pen.style.translate = to.map(v => `${v*canvas.clientWidth/PAPER}px`).join(' ')
    } else if (/^[0-9]$/.test(e.key)) load(+e.key)
    else if (e.key == 'Delete' || e.key == 'Backspace') clear()
    else return
    e.preventDefault()
  })
  at('.clear').addEventListener('click', clear)
  all('.samples button').forEach((b, i) => b.addEventListener('click', () => load(i)))
  maps.addEventListener('toggle', show)
  load(3)
}
const begin = () => document.querySelectorAll('.digits').forEach(start)
document.readyState == 'loading' ? addEventListener('DOMContentLoaded', begin) : begin()
})()

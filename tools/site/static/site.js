// What scrolls sideways must be reachable by keyboard: long equations, wide tables and outputs
function reachable() {
  for (const el of document.querySelectorAll('mjx-container[display], .cell_output .output, .pst-scrollable-table-container, pre')) {
    if (el.scrollWidth > el.clientWidth) el.setAttribute('tabindex', '0')
    more(el)
  }
}
// Where there is more to the right, the edge fades
const more = el => el.classList?.toggle('more', getComputedStyle(el).overflowX != 'visible' && el.scrollLeft + el.clientWidth < el.scrollWidth - 2)
addEventListener('scroll', e => { if (e.target !== document) more(e.target) }, { passive: true, capture: true })
addEventListener('load', () => {
  reachable()
  if (window.MathJax && MathJax.startup) MathJax.startup.promise.then(reachable)
  document.querySelectorAll('details').forEach(d => d.addEventListener('toggle', reachable))
  let waiting  // the theme does the same for some of these, 300 ms after a change of size
  addEventListener('resize', () => { clearTimeout(waiting); waiting = setTimeout(reachable, 400) })
})
// Sphinx's search looks for `#module-notes.matmul`, where CSS takes `.matmul` for a class. Where there is no text, it is the page's
if (typeof Search !== 'undefined') {
  const { htmlToText } = Search
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, 'text/html')
    const term = anchor && page.querySelector('dl.glossary > dt#' + CSS.escape(anchor.slice(1)))
    if (term) { term.querySelector('.headerlink')?.remove(); return `${term.textContent.trim()}: ${term.nextElementSibling.firstElementChild.textContent.trim()}` }
    page.querySelectorAll('#jb-print-docs-body, nav, .header-article').forEach(e => e.remove())  // the page's own list of contents
    page.querySelectorAll('p, li, td, th, dt, dd').forEach(e => e.append(' '))  // or the last word of one runs into the next
    html = page.documentElement.outerHTML
    return htmlToText(html, anchor && '#' + CSS.escape(anchor.slice(1))) || htmlToText(html)
  }
  const nothing = "Your search did not match any documents. Please make sure that all words are spelled correctly and that you've selected enough categories."
  Documentation.TRANSLATIONS[nothing] = 'Nothing in the series has all of these words. Fewer words find more, and the glossary has every term.'
}
// The list of contents that lies over a narrow page goes when it has been used
addEventListener('click', e => { if (e.target.closest?.('a[href^="#"]')) e.target.closest('dialog[open]')?.close() })
// On paper everything is unfolded: by the style sheet, or here where it can't. Not by both: what is opened now, the theme fades in, and Chromium prints its first moment, an empty room
if (!CSS.supports('selector(::details-content)')) {
  let folded = []
  addEventListener('beforeprint', () => { folded = [...document.querySelectorAll('details:not([open])')]; folded.forEach(d => { d.open = true }) })
  addEventListener('afterprint', () => folded.forEach(d => { d.open = false }))
}
// Links to the section before and the one after, which stay in view on pages of many screens
addEventListener('DOMContentLoaded', () => {
  const heads = [...document.querySelectorAll('article.bd-article section > h2')]
  const first = !document.querySelector('.prev-next-area .left-prev')  // there one draws
  if (first || heads.length < 3 || document.documentElement.scrollHeight < 4 * innerHeight) return
  const nav = document.createElement('nav')
  nav.className = 'sections'
  nav.setAttribute('aria-label', 'Sections')
  nav.innerHTML = '<a class="up"><b aria-hidden="true">↑</b></a><a class="down"><span></span><b aria-hidden="true">↓</b></a>'
  document.body.append(nav)
  const [up, down] = nav.children
  const name = h => h.textContent.replace(/#$/, '').trim()
  const next = document.querySelector('.prev-next-area .right-next')
  function point(a, where, label, what) {
    a.hidden = !where
    if (!where) return
    a.href = where
    a.title = label
    a.setAttribute('aria-label', label)
    if (a === down) a.querySelector('span').textContent = what
  }
  function update() {
    const tops = heads.map(h => h.getBoundingClientRect().top)
    const end = scrollY + innerHeight > document.documentElement.scrollHeight - 8 || next && next.getBoundingClientRect().top < innerHeight  // there the page's own link is in sight
    const after = end ? -1 : tops.findIndex(t => t > 120), before = tops.filter(t => t < 20).length - 1
    point(up, before >= 0 ? '#' + heads[before].parentElement.id : tops[0] < 120 && scrollY > 200 ? '#' : '', before >= 0 ? 'Back to: ' + name(heads[before]) : 'Back to the top')
    if (after >= 0) point(down, '#' + heads[after].parentElement.id, 'Next section: ' + name(heads[after]), name(heads[after]))
    else point(down, !end && next && next.href, next && 'Next page: ' + next.querySelector('.prev-next-title').textContent, 'Next page')
  }
  let waiting
  const soon = () => { waiting = waiting || requestAnimationFrame(() => { waiting = 0; update() }) }
  for (const e of ['scroll', 'resize', 'toggle']) addEventListener(e, soon, { passive: true, capture: true })
  addEventListener('load', soon)
  update()
})

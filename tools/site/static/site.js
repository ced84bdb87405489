// What scrolls sideways must be reachable by keyboard: long equations, wide tables and outputs
function reachable() {
  for (const el of document.querySelectorAll('mjx-container[display], .cell_output .output, .pst-scrollable-table-container, pre')) {
    if (el.scrollWidth > el.clientWidth) el.setAttribute('tabindex', '0')
  }
}
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
  Search.htmlToText = (html, anchor) => htmlToText(html, anchor && '#' + CSS.escape(anchor.slice(1))) || htmlToText(html)
}

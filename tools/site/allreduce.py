"The drawing that `#| interactive: allreduce` puts in the place of a cell's still picture: its markup, which static/allreduce.js fills with life"
from descent import slider

WAYS = {'direct': 'Everyone to everyone', 'tree': 'Tree', 'ring': 'Ring'}

def row(way):
    return f'<tr data-way="{way}"><th scope="row">{WAYS[way]}</th><td class="steps"></td><td class="sent"></td></tr>'

def html():
    "What stands in the page where the cell's picture would"
    own = lambda *args: slider(*args).replace('descent-', 'allreduce-')
    ways = ''.join(f'<label><input type="radio" name="way" value="{k}"{" checked"*(k == "ring")} autocomplete="off"><span>{name}</span></label>' for k, name in WAYS.items())
    return f'''<div class="allreduce">
<div class="ways" role="radiogroup" aria-label="Way to sum">{ways}</div>
<div class="view"><svg role="img" aria-label="Processes that send each other their data"></svg></div>
<div class="side">
<div class="knobs">{own('processes', 'Processes', 2, 8, 1, 4, 4)}</div>
<div class="time"><button type="button" class="play">Play</button><button type="button" class="one">One step</button>{own('step', 'Step', 0, 6, 1, 0, 0)}</div>
<table><caption>After 0 steps</caption><thead><tr><th scope="col">Way</th><th scope="col">Steps</th><th scope="col">Sent by the busiest</th></tr></thead><tbody>
{''.join(map(row, WAYS))}
</tbody></table>
</div>
<p class="about">A square is the data of one process, in as many chunks (columns) as there are processes. A row is filled where the part of that rank is in the sum: at first each has its own alone. A column that is whole has a frame. Below each square stands what that process has sent, and in the table the most of all, in units of the data.</p>
<p class="about">To try: 8 processes, each way to its end. From everyone to everyone each sends its data 7 times, in 7 steps; in the tree rank 0 sends it 3 times, and 6 steps are enough; round the ring all of them send, in each of 14 steps, and 1.75 times the data in all. A step of the ring is a short one: it carries an eighth.</p>
<p role="status" aria-live="polite"></p>
</div>
<noscript><style>.allreduce {{ display: none }} .tag_still-of-allreduce .cell_output {{ display: block !important }}</style></noscript>'''

"The drawing that `#| interactive: descent` puts in the place of a cell's still picture: its markup, which static/descent.js fills with life"
SURFACES = {'valley': 'Valley', 'saddle': 'Saddle'}
OPTIMISERS = ['SGD', 'Momentum', 'Nesterov', 'RMSProp', 'Adam']

def slider(name, label, low, high, step, value, shown):
    "A slider, and the value that it has; rate is a power of ten"
    return (f'<div class="slider"><label for="descent-{name}">{label}</label><output for="descent-{name}">{shown}</output>'
            f'<input type="range" id="descent-{name}" name="{name}" min="{low}" max="{high}" step="{step}" value="{value}" aria-valuetext="{shown}" autocomplete="off"></div>')

def row(name):
    return (f'<tr data-name="{name}"><th scope="row"><label><input type="checkbox" checked autocomplete="off"><svg class="key {name}" viewBox="0 0 34 16" width="34" height="16" aria-hidden="true">'
            f'<path class="line" d="M1 8h32"/><path class="mark" transform="translate(17 8)" d=""/></svg>{name}</label></th><td><span class="loss"></span><span class="where"></span></td></tr>')

def html():
    "What stands in the page where the cell's picture would"
    surfaces = ''.join(f'<label><input type="radio" name="surface" value="{k}"{" checked"*(k == "valley")} autocomplete="off"><span>{name}</span></label>' for k, name in SURFACES.items())
    return f'''<div class="descent">
<div class="surfaces" role="radiogroup" aria-label="Surface">{surfaces}</div>
<div class="view"><canvas aria-hidden="true"></canvas><svg role="img" aria-label="Paths of five optimisers"></svg></div>
<div class="time"><button type="button" class="play">Play</button><button type="button" class="one">One step</button>{slider('step', 'Step', 0, 60, 1, 60, 60)}</div>
<div class="side">
{slider('rate', 'Learning rate, of all five', -2.52, 0, .02, -1.22, '0.06')}
{slider('momentum', 'Momentum', 0, .99, .01, .8, '0.80')}
<table><caption>After 60 steps</caption><thead><tr><th scope="col">Optimiser</th><th scope="col">Value of <i>f</i></th></tr></thead><tbody>
{''.join(map(row, OPTIMISERS))}
</tbody></table>
</div>
<p class="about">Lines of equal <i>f</i>, the more colour the lower; each dot is a step. All five have the same learning rate. Momentum is that of Momentum and Nesterov, and Adam's β₁; SGD and RMSProp have none.</p>
<p class="about">To try: raise the rate to 0.09, and SGD zigzags from wall to wall, while Nesterov has left. Above 0.1 the zigzag of SGD grows, and Momentum still comes down. On the saddle at 0.03, SGD is held up at the pass, and Momentum gets away from it; RMSProp and Adam, which divide by the gradient's size, never come near it.</p>
<p role="status" aria-live="polite"></p>
</div>
<noscript><style>.descent {{ display: none }} .tag_still-of-descent .cell_output {{ display: block !important }}</style></noscript>'''

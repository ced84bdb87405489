"The part of the first page that reads a digit that is drawn on it: its markup, which static/front.js fills with life"
import json, math
from pathlib import Path

DIGITS = Path(__file__).resolve().parent/'static'/'digits.js'
WORDS = dict(enumerate('two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty'.split(), 2))

def raw(html): return f'```{{raw}} html\n{html}\n```'

def weights(layers):
    "How many weights and biases the layers of digits.js hold"
    return sum(weights(l.get('layers', ())) + (math.prod(l['shape'])+l['shape'][0] if 'shape' in l else 0) for l in layers)

def draw(d):
    "The part of the page that reads what is drawn; `d` is what digits.js holds"
    right, size, (n, _, h, w) = f"{d['made']['accuracy']['rounded']:.1%}", f"{round(weights(d['layers']), -3):,}", d['layers'][0]['shape']
    maps = WORDS.get(n, str(n))
    bars = ''.join(f'<li><span>{i}</span><span class="track"><span class="bar"></span></span><span class="share"></span></li>' for i in range(10))
    samples = ''.join(f'<button type="button" aria-label="Show a {i}">{i}</button>' for i in range(10))
    return f'''## Draw a digit, and a network reads it

A [residual network](09_resnet.ipynb) of {size} weights, [every part of it](built.md) built in this series, and trained by what is built in it, without autograd. It reads {right} of ten thousand new digits right.

''' + raw(f'''<div class="digits">
<p class="answer" aria-hidden="true"></p>
<div class="paper">
<canvas width="280" height="280" tabindex="0" role="application" aria-label="Paper to draw a digit on" aria-describedby="digits-keys"></canvas><span class="pen"></span>
<button type="button" class="clear">Clear</button>
<div class="samples" role="group" aria-label="Digits from the data">{samples}</div>
</div>
<div>
<ol class="bars" role="list" aria-label="How sure the network is of each digit">{bars}</ol>
<div class="shown"><canvas class="seen" width="28" height="28" role="img" aria-label="The drawing as the network gets it"></canvas><p>What it gets: 28×28 pixels, scaled and centred as those it was trained on.</p></div>
<p role="status" aria-live="polite"></p>
</div>
<p>It always picks one of the ten, whatever you draw. How sure it is, is each digit's share in the softmax of its ten outputs: how far one stands out from the other nine, not whether it is a digit at all. Nothing that you draw leaves this page.</p>
<p class="keys" id="digits-keys">Draw over it with mouse, finger or pen; the buttons 0 to 9 show digits from the data. <span class="keyboard">By keyboard, on the paper: arrows draw, with Shift they only move, a figure shows that digit, and Delete clears.</span></p>
<details><summary>What the first layer makes of it</summary>
<p>Each of its {maps} kernels of {h}×{w}, like ink where its weights are positive and like paper where they are negative, and what it finds in the drawing: its feature map.</p>
<div class="maps" role="img" aria-label="{maps.capitalize()} kernels, and the feature map that each makes of the drawing"></div>
</details>
</div>
<noscript><style>.digits {{ display: none }} .digits-still {{ display: block }}</style></noscript>
<figure class="digits-still"><img src="_static/digits.png" width="880" height="440" alt="A handwritten 3 beside ten bars, of which only that of the 3 is long; below, the {maps} feature maps of the first layer, which show its strokes from different sides.">
<figcaption>A digit that the network wasn't trained on, how sure it is of each of the ten, and what its first layer sees. On the page itself, with JavaScript, one can draw.</figcaption></figure>''') + '\n'

def fill(text):
    "The README's text with this part in the place of its `<!-- draw -->`"
    if '<!-- draw -->' not in text: return text
    return text.replace('<!-- draw -->', draw(json.loads(DIGITS.read_text(encoding='utf-8').split('digits = ', 1)[1])))

"""What the series costs and how fast it is, beside what others use: `python -m bench`

A benchmark is a module here, named in NAMES: its docstring is the title and the text of its section on the site, `run(b)` measures (harness.Run is what it gets),
`draw(figures, fig)` draws the picture that `ALT` puts into words, and `WHY`, if it has one, says why an aim is missed.
"""
NAMES = 'matmul step conv residual epoch recipes finder activations optimizers resnet overfitting scaling gpu imports loader series'.split()  # in the order of the page

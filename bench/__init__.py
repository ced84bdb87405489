"What the series costs and how fast it is, beside what others use: `python -m bench`"
NAMES = 'matmul step imports loader series'.split()  # the benchmarks, a module each, in the order of the page

"What the series costs and how fast it is, beside what others use: `python -m bench`"

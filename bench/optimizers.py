"""x

y
"""
ALT="x"
def run(b):pass
def draw(d,f):pass

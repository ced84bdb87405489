"A page with one drawing, made by the site's own extension, and a server for it: what the tests of the drawings share"
import base64, contextlib, functools, http.server, json, subprocess, sys, threading
from test_site import TOOL

PIXEL = base64.b64encode((TOOL/'static'/'digits.png').read_bytes()).decode()

def built(name, folder):
    "Build a page whose one folded cell has a still and `#| interactive: name`, and a page without; the folder of the built ones"
    (folder/'s').mkdir()
    still = {'output_type': 'display_data', 'metadata': {}, 'data': {'image/png': PIXEL, 'text/plain': '<Figure>'}}
    cells = [('markdown', '# A sample\n\n> of the drawing'), ('markdown', '## Before\n\nWords before it.'),
             ('code', f'#| code-summary: How the picture is drawn\n#| fig-alt: The still of the drawing\n#| interactive: {name}\nplot()'), ('markdown', 'Words after it.')]
    cells = [{'cell_type': kind, 'id': f'c{i}', 'metadata': {}, 'source': s, **({'execution_count': None, 'outputs': [still]} if kind == 'code' else {})} for i, (kind, s) in enumerate(cells)]
    kernel = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
    (folder/'s'/'sample.ipynb').write_text(json.dumps({'cells': cells, 'metadata': {'kernelspec': kernel}, 'nbformat': 4, 'nbformat_minor': 5}), encoding='utf-8')
    (folder/'s'/'index.md').write_text('# Without it\n\n```{toctree}\nsample\n```\n', encoding='utf-8')
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-W', '-q', '-b', 'html', '-c', str(TOOL), '-d', str(folder/'t'), str(folder/'s'), str(folder/'o')],
                          capture_output=True, text=True, encoding='utf-8')
    assert not done.returncode, done.stderr
    return folder/'o'

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@contextlib.contextmanager
def served(folder):
    "The address at which `folder` can be read"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown()

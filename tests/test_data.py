"The loader against a server on 127.0.0.1 that misbehaves, against disks that do, and against pickles that would"
import codecs, errno, gzip, hashlib, importlib.util, io, itertools, math, os, pickle, subprocess, sys, threading, time, zipfile, zlib
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np, pytest, torch, tqdm
from hypothesis import given, settings, strategies as st
from notes import data
from notes.data import DataError

ROOT = Path(data.__file__).resolve().parent.parent
RNG = np.random.default_rng(0)
PARTS = tuple(((RNG.integers(0, 256, (n, 784))/256).astype('f4'), RNG.integers(0, 10, n)) for n in (60, 20, 5))
gz = lambda o, protocol=2: gzip.compress(pickle.dumps(o, protocol=protocol), 1, mtime=0)
sha = lambda b: hashlib.sha256(b).hexdigest()
GOOD = gz(PARTS)
SHA = sha(GOOD)

def idx(a, code=8):
    "An array of bytes as an IDX file"
    return bytes([0, 0, code, a.ndim]) + b''.join(n.to_bytes(4, 'big') for n in a.shape) + a.astype('u1').tobytes()
CLOTHES = {part: (RNG.integers(0, 256, (n, 28, 28)), RNG.integers(0, 10, n)) for part, n in (('train', 60), ('t10k', 20))}
name_of = lambda part, kind: f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz"
KEYS = [f'{part}-{kind}' for part in CLOTHES for kind in ('images', 'labels')]
NAMES = {k: name_of(*k.split('-')) for k in KEYS}
FILES = {NAMES[f'{part}-{kind}']: gzip.compress(idx(a), mtime=0) for part, pair in CLOTHES.items() for kind, a in zip(('images', 'labels'), pair)}
SHAS = {k: sha(FILES[n]) for k, n in NAMES.items()}

def are_clothes(tensors, part):
    "Are they `part`, training's 60 as 50 and 10?"
    x, y = (torch.from_numpy(a) for a in CLOTHES[part])
    x, y, n = x.flatten(1).float()/256, y.long(), [50, 10] if part == 'train' else [20]
    return len(tensors) == 2*len(n) and all(t.dtype == w.dtype and torch.equal(t, w) for t, w in zip((*tensors[::2], *tensors[1::2]), (*x.split(n), *y.split(n)), strict=True))

def is_good(tensors):
    return all(torch.equal(t, torch.from_numpy(a)) for t, a in zip(tensors, (*PARTS[0], *PARTS[1]), strict=True))

# ---- a server that misbehaves, a home that isn't yours

class Server:
    "Answers /NAME/… with the function of that name in `ways`; counts what it was asked"
    def __init__(self):
        self.hits, self.quit, self.ways, server = [], threading.Event(), {}, self
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self):
                server.hits.append(self.path)
                try: getattr(server, self.path.split('/')[1])(self)
                except (BrokenPipeError, ConnectionResetError): pass
        self.httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs=dict(poll_interval=.01), daemon=True)
        self.thread.start()
    def url(self, way, name='digits.pkl.gz'): return f'http://127.0.0.1:{self.httpd.server_port}/{way}/{name}'
    def close(self):
        self.quit.set()
        self.httpd.shutdown()
        self.httpd.server_close()
    def send(self, h, body, length=None):
        h.send_response(200)
        if length != -1: h.send_header('Content-Length', str(length or len(body)))
        h.end_headers()
        h.wfile.write(body)
    def body(self, h): return FILES.get(h.path.rsplit('/')[-1], GOOD)
    def mixed(self, h): getattr(self, self.ways.get(h.path.rsplit('/')[-1], 'good'))(h)
    def good(self, h): self.send(h, self.body(h))
    def nolength(self, h): self.send(h, GOOD, -1)
    def gone(self, h): h.send_error(404)
    def broken(self, h): h.send_error(500)
    def truncated(self, h): self.send(h, (b := self.body(h))[:len(b)//2], len(b))
    def cut(self, h): self.send(h, (b := self.body(h))[:len(b)//2], -1)
    def corrupted(self, h): self.send(h, (b := self.body(h))[:-20] + bytes([b[-20] ^ 1]) + b[-19:])
    def silent(self, h): self.quit.wait()
    def stalls(self, h):
        self.truncated(h)
        self.quit.wait()
    def slow(self, h):
        self.quit.wait(1)  # time.sleep is taken away below
        self.good(h)
    def big(self, h): self.send(h, bytes(20_000_000), -1)
    def evil(self, h): self.send(h, EVIL)
    def nonsense(self, h):
        h.wfile.write(b'not http at all\r\n\r\n')
        h.close_connection = True
    def badlength(self, h): self.send(h, GOOD, 'many')
    def third(self, h): h.send_error(503) if len(self.hits) < 3 else self.good(h)
    def truncated_first(self, h): self.truncated(h) if len(self.hits) < 2 else self.good(h)
    def redirect(self, h):
        h.send_response(302)
        h.send_header('Location', '/good/other.pkl.gz')
        h.end_headers()

class Evil:
    def __reduce__(self): return Path.touch, (Path(os.environ['EVIL']),)
os.environ.setdefault('EVIL', str(Path(__file__).with_name('evil-ran')))
EVIL = gz(Evil())

@pytest.fixture
def server():
    s = Server()
    yield s
    s.close()

@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    "A home folder of the test's own, and no waiting between tries"
    h = tmp_path/'home'
    h.mkdir()
    for k in ('HOME', 'USERPROFILE'): monkeypatch.setenv(k, str(h))
    waits = []
    monkeypatch.setattr(data.time, 'sleep', waits.append)
    h_ = type('Home', (), dict(path=h, archive=h/'.fastdownload'/'archive', waits=waits))
    yield h_
    assert not Path(os.environ['EVIL']).exists()

def load(url, sha256=SHA, timeout=3600, retries=0, progress=False, **kw):
    return data.get_data(url, sha256=sha256, timeout=timeout, retries=retries, progress=progress, **kw)

def fashion(url, part='train', sha256=SHAS, timeout=3600, retries=0, progress=False, **kw):
    f = data.get_fashion if part == 'train' else partial(data.final_test_set, 'fashion')
    return f(url, sha256=sha256, timeout=timeout, retries=retries, progress=progress, **kw)

def kept(home):
    "What stands in the cache, the empty lock aside"
    if not home.archive.exists(): return []
    for p in home.archive.glob('*.lock'): assert p.stat().st_size == 0
    return sorted(p.name for p in home.archive.iterdir() if p.suffix != '.lock')

def one_error(e): return e.__cause__ is None and (e.__context__ is None or e.__suppress_context__)

# ---- from a URL

@pytest.mark.parametrize('way, says', [
    ('gone', 'answers 404'), ('broken', 'answers 500'), ('truncated', 'closed before the whole file'), ('cut', 'not the file that was expected'),
    ('corrupted', 'not the file that was expected'), ('silent', 'nothing came for 0.5 seconds'), ('stalls', 'nothing came for 0.5 seconds'),
    ('nonsense', 'not http'), ('badlength', 'invalid literal'), ('evil', 'not a safe file.*it asks for .*an array needs no such thing')])
def test_one_clear_error_nothing_left_and_the_next_try_works(server, home, way, says):
    with pytest.raises(DataError, match=says) as e: load(server.url(way), sha(EVIL) if way == 'evil' else SHA, timeout=.5 if way in ('silent', 'stalls') else 3600)
    assert server.url(way) in str(e.value) and 'call it without an address' in str(e.value)
    assert one_error(e.value)  # one error, not a chain of them
    assert kept(home) == []
    assert is_good(load(server.url('good')))
    assert kept(home) == ['digits.pkl.gz']

def test_wrong_hash_is_never_opened(server, home, monkeypatch):
    monkeypatch.setattr(data, '_Unpickler', None)
    monkeypatch.setattr(data.gzip, 'open', None)
    with pytest.raises(DataError, match='not opened') as e: load(server.url('good'), '0'*64)
    assert SHA in str(e.value) and '0'*64 in str(e.value) and kept(home) == []

def test_what_fastdownload_does_not_look_at(server, tmp_path):
    "Why 00a wraps it: alone it hashes the first megabyte only, believes a changed byte, and leaves half a file behind"
    from fastdownload.core import download_url, path_stats
    big = tmp_path/'big'
    big.write_bytes(bytes(2**21))
    before = path_stats(big)
    big.write_bytes(bytes(2**21-1) + b'!')
    assert path_stats(big) == before
    assert download_url(server.url('corrupted'), tmp_path/'changed.gz', show_progress=False).read_bytes() != GOOD
    with pytest.raises(NameError): download_url(server.url('truncated'), tmp_path/'half.gz', show_progress=False)
    assert [p.suffix for p in tmp_path.glob('half*')] == ['.part']

def test_good_is_cached_where_fastdownload_would(server, home):
    from fastdownload.core import FastDownload, urldest
    url = server.url('good')
    for _ in range(3): assert is_good(load(url))
    assert len(server.hits) == 1 and home.waits == []
    assert urldest(url, FastDownload().arch_path()).read_bytes() == GOOD

def test_cache_folder_of_fastdownloads_config(server, home, tmp_path):
    (home.path/'.fastdownload').mkdir()
    (home.path/'.fastdownload'/'config.ini').write_text(f"[DEFAULT]\narchive = {(tmp_path/'elsewhere').as_posix()}\ndata = data\n")
    assert is_good(load(server.url('good')))
    assert (tmp_path/'elsewhere'/'digits.pkl.gz').read_bytes() == GOOD and not home.archive.exists()

def test_config_that_another_process_has_only_begun(server, home):
    (home.path/'.fastdownload').mkdir()
    (home.path/'.fastdownload'/'config.ini').touch()
    assert is_good(load(server.url('good'))) and kept(home) == ['digits.pkl.gz']

@pytest.mark.parametrize('text', [b'archive = x', b'[DEFAULT', b'[DEFAULT]\narchive', b'[DEFAULT]\narchive = a\narchive = b', b'[DEFAULT]\narchive = %(', b'\xff\xfe\x00', b'[DEFAULT]\narchive = a\0b'], ids=str)
def test_damaged_config(server, home, text):
    (home.path/'.fastdownload').mkdir()
    (home.path/'.fastdownload'/'config.ini').write_bytes(text)
    with pytest.raises(DataError, match='config.ini is damaged.*Delete it.*call it without an address') as e: load(server.url('good'))
    assert one_error(e.value) and not server.hits
    (home.path/'.fastdownload'/'config.ini').unlink()
    assert is_good(load(server.url('good')))

def test_base(server, home, tmp_path):
    assert is_good(load(server.url('good'), base=tmp_path/'base'))
    assert (tmp_path/'base'/'archive'/'digits.pkl.gz').exists() and not any(home.path.iterdir())

def test_hash_may_be_upper_case(server): assert is_good(load(server.url('good'), SHA.upper()))
def test_redirect(server): assert is_good(load(server.url('redirect')))
def test_query_is_no_part_of_the_name(server, home):
    assert is_good(load(server.url('good', 'digits.pkl.gz?raw=true&x=1')))
    assert kept(home) == ['digits.pkl.gz']

@pytest.mark.parametrize('bad', [b'', GOOD + b'!', EVIL], ids=['empty', 'longer', 'evil'])
def test_a_bad_file_in_the_cache_is_replaced(server, home, bad):
    home.archive.mkdir(parents=True)
    (home.archive/'digits.pkl.gz').write_bytes(bad)
    assert is_good(load(server.url('good')))
    assert (home.archive/'digits.pkl.gz').read_bytes() == GOOD and kept(home) == ['digits.pkl.gz']

def test_a_bad_file_in_the_cache_is_removed(server, home):
    home.archive.mkdir(parents=True)
    (home.archive/'digits.pkl.gz').write_bytes(EVIL)
    with pytest.raises(DataError): load(server.url('gone'))
    assert kept(home) == []

@pytest.mark.parametrize('way, retries, hits', [('third', 2, 3), ('third', 1, 2), ('truncated_first', 1, 2)])
def test_retries_what_may_pass(server, home, way, retries, hits):
    if way == 'third' and retries == 1:
        with pytest.raises(DataError, match='503'): load(server.url(way), retries=retries)
    else: assert is_good(load(server.url(way), retries=retries))
    assert len(server.hits) == hits and home.waits == [.5, 1.][:retries]

@pytest.mark.parametrize('way, kw', [('gone', {}), ('evil', dict(sha256=sha(EVIL)))])
def test_no_retry_of_what_will_not_pass(server, home, way, kw):
    with pytest.raises(DataError) as e: load(server.url(way), retries=5, **kw)
    assert len(server.hits) == 1 and home.waits == [] and not e.value.again

def test_connection_refused(server, home):
    url = server.url('good')
    server.close()
    with pytest.raises(DataError, match='Check the address and the network') as e: load(url)
    assert e.value.again and kept(home) == []

@pytest.mark.parametrize('url', ['http://127.0.0.1:99999/x.gz', 'http://127.0.0.1:port/x.gz', 'http://a..b/x.gz', 'http:///x.gz', 'file:///no/such/x.gz'])
def test_addresses_that_lead_nowhere(home, url):
    with pytest.raises(DataError, match='Check the address') as e: load(url)
    assert one_error(e.value) and kept(home) == []

def test_no_network(home, monkeypatch):
    import socket
    def lookup(*a, **k): raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
    monkeypatch.setattr(socket, 'getaddrinfo', lookup)
    with pytest.raises(DataError, match='Name or service not known.*call it without'): data.get_data(data.MNIST_URL, progress=False)
    assert kept(home) == [] and len(home.waits) == 2

def test_ctrl_c_leaves_nothing(server, home, monkeypatch):
    def interrupt(*a): raise KeyboardInterrupt
    monkeypatch.setattr(tqdm.tqdm, 'update', interrupt)
    with pytest.raises(KeyboardInterrupt): load(server.url('good'), progress=True)
    assert kept(home) == []

# ---- file://

def test_file_url(tmp_path, home):
    f = tmp_path/'mine.pkl.gz'
    f.write_bytes(GOOD)
    assert is_good(load(f.as_uri()))
    assert kept(home) == ['mine.pkl.gz'] and f.read_bytes() == GOOD

def test_file_url_missing_or_wrong(tmp_path, home):
    f = tmp_path/'mine.pkl.gz'
    with pytest.raises(DataError, match='there is no such file'): load(f.as_uri(), retries=3)
    f.mkdir()
    with pytest.raises(DataError): load(f.as_uri(), retries=3)
    f.rmdir()
    f.write_bytes(GOOD[:-1])
    with pytest.raises(DataError, match='not the file that was expected'): load(f.as_uri())
    assert kept(home) == []
    f.write_bytes(GOOD)
    assert is_good(load(f.as_uri()))

# ---- arguments

@pytest.mark.parametrize('url, kw', [
    ('mnist.pkl.gz', {}), ('/tmp/mnist.pkl.gz', {}), ('ftp://127.0.0.1/x.pkl.gz', {}), ('', {}), ('http://127.0.0.1/?x', {}), ('file:///..', {}),
    ('http://127.0.0.1/x', dict(sha256='abc')), ('http://127.0.0.1/x', dict(sha256='g'*64)),
    ('http://127.0.0.1/x', dict(timeout=0)), ('http://127.0.0.1/x', dict(timeout=float('nan'))), ('http://127.0.0.1/x', dict(retries=-1))])
def test_arguments_that_make_no_sense(url, kw):
    with pytest.raises(ValueError, match='pass'): load(url, **kw)

# ---- disks

class Full(io.FileIO):
    "A file on a disk with room for 1000 bytes"
    def write(self, b):
        super().write(b[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def test_full_disk(server, home, monkeypatch):
    import fastcore.net
    monkeypatch.setattr(fastcore.net, 'open', Full, raising=False)
    with pytest.raises(DataError, match="can't be used.*No space left.*Free space") as e: load(server.url('good'), retries=3)
    assert len(server.hits) == 1 and kept(home) == [] and one_error(e.value)
    monkeypatch.undo()
    assert is_good(load(server.url('good'), base=home.path/'.fastdownload'))

def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path/'file').write_text('in the way')
    with pytest.raises(DataError, match="can't be used.*make it writable, or pass base"): load(server.url('good'), base=tmp_path/'file'/'fd')
    assert server.hits == []
    assert is_good(load(server.url('good'), base=tmp_path/'fd'))

@pytest.mark.parametrize('what', ['mkdir', 'lock', 'replace'])
def test_read_only_folder(server, home, monkeypatch, what):
    "Root may write anywhere, so the refusal is made here"
    import filelock
    def refuse(*a, **k): raise OSError(errno.EROFS, 'Read-only file system', 'here')
    with monkeypatch.context() as m:
        if what == 'lock': m.setattr(filelock.FileLock, 'acquire', refuse)
        else: m.setattr(Path, what, refuse)
        with pytest.raises(DataError, match="can't be used.*Read-only file system.*make it writable"): load(server.url('good'))
    assert kept(home) == []
    assert is_good(load(server.url('good')))

@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason="permissions don't bind root")
def test_read_only_folder_for_real(server, home):
    home.archive.mkdir(parents=True)
    home.archive.chmod(0o555)
    try:
        with pytest.raises(DataError, match="can't be used"): load(server.url('good'))
    finally: home.archive.chmod(0o755)
    assert is_good(load(server.url('good')))

def test_a_good_file_in_a_read_only_cache_is_read(server, home, monkeypatch):
    import filelock
    assert is_good(load(server.url('good')))
    def refuse(*a, **k): raise OSError(errno.EROFS, 'Read-only file system')
    monkeypatch.setattr(filelock.FileLock, 'acquire', refuse)
    assert is_good(load(server.url('gone')))

# ---- two at once

SCRIPT = """
import sys
from notes import data
ts = data.get_data(sys.argv[1], sha256=sys.argv[2], timeout=3600)
print([tuple(t.shape) for t in ts])
"""
def env(): return {**os.environ, 'PYTHONPATH': str(ROOT)}
def start(url): return subprocess.Popen([sys.executable, '-c', SCRIPT, url, SHA], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8', env={**env(), 'PYTHONIOENCODING': 'utf-8'})

def test_two_processes_fetch_once(server, home):
    ps = [start(server.url('slow')) for _ in range(2)]
    outs = [p.communicate() for p in ps]
    assert [p.returncode for p in ps] == [0, 0], outs
    assert {o for o, _ in outs} == {'[(60, 784), (60,), (20, 784), (20,)]\n'}
    assert len(server.hits) == 1 and kept(home) == ['digits.pkl.gz']
    assert sum('digits.pkl.gz: 100%' in e for _, e in outs) == 1  # the one that fetched showed its progress

def test_threads_fetch_once(server, home):
    res, ts = [], []
    for _ in range(4):
        ts.append(threading.Thread(target=lambda: res.append(load(server.url('slow')))))
        ts[-1].start()
    for t in ts: t.join()
    assert len(res) == 4 and all(map(is_good, res)) and len(server.hits) == 1

def test_a_killed_process_leaves_nothing_that_matters(server, home):
    p = start(server.url('stalls'))
    part = home.archive/'digits.pkl.gz.unchecked'
    while not (part.exists() and part.stat().st_size) and p.poll() is None: threading.Event().wait(.02)
    p.kill()
    p.communicate()
    assert part.exists()
    assert is_good(load(server.url('good')))
    assert kept(home) == ['digits.pkl.gz']

# ---- progress

@pytest.mark.parametrize('way', ['good', 'nolength'])
def test_progress_of_a_download(server, capsys, way):
    load(server.url(way), progress=True)
    out, err = capsys.readouterr()
    last, size = err.split('\r')[-1], tqdm.tqdm.format_sizeof(len(GOOD))
    assert out == '' and last.startswith('digits.pkl.gz: ') and last.endswith('B/s]\n')
    assert ('100%|' in last and f'{size}/{size}' in last) if way == 'good' else ('kB [' in last and '%' not in last)
    load(server.url(way), progress=True)
    assert capsys.readouterr().err == ''  # the cache has it

def test_progress_does_not_flood(server, capsys):
    start = time.monotonic()
    with pytest.raises(DataError): load(server.url('big'), progress=True)
    err = capsys.readouterr().err
    assert '20.0MB [' in err and err.count('\r') < 10*(time.monotonic()-start)+5  # of 2,442 blocks

def test_progress_can_be_silent(server, capsys):
    load(server.url('good'))
    assert capsys.readouterr() == ('', '')

# ---- pickles

def read(raw): return data._array(data._Unpickler(io.BytesIO(raw), encoding='bytes').load())

@pytest.mark.parametrize('dtype', ['f4', 'f8', 'u1', 'i4', 'i8', '>f4', '>i8'])
def test_arrays_of_every_protocol(dtype):
    a = np.arange(12).reshape(3, 4).astype(dtype)
    for protocol in range(pickle.HIGHEST_PROTOCOL+1):
        b = read(pickle.dumps(a, protocol=protocol))
        assert b.dtype == a.dtype and b.shape == a.shape and (b == a).all()

def test_both_names_of_numpys_core():
    raw = pickle.dumps(PARTS[0][0], protocol=2)
    old = raw.replace(b'numpy._core', b'numpy.core')
    for r in (old, old.replace(b'numpy.core', b'numpy._core')): assert (read(r) == PARTS[0][0]).all()

def python2(a):
    "`a` pickled as Python 2 did, its bytes in a string"
    n = a.tobytes()
    shape = b'(' + b''.join(b'M' + s.to_bytes(2, 'little') for s in a.shape) + b't'
    return (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape +
            b"cnumpy\ndtype\nU\x02" + a.dtype.str[1:].encode() + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" +
            len(n).to_bytes(4, 'little') + n + b"tb")

def test_layout_as_python_2_wrote_it(server, home, monkeypatch):
    raw = b'\x80\x02' + b''.join(python2(x) + python2(y) + b'\x86' for x, y in PARTS) + b'\x87.'
    body = gzip.compress(raw)
    assert (pickle.loads(raw, encoding='latin1')[1][0] == PARTS[1][0]).all()  # NumPy reads it the same way
    server.good = lambda h: server.send(h, body)
    assert is_good(load(server.url('good'), sha(body)))

class Call:
    def __init__(self, *res): self.res = res
    def __reduce__(self): return self.res

RECON = np.zeros(1).__reduce__()[0]
def lie(dtype='O8', flags=0, shape=(1,), body=b'A'*8, sub=(None, None, None)):
    "An array as NumPy would write it, with insides of our choice"
    d = Call(np.dtype, (dtype, False, True), (3, '|', *sub, -1, -1, flags))
    return Call(RECON, (np.ndarray, (0,), b'b'), (1, shape, d, False, body))

HOSTILE = {
    'os': Call(os.system, ('exit 1',)), 'eval': Call(eval, ('1+1',)), 'touch': Evil(), 'getattr': Call(getattr, ('a', 'upper')),
    'import': Call(__import__, ('os',)), 'numpy function': Call(np.load, ('x',)), 'another codec': Call(codecs.encode, ('a', 'rot13')),
    'call an array': Call(np.ndarray, ((4,), 'O')), 'objects': np.array([{}], dtype=object), 'fortran': np.asfortranarray(np.zeros((2, 784), 'f4')),
    'pointers': lie(), 'flags': lie('f8', 1), 'short body': lie('f8', 0, (1000000,)), 'negative shape': lie('f8', 0, (-5,)), 'odd shape': lie('f8', 0, 'x'),
    'subarray': lie('f8', sub=((np.dtype('f8'), (9,)), None, None)), 'no bytes': lie('f8', body=[1]),
}
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pickles_end_in_one_sentence(tmp_path, name):
    o, (x, y), rest = HOSTILE[name], PARTS[0], PARTS[1:]
    for layout, protocol in itertools.product((o, ((o, y), *rest), ((x, o), *rest)), (2, 4, 5)):
        f = tmp_path/'x.pkl.gz'
        f.write_bytes(gz(layout, protocol))
        with pytest.raises(DataError, match='not a safe file in the layout'): load(f.as_uri(), sha(f.read_bytes()))
        assert not Path(os.environ['EVIL']).exists()

X, Y = np.zeros((4, 784), 'f4'), np.arange(4)
def put(a, v, dtype=None):
    "`a` with one `v` in it"
    a = a.astype(dtype or a.dtype)
    a[-1] = v
    return a
@pytest.mark.parametrize('x,y,says', [
    (put(X, 255), Y, 'pixels .* to 255'), (put(X, 1), Y, 'pixels .* to 1'), (put(X, -.1), Y, 'pixels .* from -0.1'), (put(X, np.nan), Y, 'pixels .* nan'), (put(X, np.inf), Y, 'pixels .* inf'), (put(X, 255, 'u1'), Y, 'pixels .* to 255'),
    (put(X, 1-1e-12, 'f8'), Y, 'pixels .* to 1'), (X, put(Y, 300), 'labels .* 300'), (X, put(Y, 10), 'labels .* 10'), (X, put(Y, -1), 'labels'), (X, put(Y, 3, 'f4'), 'labels .* float32')],
    ids=['255', '1', 'negative', 'nan', 'inf', 'bytes', 'rounds to 1', 'label 300', 'label 10', 'label -1', 'labels of floats'])
def test_pixels_and_labels_are_in_range(tmp_path, x, y, says):
    good, rest, f = (X, Y), PARTS[1:], tmp_path/'x.pkl.gz'
    for layout in (((x, y), good, *rest), (good, (x, y), *rest)):
        f.write_bytes(gz(layout))
        with pytest.raises(DataError, match=f'not a safe file in the layout.*{says}'): load(f.as_uri(), sha(f.read_bytes()))
    f.write_bytes(gz(((put(X, 1-2**-24), put(Y, 9, 'u1')), (X[:1], Y[:1]), *rest)))
    assert load(f.as_uri(), sha(f.read_bytes()))[1].tolist() == [0, 1, 2, 9]

@pytest.mark.parametrize('dtype', ['O8', 'b1', 'c16', 'f2', 'u2', 'V8', 'S8', 'U2', 'M8[s]', 'f4,f4', '8f4'])
def test_dtypes_beyond_the_five_are_refused(dtype):
    with pytest.raises(ValueError, match='is not allowed'): read(pickle.dumps(lie(dtype)))

@pytest.mark.parametrize('body', [Call(codecs.encode, ('A'*8, 'utf-8')), Call(codecs.encode, (b'A'*8, 'latin1')), 'A'*8, [b'A'*8]])
def test_bytes_are_bytes_or_latin1(body):
    assert read(pickle.dumps(lie('f8', body=Call(codecs.encode, ('A'*8, 'latin1'))))) == np.frombuffer(b'A'*8)
    with pytest.raises(ValueError, match='are no bytes'): read(pickle.dumps(lie('f8', body=body)))

def test_unpickler_imports_nothing(monkeypatch):
    raw = b'\x80\x02cantigravity\nx\n.'
    with pytest.raises(pickle.UnpicklingError, match='antigravity.x'): data._Unpickler(io.BytesIO(raw)).load()
    assert 'antigravity' not in sys.modules
    for module, name in sorted(data._Unpickler.words):
        got = data._Unpickler(io.BytesIO(b'')).find_class(module, name)
        assert got(1, 2).args == (1, 2) and type(got(1, 2)) is data._Said

def test_each_load_is_on_its_own():
    "A pickle may set attributes on what it is given; the next one doesn't see them"
    raw = b'\x80\x02cnumpy\ndtype\nN}U\x0c__defaults__K\x01\x85s\x86b.'
    try: data._Unpickler(io.BytesIO(raw), encoding='latin1').load()
    except Exception: pass
    assert (read(pickle.dumps(PARTS[0][0], protocol=2)) == PARTS[0][0]).all()

LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
                   st.sampled_from([PARTS[0][0], PARTS[0][1], PARTS[1][0], np.zeros((2, 784)), np.zeros((0, 784), 'f4'), np.zeros(784)]))
NESTED = st.recursive(LEAVES, lambda s: st.one_of(st.lists(s, max_size=4), st.lists(s, max_size=4).map(tuple), st.dictionaries(st.text(max_size=3), s, max_size=3)),
                      max_leaves=8)
@settings(deadline=None, max_examples=60)
@given(NESTED, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_any_other_content_is_a_data_error(tmp_path_factory, o, protocol):
    f = tmp_path_factory.mktemp('any')/'x.gz'
    f.write_bytes(gz(o, protocol))
    try: ts = data._open(f, sha(f.read_bytes()), partial(data._digits, (0, 1)), 'here')
    except DataError: return
    for x, y in (ts[:2], ts[2:]): assert x.dtype == torch.float32 and x.shape == (len(y), 784) and y.dtype == torch.int64

@pytest.mark.parametrize('body', [b'', b'no gzip', gzip.compress(b''), gzip.compress(b'\x80'), GOOD[:1000], gzip.compress(gzip.decompress(GOOD)[:-1])],
                         ids=['empty', 'no gzip', 'nothing in it', 'one byte', 'cut', 'pickle cut'])
def test_cut_or_no_gzip(tmp_path, body):
    f = tmp_path/'x.gz'
    f.write_bytes(body)
    with pytest.raises(DataError, match='not a safe file in the layout'): load(f.as_uri(), sha(body))

# ---- Fashion-MNIST's IDX files

@pytest.fixture
def clothes(tmp_path):
    "A folder with the four files"
    d = tmp_path/'clothes'
    d.mkdir()
    for n, b in FILES.items(): (d/n).write_bytes(b)
    return d

@pytest.mark.parametrize('part', CLOTHES)
def test_two_files_of_the_four_are_fetched_once(server, home, part):
    for _ in range(2): assert are_clothes(fashion(server.url('good', ''), part), part)
    own = [n for n in FILES if n.startswith(part)]
    assert server.hits == [f'/good/{n}' for n in own] and kept(home) == sorted(own)

@pytest.mark.parametrize('part', CLOTHES)
def test_a_folder_on_the_disk(clothes, home, part):
    for n in FILES:
        if not n.startswith(part): (clothes/n).unlink()
    for url in (clothes.as_uri(), clothes.as_uri()+'/'): assert are_clothes(fashion(url, part), part)
    assert len(kept(home)) == 2
    assert are_clothes(fashion(clothes.as_uri(), part, {k: v.upper() for k, v in SHAS.items()}), part)

@pytest.mark.parametrize('key', KEYS)
@pytest.mark.parametrize('way, says', [
    ('gone', 'answers 404'), ('broken', 'answers 500'), ('truncated', 'closed before the whole file'), ('cut', 'not the file that was expected'),
    ('corrupted', 'not the file that was expected'), ('silent', 'nothing came for 0.5 seconds'), ('stalls', 'nothing came for 0.5 seconds'), ('nonsense', 'not http')])
def test_each_file_that_goes_wrong_is_named_and_removed(server, home, key, way, says):
    part, kind = key.split('-')
    server.ways = {NAMES[key]: way}
    with pytest.raises(DataError, match=says) as e: fashion(server.url('mixed', ''), part, timeout=.5 if way in ('silent', 'stalls') else 3600)
    assert server.url('mixed', NAMES[key]) in str(e.value) and 'call it without an address' in str(e.value) and one_error(e.value)
    assert kept(home) == ([] if kind == 'images' else [NAMES[f'{part}-images']])  # the good one stays
    server.ways = {}
    assert are_clothes(fashion(server.url('mixed', ''), part), part)

@pytest.mark.parametrize('key', KEYS)
def test_the_hash_comes_first(clothes, home, monkeypatch, key):
    part, kind = key.split('-')
    if kind == 'labels': fashion(clothes.as_uri(), part)  # the images are in the cache, and good
    opened, idx_ = [], data._idx
    monkeypatch.setattr(data, '_idx', lambda raw, *size: opened.append(sha(raw)) or idx_(raw, *size))
    with pytest.raises(DataError, match='so it was not opened') as e: fashion(clothes.as_uri(), part, {**SHAS, key: '0'*64})
    assert SHAS[key] not in opened and SHAS[key] in str(e.value) and '0'*64 in str(e.value) and NAMES[key] not in kept(home)

def test_busy_servers_are_asked_again(server, home):
    server.third = lambda h: h.send_error(503) if len(server.hits) < 3 else server.good(h)
    server.ways = {NAMES['train-images']: 'third'}
    assert are_clothes(fashion(server.url('mixed', ''), retries=2), 'train')
    assert len(server.hits) == 4 and home.waits == [.5, 1.]

def test_threads_fetch_each_file_once(server):
    res, ts = [], []
    for _ in range(3):
        ts.append(threading.Thread(target=lambda: res.append(fashion(server.url('slow', '')))))
        ts[-1].start()
    for t in ts: t.join()
    assert len(res) == 3 and all(are_clothes(r, 'train') for r in res) and sorted(server.hits) == sorted(f'/slow/{NAMES[k]}' for k in KEYS[:2])

def test_a_bad_file_in_the_cache_is_fetched_anew(server, home):
    home.archive.mkdir(parents=True)
    for n in list(FILES)[:2]: (home.archive/n).write_bytes(b'bad')
    assert are_clothes(fashion(server.url('good', '')), 'train')
    assert [(home.archive/n).read_bytes() for n in list(FILES)[:2]] == list(FILES.values())[:2]

at = lambda b, i, *new: b[:i] + bytes(new) + b[i+len(new):]
squeeze = lambda b: gzip.compress(b, mtime=0)
DAMAGE = {  # to the bytes before compression, of images and of labels
    'nothing in it': lambda b: squeeze(b''), 'three bytes': lambda b: squeeze(b[:3]), 'header cut': lambda b: squeeze(b[:7]), 'header only': lambda b: squeeze(b[:4+4*b[3]]),
    'not two zeros': lambda b: squeeze(at(b, 0, 1)), 'second zero': lambda b: squeeze(at(b, 1, 8)), 'signed bytes': lambda b: squeeze(at(b, 2, 9)), 'floats': lambda b: squeeze(at(b, 2, 13)), 'no type': lambda b: squeeze(at(b, 2, 0)),
    'an axis more': lambda b: squeeze(at(b, 3, b[3]+1)), 'no axes': lambda b: squeeze(at(b, 3, 0)), '255 axes': lambda b: squeeze(at(b, 3, 255)),
    'one too many': lambda b: squeeze(at(b, 7, b[7]+1)), 'one too few': lambda b: squeeze(at(b, 7, b[7]-1)), 'none at all': lambda b: squeeze(at(b, 7, 0)), 'four thousand million': lambda b: squeeze(at(b, 4, 255, 255, 255, 255)), 'little-endian': lambda b: squeeze(b[:4]+b[7:3:-1]+b[8:]),
    'last byte missing': lambda b: squeeze(b[:-1]), 'last item missing': lambda b: squeeze(b[:-784 if b[3] == 3 else -1]), 'trailing byte': lambda b: squeeze(b+b'\0'), 'trailing item': lambda b: squeeze(b+b[-784 if b[3] == 3 else -1:]),
    'twice': lambda b: squeeze(b)*2, 'no gzip': lambda b: b, 'gzip cut': lambda b: squeeze(b)[:-9], 'gzip without its sum': lambda b: squeeze(b)[:-8], 'sum wrong': lambda b: at(c := squeeze(b), len(c)-8, c[-8] ^ 1),
    'length wrong': lambda b: at(c := squeeze(b), len(c)-4, c[-4] ^ 1), 'compressed wrong': lambda b: at(c := squeeze(b), len(c)//2, c[len(c)//2] ^ 255), 'more behind': lambda b: squeeze(b)+b'more', 'empty': lambda b: b'', 'a pickle': lambda b: EVIL,
    'the other kind': lambda b: squeeze(idx(np.zeros(60) if b[3] == 3 else np.zeros((60, 28, 28))))}
ONLY = {('images', 'rows'): lambda b: squeeze(at(b, 11, 27)), ('images', 'columns'): lambda b: squeeze(at(b, 15, 29)), ('images', '784 rows of one'): lambda b: squeeze(at(at(b, 10, 3, 16), 15, 1)), ('images', 'rows by columns'): lambda b: squeeze(at(at(b, 11, 14), 15, 56)),
        ('labels', 'a ten'): lambda b: squeeze(at(b, 9, 10)), ('labels', '255'): lambda b: squeeze(b[:-1]+b'\xff')}
CASES = [(k, n, f) for n, f in DAMAGE.items() for k in ('images', 'labels')] + [(k, n, f) for (k, n), f in ONLY.items()]
@pytest.mark.parametrize('part', CLOTHES)
@pytest.mark.parametrize('kind, damage', [(k, f) for k, _, f in CASES], ids=[f'{k}, {n}' for k, n, _ in CASES])
def test_damaged_idx_with_the_right_hash(clothes, home, part, kind, damage):
    "Each ends in one sentence that names the file, and stays in no cache"
    f, good = clothes/NAMES[f'{part}-{kind}'], fashion(clothes.as_uri(), part, base=home.path/'other')
    f.write_bytes(damage(gzip.decompress(f.read_bytes())))
    with pytest.raises(DataError, match='not a safe file in the layout') as e: fashion(clothes.as_uri(), part, {**SHAS, f'{part}-{kind}': sha(f.read_bytes())})
    assert f.as_uri() in str(e.value) and one_error(e.value) and f.name not in kept(home)
    f.write_bytes(FILES[f.name])
    assert are_clothes(fashion(clothes.as_uri(), part), part) and are_clothes(good, part)

def test_a_size_that_lies_takes_no_memory():
    import tracemalloc
    raw = squeeze(bytes([0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(784))
    tracemalloc.start()
    with pytest.raises(ValueError, match='its 800 bytes begin'): data._idx(raw, 28, 28)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6

@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.sampled_from([(), (2, 3)]), st.integers(0, 3), st.integers(0, 60), st.integers(0, 255))
def test_any_bytes_are_an_array_or_an_error(tail, size, n, where, byte):
    raw = idx(np.arange(n*math.prod(size)).reshape(n, *size) % 10)
    for b in (tail, raw+tail, at(raw, where, byte)[:len(raw)]):
        try: a = data._idx(squeeze(b), *size)
        except (ValueError, EOFError): continue
        assert a.dtype == np.uint8 and idx(a) == b and (size or a.max(initial=0) < 10)  # an array only where every byte has its meaning

@pytest.mark.parametrize('part', CLOTHES)
def test_images_and_labels_go_together(clothes, part):
    f, n = clothes/NAMES[f'{part}-labels'], len(CLOTHES[part][1])
    f.write_bytes(squeeze(idx(np.zeros(n-1))))
    with pytest.raises(DataError, match=f"{n} images, but {n-1} labels. Don't use them") as e: fashion(clothes.as_uri(), part, {**SHAS, f'{part}-labels': sha(f.read_bytes())})
    assert clothes.as_uri() in str(e.value) and 'call it without an address' in str(e.value)

@pytest.mark.parametrize('f', [data.get_fashion, partial(data.final_test_set, 'fashion'), partial(data.final_test_set, 'mnist')])
def test_requests_that_make_no_sense(f):
    for url in ('/tmp/folder', 'ftp://127.0.0.1/', '', 'folder'):
        with pytest.raises(ValueError, match='pass'): f(url)
    hashes = ({}, SHAS, None, 'abc') if getattr(f, 'args', ()) == ('mnist',) else ({}, 'abc', None, dict.fromkeys(SHAS, 'abc'))
    for kw in (dict(timeout=0), dict(retries=-1), *(dict(sha256=s) for s in hashes)):
        with pytest.raises(ValueError, match='pass'): f('http://127.0.0.1/x', **kw)
    for url in (None, 'http://127.0.0.1/x'):
        with pytest.raises(TypeError, match='retris'): f(url, retris=3)

# ---- the end

@pytest.mark.parametrize('name', ['letters', 'mnist_test', 'MNIST', '', None])
def test_no_such_test_set(name):
    with pytest.raises(ValueError, match="pass 'mnist' or 'fashion'"): data.final_test_set(name)

def test_the_third_part_of_the_pickle(server, home):
    "From the same file in the cache, and only when asked for"
    ts = data.final_test_set('mnist', server.url('good'), sha256=SHA, timeout=3600, progress=False)
    assert len(ts) == 2 and all(torch.equal(t, torch.from_numpy(a)) and t.dtype == d for t, a, d in zip(ts, PARTS[2], (torch.float32, torch.int64)))
    assert is_good(load(server.url('good'))) and len(server.hits) == 1

@pytest.mark.parametrize('third, says', [((), 'list index'), ((HOSTILE['touch'],), 'it asks for'), (((PARTS[2][0]+1, PARTS[2][1]),), 'pixels'), (((PARTS[2][0], PARTS[0][1]),), 'labels')], ids=['none', 'evil', 'pixels', 'too many labels'])
def test_a_bad_third_part(tmp_path, third, says):
    f = tmp_path/'x.pkl.gz'
    f.write_bytes(gz((*PARTS[:2], *third)))
    with pytest.raises(DataError, match=f'not a safe file in the layout.*{says}'): data.final_test_set('mnist', f.as_uri(), sha256=sha(f.read_bytes()), progress=False)
    if says != 'it asks for': assert is_good(load(f.as_uri(), sha(f.read_bytes())))  # training and validation have no part in it
    else:
        with pytest.raises(DataError, match='it asks for'): load(f.as_uri(), sha(f.read_bytes()))

# ---- the files in the package

def test_packaged():
    x, y, xv, yv = ts = data.get_data()
    assert [tuple(t.shape) for t in ts] == [(50_000, 784), (50_000,), (10_000, 784), (10_000,)]
    assert [t.dtype for t in ts] == [torch.float32, torch.int64]*2
    assert f'{x.double().mean():.4f} {x.double().std():.4f}' == '0.1304 0.3073'
    assert 0 <= min(x.min(), xv.min()) and max(x.max(), xv.max()) == 255/256
    assert y.unique().tolist() == yv.unique().tolist() == list(range(10)) and y[:5].tolist() == [5, 0, 4, 1, 9]
    with np.load(ROOT/'notes'/'mnist.npz', allow_pickle=False) as d: ims, labels = d['images'].reshape(-1, 784), d['labels']
    assert ((torch.cat([x, xv])*256).numpy() == ims).all() and (torch.cat([y, yv]).numpy() == labels).all()
    assert all(t.is_contiguous() and t.untyped_storage().nbytes() == t.numel()*t.element_size() for t in ts)  # none drags the others along

def test_packaged_is_fresh_each_time():
    for _ in range(2):
        a = data.get_data()
        assert a[0][0].sum() > 1
        a[0].zero_()  # what one caller does to it, the next doesn't see

PACKAGED = dict(mnist=data.get_data, mnist_test=partial(data.final_test_set, 'mnist'), fashion=data.get_fashion, fashion_test=partial(data.final_test_set, 'fashion'))

def archive(name):
    with np.load(ROOT/'notes'/f'{name}.npz', allow_pickle=False) as d: return {k: d[k] for k in d.files}

@pytest.mark.parametrize('name', PACKAGED)
def test_packaged_content(name):
    "What the file holds, and that the function returns just this"
    d, ts = archive(name), PACKAGED[name]()
    n, sizes = (60_000, [50_000, 10_000]) if len(ts) == 4 else (10_000, [10_000])
    assert d.keys() == {'images', 'labels'} and d['images'].shape == (n, 28, 28) and d['labels'].shape == (n,) and d['images'].dtype == d['labels'].dtype == np.uint8
    assert [tuple(t.shape) for t in ts] == [s for k in sizes for s in ((k, 784), (k,))] and [t.dtype for t in ts] == [torch.float32, torch.int64]*len(sizes)
    assert ((torch.cat(ts[::2])*256).numpy() == d['images'].reshape(n, 784)).all() and (torch.cat(ts[1::2]).numpy() == d['labels']).all()
    assert all(t.is_contiguous() and t.untyped_storage().nbytes() == t.numel()*t.element_size() for t in ts)
    assert np.bincount(d['labels']).tolist() == {'mnist': [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 'mnist_test': [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]}.get(name, [n//10]*10)
    ts[0].zero_()
    assert PACKAGED[name]()[0].any()  # what one caller does to it, the next doesn't see

def test_fashion_at_a_glance():
    x, y, *_ = data.get_fashion()
    assert f'{x.double().mean():.4f} {x.double().std():.4f}' == '0.2844 0.3514' and [data.FASHION_CLASSES[i] for i in y[:4]] == ['ankle boot', 't-shirt', 't-shirt', 'dress']
    assert len(data.FASHION_CLASSES) == len({*data.FASHION_CLASSES}) == 10

def test_no_picture_is_in_two_parts():
    "Nor twice in one: training, validation and test, of digits and clothes, are 140,000 different pictures"
    assert len({im.tobytes() for name in PACKAGED for im in archive(name)['images']}) == 140_000

OPENS = """
import sys
from notes import data
seen = []
sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event == 'open' and str(args[0]).endswith('.npz') else None)
for f in (data.get_data, data.get_fashion, lambda: data.final_test_set('mnist'), lambda: data.final_test_set('fashion')):
    seen.clear()
    f()
    print(sorted({s.replace('\\\\', '/').rsplit('/')[-1] for s in seen}))
"""
def test_each_file_is_opened_only_when_asked_for():
    r = subprocess.run([sys.executable, '-c', OPENS], capture_output=True, text=True, env=env())
    assert r.stdout.splitlines() == [f"['{n}.npz']" for n in ('mnist', 'fashion', 'mnist_test', 'fashion_test')], r.stderr

@pytest.mark.parametrize('name', PACKAGED)
def test_packaged_file(name):
    f = ROOT/'notes'/f'{name}.npz'
    assert f.stat().st_size < {'mnist': 10e6, 'mnist_test': 2e6, 'fashion': 27e6, 'fashion_test': 5e6}[name] and sha(f.read_bytes()) == data._SHIPPED[name]

def test_licences():
    lic = (ROOT/'notes'/'mnist.LICENSE').read_text(encoding='utf-8')
    for word in ('mnist.npz', 'mnist_test.npz', 'CC BY-SA 3.0', 'LeCun', 'Cortes', data.MNIST_URL, data.MNIST_SHA256, 'What was changed'): assert word in lic
    lic = ' '.join((ROOT/'notes'/'fashion.LICENSE').read_text(encoding='utf-8').split())
    for word in ('fashion.npz', 'fashion_test.npz', 'MIT License', 'Copyright © 2017 Zalando SE, https://tech.zalando.com', data.FASHION_URL, 'What was changed',
                 'Permission is hereby granted, free of charge', 'shall be included in all copies or substantial portions', 'WITHOUT WARRANTY OF ANY KIND'): assert word in lic

@pytest.mark.parametrize('name', PACKAGED)
@pytest.mark.parametrize('damage', [lambda b: b[:-1], lambda b: b[:500_000]+bytes([b[500_000] ^ 1])+b[500_001:], lambda b: b+b'!', lambda b: b''], ids=['short', 'flipped', 'longer', 'empty'])
def test_packaged_file_damaged(tmp_path, damage, name, monkeypatch):
    f = tmp_path/f'{name}.npz'
    f.write_bytes(damage((ROOT/'notes'/f'{name}.npz').read_bytes()))
    monkeypatch.setattr(data, 'find_spec', lambda _: type('Spec', (), dict(origin=str(tmp_path/'data.py'))))
    monkeypatch.setattr(data.np, 'load', None)
    with pytest.raises(DataError, match=f'{name}.npz is damaged. Install it again'): PACKAGED[name]()
    f.unlink()
    with pytest.raises(DataError, match=f"{name}.npz can't be read.*Install it again") as e: PACKAGED[name]()
    assert f"{tmp_path} shadows the installed package: rename it" in str(e.value)

def test_one_file_in_place_of_another(tmp_path, monkeypatch):
    "The test images under the name of the training images are not what was meant"
    (tmp_path/'fashion.npz').write_bytes((ROOT/'notes'/'fashion_test.npz').read_bytes())
    monkeypatch.setattr(data, 'find_spec', lambda _: type('Spec', (), dict(origin=str(tmp_path/'data.py'))))
    with pytest.raises(DataError, match='fashion.npz is damaged'): data.get_fashion()

LATE = """
import sys
from importlib.machinery import PathFinder
class Late: # what setuptools' finder of editable packages does: it comes last, and knows the modules inside the package
    def find_spec(name, path, target=None): return PathFinder.find_spec(name, [sys.argv[1]]) if name.startswith('notes.') else None
sys.meta_path.append(Late)
from notes.data import get_data
import notes
print(len(get_data()[0]), list(notes.__path__))
"""
def test_a_folder_called_notes_in_the_working_folder(tmp_path):
    "It takes the package's name and holds none of its files: what counts is where the module was imported from"
    (tmp_path/'notes').mkdir()
    r = subprocess.run([sys.executable, '-c', LATE, str(ROOT/'notes')], capture_output=True, text=True, cwd=tmp_path, env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'})
    assert r.stdout == f"50000 {[str(tmp_path/'notes')]}\n", r.stderr

SCRIPT_O = """
import sys, torch
before = {*sys.modules}
from notes.data import *
try:
    import resource
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform == 'darwin' else 1024)
except ImportError: peak = lambda: 0  # Windows
start = peak()
ts = get_data()
print((peak()-start)/sum(t.numel()*t.element_size() for t in ts) < 2)
for f in (lambda: get_data('x'), lambda: show_image(torch.zeros(783)), lambda: show_images([])):
    try: f()
    except ValueError as e: print('pass' in str(e))
print({'matplotlib', 'fastdownload', 'filelock', 'numba', 'tqdm'} & ({*sys.modules}-before))
"""
def test_import_is_light_memory_small_and_errors_hold_without_asserts(tmp_path, home):
    (tmp_path/'cwd').mkdir()
    r = subprocess.run([sys.executable, '-O', '-c', SCRIPT_O], capture_output=True, text=True, cwd=tmp_path/'cwd', env={**env(), 'PYTHONDONTWRITEBYTECODE': '1'})
    assert r.stdout == 'True\n'*4+'set()\n', r
    assert not any(home.path.rglob('*')) and not any((tmp_path/'cwd').iterdir())  # nothing was written

# ---- tools/data.py

@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('data_tool', ROOT/'tools'/'data.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool

def test_the_tool_makes_all_four(tool, clothes, tmp_path, monkeypatch, capsys):
    f, getters = tmp_path/'digits.pkl.gz', (data.get_data, data.get_fashion, data.final_test_set)
    f.write_bytes(GOOD)
    for g in getters[:2]: monkeypatch.setattr(data, g.__name__, partial(g, sha256=SHA if g is data.get_data else SHAS, progress=False))
    monkeypatch.setattr(data, 'final_test_set', lambda name, url: getters[2](name, url, sha256=SHA if name == 'mnist' else SHAS, progress=False))
    monkeypatch.setattr(sys, 'argv', ['data.py', '--mnist', f.as_uri(), '--fashion', clothes.as_uri(), '--out', str(tmp_path)])
    want = dict(mnist=[np.concatenate(p) for p in zip(*PARTS[:2])], mnist_test=PARTS[2], fashion=CLOTHES['train'], fashion_test=CLOTHES['t10k'])
    made = []
    for _ in range(2):
        tool.main()
        made.append({n: (tmp_path/f'{n}.npz').read_bytes() for n in want})
    out = capsys.readouterr().out
    assert made[0] == made[1] and all(f'{n}.npz: {len(b):,} bytes, sha256 {sha(b)}' in out for n, b in made[0].items())
    for n, (x, y) in want.items():
        with np.load(tmp_path/f'{n}.npz', allow_pickle=False) as d: assert (d['images'] == (x if x.dtype.kind == 'i' else x*256).reshape(-1, 28, 28)).all() and (d['labels'] == y).all() and d['images'].dtype == d['labels'].dtype == np.uint8

@pytest.mark.parametrize('name', PACKAGED)
def test_the_archive_can_be_made_again(tool, name):
    x, y, xv, yv = data.get_data()
    few = tool.archive(x[:100], y[:100], xv[:10], yv[:10])
    with np.load(io.BytesIO(few), allow_pickle=False) as d:
        assert (d['images'].reshape(-1, 784) == (torch.cat([x[:100], xv[:10]])*256).numpy()).all() and (d['labels'][100:] == yv[:10].numpy()).all()
    # Packing all images takes long: the labels, packed in the same way, must be those of the file, byte for byte
    made, shipped = tool.pack(np.zeros((1, 28, 28), 'u1'), archive(name)['labels']), (ROOT/'notes'/f'{name}.npz').read_bytes()
    infos = [{i.filename: i for i in zipfile.ZipFile(io.BytesIO(b)).infolist()} for b in (made, shipped)]
    for name in ('images.npy', 'labels.npy'):
        a, b = (tuple(getattr(d[name], k) for k in ('date_time', 'external_attr', 'create_system', 'compress_type', 'flag_bits', 'extra')) for d in infos)
        assert a == b
    if 'ng' in zlib.ZLIB_RUNTIME_VERSION: pytest.skip("this Python's zlib packs otherwise")
    size = infos[1]['labels.npy'].compress_size
    packed = lambda b, d: b[d['labels.npy'].header_offset:][30+len('labels.npy'):][:size]
    assert infos[0]['labels.npy'].compress_size == size and packed(made, infos[0]) == packed(shipped, infos[1])

# ---- pictures

@pytest.fixture
def plt():
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    yield plt
    plt.close('all')

@pytest.mark.parametrize('im, shape', [(torch.arange(784.), (28, 28)), (torch.arange(12.).view(3, 4), (3, 4)), (torch.rand(1, 5, 6), (5, 6)), (torch.rand(3, 5, 6), (5, 6, 3)),
                                       (torch.rand(4, 5, 6), (5, 6, 4)), (np.arange(9), (3, 3)), ([[0, 1], [2, 3]], (2, 2)), (torch.rand(4, 9).t(), (9, 4)),
                                       (torch.rand(18)[::2].requires_grad_(), (3, 3)), (torch.ones(2, 2, dtype=torch.bool), (2, 2))])
def test_show_image(plt, im, shape):
    ax = data.show_image(im, title='t')
    got = ax.images[0].get_array()
    assert got.shape == shape and ax.get_title() == 't' and not ax.axison
    want = torch.as_tensor(im).detach() if not isinstance(im, torch.Tensor) else im.detach()
    want = want.permute(1, 2, 0) if len(shape) == 3 else want.reshape(shape)
    assert np.allclose(got, want.numpy())

def test_show_image_passes_on(plt):
    ax = plt.subplots()[1]
    assert data.show_image(torch.rand(4, 4), ax, cmap='viridis', vmin=-1, vmax=2) is ax
    assert ax.images[0].get_cmap().name == 'viridis' and ax.images[0].get_clim() == (-1, 2)
    assert data.show_image(torch.rand(4, 4)).images[0].get_cmap().name == 'gray_r'

@pytest.mark.parametrize('shape', [(783,), (0,), (), (2, 28, 28), (1, 1, 28, 28), (0, 5), (5, 5, 3), (1, 0, 3)])
def test_what_is_no_image(plt, shape):
    with pytest.raises(ValueError, match='is no image: pass') as e: data.show_image(torch.zeros(shape))
    assert str(tuple(shape)) in str(e.value)
    with pytest.raises(ValueError, match='is no image'): data.show_images([torch.zeros(4), torch.zeros(shape)])
    assert plt.get_fignums() == []  # refused before anything is drawn

def test_show_images(plt):
    fig = data.show_images(torch.rand(7, 16), titles=torch.arange(7), ncols=3, size=.5)
    assert len(fig.axes) == 9 and [a.get_title() for a in fig.axes] == [*'0123456', '', ''] and fig.get_size_inches()[0] == 1.5
    assert [len(a.images) for a in fig.axes] == [1]*7+[0]*2 and not any(a.axison for a in fig.axes)
    assert len(data.show_images([torch.rand(4), np.zeros((2, 3))]).axes) == 2
    assert data.show_images(torch.rand(1, 4, 4), titles=['é']).axes[0].get_title() == 'é'
    assert [a.images[0].get_array().shape for a in data.show_images(torch.rand(2, 3, 4, 5)).axes] == [(4, 5, 3)]*2

def test_show_images_errors(plt):
    for args, kw in (((torch.rand(3, 4), [1, 2]), {}), (([],), {}), ((torch.rand(3, 4),), dict(ncols=0))):
        with pytest.raises(ValueError, match='pass'): data.show_images(*args, **kw)

# ---- fit_digit

def scale(line, m):
    "One line of pixels scaled to `m` by exact means of what each new pixel covers"
    n, res = len(line), []
    for i in range(m):
        parts = ((Fraction(j), Fraction(i*n, m), Fraction((i+1)*n, m)) for j in range(n))
        res.append(sum((max(min(b, j+1)-max(a, j), 0)*Fraction(v) for v, (j, a, b) in zip(line, parts)), Fraction(0))*m/n)
    return res

def fitted(img, size=28, box=20):
    "What `fit_digit` promises, in exact fractions and loops"
    top = max(map(max, img))
    rows = [i for i, r in enumerate(img) if max(r) > .05*top]
    cols = [j for j in range(len(img[0])) if max(r[j] for r in img) > .05*top]
    img = [r[cols[0]:cols[-1]+1] for r in img[rows[0]:rows[-1]+1]]
    h, w = len(img), len(img[0])
    mh, mw = (max(1, math.floor(Fraction(n*box, max(h, w))+Fraction(1, 2))) for n in (h, w))
    img = [*zip(*(scale(c, mh) for c in zip(*(scale(r, mw) for r in img))))]
    def start(ms):
        centre = sum(i*m for i, m in enumerate(ms))/sum(ms)
        return min(max(math.floor(size//2-centre+Fraction(1, 2)+Fraction(1, 10**6)), 0), size-len(ms))
    y, x = start([sum(r) for r in img]), start([sum(c) for c in zip(*img)])
    top, res = max(map(max, img)), np.zeros((size, size))
    for i, r in enumerate(img): res[y+i, x:x+mw] = [float(v/top*255/256) for v in r]
    return res

@pytest.mark.parametrize('h, w', [(1, 1), (1, 9), (9, 1), (7, 5), (20, 20), (19, 20), (31, 40), (50, 3), (45, 90)])
@pytest.mark.parametrize('box, size', [(20, 28), (1, 1), (5, 5), (7, 12)])
def test_fit_digit_is_exact(h, w, box, size):
    img = np.random.default_rng(h*w).integers(0, 256, (h, w))*(np.random.default_rng(1).random((h, w)) > .5)
    img[h//2, w//2] = 255
    got = data.fit_digit(img, size, box)
    assert got.dtype == torch.float32 and got.shape == (size*size,) and 0 <= got.min() and got.max() == 255/256
    assert np.abs(got.view(size, size).numpy()-fitted(img.tolist(), size, box)).max() < 1e-6

def test_fit_digit_gives_back_the_digits():
    xv = data.get_data()[2]
    for d in xv[:200].view(-1, 28, 28):
        f = data.fit_digit(torch.nn.functional.pad(d, (7, 1, 0, 4))).view(28, 28)
        if d.max() == 255/256 and ((d == 0) | (d > .05*d.max())).all(): assert torch.equal(f, d)  # no faint pixel at its edge
        assert (f-d).abs().max() < .06  # a faint edge is lost, the rest stays
        assert torch.equal(data.fit_digit(d), data.fit_digit(d.repeat_interleave(9, 0).repeat_interleave(9, 1)))

def test_fit_digit_takes_any_numbers():
    img = (np.random.default_rng(0).random((40, 30)) > .7)*200
    want = data.fit_digit(img)
    for o in (img.tolist(), img.astype('u1'), img.astype(bool), img/1e30, torch.tensor(img/7).float().requires_grad_(), np.asfortranarray(img)[:, ::1]):
        assert torch.allclose(data.fit_digit(o), want, atol=1e-6) and not data.fit_digit(o).requires_grad
    assert torch.equal(data.fit_digit((255-img).astype('u1'), invert=True), want)
    assert torch.equal(data.fit_digit(np.pad(img, ((9, 1), (0, 70)))), want)  # paper around it changes nothing

def test_fit_digit_ties_and_edges():
    where = lambda img, **kw: [s.nonzero()[[0, -1], 0].tolist() for s in (lambda f: (f.sum(1), f.sum(0)))(data.fit_digit(img, **kw).view(28, 28))]
    assert where(np.ones((20, 20))) == [[5, 24], [5, 24]] and where(np.ones((20, 10))) == [[5, 24], [10, 19]]  # a centre between two pixels: to the right and down
    heavy = np.full((20, 20), .06)
    heavy[:, 0] = 1
    assert where(heavy, box=27) == [[1, 27], [1, 27]]  # the frame holds it: by its mass it would stand further to the right
    assert where(np.ones((1, 400))) == [[14, 14], [5, 24]]  # a hairline stays one pixel thick

@pytest.mark.parametrize('img, kw, says', [
    (np.zeros((5, 5)), {}, 'blank'), (np.full((5, 5), 9), dict(invert=True), 'blank'), (np.ones(784), {}, r'shape \(784,\) is no picture'), (np.ones((3, 5, 5)), {}, 'no picture'),
    (np.ones((0, 5)), {}, 'no picture'), ([[0, np.nan]], {}, 'finite'), ([[0, np.inf]], {}, 'finite'), ([[0, np.inf]], dict(invert=True), 'finite'), ([[-1, 1]], {}, 'finite ink'),
    (np.ones((5, 5)), dict(box=29), 'box=29, size=28'), (np.ones((5, 5)), dict(box=0), 'box=0')])
def test_fit_digit_refuses(img, kw, says):
    with pytest.raises(ValueError, match=f'{says}.*pass|pass.*{says}'): data.fit_digit(img, **kw)

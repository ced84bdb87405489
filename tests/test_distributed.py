"Fits that several processes share: the same as in one, and none waits for ever"
import os, re, signal, sys, time, traceback
from datetime import timedelta
import pytest, torch
import torch.distributed as dist
from torch.utils import data as tud
from fits import F64, data, loaders, mlp, weights
from notes import distributed as di, learner as le, training as tr
from project import ROOT
import ranks

RANKS = ROOT/'tests'/'ranks.py'

def load(folder, name, n): return [torch.load(folder/f'{name}-{r}.pt') for r in range(n)]

@pytest.fixture(scope='module')
def one():
    "What one process gives, without a launcher"
    return ranks.equal()

@pytest.fixture(scope='module')
def four(tmp_path_factory):
    "Four processes, the third of which dies by a signal in its second epoch: what they gave before, what was raised, and after how long"
    d = tmp_path_factory.mktemp('four')
    start = time.monotonic()
    with pytest.raises(RuntimeError) as e: di.launch(RANKS, 4, 'four', d, timeout=240)
    return d, load(d, 'four', 4), str(e.value), time.monotonic()-start

@pytest.fixture(scope='module')
def two(four):
    "Two processes, which go on where the four ended, and do more"
    out = di.launch(RANKS, 2, 'two', four[0], timeout=240)
    return load(four[0], 'two', 2), out

def near(a, b, tol=1e-12):
    "Relative distance of tensors or lists"
    a, b = (torch.as_tensor(t, dtype=F64) for t in (a, b))
    assert a.shape == b.shape
    assert (a-b).norm() <= tol*b.norm(), ((a-b).norm()/b.norm()).item()

def same_fit(a, b):
    near(a['weights'], b['weights'])
    near(a['losses'], b['losses'])
    if 'epochs' not in a: return
    assert len(a['epochs']) == len(b['epochs'])
    for x, y in zip(a['epochs'], b['epochs']):
        assert x.keys() == y.keys() and x['step'] == y['step']
        for k in x: assert x[k] == pytest.approx(y[k], rel=1e-7 if k == 'accuracy' else 1e-12)  # `accuracy` is a float32

CASES = [*(f'{k}{more}' for k in ('ours', 'nn') for more in ('', ', one left', ', fewer than ranks', ', accumulated')), 'clipped', 'own', "torch's", 'a list', 'a stream']

@pytest.mark.parametrize('case', CASES)
def test_two_and_four_processes_equal_one(one, two, four, case):
    "20 steps, uneven shares and empty ones: weights, every loss, every metric, and the items of every batch"
    assert one.keys() == {*CASES} and len(one[case]['losses']) in (12, 20)
    for rs in ([r['equal'] for r in two[0]], [r['equal'] for r in four[1]]):
        for r in rs:
            same_fit(r[case], one[case])
            assert r[case]['batches'] == one[case]['batches'] and r[case]['items'] == one[case]['items']
            assert torch.equal(r[case]['weights'], rs[0][case]['weights']) and r[case]['epochs'] == rs[0][case]['epochs']  # to the last bit

def test_each_epoch_has_every_item_once_in_a_new_order(one):
    "Of one process, to which the test above compares"
    for case in ('ours', 'own', "torch's"):
        epochs = [sum(one[case]['batches'][i:i+5], []) for i in range(0, 20, 5)]
        assert all(sorted(e) == sorted(data(37).x[:, 0].tolist()) for e in epochs) and len({*map(tuple, epochs)}) == 4

def test_a_killed_worker_ends_all_with_a_clear_message(four):
    _, _, said, seconds = four
    assert re.match(r'rank 2 was killed by signal (9|15)\n' if os.name != 'nt' else 'rank 2|torchrun', said), said[:2000]
    assert seconds < 200

def test_a_run_killed_on_four_goes_on_with_two(two, four):
    "The same batches, losses and weights as in one process that nothing happened to"
    for kind in ('nn', 'ours'):
        whole = ranks.run(kind)
        for r in two[0]:
            got = r['resumed'][kind]
            same_fit(got, whole)
            n = len(got['batches'])
            assert got['batches'] == whole['batches'][-n:] and n == (20 if kind == 'ours' else 13)

def test_who_hangs_is_waited_for_no_longer_than_the_limit(tmp_path):
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r'rank \d: .*(?i:timed out|timeout)'): di.launch(RANKS, 2, 'hangs', tmp_path)
    assert time.monotonic()-start < 90  # the one that hangs would sleep for 100

def test_one_checkpoint_and_one_table(two, four):
    r, out = two
    assert out.split()[:3] == ['epoch', 'train_loss', 'valid_loss'] and out.count('train_loss') == 1 and len(out.splitlines()) == 3
    assert not [p for p in four[0].iterdir() if p.name.endswith('.tmp')]

# Two processes ---------------------------------------------------------------------------------------------------------------------

def test_sharded_parameters_equal_whole_ones(two):
    one = ranks.sharded()
    for r in two[0]:
        for k in one: same_fit(r['others']['sharded'][k], one[k])

def test_predictions_trials_and_unused_parts(two):
    one = ranks.others(False)
    for r in two[0]:
        r = r['others']
        for k in ('ours', 'nn'):
            near(r[k+' finder']['losses'], one[k+' finder']['losses'])
            assert r[k+' finder']['suggestion'] == pytest.approx(one[k+' finder']['suggestion']) and r[k+' finder']['kept'] and one[k+' finder']['kept']
            for a, b in zip(r[k+' preds'], one[k+' preds']): near(a, b)
            near(r[k+' fits on'], one[k+' fits on'])
        same_fit(r['unused'], one['unused'])

def test_each_rank_draws_numbers_of_its_own(two):
    a, b = (r['several'] for r in two[0])
    assert len(a['draws']) == len(b['draws']) == 20 and all(x != y for p, q in zip(a['draws'], b['draws']) for x, y in zip(p, q))
    assert a['noisy']['batches'] == b['noisy']['batches']

def test_a_run_with_dropout_goes_on_to_the_last_bit(two):
    for r in two[0]:
        r = r['several']
        assert 'noise cut' not in r
        for k in ('weights', 'losses', 'epochs'): assert str(r['noise'][k]) == str(r['noise on'][k]) and len(r['noise'][k])
        assert torch.equal(r['noise']['weights'], r['noise on']['weights'])

def test_buffers_are_those_of_rank_0(two):
    a, b = (r['several'] for r in two[0])
    assert len(a['buffers']) == 3 and all(torch.equal(x, y) for x, y in zip(a['buffers'], b['buffers'])) and a['buffers'][0].abs().max() > 0

def test_early_stopping_is_agreed_by_all(two):
    "By a metric that each rank sees otherwise"
    assert [r['several']['stopped'] for r in two[0]] == [2, 2]

def test_accumulation_sums_once_for_a_step(two):
    "Five batches: with `GradAccum(2)` three steps; DistributedDataParallel's own sums are not counted"
    for r in two[0]: assert [r['several'][f'sums {k} {n}'] for k in ('ours', 'nn') for n in (1, 2)] == [5, 3, 0, 3]

def test_what_is_refused_on_all_ranks(two):
    for r in two[0]:
        for said, want in zip(r['several']['errors'], ('every=3 would save between', 'same script, and see', 'same script, and see', 'a Distributed already', None, 'same script, and see', 'sharded')):
            assert said is None if want is None else said.startswith('ValueError') and want in said, said

def check_alike(rs, one):
    for r in rs:
        for k in ('more loss', 'spare'): same_fit(r[k], one[k])
        near(r['made in the call'], one['made in the call'])

def check_apart(rs):
    for k in ('never fitted', 'cancelled', 'cancelled in a group'):
        for got, _, after in (r[k] for r in rs):
            near(got, rs[0][k][1])  # what rank 0's model says of all items
            near(after, rs[0][k][1])
    first, draws = zip(*(r['numpy'] for r in rs))
    assert len({*first, *draws}) == 4
    assert [r['grown'] for r in rs] == [14, 7]  # on rank 1 what the file has of rank 0's; it is not called
    for r in rs:
        for said, want in zip(r['errors'], (None, 'same script, and see', 'same script, and see', 'DistributedSampler', 'same script, and see'), strict=True):
            assert said is None if want is None else said and said.startswith('ValueError') and want in said, said

def test_what_a_reviewer_found(two):
    check_alike([r['alike'] for r in two[0]], ranks.alike())
    check_apart([r['apart'] for r in two[0]])

def test_batch_norm_has_two_items_at_least(four):
    "On four ranks a batch of five: 3 and 2, not 2, 1, 1, 1"
    for r in four[1]: assert r['norm']['items'] == [8, 8, 8, 8, 5] and sorted(r['norm']['batches'][4]+sum(r['norm']['batches'][:4], [])) == sorted(data(37).x[:, 0].tolist())

def forked(f, size, folder):
    "What `f` gives on each rank of `size` forks of this process, which has imported PyTorch already: for test_planted_bugs.py, where torchrun would take long"
    pids = []
    for r in range(size):
        if pid := os.fork(): pids.append(pid)
        else:
            try:
                torch.set_num_threads(1)
                dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=r, world_size=size, timeout=timedelta(seconds=20))
                torch.save(f(), folder/f'forked-{r}.pt')
            except BaseException: traceback.print_exc(); os._exit(1)
            os._exit(0)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0]*size
    return load(folder, 'forked', size)

@pytest.mark.skipif(sys.platform != 'linux', reason="only Linux can fork a process with PyTorch in it safely; the tests above show the same")
def test_in_short_by_forks(tmp_path):
    one, two = ranks.quick(tmp_path/'one'), forked(lambda: ranks.quick(tmp_path), 2, tmp_path)
    for r in two:
        for k in ('ours', 'nn', 'accumulated'):
            same_fit(r[k], one[k])
            assert r[k]['batches'] == one[k]['batches'] and r[k]['items'] == one[k]['items'] and r['sums'] == 6
        assert r['stopped'] == 2 and torch.equal(r['noise'], r['noise on']) and all(map(torch.equal, r['buffers'], two[0]['buffers']))
        near(r['preds'], one['preds'])
    check_alike([r['alike'] for r in two], one['alike'])
    check_apart([r['apart'] for r in two])
    assert all(x != y for p, q in zip(two[0]['draws'], two[1]['draws']) for x, y in zip(p, q)) and [p.parent.name for p in tmp_path.glob('?/own.pt')] == ['0']

# The README, and what needs no other process ------------------------------------------------------------------------------------------

def test_the_scripts_of_the_readme(tmp_path):
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    block, = re.findall(r'```python\n(# train\.py\n.*?)```', text, re.S)
    assert 'torchrun --nproc-per-node 2 train.py' in text
    code = [l for l in block.splitlines() if l.strip() and not l.startswith('#')]
    assert len(code) == 10
    (tmp_path/'train.py').write_text(block, encoding='utf-8')
    out = di.launch(tmp_path/'train.py', 2)
    head, *rows = out.splitlines()
    assert head.split() == ['epoch', 'train_loss', 'valid_loss', 'accuracy'] and len(rows) == 2 and float(rows[-1].split()[-1]) > .9

def test_one_process_without_a_launcher_is_left_alone():
    assert di.join() == (0, 1) and not dist.is_initialized()
    a, b = (le.Learner(mlp(), loaders(), torch.nn.functional.cross_entropy, cbs=[le.Metrics(), le.Recorder(), *more]) for more in ([], [di.Distributed()]))
    for l in (a, b): l.fit(2)
    assert torch.equal(weights(a.model), weights(b.model)) and a.recorder.epochs == b.recorder.epochs and [type(cb) for cb in b.cbs] == [le.Metrics, le.Recorder, di.Distributed]
    for x, y in zip(a.get_preds(), b.get_preds()): assert torch.equal(x, y)
    assert a.lr_find(n=40).losses == b.lr_find(n=40).losses

def test_a_callback_for_rank_0_alone():
    "`on_all = False`, as `Progress` has it"
    class Shows(le.Callback):
        on_all, n = False, 0
        def before_fit(self): self.n += 1
        def after_batch(self): self.n += 1
    class Looks(le.Callback):
        def after_fit(self): self.seen = [*self.learn.cbs]
    for rank, n in ((0, 1+5+2), (1, 0)):
        l = le.Learner(mlp(), loaders(), torch.nn.functional.cross_entropy, cbs=[cb := Shows(), look := Looks()])
        l.rank = rank
        l.fit(1)
        assert cb.n == n and l.cbs == look.seen == [cb, look] and not le.Progress.on_all and le.Recorder.on_all

def test_who_is_not_done_in_time_is_ended(tmp_path):
    (tmp_path/'sleeps.py').write_text('import time; time.sleep(100)')
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='not done after 5 s'): di.launch(tmp_path/'sleeps.py', 2, timeout=5)
    assert time.monotonic()-start < 90

def test_what_a_script_leaves_behind_is_not_waited_for(tmp_path):
    (tmp_path/'leaves.py').write_text("import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'], start_new_session=True).pid)")
    start = time.monotonic()
    pid = int(di.launch(tmp_path/'leaves.py', 1, timeout=60))
    assert time.monotonic()-start < 60
    os.kill(pid, signal.SIGTERM)

@pytest.mark.parametrize('size', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('n', [1, 2, 3, 5, 8, 64])
def test_shares_are_all_of_a_batch_and_each_item_once(n, size):
    batch = [*range(10, 10+n)]
    shares = [di.share(batch, r, size) for r in range(size)]
    assert sum((part[:k] for part, k, _ in shares), []) == batch and all(total == n for *_, total in shares)
    assert all(len(part) == (k or n) for part, k, _ in shares) and [k for _, k, _ in shares] == sorted((k for _, k, _ in shares), reverse=True) and shares[0][1]-shares[-1][1] <= 1

def test_a_share_may_need_two_items():
    for size in (1, 2, 3, 4, 8):
        for n in range(1, 40):
            at = di.cuts(n, size, 2)
            ns = [b-a for a, b in zip(at, at[1:])]
            assert sum(ns) == n and len(ns) == size and (1 not in ns or n == 1) and [k for k in ns if k] == ns[:size-ns.count(0)] and max(ns)-min(k for k in ns if k) <= 1
            assert at == di.cuts(n, size) or n < 2*size

@pytest.mark.parametrize('timeout', [0, -1])
def test_a_limit_is_above_0(timeout):
    with pytest.raises(ValueError, match='timeout'): di.join(timeout)

def test_a_loader_with_indices_reads_its_share_alone(monkeypatch):
    monkeypatch.setattr(di, 'from_rank_0', lambda o: o)
    class Reads(tr.Dataset):
        def __getitem__(self, i):
            self.read += i if isinstance(i, list) else [i]
            return super().__getitem__(i)
    for make in (lambda ds: tr.DataLoader(ds, 8), lambda ds: tr.get_dls(ds, ds, 8)[1], lambda ds: tud.DataLoader(ds, 8), lambda ds: tud.DataLoader(ds, batch_sampler=tr.BatchSampler(tr.Sampler(ds), 8))):
        ds = Reads(*data(20)[:])
        ds.read = []
        dl = make(ds)
        new, shared = di.share_dl(dl, 0, 2)
        assert len(new) == len(dl) == 3
        x = torch.cat([x for x, _ in new])
        assert ds.read == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17] and torch.equal(x, ds.x[ds.read]) and shared.counts == [(4, 8), (4, 8), (2, 4)]
        assert sum(len(x) for x, _ in dl) == 20  # the loader itself is as it was

def test_workers_read_shares_too(monkeypatch):
    monkeypatch.setattr(di, 'from_rank_0', lambda o: o)
    dl = tud.DataLoader(tud.TensorDataset(*data(20)[:]), 8, num_workers=1, persistent_workers=True)
    sum(len(x) for x, _ in dl)  # its workers are there, with an order of their own
    new, _ = di.share_dl(dl, 0, 2)
    for _ in range(2): assert [len(x) for x, _ in new] == [4, 4, 2]

def test_a_loader_without_indices_is_cut(monkeypatch):
    monkeypatch.setattr(di, 'from_rank_0', lambda o: o)
    x, y = data(20)[:]
    for dl in ([(x, y), (x[:3], y[:3])], tud.DataLoader(tud.TensorDataset(x, y), None, sampler=[slice(0, 20), slice(0, 3)])):
        new, shared = di.share_dl(dl, 0, 4)
        assert [len(a) for a, _ in new] == [5, 1] and shared.counts == [(5, 20), (1, 3)] and len(new) == 2
    assert di.share([1, 2, 3], 3, 4) == ([1, 2, 3], 0, 3)

def test_what_failed_is_named():
    tail = 'Failures:\n[1]:\n  rank      : 0 (local_rank: 0)\n  exitcode  : -15 (pid: 1)  (SIGTERM)\nRoot Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : {} (pid: 2)\n'
    assert di._why(tail.format(-9)) == 'rank 1 was killed by signal 9'
    said = '[rank0]: RuntimeError: [/x/gloo/y] Connection closed by peer\n[rank1]: ValueError: lr=-1\n[rank1]:   File "x"\n'
    assert di._why(said+tail.format(1)) == 'rank 1: ValueError: lr=-1'
    assert di._why(said[:62]+tail.format(1)) == 'rank 1 ended with exit code 1' and di._why(said[:62]).startswith('rank 0: RuntimeError') and di._why('') == 'torchrun failed'

"Settings that all tests share"
import os, sys
from hypothesis import HealthCheck, Phase, settings
from project import ROOT

# This checkout's `notes`, unless PYTHONPATH names another copy, as tests/test_planted_bugs.py does.
if not os.environ.get('PYTHONPATH'): sys.path.insert(0, str(ROOT))
os.environ['MPLBACKEND'] = 'agg'
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # two processes share the cores: a thread that waits must not spin

quiet = [HealthCheck.too_slow]
# The same examples in every run: a check that fails must fail again. `HYPOTHESIS_PROFILE=search` looks for new ones.
settings.register_profile('ci', derandomize=True, deadline=None, print_blob=True, suppress_health_check=quiet)
settings.register_profile('search', deadline=None, max_examples=1000, print_blob=True, suppress_health_check=quiet)
settings.register_profile('planted', derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=quiet)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'ci'))

# `NOTES_DEVICE=cuda pytest tests/test_modules.py`: what a test makes lies on that device, unless it says another. Not all tests are made for that: some want NumPy's arrays, or the CPU's numbers.
if os.environ.get('NOTES_DEVICE'): import where  # noqa: F401

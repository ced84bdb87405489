"What is installed stands in settings.ini, the version in notes/__init__.py, all else in pyproject.toml."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
cfg = ConfigParser()
cfg.read(here/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
lines = lambda key: cfg[key].split('\n')[1:] if cfg[key] else []

setup(
    version=re.search(r'__version__ = "(.+)"', (here/'notes'/'__init__.py').read_text(encoding='utf-8')).group(1),
    install_requires=lines('requirements'),
    extras_require={'dev': lines('dev_requirements')},
    entry_points={'console_scripts': lines('console_scripts')},
)

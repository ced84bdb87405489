"What is installed stands in settings.ini, the version in notes/__init__.py, the text in README.md, all else in pyproject.toml."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
read = lambda *path: here.joinpath(*path).read_text(encoding='utf-8')
cfg = ConfigParser(interpolation=None)
cfg.read_string(read('settings.ini'))
lines = lambda key: [l for l in cfg['DEFAULT'][key].split('\n') if l]
repo = re.search(r'^Repository = "(.+)"', read('pyproject.toml'), re.M).group(1)

setup(
    version=re.search(r'__version__ = "(.+)"', read('notes', '__init__.py')).group(1),
    install_requires=lines('requirements'),
    extras_require={'dev': lines('dev_requirements')},
    entry_points={'console_scripts': lines('console_scripts')},
    # On a package index there is no repository around the README for its relative links
    long_description=re.sub(r'\]\((?!\w+:|#)', f']({repo}/blob/main/', read('README.md')),
    long_description_content_type='text/markdown',
)

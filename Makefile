# make         set up, run the notebooks, build the site
# make test    all of that, and every check
# make help    the rest
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
READY := $(VENV)/.ready
# PyPI's Linux wheels of torch carry CUDA, some gigabytes of it. PyTorch's own index has the build for the CPU;
# where it can't be reached, pip goes on with the index it has.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# A notebook's name or number, to run that one only: make run NB=01_matmul, make run NB=01
NB ?=
PORT ?= 8000
# A benchmark's name, to measure that one only: make bench B=matmul
B ?=
BENCH := .venv-bench
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: all help setup export run store quick docs site test lint lab serve lock bench clean

all: docs
	@echo && echo "The site is in _docs/: open _docs/index.html, or type: make serve"

help:
	@echo "make           set up, run every notebook, build the site into _docs/"
	@echo "make test      all of that, and every check"
	@echo "make site      build the site from the stored outputs, without running anything"
	@echo "make serve     serve the site on 127.0.0.1 (PORT=8000)"
	@echo "make lab       open JupyterLab on the series"
	@echo "make export    write the modules of notes/ from the notebooks"
	@echo "make run       run the notebooks that changed (NB=01_matmul: only that one)"
	@echo "make quick     export, run one notebook, and check it: NB=02, or NB=02a_modules; less than a minute"
	@echo "make store     the same, and store their outputs in nbs/"
	@echo "make bench     measure, beside other libraries where they can be had (B=matmul: only that one)"
	@echo "make lock      choose new versions for requirements.txt"
	@echo "make clean     remove all that was built, but not $(VENV)/"

setup: $(READY)
$(READY): requirements.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c "import sys; v = sys.version.split()[0]; sys.exit('Python 3.10 or newer is needed, and $(PYTHON) is ' + v + '. Name another: make PYTHON=python3.12' if sys.version_info < (3,10) else None)"
	@echo "Setting up $(VENV)/ with the versions in requirements.txt; the first time takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --retries 1 --no-deps --extra-index-url $(TORCH_INDEX) -c requirements.txt torch
	@$(BIN)/python -m pip install -q -r requirements.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check
	@$(BIN)/python -c "open('$(READY)', 'w')"

export: $(READY)
	@$(BIN)/python tools/repository.py
	@$(BIN)/nbdev-export

run: export
	@$(BIN)/python tools/run.py $(NB)

store: export
	@$(BIN)/python tools/run.py --store $(NB)

# Its module's tests, the answers to its questions and the rules for it; not the site, and not the planted bugs
quick: export
	@test -n "$(NB)" || (echo "Which one? make quick NB=02" && exit 1)
	@$(BIN)/python tools/run.py $(NB)
	@$(BIN)/ruff check
	@$(BIN)/python tools/quick.py $(NB)

docs: run
	@$(BIN)/python tools/site/build.py

site: export
	@$(BIN)/python tools/site/build.py --stored

lint: $(READY)
	@$(BIN)/ruff check

test: docs lint
	@$(BIN)/python tools/count.py
	@$(BIN)/python -m pytest

lab: $(READY)
	@$(BIN)/jupyter lab nbs

serve:
	@test -f _docs/index.html || $(MAKE) site
	@echo "http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)" && $(PYTHON) -m http.server -b 127.0.0.1 -d _docs $(PORT)

# torch and matplotlib stay as they are in requirements.txt, since the stored numbers and pictures are theirs: change their lines
# by hand, and store anew. The CUDA packages come with torch where it has CUDA.
lock: $(READY)
	@mkdir -p _build && $(BIN)/python -m pip install -q uv
	@grep -E '^(torch|matplotlib)==' requirements.txt > _build/keep.txt
	@$(BIN)/uv pip compile -q --refresh-package foundation-notes --universal --python-version 3.10 --extra dev --no-annotate --no-header -c _build/keep.txt -o _build/lock.txt pyproject.toml
	@(echo "# Every version that make installs, for Python 3.10 and newer; made from settings.ini by: make lock" && grep -vE '^(nvidia|cuda|triton)' _build/lock.txt) > requirements.txt

# The peers get an environment of their own, which holds the series too: both sides of a comparison run on one torch, and $(VENV)/
# stays as the tests know it. A peer that can't be installed stops nothing: the benchmarks name it as missing.
$(BENCH)/.ready: requirements.txt settings.ini setup.py pyproject.toml bench/peers.txt
	@echo "Setting up $(BENCH)/ with the series and bench/peers.txt: up to 6 GB where torch comes with CUDA"
	@$(PYTHON) -m venv $(BENCH)
	@mkdir -p _build && grep -v '^torch==' requirements.txt > _build/bench.txt
	@$(BENCH)/bin/python -m pip install -q --retries 1 --extra-index-url $(TORCH_INDEX) -c _build/bench.txt $$(grep '^torch==' bench/peers.txt)
	@$(BENCH)/bin/python -m pip install -q -r _build/bench.txt
	@$(BENCH)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@grep '==' bench/peers.txt | while read peer; do \
		$(BENCH)/bin/python -m pip install -q --retries 1 --extra-index-url $(TORCH_INDEX) -c _build/bench.txt -c bench/peers.txt $$peer || echo "Missing: $$peer"; done
	@$(BENCH)/bin/python -c "open('$(BENCH)/.ready', 'w')"

bench: $(BENCH)/.ready
	@$(BENCH)/bin/python -m bench $(B)

clean:
	@rm -rf _build _docs build dist *.egg-info .pytest_cache .hypothesis .ruff_cache

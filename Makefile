# make        set up, run the notebooks, build the site
# make test   the same, and then every check
# make help   the rest
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# PyPI's Linux wheels of torch carry CUDA, some gigabytes of it; PyTorch's own index has the build for the CPU.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
NB     ?=

.PHONY: all setup export run store site test lab serve lock clean help
all: site-fresh
	@echo; echo "The site is at _docs/index.html. Open it as it is, or by: make serve"; echo

help:
	@echo "make           set up, run every notebook, build the site into _docs/"
	@echo "make test      all of that, and every check"
	@echo "make site      build the site from the stored outputs alone"
	@echo "make serve     serve the site on 127.0.0.1"
	@echo "make lab       open JupyterLab on the series"
	@echo "make run       run the notebooks (NB=01_matmul for one of them)"
	@echo "make store     run them and store the outputs in nbs/"
	@echo "make export    write the modules of notes/ from the notebooks"
	@echo "make clean     remove what was built, but not .venv"

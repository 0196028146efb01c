# Every target works from a clean clone; the environment is ./.venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
# The lock's files with their hashes, for Linux x86_64 and the Python that its first line names.
HASHES := constraints.hashes.txt
DOWNLOAD :=
# Further arguments for pip, and an index of PyTorch's CPU wheels for `make dev-cpu`.
PIP_EXTRA_ARGS :=
TORCH_INDEX :=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) $(PIP_EXTRA_ARGS)
# One test process per core, with one thread each.
PYTEST := env OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
# Options of the whole suite: --clips FOLDER, ...
PYTEST_OPTIONS :=
RESULTS := benchmarks/results

SEEDS ?= 5

.PHONY: help venv dev-cpu packages-cpu lock verify-lock dist demo web-demo quick test test-torchcodec test-latest test-oldest test-slow attack data-faults decode-corpus decode-sweep train-smoke \
	resume-trials batch-trials tiny-clip tiny tradeoff tradeoff-quick interpret aot traffic device-dry bench bench-baseline bench-check performance scaling docs lint format clean

help:
	@echo "make demo       build the environment, classify videos of classes that the model never saw"
	@echo "make web-demo   the same videos on a page for the browser, until Ctrl-C; it prints the address"
	@echo "make test       build the environment, run the tests"
	@echo "make dev-cpu    build the environment without the packages that only GPUs need; TORCH_INDEX=URL for CPU wheels of PyTorch"
	@echo "make quick      the fast tests, under a minute on two cores"
	@echo "make test-torchcodec  the tests that need torchcodec, and of what asks whether it serves; they need FFmpeg's libraries"
	@echo "make test-latest  all tests with the newest versions of everything, in .venv-latest"
	@echo "make test-oldest  the quick tests with the oldest versions that setup.py allows, in .venv-oldest"
	@echo "make test-slow  the long suites: 3000 damaged videos and more generated cases"
	@echo "make attack     hostile files, weights and folders, kills and full disks, at full size, with counts"
	@echo "make data-faults  2000 files, half of them damaged, with workers killed continuously"
	@echo "make decode-corpus  2000 generated videos of every codec and container, half of them lying, against playing them"
	@echo "make decode-sweep FOLDER=path  every video below a folder against FFmpeg's command line; WORKERS=n, TABLE=file.csv"
	@echo "make train-smoke  torchrun with two processes on generated videos: the loss falls, the model learns"
	@echo "make resume-trials  runs killed at random, resumed, and compared bit for bit"
	@echo "make batch-trials  a collection whose driver and workers are killed at random, compared with an undisturbed run"
	@echo "make tiny       train the shipped tiny model again, from scratch"
	@echo "make tradeoff   MoTE against plain temporal transformers in a drawn world: table, CSV and figures"
	@echo "make interpret  every kernel under Triton's interpreter, 220 generated cases per test"
	@echo "make aot        every kernel compiled for six GPUs by the Triton that is installed, checked against the committed report"
	@echo "make traffic    bytes that the kernels move at training shapes, against the compulsory ones"
	@echo "make device-dry  benchmarks/device_check.py without a GPU: its code on small sizes"
	@echo "make bench      every committed figure, against the official recipe, on this machine; needs a clean tree"
	@echo "make bench-NAME  one file of them: $(BENCHMARKS) baseline"
	@echo "make bench-check  the quick benchmark's ratios against the committed ones"
	@echo "make scaling    time and memory of a training step against the number of experts"
	@echo "make performance  rewrite what pages say of the committed figures, those of GPUs too"
	@echo "make docs       the documentation site, in build/site; warnings are errors, and no page fetches from another host"
	@echo "make lock       write constraints.txt, the versions of everything in .venv, and their hashes"
	@echo "make verify-lock  compare the lock's hashes with the files that pip would install; DOWNLOAD=folder fetches them too"
	@echo "make dist       the wheel and the source archive, checked, installed into an empty environment and used; PYTHONS='python3.10 ...'"
	@echo "make lint       ruff, the import contract, codespell and pyright"
	@echo "make format     ruff format"
	@echo "make clean      remove the environment and caches"

venv: $(BIN)/.installed

$(BIN)/.installed: setup.py pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	if [ -e $(BIN)/.cpu ]; then $(MAKE) packages-cpu; else $(INSTALL) --editable '.[dev]'; fi
	touch $@

# The marker .cpu lets every later target install the same set again, if setup.py or the lock changes.
dev-cpu:
	$(PYTHON) -m venv $(VENV)
	touch $(BIN)/.cpu
	rm -f $(BIN)/.installed
	$(MAKE) venv

packages-cpu:
	$(INSTALL) packaging setuptools
	mkdir -p build
	$(BIN)/python setup.py --quiet egg_info --egg-base build
	PYTHONPATH=build $(BIN)/python tools/versions.py cpu > build/cpu.txt
	$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --requirement build/cpu.txt
	$(INSTALL) --no-deps --editable .

lock: venv
	$(BIN)/python tools/versions.py lock > constraints.part && mv constraints.part constraints.txt
	$(BIN)/python tools/versions.py hashes > constraints.part && mv constraints.part $(HASHES)

# pip asks its indexes and installs nothing; with DOWNLOAD=folder it also fetches every file, and hashes what it got.
verify-lock: venv
	$(BIN)/python -m pip $(if $(DOWNLOAD),download --dest "$(DOWNLOAD)",install --dry-run --ignore-installed) --quiet \
		--disable-pip-version-check --no-deps --require-hashes $(PIP_EXTRA_ARGS) --requirement $(HASHES)

# The Pythons that try the wheel; each installs PyTorch into an environment of its own, and removes it.
PYTHONS := $(PYTHON)

dist:
	rm -rf dist build/dist
	$(PYTHON) -m venv build/dist
	build/dist/bin/python -m pip install --quiet --disable-pip-version-check build twine
	build/dist/bin/python -m build --quiet
	build/dist/bin/twine check --strict dist/*
	$(PYTHON) tools/check_dist.py $(addprefix --python ,$(PYTHONS))

demo: venv
	$(BIN)/mote-fast demo
	@echo "make web-demo opens the same on a page for the browser."

web-demo: venv
	$(BIN)/mote-fast serve --demo

quick: venv
	@start=$$(date +%s); $(PYTEST) -m "not slow and not heavy" && echo "make quick took $$(($$(date +%s) - start)) s"

# The page's tests drive Chromium by Playwright, which is in the lock; they skip where there is no browser:
# apt-get install chromium. Screenshots go to build/browser.
# Triton reads its variable for the interpreter at import, so the choice holds for the whole process.
test: venv
	TRITON_INTERPRET=1 $(PYTEST) tests/kernels/interpreted --hypothesis-profile=quick
	$(BIN)/python benchmarks/static_report.py --quick --jobs 2
	TRITON_INTERPRET=1 $(BIN)/python benchmarks/traffic.py --quick
	$(PYTEST) -m "not slow" $(PYTEST_OPTIONS)

# What asks whether torchcodec serves, beside the tests that need it. "auto" decodes by PyAV, which has FFmpeg's libraries
# of its own, so nothing else differs from a run without them.
ASKS_TORCHCODEC := $(addprefix tests/data/,decoding/test_decode.py decoding/test_decode_clips.py gpu \
	loading/test_decode_pool.py test_dataset.py test_loaders.py) \
	$(addprefix tests/cli/test_,cli.py::test_doctor cli.py::test_demo train.py loader_option.py) \
	tests/benchmarks/test_stages.py::test_peers_are_measured_or_said_to_be_missing tests/tools/test_decode_sweep.py

test-torchcodec: venv
	$(PYTEST) --require-torchcodec -m "torchcodec and not slow"
	$(PYTEST) --require-torchcodec -m "not torchcodec and not slow" $(ASKS_TORCHCODEC)

test-latest:
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=/dev/null

test-oldest: venv
	mkdir -p build
	$(BIN)/python tools/versions.py oldest > build/oldest.part
	cmp -s build/oldest.part build/oldest.txt || mv build/oldest.part build/oldest.txt
	$(MAKE) quick VENV=.venv-oldest CONSTRAINTS=build/oldest.txt

test-slow: venv
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m "not slow" --hypothesis-profile=explore tests/data tests/clip tests/head tests/model tests/ops tests/runtime tests/training

attack: venv
	$(PYTEST) tests/attack --attack

data-faults: venv
	$(BIN)/python -m pytest -m slow -o log_cli=true --log-cli-level=INFO \
		tests/data/loading/test_fault_trials.py tests/data/loading/test_decode_pool.py

decode-corpus: venv
	$(BIN)/python -m pytest -m slow -o log_cli=true --log-cli-level=INFO tests/data/corpus

# The folder of videos, the number of processes, and a .csv or .md file to write.
FOLDER :=
WORKERS := 1
TABLE :=

decode-sweep: venv
	@test -n "$(FOLDER)" || { echo "make decode-sweep FOLDER=path: name the folder of the videos"; exit 2; }
	$(BIN)/python -m tools.decode_sweep "$(FOLDER)" --workers $(WORKERS) $(addprefix --output ,$(TABLE))

train-smoke: venv
	$(BIN)/python -m pytest -m slow tests/training/test_train.py

resume-trials: venv
	$(BIN)/python -m pytest -m slow tests/training/test_resume.py

# The trials of Ray skip without the extra ray, which is not in the lock.
batch-trials: venv
	$(BIN)/python -m pytest -m slow -o log_cli=true --log-cli-level=INFO tests/batch

runs/tiny_clip/config.json: | venv
	$(BIN)/python lab/train_clip.py --output runs/tiny_clip

tiny-clip: runs/tiny_clip/config.json

tiny: tiny-clip
	$(BIN)/python lab/write_world.py
	$(BIN)/python train.py --config configs/tiny_world.yaml
	$(BIN)/python lab/pack_tiny.py --model runs/tiny/best

tradeoff: tiny-clip
	$(BIN)/python lab/tradeoff.py --seeds $(SEEDS)

# Uses the shipped towers, so no towers are trained.
tradeoff-quick: venv
	$(BIN)/python lab/tradeoff.py --quick --clip tiny --folder runs/tradeoff_quick

interpret: venv
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/kernels/interpreted --hypothesis-profile=long

aot: venv
	$(BIN)/python benchmarks/static_report.py

traffic: venv
	TRITON_INTERPRET=1 $(BIN)/python benchmarks/traffic.py

device-dry: venv
	$(BIN)/python benchmarks/device_check.py --out build/device_dry --device cpu --dry

BENCHMARKS := throughput memory fold kernels scaling inference_scaling data
# Folder of real clips, which bench-data measures beside the generated videos.
CLIPS :=

bench: $(addprefix bench-,$(BENCHMARKS)) bench-baseline

bench-throughput bench-memory bench-fold bench-kernels bench-scaling bench-inference_scaling bench-data: bench-%: venv
	$(BIN)/python benchmarks/run.py $* --json $(RESULTS)/$*.json --plot $(RESULTS)/$*.png $(addprefix --clips ,$(CLIPS))

bench-baseline: venv
	$(BIN)/python benchmarks/throughput.py --quick --json $(RESULTS)/baseline.json

bench-check: venv
	$(BIN)/python benchmarks/throughput.py --quick --check $(RESULTS)/baseline.json

scaling: bench-scaling bench-inference_scaling

# Benchmarks one at a time, whatever -j says.
.NOTPARALLEL:

performance: venv
	$(BIN)/python benchmarks/performance_table.py
	$(BIN)/python benchmarks/device_figures.py

docs: $(BIN)/.docs
	env NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(BIN)/.docs: $(BIN)/.installed
	mkdir -p build
	$(BIN)/python tools/versions.py docs > build/docs.txt
	$(INSTALL) --requirement build/docs.txt
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	@if [ -e $(BIN)/.cpu ]; then echo "pyright: left out, it needs the types of Triton and DALI"; else $(BIN)/pyright; fi

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-latest .venv-oldest build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

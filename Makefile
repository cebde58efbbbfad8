# Two commands matter: `make book` and `make test`. Both set up their own .venv first.
PROFILE ?= quick
ONLY    ?=
N       ?= 01
COHORT  ?=
OTHER   ?=
SIZE    ?= quick
SCORE   ?=
CELL    ?=
NAME    ?=
HOURS   ?=
OLDER   ?=
PYTHON  ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' 2>/dev/null && { echo $$p; break; }; done)
PY      := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help book report test pages bench run freeze keep cost again student figure figures explorer print notebook data lint lock clean

help:  ## Show this list
	@echo "The TxT book. Commands:"
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "Settings: PROFILE=quick|real|paper  ONLY=06  N=06  COHORT=metabric  OTHER=path  SIZE=quick|full  SCORE=700  NAME=scanb_os  HOURS=2  OLDER=1  PYTHON=python3.12"

book: .venv/ready  ## Execute the notebooks and render the book [PROFILE=quick] [ONLY=06]
	@$(PY) book/build.py --profile "$(PROFILE)" $(if $(ONLY),--only "$(ONLY)")

report: .venv/ready  ## Make the chapters that can be asked of a cohort of yours, as a book of its own [COHORT=path] [OTHER=path] [SIZE=quick]
	@$(PY) book/report.py --cohort "$(COHORT)" --other "$(OTHER)" --size "$(SIZE)" --only "$(ONLY)"

test: .venv/ready  ## Run the tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --ignore=tests/bench

pages: .venv/ready  ## Open every built page in a headless browser, network off (after make book)
	@TXT_PAGES=required $(PY) -m pytest tests/browser

bench: .venv/ready  ## Measure speed and memory beside the slow twin: a table, and _build/bench/speed.json (10 minutes)
	@$(PY) tests/bench/bench_speed.py

run: .venv/ready  ## Go on with a long run of data/plans.yml, each finished cell kept [NAME=scanb_os] [HOURS=2] [OLDER=1]
	@$(PY) -m txtlib.runs $(if $(HOURS),--hours "$(HOURS)") $(if $(OLDER),--older) -- "$(NAME)"

freeze: .venv/ready  ## Sum up a long run, or the part that is done, in data/results [NAME=scanb_os]
	@$(PY) -m txtlib.runs --freeze -- "$(NAME)"

keep: .venv/ready  ## Keep what chapters found with the profile paper, to be shown beside shorter runs (data/results)
	@$(PY) book/longer.py

cost: .venv/ready  ## Keep what each page took as its budget, after a build on a quiet machine (data/results) [PROFILE=quick]
	@$(PY) book/budget.py "$(PROFILE)"

again: .venv/ready  ## Execute three chapters a second time and compare all they hold, bit for bit (after make book)
	@$(PY) book/again.py

student: .venv/ready  ## Write the notebooks without solutions, for a class, into _build/student
	@$(PY) book/student.py

figure: .venv/ready  ## Draw one figure again, as its passport says [N=06] [CELL=5ba24b32] [PROFILE=quick]
	@$(PY) book/figure.py --profile "$(PROFILE)" --number "$(N)" --cell "$(or $(CELL),none)"

figures: .venv/ready  ## Write all figures of the executed book, with captions, into _build/figures [PROFILE=quick]
	@$(PY) book/figure.py --profile "$(PROFILE)"

explorer: .venv/ready  ## Train what the explorer's grid lacks, cell by cell, into data/results (an hour; needs SCAN-B)
	@$(PY) book/explorer.py

print: .venv/ready  ## Render the built book as one page to print, and as PDF where Chromium is installed
	@$(PY) book/printing.py

notebook: .venv/lab  ## Open JupyterLab on one notebook [N=06]
	@set -- notebooks/$(N)_*.ipynb; test -f "$$1" || { echo "make notebook: no notebook has the number $(N)"; exit 1; }; \
	$(PY) -m jupyterlab "$$1"

data: .venv/ready  ## Download public data into data/raw: scanb, gse96058, metabric, tcga_brca, ..., all [COHORT=metabric]
	@$(PY) -m txtlib.sources $(if $(SCORE),--score "$(SCORE)") -- "$(COHORT)"

lint: .venv/ready  ## Check style, and that no notebook holds output
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m nbstripout --verify --keep-id notebooks/*.ipynb

lock: .venv/lab  ## Write the installed versions to constraints.txt
	@$(PY) -m pip freeze --exclude-editable | sed 's/+cpu//' | grep -viE '^(pip|setuptools|wheel)==' > constraints.txt

clean:  ## Remove everything that was built, but neither downloaded data nor the cells of long runs
	test ! -d _build || find _build -mindepth 1 -maxdepth 1 ! -name runs -exec rm -rf {} +
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis txtlib.egg-info

# The stamps come last, so an interrupted installation starts again.
.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python >= 3.11.5 found; install one, or name it: make book PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv with $(PYTHON) (a few minutes, once)"
	@"$(PYTHON)" -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test]"
	@touch $@

.venv/lab: .venv/ready
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,lab,test]"
	@touch $@

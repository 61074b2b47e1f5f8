# Every task of the project, for Linux and macOS. Needs make >= 3.81 and Python >= 3.11, nothing else:
# each task builds the environment it needs (.venv-book without torch, .venv with everything).
PYTHON ?= python3
PORT ?= 8000
CHAPTERS ?= $(wildcard notebooks/*.ipynb notebooks/recipes/*.ipynb)

SHELL := /bin/bash
.DEFAULT_GOAL := help
START := $(shell date +%s)
TOOK = @echo "make $@ took $$(( $$(date +%s) - $(START) )) s"
PIP = -m pip install --quiet --disable-pip-version-check -c constraints.txt
VENV_PYTHON = $(PYTHON) book/tools/requirements.py python && $(PYTHON) -m venv

PAGES := $(wildcard _config.yml book/*.* book/api/* book/_static/* book/_static/*/*.* book/_static/playground/*/* book/tools/*.* notebooks/*.ipynb) \
         $(wildcard minidiff/*.py minidiff/*/*.py notebooks/*/*.ipynb)

.PHONY: help book html test test-all test-steps lint chapters notebooks colab address format models playground wheel clean

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## "; print "minidiff: make TARGET\n" } \
	  /^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.13 picks another Python, PORT=8080 another port, CHAPTERS=notebooks/02_forward.ipynb one chapter."

book: .make/html ## build the book (no torch needed), serve it on this machine and print its address
	$(TOOK)
	@.venv-book/bin/python book/tools/serve.py _build/html $(PORT)

html: .make/html ## build the book into _build/html
	$(TOOK)

test: test-steps ## install everything and check everything: style, types, library, book, chapters
	$(TOOK)

test-all: PYTEST = -m "release or not release"
test-all: test-steps ## the same and the minutes-long release tests
	$(TOOK)

notebooks: .make/env ## run the chapters in full, top to bottom, and stamp their outputs
	.venv/bin/python book/tools/chapters.py run $(CHAPTERS)
	$(TOOK)

colab: wheel ## run the chapters with Colab's versions (PYTHON=python3.13; COLAB=--borrow takes torch from .venv)
	$(PYTHON) book/tools/colab.py dist/*.whl $(CHAPTERS) $(COLAB)
	$(TOOK)

address: ## carry the repository's address and version from pyproject.toml to wherever they stand
	$(PYTHON) book/tools/address.py

format: .make/env ## format the code, notebooks too, and repair what can be repaired
	.venv/bin/ruff check --fix-only --quiet .
	.venv/bin/ruff format .

models: .make/env ## train every model anew into runs/ (a GPU and about half an hour; goes on where it was cut off)
	.venv/bin/minidiff train clip
	.venv/bin/minidiff train judge
	.venv/bin/minidiff train teaching
	.venv/bin/minidiff train emoji-64 --clip runs/clip --compile
	.venv/bin/minidiff train prior --clip runs/emoji-64
	.venv/bin/minidiff train midjourney --clip runs/emoji-64
	$(TOOK)

playground: .make/env ## export the bundled text-to-image model anew for the playground, and draw the page's gallery with it
	.venv/bin/minidiff export onnx --checkpoint emoji-64 --out book/_static/playground/emoji-64
	@$(MAKE) --no-print-directory .make/html
	.venv/bin/python book/tools/playground_gallery.py
	@$(MAKE) --no-print-directory .make/html
	$(TOOK)

wheel: .make/env ## build the wheel into dist/
	@rm -rf build dist
	.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls -l dist

clean: ## remove what was built (the environments stay; delete .venv* by hand)
	rm -rf _build build dist .make/html .make/vendor book/_static/vendor

# --- the steps behind the targets -------------------------------------------------------------------------

test-steps: lint .make/html
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 $(PYTEST)
	@$(MAKE) --no-print-directory chapters

lint: .make/env
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# The chapters as a stranger runs them: copies in an empty folder, the wheel instead of the source tree, small sizes.
# .venv-wheel sees the packages of .venv through a .pth file and holds the wheel alone, so nothing is installed twice.
chapters: wheel
	@rm -rf .venv-wheel && $(PYTHON) -m venv --without-pip .venv-wheel
	@site=$$(.venv-wheel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$site/everything-else.pth && \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target $$site dist/*.whl
	.venv-wheel/bin/python book/tools/chapters.py check $(CHAPTERS)

.make/env: pyproject.toml constraints.txt
	@mkdir -p .make
	@test -x .venv/bin/python || { $(VENV_PYTHON) .venv; }
	@echo "installing minidiff and what checks it into .venv"
	@.venv/bin/python $(PIP) -e '.[test]'
	@touch $@

.make/book-env: pyproject.toml constraints.txt book/tools/requirements.py
	@mkdir -p .make
	@test -x .venv-book/bin/python || { $(VENV_PYTHON) .venv-book; }
	@echo "installing what builds the book into .venv-book"
	@$(PYTHON) book/tools/requirements.py book > .make/book.txt
	@.venv-book/bin/python $(PIP) -r .make/book.txt
	@touch $@

.make/vendor: .make/book-env book/tools/vendor/package.json book/tools/vendor/package-lock.json book/tools/vendor.py
	@.venv-book/bin/python book/tools/vendor.py
	@touch $@

# Always all pages: a partial build copies no changed style sheet, and hides the warnings of pages it does not read.
.make/html: .make/vendor $(PAGES)
	@rm -rf $@ _build
	@.venv-book/bin/jupyter-book build . --toc book/_toc.yml --all -W -n --keep-going --quiet
	@touch $@

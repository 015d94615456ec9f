# Two commands: `make demo` and `make test`. The rest is for people who change tokamak.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := $(shell find src native -type f \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.gguf' \) 2>/dev/null)

demo: $(VENV)/.installed
	$(BIN)/tokamak run -p "Once upon a time" -n 320

test: $(VENV)/.installed
	$(BIN)/python -m pytest

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[test]"
	touch $@

# In-place build for development: the extension lands in src/tokamak; run with PYTHONPATH=src.
# PY names an interpreter that has nanobind (pip install nanobind cmake ninja).
PY    ?= $(PYTHON)
BUILD ?= build/dev
native:
	cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$$($(PY) -c 'import sys; print(sys.executable)') $(CMAKE_ARGS)
	cmake --build $(BUILD)
	cp $(BUILD)/_native*.so src/tokamak/

# The types of the extension module, for editors and mypy; run after a change of bindings.
stub: native
	PYTHONPATH=src $(PY) -m nanobind.stubgen -m tokamak._native -o src/tokamak/_native.pyi
	$(PY) -m ruff format --quiet src/tokamak/_native.pyi

check:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

size:
	$(PYTHON) tools/size.py

.PHONY: demo test native stub check size

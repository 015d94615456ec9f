# Two commands: `make demo` and `make test`. The rest is for people who change tokamak.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := $(shell find src native -type f \( -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.gguf' \) 2>/dev/null)

demo: $(VENV)/.installed
	$(BIN)/tokamak run -p "Once upon a time" -n 320 --min-tokens 160

test: $(VENV)/.installed
	$(BIN)/python -m pytest

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[test]"
	touch $@

# In-place build for development: the extension lands in src/tokamak; run with PYTHONPATH=src.
# PY names an interpreter that has nanobind (pip install nanobind cmake ninja).
PY    ?= $(PYTHON)
CXX   ?= g++
BUILD ?= build/dev
native:
	cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$$($(PY) -c 'import sys; print(sys.executable)') $(CMAKE_ARGS)
	cmake --build $(BUILD)
	rm -f src/tokamak/_native*.so && cp $(BUILD)/_native*.so src/tokamak/

# The types of the extension module, for editors and mypy; run after a change of bindings.
stub: native
	PYTHONPATH=src $(PY) -m nanobind.stubgen -m tokamak._native -o src/tokamak/_native.pyi
	$(PY) -m ruff format --quiet src/tokamak/_native.pyi

check:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	find native \( -name '*.cpp' -o -name '*.h' -o -name '*.inl' \) ! -name 'unicode_data.inl' | xargs clang-format --dry-run -Werror

# The tests that reach native code deepest, under AddressSanitizer and UndefinedBehaviorSanitizer. Python itself is not
# instrumented, so the runtime is preloaded; its leaks at exit are not ours.
ASAN := build/asan
ASAN_TESTS ?= tests/conformance tests/hostile $(addprefix tests/unit/,tokenizers executors loaders quant engine) \
  $(addprefix tests/e2e/,test_generate.py test_same_bits.py test_packed.py) tests/server/test_socket.py
sanitize:
	cmake -S . -B $(ASAN) -G Ninja -DTOKAMAK_SANITIZE=ON -DPython_EXECUTABLE=$$($(PY) -c 'import sys; print(sys.executable)')
	cmake --build $(ASAN)
	rm -rf $(ASAN)/site && mkdir -p $(ASAN)/site && cp -r src/tokamak $(ASAN)/site/
	rm -f $(ASAN)/site/tokamak/_native*.so && cp $(ASAN)/_native*.so $(ASAN)/site/tokamak/
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	PYTHONMALLOC=malloc PYTHONPATH=$(ASAN)/site $(PY) -m pytest $(ASAN_TESTS)

size:
	$(PYTHON) tools/size.py

.PHONY: demo test native stub check sanitize size

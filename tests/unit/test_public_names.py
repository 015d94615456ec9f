"""The public names, and that importing them costs nothing."""

import subprocess
import sys

import tokamak

PROMISED = {
    "LLM",
    "Adapter",
    "Completion",
    "SamplingParams",
    "Tokenizer",
    "load",
    "quantize",
    "TokamakError",
    "Cancelled",
    "CapacityError",
    "CheckFailed",
    "ContextOverflow",
    "FileRefused",
    "GraphError",
    "HubError",
    "InvalidParams",
    "ModelFileError",
    "TokenizerFileError",
    "UnavailableError",
    "UnsupportedError",
}


def test_all_names_what_is_promised_and_each_resolves():
    assert set(tokamak.__all__) == PROMISED
    for name in PROMISED:
        assert getattr(tokamak, name) is not None


def test_every_error_class_is_public():
    assert set(tokamak.errors.__all__) <= set(tokamak.__all__)


def test_importing_reads_no_array_library_starts_no_thread_and_is_quick():
    code = (
        "import sys, threading, time; t = time.process_time(); import tokamak; t = time.process_time() - t;"
        "heavy = {'numpy', 'jinja2', 'rich', 'asyncio', 'tokamak._native'} & set(sys.modules);"
        "print(sorted(heavy), threading.active_count(), t < 0.2)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[0] == "[] 1 True"

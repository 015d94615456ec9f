"""llama.cpp's quantizer in a process of its own: what compare_quantize.py and the tests compare with.

usage: llama_quantize.py SOURCE.gguf TARGET.gguf FILE_TYPE THREADS [IMPORTANCE.npz] [--pure]
Prints the seconds it took. IMPORTANCE.npz: mean squares f32[columns] by tensor name.
"""

from __future__ import annotations

import ctypes
import sys
import time

import llama_cpp
import numpy as np


@llama_cpp.llama_log_callback
def silent(_level, _text, _context):
    """llama.cpp prints a line per tensor."""


def importance(path: str):
    """The NULL-terminated list of llama.cpp, and the arrays that must outlive it."""
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in np.load(path).items()}
    rows = (llama_cpp.llama_model_imatrix_data * (len(arrays) + 1))()
    for row, (name, array) in zip(rows, arrays.items(), strict=False):
        row.name = name.encode()
        row.data = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        row.size = array.size
    return rows, arrays


def main() -> int:
    words = [w for w in sys.argv[1:] if w != "--pure"]
    source, target, file_type, threads = words[:4]
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(file_type), int(threads)
    params.pure = "--pure" in sys.argv
    if len(words) > 4:
        rows, _arrays = importance(words[4])
        params.imatrix = ctypes.cast(rows, type(params.imatrix))
    began = time.perf_counter()
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    print(time.perf_counter() - began)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

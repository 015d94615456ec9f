"""Feed a million broken GGUF files to the parser: each must be read or refused with a typed error, never crash.

    python tools/fuzz_gguf.py --cases 1000000

Case n is always the same file, so a number that crashed is the whole report; `--first N --cases 1 --keep F` writes it.
Cases run in forked children, so a crash ends one child and its case is found by running the rest one by one.
Worth running on a sanitizer build (the preload puts its libraries before Python's own):

    make native BUILD=build/asan CMAKE_ARGS="-DTOKAMAK_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo"
    export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so.6)"
    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=src python tools/fuzz_gguf.py
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tokamak import _native
from tokamak.errors import TokamakError
from tokamak.loaders import TensorSource, Typed, write_gguf

CHUNK = 5000  # cases per child
LARGE = (
    0,
    1,
    7,
    31,
    32,
    33,
    2**31,
    2**32 - 1,
    2**32,
    10**9,
    2**61,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 32,
    2**64 - 1,
)


def seeds() -> list[bytes]:
    """Small sound files that between them hold every value type and tensor layout, so that damage hits structure."""
    scalars = {
        kind: Typed(kind, 1)
        for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
    }
    scalars |= {
        "float32": Typed("float32", 1.5),
        "float64": Typed("float64", 2.5),
        "bool": True,
        "string": "text",
    }
    arrays = {
        f"a.{k}": Typed(f"array[{k}]", [v.value] * 3) for k, v in scalars.items() if isinstance(v, Typed)
    }
    arrays |= {
        "a.bool": [True, False],
        "a.string": ["one", "", "three"],
        "a.empty": Typed("array[string]", []),
    }
    tensors = [
        TensorSource("v", "f32", (8,), lambda: np.zeros(32, np.uint8)),
        TensorSource("m", "q8_0", (4, 64), lambda: np.zeros(4 * 68, np.uint8)),
        TensorSource("k", "q4_k", (2, 3, 256), lambda: np.zeros(6 * 144, np.uint8)),
        TensorSource("t", "i2_s", (4, 128), lambda: np.zeros(160, np.uint8)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.gguf"
        out = []
        for metadata, kept, alignment in (
            ({**scalars, **arrays}, tensors, 32),
            ({}, tensors, 8),
            (scalars, [], 64),
        ):
            write_gguf(path, metadata, kept, alignment=alignment)
            out.append(path.read_bytes())
    return out


def case(number: int, corpus: list[bytes]) -> bytes:
    """Broken file `number`: a seed with one to six changes."""
    rnd = random.Random(number)
    content = bytearray(rnd.choice(corpus))
    for _ in range(rnd.choice((1, 1, 1, 2, 3, 6))):
        at = rnd.randrange(len(content))
        match rnd.randrange(7):
            case 0:
                content[at] ^= 1 << rnd.randrange(8)
            case 1:
                content[at] = rnd.randrange(256)
            case 2:
                content[at : at + 8] = struct.pack("<Q", rnd.choice(LARGE))
            case 3:
                content[at : at + 4] = struct.pack("<I", rnd.choice(LARGE) & 0xFFFFFFFF)
            case 4:
                del content[at : at + rnd.choice((1, 4, 8, 32))]
            case 5:
                content[at:at] = content[at : at + rnd.choice((1, 8, 24, 64))]
            case _:
                del content[max(at, 1) :]
        if not content:
            content = bytearray(b"G")
    return bytes(content)


def read(content: bytes) -> bool:
    """Parse it and touch the first and last byte of every tensor; False if it was refused."""
    try:
        file = _native.GgufFile.from_bytes(content)
    except TokamakError:
        return False
    for name, *_ in file.tensors:
        data = file.data(name)
        data[0] ^ data[-1]
    len(file.value_types)
    return True


def in_child(first: int, count: int, corpus: list[bytes]) -> tuple[int, int]:
    """(exit status, files that were read) of `count` cases."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            good = sum(read(case(n, corpus)) for n in range(first, first + count))
            os.write(sink, struct.pack("<I", good))
        except BaseException as error:  # noqa: BLE001  # an untyped exception is a finding like a crash
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(sink)
    answer = os.read(source, 4)
    os.close(source)
    status = os.waitpid(child, 0)[1]
    return status, struct.unpack("<I", answer)[0] if answer else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="more seeds; small files are worth most")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="write the first case to this file and stop")
    args = parser.parse_args()
    corpus = seeds() + [path.read_bytes() for path in args.models]
    if args.keep:
        args.keep.write_bytes(case(args.first, corpus))
        return 0
    began, good, bad = time.perf_counter(), 0, []
    for first in range(args.first, args.first + args.cases, CHUNK):
        count = min(CHUNK, args.first + args.cases - first)
        status, read_here = in_child(first, count, corpus)
        good += read_here
        if status:
            bad += [n for n in range(first, first + count) if in_child(n, 1, corpus)[0]]
            print(f"crashed: {bad}")
    print(
        f"{args.cases} files from {args.first} in {time.perf_counter() - began:.0f} s: {good} read, "
        f"{args.cases - good - len(bad)} refused, {len(bad)} crashed {bad[:20]}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

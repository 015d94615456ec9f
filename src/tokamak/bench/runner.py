"""A C++ reference engine as a process: llama.cpp or bitnet.cpp from a source tree that somebody built, or that is built here.

The tree is found, or made from a pinned commit; `reference_runner.cpp` is compiled against its headers and libraries and spoken to over
pipes, so nothing of it is loaded into this process. Without a tree there is no peer, and that is UnavailableError.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np

from tokamak.bench.llama_cpp import TYPES
from tokamak.errors import UnavailableError, UnsupportedError
from tokamak.types import Floats

__all__ = ["PINS", "Pin", "Runner", "build", "compiled", "standing"]

SOURCE = Path(__file__).with_name("reference_runner.cpp")
LIBRARY = "libllama"


@dataclass(frozen=True, slots=True)
class Pin:
    """Where a tree comes from. inner: the folder of llama.cpp in it. files: (from, to) copied before it is built."""

    url: str
    commit: str
    inner: str = "."
    options: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


PINS = {
    # what this runner was tried with; it refuses gcc by name though gcc compiles it, see _configure
    "bitnet.cpp": Pin(
        "https://github.com/microsoft/BitNet.git",
        "c82b5e6",
        inner="3rdparty/llama.cpp",
        options=("-DCMAKE_CXX_FLAGS=-fpermissive -w", "-DLLAMA_ALL_WARNINGS=OFF"),
        files=(
            ("preset_kernels/bitnet_b1_58-large/bitnet-lut-kernels-tl2.h", "include/bitnet-lut-kernels.h"),
        ),
    ),
}
OPTIONS = (
    *("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_BUILD_TESTS=OFF"),
    *("-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_CURL=OFF"),
)


def _run(words: Sequence[str], where: Path | None = None) -> None:
    """Raises: UnavailableError with the last words of a command that is missing or fails."""
    try:
        done = subprocess.run(words, cwd=where, capture_output=True, text=True, check=False)  # noqa: S603 words of the pin
    except OSError as error:
        raise UnavailableError(f"{words[0]} cannot be run: {error}") from error
    if done.returncode:
        last = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise UnavailableError(f"{' '.join(words[:4])} ... ended with {done.returncode}: {last}")


def standing(name: str, folder: Path) -> Path:
    """The tree of a pinned commit that `build` left under `folder`.  Raises: UnavailableError if there is none."""
    pin = PINS[name]
    tree = folder / f"{name}-{pin.commit}"
    if not _libraries(tree):
        raise UnavailableError(
            f"{name} is not here: point at a tree that is built (--runner DIR), or let commit {pin.commit} of {pin.url} be "
            "fetched and built (--runner build)"
        )
    return tree


def build(name: str, folder: Path, *, threads: int = 2, say: Callable[[str], None] = lambda _: None) -> Path:
    """The tree of a pinned commit under `folder`, built; what is there already is used.

    say: told what takes minutes.  Raises: UnavailableError without a pin, git, cmake, a compiler or the network.
    """
    if name not in PINS:
        raise UnavailableError(
            f"{name} is not pinned here; give a tree that is built, known: {', '.join(PINS)}"
        )
    pin = PINS[name]
    tree = folder / f"{name}-{pin.commit}"
    if not (tree / ".git").exists():
        say(f"fetching {pin.url} at {pin.commit}")
        partial = tree.with_name(tree.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _run(["git", "clone", "--quiet", "--filter=blob:none", "--no-checkout", pin.url, str(partial)])
        _run(["git", "checkout", "--quiet", pin.commit], partial)
        _run(["git", "submodule", "update", "--quiet", "--init", "--recursive"], partial)
        partial.rename(tree)
    for source, target in pin.files:
        if not (tree / target).exists():
            shutil.copyfile(tree / source, tree / target)
    if not _libraries(tree):
        say(f"building {tree}")
        _configure(tree, pin)
        _run(["cmake", "--build", "build", "--target", LIBRARY.removeprefix("lib"), "-j", str(threads)], tree)
    return tree


def _configure(tree: Path, pin: Pin) -> None:
    said = tree / "build-as-clang.cmake"
    said.write_text("set(CMAKE_C_COMPILER_ID Clang)\nset(CMAKE_CXX_COMPILER_ID Clang)\n", encoding="ascii")
    more = [] if shutil.which("clang") else [f"-DCMAKE_PROJECT_bitnet.cpp_INCLUDE={said}"]
    if shutil.which("clang"):
        more = ["-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++"]
    _run(["cmake", "-S", ".", "-B", "build", *OPTIONS, *pin.options, *more], tree)


def _libraries(tree: Path) -> list[Path]:
    """libllama and what it needs, as a build left them."""
    found = [
        p
        for p in tree.rglob("lib*")
        if p.suffix in (".so", ".dylib") and p.stem.startswith((LIBRARY, "libggml"))
    ]
    wanted = {p.stem: p for p in found if p.stem == LIBRARY or p.stem.startswith("libggml")}
    return list(wanted.values()) if LIBRARY in wanted else []


def compiled(tree: Path, folder: Path) -> Path:
    """The runner for a tree, from `folder` if it was made before.  Raises: UnavailableError if it cannot be made."""
    if tree.is_file():
        return tree
    libraries = _libraries(tree)
    if not libraries:
        raise UnavailableError(
            f"{tree} holds no libllama; build it with shared libraries (cmake -DBUILD_SHARED_LIBS=ON)"
        )
    headers = sorted(
        {str(p.parent) for p in tree.rglob("*.h") if p.name in ("llama.h", "ggml.h", "ggml-bitnet.h")}
    )
    stamp = [
        str(tree.resolve()),
        SOURCE.read_text(encoding="utf-8"),
        *(str(p.stat().st_mtime_ns) for p in libraries),
    ]
    target = folder / f"runner-{sha256(chr(0).join(stamp).encode()).hexdigest()[:16]}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        places = sorted({str(p.parent) for p in libraries})
        names = [
            f"-l{p.stem.removeprefix('lib')}" for p in sorted(libraries, key=lambda p: p.stem != LIBRARY)
        ]
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        words = [os.environ.get("CXX", "c++"), "-std=c++20", "-O1", "-w", str(SOURCE), "-o", str(partial)]
        words += [f"-I{place}" for place in headers] + [f"-L{place}" for place in places] + names
        _run([*words, *(f"-Wl,-rpath,{place}" for place in places)])
        partial.replace(target)
    return target


class Runner:
    """One model in a reference engine's own process. name: of the engine; program: what `compiled` gave."""

    def __init__(
        self,
        name: str,
        program: Path,
        path: str | os.PathLike[str],
        *,
        context: int,
        threads: int,
        kv_dtype: str = "f32",
    ) -> None:
        self.name, self.version = name, f"{name} by {program}"
        words = [str(program), os.fspath(path), str(context), str(threads), str(TYPES[kv_dtype])]
        try:
            self._process = subprocess.Popen(  # noqa: S603 the user's own program
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise UnavailableError(f"{program} cannot be run: {error}") from error
        try:
            _, cache = self._line("ready")
        except BaseException:
            self.close()
            raise
        if int(cache) != TYPES[kv_dtype]:
            self.version += ", which has only an f16 cache here"

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise UnavailableError(f"{self.name} has no pipes")
        return stdin, stdout

    def _line(self, *wanted: str) -> list[str]:
        """The words of the next line after the first, which is one of `wanted`."""
        raw = self._pipes[1].readline().decode(errors="replace").strip()
        first, _, rest = raw.partition(" ")
        if first not in wanted:
            what = raw or f"it ended with {self._process.wait(10)}"
            what = rest if first == "error" else what
            raise UnsupportedError(f"{self.name}: {what}")
        return rest.split() if len(wanted) == 1 else [first, *rest.split()]

    def _ask(self, line: str, payload: bytes) -> None:
        stdin = self._pipes[0]
        try:
            stdin.write(line.encode() + b"\n" + payload)
            stdin.flush()
        except OSError as error:
            raise UnsupportedError(f"{self.name} ended: {error}") from error

    def _rows(self, count: int, width: int) -> Floats:
        raw = self._pipes[1].read(4 * count * width)
        if len(raw) != 4 * count * width:
            raise UnsupportedError(f"{self.name} ended within an answer")
        return np.frombuffer(raw, np.float32).reshape(count, width)

    def tokens(self, text: str) -> list[int]:
        """As `Peer`."""
        raw = text.encode()
        self._ask(f"tokens {len(raw)}", raw)
        count = int(self._line("ok")[0])
        return [int(i) for i in np.frombuffer(self._pipes[1].read(4 * count), np.int32)]

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """As `Peer`."""
        self._ask(f"logits {len(token_ids)}", np.asarray(token_ids, np.int32).tobytes())
        count, width = map(int, self._line("ok"))
        return self._rows(count, width)

    def nodes(self, token_ids: Sequence[int]) -> list[tuple[str, Floats]]:
        """As `Peer`."""
        self._ask(f"nodes {len(token_ids)}", np.asarray(token_ids, np.int32).tobytes())
        found = []
        while (words := self._line("node", "end"))[0] == "node":
            nbytes, count, width = map(int, words[1:])
            name = self._pipes[1].read(nbytes).decode(errors="replace")
            found.append((name, self._rows(count, width)))
        return found

    def seconds(self, token_ids: Sequence[int], num_tokens: int) -> tuple[float, float]:
        """As `Peer`, by the runner's own clock."""
        self._ask(f"seconds {len(token_ids)} {num_tokens}", np.asarray(token_ids, np.int32).tobytes())
        read, written = self._line("ok")
        return float(read), float(written)

    def close(self) -> None:
        """End the process."""
        for pipe in self._pipes:
            pipe.close()
        self._process.kill()
        self._process.wait()

"""Is a receipt true? What can be recomputed is recomputed; every fault is named, not only the first."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tokamak.errors import CheckFailed
from tokamak.observe.receipts import SCHEMA_VERSION, sha256

MOST_NBYTES = 64 << 20
TOLERANCE = 1e-6  # relative: what printing and summing doubles may change
FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "timestamp": str,
    "compute_path": str,
    "executor": dict,
    "kernels": list,
    "deterministic": bool,
    "environment": dict,
    "model": dict,
    "tokenizer": dict,
    "results": dict,
    "parity": dict,
    "samples": list,
    "overrides": dict,
}
ISAS = frozenset({"scalar", "avx2", "avx512vnni", "neon", "none"})
GPU = ("cuda", "triton", "wgpu", "vulkan", "metal")
PARITY = frozenset({"ok", "divergence", "native_only"})


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A receipt from a file.  Raises: CheckFailed for what is no JSON object of at most 64 MB."""
    try:
        if Path(path).stat().st_size > MOST_NBYTES:
            raise CheckFailed(f"{path}: has more than {MOST_NBYTES >> 20} MB, which no receipt has")
        data = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckFailed(f"{path}: cannot be read as a receipt: {error}") from error
    if not isinstance(data, dict):
        raise CheckFailed(f"{path}: holds no JSON object")
    return data


def faults(receipt: Mapping[str, Any], model: str | os.PathLike[str] | None = None) -> list[str]:
    """Everything that is wrong, in words; empty for a receipt that holds. model: a file whose hash must be the recorded one."""
    found = list(_shape(receipt))
    if found:  # nothing below can be trusted to have its type
        return found
    checks = (_origin, _kernels, _totals, _cases, _parity)
    found = [fault for check in checks for fault in check(receipt)]
    if model is not None:
        actual = sha256(model)
        if receipt["model"].get("sha256") != actual:
            found.append(
                f"model: {Path(model).name} has sha256 {actual}, not {receipt['model'].get('sha256')}"
            )
    return found


def _shape(receipt: Mapping[str, Any]) -> Iterator[str]:
    version = receipt.get("schema_version")
    if version != SCHEMA_VERSION:
        yield f"schema_version is {version!r}; this program knows {SCHEMA_VERSION}"
        return
    for name, kind in FIELDS.items():
        if not isinstance(receipt.get(name), kind):
            yield f"{name} is {type(receipt.get(name)).__name__}, not {getattr(kind, '__name__', kind)}"
    for name in ("kernels", "samples"):
        rows = receipt.get(name)
        if isinstance(rows, list) and not all(isinstance(row, dict) for row in rows):
            yield f"{name} must hold objects"
    for name in sorted(receipt.keys() - FIELDS.keys()):
        yield f"{name} is no field of a receipt"


def _origin(receipt: Mapping[str, Any]) -> Iterator[str]:
    if receipt["compute_path"] != "real":
        yield f"compute_path is {receipt['compute_path']!r}: nothing real ran"
    try:
        datetime.fromisoformat(receipt["timestamp"])
    except ValueError:
        yield f"timestamp {receipt['timestamp']!r} is no RFC 3339 time"
    digest = receipt["model"].get("sha256")
    if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        yield f"model: sha256 {digest!r} is no hash"


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _kernels(receipt: Mapping[str, Any]) -> Iterator[str]:
    kernels = receipt["kernels"]
    if not kernels:
        yield "kernels is empty: nothing ran"
    seen = set()
    for row in kernels:
        name = row.get("kernel")
        if not (
            isinstance(name, str)
            and name.count(".") >= 1
            and name.rpartition(".")[2] in ISAS | set(GPU) | {"numpy"}
        ):
            yield f"kernels: {name!r} is no kernel of this program (name.isa)"
            continue
        if name in seen:
            yield f"kernels: {name} is there twice"
        seen.add(name)
        numbers = [row.get(key) for key in ("calls", "nanoseconds", "nbytes")]
        if not all(map(_count, numbers)) or not row.get("calls"):
            yield f"kernels: {name} has calls, nanoseconds, nbytes {numbers}"
    if not any(str(name).startswith("linear.") for name in seen):
        yield "kernels: no matrix was multiplied, so no model ran"
    environment = receipt["environment"]
    claimed = str(receipt["executor"].get("name")) in GPU or environment.get("accelerator")
    if claimed and not any(str(name).rpartition(".")[2] in GPU for name in seen):
        yield "the run is said to be on an accelerator, but no kernel of one ran"


def _totals(receipt: Mapping[str, Any]) -> Iterator[str]:
    results, samples = receipt["results"], receipt["samples"]
    counted = [results.get(name) for name in ("prompt_tokens", "generated_tokens")]
    if not all(map(_count, counted)) or not any(counted):
        yield f"results: prompt_tokens and generated_tokens are {counted}"
        return
    if not (_number(results.get("seconds")) and results["seconds"] > 0):
        yield f"results: seconds is {results.get('seconds')!r}"
        return
    if not all(_number(s.get("tokens")) and _number(s.get("seconds")) and s["seconds"] > 0 for s in samples):
        yield "samples: each needs tokens and seconds above 0"
        return
    if samples:
        for name, whole, parts in (
            ("tokens", sum(counted), [s["tokens"] for s in samples]),
            ("seconds", results["seconds"], [s["seconds"] for s in samples]),
        ):
            if not math.isclose(whole, sum(parts), rel_tol=TOLERANCE):
                yield f"results: {name} are {whole}, the samples make {sum(parts)}"
    nbytes = sum(k["nbytes"] for k in receipt["kernels"] if _count(k.get("nbytes")))
    if "nbytes_read" in results and results["nbytes_read"] != nbytes:
        yield f"results: nbytes_read is {results['nbytes_read']}, the kernels read {nbytes}"


def _cases(receipt: Mapping[str, Any]) -> Iterator[str]:
    """Rates are tokens over seconds: the median of a case, and any tokens_per_second there is."""
    results = receipt["results"]
    for kind, amount in (("prompt", "prompt_tokens"), ("decode", "generated_tokens")):
        rate, seconds = results.get(f"{kind}_tokens_per_second"), results.get(f"{kind}_seconds")
        if rate is not None and not (
            _number(rate)
            and _number(seconds)
            and seconds > 0
            and math.isclose(rate * seconds, results[amount], rel_tol=1e-3)
        ):
            yield f"results: {kind}_tokens_per_second is {rate!r}; {results[amount]} tokens in {seconds!r} s"
    by_case: dict[str, list[float]] = {}
    for sample in receipt["samples"]:
        if _number(sample.get("tokens")) and _number(sample.get("seconds")) and sample["seconds"] > 0:
            by_case.setdefault(str(sample.get("case")), []).append(sample["tokens"] / sample["seconds"])
    for case in results.get("cases", []):
        rates = sorted(by_case.get(str(case.get("name")), []))
        middle = len(rates) // 2
        median = (
            (rates[middle] if len(rates) % 2 else (rates[middle - 1] + rates[middle]) / 2) if rates else None
        )
        stated = case.get("median")
        if median is None or not (_number(stated) and math.isclose(stated, median, rel_tol=TOLERANCE)):
            yield f"results: case {case.get('name')} states {stated!r} tokens per second, its samples make {median}"


def _parity(receipt: Mapping[str, Any]) -> Iterator[str]:
    parity = receipt["parity"]
    status = parity.get("status")
    if status not in PARITY:
        yield f"parity: status {status!r} is none of {', '.join(sorted(PARITY))}"
    elif status != "native_only" and not parity.get("peer"):
        yield f"parity: status is {status} and no peer is named"


def verify(path: str | os.PathLike[str], model: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The receipt of a file that holds.  Raises: CheckFailed with every fault."""
    receipt = read(path)
    found = faults(receipt, model)
    if found:
        raise CheckFailed(f"{path}: {'; '.join(found)}")
    return receipt

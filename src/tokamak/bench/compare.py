"""Two runs of the same cases: which got slower, and by more than the noise of both.

A case has regressed when its median fell by more than the allowed share and its samples rank below the other run's by more than
chance explains: the one-sided rank-sum test of Wilcoxon, exact where all splits can be tried. With five samples a run, the least chance is 1/252.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from tokamak.errors import CheckFailed

MOST_EXACT = 20_000  # splits that are all tried; beyond, as many are drawn
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case in both runs. ratio: second / first of the median rates. chance: of such a fall with no difference."""

    name: str
    first: float
    second: float
    ratio: float
    chance: float
    verdict: str  # "same", "slower", "faster"

    def facts(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


def rates(receipt: Mapping[str, Any]) -> dict[str, list[float]]:
    """Tokens per second of every sample, by case, from a receipt or from the JSON of `tokamak bench`."""
    found: dict[str, list[float]] = {}
    if "samples" in receipt:
        for sample in receipt["samples"]:
            found.setdefault(str(sample["case"]), []).append(sample["tokens"] / sample["seconds"])
        return found
    for result in receipt.get("results", []):
        found[str(result["name"])] = [s["amount"] / s["seconds"] for s in result["samples"]]
    return found


def machine_of(receipt: Mapping[str, Any]) -> dict[str, object]:
    """The facts that must agree for a comparison to say anything about the program."""
    facts = receipt.get("environment") or receipt.get("machine") or {}
    return {name: facts.get(name) for name in ("cpu", "cpus", "allowed_cpus", "cpu_quota", "features")}


def chance(first: Sequence[float], second: Sequence[float]) -> float:
    """How often dealing the samples of both anew gives the first a rank sum at least so large; in (0, 1]."""
    both, n = np.asarray([*first, *second]), len(first)
    below = (both[None, :] < both[:, None]).sum(axis=1)
    ranks = below + ((both[None, :] == both[:, None]).sum(axis=1) + 1) / 2  # ties share theirs
    if math.comb(len(both), n) <= MOST_EXACT:
        picks = np.array(list(itertools.combinations(range(len(both)), n)))
    else:
        rng = np.random.default_rng(0)
        picks = np.array([rng.permutation(len(both))[:n] for _ in range(MOST_EXACT)])
    return float(np.mean(ranks[picks].sum(axis=1) >= ranks[:n].sum() - 1e-9))


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, allowed: float = 0.05
) -> list[Comparison]:
    """Every case that both have. allowed: share of the median that may be lost, in [0, 1).

    Raises: CheckFailed for runs of other machines, or with no case in common.
    """
    here, there = machine_of(first), machine_of(second)
    if here != there:
        unlike = ", ".join(f"{k}: {here[k]!r} and {there[k]!r}" for k in here if here[k] != there[k])
        raise CheckFailed(f"the runs are of different machines ({unlike}), so their rates cannot be compared")
    a, b = rates(first), rates(second)
    names = [name for name in a if name in b]
    if not names:
        raise CheckFailed(f"no case in common: {', '.join(a) or 'none'} and {', '.join(b) or 'none'}")
    return [_case(name, a[name], b[name], allowed) for name in names]


def _case(name: str, first: Sequence[float], second: Sequence[float], allowed: float) -> Comparison:
    was, now = statistics.median(first), statistics.median(second)
    slower, faster = chance(first, second), chance(second, first)
    verdict = "same"
    if now < was * (1 - allowed) and slower <= SIGNIFICANCE:
        verdict = "slower"
    elif now > was * (1 + allowed) and faster <= SIGNIFICANCE:
        verdict = "faster"
    return Comparison(name, was, now, now / was, slower, verdict)


def markdown(rows: Sequence[Comparison]) -> str:
    """A table."""
    head = "| case | first tok/s | second tok/s | ratio | chance | |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {r.name} | {r.first:.1f} | {r.second:.1f} | {r.ratio:.3f} | {r.chance:.3f} | {r.verdict} |\n"
        for r in rows
    )


def junit(rows: Sequence[Comparison]) -> str:
    """JUnit's XML: a test per case, failed where it got slower."""
    failed = sum(r.verdict == "slower" for r in rows)
    out = [f'<testsuite name="tokamak bench compare" tests="{len(rows)}" failures="{failed}">']
    for r in rows:
        text = f"{r.first:.1f} to {r.second:.1f} tok/s, ratio {r.ratio:.3f}, chance {r.chance:.3f}"
        inside = f"<failure message={quoteattr(text)}/>" if r.verdict == "slower" else ""
        out.append(f'  <testcase name={quoteattr(r.name)} classname="bench">{inside}</testcase>')
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + "\n".join(out) + "\n</testsuite>\n"


def as_json(rows: Sequence[Comparison]) -> str:
    """A list of objects."""
    return json.dumps([r.facts() for r in rows], indent=2) + "\n"

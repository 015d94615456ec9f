"""The search of `tokamak tune`: tries settings, keeps the best, and checks it against the default before it counts.

Knows no model: it is given a function that measures a choice. Settings change speed and memory, never a result.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokamak.errors import InvalidParams, UnavailableError

__all__ = ["GOALS", "Outcome", "Score", "search", "space"]

Choice = Mapping[str, int]
Score = Callable[[Choice], float]
"""Measures a choice now; higher is better."""

GOALS = ("throughput", "latency", "memory")
MARGIN = 1.02  # by which a choice must win the check: less is noise
CHECKS = 5  # pairs of the check


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out. choice is the default if nothing beat it when checked."""

    choice: Choice
    improved: bool
    ratio: float  # of the best choice to the default, median of the check's pairs
    ratios: tuple[float, ...]
    trials: tuple[tuple[Choice, float], ...]  # everything tried, in order


def space(cpus: int) -> dict[str, tuple[int, ...]]:
    """Values to try per setting. cpus: those this process may use."""
    counts = tuple(
        sorted({max(1, cpus * i // 4) for i in (1, 2, 3, 4)} | ({cpus - 1} if cpus > 2 else set()))
    )
    return {
        "threads": counts,
        "threads_batch": counts,
        "max_batch_rows": (64, 128, 256, 512, 1024),
        "chunk_nbytes": tuple(k << 10 for k in (16, 32, 64, 128, 256, 512)),
        "block_nbytes": tuple(k << 10 for k in (64, 128, 192, 256, 384, 768)),
        "spin_us": (0, 20, 50, 100, 300),
    }


def search(
    score: Score,
    default: Choice,
    values: Mapping[str, Sequence[int]],
    trials: int,
    *,
    seed: int = 0,
    watch: Callable[[int, int, float], None] | None = None,
) -> Outcome:
    """Try `trials` choices (the default first), then compare the best with the default in alternating pairs.

    values: what each setting may be; default must have the same names. watch: called as watch(done, trials, best).
    Raises: InvalidParams for trials below 1; UnavailableError without Optuna.
    """
    if trials < 1 or set(values) != set(default):
        raise InvalidParams(
            f"trials is {trials}, at least 1; settings {sorted(values)} and {sorted(default)} must agree"
        )
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(5, trials // 3))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({name: int(value) for name, value in default.items()})
    tried: list[tuple[Choice, float]] = []

    def one(trial: Any) -> float:
        choice = {
            name: int(trial.suggest_categorical(name, list(options))) for name, options in values.items()
        }
        value = score(choice)
        tried.append((choice, value))
        if watch is not None:
            watch(len(tried), trials, max(v for _, v in tried))
        return value

    study.optimize(one, n_trials=trials)
    best = max(tried, key=lambda item: item[1])[0]
    ratios = compared(score, best, default) if dict(best) != dict(default) else (1.0,)
    ratio = statistics.median(ratios)
    improved = ratio >= MARGIN
    return Outcome(best if improved else default, improved, ratio, ratios, tuple(tried))


def compared(score: Score, choice: Choice, default: Choice, pairs: int = CHECKS) -> tuple[float, ...]:
    """Ratios of `choice` to `default`, measured in turns; the order turns round after each pair."""
    ratios = []
    for pair in range(pairs):
        order = (choice, default) if pair % 2 == 0 else (default, choice)
        values = [score(c) for c in order]
        ours, theirs = values if pair % 2 == 0 else values[::-1]
        ratios.append(ours / theirs if theirs > 0 else 1.0)
    return tuple(ratios)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UnavailableError("tuning needs Optuna: pip install 'tokamak[tune]'") from None
    return optuna

"""`tokamak tune`: the settings with which this machine is fastest, found by trying, kept for the next load."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_model
from tokamak.cli.console import print_json, remark
from tokamak.settings import Settings, available_cpus

if TYPE_CHECKING:
    from tokamak.bench.tune import Outcome
    from tokamak.engine.trial import Bench
    from tokamak.engine.tuned import Tuned

SUMMARY = "Find the thread counts and sizes with which this machine is fastest, and keep them for every load."
EXAMPLES = """  tokamak tune model.gguf
  tokamak tune model.gguf --for latency --trials 40
  tokamak tune model.gguf --for memory
  tokamak tune --forget
"""
SLOWEST = 0.9  # of the default's speed: what saving memory may cost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The goal and how long to look."""
    add_model(parser)
    parser.add_argument(
        "--for",
        dest="goal",
        choices=("throughput", "latency", "memory"),
        default="throughput",
        help="throughput of prompts and decoding (default), time per token, or working memory",
    )
    parser.add_argument("--trials", type=int, default=24, metavar="N", help="settings to try (default 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the search (default 0)")
    parser.add_argument("--dry-run", action="store_true", help="say what was found and do not keep it")
    parser.add_argument("--forget", action="store_true", help="drop what was found for this machine")


def as_tuned(choice: Mapping[str, int]) -> Tuned:
    """The settings of a choice of the search."""
    from tokamak.engine.tuned import Tuned
    from tokamak.types import TUNING_RANGES, Tuning

    sizes = {name: value for name, value in choice.items() if name in TUNING_RANGES}
    return Tuned(**{n: v for n, v in choice.items() if n not in sizes}, tuning=Tuning(**sizes))


def scorer(bench: Bench, goal: str, default: Mapping[str, int]) -> Callable[[Mapping[str, int]], float]:
    """The score of a choice: higher is better."""
    base = bench.measure(as_tuned(default))

    def score(choice: Mapping[str, int]) -> float:
        got = bench.measure(as_tuned(choice))
        if goal == "latency":
            return got.decode_tok_s
        if goal == "throughput":
            return float((got.prompt_tok_s * got.decode_tok_s) ** 0.5)
        slow = min(got.prompt_tok_s / base.prompt_tok_s, got.decode_tok_s / base.decode_tok_s)
        return 1e9 / got.nbytes if slow >= SLOWEST else slow / got.nbytes

    return score


def show(args: argparse.Namespace, outcome: Outcome, default: Mapping[str, int], where: str | None) -> None:
    """What came out. where: the file it was kept in."""
    report = {
        "goal": args.goal,
        "improved": outcome.improved,
        "ratio": outcome.ratio,
        "ratios": list(outcome.ratios),
        "choice": dict(outcome.choice),
        "default": dict(default),
        "kept": where,
        "trials": len(outcome.trials),
    }
    if args.json:
        print_json(report)
    elif not outcome.improved:
        print(
            f"the default stays: the best of {report['trials']} was {outcome.ratio:.3f} x as good when checked"
        )
    else:
        print(f"{outcome.ratio:.3f} x as good as the default for {args.goal}, when checked:")
        changed = {n: v for n, v in outcome.choice.items() if v != default[n]}
        print(
            "\n".join(f"  {name:<16}{value}   (default {default[name]})" for name, value in changed.items())
        )
        print(f"kept in {where}" if where else "not kept (--dry-run)")


def execute(args: argparse.Namespace) -> int:
    """Search, check, keep."""
    from tokamak.bench.tune import search, space
    from tokamak.engine import tuned
    from tokamak.engine.loading import MAX_BATCH_ROWS
    from tokamak.engine.trial import Bench
    from tokamak.types import Tuning

    folder = Settings.load().cache_dir
    if args.forget:
        was = tuned.forget(folder)
        print_json({"forgotten": was}) if args.json else print("forgotten" if was else "nothing was kept")
        return 0
    cpus = available_cpus()
    default = {"threads": cpus, "threads_batch": cpus, "max_batch_rows": MAX_BATCH_ROWS, **asdict(Tuning())}
    outcome = search(
        scorer(Bench(args.model), args.goal, default),
        default,
        space(cpus),
        args.trials,
        seed=args.seed,
        watch=lambda done, total, best: remark(f"{done} of {total}: best {best:.4g}", quiet=args.quiet),
    )
    keep = outcome.improved and not args.dry_run
    where = str(tuned.write(folder, as_tuned(outcome.choice))) if keep else None
    show(args, outcome, default, where)
    return 0

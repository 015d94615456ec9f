"""The search keeps what wins the check, and the default where nothing does."""

import builtins

import pytest

from tokamak.bench.tune import compared, search, space
from tokamak.errors import InvalidParams, UnavailableError

VALUES = {"a": (1, 2, 3, 4), "b": (10, 20)}
DEFAULT = {"a": 1, "b": 10}


def optuna_or_skip():
    pytest.importorskip("optuna")


def test_a_better_choice_is_found_checked_and_kept():
    optuna_or_skip()
    outcome = search(lambda c: c["a"] * (1.5 if c["b"] == 20 else 1.0), DEFAULT, VALUES, 30)
    assert outcome.improved
    assert dict(outcome.choice) == {"a": 4, "b": 20}
    assert outcome.ratio == pytest.approx(6.0)
    assert len(outcome.trials) == 30
    assert dict(outcome.trials[0][0]) == DEFAULT, "the default is tried first"


def test_luck_in_the_search_does_not_survive_the_check():
    optuna_or_skip()
    calls = iter(range(1000))
    outcome = search(lambda _: 100.0 if next(calls) == 3 else 1.0, DEFAULT, VALUES, 8)
    assert not outcome.improved
    assert dict(outcome.choice) == DEFAULT


def test_the_default_stays_where_all_are_worse():
    optuna_or_skip()
    outcome = search(lambda c: 1.0 if dict(c) == DEFAULT else 0.5, DEFAULT, VALUES, 12)
    assert dict(outcome.choice) == DEFAULT
    assert outcome.ratios == (1.0,)


def test_the_check_turns_the_order_round():
    order = []

    def score(choice):
        order.append(choice["a"])
        return float(choice["a"])

    assert compared(score, {"a": 2}, {"a": 1}, pairs=3) == (2.0, 2.0, 2.0)
    assert order == [2, 1, 1, 2, 2, 1]


@pytest.mark.parametrize("cpus", [1, 2, 3, 8, 96])
def test_thread_counts_to_try_are_possible(cpus):
    counts = space(cpus)["threads"]
    assert counts[-1] == cpus
    assert all(1 <= n <= cpus for n in counts)
    assert len(set(counts)) == len(counts)


def test_settings_must_agree():
    with pytest.raises(InvalidParams, match="must agree"):
        search(lambda _: 1.0, {"a": 1}, VALUES, 3)


def test_without_optuna_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UnavailableError, match=r"tokamak\[tune\]"):
        search(lambda _: 1.0, DEFAULT, VALUES, 3)

"""The probes measure this machine and refuse nonsense."""

from __future__ import annotations

import pytest

import tokamak
from tokamak import _native
from tokamak.bench import probes
from tokamak.errors import InvalidParams, UnavailableError


def test_limits_are_measured_pass_by_pass():
    got = probes.measure(1, repeats=2, nbytes=8 << 20)
    assert len(got.read_samples) == len(got.int8_samples) == 2
    # A machine that reads less than 10 MB/s or multiplies less than 1e7 times a second runs nothing of ours;
    # above 1e14 the loop was optimised away.
    assert 1e7 < got.read_bytes_s < 1e14
    assert 1e7 < got.int8_macs_s < 1e14
    assert got.isa == probes.isas()[-1]


def test_the_portable_probe_runs_everywhere():
    assert probes.isas()[0] == "scalar"


@pytest.mark.parametrize(
    ("threads", "nbytes", "repeats"), [(0, 8192, 1), (1, 0, 1), (1, 8192, 0), (2000, 8192, 1)]
)
def test_read_probe_refuses_nonsense(threads, nbytes, repeats):
    with pytest.raises(InvalidParams):
        _native.probe_read_seconds(threads, nbytes, repeats)


def test_int8_probe_names_what_it_does_not_know():
    with pytest.raises(InvalidParams, match="pentium"):
        probes.measure(1, isa="pentium", repeats=1, nbytes=8192)


def test_int8_probe_refuses_what_the_processor_lacks():
    missing = {"avx2", "avx512vnni"} - set(probes.isas())
    if not missing:
        pytest.skip("this processor has every probed instruction set")
    with pytest.raises((UnavailableError, InvalidParams)):
        probes.measure(1, isa=missing.pop(), repeats=1, nbytes=8192)


def test_the_pages_of_the_weights_are_read_where_they_say_something_about_memory(tiny_model, monkeypatch):
    with tokamak.load(tiny_model, executor="cpu", threads=2) as llm:
        rates = llm.program.read_rates(2, 3)
        assert len(rates) == 3
        assert min(rates) > 0
        assert probes.measure(1, repeats=1, nbytes=1 << 20, program=llm.program).read_from == "a buffer"
        monkeypatch.setattr(probes, "READ_NBYTES", 4096)
        assert probes.measure(1, repeats=1, program=llm.program).read_from == "the weights"

"""A profile's rows add up to the wall time, whatever the records were."""

import pytest

from tokamak.errors import InvalidParams
from tokamak.observe.profile import ENGINE, profile
from tokamak.types import KernelRecord

RECORDS = [
    KernelRecord("a", "linear", "linear.q4_k.avx2", 2, 300_000_000, 3_000_000_000, 60),
    KernelRecord("b", "linear", "linear.q4_k.avx2", 1, 100_000_000, 1_000_000_000, 20),
    KernelRecord("c", "attention", "attention.f16.avx2", 4, 500_000_000, 100, 0),
]


def test_records_of_one_kernel_are_summed_and_shares_add_up_to_the_wall_time():
    rows = profile(RECORDS, 1.0, read_bytes_s=20e9, int8_macs_s=400.0)
    assert [r.op for r in rows] == ["attention", "linear", ENGINE]
    linear = rows[1]
    assert (linear.calls, linear.nbytes, linear.macs) == (3, 4_000_000_000, 80)
    assert linear.bandwidth == pytest.approx(0.5)  # 4 GB in 0.4 s of 20 GB/s
    assert linear.arithmetic == pytest.approx(0.5)
    assert sum(r.share for r in rows) == pytest.approx(1.0)
    assert rows[-1].seconds == pytest.approx(0.1)


def test_records_of_another_measurement_are_refused():
    with pytest.raises(InvalidParams, match="one measurement"):
        profile(RECORDS, 0.5, 1.0, 1.0)

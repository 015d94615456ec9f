"""The lattice formats: the lattices themselves and layouts by hand."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tokamak.quant import FORMATS
from tokamak.quant.grids import lattice

# Shape and SHA-256 of the points as int8, from tables that decode recorded blocks bit for bit.
LATTICES = {
    "iq1": ((2048, 8), "07540ffc1aeaf6ad"),
    "iq2_xxs": ((256, 8), "05826b5d3e472a3a"),
    "iq2_xs": ((512, 8), "06e47aaca60b4dc1"),
    "iq2_s": ((1024, 8), "e1aa1473412b0552"),
    "iq3_xxs": ((256, 4), "46e35f5a997efdee"),
    "iq3_s": ((512, 4), "bd1af4945a1717c6"),
}


@pytest.mark.parametrize("name", LATTICES)
def test_the_lattice_is_the_one_of_the_format(name):
    points = lattice(name)
    shape, digest = LATTICES[name]
    assert points.shape == shape
    assert hashlib.sha256(points.tobytes()).hexdigest().startswith(digest)


def test_a_lattice_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        lattice("iq1")[0, 0] = 1


def one(name):
    """A group of zeros with d = 1 where d is a field of its own."""
    group = np.zeros(1, dtype=FORMATS[name].dtype)
    if "d" in group.dtype.names:
        group["d"] = 1
    return group


def decoded(name, group):
    return FORMATS[name].decode(group.view(np.uint8).reshape(1, -1))[0]


def test_iq2_xxs_by_hand():
    group = one("iq2_xxs")
    group["qs"][0, 1, 1] = (
        3 << 28 | 0b0000010
    )  # group 1: scale 3; signs of its first eight: element 1, and 7 for parity
    expected = np.full(256, 0.5 / 4 * 8)
    expected[32:64] = 3.5 / 4 * 8
    expected[[33, 39]] *= -1
    assert decoded("iq2_xxs", group).tolist() == expected.tolist()


def test_iq3_s_by_hand():
    group = one("iq3_s")
    group["qh"][0, 0] = 0b10  # ninth bit of the second point
    group["signs"][0, 31] = 0x80
    group["scales"][0, 0] = 0x20  # scale of group 1
    y = decoded("iq3_s", group)
    assert y[4:8].tolist() == lattice("iq3_s")[256].tolist()
    assert y[[0, 32, 254, 255]].tolist() == [1, 5, 1, -1]


def test_iq1_m_assembles_its_scale_from_four_nibbles():
    group = one("iq1_m")
    d = int(np.float16(1.5).view(np.uint16))
    group["scales"] = [[(d >> shift & 15) << 12 for shift in (0, 4, 8, 12)]]
    group["scales"][0, 0] |= 0b010  # first sixteen elements: scale 2
    group["qh"][0, 0] = 0x80  # the second eight elements shift down
    first = lattice("iq1")[0].astype(np.float64)
    y = decoded("iq1_m", group)
    assert y[:8].tolist() == (1.5 * 5 * (first + 0.125)).tolist()
    assert y[8:16].tolist() == (1.5 * 5 * (first - 0.125)).tolist()
    assert y[16:24].tolist() == (1.5 * (first + 0.125)).tolist()

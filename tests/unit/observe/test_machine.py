"""The fingerprint states facts of this machine and is plain data."""

from __future__ import annotations

import json

from tokamak.observe.machine import Machine, memory_now
from tokamak.settings import available_cpus


def test_the_fingerprint_is_plain_data():
    machine = Machine.here()
    assert json.loads(json.dumps(machine.facts()))["python"] == machine.python
    assert 1 <= machine.allowed_cpus == available_cpus() <= machine.cpus


def test_the_line_has_no_line_break():
    assert "\n" not in Machine.here().line()


def test_peak_memory_is_at_least_what_is_resident():
    now = memory_now()
    assert now["peak_nbytes"] >= now["resident_nbytes"] > 1 << 20

"""`bench verify` accepts what ran and names each kind of tampering."""

from __future__ import annotations

import copy
import json

import pytest

from command import tokamak
from tokamak.engine.loading import default_model
from tokamak.errors import CheckFailed
from tokamak.observe import verify


@pytest.fixture(scope="module")
def receipt(tmp_path_factory):
    path = tmp_path_factory.mktemp("receipts") / "receipt.json"
    done = tokamak("bench", "-p", "16", "-n", "8", "-b", "1", "--repeat", "3", "--receipt", path, "--quiet")
    assert done.returncode == 0, done.stderr
    return path


def test_what_ran_holds(receipt):
    assert verify.faults(verify.read(receipt), default_model()) == []
    done = tokamak("bench", "verify", receipt, "--model", default_model())
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds" in done.stdout


def change(path, value):
    def edit(receipt):
        place = receipt
        for key in path[:-1]:
            place = place[key]
        if callable(value):
            place[path[-1]] = value(place.get(path[-1]) if isinstance(place, dict) else place[path[-1]])
        else:
            place[path[-1]] = value

    return edit


TAMPERED = {
    "mock": (change(["compute_path"], "mock"), "nothing real ran"),
    "unknown schema": (change(["schema_version"], 99), "schema_version is 99"),
    "no kernels": (change(["kernels"], []), "nothing ran"),
    "unknown kernel": (change(["kernels", 0, "kernel"], "magic"), "no kernel of this program"),
    "unknown ISA": (change(["kernels", 0, "kernel"], "linear.q8_0.quantum"), "no kernel of this program"),
    "kernel twice": (change(["kernels"], lambda k: [*k, k[0]]), "is there twice"),
    "kernel never called": (change(["kernels", 0, "calls"], 0), "has calls"),
    "negative time": (change(["kernels", 0, "nanoseconds"], -1), "has calls"),
    "no matrix": (
        change(["kernels"], lambda k: [r for r in k if not r["kernel"].startswith("linear")]),
        "no matrix was multiplied",
    ),
    "zero tokens": (
        change(["results"], lambda r: r | {"prompt_tokens": 0, "generated_tokens": 0}),
        "are \\[0, 0\\]",
    ),
    "true tokens": (change(["results", "prompt_tokens"], True), "prompt_tokens"),
    "more tokens": (change(["results", "generated_tokens"], lambda n: n + 100), "tokens are"),
    "less time": (change(["results", "seconds"], lambda s: s / 2), "seconds are"),
    "no time": (change(["results", "seconds"], 0), "seconds is 0"),
    "a faster sample": (change(["samples", 0, "seconds"], lambda s: s / 3), "seconds are|its samples make"),
    "a better median": (change(["results", "cases", 0, "median"], lambda m: m * 2), "its samples make"),
    "more bytes": (change(["results", "nbytes_read"], lambda n: n + 1), "the kernels read"),
    "accelerator": (change(["environment", "accelerator"], "RTX"), "no kernel of one ran"),
    "GPU executor": (change(["executor", "name"], "cuda"), "no kernel of one ran"),
    "no hash": (change(["model", "sha256"], "abc"), "is no hash"),
    "other model": (change(["model", "sha256"], "0" * 64), "has sha256"),
    "parity without a peer": (change(["parity"], {"status": "ok"}), "no peer is named"),
    "unknown parity": (change(["parity", "status"], "pass"), "is none of"),
    "no time stamp": (change(["timestamp"], "yesterday"), "RFC 3339"),
    "a field more": (change(["blessed"], True), "is no field"),
    "a wrong type": (change(["kernels"], {"a": 1}), "kernels is dict"),
    "rows that are no objects": (change(["samples"], [1, 2]), "must hold objects"),
    "a rate that is made up": (
        change(["results"], lambda r: r | {"decode_tokens_per_second": 1e9, "decode_seconds": 1.0}),
        "decode_tokens_per_second",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(receipt, name):
    edit, words = TAMPERED[name]
    changed = copy.deepcopy(verify.read(receipt))
    edit(changed)
    found = verify.faults(changed, default_model())
    assert found
    with pytest.raises(CheckFailed, match=words):
        raise CheckFailed("; ".join(found))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_what_is_no_receipt_is_refused(tmp_path, text):
    path = tmp_path / "receipt.json"
    path.write_text(text)
    with pytest.raises(CheckFailed, match=r"receipt\.json"):
        verify.verify(path)


def test_the_command_says_every_fault_and_exits_with_5(receipt, tmp_path):
    changed = verify.read(receipt)
    changed["compute_path"] = "mock"
    changed["kernels"] = []
    path = tmp_path / "tampered.json"
    path.write_text(json.dumps(changed))
    done = tokamak("bench", "verify", path)
    assert done.returncode == 5
    assert "nothing real ran" in done.stderr
    assert "kernels is empty" in done.stderr
    listed = tokamak("bench", "verify", path, "--json")
    assert listed.returncode == 5
    assert len(json.loads(listed.stdout)["faults"]) >= 2

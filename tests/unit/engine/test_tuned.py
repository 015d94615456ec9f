"""What tuning found is read back on this machine only, and never in the way."""

import json

import pytest

from tokamak.engine import tuned
from tokamak.engine.loading import Threading
from tokamak.engine.tuned import Tuned
from tokamak.errors import InvalidParams
from tokamak.types import Tuning

FOUND = Tuned(3, 5, 256, Tuning(32 << 10, 1 << 20, 100))


def test_a_finding_is_read_back_and_can_be_forgotten(tmp_path):
    assert tuned.read(tmp_path) == Tuned()
    tuned.write(tmp_path, FOUND)
    assert tuned.read(tmp_path) == FOUND
    assert tuned.forget(tmp_path)
    assert tuned.read(tmp_path) == Tuned()
    assert not tuned.forget(tmp_path)


def test_findings_of_other_machines_stay_and_are_not_used(tmp_path, monkeypatch):
    tuned.write(tmp_path, FOUND)
    monkeypatch.setattr(tuned, "machine_key", lambda: "another")
    assert tuned.read(tmp_path) == Tuned()
    tuned.write(tmp_path, Tuned())
    assert len(json.loads((tmp_path / tuned.FILE).read_text())) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"KEY": 3}',
        '{"KEY": {"threads": 0}}',
        '{"KEY": {"chunk_nbytes": 1, "block_nbytes": 1}}',
    ],
)
def test_a_broken_file_is_as_none(tmp_path, text):
    key = json.dumps(tuned.machine_key())[1:-1]
    (tmp_path / tuned.FILE).write_text(text.replace("KEY", key))
    assert tuned.read(tmp_path) == Tuned()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidParams, match="cannot be written"):
        tuned.write(tmp_path / "file" / "sub", FOUND)


def test_arguments_and_environment_win_over_what_was_tuned(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKAMAK_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TOKAMAK_THREADS", raising=False)
    tuned.write(tmp_path, FOUND)
    assert Threading.choose(2) == (2, None, (), FOUND.tuning, 256)
    assert Threading.choose(2, 4, [1, 0]) == (2, 4, (1, 0), FOUND.tuning, 256)
    assert Threading.choose(None)[:2] == (3, 5)
    assert Threading.choose(None, 7)[:2] == (3, 7)
    monkeypatch.setenv("TOKAMAK_THREADS", "2")
    assert Threading.choose(None)[:2] == (2, None)
    with pytest.raises(InvalidParams, match="threads_batch"):
        Threading.choose(None, 0)

"""The command line as a user meets it: verbs, exit codes, JSON on stdout, remarks on stderr."""

from __future__ import annotations

import json

import pytest

from command import tokamak
from tokamak.cli import main as cli


def test_help_lists_every_verb_and_succeeds():
    done = tokamak("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_examples(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"  tokamak {verb}" in out
    assert "--json" in out
    assert "--threads" in out
    assert "--quiet" in out


def test_no_verb_is_a_usage_error_with_the_overview_on_stderr():
    done = tokamak()
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: tokamak COMMAND" in done.stderr


def test_an_unknown_verb_is_a_usage_error_that_names_the_nearest():
    done = tokamak("docter")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tokamak: unknown command 'docter'; did you mean 'doctor'?\n"


def test_an_unknown_option_is_a_usage_error():
    assert tokamak("doctor", "--frobnicate").returncode == 2


def test_a_wrong_setting_is_one_line_and_a_usage_error():
    done = tokamak("doctor", TOKAMAK_THREADS="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "TOKAMAK_THREADS='many'" in done.stderr


def test_version():
    done = tokamak("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("tokamak ")


def test_doctor_json_is_one_document_on_stdout():
    done = tokamak("doctor", "--json", "--threads", "1", HF_TOKEN="hf_secret")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["threads"] == 1
    assert found["environment"]["HF_TOKEN"] == "(set)"
    assert "hf_secret" not in done.stdout
    assert found["accelerators"][0]["available"] is False
    assert found["accelerators"][0]["why"]


def test_doctor_says_the_same_for_people():
    done = tokamak("doctor")
    assert done.returncode == 0
    assert "cpus" in done.stdout
    assert "huge pages" in done.stdout

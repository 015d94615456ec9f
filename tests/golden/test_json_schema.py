"""JSON schemas that are accepted constrain as the standard's own suite says; the others are refused, never run loosely."""

import json
import lzma
import os

import pytest

import reference_data
from tokamak.errors import InvalidParams
from tokamak.sampling.grammar import Compiler, Vocabulary

pytest.importorskip("llguidance", reason="the grammar extra is not installed")
FOLDER = reference_data.unpacked() and reference_data.unpacked() / "models" / "json-schema"
pytestmark = pytest.mark.skipif(FOLDER is None, reason="the reference schemas are not unpacked")
SLOW = bool(os.environ.get("TOKAMAK_SLOW_TESTS"))  # every case, not a sample
DRAFTS = ("draft4/", "draft6/", "draft7/", "draft2019-09/", "draft2020-12/")
# Formats and the differences of ECMAScript's expressions are optional in the standard: some are only checked roughly.
BYTES = [b"", *(bytes([i]) for i in range(256)), b'{"', b'":', b'"}', b"true", b'", "', b"\xc3", b" "]


def cases(name, step):
    with lzma.open(FOLDER / name, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % step == 0:
                yield json.loads(line)


def verdicts(found):
    """(valid ones accepted, valid ones refused, invalid ones accepted) and the schemas compiled and refused."""
    compiler = Compiler(Vocabulary(BYTES, frozenset(), frozenset([0])))
    accepted, refused, wrong, compiled, unsupported = 0, [], [], 0, 0
    for case in found:
        try:
            grammar = compiler.compile("json_schema", json.dumps(case["schema"]), ())
        except InvalidParams:
            unsupported += 1
            continue
        compiled += 1
        for test in case.get("tests", ()):
            ids = [1 + b for b in json.dumps(test["data"], ensure_ascii=False).encode()]
            matcher = grammar.matcher.deep_copy()
            fits = matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
            where = (case.get("file", case.get("name")), test["description"])
            if test["valid"] and fits:
                accepted += 1
            elif test["valid"]:
                refused.append(where)
            elif fits:
                wrong.append(where)
    return accepted, refused, wrong, compiled, unsupported


def test_the_suite_of_the_standard():
    found = (
        c
        for c in cases("JSON-Schema-Test-Suite.jsonl.xz", 1 if SLOW else 5)
        if c.get("file", "").startswith(DRAFTS) and "/optional/" not in c["file"]
    )
    accepted, refused, wrong, compiled, unsupported = verdicts(found)
    assert wrong == []
    assert accepted > 300
    # another order of properties than the schema's, 1.0 for 1, formats, which the standard leaves unchecked
    assert len(refused) < accepted / 10
    assert compiled > unsupported / 2


def test_schemas_of_real_tools_and_documents():
    accepted, refused, wrong, compiled, unsupported = verdicts(
        cases("maskbench_dev.jsonl.xz", 7 if SLOW else 61)
    )
    assert wrong == []
    assert len(refused) <= accepted / 100
    assert compiled > 4 * unsupported

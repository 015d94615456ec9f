"""A forced answer is taken apart into calls while it is written; a free one by the engine's parser."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokamak.server.tools import ForcedReader, FreeReader, Tool, forced_schema

NAMES = ("get_weather", "add")
ARGS = '{"city": "Par\\"is }", "days": [1, {"a": null}]}'
CALL = ("get_weather", json.loads(ARGS))
CASES = [
    (f'{{"name": "get_weather", "arguments": {ARGS}}}', "", [CALL]),
    (
        f'[{{"name": "get_weather", "arguments": {ARGS}}}, {{"name": "add", "arguments": {{}}}}]',
        "",
        [CALL, ("add", {})],
    ),
    ('{"arguments": {"a": 1}, "name": "add"}', "", [("add", {"a": 1})]),
    ('{"name": "add"}', "", [("add", {})]),
    ('{"name": "add", "arguments": "{\\"a\\": 1}"}', "", [("add", {"a": 1})]),
    ('{"name": "other", "arguments": {}} b', '{"name": "other", "arguments": {}} b', []),
    ('{"name": "get_wea', '{"name": "get_wea', []),
    ("no JSON", "no JSON", []),
]


def read(reader, pieces):
    """(text, reasoning, calls) of what came in these pieces."""
    text, reasoning, calls = "", "", {}
    for piece in [p for part in pieces for p in reader.push(part)] + reader.finish():
        if piece.kind == "call":
            call = calls.setdefault(piece.index, [piece.name, ""])
            call[1] += piece.text
        elif piece.kind == "text":
            text += piece.text
        else:
            reasoning += piece.text
    return text, reasoning, [(name, json.loads(arguments)) for name, arguments in calls.values()]


@pytest.mark.parametrize(("written", "text", "calls"), CASES)
def test_calls_are_found_and_text_is_never_lost(written, text, calls):
    for cut in (1, 3, len(written)):
        parts = [written[i : i + cut] for i in range(0, len(written), cut)]
        assert read(ForcedReader(NAMES), parts) == (text, "", calls)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 200), max_size=12))
def test_where_a_text_is_cut_changes_nothing(case, cuts):
    written, text, calls = case
    places = [0, *sorted(c for c in cuts if c < len(written)), len(written)]
    parts = [written[a:b] for a, b in pairwise(places)]
    assert read(ForcedReader(NAMES), parts) == (text, "", calls)


def test_arguments_are_passed_on_while_they_are_written():
    reader = ForcedReader(NAMES)
    reader.push('{"name": "add", "arguments": ')
    assert [p.text for p in reader.push('{"a":')] == ['{"a":']


def test_a_free_answer_has_text_reasoning_and_calls():
    reader = FreeReader(None, [Tool("add", "", {})])
    written = '<think>So.</think>Look: <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    assert read(reader, [written]) == ("Look:", "So.", [("add", {"a": 1})])
    assert read(FreeReader(None, [], reasoning=False), ["<think>a</think> b"]) == (
        "<think>a</think> b",
        "",
        [],
    )


@given(st.text(alphabet='{}[]",:; \n\\ae1nmrgut', max_size=120))
def test_whatever_a_model_writes_is_read(written):
    reader = ForcedReader(NAMES)
    for char in written:
        reader.push(char)
    reader.finish()


def test_references_inside_a_schema_follow_it():
    own = {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    schema = forced_schema([Tool("f", "", own)], several=False)
    assert schema["$defs"]["tool0"]["properties"]["x"]["$ref"] == "#/$defs/tool0/$defs/n"

"""Replies of the common families, by their own templates: taken apart the same whole, in pieces and in single bytes."""

import codecs
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_data import unpacked
from tokamak.engine.dialects import CALLS, FRAMES, REASONING
from tokamak.engine.replies import ToolParser

FOLDER = unpacked() / "models" / "chat-templates-llamacpp" if unpacked() else None
pytestmark = pytest.mark.skipif(FOLDER is None, reason="the reference templates are not unpacked")
TOOLS = [
    {"type": "function", "function": {"name": n, "parameters": {"type": "object", "properties": {"s": {"type": "string"}}}}}
    for n in ("f", "g")
]  # fmt: skip
ARGS = {"s": 'Zürich 🌍 "x" {', "n": [1, None]}
TEXT = json.dumps(ARGS, ensure_ascii=False)
TWO = [("f", ARGS), ("g", {})]
# family: (template, what the model writes, answer, reasoning, calls)
FAMILIES = {
    "llama 3, bare": ("meta-llama-Llama-3.1-8B-Instruct", f'{{"name": "f", "parameters": {TEXT}}}', "", "", TWO[:1]),
    "llama 3, text": ("meta-llama-Llama-3.3-70B-Instruct", "Ünder {x} 3 < 4", "Ünder {x} 3 < 4", "", []),
    "llama 3, built in": ("meta-llama-Llama-3.1-8B-Instruct", '<|python_tag|>g.call(s="é")', "", "", [("g", {"s": "é"})]),
    "hermes": ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        f'Só.\n<tool_call>\n{{"name": "f", "arguments": {TEXT}}}\n</tool_call>\n<tool_call>\n{{"name": "g", "arguments": {{}}}}\n</tool_call>',
        "Só.", "", TWO),
    "qwen 3": ("Qwen-Qwen3-0.6B", f'<think>\nHm ✓\n</think>\n\n<tool_call>\n{{"name": "f", "arguments": {TEXT}}}\n</tool_call>',
        "", "Hm ✓", TWO[:1]),
    "qwen 3 coder": ("Qwen3-Coder",
        "<tool_call>\n<function=f>\n<parameter=s>\n12 é\n</parameter>\n</function>\n</tool_call>", "", "", [("f", {"s": "12 é"})]),
    "mistral": ("mistralai-Mistral-Nemo-Instruct-2407",
        f'[TOOL_CALLS][{{"name": "f", "arguments": {TEXT}, "id": "abcdefghi"}}, {{"name": "g", "arguments": {{}}, "id": "123456789"}}]',
        "", "", TWO),
    "mistral small 3.2": ("Mistral-Small-3.2-24B-Instruct-2506", f"Sí.[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{TEXT}[TOOL_CALLS]g[ARGS]{{}}",
        "Sí.", "", TWO),
    "ministral reasoning": ("mistralai-Ministral-3-14B-Reasoning-2512", f"[THINK]Ähm.[/THINK]Ja.[TOOL_CALLS]f[ARGS]{TEXT}", "Ja.", "Ähm.", TWO[:1]),
    "deepseek r1": ("llama-cpp-deepseek-r1",
        f"<think>Ähm 4<5</think>Ja.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{TEXT}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Ja.", "Ähm 4<5", TWO[:1]),
    "deepseek v3.1": ("deepseek-ai-DeepSeek-V3.1",
        f"Ja.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{TEXT}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Ja.", "", TWO),
    "gpt-oss, call": ("openai-gpt-oss-120b",
        f"<|channel|>analysis<|message|>Hm ✓<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{TEXT}<|call|>",
        "", "Hm ✓", TWO[:1]),
    "gpt-oss, call in the role": ("openai-gpt-oss-120b",
        f"<|channel|>analysis<|message|>Hm<|end|><|start|>assistant to=functions.f<|channel|>commentary json<|message|>{TEXT}<|call|>",
        "", "Hm", TWO[:1]),
    "gpt-oss, answer": ("openai-gpt-oss-120b",
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Où? 1 < 2<|return|>", "Où? 1 < 2", "Hm", []),
    "gemma 4": ("google-gemma-4-31B-it", '<|channel>thought\nHm é<channel|><|tool_call>call:f{s:<|"|>é, {"<|"|>,n:[1,null]}<tool_call|>', "", "Hm é",
        [("f", {"s": 'é, {"', "n": [1, None]})]),
    "command r7b": ("CohereForAI-c4ai-command-r7b-12-2024-tool_use",
        f'<|START_THINKING|>Hm ✓<|END_THINKING|><|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "f", "parameters": {TEXT}}}\n]<|END_ACTION|>',
        "", "Hm ✓", TWO[:1]),
    "command r7b, answer": ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "<|START_RESPONSE|>Où <b>?<|END_RESPONSE|>", "Où <b>?", "", []),
    "command r plus": ("CohereForAI-c4ai-command-r-plus-tool_use",
        f'Action:\n```json\n[{{"tool_name": "f", "parameters": {TEXT}}}]\n```', "", "", TWO[:1]),
    "granite 3.3, answer": ("ibm-granite-granite-3.3-2B-Instruct", "<think>Hm é</think><response>Où?</response>", "Où?", "Hm é", []),
    "granite 3.3": ("ibm-granite-granite-3.3-2B-Instruct", f'<|tool_call|>[{{"name": "f", "arguments": {TEXT}}}, {{"name": "g", "arguments": {{}}}}]', "", "", TWO),
    "granite 4": ("ibm-granite-granite-4.0", f'<tool_call>\n{{"name": "f", "arguments": {TEXT}}}\n</tool_call>', "", "", TWO[:1]),
}  # fmt: skip
PHI_4 = "<|system|>{{ m.content }}{% if tools %}<|tool|>{{ tools | tojson }}<|/tool|>{% endif %}<|tool_call|> is for calls"


def template_of(name):
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def read(parser, pieces):
    events = [event for piece in pieces for event in parser.push(piece)] + parser.finish()
    texts = ["".join(e.text for e in events if e.kind == kind) for kind in ("content", "reasoning")]
    return (*texts, [(e.call.name, json.loads(e.call.arguments)) for e in events if e.call])


def by_bytes(text, cuts):
    """Pieces of text as a decoder of bytes gives them, which come cut at these places."""
    raw, decoder = text.encode(), codecs.getincrementaldecoder("utf-8")()
    places = [0, *sorted(c for c in cuts if c < len(raw)), len(raw)]
    return [decoder.decode(raw[a:b]) for a, b in pairwise(places)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_is_read_whole_and_in_single_bytes(family):
    name, reply, *expected = FAMILIES[family]
    for cuts in ([], range(len(reply.encode()))):
        parser = ToolParser.for_template(template_of(name), tools=TOOLS)
        assert read(parser, by_bytes(reply, cuts)) == tuple(expected)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=10))
def test_wherever_its_bytes_are_cut_it_is_read_the_same(family, cuts):
    name, reply, *expected = FAMILIES[family]
    parser = ToolParser.for_template(template_of(name), tools=TOOLS)
    assert read(parser, by_bytes(reply, cuts)) == tuple(expected)


def test_phi_4_writes_a_list_after_its_mark():
    reply = f'<|tool_call|>[{{"name": "f", "arguments": {TEXT}}}]<|/tool_call|>'
    for cuts in ([], range(500)):
        assert read(ToolParser.for_template(PHI_4, tools=TOOLS), by_bytes(reply, cuts)) == ("", "", TWO[:1])


MARKS = sorted(
    {s.opens for s in (*REASONING, *CALLS)} | {c for s in (*REASONING, *CALLS) for c in s.closes} | {m for m, _ in FRAMES}
)  # fmt: skip
SCRAPS = st.sampled_from(
    [*MARKS, TEXT, '{"name": "f", "arguments": {}}', "f", "[ARGS]", "{", "é 🌍", " ", "\n", "<", "|>"]
)
TEMPLATES = st.sampled_from(sorted(FOLDER.glob("*.jinja")) if FOLDER else [None])


@settings(max_examples=60, deadline=None)
@given(path=TEMPLATES, scraps=st.lists(SCRAPS, max_size=12), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_marks_in_any_order_cut_anywhere_are_read_as_if_they_came_whole(path, scraps, cuts):
    reply = "".join(scraps)
    whole = read(ToolParser.for_template(path.read_text(encoding="utf-8"), tools=TOOLS), [reply])
    parts = read(
        ToolParser.for_template(path.read_text(encoding="utf-8"), tools=TOOLS), by_bytes(reply, cuts)
    )
    assert parts == whole

"""Replies are taken apart into answer, reasoning and calls: what a model's own template writes is what is read back."""

import json
import re

import pytest

from reference_data import unpacked
from tokamak.engine.replies import ToolParser
from tokamak.errors import TokamakError
from tokamak.tokenizers.chat import ChatTemplate

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a place",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    },
]
ARGUMENTS = {"city": 'Zürich "Nord"', "days": 3}
USER = {"role": "user", "content": "How is the weather?"}
TEMPLATES = sorted((unpacked() / "models" / "chat-templates-llamacpp").glob("*.jinja")) if unpacked() else []
# what templates cannot show: no tools at all, or written only by the system prompt
WITHOUT_CALLS = {
    "google-gemma-2-2b-it", "microsoft-Phi-3.5-mini-instruct", "llama-cpp-rwkv-world", "LFM2-8B-A1B",
    "LFM2.5-Instruct", "GigaChat3-10B-A1.8B", "HuggingFaceTB-SmolLM3-3B", "ibm-granite-granite-3.3-2B-Instruct",
}  # fmt: skip


def read(parser, text, step=None):
    events = []
    for at in range(0, len(text), step or len(text) or 1):
        events += parser.push(text[at : at + (step or len(text))])
    events += parser.finish()
    content = "".join(e.text for e in events if e.kind == "content")
    reasoning = "".join(e.text for e in events if e.kind == "reasoning")
    return content, reasoning, [e.call for e in events if e.call]


def written_by(template, message):
    """The prompt, and what the template writes after it for a message of the assistant, without its end of turn."""
    shared = {"tools": TOOLS, "bos_token": "", "eos_token": "<eos>", "enable_thinking": True}
    prompt = template.render([USER], add_generation_prompt=True, **shared)
    whole = template.render([USER, message], add_generation_prompt=False, **shared)
    plain = template.render(
        [USER, {"role": "assistant", "content": "XYZ"}], add_generation_prompt=False, **shared
    )
    common = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    common -= len(re.search(r"(<[^>\s]*)?$", whole[:common]).group())  # not inside a mark
    return whole[:common], whole[common:].removesuffix(plain.rpartition("XYZ")[2]).removesuffix("<eos>")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_a_call_as_the_template_writes_it_is_read_back(path):
    if path.stem in WITHOUT_CALLS:
        pytest.skip("its template writes no calls")
    template = ChatTemplate(path.read_text(encoding="utf-8"))
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ARGUMENTS},
    }
    for content, arguments in (
        ("", ARGUMENTS),
        (None, ARGUMENTS),
        ("", json.dumps(ARGUMENTS)),
        (None, json.dumps(ARGUMENTS)),
    ):
        call["function"]["arguments"] = arguments
        try:
            prompt, reply = written_by(
                template, {"role": "assistant", "content": content, "tool_calls": [call]}
            )
        except TokamakError as error:
            refusal = error
            continue
        if "get_weather" in reply:
            break
    else:
        pytest.skip(f"the template takes no such message: {refusal}")
    for step in (None, 1, 7):
        parser = ToolParser.for_template(template.source, tools=TOOLS, prompt=prompt)
        _, _, calls = read(parser, reply, step)
        assert [(c.name, json.loads(c.arguments)) for c in calls] == [("get_weather", ARGUMENTS)], reply


HERMES, MISTRAL, LLAMA = "<tool_call> <think>", "[TOOL_CALLS] [ARGS]", "<|python_tag|>"
CASES = [  # template, reply, answer, reasoning, [(name, arguments)]
    ("", "Just an answer.\n", "Just an answer.\n", "", []),
    ("<think>", "<think>\nHm.\nSo.\n</think>\n\nAn answer.", "An answer.", "Hm.\nSo.", []),
    ("<think>", "1 < 2 and <thin> is no mark </think>", "1 < 2 and <thin> is no mark </think>", "", []),
    (HERMES, 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>', "Let me see.", "", [("f", {"a": 1}), ("g", {})]),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>', "", "",
     [("f", {"a": "</tool_call>"})]),
    (HERMES, "<tool_call>{broken</tool_call> and more", "<tool_call>{broken</tool_call> and more", "", []),
    (HERMES, '<think>x</think>\n<tool_call>{"name": "f", "arguments": {}}', "", "x", [("f", {})]),
    (MISTRAL, '[TOOL_CALLS][{"name": "f", "arguments": {"a": [1, 2]}, "id": "abc"}]', "", "", [("f", {"a": [1, 2]})]),
    (MISTRAL, 'Yes.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}', "Yes.", "", [("f", {"a": 1}), ("g", {})]),
    (LLAMA, '{"name": "f", "parameters": {"a": "b"}}', "", "", [("f", {"a": "b"})]),
    (LLAMA, '<|python_tag|>brave_search.call(query="x y")', "", "", [("brave_search", {"query": "x y"})]),
    (LLAMA, "<|python_tag|>print(1)\nprint(2)", "", "", [("python", {"code": "print(1)\nprint(2)"})]),
    (LLAMA, '{"a": {"name": "f"}}', '{"a": {"name": "f"}}', "", []),
    (LLAMA, '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', "", []),
    (LLAMA, "{x} is a set, [1] a list", "{x} is a set, [1] a list", "", []),
    ("<|tool_call_start|>", '<|tool_call_start|>[f(a="b", c=[1, None]), g()]<|tool_call_end|>Done.', "Done.", "",
     [("f", {"a": "b", "c": [1, None]}), ("g", {})]),
    ("<|tool_call|>", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]', "", "", [("f", {"a": 1})]),
    ("<|channel|>analysis<|message|> <|channel|>commentary <|channel|>final<|message|>",
     "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.", "Yes.", "Hm.", []),
    ("<|channel|>analysis<|message|> <|channel|>commentary",
     '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":1}<|call|>', "", "", [("f", {"a": 1})]),
    ("<tool_call>", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>[1]</arg_value>\n</tool_call>", "", "", [("f", {"a": [1]})]),
    (None, '{"name": "f", "arguments": {"a": 1}}', "", "", [("f", {"a": 1})]),
]  # fmt: skip


@pytest.mark.parametrize(("template", "reply", "answer", "reasoning", "calls"), CASES)
@pytest.mark.parametrize("step", [None, 1, 2, 5])
def test_a_reply_is_taken_apart_wherever_it_is_cut(template, reply, answer, reasoning, calls, step):
    content, thought, found = read(ToolParser.for_template(template), reply, step)
    assert (content, thought) == (answer, reasoning)
    assert [(c.name, json.loads(c.arguments)) for c in found] == calls
    assert [c.index for c in found] == list(range(len(found)))


def test_without_tools_only_reasoning_is_looked_for():
    reply = '<think>a</think>{"name": "f", "arguments": {}}<tool_call>'
    content, thought, calls = read(ToolParser.for_template(HERMES, tools=[]), reply, 3)
    assert (content, thought, calls) == ('{"name": "f", "arguments": {}}<tool_call>', "a", [])


def test_a_bare_object_is_a_call_only_of_a_tool_that_was_given():
    for name, expected in (("get_weather", 1), ("other", 0)):
        reply = json.dumps({"name": name, "parameters": {"city": "x"}})
        content, _, calls = read(ToolParser.for_template(LLAMA, tools=TOOLS), reply, 4)
        assert (len(calls), content) == (expected, "" if expected else reply)


def test_reasoning_that_the_prompt_began_is_reasoning():
    parser = ToolParser.for_template("<think>", prompt="<|assistant|>\n<think>\n")
    assert read(parser, "Hm.\n</think>\nYes.", 2)[:2] == ("Yes.", "Hm.")


def test_values_without_quotes_get_the_type_of_the_schema():
    reply = "<tool_call><function=get_weather><parameter=city>\n12\n</parameter><parameter=days>\n12\n</parameter></function></tool_call>"
    _, _, (call,) = read(ToolParser.for_template("<tool_call>", tools=TOOLS), reply)
    assert json.loads(call.arguments) == {"city": "12", "days": 12}


def test_text_is_given_out_as_soon_as_it_cannot_become_a_mark():
    parser = ToolParser.for_template(HERMES)
    assert [e.text for e in parser.push("Hello <too")] == ["Hello"]
    assert [e.text for e in parser.push("k>")] == [" <took>"]


def test_many_closing_marks_end_a_section_that_is_none():
    reply = "<tool_call>{" + "</tool_call>" * 10_000
    content, _, calls = read(ToolParser.for_template(HERMES), reply, 64)
    assert (content, calls) == (reply, [])

"""How families of models write a tool call and their reasoning: the marks around a section and how its inside reads.

A table and pure functions. Which rows a model uses is seen from its chat template; following a stream of text is
`replies.py`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One call as written. id: the model's own, None mostly. unsure: text of arguments that were written without quotes."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None
    unsure: Mapping[str, str] = field(default_factory=dict)


Reader = Callable[[str], list[Call]]
"""Inside of a section to its calls.  Raises: ValueError if it is not one, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Section:
    """A marked part of a reply. read: None for reasoning. tell: part of the templates that use it, `opens` if empty.

    closes: any of these ends it, as does the end of the reply; one of the marks that open a section is left to open it.
    keep: the end of `opens` that belongs to the inside.
    """

    opens: str
    closes: tuple[str, ...]
    read: Reader | None = None
    tell: str = ""
    keep: str = ""


def json_calls(text: str) -> list[Call]:
    """Objects with a name and arguments: one, a list, or several one after another."""
    return [call_of(value) for value in _json_values(text)]


def named_values(text: str) -> list[Call]:
    """[{"name": {arguments}}, ...]."""
    return [
        Call(name, _mapping(arguments)) for entry in _json_values(text) for name, arguments in entry.items()
    ]


def call_of(value: Any) -> Call:
    """A call from its object, by the names that models use for name and arguments."""
    if not isinstance(value, Mapping):
        raise ValueError("not an object")  # noqa: TRY004  # readers raise ValueError, whatever is wrong
    inner = value.get("function")
    if isinstance(inner, Mapping):
        value = {**inner, "id": value.get("id")}
    name = next((value[k] for k in ("name", "tool_name", "function") if isinstance(value.get(k), str)), None)
    arguments = next((value[k] for k in ("arguments", "parameters", "args") if k in value), None)
    if not name or (arguments is None and len(value) > 1):
        raise ValueError("no name or no arguments")
    number = value.get("id", value.get("tool_call_id"))
    return Call(
        name, _mapping({} if arguments is None else arguments), None if number is None else str(number)
    )


def tagged_calls(text: str) -> list[Call]:
    """<function=NAME> or <invoke name="NAME"> with a tag for each parameter, or with JSON inside."""
    calls = []
    for match in _FUNCTION.finditer(text):
        name, inside = match["name"].strip(), match["inside"]
        found = list(_PARAMETER.finditer(inside))
        if not found and inside.strip():
            calls.append(Call(name, _mapping(json.loads(inside))))
            continue
        values = {m["name"].strip(): _value(m["value"], m["string"]) for m in found}
        unsure = {m["name"].strip(): _trimmed(m["value"]) for m in found if m["string"] is None}
        calls.append(Call(name, values, unsure=unsure))
    return _some(calls)


def keyed_calls(text: str) -> list[Call]:
    """NAME, then <arg_key>K</arg_key><arg_value>V</arg_value> for each argument."""
    name = text.split("<arg_key>", 1)[0].strip()
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError("no name")
    texts = {key.strip(): _trimmed(value) for key, value in _ARGUMENT.findall(text)}
    return [Call(name, {key: _value(value, None) for key, value in texts.items()}, unsure=texts)]


def xml_or_json_calls(text: str) -> list[Call]:
    """Inside of <tool_call>: whichever of the three it is."""
    start = text.lstrip()[:1]
    return (json_calls if start in ("{", "[") else tagged_calls if start == "<" else keyed_calls)(text)


def argument_calls(text: str) -> list[Call]:
    """A JSON list, or NAME[CALL_ID]ID[ARGS]{...} any number of times; both marks may lack."""
    if text.lstrip().startswith("["):
        return json_calls(text)
    calls = []
    for part in filter(str.strip, text.split("[TOOL_CALLS]")):
        head, brace, rest = part.partition("{")
        name, _, number = head.replace("[ARGS]", "").partition("[CALL_ID]")
        calls.append(Call(_name(name), _mapping(json.loads(brace + rest)), number.strip() or None))
    return _some(calls)


def separated_calls(text: str) -> list[Call]:
    """NAME, a mark, JSON (perhaps as a block of Markdown), each call between a begin and an end mark."""
    calls = []
    for match in _SEPARATED.finditer(text):
        head, inside = match["head"], match["inside"].strip()
        name = match["name"] or head
        if "\n" in inside and inside.endswith("```"):  # "type<sep>name\n```json\n{...}\n```"
            name, _, inside = inside.partition("\n")
            inside = inside.removeprefix("```json").removesuffix("```")
        number = head.strip() if "functions." in head or match["name"] else None
        plain = re.sub(r":\d+$", "", name.strip().removeprefix("functions."))
        calls.append(Call(_name(plain), _mapping(json.loads(inside)), number))
    return _some(calls)


def python_calls(text: str) -> list[Call]:
    """name(key=value, ...) or a list of such; `name.call(...)` counts as name. Values are literals."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("not an expression") from error
    calls = []
    for node in tree.elts if isinstance(tree, ast.List) else [tree]:
        if not isinstance(node, ast.Call) or node.args or any(k.arg is None for k in node.keywords):
            raise ValueError("not a call by keywords")
        name = ast.unparse(node.func).removesuffix(".call")
        calls.append(Call(_name(name), {str(k.arg): _literal(k.value) for k in node.keywords}))
    return _some(calls)


def python_tag(text: str) -> list[Call]:
    """After <|python_tag|>: an object, a call, or code, which is a call of `python`."""
    try:
        return (json_calls if text.lstrip().startswith(("{", "[")) else python_calls)(text)
    except ValueError:
        return [Call("python", {"code": text})]


def first_line_call(text: str) -> list[Call]:
    """NAME on the first line, its arguments as JSON on the others."""
    name, _, rest = text.partition("\n")
    return [Call(_name(name), _mapping(json.loads(rest)))]


def channel_call(text: str) -> list[Call]:
    """NAME, channel and type up to <|message|>, then JSON."""
    head, mark, rest = text.partition("<|message|>")
    if not mark:
        raise ValueError("no message")
    return [Call(_name(re.split(r"[\s<]", head.removeprefix("functions."))[0]), _mapping(json.loads(rest)))]


def brace_call(text: str) -> list[Call]:
    """call:NAME{key:value,...} with strings between <|"|> marks and keys without quotes."""
    head, brace, rest = text.partition("{")
    parts = (brace + rest).split('<|"|>')
    parts[::2] = [re.sub(r"([{,]\s*)([\w.-]+)\s*:", r'\1"\2":', part) for part in parts[::2]]
    parts[1::2] = [json.dumps(part) for part in parts[1::2]]
    return [Call(_name(head.removeprefix("call:")), _mapping(json.loads("".join(parts))))]


_FUNCTION = re.compile(
    r'<(?:｜DSML｜)?(?:function=|invoke name=")(?P<name>[^>"\n]+)"?>(?P<inside>.*?)</(?:｜DSML｜)?(?:function|invoke)>',
    re.DOTALL,
)
_PARAMETER = re.compile(
    r'<(?:｜DSML｜)?parameter(?:=| name=")(?P<name>[^>"\n]+)"?(?: string="(?P<string>true|false)")?>'
    r"(?P<value>.*?)</(?:｜DSML｜)?parameter>",
    re.DOTALL,
)
_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_SEPARATED = re.compile(
    r"(?:<｜tool▁call▁begin｜>|<\|tool_call_begin\|>|<\|tool_call:begin\|>)(?P<head>.*?)"
    r"(?:<｜tool▁sep｜>|<\|tool_call_argument_begin\|>|<\|tool_call:name\|>(?P<name>.*?)<\|tool_call:args\|>)"
    r"(?P<inside>.*?)(?:<｜tool▁call▁end｜>|<\|tool_call_end\|>|<\|tool_call:end\|>)",
    re.DOTALL,
)


def _json_values(text: str) -> Iterator[Any]:
    decoder, text, at = json.JSONDecoder(strict=False), text.strip(), 0
    if not text:
        raise ValueError("nothing is written")
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        yield from value if isinstance(value, list) else [value]
        at += len(text) - at - len(text[at:].lstrip(" \t\r\n,;"))


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        value = json.loads(value or "{}")
    if not isinstance(value, Mapping):
        raise ValueError("arguments are not an object")  # noqa: TRY004  # as above
    return value


def _value(text: str, string: str | None) -> Any:
    """A parameter between tags: JSON where it is some, else the text. string: what the tag says about it, if it does."""
    if string == "true":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return _trimmed(text)


def _trimmed(text: str) -> str:
    return text.removeprefix("\n").removesuffix("\n")


def _literal(node: ast.expr) -> Any:
    names = {"true": True, "false": False, "null": None}
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    return ast.literal_eval(node)


def _name(text: str) -> str:
    name = text.strip()
    if not re.fullmatch(r"[\w.:/-]+", name):
        raise ValueError(f"{name!r:.40} is no name")
    return name


def _some(calls: list[Call]) -> list[Call]:
    if not calls:
        raise ValueError("no call is written")
    return calls


REASONING = (
    Section("<think>", ("</think>",)),
    Section("<thinking>", ("</thinking>",)),
    Section("<seed:think>", ("</seed:think>",)),
    Section("[THINK]", ("[/THINK]",)),
    Section("<|START_THINKING|>", ("<|END_THINKING|>",)),
    Section("<|channel>thought\n", ("<channel|>",), tell="<|channel>thought"),
    Section("<|channel|>analysis<|message|>", ("<|end|>",)),
    Section("<|begin|>assistant<|think|>", ("<|end|>",)),
    Section("<|think|>", ("<|end|>",), tell="<|begin|>assistant<|think|>"),
)
CALLS = (
    Section("<tool_call>", ("</tool_call>",), xml_or_json_calls),
    Section("<tool_calls>", ("</tool_calls>",), json_calls),
    Section("<TOOLCALL>", ("</TOOLCALL>",), json_calls),
    Section("<|tool_call|>", ("<|/tool_call|>",), json_calls),
    Section("<|tools_prefix|>", ("<|tools_suffix|>",), named_values),
    Section("<seed:tool_call>", ("</seed:tool_call>",), tagged_calls),
    Section("<minimax:tool_call>", ("</minimax:tool_call>",), tagged_calls),
    Section("<｜DSML｜function_calls>", ("</｜DSML｜function_calls>",), tagged_calls, tell="｜DSML｜"),
    Section("<function=", ("</function>",), lambda t: tagged_calls("<function=" + t + "</function>")),
    Section("[TOOL_CALLS]", (), argument_calls),
    Section("<｜tool▁calls▁begin｜>", ("<｜tool▁calls▁end｜>",), separated_calls),
    Section("<|tool_calls_section_begin|>", ("<|tool_calls_section_end|>",), separated_calls),
    Section("<|tool_calls|>", ("<|calls|>",), separated_calls),
    Section("<|python_tag|>", (), python_tag),
    Section("<|tool_call_start|>", ("<|tool_call_end|>",), python_calls),
    Section("<|START_ACTION|>", ("<|END_ACTION|>",), json_calls),
    Section("Action:\n```json", ("```",), json_calls, tell="Action:"),
    Section("functools[", (), json_calls, keep="["),
    Section("<|function_call|>", (), json_calls),
    Section("<|tool_call>", ("<tool_call|>",), brace_call),
    Section(">>>", (">>>",), first_line_call, tell=">>>all"),
    Section(" to=functions.", ("<|call|>",), channel_call, tell="<|channel|>commentary"),
)
# Marks that only frame an answer, and are no part of it: (mark, part of the templates that use it).
FRAMES = (
    ("<response>", "<response></response>"),
    ("</response>", "<response></response>"),
    ("<|START_RESPONSE|>", ""),
    ("<|END_RESPONSE|>", ""),
    (">>>all\n", ">>>all"),
    ("<|channel|>final<|message|>", "<|channel|>"),
    ("<|channel|>commentary", "<|channel|>"),
    ("<|start|>assistant", "<|channel|>"),
    ("<|message|>", "<|channel|>"),
    ("<|end|>", "<|channel|>analysis"),
    ("<|return|>", ""),
    ("<|begin|>assistant", "<|begin|>assistant<|think|>"),
    ("<|content|>", "<|begin|>assistant<|think|>"),
)

"""What clients of OpenAI's routes send, as msgspec types: the one table that decoding, /openapi.json and the guide use.

A field that is not here is refused by name; one that is known and has no effect here is accepted and listed in the
header x-tokamak-ignored.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from tokamak.errors import InvalidParams
from tokamak.sampling import SamplingParams
from tokamak.server.bodies import Body
from tokamak.server.tools import Tool

MAX_SAMPLES = 8  # n
MAX_PROMPTS = 64  # prompts of one /v1/completions
MAX_MESSAGES = 4096
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MAX_TOOLS = 256
MAX_IMAGES = 64  # of a message
MAX_SCHEMA = 256 << 10  # characters of a schema, a grammar, an expression
WHITE_SPACE = r"( |\n {0,12})?"
MASK64 = (1 << 64) - 1
DRAW_A_SEED = -1  # llama-server's clients send it to mean "any"

Text = Annotated[str, Meta(max_length=256, min_length=1)]
TokenIds = list[Annotated[int, Meta(ge=0, lt=1 << 31)]]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """include_usage: one more chunk, with the counts of tokens, before [DONE]. Without `stream` it has no effect.

    include_obfuscation: accepted; nothing is padded here.
    """

    include_usage: bool = False
    include_obfuscation: bool | None = None


class SchemaFormat(Struct):
    """json_schema of a response_format. strict: always, whatever is asked."""

    schema: dict[str, Any] = {}
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Format(Struct, forbid_unknown_fields=True):
    """text, any JSON object, or JSON of a schema; `schema` beside the type is llama-server's spelling."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    schema: dict[str, Any] | None = None

    def constraint(self) -> dict[str, Any]:
        """Fields of SamplingParams.  Raises: InvalidParams without a schema."""
        if self.type == "text":
            return {}
        given = self.json_schema.schema if self.json_schema else self.schema
        if self.type == "json_schema" and given is None:
            raise InvalidParams("response_format has no json_schema; type json_schema needs one")
        return {"json_schema": bounded({"type": "object"} if given is None else given)}


def bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose JSON has no endless white space, which small models fall for.  Raises: InvalidParams if it is huge."""
    if len(str(schema)) > MAX_SCHEMA:
        raise InvalidParams(f"the JSON schema has more than {MAX_SCHEMA} characters")
    return {"x-guidance": {"whitespace_pattern": WHITE_SPACE}, **schema}


def spelled(schema: dict[str, Any]) -> dict[str, Any]:
    """The same for JSON that a program reads: in the one spelling that models are taught for calls."""
    one = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return {**bounded(schema), "x-guidance": one}


class LoraScale(Struct, forbid_unknown_fields=True):
    """How much an adapter counts, by its number in /lora-adapters."""

    id: int
    scale: float = 1.0


class Sampling(Body, kw_only=True, forbid_unknown_fields=True):
    """How to continue: OpenAI's fields, then the fields of `tokamak.SamplingParams`, absent or null for the default.

    model: absent, or a name from /v1/models. seed: any 64-bit number; -1 draws one, as if it were absent; the answer says
    which. grammar (GBNF), json_schema, regex, choice: the text follows it; one that cannot be compiled is refused.
    timings_per_token: speeds in the answer, as llama-server gives them. lora: what each adapter counts, 0 if it is not named;
    absent: as loaded.
    """

    unused: ClassVar[frozenset[str]] = frozenset(
        (
            *("user", "metadata", "store", "service_tier", "safety_identifier", "moderation", "prediction"),
            *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "verbosity"),
            *("web_search_options", "audio", "cache_prompt", "id_slot", "n_keep"),
        )
    )
    aliases: ClassVar[dict[str, str]] = {
        "repeat_penalty": "repetition_penalty",
        "repeat_last_n": "repetition_last_n",
        "n_predict": "max_tokens",
        "guided_json": "json_schema",
        "guided_regex": "regex",
        "guided_choice": "choice",
        "guided_grammar": "grammar",
        "dry_penalty_last_n": "dry_last_n",
        "dry_sequence_breakers": "dry_breakers",
    }

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_SAMPLES)] | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: str | Annotated[list[Text], Meta(max_length=16)] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=MAX_BIASES)] | None = None

    preset: str | None = None
    min_tokens: int | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    tfs_z: float | None = None
    eta_cutoff: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    min_keep: int | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    adaptive_target: float | None = None
    adaptive_decay: float | None = None
    repetition_penalty: float | None = None
    repetition_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_last_n: int | None = None
    dry_breakers: Annotated[list[Text], Meta(max_length=16)] | None = None
    post_sampling_probs: bool | None = None
    stop_token_ids: Annotated[TokenIds, Meta(max_length=64)] | None = None
    ignore_eos: bool | None = None
    samplers: Annotated[list[str], Meta(max_length=32)] | None = None
    grammar: Annotated[str, Meta(max_length=MAX_SCHEMA)] | None = None
    json_schema: dict[str, Any] | None = None
    regex: Annotated[str, Meta(max_length=MAX_SCHEMA)] | None = None
    choice: Annotated[list[str], Meta(max_length=4096)] | None = None
    grammar_triggers: Annotated[list[Text], Meta(max_length=16)] | None = None
    guidance_scale: float | None = None
    negative_prompt: Annotated[str, Meta(max_length=MAX_SCHEMA)] | None = None
    token_healing: bool | None = None
    speculation: str | None = None
    speculation_tokens: int | None = None
    context_shift: bool | None = None
    keep: int | None = None
    timings_per_token: bool | None = None
    lora: Annotated[list[LoraScale], Meta(max_length=64)] | None = None

    @property
    def num_samples(self) -> int:
        """Completions of each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream) and self.stream_options is not None and self.stream_options.include_usage

    def params(self, **more: Any) -> SamplingParams:
        """The same as SamplingParams; `more` wins.  Raises: InvalidParams."""
        given = {name: getattr(self, name) for name in SAME if getattr(self, name) is not None}
        if self.seed is not None and self.seed != DRAW_A_SEED:
            given["seed"] = self.seed & MASK64
        if self.logit_bias is not None:
            given["logit_bias"] = {int(k) if k.isdecimal() else k: v for k, v in self.logit_bias.items()}
        if self.dry_breakers is not None:
            given["dry_breakers"] = tuple(self.dry_breakers)
        if self.json_schema is not None:
            given["json_schema"] = bounded(self.json_schema)
        if self.lora is not None:
            given["adapters"] = {one.id: one.scale for one in self.lora}
        return SamplingParams(**{**given, **more})


OWN_WAY = {
    "lora",
    "model",
    "stream",
    "stream_options",
    "seed",
    "logit_bias",
    "dry_breakers",
    "json_schema",
    "timings_per_token",
}
SAME = tuple(name for name in Sampling.__struct_fields__ if name not in OWN_WAY)


class TextPart(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A piece of a message. cache_control: accepted; prefixes are always kept."""

    text: str
    cache_control: dict[str, Any] | None = None


class ImageUrl(Struct, forbid_unknown_fields=True):
    """url: data:image/png;base64,...; nothing is fetched. detail: accepted; an image has one size."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Struct, forbid_unknown_fields=True, tag_field="type", tag="image_url"):
    """An image in a message, for models that were loaded with an image encoder. Sound is refused."""

    image_url: ImageUrl
    cache_control: dict[str, Any] | None = None


class CallGiven(Struct):
    """What was called. arguments: JSON text."""

    name: str
    arguments: str = "{}"


class ToolCallGiven(Struct):
    """A call in a message of the assistant that a client sends back."""

    function: CallGiven
    id: str = ""
    type: Literal["function"] = "function"
    index: int | None = None


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation. The fields that are only null are those OpenAI's client sends back with an answer.

    tool: the result of the call `tool_call_id`. reasoning_content: of an earlier answer, for templates that read it.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCallGiven], Meta(max_length=MAX_TOOLS)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    def plain(self) -> dict[str, Any]:
        """For the chat template: texts joined by line ends, images with what is around them as parts, "developer" as "system", arguments as objects.

        Raises: InvalidParams for a message that says nothing.
        """
        parts = self.content
        if parts is None and not (self.role == "assistant" and (self.tool_calls or self.refusal)):
            raise InvalidParams(f"content is missing in a message of the {self.role}")
        content = of_parts(parts) if isinstance(parts, list) else parts or self.refusal or ""
        out: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": content,
        }
        more = {
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.reasoning_content,
        }
        out |= {key: value for key, value in more.items() if value is not None}
        if self.tool_calls:
            out["tool_calls"] = [
                called(call.id, call.function.name, call.function.arguments) for call in self.tool_calls
            ]
        return out


def of_parts(parts: list[TextPart | ImagePart]) -> str | list[dict[str, Any]]:
    """Parts of a message as `LLM.chat` takes them."""
    if not any(isinstance(part, ImagePart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": part.image_url.url}}
        for part in parts
    ]


def image_url(content: str, kind: str = "image/png") -> str:
    """Base64 of an image's file as a data: URL."""
    return f"data:{kind};base64,{content}"


def with_images(text: str, urls: list[str]) -> str | list[dict[str, Any]]:
    """A message's content: images, then text; the text alone where there are none."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*parts, {"type": "text", "text": text}] if parts else text


def called(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call as templates read it.  Raises: InvalidParams for arguments that are no JSON object."""
    try:
        values = json.loads(arguments or "{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InvalidParams(
            f"arguments of the call of {name[:64]!r} are {arguments[:64]!r}; they must be a JSON object"
        )
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": values}}


Messages = Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]


class FunctionGiven(Struct):
    """A function that may be called. parameters: JSON schema of its arguments."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.:-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolGiven(Struct):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: FunctionGiven

    def tool(self) -> Tool:
        """In the server's own form."""
        return Tool(self.function.name, self.function.description or "", self.function.parameters or {})


class NamedFunction(Struct):
    """See NamedTool."""

    name: str


class NamedTool(Struct):
    """This function has to be called."""

    type: Literal["function"]
    function: NamedFunction


class TemplateOptions(Struct, forbid_unknown_fields=True):
    """chat_template_kwargs: the variables of templates that a client may set."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None

    def variables(self) -> dict[str, Any]:
        """Those that are given."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in given.items() if value is not None}


class ChatRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/chat/completions. Without a limit of tokens the answer ends where the context ends.

    tools, tool_choice: none, auto, required or one function; a choice that must call is held to a schema.
    A last message of the assistant is gone on with, unless continue_final_message is false. verbose: the prompt as the model
    reads it, in the answer. reasoning_format: none leaves <think> in the content. reasoning_effort: none turns it off where the template can.
    """

    messages: Messages
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: Format | None = None
    tools: Annotated[list[ToolGiven], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionGiven] | None = None
    function_call: Literal["none"] | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: str | None = None
    reasoning_format: Literal["auto", "none", "deepseek"] | None = None
    chat_template_kwargs: TemplateOptions | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    verbose: bool | None = None

    def resumed(self, default: bool) -> bool:
        """Whether the last message is gone on with; default: if nothing is said.  Raises: InvalidParams for both at once."""
        if self.add_generation_prompt and self.continue_final_message:
            raise InvalidParams("continue_final_message is true; add_generation_prompt must be false then")
        return default if self.continue_final_message is None else self.continue_final_message

    def sampling_params(self) -> SamplingParams:
        """Raises: InvalidParams for values outside their range or that contradict each other."""
        if self.functions and self.function_call != "none":
            raise InvalidParams("functions is given; it is not implemented, use tools")
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidParams("top_logprobs is given without logprobs; logprobs must be true then")
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            raise InvalidParams(
                f"max_tokens is {both[0]}; it must be the same as max_completion_tokens, {both[1]}"
            )
        limit = both[0] if both[1] is None else both[1]
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        constraint = self.response_format.constraint() if self.response_format else {}
        return self.params(max_tokens=-1 if limit is None else limit, logprobs=logprobs, **constraint)


class CompletionRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/completions. suffix: what comes after, for models with marks for infilling; others ignore it, which is listed.

    Without max_tokens 16 tokens are generated, as OpenAI does."""

    prompt: str | list[str | Annotated[int, Meta(ge=0, lt=1 << 31)] | TokenIds]
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=0, le=MAX_SAMPLES)] | None = None

    def sampling_params(self) -> SamplingParams:
        """Raises: InvalidParams for values outside their range."""
        if self.best_of not in (None, 0, self.num_samples):
            raise InvalidParams(f"best_of is {self.best_of}; it must be n, {self.num_samples}, or absent")
        limit = 16 if self.max_tokens is None else self.max_tokens
        return self.params(max_tokens=limit, logprobs=self.logprobs, echo=bool(self.echo))

    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one.  Raises: InvalidParams for an empty or mixed list, or too many."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        kinds = {type(item) for item in self.prompt}
        if kinds == {int}:
            return [self.prompt]  # type: ignore[list-item]  # all are int
        if len(kinds) != 1:
            raise InvalidParams(
                "prompt is a list that is empty or of several kinds; it must have texts, ids or lists of ids"
            )
        if len(self.prompt) > MAX_PROMPTS:
            raise InvalidParams(f"prompt has {len(self.prompt)} prompts; it must have at most {MAX_PROMPTS}")
        return list(self.prompt)  # type: ignore[arg-type]  # none is an int


class TokenizeRequest(Body, forbid_unknown_fields=True):
    """Body of /tokenize. with_pieces: each id with its text, or its bytes where they are no text."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class DetokenizeRequest(Body, forbid_unknown_fields=True):
    """Body of /detokenize."""

    tokens: TokenIds
    model: str | None = None


class TemplateRequest(Body, forbid_unknown_fields=True):
    """Body of /apply-template. tools: as of /v1/chat/completions."""

    messages: Messages
    add_generation_prompt: bool = True
    model: str | None = None
    tools: Annotated[list[ToolGiven], Meta(max_length=MAX_TOOLS)] | None = None
    chat_template_kwargs: TemplateOptions | None = None

"""What OpenAI's routes answer, as msgspec types; /openapi.json is made from them."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field


class PromptDetails(Struct):
    """cached_tokens: of the prompt, found in the cache and not computed."""

    cached_tokens: int


class Usage(Struct):
    """Exact counts. completion_tokens: of all choices, tokens that end a completion included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CalledFunction(Struct):
    """name: once, at the beginning of a call. arguments: JSON text, or what a chunk adds to it."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCall(Struct):
    """A call that the model asks for. index: in chunks only; id, type and name come with the first of a call."""

    function: CalledFunction
    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class TopLogprob(Struct):
    """A likely token. bytes: what it stands for, also where that is no text."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TopLogprob):
    """The token that was drawn, and the likeliest ones at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """Log-probabilities of the tokens of a content, from the model's own distribution."""

    content: list[ContentLogprob]
    refusal: None = None


class CompletionLogprobs(Struct):
    """The same as /v1/completions has it. text_offset: characters from the beginning of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


Finish = Literal["stop", "length", "tool_calls"]


class Answer(Struct):
    """The message of a choice, or what a chunk adds to it."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    """One answer, or a chunk of it."""

    index: int
    message: Answer | UnsetType = UNSET
    delta: Answer | UnsetType = UNSET
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class TextChoice(Struct, kw_only=True):
    """One completion, or a chunk of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Finish | None = None


class Generated(Struct, kw_only=True):
    """What both routes answer, whole or in chunks. seed: what the draws depended on. timings, __verbose: if asked for."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    seed: int | UnsetType = UNSET
    usage: Usage | UnsetType | None = UNSET
    timings: dict[str, float] | UnsetType = UNSET
    verbose: dict[str, str] | UnsetType = field(default=UNSET, name="__verbose")


class ChatCompletion(Generated, kw_only=True):
    """Answer of /v1/chat/completions."""

    choices: list[ChatChoice]


class TextCompletion(Generated, kw_only=True):
    """Answer of /v1/completions."""

    choices: list[TextChoice]


class InputTokens(Struct):
    """Answer of the routes that only count. input_tokens: of everything the model would read."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class Model(Struct, kw_only=True):
    """A model. aliases: further names. meta: whether it is loaded, and what the file and the machine gave."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "tokamak"
    aliases: list[str] = []
    meta: dict[str, str | int | bool]


class ModelList(Struct):
    """Answer of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"


class ErrorFacts(Struct):
    """What went wrong: for people, for programs, and which field. n_prompt_tokens, n_ctx: of what does not fit the context."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    n_prompt_tokens: int | UnsetType = UNSET
    n_ctx: int | UnsetType = UNSET


class ErrorAnswer(Struct):
    """Body of every answer that is not 2xx."""

    error: ErrorFacts

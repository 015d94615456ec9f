"""What clients send and what they get back, as msgspec types: the one table that decoding and /openapi.json use.

A field that is not here is refused by name. A field of OpenAI's that has only one value here (`tools`,
`response_format`) is refused at every other one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from tokamak.errors import InvalidParams
from tokamak.sampling import SamplingParams

MAX_SAMPLES = 8  # n
MAX_PROMPTS = 64  # prompts of one /v1/completions
MAX_MESSAGES = 4096
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MASK64 = (1 << 64) - 1
DRAW_A_SEED = -1  # llama-server's clients send it to mean "any"

Text = Annotated[str, Meta(max_length=256, min_length=1)]
TokenIds = list[Annotated[int, Meta(ge=0, lt=1 << 31)]]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """include_usage: one more chunk, with the counts of tokens, before [DONE]."""

    include_usage: bool = False


class Format(Struct, forbid_unknown_fields=True):
    """Only plain text: nothing here holds an answer to a schema."""

    type: Literal["text"]


class Sampling(Struct, kw_only=True, forbid_unknown_fields=True):
    """How to continue: OpenAI's fields, then the fields of `tokamak.SamplingParams`, absent or null for the default.

    model: absent, or a name from /v1/models. seed: any 64-bit number; -1 draws one, as if it were absent; the answer says
    which. user: accepted, not used.
    """

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
    user: str | None = None

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
    stop_token_ids: Annotated[TokenIds, Meta(max_length=64)] | None = None
    ignore_eos: bool | None = None
    samplers: Annotated[list[str], Meta(max_length=32)] | None = None

    @property
    def num_samples(self) -> int:
        """Completions of each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def params(self, **more: Any) -> SamplingParams:
        """The same as SamplingParams; `more` wins.  Raises: InvalidParams."""
        if self.stream_options is not None and not self.stream:
            raise InvalidParams("stream_options is given without stream; it must be absent then")
        given = {name: getattr(self, name) for name in SAME if getattr(self, name) is not None}
        if self.seed is not None and self.seed != DRAW_A_SEED:
            given["seed"] = self.seed & MASK64
        if self.logit_bias is not None:
            given["logit_bias"] = {int(k) if k.isdecimal() else k: v for k, v in self.logit_bias.items()}
        if self.dry_breakers is not None:
            given["dry_breakers"] = tuple(self.dry_breakers)
        return SamplingParams(**{**given, **more})


OWN_WAY = {"model", "stream", "stream_options", "user", "seed", "logit_bias", "dry_breakers"}
SAME = tuple(name for name in Sampling.__struct_fields__ if name not in OWN_WAY)


class TextPart(Struct, forbid_unknown_fields=True):
    """A piece of a message. Pictures and sound are refused."""

    type: Literal["text"]
    text: str


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation. The fields that are only null are those OpenAI's client sends back with an answer."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> dict[str, str]:
        """For the chat template: parts joined by line ends, "developer" as "system"."""
        parts = self.content
        content = parts if isinstance(parts, str) else "\n".join(part.text for part in parts)
        out = {"role": "system" if self.role == "developer" else self.role, "content": content}
        return out if self.name is None else {**out, "name": self.name}


Messages = Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]


class ChatRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/chat/completions. Without a limit of tokens the answer ends where the context ends."""

    messages: Messages
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: Format | None = None

    def sampling_params(self) -> SamplingParams:
        """Raises: InvalidParams for values outside their range or that contradict each other."""
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidParams("top_logprobs is given without logprobs; logprobs must be true then")
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            raise InvalidParams(
                f"max_tokens is {both[0]}; it must be the same as max_completion_tokens, {both[1]}"
            )
        limit = both[0] if both[1] is None else both[1]
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self.params(max_tokens=-1 if limit is None else limit, logprobs=logprobs)


class CompletionRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """Body of /v1/completions. Without max_tokens 16 tokens are generated, as OpenAI does."""

    prompt: str | list[str | Annotated[int, Meta(ge=0, lt=1 << 31)] | TokenIds]
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None

    def sampling_params(self) -> SamplingParams:
        """Raises: InvalidParams for values outside their range."""
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


class TokenizeRequest(Struct, forbid_unknown_fields=True):
    """Body of /tokenize. with_pieces: each id with its text, or its bytes where they are no text."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(Struct, forbid_unknown_fields=True):
    """Body of /detokenize."""

    tokens: TokenIds


class TemplateRequest(Struct, forbid_unknown_fields=True):
    """Body of /apply-template."""

    messages: Messages
    add_generation_prompt: bool = True


class PromptDetails(Struct):
    """cached_tokens: of the prompt, found in the cache and not computed."""

    cached_tokens: int


class Usage(Struct):
    """Exact counts. completion_tokens: of all choices, tokens that end a completion included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


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


Finish = Literal["stop", "length"]


class Answer(Struct):
    """The message of a choice, or what a chunk adds to it."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


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
    """What both routes answer, whole or in chunks. seed: what the draws depended on."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    seed: int | UnsetType = UNSET
    usage: Usage | UnsetType | None = UNSET


class ChatCompletion(Generated, kw_only=True):
    """Answer of /v1/chat/completions."""

    choices: list[ChatChoice]


class TextCompletion(Generated, kw_only=True):
    """Answer of /v1/completions."""

    choices: list[TextChoice]


class Model(Struct, kw_only=True):
    """A loaded model. meta: what the file and the machine gave: architecture, bytes, context, vocabulary."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "tokamak"
    meta: dict[str, str | int]


class ModelList(Struct):
    """Answer of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"


class ErrorFacts(Struct):
    """What went wrong: for people, for programs, and which field."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Struct):
    """Body of every answer that is not 2xx."""

    error: ErrorFacts

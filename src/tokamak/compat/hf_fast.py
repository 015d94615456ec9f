"""`transformers.PreTrainedTokenizerFast` over `tokamak.hf.Tokenizer`: the calls that people make, with transformers' answers.

Not here, and refused by name where called: downloads, training, slow tokenizers, image and audio tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.compat.hf_batch import BatchEncoding, tensors_of
from tokamak.compat.hf_encoding import Encoding
from tokamak.compat.hf_tokenizer import AddedToken, Tokenizer
from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.tokenizers import Padding
from tokamak.tokenizers.files.opening import config_beside

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NO_LIMIT = int(1e30)  # transformers' model_max_length where the file says none
STRATEGIES = {True: "longest_first", "longest_first": "longest_first", "only_first": "only_first"}
STRATEGIES |= {"only_second": "only_second"}

TWO_TYPES = {"Bert", "Albert", "Electra", "MobileBert", "Funnel", "XLNet", "Deberta", "DebertaV2", "RoFormer"}


class PreTrainedTokenizerFast:
    """A tokenizer with the special tokens, the template and the limits of its model."""

    is_fast = True
    SPECIAL_TOKENS_ATTRIBUTES = [*SPECIAL_NAMES, "additional_special_tokens"]  # noqa: RUF012  as the original has it

    def __init__(
        self, *, tokenizer_object: Tokenizer | None = None, tokenizer_file: str | None = None, **config: Any
    ) -> None:
        """tokenizer_object, tokenizer_file: one of them. config: as in tokenizer_config.json."""
        if (tokenizer_object is None) == (tokenizer_file is None):
            raise InvalidParams("give tokenizer_object or tokenizer_file")
        self._tokenizer = tokenizer_object or Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.init_kwargs = config
        self.name_or_path = str(config.get("name_or_path", ""))
        self.model_max_length = int(config.get("model_max_length") or NO_LIMIT)
        self.padding_side = str(config.get("padding_side", "right"))
        self.truncation_side = str(config.get("truncation_side", "right"))
        self.model_input_names = list(config.get("model_input_names") or _input_names(config))
        template = config.get("chat_template")
        if isinstance(template, list):
            template = {t["name"]: t["template"] for t in template}
        self.chat_template: str | dict[str, str] | None = template
        self._special: dict[str, str | None] = {n: _content(config.get(n)) for n in SPECIAL_NAMES}
        more = config.get("additional_special_tokens", config.get("extra_special_tokens")) or ()
        self._additional = (
            [_content(t) or "" for t in more] if not isinstance(more, Mapping) else list(more.values())
        )
        self._add_missing(config)

    def _add_missing(self, config: Mapping[str, Any]) -> None:
        listed = config.get("added_tokens_decoder") or {}
        for _, entry in sorted(listed.items(), key=lambda item: int(item[0])):
            token = entry if isinstance(entry, AddedToken) else AddedToken(**_token_fields(entry))
            self._tokenizer.add_tokens([token])
        self._tokenizer.add_special_tokens([t for t in self.all_special_tokens if t])

    @classmethod
    def from_pretrained(cls, path: str | Path, *_: Any, **config: Any) -> PreTrainedTokenizerFast:
        """A directory with tokenizer.json and tokenizer_config.json. Raises: UnavailableError for a name of a hub."""
        folder = Path(path)
        if not folder.exists():
            raise UnavailableError(f"{str(path)!r} is no directory here: download it, then give its path")
        known = {
            "local_files_only",
            "token",
            "revision",
            "cache_dir",
            "use_fast",
            "trust_remote_code",
            "subfolder",
        }
        given = {k: v for k, v in config.items() if k not in known}
        file = folder / "tokenizer.json" if folder.is_dir() else folder
        settings = config_beside(file) | given
        return cls(tokenizer_object=Tokenizer.from_file(folder), **{"name_or_path": str(path), **settings})

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> tuple[str, ...]:
        """Write tokenizer.json and tokenizer_config.json; returns their paths."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        files = (folder / "tokenizer_config.json", folder / "tokenizer.json")
        config = {
            k: v for k, v in self.init_kwargs.items() if k not in ("name_or_path", "added_tokens_decoder")
        }
        config |= {n: t for n, t in self._special.items() if t is not None}
        config |= {"model_max_length": self.model_max_length, "tokenizer_class": type(self).__name__}
        config |= {"padding_side": self.padding_side, "truncation_side": self.truncation_side}
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        if self._additional:
            config["additional_special_tokens"] = self._additional
        files[0].write_text(
            json.dumps(config, ensure_ascii=False, indent=2, default=_content), encoding="utf-8"
        )
        self._tokenizer.save(files[1])
        return tuple(str(f) for f in files)

    # -- encoding

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        **_: Any,
    ) -> BatchEncoding:
        """Ids and masks of a text, a pair, or lists of them. return_tensors: np or pt."""
        one = isinstance(text, str) or (is_split_into_words and bool(text) and isinstance(text[0], str))
        texts = [text] if one else list(text)
        pairs = [text_pair] if one else [None] * len(texts) if text_pair is None else list(text_pair)
        if len(pairs) != len(texts):
            raise InvalidParams(f"{len(texts)} texts, but {len(pairs)} second texts")
        self._set_shape(padding, truncation, max_length, stride, pad_to_multiple_of, padding_side)
        rows = [
            (row if is_split_into_words else tuple(row)) if pair is None and not isinstance(row, str) else row
            for row, pair in zip(texts, pairs, strict=True)
        ]
        entries = [row if pair is None else (row, pair) for row, pair in zip(rows, pairs, strict=True)]
        try:
            encodings = self._tokenizer.encode_batch(entries, is_split_into_words, add_special_tokens)
        finally:
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        wanted = {
            "token_type_ids": _chosen(return_token_type_ids, "token_type_ids" in self.model_input_names),
            "attention_mask": _chosen(return_attention_mask, "attention_mask" in self.model_input_names),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
            "overflow_to_sample_mapping": return_overflowing_tokens,
        }
        return self._columns(encodings, wanted, one and not return_overflowing_tokens, return_tensors)

    def _columns(
        self, encodings: Sequence[Encoding], wanted: Mapping[str, bool], one: bool, return_tensors: str | None
    ) -> BatchEncoding:
        rows: list[tuple[int, Encoding]] = []
        for sample, encoding in enumerate(encodings):
            more = encoding.overflowing if wanted["overflow_to_sample_mapping"] else []
            rows += [(sample, part) for part in (encoding, *more)]
        columns: dict[str, list[Any]] = {"input_ids": [e.ids for _, e in rows]}
        getters: dict[str, Callable[[int, Encoding], Any]] = {
            "token_type_ids": lambda _, e: e.type_ids,
            "attention_mask": lambda _, e: e.attention_mask,
            "special_tokens_mask": lambda _, e: e.special_tokens_mask,
            "offset_mapping": lambda _, e: e.offsets,
            "length": lambda _, e: len(e),
            "overflow_to_sample_mapping": lambda sample, _: sample,
        }
        for name, get in getters.items():
            if wanted[name]:
                columns[name] = [get(sample, e) for sample, e in rows]
        flat = one and return_tensors is None
        values = {
            name: column[0] if flat and name != "length" else column for name, column in columns.items()
        }
        return BatchEncoding(tensors_of(values, return_tensors), [e for _, e in rows])

    def _set_shape(
        self,
        padding: bool | str,
        truncation: bool | str | None,
        max_length: int | None,
        stride: int,
        multiple_of: int | None,
        side: str | None,
    ) -> None:
        limit = max_length if max_length is not None else self.model_max_length
        if truncation in STRATEGIES and limit < NO_LIMIT // 2:
            self._tokenizer.enable_truncation(limit, stride, STRATEGIES[truncation], self.truncation_side)
        elif truncation not in (None, False, "do_not_truncate", *STRATEGIES):
            raise InvalidParams(f"truncation = {truncation!r}: True, False or one of {list(STRATEGIES)[1:]}")
        if padding in (False, "do_not_pad"):
            return
        if padding not in (True, "longest", "max_length"):
            raise InvalidParams(f"padding = {padding!r}: True, False, longest, max_length or do_not_pad")
        if self.pad_token is None or self.pad_token_id is None:
            raise InvalidParams(
                "Asking to pad but the tokenizer does not have a padding token: set pad_token"
            )
        fixed = padding == "max_length" and limit < NO_LIMIT // 2
        self._tokenizer.enable_padding(
            direction=side or self.padding_side,
            pad_id=self.pad_token_id,
            pad_token=self.pad_token,
            length=limit if fixed else None,
            pad_to_multiple_of=multiple_of,
        )

    def encode(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        """Ids of one text or pair."""
        return self(text, text_pair, **kwargs)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """`__call__` on one text."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **kwargs: Any) -> BatchEncoding:
        """`__call__` on many."""
        return self(list(batch_text_or_text_pairs), **kwargs)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """Pieces of a text."""
        return self._tokenizer.encode(text, pair, add_special_tokens=add_special_tokens).tokens

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchEncoding:
        """Fill up encoded rows: a list of mappings, or a mapping of lists."""
        rows = encoded_inputs
        if isinstance(rows, Mapping):
            rows = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        rows = [{k: list(v) for k, v in row.items()} for row in rows]
        longest = max((len(row["input_ids"]) for row in rows), default=0)
        fill = Padding(max_length if padding == "max_length" else None, pad_to_multiple_of)
        width = longest if padding in (False, "do_not_pad") else fill.width(longest)
        values = {"input_ids": self.pad_token_id or 0, "attention_mask": 0, "token_type_ids": 0}
        values |= {"special_tokens_mask": 1, "labels": -100}
        for row in rows:
            if _chosen(return_attention_mask, "attention_mask" in self.model_input_names):
                row.setdefault("attention_mask", [1] * len(row["input_ids"]))
            for name in [n for n in row if n in values and n != "labels"]:
                missing = [values[name]] * (width - len(row[name]))
                left = (padding_side or self.padding_side) == "left"
                row[name] = missing + row[name] if left else row[name] + missing
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
        return BatchEncoding(tensors_of(columns, return_tensors), None)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Tokens around one text, or two."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    # -- decoding

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **_: Any) -> Any:
        """Text of ids (an int, a list, an array, a tensor); of a list of lists, the list of texts."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        if isinstance(ids, int):
            ids = [ids]
        if ids and not isinstance(ids[0], (int, np.integer)):
            return self.batch_decode(ids, skip_special_tokens)
        return self._tokenizer.decode(ids, skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **_: Any) -> list[str]:
        """Texts of many lists of ids."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    # -- vocabulary

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokamak.hf.Tokenizer` under this."""
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Tokens of the model, without those that were added to it."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        return self._tokenizer.get_vocab()

    vocab = property(get_vocab)

    def get_added_vocab(self) -> dict[str, int]:
        """The same of added tokens."""
        return {t.content: i for i, t in self.added_tokens_decoder.items()}

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id -> added token."""
        return self._tokenizer.get_added_tokens_decoder()

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Id of a token, or ids of a list; of an unknown one, that of unk_token."""
        if isinstance(tokens, str):
            found = self._tokenizer.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(t) for t in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """A token of an id, or tokens of a list."""
        if isinstance(ids, (int, np.integer)):
            return self._tokenizer.id_to_token(int(ids))
        special = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._tokenizer.id_to_token(int(i)) for i in ids if int(i) not in special]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Text of tokens."""
        return self._tokenizer.decode(self.convert_tokens_to_ids(list(tokens)), skip_special_tokens=False)

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add one token or a list; returns how many are new."""
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        return (
            self._tokenizer.add_special_tokens(tokens)
            if special_tokens
            else self._tokenizer.add_tokens(tokens)
        )

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any], **_: Any) -> int:
        """Set special tokens by attribute name; returns how many are new."""
        added = 0
        for name, value in special_tokens_dict.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                self._additional += [t for v in value if (t := _content(v)) and t not in self._additional]
                added += self._tokenizer.add_special_tokens(list(value))
            elif name in SPECIAL_NAMES:
                self._special[name] = _content(value)
                added += self._tokenizer.add_special_tokens([value])
            else:
                raise InvalidParams(f"{name!r} is none of {', '.join(self.SPECIAL_TOKENS_ATTRIBUTES)}")
        return added

    def __getattr__(self, name: str) -> Any:
        if name in SPECIAL_NAMES:
            return self.__dict__.get("_special", {}).get(name)
        if name.endswith("_token_id") and name.removesuffix("_id") in SPECIAL_NAMES:
            token = getattr(self, name.removesuffix("_id"))
            return None if token is None else self._tokenizer.token_to_id(token)
        if name in ("train_new_from_iterator", "push_to_hub", "slow_tokenizer_class"):
            raise UnsupportedError(f"{name} is not here")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SPECIAL_NAMES:
            self._special[name] = _content(value)
            if value is not None:
                self._tokenizer.add_special_tokens([value])
        elif name.endswith("_token_id") and name.removesuffix("_id") in SPECIAL_NAMES:
            self._special[name.removesuffix("_id")] = self._tokenizer.id_to_token(value)
        else:
            object.__setattr__(self, name, value)

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role of their own."""
        return list(self._additional)

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Attribute name -> token, of those that are set."""
        named: dict[str, Any] = {n: t for n, t in self._special.items() if t is not None}
        return named | ({"additional_special_tokens": self._additional} if self._additional else {})

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token, once, by role."""
        return list(dict.fromkeys([*(t for t in self._special.values() if t), *self._additional]))

    @property
    def all_special_ids(self) -> list[int]:
        """Their ids."""
        ids: list[int] = self.convert_tokens_to_ids(self.all_special_tokens)
        return ids

    # -- chat

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The template in use. Raises: ValueError if there is none."""
        own = self.chat_template
        if isinstance(own, Mapping):
            if chat_template in own:
                return str(own[chat_template])
            name = "tool_use" if tools is not None and "tool_use" in own else "default"
            own = own.get(name)
        chosen = chat_template or own
        if chosen is None:
            raise InvalidParams("tokenizer.chat_template is not set and no template was given")
        return chosen

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, str]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> Any:
        """Text of a conversation (or of many), or, with `tokenize`, its ids and masks, special tokens parsed.

        Raises: ValueError where there is no template or it refuses the messages.
        """
        many = bool(conversation) and isinstance(conversation[0], (list, tuple))
        template = self.get_chat_template(chat_template, tools)
        if any(callable(tool) for tool in tools or ()):
            raise UnsupportedError("tools are JSON schemas here, not functions")
        names = {**self.special_tokens_map, "tools": tools, "documents": documents, **variables}
        names["add_generation_prompt"] = add_generation_prompt
        if continue_final_message and add_generation_prompt:
            raise InvalidParams("continue_final_message and add_generation_prompt exclude each other")
        texts = [_rendered(template, c, names) for c in (conversation if many else [conversation])]
        if continue_final_message:
            chats = conversation if many else [conversation]
            texts = [_open_ended(text, str(c[-1]["content"])) for text, c in zip(texts, chats, strict=True)]
        if not tokenize:
            return texts if many else texts[0]
        encoded = self(
            texts if many else texts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            **(tokenizer_kwargs or {}),
        )
        return encoded if return_dict else encoded["input_ids"]


def _input_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model of that class takes: only some tell two texts apart."""
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    typed = name in TWO_TYPES
    return ("input_ids", "token_type_ids", "attention_mask") if typed else ("input_ids", "attention_mask")


def _rendered(template: str, messages: Sequence[Any], names: Mapping[str, Any]) -> str:
    from tokamak.tokenizers.chat import ChatTemplate

    given = dict(names)
    generate = bool(given.pop("add_generation_prompt"))
    return ChatTemplate(template).render(messages, add_generation_prompt=generate, **given)


def _open_ended(text: str, last: str) -> str:
    end = text.rfind(last.strip())
    if end < 0:
        raise InvalidParams("continue_final_message: the template does not show the last message as it is")
    return text[: end + len(last.strip())]


def _content(token: Any) -> str | None:
    if token is None or isinstance(token, str):
        return token
    return str(token["content"] if isinstance(token, Mapping) else token)


def _token_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {name: entry[name] for name in names if name in entry}


def _chosen(given: bool | None, default: bool) -> bool:
    return default if given is None else given

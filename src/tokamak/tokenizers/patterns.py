"""Pre-tokenizer patterns, and the names that GGUF files give them: a new name is a new row.

Sources: the `pre_tokenizer` entries of the models' own tokenizer.json files and the patterns that tiktoken publishes;
which name stands for which is a convention of llama.cpp's converter.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokamak.errors import UnsupportedError
from tokamak.tokenizers.spec import Step

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDING = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _ENDING
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _ENDING


def _cased(upper: str, lower: str, after: str, numbers: str, lines: str = r"[\r\n/]*") -> str:
    """The family of o200k: words end where a lower-case letter is followed by an upper-case one."""
    start = r"[^\r\n\p{L}\p{N}]?"
    words = f"{start}{upper}*{lower}+{after}|{start}{upper}+{lower}*{after}"
    return f"{words}|{numbers}| ?[^\\s\\p{{L}}\\p{{N}}]+{lines}" + _ENDING


_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = _cased(_UPPER, _LOWER, _CONTRACTIONS + "?", r"\p{N}{1,3}")
TEKKEN = _cased(_UPPER, _LOWER, "", r"\p{N}")
KIMI = r"\p{Han}+|" + _cased(
    _UPPER[:-1] + r"&&[^\p{Han}]]",
    _LOWER[:-1] + r"&&[^\p{Han}]]",
    _CONTRACTIONS + "?",
    r"\p{N}{1,3}",
    r"[\r\n]*",
)
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SEED_CODER = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + _ENDING
EXAONE_MOE = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
UFAKZEKA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _ENDING
JAIS2 = LLAMA3.removesuffix(_ENDING) + (
    r"|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)"
    r"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
)
YOUTU = _cased(_UPPER, _LOWER, _CONTRACTIONS + "?", r"\p{N}")
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
# Patterns that group digits by three from the right look ahead without limit, which `Split` here does not.
DIGIT_GROUPS = {
    r"\d{1,3}(?=(?:\d{3})*\b)": Step.of("DigitGroups", word_end=True),
    r"(?=(\d{3})+(?!\d))": Step.of("DigitGroups", inner=True),
}
_DEEPSEEK3 = (
    _ASCII_PUNCTUATION + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*" + _ENDING
)
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_OLD_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
# Letters with case, as the authors of DeepSeek LLM listed them.
_CASED_LETTERS = (
    r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    r"\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    r"\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    r"\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    r"\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    r"\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    r"\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    r"\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    r"\uff41-\uff5a\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}"
    r"\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+"
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How text is cut in words before merging."""

    steps: tuple[Step, ...]
    ignore_merges: bool = False  # a word that is a token is that token, whatever the merges say
    add_bos: bool = False  # where the file does not say
    normalizers: tuple[Step, ...] = ()


def isolated(*patterns: str) -> tuple[Step, ...]:
    """Cut by each pattern in turn; matches are words, and so is what lies between."""
    return tuple(Step.of("Split", regex=p, behavior="Isolated") for p in patterns)


_GPT2 = PreTokenizer(isolated(GPT2))
_LLAMA3 = PreTokenizer(isolated(LLAMA3), ignore_merges=True, add_bos=True)
_QWEN2 = PreTokenizer(isolated(QWEN2))
_DIGITS = PreTokenizer((Step.of("Digits", individual_digits=True), *isolated(GPT2)))
_BLOOMS = PreTokenizer(isolated(_BLOOM))
_DEEPSEEK3_SPLITS = PreTokenizer(isolated(r"\p{N}{1,3}", _CJK, _DEEPSEEK3))
_BAILING = PreTokenizer(isolated(BAILING))
_FALCON = (
    Step.of("Punctuation", behavior="Contiguous"),
    Step.of("ByteLevel", add_prefix_space=False, use_regex=True, map_bytes=True),
    Step.of("Digits", individual_digits=False),
    Step.of("Split", regex="[0-9][0-9][0-9]", behavior="Isolated"),
)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer(
        isolated(
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            "[0-9][0-9][0-9]",
        )
    ),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0"), _GPT2
    ),
    **dict.fromkeys(("mellum", "modern-bert", "exaone4", "roberta-bpe", "jina-v1-en", "jina-v2-code"), _GPT2),
    **dict.fromkeys(("jais", "trillion", "granite-docling"), _GPT2),
    **dict.fromkeys(("mpt", "olmo", "gpt-neox"), PreTokenizer(isolated(GPT2), normalizers=(Step.of("NFC"),))),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0"), _LLAMA3
    ),
    **dict.fromkeys(("lfm2", "jina-v5-nano"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "glm5", "chatglm-bpe"), PreTokenizer(isolated(LLAMA3))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2"), _QWEN2),
    **dict.fromkeys(("hunyuan", "solar-open", "grok-2"), _QWEN2),
    "qwen35": PreTokenizer(isolated(QWEN35)),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
        _DIGITS,
    ),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), PreTokenizer(isolated(O200K))),
    "granite-embed-multi-97m": PreTokenizer(isolated(O200K), ignore_merges=True),
    "tekken": PreTokenizer(isolated(TEKKEN), ignore_merges=True, add_bos=True),
    "kimi-k2": PreTokenizer(isolated(KIMI)),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
    "seed-coder": PreTokenizer(isolated(SEED_CODER)),
    "exaone-moe": PreTokenizer(isolated(EXAONE_MOE)),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), _BLOOMS),
    "viking": PreTokenizer((*isolated(_BLOOM), Step.of("Digits", individual_digits=True))),
    "falcon": PreTokenizer(_FALCON),
    "deepseek-llm": PreTokenizer(
        (
            *isolated(
                "[\r\n]", _CASED_LETTERS, "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
            ),
            *isolated(r"\s+$", _OLD_CJK),
            Step.of("Digits", individual_digits=True),
        )
    ),
    "deepseek-coder": PreTokenizer(
        (*isolated("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _OLD_CJK), Step.of("Digits", individual_digits=True))
    ),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), _DEEPSEEK3_SPLITS),
    "minicpm5": PreTokenizer(isolated(LLAMA3), ignore_merges=True),
    "jais-2": PreTokenizer(isolated(JAIS2)),
    "youtu": PreTokenizer(isolated(_YOUTU_SCRIPTS, YOUTU), ignore_merges=True),
    "ufakzeka": PreTokenizer(isolated(UFAKZEKA)),
    "tiny_aya": PreTokenizer((DIGIT_GROUPS[r"\d{1,3}(?=(?:\d{3})*\b)"], *isolated(O200K))),
    "superbpe": PreTokenizer((*isolated(r"\p{N}+"), DIGIT_GROUPS[r"(?=(\d{3})+(?!\d))"])),
    "chameleon": PreTokenizer(
        isolated(
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            "([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
        )
        + isolated(GPT2),
        add_bos=True,
    ),
}


def pre_tokenizer(name: str) -> PreTokenizer:
    """The row of that name. Raises: UnsupportedError naming it and what is known."""
    if name not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise UnsupportedError(
            f"tokenizer.ggml.pre = {name!r} is a pre-tokenizer not known here (known: {known})"
        )
    return PRE_TOKENIZERS[name]

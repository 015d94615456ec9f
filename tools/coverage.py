"""Write docs/models.md: every architecture of the registry, what its tests compare it with, and what is refused.

    python tools/coverage.py          # writes the page
    python tools/coverage.py --check  # exit 1 if the page says something else

An architecture counts as tested if logits of a model of it are compared with another implementation: recorded ones, or in
tests/peers with one that is installed.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import hf_models  # noqa: E402
import recorded_models  # noqa: E402
import table_models  # noqa: E402
from tokamak.loaders.names.hf import HF_FAMILIES  # noqa: E402
from tokamak.loaders.names.vision import HF_VISION, VISION  # noqa: E402
from tokamak.loaders.names.vision import REFUSED as VISION_REFUSED  # noqa: E402
from tokamak.models import FAMILIES  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
NAMES = {
    "bailingmoe": "Ling 1",
    "bailingmoe2": "Ling 2, Ring 2",
    "baichuan": "Baichuan 7B",
    "baichuan-13b": "Baichuan 13B (in files `baichuan` with 40 layers)",
    "bert": "BERT, RoBERTa, XLM-R, MiniLM, BGE, rerankers",
    "bitnet": "BitNet b1.58 with silu gates",
    "bitnet-25": "BitNet b1.58 with relu^2 gates",
    "bitnet-b1.58": "BitNet b1.58 2B-4T",
    "chatglm": "ChatGLM 2 and 3, GLM-4-9B",
    "cohere2": "Command R7B, Command A",
    "deepseek2": "DeepSeek V2, V2-Lite, V3, R1, Kimi K2",
    "dots1": "dots.llm1",
    "exaone": "EXAONE 3",
    "falcon-h1": "Falcon-H1",
    "nemotron_h": "Nemotron-H, Nemotron Nano 2",
    "falcon": "Falcon 7B and 40B forms",
    "glm4moe": "GLM-4.5",
    "gpt2": "GPT-2",
    "gptneox": "GPT-NeoX, Pythia",
    "granitehybrid": "Granite 4 hybrid",
    "maincoder": "Maincoder 1B",
    "llama": "Llama 1-3, CodeLlama, Mistral, SmolLM, TinyLlama and most models built like them",
    "mamba": "Mamba, Falcon-Mamba",
    "mistral3": "Ministral 3",
    "mixtral": "Mixtral (in files `llama` with experts)",
    "olmo": "OLMo 1",
    "phi2": "Phi 1, 1.5, 2",
    "phi3": "Phi 3, 4",
    "phimoe": "Phi 3.5 MoE",
    "qwen": "Qwen 1",
    "qwen2": "Qwen 2, 2.5",
    "qwen2moe": "Qwen 1.5 and 2 MoE",
    "qwen2vl": "Qwen 2 VL, text",
    "qwen35": "Qwen 3.5",
    "qwen35moe": "Qwen 3.5 MoE",
    "qwen3vl": "Qwen 3 VL, text",
    "qwen3vlmoe": "Qwen 3 VL MoE, text",
    "rwkv6": "RWKV 6",
    "rwkv7": "RWKV 7",
    "starcoder": "StarCoder 1, GPT-BigCode",
    "t5": "T5, Flan-T5, UL2, mT5 and others that read a text and write another",
}
# Families of files whose directories have a class in transformers, and are not read.
READ_FROM_FILES = ("dbrx", "gemma-embedding", "paddleocr", "qwen2vl", "qwen3vl", "qwen3vlmoe")
# Architectures that gguf-py names and nothing here computes.
REFUSED = (
    *(
        "afmoe",
        "apertus",
        "arctic",
        "arwkv7",
        "chameleon",
        "cogvlm",
        "deci",
        "dream",
        "exaone-moe",
    ),
    *(
        "gemma3n",
        "glm-dsa",
        "grok",
        "grovemoe",
        "jina-bert-v2",
        "jina-bert-v3",
        "kimi-linear",
        "llada",
        "llada-moe",
    ),
    *(
        "llama-embed",
        "mimo2",
        "mistral4",
        "nemotron_h_moe",
        "neo-bert",
        "nomic-bert-moe",
    ),
    *(
        "openelm",
        "plamo2",
        "plamo3",
        "plm",
        "qwen3next",
        "rnd1",
        "rwkv6qwen2",
        "smallthinker",
        "step35",
    ),
    *("t5encoder", "wavtokenizer-dec"),
)
SEEING = {"mlp": "LLaVA 1.5 and others with CLIP or SigLIP", "internvl": "InternVL 2.5, 3"}
OWN = {"rwkv6": "the rwkv package"}  # what recorded the logits where transformers lacks the family


def authorities(architecture: str) -> list[str]:
    """Whom models of an architecture are compared with."""
    recorded = {**recorded_models.DECODERS, **recorded_models.ENCODERS, **recorded_models.READERS}
    known = {*recorded.values(), *recorded_models.SAME}
    found = [f"{OWN.get(architecture, 'transformers')} (recorded)"] if architecture in known else []
    made = {name if name in FAMILIES else case.arch for name, case in hf_models.CASES.items()}
    found += ["transformers"] if architecture in made else []
    if architecture in table_models.CASES:
        found.append("llama.cpp")
    return found


def page() -> str:
    """The text of docs/models.md."""
    directories: dict[str, list[str]] = {}
    for kind, family in HF_FAMILIES.items():
        directories.setdefault(family.architecture, []).append(f"`{kind}`")
    rows, tested = [], 0
    for name in sorted(FAMILIES):
        found = authorities(name)
        tested += bool(found)
        state = "tested" if found else "loads"
        cells = (
            f"`{name}`",
            NAMES.get(name, ""),
            state,
            ", ".join(found),
            ", ".join(directories.get(name, ())),
        )
        rows.append("| " + " | ".join(cells) + " |")
    left = sorted(set(FAMILIES) - set(directories) - {"mixtral", "baichuan-13b"})
    alone = ", ".join(f"`{name}`" for name in left if name not in READ_FROM_FILES)
    unread = ", ".join(f"`{name}`" for name in left if name in READ_FROM_FILES)
    refused = ", ".join(f"`{name}`" for name in sorted(set(REFUSED) - set(FAMILIES)))
    seeing = [
        f"| `{name}` | {SEEING[name]} | tested | transformers | {', '.join(f'`{k}`' for k, v in HF_VISION.items() if v.projector == name)} |"
        for name in VISION
    ]
    blind = ", ".join(f"`{name}` ({why})" for name, why in sorted(VISION_REFUSED.items()))
    return f"""# Models

Made by `tools/coverage.py`; a test holds it to the registry. {len(FAMILIES)} architectures, {tested} of them tested.

*tested*: logits of a tiny random model agree with another implementation, on the `reference` and the `cpu` executor: with
recorded logits, or in `tests/peers` where the implementation is installed. The limit is 1e-4 of the logits' deviation, except
where the other side approximates (gelu in llama.cpp). *loads*: implemented, not compared. The last column lists the `model_type`s
that are also read from a directory with `config.json` and safetensors.

A checkpoint of another architecture, or one whose metadata or tensors ask for more than its architecture implements, is refused
with what is missing. `docs/guides/add-a-model.md` shows how to add one.

| architecture in the file | models | state | compared with | directories |
|---|---|---|---|---|
{chr(10).join(rows)}

Directories of the others are refused by their `model_type`: {alone} have no class in transformers to compare with (`rwkv` there is
version 4), and {unread} are read from GGUF only. `tokamak convert` writes what is read; the file has the same logits, and llama.cpp
reads it too where it has the architecture (`tests/peers/test_hf_families.py` names where it computes something else). Two settings
of directories have no key that other readers know and are written as `rope.scaling.dynamic_factor` and `rope.scaling.yarn_truncate`;
UL2's gates are told by `t5.feed_forward_silu`.

Refused, among those that GGUF files name: {refused}.

## Image encoders

Files of architecture `clip` (mmproj) beside a model, or directories with a `vision_config`; what counts is the projector. Pixels, rows of images, logits and greedy tokens
of tiny random models agree with transformers, from the directory and from GGUF (`tests/peers/test_vision.py`). [How to use them](guides/images.md).

| projector in the file | models | state | compared with | directories |
|---|---|---|---|---|
{chr(10).join(seeing)}

Refused by name, with what they need: {blind}. Others that files name are refused too.
"""


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    text = page()
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

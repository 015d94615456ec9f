"""Low-bit language models on the machine you have.

    llm = tokamak.load("model.gguf")
    llm.generate("Once upon a time", max_tokens=64).text

Importing this reads no file but the package's own and starts nothing; names are resolved when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokamak.errors import (
    Cancelled,
    CapacityError,
    CheckFailed,
    ContextOverflow,
    FileRefused,
    GraphError,
    HubError,
    InvalidParams,
    ModelFileError,
    TokamakError,
    TokenizerFileError,
    UnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from tokamak.engine.completion import Completion
    from tokamak.engine.llm import LLM
    from tokamak.engine.loading import load
    from tokamak.loaders.adapters import Adapter
    from tokamak.loaders.quantize import quantize
    from tokamak.sampling import SamplingParams
    from tokamak.tokenizers import Tokenizer

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "Adapter",
    "Cancelled",
    "CapacityError",
    "CheckFailed",
    "Completion",
    "ContextOverflow",
    "FileRefused",
    "GraphError",
    "HubError",
    "InvalidParams",
    "ModelFileError",
    "SamplingParams",
    "TokamakError",
    "Tokenizer",
    "TokenizerFileError",
    "UnavailableError",
    "UnsupportedError",
    "load",
    "quantize",
]

_HOME = {
    "Adapter": "tokamak.loaders.adapters",
    "Completion": "tokamak.engine.completion",
    "LLM": "tokamak.engine.llm",
    "SamplingParams": "tokamak.sampling",
    "Tokenizer": "tokamak.tokenizers",
    "load": "tokamak.engine.loading",
    "quantize": "tokamak.loaders.quantize",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tokamak' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

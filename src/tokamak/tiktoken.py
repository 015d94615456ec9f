"""`import tokamak.tiktoken as tiktoken`: the interface of tiktoken; see `tokamak.compat.tiktoken`."""

from tokamak.compat.tiktoken import (
    Encoding,
    encoding_for_model,
    encoding_name_for_model,
    get_encoding,
    list_encoding_names,
)

__all__ = [
    "Encoding",
    "encoding_for_model",
    "encoding_name_for_model",
    "get_encoding",
    "list_encoding_names",
]

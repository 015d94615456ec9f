"""`from tokamak.hf import Tokenizer`: the interfaces of tokenizers and of transformers' fast tokenizers; see `tokamak.compat`."""

from tokamak.compat.hf_batch import BatchEncoding
from tokamak.compat.hf_encoding import Encoding
from tokamak.compat.hf_fast import PreTrainedTokenizerFast
from tokamak.compat.hf_tokenizer import AddedToken, Tokenizer

AutoTokenizer = PreTrainedTokenizerFast  # by its from_pretrained
__all__ = [
    "AddedToken",
    "AutoTokenizer",
    "BatchEncoding",
    "Encoding",
    "PreTrainedTokenizerFast",
    "Tokenizer",
]

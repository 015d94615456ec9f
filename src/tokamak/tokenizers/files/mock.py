"""A stand-in for a tokenizer: ids are bytes. For measuring and testing without a vocabulary; no model learned it.

Nothing chooses it: it has to be asked for by its name, and receipts of runs with it say so.
"""

from __future__ import annotations

from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.spec import Strings, TokenizerSpec, roles_of

NAME = "mock:bytes"  # in the place of a path


def mock_spec(num_ids: int) -> TokenizerSpec:
    """A token per byte, so that any bytes come back as they were, and names like "<300>" for further ids of a model."""
    return TokenizerSpec(
        kind="bpe",
        tokens=Strings.of(BYTE_TO_CHAR[i] if i < 256 else f"<{i}>" for i in range(max(256, num_ids))),
        roles=roles_of(max(256, num_ids)),
        merges=Strings.of(()),
        byte_texts=True,
        notes=("a mock: ids are bytes, whatever the model was trained on",),
    )

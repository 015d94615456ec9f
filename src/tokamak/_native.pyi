from collections.abc import Iterable
from typing import Any, overload

import numpy
import numpy.typing

class StringTable:
    """
    Byte strings as one blob and the offsets of each: string i is blob[offsets[i]:offsets[i + 1]].
    """

    def __init__(self, items: Iterable[bytes]) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, arg: int, /) -> bytes: ...
    @overload
    def __eq__(self, arg: StringTable, /) -> bool: ...
    @overload
    def __eq__(self, arg: object, /) -> bool: ...
    def __getstate__(self) -> tuple[list[bytes]]: ...
    def __setstate__(self, state: tuple[list[bytes]]) -> None: ...
    def tolist(self) -> list[bytes]:
        """All strings as a list of bytes."""

    @property
    def blob(self) -> numpy.typing.NDArray[numpy.uint8]:
        """u8[n], read-only"""

    @property
    def offsets(self) -> numpy.typing.NDArray[numpy.int64]:
        """i64[len + 1], read-only"""

def gguf_tensor_types() -> list[tuple[int, str, int, int]]:
    """
    Every known tensor type as (id, name, block_size, type_size); sizes are 0 where a tensor's size is not a number of groups.
    """

class GgufFile:
    """
    A GGUF file, mapped and checked. Arrays of `data` are views into the mapping and keep it alive; if another process truncates the file, reading them kills this one (SIGBUS).
    """

    def __init__(self, path: str, *, prefault: bool = False) -> None: ...
    @staticmethod
    def from_bytes(content: bytes) -> GgufFile:
        """The same from bytes in memory."""

    @property
    def version(self) -> int: ...
    @property
    def alignment(self) -> int: ...
    @property
    def data_offset(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def metadata(self) -> dict[str, Any]:
        """
        dict: scalars as Python values, numeric arrays as NumPy arrays, string arrays as StringTable, in the order of the file.
        """

    @property
    def value_types(self) -> dict[str, str]:
        """dict: the type of every metadata value, "uint32", "array[string]", ..."""

    @property
    def tensors(self) -> list[tuple[str, int, tuple[int, ...], int, int]]:
        """
        list of (name, type id, shape outermost first, byte offset in the file, nbytes).
        """

    def data(self, name: str) -> numpy.typing.NDArray[numpy.uint8]:
        """Bytes of a tensor: u8[nbytes], read-only view."""

    def release(self, name: str) -> None:
        """
        Give the tensor's whole pages back to the system; reading them again still works.
        """

    def prefault(self, name: str) -> None:
        """Read the tensor's pages into memory now."""

def probe_read_seconds(threads: int, nbytes: int, repeats: int) -> list[float]:
    """
    Seconds per pass of reading `nbytes` of memory once with `threads` threads.
    """

def probe_int8_rates(isa: str, threads: int, repeats: int) -> list[float]:
    """Int8 multiply-adds per second of `threads` threads, from registers."""

def probe_isas() -> list[str]:
    """Instruction sets with a probe that runs here, weakest first."""

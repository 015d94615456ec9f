from collections.abc import Iterable, Sequence
from typing import Annotated, Any, overload

import numpy
import numpy.typing
from numpy.typing import NDArray

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

class TextEngine:
    """
    One tokenizer, built. `text` is a str without surrogates or a buffer of bytes; every call runs without the GIL.
    """

    def encode_list(self, text: Any, add_special: bool, parse_special: bool) -> list[int]: ...
    def encode_array(
        self, text: Any, add_special: bool, parse_special: bool, plain: Any
    ) -> numpy.typing.NDArray[numpy.int32]:
        """
        i32[n]. plain: (start, end) byte ranges, rising, in which special tokens are only text.
        """

    def encode_spans(
        self, text: Any, add_special: bool, parse_special: bool
    ) -> tuple[
        numpy.typing.NDArray[numpy.int32],
        numpy.typing.NDArray[numpy.int64],
        numpy.typing.NDArray[numpy.int32],
        list[tuple[int, bytes]],
    ]:
        """
        i32[n] ids, i64[2 * n] byte spans, i32[n] pieces of pre-tokenizing, -1 outside; rows that are shown by their text, with it.
        """

    def words(self, text: Any, parse_special: bool) -> list[bytes | int]:
        """
        What the model is asked, in order: words as bytes, added tokens as ids.
        """

    def encode_batch(
        self, texts: Any, add_special: bool, parse_special: bool, threads: int
    ) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int64]]:
        """i32[n] ids of all texts, i64[len(texts) + 1] offsets."""

    def count(self, text: Any, add_special: bool, parse_special: bool) -> int: ...
    def decode(self, ids: Any, skip_special: bool, strip_space: bool) -> bytes: ...
    def decode_text(self, ids: Any, skip_special: bool, strip_space: bool) -> str: ...
    def token_bytes(self, id: int) -> bytes: ...
    def normalized_tokens(self) -> list[tuple[int, bytes]]: ...
    def is_byte(self, id: int) -> bool:
        """Whether a token stands for one byte of a character that has no token."""

    def tables(self) -> dict[str, numpy.typing.NDArray[numpy.uint8]]:
        """
        Views of the arrays that took time to make; make_text_engine takes them again.
        """

    @property
    def cache_nbytes(self) -> int:
        """Memory of the word caches."""

    @property
    def nbytes(self) -> int:
        """Memory of its own, word caches included; what lies in an image is not."""

def make_text_engine(parts: dict[str, Any], tables: dict[str, Any] = {}) -> TextEngine: ...
def load_normalization(lines: bytes, name: str = "") -> None:
    """
    Add tables of normal forms; see tools/generate_unicode.py. name: as of load_classes.
    """

def split_pattern(pattern: str, text: Any, fast: bool = False) -> list[int]:
    """
    Matches of a pre-tokenizer pattern as [start, end, start, end, ...] in bytes. fast: by masks where the pattern has them, for tests.
    """

def unicode_property(name: str) -> list[tuple[int, int]]:
    """Code points of a class as rising inclusive ranges."""

UNICODE_VERSION: str = "16.0"

def load_classes(name: str, properties: Sequence[int], runs: Sequence[int]) -> None:
    """
    Add character classes for engines whose part "unicode" is that name; see tools/generate_unicode.py.
    """

class JsonColumns:
    """Vocabulary and merges of a tokenizer.json; arrays are views of it."""

    @property
    def rest(self) -> bytes: ...
    def find(self, token: bytes) -> int | None: ...
    def __len__(self) -> int: ...
    @property
    def tokens(self) -> tuple[numpy.typing.NDArray[numpy.uint8], numpy.typing.NDArray[numpy.int64]]:
        """Blob and offsets, by id."""

    @property
    def present(self) -> numpy.typing.NDArray[numpy.uint8]:
        """By id: 1 where there is a token."""

    @property
    def scores(self) -> numpy.typing.NDArray[numpy.float64] | None: ...
    @property
    def merges(self) -> tuple[numpy.typing.NDArray[numpy.uint8], numpy.typing.NDArray[numpy.int64]]:
        """Blob and offsets, in order of rank."""

def scan_tokenizer_json(file: bytes) -> JsonColumns | None:
    """None where the file has to be read as a whole."""

def isas() -> list[str]:
    """Instruction sets this processor can run, best first."""

def isa() -> str:
    """The instruction set in use: the best, or what TOKAMAK_ISA names."""

def clock_hertz() -> float:
    """Dependent additions per second of this thread, which is its clock."""

def quantize_activation(
    isa: str, kind: str, x: numpy.typing.NDArray[numpy.float32]
) -> tuple[numpy.typing.NDArray[numpy.int8], numpy.typing.NDArray[numpy.float32]]:
    """
    One row f32[K] as int8[K] and scales: kind 'q8_32' (per 32 columns), 'q8_256' or 'q8_row' (one scale).
    """

class PackedMatrix:
    """A weight matrix packed for one instruction set."""

    def __init__(
        self,
        isa: str,
        format: str,
        bytes: numpy.typing.NDArray[numpy.uint8],
        rows: int,
        cols: int,
        scale: float = 1.0,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def panels(self) -> int: ...
    def matmul(
        self,
        x: numpy.typing.NDArray[numpy.float32],
        bias: numpy.typing.NDArray[numpy.float32] | None = None,
        panel_begin: int = 0,
        panel_end: int | None = None,
    ) -> numpy.typing.NDArray[numpy.float32]:
        """
        f32[T, K] -> f32[T, N] on this thread; rows of panels outside the range are NaN.
        """

    def seconds(self, x: numpy.typing.NDArray[numpy.float32], budget_s: float) -> float:
        """
        Shortest time of the product with x: f32[T, K], repeated for `budget_s` seconds.
        """

    def unpack_row(self, row: int) -> numpy.typing.NDArray[numpy.float32]:
        """Row `row` as floats f32[K], exactly as the codec decodes it."""

def allocation_count() -> int:
    """How often native code has asked for memory so far."""

def memory_nodes() -> list[int]:
    """Memory nodes that have memory, rising; [0] if unknown."""

def cpu_list(list: str) -> list[int]:
    """
    Numbers of a list as the system writes it, "0-2,5"; empty if it is none.
    """

def allowed_cpus() -> list[int]:
    """CPUs that this thread may run on, rising."""

class CpuProgram:
    """Instructions over arenas, with packed weights and a paged cache."""

    def __init__(
        self,
        num_blocks: int,
        num_recent_blocks: int,
        max_rows: int,
        max_sequences: int,
        threads: int,
        row_nbytes: tuple[int, int, int],
        result_width: int,
        isa: str = "",
        threads_batch: int = 0,
        affinity: Sequence[int] = [],
        tuning: tuple[int, int, int] = (65536, 196608, 50),
    ) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def num_instructions(self) -> int: ...
    @property
    def allocations(self) -> int: ...
    @property
    def steals(self) -> int: ...
    def packed_nbytes(self, format: str, rows: int, cols: int) -> int: ...
    def reserve(self, nbytes: int) -> None: ...
    def add_matrix(self, format: str, rows: object, cols: int, scale: float = 1.0) -> int: ...
    def add_packed(self, format: str, panels: object, rows: int, cols: int) -> int: ...
    def add_vector(self, values: object) -> int: ...
    def add_cache(self, kv_dtype: str, recent: bool, kv_heads: int, head_dim: int, value_dim: int) -> int: ...
    def add_state(self, width: int) -> int: ...
    def embed(
        self, node: str, table: int, by_position: bool, row: int, out: tuple[int, int, int, int, int]
    ) -> None: ...
    def linear(
        self,
        node: str,
        x: tuple[int, int, int, int, int],
        weights: Sequence[int],
        biases: Sequence[int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def norm(
        self,
        node: str,
        x: tuple[int, int, int, int, int],
        weight: int,
        bias: int,
        eps: float,
        residual: Sequence[tuple[int, int, int, int, int]],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def binary(
        self,
        node: str,
        op: str,
        x: tuple[int, int, int, int, int],
        y: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def scaling(
        self,
        node: str,
        op: str,
        by: float,
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def activate(
        self,
        node: str,
        act: str,
        gated: bool,
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def rope_table(self, inv_freq: int, mscale: float) -> int: ...
    def rope(
        self,
        node: str,
        table: int,
        head_dim: int,
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def attention(
        self,
        node: str,
        cache: int,
        heads: int,
        scale: float,
        window: int,
        softcap: float,
        chunk: int,
        causal: bool,
        slopes: int,
        sinks: int,
        keys: int,
        buckets: int,
        bucket_of: Sequence[int],
        qkv: Sequence[tuple[int, int, int, int, int]],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def take_rows(
        self, node: str, x: tuple[int, int, int, int, int], out: tuple[int, int, int, int, int]
    ) -> None: ...
    def gate(
        self,
        node: str,
        groups: Sequence[tuple[int, int]],
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def steer(
        self,
        node: str,
        gate: int,
        direction: int,
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def replace_rows(
        self, node: str, x: tuple[int, int, int, int, int], out: tuple[int, int, int, int, int]
    ) -> None: ...
    def affine(
        self,
        node: str,
        weight: int,
        bias: int,
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def join(
        self,
        node: str,
        heads: int,
        y_heads: int,
        x: tuple[int, int, int, int, int],
        y: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def route(
        self,
        node: str,
        score: str,
        bias: int,
        used: int,
        normed: bool,
        scaling: float,
        groups: int,
        top_groups: int,
        group_top: int,
        logits: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def experts(
        self,
        node: str,
        x: tuple[int, int, int, int, int],
        weights: tuple[int, int, int, int, int],
        gate: Sequence[int],
        up: Sequence[int],
        down: Sequence[int],
        biases: Sequence[int],
        used: int,
        act: str,
        weighs_input: bool,
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def causal_conv(
        self,
        node: str,
        state: int,
        weight: int,
        bias: int,
        act: str,
        x: tuple[int, int, int, int, int],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def scan(
        self,
        node: str,
        state: int,
        heads: int,
        groups: int,
        vectors: Sequence[int],
        inputs: Sequence[tuple[int, int, int, int, int]],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def linear_attention(
        self,
        node: str,
        state: int,
        rule: str,
        heads: int,
        bonus: int,
        inputs: Sequence[tuple[int, int, int, int, int]],
        out: tuple[int, int, int, int, int],
    ) -> None: ...
    def seal(self) -> None: ...
    def run(self, batch: object) -> numpy.typing.NDArray[numpy.float32]:
        """Logits f32[S, result_width] of one types.Batch."""

    def run_taps(
        self, batch: object, taps: Sequence[tuple[int, tuple[int, int, int, int, int]]]
    ) -> list[numpy.typing.NDArray[numpy.float32]]: ...
    def cancel(self) -> None: ...
    def copy_blocks(self, pairs: Sequence[tuple[int, int]], recent: bool) -> None: ...
    def read_blocks(self, store: int, blocks: Sequence[int]) -> numpy.typing.NDArray[numpy.uint8]:
        """
        Bytes of cache blocks of one layer, one after another, laid out as in native/cpu/cache.h.
        """

    def write_blocks(
        self,
        store: int,
        blocks: Sequence[int],
        bytes: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order="C", device="cpu", writable=False)],
    ) -> None: ...
    def records(self) -> list[tuple[str, str, str, int, int, int, int]]: ...
    def read_rates(self, threads: int, repeats: int) -> list[float]:
        """
        Bytes per second of reading the packed weights once, by pass; none if they lie in a file.
        """

    def memory(self) -> dict[str, int]: ...

def probe_read_seconds(threads: int, nbytes: int, repeats: int) -> list[float]:
    """
    Seconds per pass of reading `nbytes` of memory once with `threads` threads.
    """

def probe_int8_rates(isa: str, threads: int, repeats: int) -> list[float]:
    """Int8 multiply-adds per second of `threads` threads, from registers."""

def probe_isas() -> list[str]:
    """Instruction sets with a probe that runs here, weakest first."""

def pack_matrix(
    isa: str,
    format: str,
    rows: numpy.typing.NDArray[numpy.uint8],
    num_rows: int,
    cols: int,
    threads: int = 1,
    scale: float = 1.0,
) -> numpy.typing.NDArray[numpy.uint8]:
    """The panels of a matrix as the kernels of `isa` read them: u8[nbytes]."""

def packed_nbytes(isa: str, format: str, rows: int, cols: int) -> int:
    """Bytes of such a matrix when packed."""

def checksums(bytes: numpy.typing.NDArray[numpy.uint8], piece: int, threads: int = 1) -> list[int]:
    """A sum of 64 bits for every `piece` bytes."""

def suffix_matches(
    tokens: numpy.typing.NDArray[numpy.int32], limit: int
) -> numpy.typing.NDArray[numpy.int32]:
    """
    i32[n]: how many tokens ending at i equal those at the end of tokens i32[n], at most limit.
    """

class FilterChain:
    """
    Filters as (name, a, b, c, min_keep), then a draw; see sampling/chain.py.
    """

    def __init__(
        self, stages: Sequence[tuple[str, float, float, float, int]], adaptive: bool = False
    ) -> None: ...
    def filtered(
        self, logits: numpy.typing.NDArray[numpy.float32], with_xtc: bool
    ) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32], bool]:
        """
        (ids, logits, whether they are ordered by logit) left; none if they are not numbers.
        """

def draw_rows(
    rows: Sequence[tuple[FilterChain, numpy.typing.NDArray[numpy.float32], float, bool, float]],
    workers: CpuProgram | None = None,
) -> list[tuple[int, float]]:
    """
    (token, its probability among those left) of each row (chain, logits f32[V], coin, with_xtc, aim); token -1 if they are not numbers. aim: mu of mirostat, or that of adaptive-p. workers: whose threads share the rows. The GIL is released.
    """

def log_rows(
    rows: Sequence[tuple[numpy.typing.NDArray[numpy.float32], int, int]], workers: CpuProgram | None = None
) -> list[tuple[float, int, list[int]]]:
    """
    (ln of the sum of e^l, rank of the token from 1, the likeliest ids) of each row (logits f32[V], token, how many); ties by id.
    """

def transcode(
    rows: numpy.typing.NDArray[numpy.uint8],
    source: str,
    target: str,
    columns: int,
    importance: numpy.typing.NDArray[numpy.float32] | None = None,
    threads: int = 1,
    isa: str | None = None,
    out: numpy.typing.NDArray[numpy.uint8] | None = None,
) -> numpy.typing.NDArray[numpy.uint8]:
    """
    Whole rows of `columns` elements, back to back, from one weight format to another, without the GIL.

    importance: f32[columns], > 0. isa: a name of codec_isas(); all write the same bytes. out: where the result goes.
    Raises: UnsupportedError for a format without native codec; InvalidParams for rows that do not fit and for
    values that are not finite.
    """

def codec_formats() -> list[str]:
    """Names of the formats that `transcode` reads and writes."""

def codec_isas() -> list[str]:
    """Instruction sets that `transcode` can use here, the best first."""

"""Broken GGUF files, each built from a few lines, with what stops it.

`File` writes whatever it is told, so a builder can lie about any count, length, type or offset.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tokamak.errors import ModelFileError, TokamakError, UnsupportedError

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
FLOAT, Q8_0, I2_S = 0, 8, 36


def string(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


def key(name: bytes, kind: int, value: bytes, length: int | None = None) -> bytes:
    return string(name, length) + struct.pack("<I", kind) + value


def number(name: bytes, value: int = 1) -> bytes:
    return key(name, U32, struct.pack("<I", value))


def array(name: bytes, kind: int, count: int, values: bytes) -> bytes:
    return key(name, ARRAY, struct.pack("<IQ", kind, count) + values)


def tensor(
    name: bytes, dims: tuple[int, ...], offset: int, kind: int = FLOAT, num_dims: int | None = None
) -> bytes:
    head = struct.pack("<I", len(dims) if num_dims is None else num_dims)
    return string(name) + head + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)


@dataclass
class File:
    """The pieces of a GGUF file, each free to be wrong."""

    keys: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    data: int = 0  # bytes after the header
    magic: bytes = b"GGUF"
    version: bytes = struct.pack("<I", 3)
    num_tensors: int | None = None
    num_keys: int | None = None

    def build(self) -> bytes:
        counts = [
            len(self.tensors) if self.num_tensors is None else self.num_tensors,
            len(self.keys) if self.num_keys is None else self.num_keys,
        ]
        head = self.magic + self.version + struct.pack("<QQ", *counts) + b"".join([*self.keys, *self.tensors])
        return head + bytes(-len(head) % 32) + bytes(self.data)


@dataclass(frozen=True)
class Attack:
    name: str
    stopped_by: str
    build: Callable[[], bytes]
    message: str  # regular expression
    error: type[TokamakError] = ModelFileError


def attack(
    name: str, stopped_by: str, message: str, file: File, error: type[TokamakError] = ModelFileError
) -> Attack:
    return Attack(name, stopped_by, file.build, message, error)


ALIGNMENT = b"general.alignment"
A, B = b"a", b"b"

ATTACKS = [
    attack("another magic", "the first four bytes are compared", "not a GGUF file", File(magic=b"GGML")),
    attack(
        "escape codes in the magic",
        "what a file says is escaped before it is shown",
        r"\\x1b\[2J",
        File(magic=b"\x1b[2J"),
    ),
    attack(
        "version 1", "its counts are 32 bits wide", "version 1", File(version=b"\1\0\0\0"), UnsupportedError
    ),
    attack("version 4", "nobody knows its layout", "version 4", File(version=b"\4\0\0\0"), UnsupportedError),
    attack(
        "big endian",
        "the version reads as a multiple of 2^16",
        "big-endian",
        File(version=b"\0\0\0\3"),
        UnsupportedError,
    ),
    *(
        attack(
            f"{count} keys",
            "counts are limited before anything is allocated",
            "metadata keys",
            File(num_keys=count),
        )
        for count in (2**63, 2**64 - 1, 2**32, 10**9, 70_000)
    ),
    *(
        attack(
            f"{count} tensors",
            "counts are limited before anything is allocated",
            " tensors",
            File(num_tensors=count),
        )
        for count in (2**63, 2**64 - 1, 2**32, 10**9, 200_000)
    ),
    attack(
        "more keys than bytes",
        "a key takes at least 14 bytes; the count is compared with what is left",
        "60000 metadata keys, but only 100 bytes follow",
        File(num_keys=60_000, data=92),
    ),
    attack(
        "a tensor less than promised",
        "the count is compared again after the keys",
        "2 tensors, but only",
        File([number(A)], [tensor(A, (1,), 0)], num_tensors=2),
    ),
    attack(
        "an endless key",
        "key lengths end at 65535",
        "at most 65535",
        File([key(A, U32, b"", 2**63)], data=64),
    ),
    attack("a long key", "key lengths end at 65535", "at most 65535", File([number(b"k" * 65536)])),
    attack("a key without a name", "empty names are refused", "without a name", File([number(b"")])),
    attack(
        "a key that is no UTF-8", "keys are decoded strictly", "not valid UTF-8", File([number(b"\xff\xfe")])
    ),
    attack(
        "a value that is no UTF-8",
        "single strings are decoded strictly",
        'the value of key "a" is not valid UTF-8',
        File([key(A, STRING, string(b"\xc3\x28"))]),
    ),
    attack("a key twice", "names are kept in a set", 'key "a" twice', File([number(A), number(A)])),
    attack("an unknown value type", "type ids end at 12", "value type 13", File([key(A, 13, b"\0" * 8)])),
    attack("a bool of 2", "bools are 0 or 1", "a bool must be 0 or 1", File([key(A, BOOL, b"\2")])),
    attack("a bool of 2 in an array", "bools are 0 or 1", "at byte 51", File([array(A, BOOL, 3, b"\0\1\2")])),
    attack(
        "an array of 2^61 strings",
        "each takes 8 bytes at least; the count is compared with what is left",
        "array of 2305843009213693952 string values",
        File([array(A, STRING, 2**61, b"")], data=64),
    ),
    attack(
        "an array whose bytes wrap around",
        "the count is divided, never multiplied",
        "array of 9223372036854775809 uint32 values",
        File([array(A, U32, 2**63 + 1, b"")], data=64),
    ),
    attack(
        "a string of 2^64 - 1",
        "lengths are compared with what is left",
        "truncated",
        File([key(A, STRING, string(b"", 2**64 - 1))], data=64),
    ),
    attack(
        "a string past the end inside an array",
        "every element is compared with what is left",
        'key "a" at byte',
        File([array(A, STRING, 2, string(b"x") + string(b"y", 1000))]),
    ),
    attack(
        "arrays in arrays in arrays",
        "nested arrays are not read, so nothing recurses",
        "array of arrays",
        File([array(A, ARRAY, 1, struct.pack("<IQ", ARRAY, 1) * 1000)]),
        UnsupportedError,
    ),
    *(
        attack(f"alignment {n}", "powers of two only", "power of two", File([number(ALIGNMENT, n)]))
        for n in (0, 3, 33, 2**32 - 1)
    ),
    attack(
        "alignment as float",
        "its type is checked",
        "must be uint32",
        File([key(ALIGNMENT, F32, b"\0\0\0\0")]),
    ),
    attack(
        "alignment of 2^31",
        "the data part then starts after the end of the file",
        "the data part has 0 bytes",
        File([number(ALIGNMENT, 2**31)], [tensor(A, (1,), 0)], data=64),
    ),
    attack(
        "a tensor without a name",
        "empty names are refused",
        "without a name",
        File([], [tensor(b"", (1,), 0)], 64),
    ),
    attack(
        "a long tensor name",
        "names end at 255 bytes",
        "at most 255",
        File([], [tensor(b"n" * 256, (1,), 0)], 64),
    ),
    attack(
        "a tensor twice",
        "names are kept in a set",
        'tensor "a" twice',
        File([], [tensor(A, (8,), 0), tensor(A, (8,), 32)], 64),
    ),
    attack(
        "a tensor name that is no UTF-8",
        "names are decoded strictly",
        "UTF-8",
        File([], [tensor(b"\xff", (8,), 0)], 64),
    ),
    *(
        attack(
            f"{n} dimensions",
            "one to four dimensions are read",
            f"{n} dimensions",
            File([], [tensor(A, (1,), 0, num_dims=n)], 64),
        )
        for n in (0, 5, 2**32 - 1)
    ),
    attack("a dimension of 0", "extents start at 1", "dimension of 0", File([], [tensor(A, (8, 0), 0)], 64)),
    attack(
        "dimensions whose product wraps to 16",
        "the product is compared by division",
        r"more than 2\^63 elements",
        File([], [tensor(A, (2**62 + 4, 4), 0)], 64),
    ),
    attack(
        "bytes that wrap around",
        "the product with the type's size is compared by division",
        r"more than 2\^62 bytes",
        File([], [tensor(A, (2**62 - 1,), 0)], 64),
    ),
    attack(
        "a type id from the future",
        "the id is looked up in a table",
        'tensor "a" at byte 24 has the unknown type id 250',
        File([], [tensor(A, (8,), 0, 250)], 64),
        UnsupportedError,
    ),
    attack(
        "half a group",
        "rows are whole groups of the type",
        "rows of 33 elements, type q8_0 needs a multiple of 32",
        File([], [tensor(A, (33,), 0, Q8_0)], 64),
    ),
    attack(
        "a tensor past the end",
        "offset and size are compared with the file",
        "needs 64 bytes at data offset 32, but the data part has 64",
        File([], [tensor(A, (16,), 32)], 64),
    ),
    attack(
        "an offset that wraps around",
        "the offset is compared before it is added to",
        "data offset 18446744073709551584",
        File([], [tensor(A, (16,), 2**64 - 32)], 64),
    ),
    attack(
        "an offset off the grid",
        "offsets are multiples of the alignment",
        "no multiple",
        File([], [tensor(A, (8,), 4)], 64),
    ),
    attack(
        "two tensors in one place",
        "sorted by offset, each ends before the next",
        'tensor "a" of type f32 overlaps tensor "b" at data offset 0',
        File([], [tensor(A, (8,), 0), tensor(B, (8,), 0)], 64),
    ),
    attack(
        "one tensor inside another",
        "sorted by offset, each ends before the next",
        'tensor "b" of type f32 overlaps tensor "a"',
        File([], [tensor(A, (8,), 32), tensor(B, (32,), 0)], 128),
    ),
    attack(
        "ternary tensors that share their scale",
        "the 32 bytes behind the codes count",
        'tensor "a" of type i2_s has 32 bytes; 128 elements need 64, or 40 as i2_f16, or 32 as qk256',
        File([], [tensor(A, (128,), 0, I2_S), tensor(B, (8,), 32)], 128),
    ),
]

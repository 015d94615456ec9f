"""Fuzz tokenizers against the original libraries: ids, spans and decoded texts of hundreds of thousands of strings.

    python tools/fuzz_tokenizers.py [--strings 200000] [--seed 1] [--family unigram] [--file NAME] [--patterns VOCABULARY] [FOLDER]

Strings are spread over the vocabularies of a family (by kind: bpe, characters, unigram, wordpiece, spm, ranks, ...). A third is
structured noise (the generator of the reference data), a third are lines of real texts, changed a little, a third are made of
the vocabulary's own tokens and added tokens. Prints one line per vocabulary and the first differences; exit 5 if there are any.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reference_data import golden, unpacked
from tokamak.errors import UnsupportedError
from tokamak.tokenizers import Tokenizer

SHOWN = 3  # differences per vocabulary


def noise(count: int, seed: int) -> list[str]:
    script = golden() / "unicode" / "fuzz_strings.py"
    done = subprocess.run(
        [sys.executable, str(script), str(count), str(seed)], capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def changed_lines(lines: list[str], rng: random.Random) -> str:
    line = rng.choice(lines)[: rng.randrange(1, 200)]
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(line) + 1)
        other = rng.choice(lines)
        line = line[:at] + other[: rng.randrange(6)] + line[at + rng.randrange(3) :]
    return line


def own_tokens(tokenizer: Tokenizer, rng: random.Random) -> str:
    parts = []
    added = tokenizer.added_tokens
    for _ in range(rng.randrange(1, 8)):
        if added and rng.random() < 0.1:
            parts.append(rng.choice(added).content)
        else:
            data = tokenizer.id_to_bytes(rng.randrange(tokenizer.vocab_size))
            parts.append(data.decode("utf-8", "replace").replace("\u2581", rng.choice((" ", "\u2581"))))
    return "".join(parts)


class HuggingFace:
    """tokenizer.json: ids with and without special tokens, spans, texts with and without special tokens."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        import tokenizers

        self.original = tokenizers.Tokenizer.from_file(str(path))
        self.original.no_padding()
        self.original.no_truncation()
        self.ours = ours

    def differences(self, text: str) -> list[str]:
        want = self.original.encode(text)
        full = self.ours.encode_full(text, parse_special=True)
        ids = full.ids.tolist()
        wrong = [] if ids == want.ids == self.ours.encode(text, parse_special=True) else ["ids"]
        if full.pieces != want.tokens:
            wrong.append("pieces")
        if [tuple(s) for s in full.char_spans.tolist()] != want.offsets:
            wrong.append("spans")
        texts = [self.original.decode(want.ids, skip_special_tokens=skip) for skip in (False, True)]
        same = texts == [self.ours.decode(want.ids, skip) for skip in (False, True)]
        return wrong if same else [*wrong, "text"]


class SentencePiece:
    """.model files: ids and texts."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        import sentencepiece

        self.original = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.ours = ours

    def differences(self, text: str) -> list[str]:
        want = self.original.encode(text)
        wrong = [] if self.ours.encode(text, False, False) == want else ["ids"]
        return wrong + ([] if self.ours.decode(want) == self.original.decode(want) else ["text"])


class Tiktoken:
    """.tiktoken files: ids with special tokens read and not, and bytes."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        import tiktoken

        lines = [line.split() for line in path.read_bytes().splitlines() if line.strip()]
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        pattern = next(s.get("regex") for s in ours.spec.pre_tokenizers)
        self.original = tiktoken.Encoding(
            "x", pat_str=pattern, mergeable_ranks=ranks, special_tokens=ours.special_tokens
        )
        self.ours = ours

    def differences(self, text: str) -> list[str]:
        want = self.original.encode_ordinary(text)
        special = self.original.encode(text, allowed_special="all")
        wrong = [] if self.ours.encode(text, False, False) == want else ["ids"]
        if self.ours.encode(text, False, True) != special:
            wrong.append("special ids")
        return wrong + (
            [] if self.ours.decode_bytes(special) == self.original.decode_bytes(special) else ["bytes"]
        )


class Rwkv:
    """RWKV's list of literals: ids and texts."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        import pyrwkv_tokenizer

        self.original = pyrwkv_tokenizer.RWKVTokenizer(vocab_filepath=str(path))
        self.ours = ours

    def differences(self, text: str) -> list[str]:
        want = self.original.encode(text)
        wrong = [] if self.ours.encode(text, False, False) == want else ["ids"]
        return wrong + ([] if self.ours.decode(want) == text else ["text"])


class Tekken:
    """Mistral's tekken.json: ids and texts."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer

        self.original = Tekkenizer.from_file(path)
        self.ours = ours

    def differences(self, text: str) -> list[str]:
        want = self.original.encode(text, bos=False, eos=False)
        wrong = [] if self.ours.encode(text, False, False) == want else ["ids"]
        return wrong + ([] if self.ours.decode(want) == self.original.decode(want) else ["text"])


class Bert(HuggingFace):
    """vocab.txt, by the tokenizer of BERT that transformers makes of it."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        import tokenizers

        lower = next(s for s in ours.spec.normalizers if s.type == "BertNormalizer").get("lowercase")
        self.original = tokenizers.BertWordPieceTokenizer(str(path), lowercase=bool(lower))
        self.ours = ours


class Gpt2(HuggingFace):
    """vocab.json with merges.txt."""

    def __init__(self, path: Path, ours: Tokenizer) -> None:
        import tokenizers

        merges = str(path.parent / "merges.txt")
        self.original = tokenizers.ByteLevelBPETokenizer(str(path), merges, trim_offsets=False)
        self.original.add_special_tokens([t.content for t in ours.added_tokens if t.special])
        self.ours = ours


def peer_of(path: Path, ours: Tokenizer) -> type:
    if path.name.startswith("tekken"):
        return Tekken
    if path.suffix == ".txt":
        return Rwkv if ours.spec.kind == "trie" else Bert
    if path.name == "vocab.json":
        return Gpt2
    if ours.spec.kind == "ranks":
        return Tiktoken
    return HuggingFace if path.suffix == ".json" else SentencePiece


def files_of(folder: Path) -> list[Path]:
    found = [p for end in ("json", "model", "tiktoken") for p in folder.glob(f"**/*.{end}")]
    return sorted([*found, *folder.glob("rwkv/*.txt"), *folder.glob("**/vocab.txt")])


def vocabularies(folder: Path) -> dict[str, list[tuple[Path, type]]]:
    """By kind: every file that both sides open; those that only one opens are listed."""
    found: dict[str, list[tuple[Path, type]]] = defaultdict(list)
    for path in files_of(folder):
        if "config" in path.name or "samples" in path.parts:
            continue
        try:
            ours = Tokenizer.load(path)
            peer = peer_of(path, ours)
            peer(path, ours)
        except Exception as e:  # noqa: BLE001  the originals raise what they like
            print(f"not compared: {path.relative_to(folder)}: {type(e).__name__}: {e}"[:150])
            continue
        found[ours.spec.kind].append((path, peer))
    return found


def write_patterns(source: Path, folder: Path) -> None:
    """The byte-level vocabulary of `source` under every named pre-tokenizer, as files that the original reads by itself."""
    from dataclasses import replace

    from tokamak.tokenizers.files.hf_write import data_from_spec
    from tokamak.tokenizers.patterns import PRE_TOKENIZERS

    spec = Tokenizer.load(source).spec
    for name, row in PRE_TOKENIZERS.items():
        steps = {
            "pre_tokenizers": row.steps,
            "normalizers": row.normalizers,
            "ignore_merges": row.ignore_merges,
        }
        try:
            data = data_from_spec(replace(spec, **steps))
        except UnsupportedError as e:
            print(f"not compared: {name}: {e}"[:150])
            continue
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")


def texts_of(folder: Path) -> list[str]:
    lines: list[str] = []
    for path in sorted((folder / "corpora").glob("*.txt")):
        with path.open("rb") as f:
            text = f.read(400_000).decode("utf-8", "replace")
        lines += [line for line in text.splitlines() if line][:3000]
    return lines


def compare(path: Path, peer: type, count: int, seed: int, lines: list[str]) -> int:
    """Differing strings of one vocabulary."""
    ours = Tokenizer.load(path)
    both = peer(path, ours)
    rng = random.Random(f"{seed} {path.name}")
    strings = noise(count - 2 * (count // 3), rng.randrange(1 << 30))
    strings += [changed_lines(lines, rng) for _ in range(count // 3)]
    strings += [own_tokens(ours, rng) for _ in range(count // 3)]
    bad = 0
    for text in strings:
        wrong = both.differences(text)
        if wrong:
            bad += 1
            if bad <= SHOWN:
                print(f"    {', '.join(wrong)}: {text!r}"[:200])
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strings", type=int, default=200_000, help="per family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", help="only this kind")
    parser.add_argument("--file", default="", help="only files whose path has this in it")
    parser.add_argument(
        "--patterns", type=Path, help="a byte-level vocabulary to read under every named pattern"
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of vocabularies, instead of the reference data")
    args = parser.parse_args()
    shared = unpacked()
    if shared is None or golden() is None:
        print("the reference data is not there (tests/reference_data.py)")
        return 4
    lines = texts_of(shared / "tokenizers")
    folder = args.folder or shared / "tokenizers"
    made = tempfile.TemporaryDirectory()
    if args.patterns:
        folder = Path(made.name)
        write_patterns(args.patterns, folder)
    total = 0
    for kind, found in sorted(vocabularies(folder).items()):
        files = [f for f in found if args.file in str(f[0])]
        if args.family not in (None, kind) or not files:
            continue
        each = -(-args.strings // len(files))
        print(f"{kind}: {each} strings for each of {len(files)} vocabularies", flush=True)
        for path, peer in files:
            started = time.perf_counter()
            bad = compare(path, peer, each, args.seed, lines)
            total += bad
            took = time.perf_counter() - started
            print(f"  {bad:>6} differ  {path.relative_to(folder)}  ({took:.0f} s)", flush=True)
    made.cleanup()
    return 5 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""One library with one vocabulary, in a process of its own: what benchmarks/tokenizers.py alternates between.

usage: python tokenizer_peers.py LIBRARY VOCABULARY DATA, then one JSON request a line on stdin: {"case", "text",
"reload", "cores"}. The answer is seconds and a digest of the ids, or {"missing": why}.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for variable in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "2" if "--threads" in sys.argv else "1")

import numpy as np  # noqa: E402 - after the thread counts

# vocabulary: (family, file, name of the pattern of a .tiktoken file)
VOCABULARIES = {
    "gpt2": ("bpe", "kitoken/models/tokenizers/gpt2.json", ""),
    "cl100k": ("bpe", "kitoken/models/tiktoken/cl100k_base.tiktoken", "cl100k_base"),
    "o200k": ("bpe", "kitoken/models/tiktoken/o200k_base.tiktoken", "o200k_base"),
    "llama3": ("bpe", "tiktoken/llama3_tokenizer.model", "llama3"),
    "qwen2": ("bpe", "tiktoken/qwen.tiktoken", "qwen"),
    "llama2": ("spm", "kitoken/models/tokenizers/llama2.json", ""),
    "llama2.model": ("spm", "../models/llama-tokenizer/tokenizer.model", ""),
    "xlnet": ("unigram", "kitoken/models/tokenizers/xlnet_base_cased.json", ""),
    "xlnet.model": ("unigram", "kitoken/models/sentencepiece/xlnet_base_cased.model", ""),
    "t5.model": ("unigram", "kitoken/models/sentencepiece/nai-t5.model", ""),
    "bert": ("wordpiece", "bert/bert-base-uncased/tokenizer.json", ""),
    "bert-cased": ("wordpiece", "bert/bert-base-cased/tokenizer.json", ""),
    "rwkv": ("rwkv", "rwkv/rwkv_vocab_v20230424.txt", ""),
}
LATIN = ("wikitext2_valid.txt", "kitoken_bench/pride_and_prejudice.txt", "code_cpp.txt", "code_python.txt")
DOCUMENT = 2000  # characters of one document


def ranks_of(path: Path) -> dict[bytes, int]:
    lines = (line.split() for line in path.read_bytes().splitlines() if line.strip())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def as_tokenizer_json(path: Path, pattern: str) -> str:
    """A .tiktoken file as tokenizer.json: merges are all splits of each token, in order of rank."""
    from tokamak.tokenizers.bpe import BYTE_TO_CHAR

    ranks = ranks_of(path)
    written = {token: "".join(BYTE_TO_CHAR[b] for b in token) for token in ranks}
    merges = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [(ranks[a], ranks[b], written[a], written[b]) for a, b in cuts if a in ranks and b in ranks]
        merges += [[a, b] for _, _, a, b in sorted(known)]
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {
        "type": "BPE",
        "ignore_merges": True,
        "merges": merges,
        "fuse_unk": False,
        "byte_fallback": False,
    }
    model["vocab"] = {written[t]: r for t, r in ranks.items()}
    nothing = dict.fromkeys(("truncation", "padding", "normalizer", "dropout", "unk_token"))
    return json.dumps(
        {
            "version": "1.0",
            **{k: nothing[k] for k in ("truncation", "padding", "normalizer")},
            "added_tokens": [],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": None,
            "decoder": level,
            "model": model | {"dropout": None, "unk_token": None},
        }
    )


class Tokamak:
    def __init__(self, path: Path, family: str, json_path: str) -> None:
        from tokamak import Tokenizer

        del family, json_path
        tok = self.tok = Tokenizer.load(path)
        self.array = lambda s: tok.encode_array(s, False, False)
        self.list = lambda s: tok.encode(s, False, False)
        self.batch = lambda texts: tok.encode_batch(texts, threads=2, add_special=False).ids
        self.decode = tok.decode


class HuggingFace:
    def __init__(self, path: Path, family: str, json_path: str) -> None:
        import tokenizers

        del path, family
        tok = tokenizers.Tokenizer.from_file(json_path)
        if hasattr(tok, "encode_batch_fast"):
            self.list = lambda s: tok.encode(s, add_special_tokens=False).ids
            self.batch = lambda texts: [e.ids for e in tok.encode_batch_fast(texts, add_special_tokens=False)]
        else:
            self.list = lambda s: tok.encode(s, add_special_tokens=False).ids
            self.array = lambda s: tok.encode(s, add_special_tokens=False).ids_array
            self.batch = lambda texts: [
                e.ids_array for e in tok.encode_batch(texts, add_special_tokens=False)
            ]
        self.decode = tok.decode


class Tiktoken:
    def __init__(self, path: Path, family: str, _json: str) -> None:
        import tiktoken

        if path.suffix == ".json" or family != "bpe":
            raise LookupError("needs ranks")
        enc = tiktoken.Encoding(
            path.stem, pat_str=pattern_of(path), mergeable_ranks=ranks_of(path), special_tokens={}
        )
        self.list = enc.encode_ordinary
        self.array = lambda s: enc.encode_to_numpy(s, disallowed_special=())
        self.batch = lambda texts: enc.encode_ordinary_batch(texts, num_threads=2)
        self.decode = enc.decode


class SentencePiece:
    def __init__(self, path: Path, family: str, _json: str) -> None:
        import sentencepiece

        if path.suffix != ".model" or family not in ("spm", "unigram"):
            raise LookupError("needs a .model")
        p = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.list = p.encode
        self.batch = lambda texts: p.encode(texts, num_threads=2)
        self.decode = p.decode


class Gigatoken:
    def __init__(self, path: Path, family: str, json_path: str) -> None:
        import gigatoken

        source = path if path.suffix == ".model" and family == "spm" else json_path
        load = gigatoken.Tokenizer.from_sentencepiece if source is path else gigatoken.Tokenizer
        tok = load(str(source))
        self.array = tok.encode
        self.list = lambda s: tok.encode(s).tolist()
        self.batch = tok.encode_batch
        self.decode = lambda ids: tok.decode(ids).decode("utf-8", "replace")


class Fastokens:
    def __init__(self, path: Path, family: str, json_path: str) -> None:
        from fastokens import _native

        del path, family
        tok = _native.Tokenizer.from_file(json_path)
        self.list = lambda s: tok.encode_ordinary(s).ids
        self.array = lambda s: np.frombuffer(tok.encode_batch_flat([s])[0], np.uint32)
        self.batch = lambda texts: np.frombuffer(tok.encode_batch_flat(texts)[0], np.uint32)
        self.decode = tok.decode


class Splintr:
    def __init__(self, path: Path, family: str, json_path: str) -> None:
        import splintr

        del path, family
        tok = splintr.from_json(json_path)
        self.list = tok.encode_raw
        self.array = lambda s: np.frombuffer(tok.encode_flat(s), np.uint32)
        self.batch = tok.encode_batch
        self.decode = tok.decode


class Quicktok:
    def __init__(self, path: Path, family: str, _json: str) -> None:
        import quicktok

        del family
        names = {"cl100k_base": "cl100k_base", "o200k_base": "o200k_base"}
        if path.stem not in names:
            raise LookupError("brings its own vocabularies only")
        tok = quicktok.get_encoding(names[path.stem])
        self.list = tok.encode_ordinary
        self.array = lambda s: tok.encode_batch([s], threads=1)[0]
        self.batch = lambda texts: tok.encode_batch(texts, threads=2)[0]
        self.decode = tok.decode


class Tokie:
    def __init__(self, path: Path, family: str, json_path: str) -> None:
        import tokie

        del path, family
        tok = tokie.Tokenizer.from_json(json_path)
        self.list = lambda s: tok.encode(s, add_special_tokens=False).ids
        self.array = lambda s: tok.encode_batch_flat([s], add_special_tokens=False)[0]
        self.batch = lambda texts: tok.encode_batch_flat(texts, add_special_tokens=False)[0]
        self.decode = tok.decode


class Kitoken:
    def __init__(self, path: Path, family: str, _json: str) -> None:
        import kitoken

        load = {".json": "from_tokenizers_file", ".tiktoken": "from_tiktoken_file"}.get(path.suffix)
        load = load or ("from_sentencepiece_file" if family != "bpe" else "from_tiktoken_file")
        tok = getattr(kitoken.Kitoken, load)(str(path))
        self.list = lambda s: tok.encode(s, False)
        self.decode = tok.decode


class Nanotoken:
    def __init__(self, _path: Path, family: str, json_path: str) -> None:
        import nanotoken

        if family != "wordpiece":
            raise LookupError("WordPiece only")
        tok = nanotoken.WordPieceTokenizer.from_json(Path(json_path).read_bytes())
        self.array = lambda s: tok.encode(s, add_special_tokens=False)
        self.list = lambda s: tok.encode(s, add_special_tokens=False).tolist()
        self.batch = lambda texts: tok.encode_batch(texts, add_special_tokens=False)[0]
        self.decode = tok.decode


class Rwkv:
    def __init__(self, _path: Path, family: str, _json: str, module: str) -> None:
        if family != "rwkv":
            raise LookupError("RWKV only")
        tok = __import__(module).RWKVTokenizer()
        self.list = tok.encode
        self.decode = tok.decode
        if hasattr(tok, "encode_batch"):
            self.batch = tok.encode_batch


LIBRARIES = {
    "tokamak": Tokamak,
    "tokenizers": HuggingFace,
    "tokenizers-1": HuggingFace,
    "tiktoken": Tiktoken,
    "sentencepiece": SentencePiece,
    "gigatoken": Gigatoken,
    "fastokens": Fastokens,
    "splintr": Splintr,
    "quicktok": Quicktok,
    "tokie": Tokie,
    "kitoken": Kitoken,
    "nanotoken": Nanotoken,
    "pyrwkv_tokenizer": lambda *a: Rwkv(*a, module="pyrwkv_tokenizer"),
    "rwkv_tokenizer": lambda *a: Rwkv(*a, module="rwkv_tokenizer"),
}


def pattern_of(path: Path) -> str:
    from tokamak.tokenizers.files.tiktoken import PUBLISHED

    return PUBLISHED[hashlib.sha256(path.read_bytes()).hexdigest()].pattern


def texts_of(name: str, data: Path) -> str:
    """The text of a column, at most 1 MB."""
    corpora = data / "corpora"
    if name in ("zh", "ja"):  # from the declarations in every language: no corpus of these is there
        mark = range(0x4E00, 0x9FFF) if name == "zh" else range(0x3040, 0x30FF)
        lines = (corpora / "udhr_all.txt").read_text("utf-8").splitlines()
        return "\n".join(s for s in lines if len(s) > 4 and sum(ord(c) in mark for c in s) > len(s) * 0.3)
    if name.startswith("run-"):
        r = random.Random(1)
        kinds = {
            "a": "a",
            "letters": "abcdefghijklmnopqrstuvwxyz",
            "base64": "".join(map(chr, range(43, 123))),
        }
        kinds |= {
            "han": "".join(map(chr, range(0x4E00, 0x5E00))),
            "emoji": "".join(map(chr, range(0x1F600, 0x1F640))),
        }
        return "".join(r.choices(kinds[name[4:]], k=100_000))
    names = {"en": LATIN[0], "novel": LATIN[1], "cpp": LATIN[2], "py": LATIN[3], "md": "docs_md.txt"}
    names |= {"ko": "ud_korean.txt", "ru": "ud_russian.txt", "ar": "ud_arabic.txt", "hi": "ud_hindi.txt"}
    names |= {"th": "ud_thai.txt", "udhr": "udhr_all.txt"}
    return (corpora / names[name]).read_text("utf-8", "replace")[:1_000_000]


def documents(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


class Worker:
    def __init__(self, library: str, vocabulary: str, data: Path) -> None:
        self.family, file, _ = VOCABULARIES[vocabulary]
        self.path, self.data, self.make = data / file, data, LIBRARIES[library]
        self.json_path = str(self.path)
        if self.family == "bpe" and self.path.suffix != ".json":
            made = Path(tempfile.gettempdir()) / f"tokamak-bench-{vocabulary}.json"
            if not made.exists():
                from tokamak.tokenizers.patterns import CL100K, LLAMA3

                pattern = pattern_of(self.path)
                pattern = LLAMA3 if pattern == CL100K else pattern  # the same words; peers know it by sight
                made.write_text(as_tokenizer_json(self.path, pattern), encoding="utf-8")
            self.json_path = str(made)
        self.load()

    def load(self) -> None:
        start = time.process_time()
        self.peer = self.make(self.path, self.family, self.json_path)
        self.load_s = time.process_time() - start

    def run(self, case: str, text: str) -> tuple[float, object]:
        """Seconds, and what came out for a digest."""
        if case == "load":
            self.load()
            return self.load_s, []
        whole = texts_of(text, self.data)
        if case == "decode":
            ids = [int(i) for i in self.peer.list(whole[:500_000])]
            start = time.process_time()
            out = self.peer.decode(ids)
            return time.process_time() - start, [len(out or "")]
        if case == "batch":
            docs = documents(whole, DOCUMENT)
            start = time.perf_counter()
            self.peer.batch(docs)
            return time.perf_counter() - start, []
        clock = time.process_time  # of all threads: neighbours on the machine do not count
        sizes = {"short": 100, "short-list": 100, "call": len(whole), "call-list": len(whole)}
        docs = documents(whole, sizes.get(case, DOCUMENT))
        docs = docs[:2000] if case.startswith("short") else docs
        encode = self.peer.list if case.endswith("list") else getattr(self.peer, "array", self.peer.list)
        start = clock()
        out = [encode(d) for d in docs]
        return clock() - start, out


def answer(worker: Worker, request: dict) -> dict:
    os.sched_setaffinity(0, set(request["cores"]))
    try:
        if request.get("reload"):
            worker.load()
            worker.peer.list("Warm up: one line, 1 2 3.")
        seconds, out = worker.run(request["case"], request["text"])
    except AttributeError as e:
        return {"missing": str(e)}
    flat = [int(i) for d in out for i in d] if out and not isinstance(out[0], int) else list(out)
    digest = (
        hashlib.sha256(np.array(flat, np.int64).tobytes()).hexdigest()[:8] if request.get("digest") else ""
    )
    return {"seconds": seconds, "digest": digest}


def main() -> None:
    library, vocabulary, data = sys.argv[1:4]
    try:
        worker = Worker(library, vocabulary, Path(data))
    except Exception as e:  # noqa: BLE001 - whatever a peer raises means that it cannot do this vocabulary
        print(json.dumps({"missing": f"{type(e).__name__}: {e}"[:200]}), flush=True)
        return
    print(json.dumps({"load_s": worker.load_s}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

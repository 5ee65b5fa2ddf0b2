"""Whether tiktoken's ids are the tokenizer's, tried out: every character, every short string, real and random text."""

import itertools
import json
import random
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ir3de.serving.byte_pairs import BytePairs, NoBytePairs, byte_of_character
from ir3de.serving.text import ReferenceReader, TextReader, TiktokenReader, installed_versions

_ALPHABET, _LENGTH = "as1 \n\t!'É", 5
_SURROGATES = range(0xD800, 0xE000)
# Every code point of the planes that alphabets are in; of ideographs, private use and empty planes, whose classes are
# given to thousands in a row, one in some.
_CODE_POINTS = [
    *range(0x20000), *range(0x20000, 0x40000, 7), *range(0x40000, 0xE0000, 97), *range(0xE0000, 0xE1000),
    *range(0xE1000, 0x110000, 97),
]  # fmt: skip
_CONTEXTS = (("a", "a"), (" ", "1"), ("!", " "), ("'", "s"))
_AWKWARD = (" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "'s", "'LL", "don't", "\u0663", "½")
_AT_ONCE = 4096
_CORPUS_BYTES = 2_000_000


def check_same_ids(tokenizer: Tokenizer, pairs: BytePairs) -> dict[str, Any]:
    """Return what was tried, with its amounts; everything had the same ids.

    Raises:
        NoBytePairs: if a text had others; it is shown.
    """
    definition = json.loads(tokenizer.to_str())
    reference = ReferenceReader(lambda: tokenizer)
    candidate = TiktokenReader(**vars(pairs), reference=reference)
    strings = check_pieces(tokenizer, pairs.pattern)
    check_characters(definition["pre_tokenizer"], pairs.pattern)
    texts = [*corpus(), *vocabulary_texts(tokenizer), *random_texts(list(pairs.special))]
    compare(reference, candidate, texts)
    return {
        "characters": len(_CODE_POINTS),
        "short strings": strings,
        "texts": len(texts),
        "text characters": sum(len(text) for text in texts),
        "versions": installed_versions(),
    }


def compare(reference: TextReader, candidate: TextReader, texts: Sequence[str]) -> None:
    """Compare the ids of some texts.

    Raises:
        NoBytePairs: if they differ; the first text is shown.
    """
    for first in range(0, len(texts), _AT_ONCE):
        part = texts[first : first + _AT_ONCE]
        for text, ours, theirs in zip(part, reference.encode_many(part), candidate.encode_many(part), strict=True):
            if not np.array_equal(ours, theirs):
                raise NoBytePairs(f"tiktoken reads {_shown(text, ours, theirs)!r} otherwise")


def check_pieces(tokenizer: Tokenizer, pattern: str) -> int:
    """Compare the pieces of every short string over an alphabet with all kinds of characters; return how many.

    With every such string as a token of its own, tiktoken's ids are the pieces.

    Raises:
        NoBytePairs: if a string is cut otherwise.
    """
    byte = byte_of_character()
    strings = [
        "".join(letters) for length in range(1, _LENGTH + 1) for letters in itertools.product(_ALPHABET, repeat=length)
    ]
    ranks = {bytes([value]): value for value in range(256)}
    ranks |= {text.encode(): 256 + i for i, text in enumerate(strings)}
    reference = ReferenceReader(lambda: tokenizer)
    pieces = TiktokenReader(
        pattern=pattern, ranks=ranks, special={}, vocab_size=max(ranks.values()) + 1, reference=reference
    )
    for text in strings:
        cut = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        expected = [ranks[bytes(byte[character] for character in piece)] for piece, _ in cut]
        if pieces.encode(text).tolist() != expected:
            raise NoBytePairs(f"tiktoken cuts {text!r} into other pieces")
    return len(strings)


def check_characters(pre_tokenizer: Mapping[str, Any], pattern: str) -> None:
    """Compare how every character is taken: as a letter, a number, a space or another.

    By byte pairs that join whatever is in one piece of an ASCII character and its neighbour, on either side.

    Raises:
        NoBytePairs: if a character is taken otherwise, for example by another version of Unicode.
    """
    character = {value: letter for letter, value in byte_of_character().items()}
    ascii_, high = range(128), range(128, 256)
    joined = [*itertools.product(ascii_, high), *itertools.product(high, ascii_), *itertools.product(ascii_, ascii_)]
    merges = [[character[a], character[b]] for a, b in joined]
    vocabulary = {letter: value for value, letter in character.items()}
    vocabulary |= {a + b: 256 + i for i, (a, b) in enumerate(merges)}
    definition: dict[str, Any] = {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": pre_tokenizer,
        "post_processor": None, "decoder": None, "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }  # fmt: skip
    made = Tokenizer.from_str(json.dumps(definition))
    probe = ReferenceReader(lambda: made)
    ranks = {bytes([value]): value for value in range(256)}
    ranks |= {bytes(pair): 256 + i for i, pair in enumerate(joined)}
    candidate = TiktokenReader(pattern=pattern, ranks=ranks, special={}, vocab_size=len(ranks), reference=probe)
    compare(probe, candidate, list(_characters_in_contexts()))


def corpus() -> list[str]:
    """Return real text that every installation has: files of the standard library."""
    texts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
        size += len(texts[-1])
        if size > _CORPUS_BYTES:
            break
    return texts


def vocabulary_texts(tokenizer: Tokenizer, *, texts: int = 3000, tokens: int = 40) -> list[str]:
    """Return texts of tokens that are drawn from the whole vocabulary, so from all of its languages."""
    draw = random.Random(0)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    rows = [[draw.randrange(size) for _ in range(tokens)] for _ in range(texts)]
    return tokenizer.decode_batch(rows, skip_special_tokens=False)


def random_texts(special: Sequence[str], *, texts: int = 3000) -> list[str]:
    """Return random Unicode: characters of a few blocks at a time, white space, quotes and added tokens."""
    draw = random.Random(1)
    made = []
    for _ in range(texts):
        block = draw.randrange(0x110000 - 300)
        parts = []
        for _ in range(draw.randrange(1, 60)):
            near, anywhere, ascii_ = block + draw.randrange(300), draw.choice(_CODE_POINTS), draw.randrange(32, 127)
            characters = [chr(point) for point in (near, anywhere, ascii_) if point not in _SURROGATES]
            added = draw.choice(special) if special and draw.random() < 0.2 else "word"
            parts.append(draw.choice([*characters, draw.choice(_AWKWARD), added]))
        made.append("".join(parts))
    return made


def _characters_in_contexts() -> Iterator[str]:
    points = [point for point in _CODE_POINTS if point not in _SURROGATES]
    for first in range(0, len(points), 256):
        part = [chr(point) for point in points[first : first + 256]]
        for before, after in _CONTEXTS:
            yield "".join(f"b{before}{character}{after}b\n" for character in part)


def _shown(text: str, ours: Iterable[int], theirs: Iterable[int]) -> str:
    same = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(ours, theirs, strict=False)))
    return f"{text[:40]} (from token {same})"

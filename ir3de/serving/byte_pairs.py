"""When a tokenizer's merges can be left to tiktoken: byte-level BPE, what it must be like, and why that is enough.

tiktoken knows no merges: it joins the two neighbours whose concatenation has the lowest rank, wherever that is a token.
The tokenizer joins by its list of merges. Within a piece both do the same if
(1) every token that tiktoken is given is what the tokenizer makes of that token's own bytes, and
(2) the merges that make them are in the order of their ids.
Look at the first step where they would differ: tiktoken joins A and B to a token t that the tokenizer would not join.
What stands between the outer ends of A and B has been joined without a look beyond them, so it is a state of the
tokenizer's own way through t's bytes; by (1) that way ends in t, and the one state of two parts that it has is the last
but one. So A and B are what the tokenizer joins to t, and by (2) in the same turn. What remains is where pieces begin
and end: ``ir3de.serving.same_ids`` tries it out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_SINGLE_DIGITS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
_PLAIN: dict[str, Any] = {
    "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
    "byte_fallback": False,
}  # fmt: skip


@dataclass(frozen=True)
class BytePairs:
    """What tiktoken is made from: the pattern of pieces, the tokens' bytes with their ids, and the added tokens.

    A byte that the tokenizer has no token for, and drops, has an id from ``vocab_size`` upwards, so that it shows.
    """

    pattern: str
    ranks: dict[bytes, int]
    special: dict[str, int]
    vocab_size: int


class NoBytePairs(ValueError):
    """A tokenizer's merges cannot be left to tiktoken, for the reason that the message gives."""


def byte_pairs(tokenizer: Tokenizer) -> BytePairs:
    """Return the byte pairs of ``tokenizer``.

    Raises:
        NoBytePairs: if tiktoken could read some text otherwise.
    """
    definition = json.loads(tokenizer.to_str())
    model = definition["model"]
    if model["type"] != "BPE":
        raise NoBytePairs(f"its model is {model['type']}, not byte pairs")
    odd = [key for key, plain in _PLAIN.items() if (model.get(key) or plain) != plain]
    if odd:
        raise NoBytePairs(f"its byte pairs have {', '.join(odd)}")
    if definition["normalizer"] is not None:
        raise NoBytePairs(f"it changes the text first ({definition['normalizer']['type']})")
    pattern = _pattern(definition["pre_tokenizer"])
    special = _special(definition["added_tokens"])
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    ranks = _ranks(tokenizer, definition, special)
    absent = sorted({bytes([value]) for value in range(256)} - ranks.keys())
    return BytePairs(pattern, ranks | {byte: vocab_size + i for i, byte in enumerate(absent)}, special, vocab_size)


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        raise NoBytePairs("its pieces are not bytes as they stand in the text")
    match [step["type"] for step in steps[:-1]]:
        case [] if last["use_regex"]:
            return _GPT2
        case ["Digits"] if last["use_regex"] and steps[0]["individual_digits"]:
            return _GPT2_SINGLE_DIGITS
        case ["Split"] if not last["use_regex"]:
            step = steps[0]
            if "Regex" in step["pattern"] and step["behavior"] == "Isolated" and not step["invert"]:
                return str(step["pattern"]["Regex"])
    raise NoBytePairs(f"its pieces are made by {' and '.join(step['type'] for step in steps)}")


def _special(added: list[dict[str, Any]]) -> dict[str, int]:
    odd = [one["content"] for one in added if one["single_word"] or one["lstrip"] or one["rstrip"]]
    special = {one["content"]: one["id"] for one in added}
    odd += [a for a in special for b in special if a != b and b.startswith(a)]
    if odd:
        raise NoBytePairs(f"its added token {odd[0]!r} is found by rules that tiktoken does not have")
    return special


def _ranks(tokenizer: Tokenizer, definition: Mapping[str, Any], special: Mapping[str, int]) -> dict[bytes, int]:
    model = definition["model"]
    whole_first = model.get("ignore_merges", False)  # as tiktoken does; the merges are tried without
    merging = _without_whole_pieces(definition) if whole_first else tokenizer
    byte = byte_of_character()
    made: dict[str, int] = {}
    for token, index in model["vocab"].items():
        if token in special or not set(token) <= byte.keys():
            continue
        if [part.id for part in merging.model.tokenize(token)] == [index]:
            made[token] = index
        elif whole_first:
            raise NoBytePairs(f"its token {token!r} is a whole piece, but no product of its merges")
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    order = [made[a + b] for a, b in pairs if a + b in made]
    if any(first > second for first, second in pairwise(order)):
        raise NoBytePairs("its merges are not in the order of its ids")
    return {bytes(byte[character] for character in token): index for token, index in made.items()}


def _without_whole_pieces(definition: Mapping[str, Any]) -> Tokenizer:
    model = {**definition["model"], "ignore_merges": False}
    return Tokenizer.from_str(json.dumps({**definition, "model": model}))


def byte_of_character() -> dict[str, int]:
    """Return the byte that each character of byte-level tokens stands for: itself where it can be printed."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + i): value for i, value in enumerate(others)}

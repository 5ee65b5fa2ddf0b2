"""Text to token ids: by the reference tokenizer, or by tiktoken where its ids are known to be the same."""

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # loaded when it is needed: it takes a tenth of a second
    from tokenizers import Tokenizer

Array = np.ndarray
_NO_SPECIAL: frozenset[str] = frozenset()


class TextReader(Protocol):
    """Reads text as ``ir3de.pretrained.tokenizer.TextTokenizer`` does: no special tokens added, nothing cut."""

    name: str  # of the package that reads

    def encode(self, text: str) -> Array:
        """Return the token ids of one text."""

    def try_encode(self, text: str) -> Array:
        """Return the token ids of one text; if one is out of range, ``encode`` has to be asked."""

    def encode_many(self, texts: Sequence[str]) -> list[Array]:
        """Return the token ids of each text."""


class ReferenceReader:
    """The tokenizer itself, which ``load`` returns when it is first needed."""

    name = "tokenizers"

    def __init__(self, load: Callable[[], "Tokenizer"]) -> None:
        self._load = load

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer."""
        return self._load()

    def encode(self, text: str) -> Array:
        return self.encode_many([text])[0]

    try_encode = encode

    def encode_many(self, texts: Sequence[str]) -> list[Array]:
        clean = [without_surrogates(text) for text in texts]
        encoded = self.tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        return [np.asarray(one.ids, dtype=np.int64) for one in encoded]

    def encode_with_offsets(self, text: str) -> tuple[Array, list[tuple[int, int]]]:
        """Return a text's token ids and the characters that each stands for, from and to."""
        encoded = self.tokenizer.encode(without_surrogates(text), add_special_tokens=False)
        return np.asarray(encoded.ids, dtype=np.int64), encoded.offsets


class TiktokenReader:
    """tiktoken on the tokenizer's own merges; see ``ir3de.serving.byte_pairs`` for what it is made from.

    The ids of a text come as one buffer, uint32: no Python object is made for any of them.

    Raises:
        ImportError: if tiktoken is not installed.
    """

    name = "tiktoken"

    def __init__(
        self,
        *,
        pattern: str,
        ranks: dict[bytes, int],
        special: dict[str, int],
        vocab_size: int,
        reference: ReferenceReader,
    ) -> None:
        import tiktoken  # noqa: PLC0415 - optional, and the reference tokenizer does without

        self.reference = reference
        self._vocab_size = vocab_size
        self._added = frozenset(special)
        self._first = "".join({token[0] for token in special})
        # Without any special token an encoding looks for the empty string at every character: it gets one, unused.
        some = special or {"\ue000unused": max(ranks.values()) + 1}
        encoding = tiktoken.Encoding("ir3de", pat_str=pattern, mergeable_ranks=ranks, special_tokens=some)
        self._to_numpy = encoding.encode_to_numpy

    def encode(self, text: str) -> Array:
        ids_T = self.try_encode(text)
        return self.reference.encode(text) if len(ids_T) and ids_T.max() >= self._vocab_size else ids_T

    def try_encode(self, text: str) -> Array:
        allowed = _NO_SPECIAL
        for character in self._first:
            if character in text:
                allowed = self._added
        try:
            return self._to_numpy(text, allowed_special=allowed, disallowed_special=())
        except UnicodeEncodeError:  # half of a surrogate pair
            return self.try_encode(without_surrogates(text))
        except ValueError:  # more white space than its regular expressions have stack for
            return self.reference.encode(text)

    def encode_many(self, texts: Sequence[str]) -> list[Array]:
        return [self.encode(text) for text in texts]


def installed_versions() -> dict[str, str | None]:
    """Return the versions of what reads text, which a check of equal ids holds for; ``None`` where one is missing."""
    found: dict[str, str | None] = {}
    for name in ("tiktoken", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def without_surrogates(text: str) -> str:
    """Return ``text`` with what is no character (half of a surrogate pair) as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def pack_ranks(ranks: dict[bytes, int]) -> dict[str, Array]:
    """Return ranks as arrays: the tokens' bytes one after the other, their lengths, and their ids."""
    tokens = sorted(ranks, key=ranks.__getitem__)
    return {
        "bytes": np.frombuffer(b"".join(tokens), dtype=np.uint8),
        "lengths": np.array([len(token) for token in tokens], dtype=np.int32),
        "ids": np.array([ranks[token] for token in tokens], dtype=np.int32),
    }


def unpack_ranks(arrays: dict[str, Any]) -> dict[bytes, int]:
    """Return what ``pack_ranks`` packed.

    Raises:
        ValueError: if two tokens have one id, or it is nothing that was packed.
    """
    if len(np.unique(arrays["ids"])) != len(arrays["ids"]):
        raise ValueError("two tokens have the same id")  # tiktoken would panic, which is no Exception
    content = arrays["bytes"].tobytes()
    ends = np.cumsum(arrays["lengths"]).tolist()
    begins = [0, *ends[:-1]]
    return {content[a:b]: i for a, b, i in zip(begins, ends, arrays["ids"].tolist(), strict=True)}

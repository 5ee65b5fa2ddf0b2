"""Token ids become text as they come: whole characters only, and nothing of a stop string or beyond it."""

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_BEFORE = 8  # tokens of the prompt that tell whether the first piece begins with a space


def text_pieces(
    tokens: Iterable[int], tokenizer: Tokenizer, *, stops: Sequence[str], prompt: Sequence[int] = ()
) -> Iterator[tuple[str, bool]]:
    """Yield, for each token, the text that is ready and whether a stop string ended it; special tokens have no text.

    The text goes on with ``prompt``, and ends before the first of ``stops``; what may be the beginning of one waits
    until that is known. What waits at the end comes as one more piece.
    """
    decoder = DecodeStream(list(prompt[-_BEFORE:]), skip_special_tokens=True)
    held = ""
    for token in tokens:
        held += decoder.step(tokenizer, token) or ""
        places = [held.index(stop) for stop in stops if stop in held]
        if places:
            yield held[: min(places)], True
            return
        ready = len(held) - max((_overlap(held, stop) for stop in stops), default=0)
        yield held[:ready], False
        held = held[ready:]
    if held:
        yield held, False


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest beginning of ``stop`` that ``text`` ends with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)

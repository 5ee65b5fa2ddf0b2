"""Token ids become text as they come: whole characters only, and nothing of a stop string or beyond it."""

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer

_BEFORE = 8  # tokens of the prompt that tell whether the first piece begins with a space
_PART = "\ufffd"  # what a part of a character is decoded as


def text_pieces(
    tokens: Iterable[int], tokenizer: Tokenizer, *, stops: Sequence[str], prompt: Sequence[int] = ()
) -> Iterator[tuple[str, bool]]:
    """Yield, for each token, the text that is ready and whether a stop string ended it; special tokens have no text.

    The text goes on with ``prompt``, and ends before the first of ``stops``; what may be the beginning of one waits
    until that is known. What waits at the end comes as one more piece.
    """
    held = ""
    for text in _decoded(tokens, tokenizer, prompt[-_BEFORE:]):
        held += text
        places = [held.index(stop) for stop in stops if stop in held]
        if places:
            yield held[: min(places)], True
            return
        ready = len(held) - max((_overlap(held, stop) for stop in stops), default=0)
        yield held[:ready], False
        held = held[ready:]
    if held:
        yield held, False


def _decoded(tokens: Iterable[int], tokenizer: Tokenizer, before: Sequence[int]) -> Iterator[str]:
    """Yield the text that each token adds: nothing for a part of a character, and its last part adds it whole.

    tokenizers' ``DecodeStream`` does the same, but raises where a byte of a broken character changes the text of the
    bytes before it, as it does with byte fallback.
    """
    window = list(before)  # the tokens whose text was added last, and those that wait
    done, added = len(window), tokenizer.decode(window)
    for token in tokens:
        window.append(token)
        text = tokenizer.decode(window)
        if len(text) <= len(added) or text.endswith(_PART):
            yield ""
            continue
        yield text[len(added) :]
        window = window[done:]
        done, added = len(window), tokenizer.decode(window)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest beginning of ``stop`` that ``text`` ends with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)

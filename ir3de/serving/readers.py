"""What reads the text of a compiled router: made from its files, or kept of a router before with the same tokenizer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ir3de.serving.artifact import CompiledFiles
from ir3de.serving.text import ReferenceReader, TextReader, TiktokenReader, installed_versions, unpack_ranks

_TOKENIZER, _RANKS = "tokenizer.json", ("ranks_bytes", "ranks_lengths", "ranks_ids")
_FILES = (_TOKENIZER, *(f"{name}.npy" for name in _RANKS))


class Readers(NamedTuple):
    """What reads text, the reference tokenizer beside it, and why text is not read by tiktoken, if it is not."""

    reader: TextReader
    reference: ReferenceReader
    not_fast: str | None


def load_readers(files: CompiledFiles) -> Readers:
    """Return what reads the text of the compiled router in ``files``.

    Raises:
        ValueError: if a file that it takes is not named there, or nothing can be made of what they hold.
    """
    definition = files.file(_TOKENIZER)
    reference = ReferenceReader(lambda: _tokenizer(definition.read_bytes()))
    made = files.config["reader"]
    if made["because"] is not None:
        return Readers(reference, reference, made["because"])
    there = installed_versions()
    if there != made["checked"]["versions"]:
        shown = ", ".join(f"{name} {number or 'not installed'}" for name, number in there.items())
        because = f"its ids were checked with other versions than are here ({shown}): compile again"
        return Readers(reference, reference, because)
    pairs = {key: made[key] for key in ("pattern", "special", "vocab_size")}
    arrays = {name.removeprefix("ranks_"): files.array(name) for name in _RANKS}
    try:
        reader = TiktokenReader(ranks=unpack_ranks(arrays), reference=reference, **pairs)
    except ValueError as error:
        raise ValueError(
            f"What reads text in `{files.folder}` was changed ({error}). Compile the router again."
        ) from error
    return Readers(reader, reference, None)


def same_readers(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two compiled routers, of which these are the configs, read text alike, by the files' hashes."""
    files, others = config["files"], other["files"]
    return config["reader"] == other["reader"] and all(files.get(name) == others.get(name) for name in _FILES)


def _tokenizer(content: bytes) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415 - not needed beside tiktoken

    return Tokenizer.from_buffer(content)

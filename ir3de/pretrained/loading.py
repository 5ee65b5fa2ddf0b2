"""Tokenizers of published models, through transformers."""

from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ir3de.hub_repositories import check_connection
from ir3de.pretrained.locate import local_path, unreachable
from ir3de.pretrained.sentencepiece_model import SUFFIX, needs_sentencepiece, restore_normalizer
from ir3de.pretrained.tokenizer import TextTokenizer


def load_tokenizer(source: str) -> TextTokenizer:
    """Return the tokenizer of a hub id, a folder, a GGUF file or ``package:NAME``.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if there is no tokenizer to be had, or only one without a definition (a slow one).
    """
    path = local_path(source)
    if path is not None and (path / "text_tokenizer.json").is_file():
        return TextTokenizer.from_folder(path)
    return _load(source, path, path.stat().st_mtime_ns if path is not None else 0)


def load_with_transformers(source: str, path: Path | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer in ``path``, a folder or a GGUF file, or that of the hub id ``source`` where it is ``None``.

    Raises:
        ImportError: if the package that reads it is not installed.
        OSError: if there is none, or the hub is out of reach.
        ValueError: if transformers cannot read it.
    """
    if path is not None and path.is_file():
        loaded = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    else:
        if path is None:
            check_connection(source)
        loaded = AutoTokenizer.from_pretrained(str(path or source))
    found: PreTrainedTokenizerBase = loaded
    return found


@lru_cache(maxsize=8)  # seconds for a GGUF file, and many routers of one process read the same; it never changes
def _load(source: str, path: Path | None, modified: int) -> TextTokenizer:
    try:
        loaded = load_with_transformers(source, path)
    except ImportError as error:
        raise ValueError(f"Reading `{source}` needs the package gguf. Run `pip install 'ir3de[gguf]'`.") from error
    except (OSError, ValueError) as error:
        if needs_sentencepiece(error):
            raise ValueError(
                f"The tokenizer of `{source}` is a SentencePiece model, which the package sentencepiece reads."
                " Run `pip install 'ir3de[sentencepiece]'`."
            ) from error
        where = f"`{path}` holds no tokenizer that transformers can read." if path else unreachable(source)
        raise ValueError(f"{where} ({str(error).splitlines()[0]})") from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(f"The tokenizer of `{source}` has no fast version (tokenizer.json), which is needed here.")
    vocabulary = getattr(loaded, "vocab_file", None)
    if vocabulary is not None and str(vocabulary).endswith(SUFFIX):
        restore_normalizer(backend, Path(vocabulary))
    return TextTokenizer(backend, end_of_text=loaded.eos_token_id)

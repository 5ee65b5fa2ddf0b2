"""Tokenizers of published models, through transformers."""

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ir3de.pretrained.locate import local_path, unreachable
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
    try:
        if path is not None and path.is_file():
            loaded = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        else:
            loaded = AutoTokenizer.from_pretrained(str(path or source))
    except ImportError as error:
        raise ValueError(f"Reading `{source}` needs the package gguf. Run `pip install 'ir3de[gguf]'`.") from error
    except (OSError, ValueError) as error:
        where = f"`{path}` holds no tokenizer that transformers can read." if path else unreachable(source)
        raise ValueError(f"{where} ({str(error).splitlines()[0]})") from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(f"The tokenizer of `{source}` has no fast version (tokenizer.json), which is needed here.")
    return TextTokenizer(backend, end_of_text=loaded.eos_token_id)

"""An expert's tokenizer as transformers has it, with its special tokens and chat template."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ir3de.pretrained.loading import load_with_transformers
from ir3de.pretrained.locate import local_path, unreachable
from ir3de.pretrained.tokenizer import DEFINITION, END_OF_TEXT, TextTokenizer

_FILES = (DEFINITION, "tokenizer_config.json", "tokenizer.model")


def load_expert_tokenizer(source: str, *, fallback: str | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of an expert; ``fallback`` names another one for weights that come without.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if there is no tokenizer to be had, or it has no end of text.
    """
    path = None if source.endswith(".pth") else local_path(source)
    folder = path is not None and path.is_dir()
    if source.endswith(".pth") or (path is not None and folder and not any((path / name).is_file() for name in _FILES)):
        if fallback in (None, "train"):
            raise ValueError(f"The expert `{source}` comes without a tokenizer. Set `data.tokenizer` to its own.")
        assert fallback is not None
        return load_expert_tokenizer(fallback, fallback=None)
    if path is not None and (path / END_OF_TEXT).is_file():
        tokenizer = _of_text(path)
    else:
        tokenizer = _of_transformers(source, path)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer of `{source}` has no end of text, at which an answer could end. Add one to it."
        )
    return tokenizer


def _of_text(folder: Path) -> PreTrainedTokenizerBase:
    text = TextTokenizer.from_folder(folder)
    end = None if text.end_of_text is None else text.backend.id_to_token(text.end_of_text)
    return PreTrainedTokenizerFast(tokenizer_object=text.backend, eos_token=end, clean_up_tokenization_spaces=False)


def _of_transformers(source: str, path: Path | None) -> PreTrainedTokenizerBase:
    try:
        return load_with_transformers(source, path)
    except (OSError, ValueError, ImportError) as error:
        where = unreachable(source) if path is None else f"`{source}` holds no tokenizer that transformers can read."
        raise ValueError(f"{where} ({str(error).splitlines()[0]})") from error

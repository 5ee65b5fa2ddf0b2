"""Tokenizers that come as a SentencePiece model alone (DeBERTa-v3's), with what transformers' conversion leaves out."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

SUFFIX = ".model"


def needs_sentencepiece(error: Exception) -> bool:
    """Return whether a tokenizer could not be read because the package sentencepiece is missing."""
    said = str(error).lower()
    # Without the package, transformers takes the file for one of tiktoken's, and complains about that.
    return find_spec("sentencepiece") is None and any(word in said for word in ("tiktoken", "sentencepiece", SUFFIX))


def restore_normalizer(backend: Tokenizer, model: Path) -> None:
    """Let ``backend`` normalise text as the SentencePiece model it was made of does (NFKC and the like).

    The converted DeBERTa-v2 tokenizer composes characters (NFC) only, so that ``ﬁ`` or ``²`` got other ids than the
    model was trained on.
    """
    if find_spec("sentencepiece") is None:  # then it was not made of the model, but of a tokenizer.json beside it
        return
    from sentencepiece import sentencepiece_model_pb2 as formats  # noqa: PLC0415 - an optional extra

    parsed: Any = formats.ModelProto()  # type: ignore[attr-defined] # made when it is imported
    parsed.ParseFromString(model.read_bytes())
    charsmap = parsed.normalizer_spec.precompiled_charsmap
    if not charsmap or '"Precompiled"' in backend.to_str():
        return
    own = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), *own])

"""A tokenizer that reads text as it is: no special tokens, no truncation, no padding."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from ir3de.files import replace_file

DEFINITION, END_OF_TEXT = "tokenizer.json", "text_tokenizer.json"


class TextTokenizer:
    """Text to token ids, without BOS, EOS, truncation or padding, so that counts are the text's own.

    ``vocab_size`` counts added tokens; ``fingerprint`` is the SHA-256 of the tokenizer's definition, equal for
    a tokenizer and its saved copy. ``end_of_text`` is the id that separates packed documents, where it has one.
    """

    def __init__(self, tokenizer: Tokenizer, *, end_of_text: int | None = None) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.backend = tokenizer
        self.vocab_size: int = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.end_of_text = end_of_text
        definition = json.dumps(json.loads(tokenizer.to_str()), sort_keys=True, ensure_ascii=True)
        self.fingerprint = hashlib.sha256(f"{definition}\n{end_of_text}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of each text, int32."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(one.ids, dtype=np.int32) for one in encoded]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each text, its token ids ``(T,)`` int32 and their character spans ``(T, 2)`` int64."""
        encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.asarray(one.ids, dtype=np.int32), np.asarray(one.offsets, dtype=np.int64).reshape(-1, 2))
            for one in encoded
        ]

    def decode(self, rows: Sequence[np.ndarray]) -> list[str]:
        """Return the text of each row of token ids, without special tokens."""
        return self.backend.decode_batch([row.tolist() for row in rows], skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``text_tokenizer.json`` (the id that ends a text) into ``folder``."""
        for name, content in self.files().items():
            replace_file(folder / name, content)

    def files(self) -> dict[str, bytes]:
        """Return the content of the files that ``save`` writes."""
        return {
            DEFINITION: self.backend.to_str(pretty=True).encode(),
            END_OF_TEXT: json.dumps({"end_of_text": self.end_of_text}).encode(),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Return the tokenizer of ``files``."""
        end = json.loads(files[END_OF_TEXT])["end_of_text"]
        return cls(Tokenizer.from_buffer(files[DEFINITION]), end_of_text=end)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read a tokenizer that ``save`` wrote.

        Raises:
            FileNotFoundError: if the folder holds none.
        """
        if not (folder / DEFINITION).is_file():
            raise FileNotFoundError(f"Expected a tokenizer in `{folder}`, but there is no {DEFINITION}.")
        return cls.from_files({name: (folder / name).read_bytes() for name in (DEFINITION, END_OF_TEXT)})

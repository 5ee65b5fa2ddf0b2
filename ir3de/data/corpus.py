"""The documents of one source on disk, with a hash for each: read once, mapped into memory afterwards."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ir3de.data.sources import Source, TextSource, TokenSource
from ir3de.files import cache_folder

_VERSION = 1  # of what is written here; a new one makes old folders be ignored
_ROWS_PER_BATCH = 2048


@dataclass(frozen=True)
class Corpus:
    """The documents of a source; ``values`` holds strings, or lists of int64 where ``tokenized``.

    ``hashes`` has the SHA-256 of each document with its white space normalised; ``digest`` is that of them all.
    """

    values: pa.ChunkedArray
    hashes: list[bytes]
    digest: str
    tokenized: bool
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.hashes)

    def texts(self, rows: np.ndarray) -> list[str]:
        """Return the text of the given documents."""
        assert not self.tokenized, "token rows have no text"
        return [str(text) for text in self.values.take(pa.array(rows)).to_pylist()]

    def tokens(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the token ids of the given rows, int64."""
        assert self.tokenized, "text has no token ids yet"
        return [np.asarray(value.values.to_numpy(zero_copy_only=False)) for value in self.values.take(pa.array(rows))]


def text_hash(text: str) -> bytes:
    """Return the SHA-256 of a text; runs of white space count as one space."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", errors="surrogatepass")).digest()


def cache_key(*parts: Any) -> str:
    """Return a folder's name that stands for all ``parts`` (values that JSON has)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def read_corpus(source: Source, *, domain: str, cache: Path, announce: Callable[[str], None]) -> Corpus:
    """Return the documents of a source, from the cache if it has been read with these settings and files.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if the source cannot be read, or has no document that is not empty.
    """
    folder = cache / "text" / cache_key(_VERSION, source.identity())
    if not (folder / "meta.json").is_file():
        announce(f"Reading {domain}")
        with cache_folder(folder) as temporary:
            _write(source, domain, temporary)
    meta = json.loads((folder / "meta.json").read_text())
    with pa.memory_map(str(folder / "documents.arrow")) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    if not len(table):
        raise ValueError(
            f"Expected text in the domain `{domain}`, but its source has no document that is not empty"
            f" ({_reasons(meta['left_out'])}). Check its path, field and limits."
        )
    hashes = table["hash"].to_pylist()
    return Corpus(table["value"], hashes, meta["digest"], isinstance(source, TokenSource), meta["left_out"])


def _write(source: Source, domain: str, folder: Path) -> None:
    kind = pa.large_list(pa.int64()) if isinstance(source, TokenSource) else pa.large_string()
    schema = pa.schema([("value", kind), ("hash", pa.binary(32))])
    digest = hashlib.sha256()
    empty = 0
    values: list[Any] = []
    hashes: list[bytes] = []
    with pa.OSFile(str(folder / "documents.arrow"), "wb") as file, pa.ipc.new_file(file, schema) as writer:

        def flush() -> None:
            columns = [pa.array(values, kind), pa.array(hashes, pa.binary(32))]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            values.clear()
            hashes.clear()

        for value, hashed in _hashed(source, domain):
            if hashed is None:
                empty += 1
                continue
            digest.update(hashed)
            values.append(value)
            hashes.append(hashed)
            if len(values) == _ROWS_PER_BATCH:
                flush()
        flush()
    left_out = Counter(source.left_out)
    if empty:
        left_out["empty documents"] = empty
    meta = {"digest": digest.hexdigest(), "left_out": dict(sorted(left_out.items()))}
    (folder / "meta.json").write_text(json.dumps(meta, sort_keys=True))


def _hashed(source: Source, domain: str) -> Iterator[tuple[Any, bytes | None]]:
    """Yield each document with its hash; None for one that is empty."""
    if isinstance(source, TokenSource):
        for row in source.rows():
            yield row, hashlib.sha256(b"tokens" + row.astype("<i8").tobytes()).digest() if len(row) else None
        return
    assert isinstance(source, TextSource), "a source yields text or tokens"
    for number, text in enumerate(source.documents()):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Expected Unicode text in the domain `{domain}`, but its document {number} has half a character"
                f" (a lone surrogate) at {error.start}. Repair that document."
            ) from error
        yield text, text_hash(text) if text.strip() else None


def _reasons(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nothing was left out"

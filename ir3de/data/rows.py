"""The rows of a data file, compressed or in an archive, one after another; memory does not grow with the file."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as arrow_parquet

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
ARCHIVES = (".tar", ".tgz")
_ROWS_AT_ONCE = 256
_NAMES_SHOWN = 10
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.ReadError, pa.ArrowException)


def content_suffix(name: str) -> str:
    """Return the suffix that tells what a file holds, without that of its compression: ``.json`` of ``x.json.gz``."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


def decompressed(stream: IO[bytes], name: str) -> IO[bytes]:
    """Return the content of ``stream``, decompressed as the end of ``name`` says."""
    suffix = Path(name.lower()).suffix
    if suffix in (".gz", ".tgz"):
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if suffix == ".bz2":
        return bz2.BZ2File(stream)
    if suffix == ".xz":
        return lzma.LZMAFile(stream)
    if suffix == ".zst":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"))
    return stream


class _Sequential(io.RawIOBase):
    """A file of an archive that is read from its beginning to its end; the archive's own says so of itself wrongly."""

    def __init__(self, content: IO[bytes]) -> None:
        super().__init__()
        self._content = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._content.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


@contextmanager
def whole(where: str) -> Iterator[None]:
    """Say of a file that ends early, or is no such file, which one it is.

    Raises:
        ValueError: in the place of what the library says.
    """
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(_damaged(where, error)) from error
    except OSError as error:
        if error.errno is not None:  # the machine's own, such as a full disk
            raise
        raise ValueError(_damaged(where, error)) from error


def _damaged(where: str, error: Exception) -> str:
    return f"{where} is damaged or not whole ({error}). Delete it and get it again."


def archive_members(file: Path, pattern: str, where: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each file of a .tar archive whose name matches ``pattern``, in the archive's order.

    Raises:
        ValueError: if the archive is damaged or no name matches.
    """
    found = False
    names: list[str] = []
    with whole(where), file.open("rb") as raw, tarfile.open(fileobj=decompressed(raw, file.name), mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            content = archive.extractfile(member) if member.isfile() and fnmatch(name, pattern) else None
            if content is not None:
                found = True
                yield name, decompressed(io.BufferedReader(_Sequential(content)), name)
            elif len(names) < _NAMES_SHOWN:
                names.append(name)
    if not found:
        raise ValueError(f"Expected a file that matches `{pattern}` in {where}, but it begins with {names}.")


def text_lines(stream: IO[bytes], where: str, *, encoding: str = "utf-8", errors: str = "strict") -> Iterator[str]:
    """Yield the lines of a text without their ends.

    Raises:
        ValueError: if the bytes are not in the encoding.
    """
    try:
        with whole(where):
            for line in io.TextIOWrapper(stream, encoding, errors, newline="\n"):
                yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected {encoding} text in {where}, but a part of it is not: {error}. Set `encoding` to the file's own,"
            " or `encoding_errors: replace` to read it with U+FFFD in such places."
        ) from error


def json_rows(stream: IO[bytes], where: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON lines, or of one JSON array (which is read at once).

    Raises:
        ValueError: if a line is no JSON object.
    """
    with whole(where):
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                if number > 1:
                    raise ValueError(f"Expected a JSON object in line {number} of {where}: {error}.") from error
                row = _one_value(line + stream.read(), where)  # over several lines
            for one in row if isinstance(row, list) else [row]:
                if not isinstance(one, dict):
                    raise ValueError(f"Expected JSON objects in {where}, but line {number} has {type(one).__name__}.")
                yield one


def _one_value(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"Expected JSON lines or one JSON array in {where}: {error}.") from error


def parquet_values(file: Path, field: str, where: str) -> Iterator[Any]:
    """Yield one column of a Parquet file, row group by row group."""
    with whole(where), arrow_parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[field]):
            yield from batch.column(0).to_pylist()

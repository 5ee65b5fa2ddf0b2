"""Where text comes from: the interface of a source, and files of plain text."""

import hashlib
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ir3de.data.rows import COMPRESSIONS, decompressed, text_lines, whole

TEXT_SUFFIXES = (".txt", ".md", ".rst", *(f".txt{compression}" for compression in COMPRESSIONS))


class Source(ABC):
    """Something that yields documents in an order that depends on its content and settings alone.

    ``left_out`` counts, by reason, what the last reading passed over; ``reading`` says what it is at, for a progress
    bar.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.reading = ""

    @abstractmethod
    def check(self) -> None:
        """Refuse, at once and without reading the text, what could not be read later.

        Raises:
            FileNotFoundError: if a path leads nowhere.
            ValueError: if a field or a package is missing.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what tells this reading from another: settings, and size and time of every file or version."""


class TextSource(Source):
    """A source of text."""

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents."""


class TokenSource(Source):
    """A source of text that somebody has already turned into token ids."""

    @abstractmethod
    def rows(self) -> Iterator[np.ndarray]:
        """Yield the token ids of each row, int64."""


class TextFiles(TextSource):
    """A text file, or a folder of them; every file is one document, or every line of it.

    Args:
        path: a file, or a folder that is searched with its subfolders.
        pattern: which files of the folder to read, such as ``**/*.txt``. By default every file whose name ends in
            .txt, .md or .rst, or in .txt.gz, .bz2, .xz or .zst; a single file is read whatever its name.
        encoding: how the bytes are to be read.
        encoding_errors: ``strict`` stops at bytes that the encoding does not have; ``replace`` puts U+FFFD there.
        lines: whether every line is a document; blank lines are passed over.
    """

    def __init__(
        self,
        path: str,
        pattern: str | None = None,
        encoding: str = "utf-8",
        encoding_errors: Literal["strict", "replace"] = "strict",
        lines: bool = False,
    ) -> None:
        super().__init__()
        self.path = path
        self.pattern = pattern
        self.encoding = encoding
        self.encoding_errors = encoding_errors
        self.lines = lines

    def files(self) -> list[Path]:
        """Return the files, sorted by path.

        Raises:
            FileNotFoundError: if the path leads nowhere or the folder has no such file.
        """
        return files_at(self.path, (self.pattern,) if self.pattern else tuple(f"**/*{s}" for s in TEXT_SUFFIXES))

    def check(self) -> None:
        self.files()

    def identity(self) -> dict[str, Any]:
        settings = [self.path, self.pattern, self.encoding, self.encoding_errors, *(["lines"] if self.lines else [])]
        return {"class": "TextFiles", "settings": settings, "files": file_stamps(self.files())}

    def documents(self) -> Iterator[str]:
        self.left_out.clear()
        for file in self.files():
            if not self.lines:
                yield read_text(file, self.encoding, self.encoding_errors)
                continue
            with file.open("rb") as raw:
                lines = text_lines(
                    decompressed(raw, file.name), f"`{file}`", encoding=self.encoding, errors=self.encoding_errors
                )
                yield from not_blank(self, lines)


def not_blank(source: Source, lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines that are not blank; ``source.left_out`` counts the others."""
    for line in lines:
        if line.strip():
            yield line
        else:
            source.left_out["blank lines"] += 1


def known_suffix(name: str, suffixes: tuple[str, ...]) -> str | None:
    """Return the one of ``suffixes`` in which a file's name ends, or None."""
    return next((suffix for suffix in suffixes if name.lower().endswith(suffix)), None)


def files_at(path: str, patterns: tuple[str, ...]) -> list[Path]:
    """Return the file ``path``, or the files of the folder ``path`` that match a pattern, sorted.

    Raises:
        FileNotFoundError: if there is no such path or no such file.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"Expected a file or a folder at `{path}`, but there is none. Check the path.")
    found = {file for pattern in patterns for file in root.glob(pattern) if file.is_file()}
    if not found:
        raise FileNotFoundError(
            f"Expected files that match {' or '.join(patterns)} in the folder `{path}`, but found none."
            " Set `pattern` to the files you mean."
        )
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def file_stamps(files: list[Path]) -> list[list[Any]]:
    """Return path, size in bytes and time of change of each file: what tells that it must be read again."""
    stats = [(file, file.stat()) for file in files]
    return [[str(file.absolute()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def read_text(file: Path, encoding: str, encoding_errors: str) -> str:
    """Return the text of a file.

    Raises:
        ValueError: if its bytes are not in the encoding.
    """
    try:
        with file.open("rb") as raw, whole(f"`{file}`"):
            content = decompressed(raw, file.name).read()
        return io.TextIOWrapper(io.BytesIO(content), encoding, encoding_errors).read()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected {encoding} text in `{file}`, but byte {error.start} is not. Set `encoding` to the file's own,"
            " or `encoding_errors: replace` to read it with U+FFFD in such places."
        ) from error
    except LookupError as error:
        raise ValueError(f"Expected the name of an encoding that Python knows, but got `{encoding}`.") from error


def by_content(files: list[Path]) -> list[Path]:
    """Return the files in the order of their content's hash: any part of the list is a fair sample of it."""
    return [file for _, file in sorted((hashlib.sha256(file.read_bytes()).hexdigest(), file) for file in files)]

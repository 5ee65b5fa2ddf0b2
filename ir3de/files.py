"""Files and folders that are whole or absent: written under a temporary name, then renamed."""

import csv
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any


def check_writable(path: Path, *, option: str, such_as: str) -> None:
    """Refuse a path at which ``replace_file`` can write no file, before the work that would be lost; nothing is made.

    Raises:
        ValueError: if it is a folder, then ``such_as`` is a name in it, or no file can be made there; ``option`` is
            what the user gave the path to.
    """
    if path.is_dir():
        raise ValueError(
            f"Expected `{option}` to be a file to write, but `{path}` is a folder. Name a file in it, such as"
            f" `{path / such_as}`."
        )
    folder = next(parent for parent in path.absolute().parents if parent.exists())  # what is beyond it is made
    try:
        tempfile.TemporaryFile(dir=folder).close()  # rights alone do not tell: nobody can make a file in /proc
    except OSError as error:
        raise ValueError(
            f"Expected `{option} {path}` to be in a folder that can be written, but `{folder}` is none"
            f" ({error.strerror}). Name another one."
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step: a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table in one step; ``None`` is an empty cell."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(columns)
    writer.writerows(rows)
    replace_file(path, table.getvalue().encode())


@contextmanager
def alone_in(folder: Path, *, busy: str | None = None) -> Iterator[None]:
    """Wait for a folder, made if it is not there, until no other process has it this way; then keep others waiting.

    It is let go with the process: one that is killed keeps nobody waiting. A folder that stays empty is removed.

    Raises:
        ValueError: saying ``busy``, if that is given, in the place of waiting.
    """
    handle = None
    while handle is None:
        handle = _lock(folder, busy)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty, or in its place
            folder.rmdir()
        os.close(handle)


def _lock(folder: Path, busy: str | None) -> int | None:
    """Return a handle that holds the lock, or ``None`` where the folder was taken away before it did."""
    import fcntl  # noqa: PLC0415 - not everywhere: what reads needs no lock

    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError), ExitStack() as otherwise:
        handle = os.open(folder, os.O_RDONLY)
        otherwise.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(busy) from error
        if os.path.samestat(os.stat(folder), os.fstat(handle)):
            otherwise.pop_all()
            return handle
    return None


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if path.exists():
            retired = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
            os.replace(path, retired / path.name)
            os.replace(temporary, path)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def cache_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that becomes it, unless another process has made it meanwhile.

    For content that is the same whoever makes it: the first stays, since others may be reading it already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def written(path: Path) -> tuple[int, int, int] | None:
    """Return what differs whenever a file was written; ``None`` if there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size

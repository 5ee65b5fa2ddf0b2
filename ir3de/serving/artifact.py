"""A compiled router's folder: ``compiled.json`` names every other file by its content, so that a change is one rename.

The alarm's files are named there, too: a router and its alarm come and go together. All are read by memory map, with
NumPy alone: nothing here may load torch.
"""

import hashlib
import io
import json
import mmap
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ir3de.files import alone_in, replace_file, written
from ir3de.serving.compiled_config import fault_of

CONFIG, FOLDER = "compiled.json", "compiled"
ALARM = "alarm_"  # what the alarm's files begin with
FORMAT = 2  # 1 had the alarm in a folder of its own
_OURS = re.compile(r"[a-z_]+-[0-9a-f]{16}\.(npy|json)|\.[a-z_]+(-[0-9a-f]{16})?\.(npy|json)\..*")
_ATTEMPTS = 20


class CheckedFile(NamedTuple):
    """A file whose content was checked, and that content, mapped: it stays as it is when the router is replaced."""

    path: Path
    content: mmap.mmap

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self.content[:]

    def array(self) -> np.ndarray:
        """Return the array in the file, read-only, without a copy.

        Raises:
            ValueError: if it holds none.
        """
        try:
            self.content.seek(0)
            if np.lib.format.read_magic(self.content) != (1, 0):
                raise ValueError("another version of the format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(self.content)
            if dtype.hasobject:
                raise ValueError("Python objects")
            order: Literal["F", "C"] = "F" if fortran else "C"
            return np.ndarray(shape, dtype, buffer=self.content, offset=self.content.tell(), order=order)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"Expected an array in `{self.path}`, but got {error}. Compile the router again."
            ) from error


@dataclass(frozen=True)
class CompiledFiles:
    """What a compiled router's folder holds: its ``config``, and its ``files``, checked and mapped."""

    folder: Path
    config: dict[str, Any]
    files: dict[str, CheckedFile]

    def file(self, name: str) -> CheckedFile:
        """Return a file.

        Raises:
            ValueError: if the config does not name it.
        """
        if name not in self.files:
            raise ValueError(
                f"Expected `{self.folder / CONFIG}` to name `{name}`, but it does not. Compile the router again."
            )
        return self.files[name]

    def array(self, name: str) -> np.ndarray:
        """Return one of the arrays, memory-mapped and read-only.

        Raises:
            ValueError: if the config does not name it, or it is no array.
        """
        return self.file(f"{name}.npy").array()


def write_compiled(folder: Path, config: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write a compiled router into ``folder``, over the one that may be there, in one step for its readers.

    It waits for whoever writes there.

    Raises:
        OSError: if it cannot be written; the one that was there is left as it was.
    """
    with alone_in(folder):
        write_alone(folder, config, files)


def write_alone(folder: Path, config: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write a compiled router as ``write_compiled`` does, within ``alone_in`` its folder."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    content = json.dumps({"format": FORMAT, **config, "files": digests}, indent=1, sort_keys=True, ensure_ascii=False)
    try:
        for name, digest in digests.items():
            replace_file(folder / stored_name(name, digest), files[name])
        replace_file(folder / CONFIG, content.encode() + b"\n")
    finally:
        _remove_unnamed(folder)


def read_compiled(folder: Path, *, alarm: bool = True) -> CompiledFiles:
    """Return the compiled router in ``folder``, every file checked; if it is replaced meanwhile, it is read again.

    Without ``alarm`` the alarm's files are left out. It takes no lock: the folder may be one that cannot be written.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file is missing, truncated or changed, or the format is unknown.
    """
    for _ in range(_ATTEMPTS):
        before, config = written(folder / CONFIG), read_config(folder)
        wanted = {
            name: folder / stored_name(name, digest)
            for name, digest in config["files"].items()
            if alarm or not name.startswith(ALARM)
        }
        found = {name: _checked(path, config["files"][name]) for name, path in wanted.items()}
        files = {name: file for name, file in found.items() if file is not None}
        if len(files) == len(wanted):
            return CompiledFiles(folder, config, files)
        if written(folder / CONFIG) == before:  # nobody replaced it: it is damaged
            damaged = next(path for name, path in wanted.items() if name not in files)
            raise ValueError(
                f"The compiled router's file `{damaged}` is missing, truncated or was changed."
                f" Remove `{folder}`, and compile the router again."
            )
        time.sleep(0.05)
    raise ValueError(f"The router in `{folder}` was compiled {_ATTEMPTS} times while it was being read. Try again.")


def stored_files(folder: Path) -> dict[str, bytes]:
    """Return all that a compiled router's folder holds, by name on disk.

    Raises:
        FileNotFoundError: if there is none, or it is replaced meanwhile.
        ValueError: as ``read_compiled``, or if it is replaced meanwhile.
    """
    found = read_compiled(folder)
    contents = {file.path.name: file.read_bytes() for file in found.files.values()}
    contents[CONFIG] = (folder / CONFIG).read_bytes()
    if json.loads(contents[CONFIG]) != found.config:
        raise ValueError(f"The router in `{folder}` was compiled again while it was being read. Try again.")
    return contents


def read_config(folder: Path) -> dict[str, Any]:
    """Return what ``compiled.json`` says, without a look at the other files.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, does not say what it has to, or its format is another.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a compiled router in `{folder}`, but there is no {CONFIG}. Run `python main.py compile` first."
        )
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        known = config["format"] == FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"`{path}` is truncated or was changed ({error}). Compile the router again.") from error
    if not known:
        raise ValueError(
            f"Expected format {FORMAT} in `{path}`, but got {config['format']}. Compile the router again; one of the"
            " hub is to be pushed again."
        )
    fault = fault_of(config)
    if fault is not None:
        raise ValueError(f"`{path}` is truncated or was changed ({fault}). Compile the router again.")
    return config


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array as a ``.npy`` file; equal arrays are equal bytes."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def stored_name(name: str, digest: str) -> str:
    """Return the name on disk of a compiled router's file: it has the content's hash in it."""
    stem, _, suffix = name.partition(".")
    return f"{stem}-{digest[:16]}.{suffix}"


def _checked(path: Path, digest: str) -> CheckedFile | None:
    """Return a file, or ``None`` if it is not there or has another content; it is opened once."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return None
            return CheckedFile(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (FileNotFoundError, ValueError):  # what is empty cannot be mapped
        return None


def _remove_unnamed(folder: Path) -> None:
    try:
        named = {stored_name(name, digest) for name, digest in read_config(folder)["files"].items()}
    except FileNotFoundError:
        named = set()
    except ValueError:  # what could not be replaced: nobody knows what it names
        return
    for path in folder.iterdir():
        if path.name not in named and _OURS.fullmatch(path.name):
            path.unlink(missing_ok=True)

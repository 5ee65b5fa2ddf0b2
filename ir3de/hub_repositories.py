"""Repositories of the Hugging Face hub: what names one, and their files, fetched without a long wait for no network."""

import re
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ID = re.compile(rf"({REPOSITORY.pattern})(?:@([\w./-]+))?")
_DESCRIPTIONS = ("config.json", "tokenizer_config.json", "tokenizer.json")  # of a model; each has one of them
_NO_CONNECTION = frozenset({"ConnectError", "ConnectTimeout", "ProxyError"})  # of httpx, whichever the hub's client has
_COMMIT = re.compile(r"[0-9a-f]{40}")
_AGAIN_SECONDS = 1.0


class NotInRepository(FileNotFoundError):
    """The repository is there, and has no such file."""


class HubId(NamedTuple):
    """A repository, and the branch, tag or commit that is meant; ``None`` is the newest one."""

    repository: str
    revision: str | None


def hub_id(source: Path | str, *, revision: str | None = None) -> HubId | None:
    """Return what ``owner/name`` or ``owner/name@revision`` means on the hub; ``None`` for a path here.

    What is there as a folder is a path, and so is a ``Path``.

    Raises:
        ValueError: if a revision of a folder is asked for, or two revisions are.
    """
    found = _ID.fullmatch(source) if isinstance(source, str) else None
    if found is None or Path(source).exists():
        if revision is not None:
            raise ValueError(
                f"A revision ({revision}) is for a router of the hub, `owner/name`, but `{source}` is a folder here."
            )
        return None
    if found[2] is not None and revision is not None:
        raise ValueError(f"Expected one revision of `{found[1]}`, but got {found[2]} and {revision}.")
    return HubId(found[1], found[2] or revision)


def download(repository: str, file: str, *, revision: str | None = None) -> Path:
    """Return the local copy of a repository's file; without a connection it is the one in the hub's cache.

    A hub that is slow or overloaded is asked again, as huggingface_hub does it. If there is no connection at all, that
    is said after a second: huggingface_hub would try for 23.

    Raises:
        OSError: one of huggingface_hub's errors; ``LocalEntryNotFoundError`` without a connection.
        ValueError: if the repository's name is none.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # noqa: PLC0415 - takes time to load
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    known = try_to_load_from_cache(repository, file, revision=revision)
    absent = known is not None and not isinstance(known, str)  # at this revision, when it was last asked for
    if absent and revision is not None and _COMMIT.fullmatch(revision):
        raise EntryNotFoundError(f"The commit {revision} has no {file}.")
    if not isinstance(known, str):
        _check_connection(repository, file, revision, attempts=1 if absent else 2)
    return Path(hf_hub_download(repository, file, revision=revision))


def check_connection(repository: str) -> None:
    """Refuse a model of which the hub's cache has nothing, if there is no connection; before transformers asks for it.

    Raises:
        LocalEntryNotFoundError: an ``OSError`` of huggingface_hub's.
        ValueError: if the repository's name is none.
    """
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - as in `download`

    if all(try_to_load_from_cache(repository, name) is None for name in _DESCRIPTIONS):
        _check_connection(repository, _DESCRIPTIONS[0], None, attempts=2)


def router_file(repository: str, file: str, *, revision: str | None = None) -> Path:
    """Return the local copy of a file of the router in a repository; see ``download``.

    Raises:
        FileNotFoundError: if there is no such repository, revision or file, or the hub is out of reach.
    """
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # noqa: PLC0415 - as in `download`
        EntryNotFoundError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return download(repository, file, revision=revision)
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"The hub's repository `{repository}` has no revision `{revision}`.") from error
    except LocalEntryNotFoundError as error:  # a subclass of the next one
        raise FileNotFoundError(_unreachable(repository, error)) from error
    except EntryNotFoundError as error:
        raise NotInRepository(
            f"Expected a router in the hub's repository `{repository}`, but it has no {file}. Push one with"
            " `python main.py push`."
        ) from error
    except (HTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(_unreachable(repository, error)) from error


def first_line(error: Exception) -> str:
    """Return what an error of the hub's says first."""
    return str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__


def _check_connection(repository: str, file: str, revision: str | None, *, attempts: int) -> None:
    """Ask the hub for the file's size, and refuse if nothing answers at all.

    Raises:
        LocalEntryNotFoundError: if there is no connection.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url  # noqa: PLC0415
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined] # noqa: PLC0415

    url = hf_hub_url(repository, file, revision=revision)
    for attempt in range(1, attempts + 1):
        try:
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except OSError:  # it answered, or must not be asked: the download says the same, and what the cache has
            return
        except HTTPError as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            if not kinds & _NO_CONNECTION:
                return
            if attempt == attempts or "ConnectTimeout" in kinds:
                raise LocalEntryNotFoundError(f"no connection: {first_line(error)}") from error
            time.sleep(_AGAIN_SECONDS)
        else:
            return


def _unreachable(repository: str, error: Exception) -> str:
    return (
        f"Expected a router in `{repository}`, but there is no such folder here, and the hub did not give it"
        f" ({first_line(error)}). Run `python main.py fit` for one of your own; for one of the hub check its id, and"
        " log in with `hf auth login` or HF_TOKEN if it is private."
    )

"""Routers on the Hugging Face hub: read at a revision, and pushed as one commit."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ir3de.routers.artifact import CONFIG, is_ours, read_config, stored_name

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE = re.compile(r"[\w-]+\.(safetensors|json)")  # what a router is made of: nothing that could run


def router_folder(source: Path | str, *, revision: str | None = None) -> Path:
    """Return the folder of a saved router: ``source`` itself, or what is fetched of the hub's ``owner/name``.

    Of a repository only what its ``config.json`` names is fetched, all of one commit; what the cache has is not.

    Raises:
        FileNotFoundError: if there is no such folder, and no such repository or revision, or the hub is out of reach.
        ValueError: if a revision of a folder is asked for, or the repository's router has files that are no router's.
    """
    path = Path(source)
    if path.exists() or not isinstance(source, str) or not REPOSITORY.fullmatch(source):
        if revision is not None:
            raise ValueError(
                f"A revision ({revision}) is for a router of the hub, `owner/name`, but `{source}` is a folder here."
            )
        return path
    folder = _fetched(source, CONFIG, revision).parent
    config, _ = read_config(folder)
    for name, digest in config["files"].items():
        if not _FILE.fullmatch(name):
            raise ValueError(f"Expected tensors and JSON in the router `{source}`, but it names a file `{name}`.")
        _fetched(source, stored_name(name, digest), folder.name)  # the snapshot's name is its commit
    return folder


def push_files(
    repository: str, files: Mapping[str, bytes], *, private: bool = False, message: str, token: str | None = None
) -> str:
    """Put a router's folder into the repository ``owner/name``, made if it is not there; return the commit's address.

    It is one commit: who reads meanwhile gets the old router or the new one. Files of the router that was there go;
    any others stay. ``token`` is that of ``HF_TOKEN`` or of ``hf auth login`` if it is not given.

    Raises:
        ValueError: if there is no token, the hub refuses it, or the repository is public where private was asked for.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"Expected a repository as owner/name to push to, but got {repository!r}.")
    token = token or get_token()
    if token is None:
        raise ValueError(
            f"Pushing to `{repository}` needs a token that may write, but there is none. Set HF_TOKEN, or log in with"
            " `hf auth login`."
        )
    api = HfApi(token=token)
    try:
        _make(api, repository, private=private)
        there = api.list_repo_files(repository)
        gone = [CommitOperationDelete(name) for name in there if is_ours(name) and name not in files]
        added = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        return str(api.create_commit(repository, [*added, *gone], commit_message=message).commit_url)
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"The hub did not take the router for `{repository}`: {_beginning(error)}") from error


def _make(api: HfApi, repository: str, *, private: bool) -> None:
    """Make the repository if it is not there, and see that it is as private as was asked."""
    try:
        info = api.repo_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=private, exist_ok=True)
        info = api.repo_info(repository)
    if private and not info.private:
        raise ValueError(
            f"The repository `{repository}` is public, so what is pushed there is not private. Make it private on the"
            " hub, or push to another one."
        )


def _fetched(repository: str, file: str, revision: str | None) -> Path:
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"The hub's repository `{repository}` has no revision `{revision}`.") from error
    except LocalEntryNotFoundError as error:  # a subclass of the next one
        raise FileNotFoundError(_unreachable(repository, error)) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"Expected a router in the hub's repository `{repository}`, but it has no {file}. Push one with"
            " `python main.py push`."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(_unreachable(repository, error)) from error


def _unreachable(repository: str, error: Exception) -> str:
    return (
        f"Expected a saved router in `{repository}`, but there is no such folder here, and the hub did not give it"
        f" ({_beginning(error)}). Run `python main.py fit` for one of your own; for one of the hub check its id, and"
        " log in with `hf auth login` or HF_TOKEN if it is private."
    )


def _beginning(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__

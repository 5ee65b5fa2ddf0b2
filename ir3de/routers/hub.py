"""Routers on the Hugging Face hub: read at a revision, and pushed as one commit."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from ir3de.hub_repositories import REPOSITORY, first_line, hub_id, router_file
from ir3de.routers.artifact import CONFIG, is_ours, read_config, stored_name

# The compiled form (ir3de/serving/artifact.py) that an earlier push put beside the router.
_COMPILED = re.compile(r"compiled/(alarm/)?(compiled\.json|[a-z_]+-[0-9a-f]{16}\.(npy|json))")
_FILE = re.compile(r"[\w-]+\.(safetensors|json)")  # what a router is made of: nothing that could run


def router_folder(source: Path | str, *, revision: str | None = None) -> Path:
    """Return the folder of a saved router: ``source`` itself, or what is fetched of the hub's ``owner/name``.

    ``owner/name@revision`` says the revision, too. Of a repository only what its ``config.json`` names is fetched, all
    of one commit; what the cache has is not.

    Raises:
        FileNotFoundError: if there is no such folder, and no such repository or revision, or the hub is out of reach.
        ValueError: if a revision of a folder is asked for, or the repository's router has files that are no router's.
    """
    on_hub = hub_id(source, revision=revision)
    if on_hub is None:
        return Path(source)
    repository = on_hub.repository
    folder = router_file(repository, CONFIG, revision=on_hub.revision).parent
    config, _ = read_config(folder)
    for name, digest in config["files"].items():
        if not _FILE.fullmatch(name):
            raise ValueError(f"Expected tensors and JSON in the router `{repository}`, but it names a file `{name}`.")
        router_file(repository, stored_name(name, digest), revision=folder.name)  # the snapshot's name is its commit
    return folder


def push_files(
    repository: str, files: Mapping[str, bytes], *, private: bool = False, message: str, token: str | None = None
) -> str:
    """Put a router's folder into the repository ``owner/name``, made if it is not there; return the commit's address.

    It is one commit: who reads meanwhile gets the old router or the new one. Files of the router that was there go, and
    so does its compiled form; any others stay. ``token`` is that of ``HF_TOKEN`` or of ``hf auth login`` if it is not
    given.

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
        gone = [CommitOperationDelete(name) for name in there if _is_ours(name) and name not in files]
        added = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        return str(api.create_commit(repository, [*added, *gone], commit_message=message).commit_url)
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"The hub did not take the router for `{repository}`: {first_line(error)}") from error


def _is_ours(name: str) -> bool:
    return is_ours(name) or _COMPILED.fullmatch(name) is not None


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

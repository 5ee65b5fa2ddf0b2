"""The compiled form of a router on the Hugging Face hub: fetched alone, of one commit, without torch."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ir3de.hub_repositories import HubId, NotInRepository, router_file
from ir3de.serving.alarm import FOLDER as ALARM
from ir3de.serving.artifact import CONFIG, FOLDER, read_compiled, read_config, stored_name

_NAME, _DIGEST = re.compile(r"[a-z_]+\.(npy|json)"), re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 8  # files that are fetched together, as huggingface_hub does it


def fetch_compiled(router: HubId) -> Path:
    """Return the folder in the hub's cache to which the compiled form of a router was fetched, every file checked.

    Beside it is the router's ``config.json``, of the same commit. What the cache has is not fetched.

    Raises:
        FileNotFoundError: if there is no such repository, or no compiled router in it, or the hub is out of reach.
        ValueError: if it names files that are no compiled router's, or one is damaged.
    """
    repository, revision = router
    try:
        folder = router_file(repository, f"{FOLDER}/{CONFIG}", revision=revision).parent
    except NotInRepository as error:
        raise NotInRepository(
            f"Expected a compiled router in the hub's repository `{repository}`, but it has no {FOLDER}/{CONFIG}. Push"
            f" it again with `python main.py push`, or run `python main.py compile --router {repository} --into DIR`."
        ) from error
    commit = folder.parent.name
    router_file(repository, "config.json", revision=commit)
    _fetch(repository, folder, commit)
    try:
        router_file(repository, f"{FOLDER}/{ALARM}/{CONFIG}", revision=commit)
    except NotInRepository:  # too few validation sequences
        return folder
    _fetch(repository, folder / ALARM, commit)
    return folder


def _fetch(repository: str, folder: Path, commit: str) -> None:
    """Fetch what the ``compiled.json`` in ``folder``, a part of the commit's snapshot in the cache, names."""
    snapshot = next(parent for parent in folder.parents if parent.name == commit)
    under = folder.relative_to(snapshot).as_posix()
    names = list(_names(repository, folder))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: router_file(repository, f"{under}/{name}", revision=commit), names))
    try:
        read_compiled(folder)
    except ValueError as error:
        cache = snapshot.parents[1]
        raise ValueError(f"{error} It came from the hub: remove `{cache}`, and it is fetched again.") from error


def _names(repository: str, folder: Path) -> Iterator[str]:
    files = read_config(folder).get("files")
    if not isinstance(files, dict):
        raise ValueError(f"Expected the compiled router `{repository}` to name its files, but it does not.")
    for name, digest in files.items():
        if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(str(digest)):
            raise ValueError(f"Expected arrays and JSON in the compiled router `{repository}`, but it names `{name}`.")
        yield stored_name(name, digest)

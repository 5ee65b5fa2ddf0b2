"""The compiled form of a router on the Hugging Face hub: fetched alone, of one commit, without torch."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ir3de.hub_repositories import HubId, NotInRepository, router_file
from ir3de.serving.artifact import CONFIG, FOLDER, read_compiled, read_config, stored_name

_NAME = re.compile(r"[a-z_]+\.(npy|json)")
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
    names = list(_names(repository, folder))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: router_file(repository, f"{FOLDER}/{name}", revision=commit), names))
    try:
        read_compiled(folder)
    except ValueError as error:
        cache = folder.parents[2]  # snapshots/COMMIT/compiled
        raise ValueError(f"{error} It came from the hub: remove `{cache}`, and it is fetched again.") from error
    return folder


def _names(repository: str, folder: Path) -> Iterator[str]:
    for name, digest in read_config(folder)["files"].items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"Expected arrays and JSON in the compiled router `{repository}`, but it names `{name}`.")
        yield stored_name(name, digest)

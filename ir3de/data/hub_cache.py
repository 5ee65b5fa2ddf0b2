"""Data sets of the hub as the library `datasets` reads them, of the revision that was asked for: also without the hub.

Without it, `datasets` takes what its cache has written last, of whichever revision, and says so in a log alone.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from ir3de.files import replace_file

_COMMIT = re.compile(r"[0-9a-f]{40}")


def load_hub_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> Any:
    """Return a split of a data set of the hub, or of the cache where the hub does not answer.

    Raises:
        ValueError: if there is none, or the cache does not tell whether it is that revision.
        OSError: if it cannot be had.
    """
    builder: Any = datasets.load_dataset_builder(name, config, revision=revision)
    if type(builder).__name__ == "Cache":  # the hub did not answer
        builder = _of_revision(builder, name, config, revision)
    elif _COMMIT.fullmatch(builder.hash or "") and _commit(name, revision) != builder.hash:
        with suppress(OSError):  # a cache that may only be read
            replace_file(_note(name, revision), builder.hash.encode())  # the library notes it with a README alone
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _of_revision(builder: Any, name: str, config: str | None, revision: str | None) -> Any:
    """Return the builder of the revision's commit, for one that reads the newest folder of the cache."""
    folder = Path(builder.cache_dir).parents[2]  # in it configuration/version/commit
    there = [path.parent for path in folder.glob(f"{config or '*'}/*/*/dataset_info.json")]
    commits = sorted({path.name for path in there})
    wanted = _commit(name, revision)
    if wanted is None and revision is None and len(commits) == 1:
        return builder
    if wanted is None:
        raise ValueError(
            f"the hub does not answer, and which commit `{revision or 'main'}` is was not noted. Name one of those in"
            f" the cache, {commits}, as `revision`, or run `python main.py download` where there is a hub"
        )
    if wanted not in commits:
        raise ValueError(
            f"the hub does not answer, and the cache has the commits {commits}, but not {wanted}, which is"
            f" `{revision or 'main'}`. Run `python main.py download` where there is a hub"
        )
    if builder.hash == wanted:
        return builder
    found = [path for path in there if path.name == wanted]
    if len(found) != 1:
        configurations = sorted(path.parts[-3] for path in found)
        raise ValueError(
            f"the hub does not answer, and of commit {wanted}, which is `{revision or 'main'}`, the cache has the"
            f" configurations {configurations}. Name one, or run `python main.py download` where there is a hub"
        )
    configuration, version = found[0].parts[-3:-1]
    return type(builder)(
        dataset_name=builder.dataset_name, config_name=configuration, version=version, hash=wanted, repo_id=name
    )


def _commit(name: str, revision: str | None) -> str | None:
    """Return the commit that a revision was when it was last fetched; ``None`` if nobody noted it."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    note = _note(name, revision)
    return note.read_text().strip() if note.is_file() else None


def _note(name: str, revision: str | None) -> Path:
    """Return where the hub's cache notes what commit a branch or tag was."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")
    return folder / "refs" / (revision or "main")

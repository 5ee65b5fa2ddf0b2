"""Fetching one file into the hub's cache: gone on with where it was stopped, and checked against the hub's hash.

huggingface_hub begins a file anew when the process that fetched it ended. Experts have gigabytes, so large files are
fetched here into a file that stays, and are given to the cache once their SHA-256 is right.
"""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined] # made when asked for

from ir3de.files import replace_file
from ir3de.hub.plan import HubFile, Plan

PARTIAL = ".ir3de.incomplete"  # beside the blobs, with the hash of the whole file; `hf cache prune` knows the ending


def fetch_file(plan: Plan, file: HubFile, advance: Callable[[int], None]) -> Path:
    """Fetch one file of a plan and return where it is; ``advance`` is told of bytes as they come.

    Raises:
        ValueError: if the content has not the hash that the hub promises; what was fetched is deleted.
    """
    of = plan.requirement
    if file.sha256 is not None:
        blob = _blobs(plan) / file.sha256
        lock = Path(constants.HF_HUB_CACHE) / ".locks" / blob.parents[1].name / f"{file.sha256}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # the one that huggingface_hub takes for this file
            if blob.exists():
                advance(file.size)
            else:
                _fetch_blob(plan, file, blob, advance)
    path = _into_cache(plan, file.name)
    if file.sha256 is None:
        advance(file.size)
        _check(path, file, f"{of.repository}/{file.name}")
    return path


def partial_bytes(plan: Plan, file: HubFile) -> int:
    """Return how many bytes of a file an earlier run has left."""
    part = _blobs(plan) / f"{file.sha256}{PARTIAL}"
    return part.stat().st_size if file.sha256 is not None and part.is_file() else 0


def remember_absent(plan: Plan, name: str) -> None:
    """Ask for a file that the plan's commit does not have, so that the cache knows of it without a network."""
    try:
        _into_cache(plan, name)
    except LocalEntryNotFoundError:  # the hub was not reached; a subclass of the next one
        raise
    except EntryNotFoundError:
        pass


def settle(plan: Plan) -> None:
    """Let the revision that was asked for be the plan's commit from now on, for all who read the cache.

    Files are fetched by commit, and huggingface_hub then keeps no note of the branch.
    """
    assert plan.commit is not None, "a plan without a commit has a problem, and is not fetched"
    note = _folder(plan) / "refs" / plan.requirement.revision
    known = note.read_text() if note.is_file() else None
    if plan.commit not in (plan.requirement.revision, known):
        replace_file(note, plan.commit.encode())


def _into_cache(plan: Plan, name: str) -> Path:
    of = plan.requirement
    return Path(hf_hub_download(of.repository, name, repo_type=of.repo_type, revision=plan.commit))


def _folder(plan: Plan) -> Path:
    name = repo_folder_name(repo_id=plan.requirement.repository, repo_type=plan.requirement.repo_type)
    return Path(constants.HF_HUB_CACHE) / name


def _blobs(plan: Plan) -> Path:
    return _folder(plan) / "blobs"


def _fetch_blob(plan: Plan, file: HubFile, blob: Path, advance: Callable[[int], None]) -> None:
    of, part = plan.requirement, blob.with_name(blob.name + PARTIAL)
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size:
        part.unlink()
        have = 0
    advance(have)
    url = hf_hub_url(of.repository, file.name, repo_type=of.repo_type, revision=plan.commit)
    with _Reported(part, advance) as out:
        http_get(url, out, resume_size=have, headers=build_hf_headers(), expected_size=file.size)
    _check(part, file, f"{of.repository}/{file.name}")
    os.replace(part, blob)


def _check(path: Path, file: HubFile, name: str) -> None:
    """Delete a file that is not what the hub promised, and say so."""
    content = path.resolve()
    with content.open("rb") as opened:
        if file.sha256 is not None:
            found, promised = hashlib.file_digest(opened, "sha256").hexdigest(), file.sha256
        else:
            digest = hashlib.sha1(b"blob %d\0" % content.stat().st_size)  # as git names a file's content
            digest.update(opened.read())
            found, promised = digest.hexdigest(), file.git_hash or ""
    if found != promised:
        path.unlink()
        content.unlink(missing_ok=True)
        raise ValueError(
            f"`{name}` came with the hash {found[:12]}…, where the hub promises {promised[:12]}…. What was fetched is"
            " deleted: run `download` again, and if it comes again, something between here and the hub changes it."
        )


class _Reported(io.BufferedWriter):
    """A file that is appended to, and tells how much."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._advance = advance

    def write(self, content: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        written = super().write(content)
        self._advance(written)
        return written

"""What is to be fetched: the files of each repository, with their sizes and hashes, as the hub lists them."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from ir3de.hub.present import VOCABULARIES, cached
from ir3de.hub.requirements import Requirement
from ir3de.pretrained.encoder import PYTORCH_WEIGHTS

TOKENIZER_FILES = (
    *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "config.json", "chat_template.jinja",
)  # fmt: skip
NO_ACCESS = "it is gated, and this account has no access to it"
EXPERT_PATTERNS = ("*.json", "*.safetensors", "tokenizer.model")  # as ir3de.experts.weights asks for


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; ``sha256`` is known of large files, ``git_hash`` of the others."""

    name: str
    size: int
    sha256: str | None
    git_hash: str | None


@dataclass(frozen=True)
class Plan:
    """The files that one requirement needs of one commit, or the ``problem`` that keeps them from being listed."""

    requirement: Requirement
    commit: str | None = None
    files: tuple[HubFile, ...] = ()
    gated: bool = False
    problem: str | None = None

    @property
    def missing(self) -> tuple[HubFile, ...]:
        """The files that the cache does not have of this commit."""
        of = self.requirement
        return tuple(
            file
            for file in self.files
            if not cached(of.repository, file.name, repo_type=of.repo_type, revision=self.commit)
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Bytes of the files that are to be fetched."""
        return sum(file.size for file in self.missing)


def plan(requirement: Requirement, api: HfApi) -> Plan:
    """Ask the hub for the newest commit of a revision, and its files; what goes wrong is in the plan's ``problem``."""
    of = requirement
    try:
        info: Any = api.repo_info(
            of.repository, repo_type=of.repo_type, revision=of.revision, files_metadata=True, timeout=30
        )
        listed = {one.rfilename: one for one in info.siblings or ()}
        files = tuple(_hub_file(listed[name]) for name in wanted(of, list(listed), info.sha))
    except GatedRepoError:
        return Plan(requirement, gated=True, problem=NO_ACCESS)
    except RepositoryNotFoundError:
        return Plan(requirement, problem="the hub has no such repository (or it is private)")
    except RevisionNotFoundError:
        return Plan(requirement, problem=f"it has no revision `{of.revision}`")
    except Exception as error:  # whatever the network stumbles over: it is one of many, and is named
        return Plan(requirement, problem=beginning(error))
    problem = None if files else _without_files(requirement, list(listed))
    return Plan(requirement, info.sha, files, bool(info.gated), problem)


def _hub_file(listed: Any) -> HubFile:
    large = listed.lfs
    return HubFile(listed.rfilename, listed.size or 0, large.sha256 if large else None,
                   None if large else listed.blob_id)  # fmt: skip


def wanted(requirement: Requirement, names: Sequence[str], commit: str) -> list[str]:
    """Return which of a commit's files are needed."""
    if requirement.kind == "data set":
        return _of_data_set(requirement, commit)
    if requirement.source.endswith(".pth"):
        file = requirement.source.split(":", 1)[1]
        return [file] if file in names else []
    if requirement.kind == "tokenizer":
        found = [name for name in names if name in TOKENIZER_FILES]
        return found if any(name in VOCABULARIES for name in found) else []
    if requirement.kind == "expert":
        return [name for name in names if any(fnmatch(name, pattern) for pattern in EXPERT_PATTERNS)]
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(".safetensors")] or [n for n in top if n == PYTORCH_WEIGHTS]
    of_tables = [name for name in top if name.endswith(".safetensors.index.json")]
    if requirement.kind == "embeddings" or not weights:
        return [*weights, *of_tables] if weights else []
    others = [name for name in top if name.endswith(".json") or name in TOKENIZER_FILES]
    return sorted({*weights, *others})


def _of_data_set(requirement: Requirement, commit: str) -> list[str]:
    """Return the files that the library which reads data sets takes for this configuration."""
    builder = datasets.load_dataset_builder(
        requirement.repository, dict(requirement.arguments).get("config"), revision=commit
    )
    by_split: Any = builder.config.data_files or {}
    own = f"hf://datasets/{requirement.repository}@{commit}/"
    return [str(file).removeprefix(own) for files in by_split.values() for file in files]


def _without_files(requirement: Requirement, names: Sequence[str]) -> str:
    if requirement.source.endswith(".pth"):
        file = requirement.source.split(":", 1)[1]
        near = get_close_matches(file, names, n=1, cutoff=0.3)
        return f"it has no file {file}" + (f"; the nearest is {near[0]}" if near else "")
    kinds: dict[str, str] = {"tokenizer": "no tokenizer", "data set": "no files of data"}
    return f"it has {kinds.get(requirement.kind, 'no weights (safetensors)')}"


def beginning(error: Exception) -> str:
    """Return the beginning of what an error says: a status and what it means are two lines."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(said[:2]) if said else type(error).__name__

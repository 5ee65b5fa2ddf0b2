"""Whether something is here already, looked up in the caches without asking the hub."""

import json
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import datasets
from datasets.naming import camelcase_to_snakecase
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from ir3de.experts.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ir3de.hub.requirements import Requirement, located
from ir3de.pretrained.embeddings import INDEX, WEIGHTS
from ir3de.pretrained.encoder import PYTORCH_WEIGHTS
from ir3de.pretrained.locate import PACKAGE_PREFIX

# What a tokenizer can be made of.
VOCABULARIES = ("tokenizer.json", "spm.model", "vocab.txt", "vocab.json", "tokenizer.model")


def is_present(requirement: Requirement) -> bool:
    """Return whether a requirement is here: in a cache, on disk, or installed."""
    requirement = located(requirement)
    kind, source = requirement.kind, requirement.source
    if requirement.on_the_hub:
        return _data_set(requirement) if kind == "data set" else _model(requirement)
    if kind == "library":
        return find_spec(source) is not None
    if kind == "package":
        return bool(list(metadata.distributions(name=source.removeprefix(PACKAGE_PREFIX))))
    return Path(source).expanduser().exists()


def _model(requirement: Requirement) -> bool:
    kind, source = requirement.kind, requirement.source
    if source.endswith(".pth"):
        return cached(requirement.repository, source.split(":", 1)[1])
    if kind == "tokenizer":
        return any(cached(source, name) for name in VOCABULARIES)
    if cached(source, ADAPTER_CONFIG):
        return cached(source, ADAPTER_WEIGHTS)
    return _weights(source) and (kind == "embeddings" or cached(source, "config.json"))


def needs_sentencepiece(repository: str) -> bool:
    """Return whether a repository that is here has a SentencePiece model alone, and the package for it is missing."""
    alone = cached(repository, "spm.model") and not cached(repository, "tokenizer.json")
    return alone and find_spec("sentencepiece") is None


def cached(repository: str, file: str, *, repo_type: str = "model", revision: str | None = None) -> bool:
    """Return whether a file of a hub repository is in the cache."""
    return isinstance(try_to_load_from_cache(repository, file, repo_type=repo_type, revision=revision), str)


def _weights(repository: str) -> bool:
    index = try_to_load_from_cache(repository, INDEX)
    if isinstance(index, str):
        shards = set(json.loads(Path(index).read_text())["weight_map"].values())
        return all(cached(repository, shard) for shard in shards)
    return cached(repository, WEIGHTS) or cached(repository, PYTORCH_WEIGHTS)


def _data_set(requirement: Requirement) -> bool:
    """Return whether the data set has been prepared in the cache of the library that reads it."""
    owner, _, name = requirement.source.rpartition("/")
    folder = "___".join([part for part in (owner, camelcase_to_snakecase(name)) if part])
    arguments = dict(requirement.arguments)
    configuration = arguments.get("config") or "*"
    commit = _commit(requirement) if arguments.get("revision") else "*"  # the library names its folders by it
    found = Path(datasets.config.HF_DATASETS_CACHE).glob(f"{folder}/{configuration}/*/{commit}/dataset_info.json")
    return next(iter(found), None) is not None


def _commit(requirement: Requirement) -> str:
    """Return the commit that a revision is in the hub's cache; one that is not known there stands for itself."""
    name = repo_folder_name(repo_id=requirement.repository, repo_type=requirement.repo_type)
    ref = Path(constants.HF_HUB_CACHE) / name / "refs" / requirement.revision
    return ref.read_text() if ref.is_file() else requirement.revision

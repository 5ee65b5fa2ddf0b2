"""Routers: tokens or text in, a score for every expert out."""

from pathlib import Path

from ir3de.routers.artifact import read_config
from ir3de.routers.bayes import NaiveBayesRouter
from ir3de.routers.ridge import Embeddings, RidgeRouter
from ir3de.routers.router import Router
from ir3de.routers.token_table import TokenTableRouter

SAVED: dict[str, type[TokenTableRouter]] = {cls.__name__: cls for cls in (RidgeRouter, NaiveBayesRouter)}


def load_router(folder: Path | str) -> TokenTableRouter:
    """Read a saved router of any class.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if it is damaged, or its class is unknown.
    """
    name = read_config(Path(folder))["router"]
    if name not in SAVED:
        raise ValueError(f"Expected a router of {sorted(SAVED)} in `{folder}`, but it holds a {name}. Update ir3de.")
    return SAVED[name].from_pretrained(folder)


__all__ = ["Embeddings", "NaiveBayesRouter", "RidgeRouter", "Router", "TokenTableRouter", "load_router"]

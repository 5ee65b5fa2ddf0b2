"""Routers: tokens or text in, a score for every expert out."""

from pathlib import Path
from typing import Any

from ir3de.routers.artifact import read_artifact
from ir3de.routers.bayes import NaiveBayesRouter
from ir3de.routers.closed_form import ClosedFormRouter
from ir3de.routers.contextual import ContextualRidgeRouter
from ir3de.routers.embeddings import Embeddings
from ir3de.routers.ridge import RidgeRouter
from ir3de.routers.router import Router
from ir3de.routers.token_table import TokenTableRouter

SAVED: dict[str, type[ClosedFormRouter[Any]]] = {
    cls.__name__: cls for cls in (RidgeRouter, NaiveBayesRouter, ContextualRidgeRouter)
}


def load_router(folder: Path | str) -> ClosedFormRouter[Any]:
    """Read a saved router of any class.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if it is damaged, or its class is unknown.
    """
    artifact = read_artifact(Path(folder))
    name = artifact.config["router"]
    if name not in SAVED:
        raise ValueError(f"Expected a router of {sorted(SAVED)} in `{folder}`, but it holds a {name}. Update ir3de.")
    return SAVED[name].from_artifact(artifact)


__all__ = [
    "ClosedFormRouter",
    "ContextualRidgeRouter",
    "Embeddings",
    "NaiveBayesRouter",
    "RidgeRouter",
    "Router",
    "TokenTableRouter",
    "load_router",
]

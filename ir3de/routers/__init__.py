"""Routers: tokens or text in, a score for every expert out."""

from pathlib import Path
from typing import Any

from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.pretrained.token_means import TokenMeans
from ir3de.routers.artifact import read_artifact
from ir3de.routers.bayes import NaiveBayesRouter
from ir3de.routers.closed_form import ClosedFormRouter
from ir3de.routers.contextual import ContextualRidgeRouter
from ir3de.routers.embeddings import Embeddings
from ir3de.routers.feature_router import FeatureRouter
from ir3de.routers.hub import router_folder
from ir3de.routers.knn import KNNRouter
from ir3de.routers.logistic import LogisticRegressionRouter
from ir3de.routers.mlp import MLPRouter
from ir3de.routers.modem import MoDEMRouter
from ir3de.routers.references import (
    LossOracleRouter,
    OracleRouter,
    RandomRouter,
    ReferenceRouter,
    SingleExpertRouter,
)
from ir3de.routers.ridge import RidgeRouter
from ir3de.routers.router import Router
from ir3de.routers.smoothed_bayes import SmoothedBayesRouter
from ir3de.routers.token_table import TokenTableRouter
from ir3de.routers.trained import TrainedRouter

CLOSED_FORM = (
    RidgeRouter,
    NaiveBayesRouter,
    SmoothedBayesRouter,
    ContextualRidgeRouter,
    KNNRouter,
    LogisticRegressionRouter,
)
TRAINED = (MLPRouter, MoDEMRouter)
REFERENCES = (RandomRouter, SingleExpertRouter, OracleRouter, LossOracleRouter)
SAVED: dict[str, type[Router]] = {cls.__name__: cls for cls in (*CLOSED_FORM, *TRAINED, *REFERENCES)}


def load_router(source: Path | str, *, own: type[Router] | None = None, revision: str | None = None) -> Router:
    """Read a saved router of any class of this package, or of ``own``, a class of the user's.

    ``source`` is a folder, or the hub's ``owner/name``, of which ``revision`` names a branch, a tag or a commit.

    Raises:
        FileNotFoundError: if there is no saved router, or the hub does not give one.
        ValueError: if it is damaged, or its class is unknown.
    """
    artifact = read_artifact(router_folder(source, revision=revision))
    name = artifact.config["router"]
    known = SAVED if own is None else {**SAVED, own.__name__: own}
    if name not in known:
        raise ValueError(
            f"Expected a router of {sorted(known)} in `{source}`, but it holds a {name}. Read a router of your own with"
            f" its class, `{name}.from_pretrained`."
        )
    return known[name].from_artifact(artifact)


def load_closed_form(folder: Path | str) -> ClosedFormRouter[Any]:
    """Read a saved router that experts can be added to and removed from.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if it is damaged, or is trained by gradient or a reference.
    """
    router = load_router(folder)
    if not isinstance(router, ClosedFormRouter):
        raise ValueError(
            f"Expected a closed-form router in `{folder}`, whose experts are a sum, but it holds a"
            f" {type(router).__name__}: train it again with the experts that it should know."
        )
    return router


__all__ = [
    "ClosedFormRouter",
    "ContextualRidgeRouter",
    "Embeddings",
    "FeatureRouter",
    "HiddenStates",
    "KNNRouter",
    "LogisticRegressionRouter",
    "LossOracleRouter",
    "MLPRouter",
    "MoDEMRouter",
    "NaiveBayesRouter",
    "OracleRouter",
    "RandomRouter",
    "ReferenceRouter",
    "RidgeRouter",
    "Router",
    "SequenceFeatures",
    "SingleExpertRouter",
    "SmoothedBayesRouter",
    "TokenMeans",
    "TokenTableRouter",
    "TrainedRouter",
    "load_closed_form",
    "load_router",
]

"""Features as plain values, in a saved router's settings."""

from collections.abc import Mapping
from typing import Any

from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.pretrained.token_means import TokenMeans

KNOWN: dict[str, type[SequenceFeatures]] = {cls.__name__: cls for cls in (HiddenStates, TokenMeans)}


def described(features: SequenceFeatures) -> dict[str, Any]:
    """Return plain values that ``features_from`` makes the features of."""
    return {"class": type(features).__name__, **features.settings()}


def features_from(settings: Mapping[str, Any]) -> SequenceFeatures:
    """Return the features that ``described`` wrote down."""
    return KNOWN[settings["class"]](**{key: value for key, value in settings.items() if key != "class"})

"""From what a config says to an expert's weights: a folder, a hub id, a checkpoint, a GGUF file or an adapter."""

from collections.abc import Callable

from ir3de.experts.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, SharedBase
from ir3de.experts.published import PublishedCheckpoint
from ir3de.experts.weights import GgufModel, SavedModel, Weights
from ir3de.pretrained.checkpoint import local_checkpoint
from ir3de.pretrained.locate import fetch, local_path


def open_weights(source: str, *, base: Callable[[str], SharedBase]) -> Weights:
    """Return the weights that ``source`` names; see docs/experts.md for what it may be.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if a hub file cannot be had.
    """
    if source.endswith(".pth"):
        return PublishedCheckpoint(source, local_checkpoint(source))
    local = local_path(source)
    if local is not None and local.is_file():
        return GgufModel(source, local)
    if local is None and (config := fetch(source, ADAPTER_CONFIG)) is not None:
        fetch(source, ADAPTER_WEIGHTS)
        local = config.parent
    if local is not None and (local / ADAPTER_CONFIG).is_file():
        return Adapter(source, local, base)
    return SavedModel(source)

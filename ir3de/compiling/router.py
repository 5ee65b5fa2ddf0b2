"""A saved router becomes a compiled one: its tables as arrays, a reader whose ids are checked, and a temperature."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ir3de.compiling.alarm import compile_alarm
from ir3de.compiling.calibrate import calibrate
from ir3de.files import alone_in, written
from ir3de.hub_repositories import hub_id
from ir3de.pretrained.tokenizer import DEFINITION, TextTokenizer
from ir3de.routers import SAVED, RidgeRouter, Router, TokenTableRouter
from ir3de.routers.artifact import ROUTER, Artifact, read_artifact
from ir3de.routers.artifact import read_config as read_saved
from ir3de.routers.hub import router_folder
from ir3de.serving.artifact import ALARM, CONFIG, FOLDER, array_bytes, read_config, write_alone
from ir3de.serving.byte_pairs import NoBytePairs, byte_pairs
from ir3de.serving.same_ids import check_same_ids
from ir3de.serving.source import is_made_from, source_of
from ir3de.serving.tables import EmbeddingMeanTable, EntropyTopKTable, MajorityTable, MeanTable, Table
from ir3de.serving.text import installed_versions, pack_ranks

Array = np.ndarray
_ALARM_BEFORE = "alarm"  # the folder in which format 1 had the alarm


def compile_router(router: str, *, into: str | None = None) -> Path:
    """Compile a saved router to tables that route with NumPy and its tokenizer alone; return their folder.

    It waits for whoever writes there; a router that another process has compiled meanwhile is not compiled again.

    Args:
        router: The saved router's folder, or the hub's owner/name.
        into: The compiled router's folder; the folder `compiled` in the router's, if it is not given.

    Raises:
        FileNotFoundError: if the folder is no saved router, or the hub does not give one.
        ValueError: if it is damaged, is no table over a vocabulary, or is one of the hub and there is no `into`.
    """
    source = router_folder(router)
    if into is None and hub_id(router) is not None:
        raise ValueError(f"The router `{router}` is one of the hub. Say with --into where its compiled form is to be.")
    _table_router(read_saved(source)[0], router)  # before a folder is made
    folder = Path(into) if into is not None else source / FOLDER
    before = written(folder / CONFIG)
    with alone_in(folder):
        if written(folder / CONFIG) == before or not is_made_from(folder, source_of(source)):  # nobody did it meanwhile
            artifact = read_artifact(source)
            _compile(artifact, _table_router(artifact.config, router), folder)
    return folder


def _table_router(config: dict[str, Any], router: str) -> type[TokenTableRouter]:
    """Return the class of a saved router, by its config; refuse one that is no table."""
    found = SAVED.get(config["router"], Router)
    if not issubclass(found, TokenTableRouter):
        raise ValueError(
            f"Expected a router that is a table over the vocabulary in `{router}` (ridge, naive Bayes, counts"
            f" smoothed by the ridge), but it holds a {config['router']}."
        )
    return found


def _compile(artifact: Artifact, table_router: type[TokenTableRouter], folder: Path) -> None:
    """Compile a saved router as it was when it was read: by now another one may be in its place."""
    loaded = table_router.from_artifact(artifact)
    kind, arrays, table = _table(loaded)
    reader, ranks = _reader(loaded.tokenizer, folder)
    identity = artifact.config["identity"]
    alarm = compile_alarm(loaded, table, identity=identity)
    config = {
        "router": type(loaded).__name__,
        "source": {"identity": identity, "router_sha256": artifact.sha256(ROUTER)},
        "experts": list(loaded.expert_names),
        "models": loaded.models,
        "table": kind,
        "k": loaded.k if kind == "entropy_top_k" else None,
        "tokenizer": loaded.tokenizer.fingerprint,
        "reader": reader,
        "calibration": calibrate(loaded, table),
        "alarm": None if alarm is None else alarm.config,
    }
    arrays = {**arrays, **ranks, **({} if alarm is None else {f"{ALARM}{name}": a for name, a in alarm.arrays.items()})}
    files = {f"{name}.npy": array_bytes(array) for name, array in arrays.items()}
    write_alone(folder, config, files | {DEFINITION: loaded.tokenizer.files()[DEFINITION]})
    if (folder / _ALARM_BEFORE / CONFIG).is_file():
        shutil.rmtree(folder / _ALARM_BEFORE, ignore_errors=True)


def _table(router: TokenTableRouter) -> tuple[str, dict[str, Array], Table]:
    """Return the kind of a router's table, its arrays (see ``ir3de.serving.tables``), and the table."""
    num_experts = len(router.expert_names)
    winner_V = router.winner_V.numpy()
    if router.selector == "majority":
        winner_G = np.full(len(winner_V) + 2, num_experts, dtype=np.min_scalar_type(num_experts))
        winner_G[1:-1] = winner_V
        return "majority", {"winner": winner_G}, MajorityTable(winner_G, num_experts=num_experts)
    if router.selector == "entropy_top_k":
        assert router.k is not None, "k is chosen before a router is saved"
        rank_G = np.zeros(len(winner_V) + 2, dtype=np.min_scalar_type(len(winner_V)))
        rank_G[1:-1] = router.rank_V.numpy() + 1
        winner_R = np.full(len(winner_V) + 1, num_experts, dtype=np.min_scalar_type(num_experts))
        winner_R[rank_G[1:-1]] = winner_V
        arrays = {"rank": rank_G, "winner": winner_R}
        return "entropy_top_k", arrays, EntropyTopKTable(rank_G, winner_R, k=router.k, num_experts=num_experts)
    if router.keeps_scores:
        scores_GE = _guarded(router.scores_VE.numpy())
        return "mean", {"scores": scores_GE}, MeanTable(scores_GE)
    assert isinstance(router, RidgeRouter), "the others keep their scores"
    embeddings_GD = _guarded(router.embeddings.table_VD[: len(winner_V)].float().numpy())
    arrays = {"embeddings": embeddings_GD, "weight": router.weight_DE.numpy()}
    return (
        "embedding_mean",
        arrays,
        EmbeddingMeanTable(embeddings_GD, arrays["weight"]),
    )


def _guarded(rows_VX: Array) -> Array:
    guard_X = np.full((1, rows_VX.shape[1]), np.nan, dtype=rows_VX.dtype)
    return np.concatenate([guard_X, rows_VX, guard_X])


def _reader(tokenizer: TextTokenizer, folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what the artifact says of its reader, and the arrays of tiktoken's ranks, where it can be used."""
    nothing: dict[str, Any] = {"pattern": None, "special": None, "vocab_size": None, "checked": None}
    if installed_versions()["tiktoken"] is None:
        return nothing | {"because": "tiktoken is not installed (`pip install 'ir3de[serve]'`)"}, {}
    try:
        pairs = byte_pairs(tokenizer.backend)
        checked = _checked_before(tokenizer, folder) or check_same_ids(tokenizer.backend, pairs)
    except NoBytePairs as error:
        return nothing | {"because": f"tiktoken would not give its ids: {error}"}, {}
    made = {"pattern": pairs.pattern, "special": pairs.special, "vocab_size": pairs.vocab_size}
    ranks = {f"ranks_{name}": array for name, array in pack_ranks(pairs.ranks).items()}
    return {**made, "checked": checked, "because": None}, ranks


def _checked_before(tokenizer: TextTokenizer, folder: Path) -> dict[str, Any] | None:
    """Return the check of the router that was compiled here before, if it was of this tokenizer and these versions."""
    try:
        before = read_config(folder)
    except (FileNotFoundError, ValueError):
        return None
    checked: dict[str, Any] | None = before["reader"]["checked"]
    same = checked is not None and checked["versions"] == installed_versions()
    return checked if same and before["tokenizer"] == tokenizer.fingerprint else None

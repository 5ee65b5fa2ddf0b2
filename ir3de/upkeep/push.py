"""``python main.py push``: a saved router onto the hub, with a card of its run's own numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ir3de.compiling.router import compile_router
from ir3de.console import console
from ir3de.evaluation.card import METRICS, model_index
from ir3de.routers import SAVED, Router, TokenTableRouter
from ir3de.routers.artifact import CONFIG, ROUTER, Artifact, read_artifact, stored_files
from ir3de.routers.card import CARD, metadata_of, read_from, router_card, with_metadata
from ir3de.routers.hub import push_files
from ir3de.serving import artifact as compiled
from ir3de.serving.source import compiled_folder

COMPARISONS = ("comparison", "comparison_published")
RESULT = "comparison.json"
_CERTIFICATES = "certificates"
_ABOVE = 4  # folders above a router in which its run's comparison may be


def push(
    router: str, repo: str, private: bool = False, license: str | None = None, message: str = "Push a router"
) -> str:
    """Put a saved router into a repository of the hub, as one commit, with its compiled form, card and certificates.

    Args:
        router: The saved router's folder.
        repo: The repository, owner/name; it is made if it is not there.
        private: Whether it is made private. The token is that of HF_TOKEN or of `hf auth login`.
        license: The licence's identifier on the hub (apache-2.0, for example); without it the card names none.
        message: The commit's message.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if it is damaged, there is no token, or the hub refuses.
    """
    folder = Path(router)
    artifact = read_artifact(folder)
    stored = stored_files(artifact.config, artifact.files)
    card, compared = card_to_push(folder, artifact.config, repo, license=license)
    routes = _compiled(artifact)
    certificates = {f"{_CERTIFICATES}/{path.name}": path.read_bytes() for path in _certificates(folder)}
    out = console()
    sizes = [f"{len(some)} files, {sum(map(len, some.values())) / 1e6:,.1f} MB" for some in (stored, routes)]
    out.print(f"pushing {sizes[0]}, and compiled {sizes[1]}, to {repo}", soft_wrap=True)
    for sentence in _gives_away(artifact.config):
        out.print(f"[yellow]{sentence}[/yellow]", soft_wrap=True)
    if license is None:
        out.print("[yellow]the card names no licence[/yellow]: give one with --license", soft_wrap=True)
    files = {**stored, **routes, **certificates, CARD: card.encode()}
    address = push_files(repo, files, private=private, message=message)
    source = (
        f"those of {compared}" if compared else "those of its test" if "model-index" in metadata_of(card) else "none"
    )
    out.print(f"[green]pushed[/green] {address}; numbers on the card: {source}", soft_wrap=True)
    return address


def card_to_push(
    folder: Path, config: dict[str, Any], repository: str, *, license: str | None = None
) -> tuple[str, Path | None]:
    """Return the card of a saved router as the hub shows it, and the comparison whose numbers are on it.

    The card is the one that ``test`` wrote, which a change of the router takes the numbers off. Where there are none, a
    comparison's are taken, if it compared this very router: one with the same identity.
    """
    path = folder / CARD
    card = path.read_text() if path.is_file() else router_card(config, repository)
    card = read_from(card, repository)
    known: dict[str, Any] = {} if license is None else {"license": license}
    if "model-index" in metadata_of(card):
        return with_metadata(card, known), None
    for where, standing, report in _standings(folder.resolve(), str(config["identity"])):
        row = standing["row"]
        values = {name: row[name] for name in METRICS}
        datasets = metadata_of(card).get("datasets") or []
        index = model_index(config["router"], values, report["sequences"], datasets, measure=report["measure"])
        return with_metadata(f"{card.rstrip()}\n\n{_table(standing, report)}", {**known, **index}), where
    return with_metadata(card, known), None


def _compiled(artifact: Artifact) -> dict[str, bytes]:
    """Return a router's compiled form by name in the repository, compiled if it is not; empty where there can be none.

    Raises:
        ValueError: if the router is changed meanwhile.
    """
    out, folder = console(), artifact.folder
    if not issubclass(SAVED.get(artifact.config["router"], Router), TokenTableRouter):
        out.print("it is no table over a vocabulary: it has no compiled form, and routing takes torch", soft_wrap=True)
        return {}
    where = compiled_folder(folder)
    if where is None:
        out.print("its compiled form is missing or out of date: compiling it, which takes some seconds", soft_wrap=True)
        where = compile_router(str(folder))
    made_from = {"identity": artifact.config["identity"], "router_sha256": artifact.sha256(ROUTER)}
    stored = compiled.stored_files(where)
    if json.loads(stored[compiled.CONFIG])["source"] != made_from:
        raise ValueError(f"The router in `{folder}` was changed while it was being pushed. Push it again.")
    return {f"{compiled.FOLDER}/{name}": content for name, content in stored.items()}


def _standings(folder: Path, identity: str) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Yield comparisons near a router's folder that compared this router with one seed, with its standing there."""
    for above in list(folder.parents)[:_ABOVE]:
        for base in (above, *(above / name for name in COMPARISONS)):
            if not (base / RESULT).is_file():
                continue
            report = json.loads((base / RESULT).read_text())
            for standing in report["standings"]:
                fits = sorted((base / "fits" / standing["name"]).glob(f"seed_*/router/{CONFIG}"))
                if len(fits) == 1 and json.loads(fits[0].read_text()).get("identity") == identity:
                    yield base, standing, report


def _table(standing: dict[str, Any], report: dict[str, Any]) -> str:
    row, intervals = standing["row"], standing["row"]["intervals"]
    lines = [f"On {sum(report['sequences'].values()):,} held-out sequences, protocol {report['protocol']}:", ""]
    lines += ["| | value | 95% interval |", "| --- | ---: | --- |"]
    for name, (_, title) in METRICS.items():
        if row[name] is not None:
            ends = intervals.get(name)
            shown = "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"
            lines.append(f"| {title} | {row[name]:.4g} | {shown} |")
    return "\n".join(lines) + "\n"


def _certificates(folder: Path) -> list[Path]:
    return sorted((folder / _CERTIFICATES).glob("*.json"))


def _gives_away(config: dict[str, Any]) -> list[str]:
    """Say what of the training text can be read out of a router that is pushed."""
    facts = list(config["experts"].values())
    held = sum(one.get("validation_sequences", 0) for one in facts)
    said = []
    if any("counts" in one for one in facts):
        said.append("with it go the token counts of every domain")
    if any("rows" in one for one in facts):
        said.append("with it go the vectors of its training sequences")
    if held:
        said.append(f"with it go {held:,} validation sequences as bags of tokens: how often each occurs, not where")
    return said

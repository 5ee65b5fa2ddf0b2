"""Proves that one router is another: counts by their hashes, and what was solved byte for byte on one platform."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ir3de.routers import load_closed_form
from ir3de.routers.artifact import ROUTER, read_artifact, sha256, tensor_bytes
from ir3de.statistics.statistics import content_hash
from ir3de.upkeep.certificate import PLATFORM, certificate_of


@dataclass(frozen=True)
class Check:
    """One thing that was compared: ``holds`` is None where nothing is promised."""

    what: str
    holds: bool | None
    detail: str


def verify(router: str, against: str) -> list[Check]:
    """Compare a saved router with another one, or with a certificate, and solve it again from its counts.

    Args:
        router: The saved router's folder.
        against: Another saved router's folder, or a certificate.

    Raises:
        FileNotFoundError: if there is no router or no certificate.
        ValueError: if a router is damaged, or the file is no certificate.
    """
    artifact, other = read_artifact(Path(router)), certificate_of(Path(against))
    solved = load_closed_form(router)
    mine = solved.identity()
    checks = [
        Check(key, mine.get(key) == other.identity.get(key), _difference(mine.get(key), other.identity.get(key)))
        for key in sorted(mine.keys() | other.identity.keys() - {"experts"})
        if key != "experts"
    ]
    experts = other.identity["experts"]
    for name in sorted(mine["experts"].keys() | experts.keys()):
        here, there = mine["experts"].get(name), experts.get(name)
        checks.append(Check(f"counts of {name}", here == there, _expert_difference(here, there)))
    checks.append(Check("identity", solved.identity_hash() == other.identity_hash, solved.identity_hash()[:16]))

    saved = artifact.sha256(ROUTER)
    solved.fit(solved.statistics)
    again = sha256(tensor_bytes(solved.tensors()))
    checks.append(Check("solved again from its counts, here", again == saved, f"{again[:16]} (saved: {saved[:16]})"))
    if other.platform == PLATFORM:
        same = saved == other.router_hash
        checks.append(Check("solved router, byte for byte", same, f"{saved[:16]} and {other.router_hash[:16]}"))
    else:
        detail = f"nothing is promised: solved on {other.platform}, here it is {PLATFORM}"
        checks.append(Check("solved router, byte for byte", None, detail))
    return checks


def _difference(here: Any, there: Any) -> str:
    if here == there:
        return "equal"
    if isinstance(here, dict) and isinstance(there, dict):
        keys = [key for key in sorted(here.keys() | there.keys()) if here.get(key) != there.get(key)]
        return "; ".join(f"{key}: {here.get(key)} and {there.get(key)}" for key in keys)
    return f"{here} and {there}"


def _expert_difference(here: dict[str, Any] | None, there: dict[str, Any] | None) -> str:
    if here is None or there is None:
        return "only in the other" if here is None else "not in the other"
    if here == there:
        return f"{here['tokens']:,} tokens, {content_hash(here)[:16]}"
    return "differ in " + ", ".join(key for key in here if here[key] != there.get(key))

"""Which router a compiled one was made from, and whether it still is that router: read without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ir3de.hub_repositories import HubId, hub_id
from ir3de.serving.artifact import CONFIG, FOLDER, read_config


def source_of(router: Path) -> dict[str, str]:
    """Return what tells the saved router in ``router`` from any other: its identity, and the hash of what was solved.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if its ``config.json`` is damaged.
    """
    path = router / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a saved or a compiled router in `{router}`, but there is neither config.json nor {CONFIG}. Run"
            " `python main.py fit` first; or, for a compiled one alone, `python main.py compile`."
        )
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        return {"identity": config["identity"], "router_sha256": config["files"]["router.safetensors"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is truncated or no router's ({error}). Fit the router again.") from error


def compiled_folder(router: Path | str, *, revision: str | None = None) -> Path | None:
    """Return where the compiled form of ``router`` is; ``None`` if it is to be compiled.

    ``router`` is the folder of a saved or of a compiled one, or the hub's ``owner/name`` or ``owner/name@revision``, of
    which the compiled form is fetched.

    Raises:
        FileNotFoundError: if there is no router at all, or the hub does not give one.
        ValueError: if the saved router, or what the hub gave, is damaged.
    """
    on_hub = hub_id(router, revision=revision)
    if on_hub is not None:
        return _from_hub(on_hub)
    folder = Path(router)
    if (folder / CONFIG).is_file():
        return folder
    return folder / FOLDER if is_made_from(folder / FOLDER, source_of(folder)) else None


def is_made_from(folder: Path, source: Mapping[str, str]) -> bool:
    """Return whether in ``folder`` is the compiled form of the router ``source``, see ``source_of``."""
    try:
        return bool(read_config(folder)["source"] == source)
    except (FileNotFoundError, ValueError):
        return False


def pretrained_folder(router: Path | str, *, revision: str | None = None) -> Path:
    """Return where the compiled form of ``router`` is; see ``compiled_folder``.

    Raises:
        FileNotFoundError: as ``compiled_folder``.
        ValueError: as ``compiled_folder``, or if it is to be compiled.
    """
    folder = compiled_folder(router, revision=revision)
    if folder is None:
        raise ValueError(
            f"The router in `{router}` is not compiled, or was changed since. Run `python main.py compile --router"
            f" {router}`."
        )
    return folder


def _from_hub(router: HubId) -> Path:
    from ir3de.serving.hub import fetch_compiled  # noqa: PLC0415 - for routers of the hub alone

    folder = fetch_compiled(router)
    if read_config(folder)["source"] != source_of(folder.parent):
        raise ValueError(
            f"The compiled form in the hub's repository `{router.repository}` is another router's than the one beside"
            " it. Push the router again with `python main.py push`."
        )
    return folder

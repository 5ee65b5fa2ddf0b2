"""Which router a compiled one was made from, and whether it still is that router: read without torch."""

import json
from pathlib import Path
from typing import Any

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
            f"Expected a saved or a compiled router in `{router}`, but there is no config.json. Run"
            " `python main.py fit` first."
        )
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        return {"identity": config["identity"], "router_sha256": config["files"]["router.safetensors"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is truncated or no router's ({error}). Fit the router again.") from error


def compiled_folder(router: Path) -> Path | None:
    """Return where the compiled form of ``router`` is, itself one or a saved router; ``None`` if it is to be compiled.

    Raises:
        FileNotFoundError: if there is no router at all.
        ValueError: if the saved router is damaged.
    """
    if (router / CONFIG).is_file():
        return router
    source = source_of(router)
    try:
        return router / FOLDER if read_config(router / FOLDER)["source"] == source else None
    except (FileNotFoundError, ValueError):
        return None

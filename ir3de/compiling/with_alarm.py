"""The compiled form of a router that has an alarm, made if it is not there."""

from pathlib import Path

from ir3de.compiling.router import compile_router
from ir3de.serving.artifact import read_config
from ir3de.serving.source import compiled_folder


def compile_with_alarm(router: str) -> Path:
    """Return the compiled form of a router, a folder or the hub's, made if it is not there; it has an alarm.

    Raises:
        FileNotFoundError: if there is no router.
        ValueError: if it is damaged, no table over a vocabulary, or has too few validation sequences.
    """
    folder = compiled_folder(router) or compile_router(router)
    if read_config(folder)["alarm"] is None:
        raise ValueError(
            f"The router in `{router}` has too few validation sequences to know what is usual. Fit it with a larger"
            " validation split."
        )
    return folder

"""The compiled form of a router together with its alarm, whichever of them is there already."""

from pathlib import Path

from ir3de.compiling.alarm import compile_alarm
from ir3de.compiling.router import compile_router
from ir3de.routers import TokenTableRouter, load_router
from ir3de.serving.alarm import Alarm, has_alarm
from ir3de.serving.artifact import read_config
from ir3de.serving.source import compiled_folder


def compile_with_alarm(router: str) -> Path:
    """Return the compiled form of a router, a folder or the hub's, made if it is not there, with its alarm.

    Raises:
        FileNotFoundError: if there is no router, or one that is compiled elsewhere, without an alarm.
        ValueError: if it is damaged, no table over a vocabulary, or has too few validation sequences.
    """
    folder = compiled_folder(router)
    if folder is None:
        folder = compile_router(router)
    if folder.parent != Path(router):  # there is nothing here that one could be made from
        Alarm.load(folder, source=read_config(folder)["source"])
        return folder
    if has_alarm(folder):
        return folder
    loaded = load_router(router)
    if not isinstance(loaded, TokenTableRouter) or compile_alarm(loaded, folder) is None:
        raise ValueError(
            f"The router in `{router}` has too few validation sequences to know what is usual. Fit it with a larger"
            " validation split."
        )
    return folder

"""The router on disk: loaded, compiled where that is needed, and loaded again when it has changed."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from ir3de.files import written
from ir3de.gateway.metrics import Metrics
from ir3de.gateway.settings import GatewaySettings
from ir3de.hub_repositories import hub_id
from ir3de.serving.artifact import CONFIG, FOLDER
from ir3de.serving.compiled import CompiledRouter
from ir3de.serving.source import compiled_folder

_LOG = logging.getLogger(__name__)
_COMPILE = "import os, sys; os.nice(5); from ir3de.compiling.router import compile_router; compile_router(sys.argv[1])"
_AGAIN_SECONDS = 30.0  # after which a change that could not be read is tried again


async def load_router(settings: GatewaySettings, *, like: CompiledRouter | None = None) -> CompiledRouter:
    """Return the config's router, compiled if it is not, or no more; ``like`` is the one in whose place it comes.

    Raises:
        FileNotFoundError: if there is none, or no alarm where one is needed.
        ValueError: if it is damaged, cannot be compiled, or has no confidence to hold against the threshold.
    """
    folder = await asyncio.to_thread(compiled_folder, settings.router)
    if folder is None:
        path = Path(settings.router)
        await _compile(path)
        folder = await asyncio.to_thread(compiled_folder, path) or path / FOLDER
    router = await asyncio.to_thread(
        lambda: CompiledRouter.load(
            folder, window=settings.window, threshold=settings.threshold, alarm=settings.alarm_level, like=like
        )
    )
    if router.not_fast is not None and (like is None or router.reader is not like.reader):
        _LOG.info("text is read by the package tokenizers: %s", router.not_fast)
    if router.deaf is not None and (like is None or router.deaf != like.deaf):
        _LOG.warning("%s", router.deaf)
    if hub_id(settings.router) is not None:
        commit = folder.parent.name
        _LOG.info("%s is at commit %s; POST /admin/reload looks for a newer one", settings.router, commit)
    return router


async def watch(
    settings: Callable[[], GatewaySettings],
    served: Callable[[], CompiledRouter],
    put: Callable[[CompiledRouter], Awaitable[None]],
    metrics: Metrics,
    *,
    seen: tuple[object, ...],
    loading: asyncio.Lock,
) -> None:
    """Load the router again whenever it has changed on disk, for ever; one that cannot be read changes nothing.

    ``seen`` is its signature from before the served one was loaded. ``loading`` is held from the look at the settings
    until the router is put in; whoever else does so holds it, too, so that neither overtakes the other.
    One of the hub has no files here that could change: it is not watched.
    """
    loop = asyncio.get_running_loop()
    again: float | None = None
    while True:
        await asyncio.sleep(settings().watch_seconds)
        async with loading:
            now = signature(Path(settings().router))
            if now == seen and (again is None or loop.time() < again):
                continue
            failed, seen, again = again is not None, now, None
            try:
                router = await load_router(settings(), like=served())
                if router.config == served().config:  # compiled here, or written again as it was
                    if failed:
                        _LOG.info("the router can be read again; it is the one that is served")
                    continue
                await put(router)
            except Exception as error:  # whatever it is, the next change is to be noticed
                metrics.reloads.labels("failed").inc()
                unforeseen = not isinstance(error, (ValueError, OSError))
                _LOG.warning("the changed router cannot be used, the one before stays: %s", error, exc_info=unforeseen)
                again = loop.time() + _AGAIN_SECONDS
                continue
            metrics.reloads.labels("ok").inc()
            _LOG.info("the router has changed: %s, experts %s", router.identity[:16], ", ".join(router.expert_names))


def signature(router: Path) -> tuple[object, ...]:
    """Return what changes with a router on disk."""
    return tuple(written(path) for path in (router / "config.json", router / CONFIG, router / FOLDER / CONFIG))


async def _compile(router: Path) -> None:
    """Compile in another process: it needs torch and a processor for some seconds, and nobody is to wait for it."""
    _LOG.info("compiling the router in %s; this takes some seconds, once for each change", router)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _COMPILE, str(router.resolve()),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if "KEY" not in name.upper()},
    )  # fmt: skip
    try:
        _, said = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise ValueError(f"The router in `{router}` could not be compiled: {last[0] if last else 'it was ended'}.")

"""One gateway from its start to its stop."""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ir3de.gateway.admin import Admin
from ir3de.gateway.answering import Answering
from ir3de.gateway.answers import Expert
from ir3de.gateway.app import Interface, build_app
from ir3de.gateway.keys import Keys
from ir3de.gateway.live_traffic import LiveTraffic, prepare_folder
from ir3de.gateway.metrics import Metrics
from ir3de.gateway.roster import Roster
from ir3de.gateway.router_files import load_router, signature, watch
from ir3de.gateway.settings import GatewaySettings, LocalSettings
from ir3de.gateway.upstream import open_session

_LOG = logging.getLogger(__name__)
_IDLE_SECONDS = 75.0  # for which a client's unused connection stays open, and a request's head may take
_BACKLOG = 2048  # connections that wait to be accepted


class Gateway:
    """Listens, answers, watches the router, and stops without cutting an answer short.

    Args:
        settings: The config.
        keys: Who may ask.
        environment: Where upstreams' keys are.
        read_again: Returns the config as it is now.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        keys: Keys,
        environment: Mapping[str, str],
        read_again: Callable[[], GatewaySettings],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._environment = environment
        self._read_again = read_again
        self._local: Any = None
        self._session: aiohttp.ClientSession | None = None
        self._answering: Answering | None = None
        self._runner: web.AppRunner | None = None
        self._traffic = LiveTraffic()
        self._watching: list[asyncio.Task[None]] = []
        self.address = ""

    @property
    def running(self) -> int:
        """The number of requests that are being answered."""
        return 0 if self._answering is None else self._answering.running

    async def start(self) -> None:
        """Load everything, then listen.

        Raises:
            FileNotFoundError: if the router or an expert is not there.
            ValueError: if one cannot be used, or there is no expert.
            OSError: if the port is taken.
        """
        settings, metrics = self._settings, Metrics()
        self._session = open_session()
        roster = Roster(
            settings, session=self._session, environment=self._environment, metrics=metrics, load_local=self._load_local
        )
        await self._prepare(settings)
        seen, loading = signature(Path(settings.router)), asyncio.Lock()
        await roster.put_settings(settings, await load_router(settings))
        self._answering = Answering(roster, metrics, self._traffic)

        async def reload() -> None:
            async with loading:
                found = await asyncio.to_thread(self._read_again)
                await self._prepare(found)
                await roster.put_settings(found, await load_router(found, like=roster.served.router))

        admin = Admin(roster, self._keys, reload, self._traffic)
        app = build_app(Interface(roster, self._answering, metrics, self._keys), admin)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, keepalive_timeout=_IDLE_SECONDS, auto_decompress=False,
            logger=_LOG, shutdown_timeout=0.2,
        )  # fmt: skip
        await self._runner.setup()
        listening = _listen(settings.host, settings.port)
        await web.SockSite(self._runner, listening, backlog=_BACKLOG).start()
        host, port = listening.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        watching = watch(
            lambda: roster.settings, lambda: roster.served.router, roster.put_router, metrics,
            seen=seen, loading=loading,
        )  # fmt: skip
        saving = self._traffic.save_every(lambda: roster.settings.traffic_seconds)
        self._watching = [asyncio.create_task(watching), asyncio.create_task(saving)]

    async def stop(self) -> None:
        """Accept nothing new, let what is being answered be answered, and close."""
        for watching in self._watching:
            watching.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            if self._answering is not None:
                self._answering.stopping = True  # answers close their connections from now on
                await self._until_idle(self._answering)
            await self._runner.cleanup()
        try:
            await self._traffic.save()
        except Exception as error:  # the session is closed, whatever it was
            _LOG.warning("the last counts of prompts are lost: %s: %s", type(error).__name__, error)
        if self._session is not None:
            await self._session.close()

    async def _prepare(self, settings: GatewaySettings) -> None:
        if settings.traffic is not None:
            await asyncio.to_thread(prepare_folder, settings.traffic)

    async def _until_idle(self, answering: Answering) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + answering.limits.stop_seconds
        while answering.running and loop.time() < end:
            await asyncio.sleep(0.02)
        if answering.running:
            _LOG.warning("%d requests were not answered in time", answering.running)

    def _load_local(self, name: str, source: str, settings: LocalSettings) -> Expert:
        if self._local is None or self._local.settings != settings:
            try:
                from ir3de.gateway.local_bank import LocalBank  # noqa: PLC0415 - loads torch, for local experts alone
            except ImportError as error:
                raise ValueError(
                    f"The expert `{name}` is local, which needs the package {error.name}. Run `pip install ir3de`, or"
                    " serve it from an upstream."
                ) from error
            self._local = LocalBank(settings)
        _LOG.info("loading the expert %s from %s", name, source)
        expert: Expert = self._local.load(name, source)
        return expert


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"Expected `host` to be an address of this machine, but got `{host}` ({error}).") from error
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        raise OSError(
            f"Cannot listen on {host}:{port} ({error.strerror}). Stop what does, or set another `port`."
        ) from error
    return found

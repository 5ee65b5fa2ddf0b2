"""The roster: which experts are served, as the config, the router and admins have it; changed one change at a time."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from ir3de.gateway.answers import Expert
from ir3de.gateway.metrics import Metrics
from ir3de.gateway.served import Member, Served
from ir3de.gateway.settings import GatewaySettings, LocalSettings, Place, Upstream, check_expert
from ir3de.gateway.upstream import UpstreamExpert
from ir3de.serving.compiled import CompiledRouter

_LOG = logging.getLogger(__name__)


class Roster:
    """Keeps ``served`` up to date.

    Args:
        settings: The config.
        session: What upstreams are asked through.
        environment: Where upstreams' keys are.
        metrics: Where the number of experts is shown.
        load_local: Loads a local expert, given its name, where it is and the settings; called in a thread.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        session: aiohttp.ClientSession,
        environment: Mapping[str, str],
        metrics: Metrics,
        load_local: Callable[[str, str, LocalSettings], Expert],
    ) -> None:
        self.settings = settings
        self.missing: dict[str, str] = {}  # experts that should be served, and why they are not
        self._served: Served | None = None
        self._session = session
        self._environment = environment
        self._metrics = metrics
        self._load_local = load_local
        self._added: Mapping[str, Place] = {}
        self._removed: frozenset[str] = frozenset()
        self._changing = asyncio.Lock()

    @property
    def served(self) -> Served:
        """What is served now."""
        assert self._served is not None, "a router is put in before the first request"
        return self._served

    async def put_router(self, router: CompiledRouter) -> None:
        """Decide with ``router`` from now on, and serve its experts where the config says where they are."""
        async with self._changing:
            await self._serve(_Wish(router, self.settings, self._added, self._removed))

    async def put_settings(self, settings: GatewaySettings, router: CompiledRouter) -> None:
        """Serve what a config says, without what admins have changed.

        Raises:
            ValueError: if an expert that it names cannot be had, none can, or the fallback is none of them; nothing
                has changed then.
        """
        async with self._changing:
            await self._serve(_Wish(router, settings, {}, frozenset()), needed=settings.experts, check=_check_config)

    async def add(self, name: str, place: Place | None) -> None:
        """Serve an expert; without ``place`` where the config says it is.

        Raises:
            ValueError: if its upstream is not the config's, or it cannot be had; nothing has changed then.
        """
        async with self._changing:
            router, settings = self.served.router, self.settings
            added = {key: value for key, value in self._added.items() if key != name}
            if place is not None:
                check_expert(name, place, settings.upstreams)
                added[name] = place
            elif name not in settings.experts and (settings.others is None or name not in router.expert_names):
                raise ValueError(f"The config does not say where `{name}` is. Give one of its upstreams, and a model.")
            await self._serve(_Wish(router, settings, added, self._removed - {name}), needed=[name])
            _LOG.info("added the expert %s", name)

    async def remove(self, name: str) -> None:
        """Ask an expert no more; what it is answering it answers.

        Raises:
            KeyError: if there is none.
        """
        async with self._changing:
            if name not in self.served.members:
                raise KeyError(name)
            added = {key: place for key, place in self._added.items() if key != name}
            await self._serve(_Wish(self.served.router, self.settings, added, self._removed | {name}))
            _LOG.info("removed the expert %s", name)

    async def _serve(self, wish: "_Wish", *, needed: Iterable[str] = (), check: "_Check | None" = None) -> None:
        """Make what is not there yet, and serve it in the place of what was served, if ``check`` does not refuse it."""
        before = self._served.members if self._served is not None else {}
        places, upstreams = wish.places(), wish.settings.upstreams
        members: dict[str, Member] = {}
        missing = {name: "nothing says where it is" for name in wish.router.expert_names if name not in wish.removed}
        for name, place in places.items():
            missing.pop(name, None)
            upstream = None if place.upstream is None else upstreams[place.upstream]
            about = upstream if upstream is not None else wish.settings.local
            kept = before.get(name)
            if kept is not None and (kept.place, kept.about) == (place, about):
                members[name] = kept
                continue
            try:
                members[name] = Member(await self._expert(name, place, about), place, about)
            except (ValueError, OSError) as error:
                if name in needed:
                    raise
                missing[name] = str(error)
        if check is not None:
            check(wish.settings, members, missing)
        for name, why in missing.items():
            if self.missing.get(name) != why:
                _LOG.warning("the expert %s is not served: %s", name, why)
        self.missing = missing
        self.settings, self._added, self._removed = wish.settings, wish.added, wish.removed
        self._served = Served(wish.router, members)
        self._metrics.experts.set(len(members))

    async def _expert(self, name: str, place: Place, about: Upstream | LocalSettings) -> Expert:
        if isinstance(about, LocalSettings):
            assert place.local is not None, "a place has one or the other"
            return await asyncio.to_thread(self._load_local, name, place.local, about)
        assert place.upstream is not None, "a place has one or the other"
        return UpstreamExpert(
            self._session,
            url=about.url,
            model=place.model or name,
            key=upstream_key(place.upstream, about, self._environment),
            limits=lambda: self.settings.limits,
        )


@dataclass(frozen=True)
class _Wish:
    """What is to be served: by the router, by the config, and by what admins have added and removed."""

    router: CompiledRouter
    settings: GatewaySettings
    added: Mapping[str, Place]
    removed: frozenset[str]

    def places(self) -> dict[str, Place]:
        """Return where each expert is that is to be served."""
        others = self.settings.others
        wanted: dict[str, Place] = {}
        if others is not None:
            wanted = {name: _beside(others, name) for name in self.router.expert_names}
        wanted |= {**self.settings.experts, **self.added}
        return {name: place for name, place in wanted.items() if name not in self.removed}


_Check = Callable[[GatewaySettings, Mapping[str, Member], Mapping[str, str]], None]


def _check_config(settings: GatewaySettings, members: Mapping[str, Member], missing: Mapping[str, str]) -> None:
    """Refuse a config with which nothing could be answered, or whose fallback could not answer."""
    if not members:
        raise ValueError(f"Expected at least one expert to serve, but got none: {missing}.")
    if settings.fallback is not None and settings.fallback not in members:
        why = f" ({missing[settings.fallback]})" if settings.fallback in missing else ""
        raise ValueError(f"Expected the fallback to be one of {sorted(members)}, but got `{settings.fallback}`{why}.")


def _beside(others: Place, name: str) -> Place:
    if others.local is None:
        return others
    return replace(others, local=str(Path(others.local).resolve() / name))


def upstream_key(name: str, upstream: Upstream, environment: Mapping[str, str]) -> str | None:
    """Return an upstream's key, or ``None`` if it has none.

    Raises:
        ValueError: if the variable is not set, or what it holds can be no key.
    """
    if upstream.key_env is None:
        return None
    key = environment.get(upstream.key_env, "").strip()
    if not key:
        raise ValueError(
            f"Expected the key of the upstream `{name}` in the variable {upstream.key_env}, but it is not set."
        )
    if not (key.isascii() and key.isprintable()):
        raise ValueError(
            f"Expected the key of the upstream `{name}` in the variable {upstream.key_env} to be printable ASCII on one"
            " line, but it has other characters."
        )
    return key

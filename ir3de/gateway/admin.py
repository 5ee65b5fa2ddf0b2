"""Admins' calls: experts come and go, the config is read again, drift is told; every address stays the config's."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ir3de.gateway.errors import ApiError, json_response
from ir3de.gateway.keys import ADMIN_KEYS, Keys
from ir3de.gateway.live_traffic import LiveTraffic
from ir3de.gateway.reading import read_object
from ir3de.gateway.roster import Roster
from ir3de.gateway.settings import Place

_LONGEST_MODEL = 256


class Admin:
    """The endpoints that admins call.

    Args:
        roster: What is served.
        keys: Who may call.
        reload: Reads the config and the router again.
        traffic: What has counted prompts.
    """

    def __init__(
        self, roster: Roster, keys: Keys, reload: Callable[[], Coroutine[Any, Any, None]], traffic: LiveTraffic
    ) -> None:
        self._roster = roster
        self._keys = keys
        self._reload = reload
        self._traffic = traffic

    def routes(self) -> list[web.RouteDef]:
        """Return the endpoints."""
        return [
            web.get("/admin/experts", self._experts),
            web.put("/admin/experts/{name:.+}", self._add),
            web.delete("/admin/experts/{name:.+}", self._remove),
            web.post("/admin/reload", self._read_again),
            web.get("/admin/drift", self._drift),
        ]

    async def _experts(self, request: web.Request) -> web.Response:
        self._check(request)
        return self._shown()

    async def _add(self, request: web.Request) -> web.Response:
        self._check(request)
        given = await read_object(request, self._roster.settings.limits) if request.can_read_body else {}
        try:
            await _to_its_end(self._roster.add(request.match_info["name"], _place(given)))
        except (ValueError, OSError) as error:
            raise ApiError(400, "invalid_expert", str(error)) from None
        return self._shown()

    async def _remove(self, request: web.Request) -> web.Response:
        self._check(request)
        try:
            await _to_its_end(self._roster.remove(request.match_info["name"]))
        except KeyError:
            raise ApiError(404, "no_such_expert", "No such expert is served.") from None
        return self._shown()

    async def _read_again(self, request: web.Request) -> web.Response:
        self._check(request)
        try:
            await _to_its_end(self._reload())
        except (ValueError, OSError) as error:
            raise ApiError(400, "invalid_config", str(error)) from None
        return self._shown()

    async def _drift(self, request: web.Request) -> web.Response:
        self._check(request)
        router, folder = self._roster.served.router, self._roster.settings.traffic
        if folder is None:
            raise ApiError(404, "no_traffic", "Prompts are not counted: the config does not set `traffic`.")
        try:
            found = await self._traffic.drift(folder, router)
        except ValueError as error:
            raise ApiError(409, "no_comparison", str(error)) from None
        except OSError as error:
            raise ApiError(500, "traffic_not_written", f"The counts of prompts cannot be written: {error}.") from None
        return json_response({"router": router.identity, **asdict(found)})

    def _check(self, request: web.Request) -> None:
        if not self._keys.admin_possible:
            raise ApiError(403, "no_admins", f"Nobody may change what is served: {ADMIN_KEYS} is not set.")
        if not self._keys.is_admin(request.headers.get("Authorization")):
            raise ApiError(401, "invalid_api_key", "Expected `Authorization: Bearer KEY` with an admin's key.")

    def _shown(self) -> web.Response:
        served = self._roster.served
        experts = {
            name: {
                "upstream": member.place.upstream,
                "model": (member.place.model or name) if member.place.upstream is not None else None,
                "local": member.place.local,
                "routed": name in served.router.expert_names,
                "failures_in_a_row": member.failures,
            }
            for name, member in sorted(served.members.items())
        }
        return json_response({"router": served.router.identity, "experts": experts, "not_served": self._roster.missing})


async def _to_its_end(change: Coroutine[Any, Any, None]) -> None:
    """Make a change, also when whoever asked for it goes away: a load in a thread goes on anyhow."""
    await asyncio.shield(asyncio.ensure_future(change))


def _place(given: dict[str, Any]) -> Place | None:
    if not given:
        return None
    unknown = sorted(given.keys() - {"upstream", "model"})
    if unknown:
        raise ValueError(f"Expected `upstream` and `model`, but got {unknown}. Addresses come from the config.")
    model = given.get("model")
    if not isinstance(given.get("upstream"), str):
        raise ValueError("Expected `upstream` to be the name of one of the config's upstreams.")
    if model is not None and not (isinstance(model, str) and 0 < len(model) <= _LONGEST_MODEL and model.isprintable()):
        raise ValueError(f"Expected `model` to be 1 to {_LONGEST_MODEL} printable characters.")
    return Place(upstream=given["upstream"], model=model)

"""What is compared: routers by the names of their configs, and saved ones by their folders."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ir3de.configs import find_config, read_config
from ir3de.modules.router_module import RouterModule
from ir3de.routers import RandomRouter, ReferenceRouter, Router, TrainedRouter
from ir3de.routers.artifact import CONFIG
from ir3de.suggestions import RouterParser, with_suggestion

DEFAULT = (
    "ir3de", "ir3de_all", "ir3de_mean", "ir3de_bayes", "naive_bayes", "knn", "logistic", "mlp", "mlp_tokens", "modem",
    "best_single", "random", "oracle", "loss_oracle",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One line of the comparison: a router's config, to be fitted, or the folder of a saved one."""

    name: str
    config: dict[str, Any] | None
    saved: Path | None

    def module(self) -> RouterModule:
        """Return the config's module, unfitted.

        Raises:
            ValueError: if the config is none of a router's.
        """
        assert self.config is not None, "a saved router has no module"
        parser = _ModuleParser()
        parser.add_class_arguments(RouterModule, "model")
        try:
            return parser.instantiate_classes(parser.parse_object({"model": self.config})).model
        except (ValueError, TypeError, KeyError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"The config of the router `{self.name}` is none of a router's: {why}") from error


class _ModuleParser(RouterParser):
    """Raises what is wrong in the place of ending the program."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(with_suggestion(message, self))


def find_entries(
    routers: Sequence[str], *, place_experts: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> list[Entry]:
    """Return what ``routers`` name: ``knn``, ``routers/knn.yaml``, a config of one's own, or a saved router's folder.

    A router is called as its config below ``routers/`` (``paper_knn``), or as its file. A folder may be the router's
    own or that of its run. ``place_experts`` puts the bank's experts where a config names
    them.

    Raises:
        FileNotFoundError: if a config is not found.
        ValueError: if two have one name.
    """
    entries = []
    for given in routers:
        folder = next((path for path in (Path(given), Path(given) / "router") if (path / CONFIG).is_file()), None)
        if folder is not None:
            entries.append(Entry(_slug(str(folder).removesuffix("/router")), None, folder.resolve()))
        else:
            path = given if given.endswith((".yaml", ".yml")) else f"routers/{given}.yaml"
            _, folder_of_routers, below = path.rpartition("routers/")
            name = str(Path(below).with_suffix("")) if folder_of_routers else Path(path).stem
            entries.append(Entry(_slug(name), place_experts(read_config(find_config(path))), None))
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Expected every router once, but {twice} are named twice. Give each config a file name of its own."
        )
    return entries


def seeds_of(router: Router, seeds: int) -> list[int]:
    """Return the seeds that a router is fitted with: one where nothing in it is drawn."""
    drawn = isinstance(router, TrainedRouter | RandomRouter) or not router.closed_form
    return list(range(seeds)) if drawn else [0]


def is_reference(router: Router) -> bool:
    """Return whether a router is a bound or chance, which nobody would use."""
    return isinstance(router, ReferenceRouter)


def _slug(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.-]+", "_", name).strip("_./")

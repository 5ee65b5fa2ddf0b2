"""The local experts' weights: opened, checked against the memory that is free, and loaded."""

import threading
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from transformers import PreTrainedModel

from ir3de.console import quieten
from ir3de.experts.adapters import SharedBase
from ir3de.experts.expert_tokenizer import load_expert_tokenizer
from ir3de.experts.memory import choose_residence, free_bytes
from ir3de.experts.open_weights import open_weights
from ir3de.experts.weights import Weights
from ir3de.gateway.local import LocalExpert
from ir3de.gateway.local_model import LocalModel, Turns
from ir3de.gateway.settings import LocalSettings

_LONGEST = 4096  # tokens, for a model whose configuration does not say


class LocalBank:
    """Loads experts; adapters over one base share its weights and its turns, for as long as there is one of them.

    Raises:
        ValueError: if this machine does not have the device.
    """

    def __init__(self, settings: LocalSettings) -> None:
        quieten()
        self._settings = settings
        self._device = _device(settings.device)
        self._dtype: torch.dtype = getattr(torch, settings.dtype)
        self._bases: WeakValueDictionary[str, SharedBase] = WeakValueDictionary()
        self._turns: WeakKeyDictionary[Weights, Turns] = WeakKeyDictionary()  # by the bases' weights
        self._loading = threading.Lock()

    @property
    def settings(self) -> LocalSettings:
        """What its experts are loaded with."""
        return self._settings

    def load(self, name: str, source: str) -> LocalExpert:
        """Return the expert whose weights are in ``source``, loaded; of calls at a time, one waits for the other.

        Raises:
            FileNotFoundError: if the path leads nowhere.
            ValueError: if it holds no model or no tokenizer, or memory is too short.
        """
        try:
            with self._loading:
                return self._load(name, source)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"Expert `{name}`: {error}") from error
        except ValueError as error:  # some, as json's, cannot be made from a sentence
            raise ValueError(f"Expert `{name}`: {error}") from error

    def _load(self, name: str, source: str) -> LocalExpert:
        weights = open_weights(source, base=self._base)
        tokenizer = load_expert_tokenizer(source, fallback=self._settings.tokenizer)
        base = weights.shared_base
        if base is None:
            model = self._on_device(name, weights)
            turns = Turns(self._settings.waiting)
            load = lambda: model  # noqa: E731
        else:
            turns = self._turns.setdefault(base, Turns(self._settings.waiting))
            load = lambda: self._adapted(weights)  # noqa: E731
            turns.first(load)  # refuses an adapter that does not fit
        return LocalExpert(
            name,
            LocalModel(
                load,
                tokenizer=tokenizer,
                turns=turns,
                context_length=int(getattr(weights.config, "max_position_embeddings", None) or _LONGEST),
                max_tokens=self._settings.max_tokens,
            ),
        )

    def _on_device(self, name: str, weights: Weights) -> PreTrainedModel:
        size = weights.parameters() * torch.empty(0, dtype=self._dtype).element_size()
        choose_residence({name: size}, free_bytes(self._device), "all")
        model: Any = weights.load(self._dtype)
        placed: PreTrainedModel = model.to(self._device)
        return placed

    def _adapted(self, weights: Weights) -> PreTrainedModel:
        model: Any = weights.load(self._dtype)
        placed: PreTrainedModel = model.to(self._device)
        return placed

    def _base(self, named: str) -> SharedBase:
        base = self._bases.get(named)
        if base is None:
            base = self._bases[named] = SharedBase(open_weights(named, base=self._base))
        return base


def _device(asked: str) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    possible = ["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    possible += ["mps"] if torch.backends.mps.is_available() else []
    if asked not in possible:
        raise ValueError(
            f"Expected `local.device` to be one of {', '.join(possible)} on this machine, where torch"
            f" {torch.__version__} finds {gpus} CUDA GPUs, but got {asked!r}."
        )
    return torch.device(("cuda" if gpus else "cpu") if asked == "auto" else asked)

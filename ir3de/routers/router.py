"""What every router is: a module from token ids to one score per expert."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ir3de.functional.votes import check_prompts
from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import ROUTER, Artifact, read_artifact, stored_files, tensor_bytes, write_artifact
from ir3de.routers.card import CARD, router_card
from ir3de.routers.hub import push_files, router_folder
from ir3de.types import Batch, RoutingDecision

Prompts = Sequence[str] | Sequence[Sequence[int]]


class Router(nn.Module, ABC):
    """Scores prompts over experts; the expert with the highest score is chosen, ties go to the lower index.

    ``expert_names`` is in alphabetical order, and empty before the router is fitted. ``closed_form`` says that a
    callback fits the router from statistics; otherwise an optimizer trains its parameters. ``features`` are the vectors
    of sequences that it reads, made once for each data set; without them it reads token ids. ``training_sequences``
    bounds the training sequences of each domain that such a router, or a gradient-trained one, reads.
    """

    expert_names: tuple[str, ...] = ()
    closed_form: bool = False
    features: SequenceFeatures | None = None
    training_sequences: int | None = None

    @property
    def reads_vectors(self) -> bool:
        """Whether batches carry the vectors that ``features`` made, in the place of token ids."""
        return self.features is not None

    @property
    @abstractmethod
    def tokenizer(self) -> TextTokenizer | None:
        """The router's own tokenizer, read when it is first needed; ``None`` for one that reads no text."""

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return scores ``(B, E)`` float64 for ids ``(B, T)`` int64 with a mask ``(B, T)`` bool, no row empty."""

    def score_batch(self, batch: Batch) -> Tensor:
        """Return scores ``(B, E)`` for a batch of the data module: of its vectors, where ``features`` made them."""
        scores_BE: Tensor = self(batch["input_ids"], batch["attention_mask"])
        return scores_BE

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what the router was configured with: plain values, equal for equal routers."""

    def begin(self, expert_names: Sequence[str], sequences_E: Tensor) -> None:
        """Take over the experts, before a fit that no callback does, with each domain's training sequences."""
        self.expert_names = tuple(expert_names)

    def siblings(self) -> dict[str, "Router"]:
        """Return the routers, by display name, that the same fit gives for nothing."""
        return {}

    @property
    def display_name(self) -> str:
        """The router's name in tables."""
        return type(self).__name__

    def decide_batch(self, batch: Batch) -> RoutingDecision:
        """Choose an expert for each row of a batch of the data module."""
        return self.decide(batch["input_ids"], batch["attention_mask"])

    def decide(self, input_ids: Tensor, attention_mask: Tensor) -> RoutingDecision:
        """Choose an expert for each prompt.

        Raises:
            ValueError: if a prompt is empty, an id is out of range, or the router is not fitted.
        """
        self._check_fitted()
        if not len(input_ids):
            return self._decision(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))
        check_prompts(attention_mask)
        return self._decision(*self.best(input_ids, attention_mask))

    def best(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expert ``(B,)`` int64 with the highest score, and that score ``(B,)``."""
        return highest(self(input_ids, attention_mask))

    def route(self, prompts: Prompts) -> RoutingDecision:
        """Choose an expert for each prompt, given as text or as token ids of the router's own tokenizer.

        Raises:
            ValueError: if there is no prompt, a prompt is empty (its row is named), or an id is out of range.
        """
        return self.decide(*self._batch(prompts))

    def scores(self, prompts: Prompts) -> Tensor:
        """Return the scores of all experts ``(B, E)``, in the order of ``expert_names``; see ``route``."""
        ids_BT, mask_BT = self._batch(prompts)
        check_prompts(mask_BT)
        scores_BE: Tensor = self(ids_BT, mask_BT)
        return scores_BE

    def _check_fitted(self) -> None:
        if not self.expert_names:
            raise ValueError("Expected a fitted router, but this one has no experts. Run `python main.py fit` first.")

    def _batch(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        self._check_fitted()
        if len(prompts) == 0 or isinstance(prompts, str):
            raise ValueError(f"Expected a list of prompts, but got {prompts!r}.")
        if not isinstance(prompts[0], str):
            return pad_rows(list(prompts))
        if self.tokenizer is None:
            raise ValueError(
                f"The {self.display_name} router reads no text: it takes part in `test` and `compare` only."
            )
        return pad_rows(self.tokenizer.encode([str(prompt) for prompt in prompts]))

    def _decision(self, expert_B: Tensor, score_B: Tensor) -> RoutingDecision:
        return RoutingDecision([self.expert_names[i] for i in expert_B.tolist()], expert_B, score_B)

    @property
    def num_parameters(self) -> int:
        """Numbers that a decision is made with, an encoder's included."""
        own = sum(tensor.numel() for tensor in self.tensors().values())
        return own + (self.features.num_parameters if self.features is not None else 0)

    def chosen(self) -> dict[str, Any]:
        """Return what is in force of the things that can be chosen on validation data."""
        return {}

    def reads(self) -> dict[str, Any]:
        """Return what the router reads text with: fingerprints of its tokenizer, and of the tables or model it has."""
        found: dict[str, Any] = {} if self.tokenizer is None else {"tokenizer": self.tokenizer.fingerprint}
        return found if self.features is None else {**found, "features": self.features.fingerprint}

    def experts(self) -> dict[str, Any]:
        """Return what is known of each expert, by name: plain values."""
        return {name: {} for name in self.expert_names}

    def identity(self) -> dict[str, Any]:
        """Return what the router is a function of: settings, choices, fingerprints, and what each expert gave."""
        return {
            "router": type(self).__name__,
            "settings": self.settings(),
            "chosen": self.chosen(),
            "reads": self.reads(),
            "experts": self.experts(),
        }

    def identity_hash(self) -> str:
        """Return the SHA-256 of ``identity``."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the router as a folder, in one step; equal routers are equal bytes.

        Raises:
            ValueError: if the router is not fitted.
            OSError: if it cannot be written; a router that was there is left as it was.
        """
        if not self.expert_names:
            raise ValueError(f"Expected a fitted router to save in `{folder}`. Run `python main.py fit` first.")
        write_artifact(Path(folder), self._config(), self.files())

    def push_to_hub(
        self, repository: str, *, private: bool = False, token: str | None = None, message: str = "Push a router"
    ) -> str:
        """Put the router into the hub's repository ``owner/name``, as one commit, and return the commit's address.

        Its card has no numbers, and there is no compiled form; ``python main.py push`` pushes a saved router with both.
        ``token`` is that of ``HF_TOKEN`` or of ``hf auth login`` if it is not given.

        Raises:
            ValueError: if the router is not fitted, there is no token, or the hub refuses.
        """
        self._check_fitted()
        config = self._config()
        card = router_card(config, repository, compiled=False)
        files = {**stored_files(config, self.files()), CARD: card.encode()}
        return push_files(repository, files, private=private, message=message, token=token)

    def _config(self) -> dict[str, Any]:
        return self.identity() | {"identity": self.identity_hash(), **self.about()}

    def files(self) -> dict[str, bytes]:
        """Return the content of the artifact's files, by name."""
        tokenizer = self.tokenizer
        return {ROUTER: tensor_bytes(self.tensors()), **({} if tokenizer is None else tokenizer.files())}

    def about(self) -> dict[str, Any]:
        """Return what ``config.json`` says beside the identity."""
        return {}

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what ``router.safetensors`` holds."""

    @classmethod
    def from_pretrained(cls, source: Path | str, *, revision: str | None = None) -> Self:
        """Read a router from a folder, or from the hub's ``owner/name`` at a revision; it needs none of the experts.

        Raises:
            FileNotFoundError: if there is no saved router, or the hub does not give one.
            ValueError: if a file is damaged, the tokenizer is another one, or the router is of another class.
        """
        return cls.from_artifact(read_artifact(router_folder(source, revision=revision)))

    @classmethod
    @abstractmethod
    def from_artifact(cls, artifact: Artifact) -> Self:
        """Return the router that ``artifact`` holds; see ``from_pretrained``."""

    @classmethod
    def check_artifact(cls, artifact: Artifact) -> None:
        """Refuse a router of another class.

        Raises:
            ValueError: if ``artifact`` holds one.
        """
        if artifact.config["router"] != cls.__name__:
            raise ValueError(
                f"Expected a {cls.__name__} in `{artifact.folder}`, but it holds a {artifact.config['router']}."
            )

    def check_reads(self, artifact: Artifact) -> None:
        """Refuse an artifact that was made with another tokenizer, table or model than this router reads with.

        Raises:
            ValueError: if something differs; it is named.
        """
        there = artifact.config["reads"]
        differing = [key for key, value in self.reads().items() if there.get(key) != value]
        if differing:
            raise ValueError(
                f"The router in `{artifact.folder}` was made for another {' and '.join(differing)} than is there now."
                " Bring back what it was fitted with, or fit again."
            )


def highest(scores_BE: Tensor) -> tuple[Tensor, Tensor]:
    """Return the expert ``(B,)`` int64 with the highest score, the first of equals, and that score ``(B,)``."""
    expert_B = scores_BE.argmax(dim=1)  # argmax returns the first of equals
    return expert_B, scores_BE.gather(1, expert_B[:, None]).squeeze(1)


def pad_rows(rows: Sequence[ArrayLike]) -> tuple[Tensor, Tensor]:
    """Return ids ``(B, T)`` int64, padded on the right, and their mask ``(B, T)`` bool."""
    ids = [np.asarray(row, dtype=np.int64) for row in rows]
    lengths_B = torch.tensor([len(row) for row in ids])
    mask_BT = torch.arange(max(1, int(lengths_B.max()))) < lengths_B[:, None]
    ids_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
    ids_BT[mask_BT] = torch.from_numpy(np.concatenate(ids))
    return ids_BT, mask_BT

"""k nearest neighbours: the training sequences most like the prompt vote."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ir3de.pretrained.features import SequenceFeatures
from ir3de.routers.choose import Choice
from ir3de.routers.feature_router import FeatureRouter, unit_length
from ir3de.statistics.feature_rows import FeatureRows

K_CANDIDATES = (5, 1, 3, 10, 20, 50)
_SIMILARITIES_AT_ONCE = 1 << 24  # 64 MiB


class KNNRouter(FeatureRouter):
    """The k training vectors of highest cosine vote; ties go to the lower expert.

    Args:
        features: What makes a sequence's vector, such as a sentence encoder.
        k: How many neighbours vote; null chooses it on validation data.
        index: `exact` compares with every vector; `hnsw` is FAISS's graph, approximate, for banks of millions.
        training_sequences: At most so many training sequences of each domain; null takes all.
    """

    def __init__(
        self,
        *,
        features: SequenceFeatures,
        k: int | None = None,
        index: Literal["exact", "hnsw"] = "exact",
        training_sequences: int | None = None,
    ) -> None:
        if k is not None and k < 1:
            raise ValueError(f"Expected `k` to be at least 1 or null, but got {k}.")
        super().__init__(features=features, training_sequences=training_sequences, settings={"k": k, "index": index})
        self.k = k or K_CANDIDATES[0]
        self._hnsw: Any = None
        self.register_buffer("bank_ND", torch.empty(0), persistent=False)
        self.register_buffer("domain_N", torch.empty(0, dtype=torch.int64), persistent=False)

    bank_ND: Tensor
    domain_N: Tensor

    @property
    def display_name(self) -> str:
        return f"kNN-{self.k} ({self.features.display_name})"

    def choices(self) -> list[Choice]:
        held = sum(share.tokens for share in self._fitted().shares.values())
        return [] if self._settings["k"] else [{"k": k} for k in K_CANDIDATES if k <= held] or [{"k": 1}]

    def explore(self) -> Iterator[Choice]:
        """Put the router into each of ``choices``: the bank is the same for all."""
        self.solve(self._fitted())
        for choice in self.choices():
            self.put(choice)
            yield choice

    def solve(self, statistics: FeatureRows) -> None:
        """Put the training vectors, at length one, into the bank.

        Raises:
            ValueError: if there are fewer of them than ``k``, or FAISS is needed and missing.
        """
        bank_ND, domain_N = statistics.training()
        if self.k > len(bank_ND):
            raise ValueError(
                f"Expected `k` to be at most the training sequences in the bank, {len(bank_ND)}, but got {self.k}."
                " Set a smaller `k`, or raise `training_sequences`."
            )
        self.take({"bank": unit_length(bank_ND), "domain": domain_N})

    def score_features(self, features_BD: Tensor) -> Tensor:
        query_BD = unit_length(features_BD)
        num_experts = len(self.expert_names)
        votes_BE = torch.zeros(len(query_BD), num_experts, dtype=torch.float64, device=query_BD.device)
        step = max(1, _SIMILARITIES_AT_ONCE // len(self.bank_ND))
        for first in range(0, len(query_BD), step):
            domain_BK = self.domain_N[self._nearest(query_BD[first : first + step])]
            votes_BE[first : first + step].scatter_add_(1, domain_BK, torch.ones_like(domain_BK, dtype=torch.float64))
        return votes_BE / self.k

    def _nearest(self, query_BD: Tensor) -> Tensor:
        if self._hnsw is None:
            return (query_BD @ self.bank_ND.T).topk(self.k, dim=1).indices
        _, found_BK = self._hnsw.search(np.ascontiguousarray(query_BD.cpu().numpy()), self.k)
        return torch.from_numpy(found_BK).to(query_BD.device)

    def chosen(self) -> Choice:
        return {"k": self.k}

    def put(self, chosen: Choice) -> None:
        self.k = chosen["k"]

    def tensors(self) -> dict[str, Tensor]:
        return {"bank": self.bank_ND, "domain": self.domain_N}

    def take(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.bank_ND, self.domain_N = tensors["bank"], tensors["domain"]
            self._hnsw = _hnsw(self.bank_ND) if self._settings["index"] == "hnsw" else None


def _hnsw(bank_ND: Tensor) -> Any:
    try:
        import faiss  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ValueError("`index: hnsw` needs the package faiss-cpu. Run `pip install 'ir3de[faiss]'`.") from None
    index = faiss.IndexHNSWFlat(bank_ND.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 128
    index.add(np.ascontiguousarray(bank_ND.numpy()))
    return index

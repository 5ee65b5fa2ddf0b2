"""The mean of a sequence's input token embeddings."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ir3de.pretrained.embeddings import load_embedding_table, table_fingerprint
from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer


class TokenMeans(SequenceFeatures):
    """The mean of the input token embeddings: no model is run.

    Args:
        embeddings: Whose tokenizer and input embedding table: a hub id, a folder, a GGUF file or package:NAME.
    """

    pooling = "mean"
    window = None

    def __init__(self, embeddings: str) -> None:
        self.embeddings = embeddings

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return load_tokenizer(self.embeddings)

    @cached_property
    def table_VD(self) -> Tensor:
        """The table ``(V, D)`` float32."""
        return load_embedding_table(self.embeddings)

    @property
    def num_features(self) -> int:
        return self.table_VD.shape[1]

    @property
    def num_parameters(self) -> int:
        return self.table_VD.numel()

    @cached_property
    def model_fingerprint(self) -> str:
        return table_fingerprint(self.table_VD)

    def pooled(self, ids_BT: Tensor, mask_BT: Tensor, *, masked: bool = True) -> dict[str, Tensor]:
        lengths_B = mask_BT.sum(dim=1)
        offsets_B = lengths_B.cumsum(dim=0) - lengths_B
        table_VD = self.table_VD.to(ids_BT.device)
        return {"mean": torch.nn.functional.embedding_bag(ids_BT[mask_BT], table_VD, offsets_B, mode="mean")}

    def settings(self) -> dict[str, Any]:
        return {"embeddings": self.embeddings}

    @property
    def display_name(self) -> str:
        return "mean token embeddings"

"""Training sequences with their losses under every expert: what a fit on losses reads in the place of domains."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ir3de.data.dataset import NO_ROW, BlockDataset
from ir3de.data.sample import SampledBlocks
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.types import LossBatch


class LossRows(Dataset[LossBatch]):
    """Some of a split's sequences: as the experts read them (``blocks``), and as batches for the router.

    Args:
        dataset: The split in the experts' tokenizer.
        rows: Which of its rows.
        router: The router's tokenizer, where it is another one.
        masked_id: The id between documents, which is no text.
    """

    def __init__(
        self, dataset: BlockDataset, rows: np.ndarray, *, router: TextTokenizer | None, masked_id: int | None
    ) -> None:
        self._dataset = dataset
        self._rows = rows
        self._router = router
        self._masked_id = masked_id
        self.losses_NE: Tensor | None = None  # (N, E) float64, nats per token; set before batches are asked for

    @property
    def blocks(self) -> SampledBlocks:
        """The sequences in the experts' tokenizer, numbered from 0."""
        return SampledBlocks(self._dataset, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Sequence[int]) -> LossBatch:
        """Return a batch; ``NO_ROW`` is a row that is fully masked."""
        assert self.losses_NE is not None, "computed before the fit begins"
        real = [i for i in index if i != NO_ROW]
        if self._router is None:
            batch = self._dataset.__getitems__(self._rows[real]) if real else self._dataset.__getitems__([NO_ROW])
            tokens = [
                ids_T[mask_T & (ids_T != (-1 if self._masked_id is None else self._masked_id))].numpy()
                for ids_T, mask_T in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            ][: len(real)]
        else:
            tokens = self._router.encode(self._dataset.texts(self._rows[real].tolist())) if real else []
        lengths = torch.tensor([len(row) for row in tokens], dtype=torch.int64)
        return {
            "ids": torch.from_numpy(np.concatenate([*tokens, np.zeros(0, dtype=np.int32)]).astype(np.int64)),
            "lengths": lengths,
            "losses": self.losses_NE[real],
        }

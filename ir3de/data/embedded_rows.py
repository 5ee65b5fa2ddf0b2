"""The vectors of sequences under a frozen model: computed once for each data set, in parts, and kept in the cache."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import Dataset

from ir3de.console import console
from ir3de.data.dataset import NO_ROW
from ir3de.data.sample import SampledBlocks
from ir3de.files import replace_file
from ir3de.pretrained.features import SequenceFeatures, windows_of
from ir3de.types import Batch

ROWS_PER_PART = 256
_SEQUENCES_AT_ONCE = 16
_VERSION = 1


class EmbeddedRows(Dataset[Batch]):
    """Some rows of a split as vectors; ``compute`` makes them, whatever was computed before is read.

    ``seconds`` is what all of them took when they were computed, and ``windowed`` how many rows were longer than the
    model's window, and so are averages of windows.

    Args:
        rows: The rows, in the features' tokenizer.
        features: What makes the vectors. All its poolings are kept, for they come of one pass.
        cache: The folder of all vectors.
        title: What is being embedded, for the progress bar.
        masked: Whether padding is masked; see ``Faults.drop_encoder_masks``.
    """

    def __init__(
        self, rows: SampledBlocks, features: SequenceFeatures, *, cache: Path, title: str, masked: bool = True
    ) -> None:
        self._rows = rows
        self._features = features
        made_of = [_VERSION, rows.fingerprint, features.model_fingerprint, features.tokenizer.fingerprint]
        identity = json.dumps(made_of if masked else [*made_of, "without masks"])
        self._masked = masked
        self._folder = cache / hashlib.sha256(identity.encode()).hexdigest()[:24]
        self._title = title
        self.vectors_ND = torch.empty(0)
        self._domain_N = torch.from_numpy(rows.domains())
        self.seconds = 0.0
        self.computed_seconds = 0.0  # of what this very process did
        self.windowed = 0

    def compute(self, *, rank: int, world_size: int, device: torch.device, barrier: Callable[[], object]) -> None:
        """Compute the parts that are missing, every process its share of them, and read all."""
        firsts = range(0, len(self._rows), ROWS_PER_PART)
        missing = [first for first in firsts if not self._part(first).is_file()]
        barrier()  # everybody has seen the same parts
        mine = missing[rank::world_size]
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=console(stderr=True), disable=rank != 0 or not mine, transient=True) as bar:
            task = bar.add_task(f"Embedding {self._title} ({self._features.display_name})", total=len(mine))
            began = time.perf_counter()
            for first in mine:
                replace_file(self._part(first), self._embed(first, device))
                bar.advance(task)
            self.computed_seconds = time.perf_counter() - began
        barrier()
        parts = [self._read(first) for first in firsts]
        self.vectors_ND = torch.cat([part[self._features.pooling] for part in parts])
        self.seconds = sum(float(part["seconds"]) for part in parts)
        self.windowed = sum(int(part["windowed"]) for part in parts)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        """Return a batch of vectors, without token ids; ``NO_ROW`` is a row of zeros."""
        index_B = torch.tensor(list(index))
        real_B = index_B != NO_ROW
        features_BD = torch.where(real_B[:, None], self.vectors_ND[index_B.clamp(min=0)], 0)
        domain_B = self._domain_N[index_B.clamp(min=0)].where(real_B, 0)
        nothing = torch.empty(len(index_B), 0, dtype=torch.int64)
        return {
            "input_ids": nothing,
            "attention_mask": nothing.bool(),
            "features": features_BD,
            "domain": domain_B,
            "index": index_B,
        }

    def domains(self) -> np.ndarray:
        """Return the domain of every row, ``(N,)`` int64."""
        return self._domain_N.numpy()

    def _embed(self, first: int, device: torch.device) -> bytes:
        began = time.perf_counter()
        places = list(range(first, min(first + ROWS_PER_PART, len(self._rows))))
        batch = self._rows[places]
        lengths_B = batch["attention_mask"].sum(dim=1)
        if not bool((lengths_B > 0).all()):
            raise ValueError(
                f"Expected tokens in every row to embed, but row {places[int(lengths_B.argmin())]} has none."
            )
        # rows of like length together: little padding
        order = lengths_B.argsort(stable=True) if self._masked else torch.arange(len(lengths_B))
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for some in order.split(_SEQUENCES_AT_ONCE):
                width = int(batch["attention_mask"][some].nonzero()[:, 1].max()) + 1
                ids_BT = batch["input_ids"][some, :width].to(device)
                mask_BT = batch["attention_mask"][some, :width].to(device)
                for pooling, vectors_BD in self._features.pooled(ids_BT, mask_BT, masked=self._masked).items():
                    found.setdefault(pooling, []).append(vectors_BD.cpu())
        back = order.argsort()
        tensors = {pooling: torch.cat(parts)[back].contiguous() for pooling, parts in found.items()}
        window = self._features.window
        tensors["windowed"] = torch.tensor(sum(len(windows_of(n, window)) > 1 for n in lengths_B.tolist()))
        tensors["seconds"] = torch.tensor(time.perf_counter() - began, dtype=torch.float64)
        return save(tensors)

    def _part(self, first: int) -> Path:
        return self._folder / f"{first // ROWS_PER_PART:06}.safetensors"

    def _read(self, first: int) -> dict[str, Tensor]:
        path = self._part(first)
        try:
            return load(path.read_bytes())
        except (SafetensorError, OSError) as error:
            raise ValueError(f"`{path}` holds no whole vectors ({error}). Delete it; it is made again.") from error

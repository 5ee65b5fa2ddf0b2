"""Features in context: hidden states of a language model's layer, or a sentence encoder's vectors."""

import hashlib
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ir3de.pretrained.encoder import load_encoder
from ir3de.pretrained.features import SequenceFeatures, average_windows, windows_of
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer

Pooling = Literal["tokens", "mean", "first", "last"]


class _States(NamedTuple):
    """Hidden states of windows ``(W, T, D)``, the text's tokens ``(W, T)``, their sequences ``(W,)``, real ends."""

    hidden_WTD: Tensor
    text_WT: Tensor
    row_W: Tensor
    last_W: Tensor


class HiddenStates(SequenceFeatures):
    """A layer's hidden states. What is longer than the model has positions is read in windows of even lengths.

    Args:
        model: Whose hidden states: a hub id, a folder or package:NAME, with safetensors or a pytorch_model.bin.
        layer: Which layer: 0 is the embeddings, -1 the last.
        pooling: `tokens` gives a row for every token, the others one for the sequence: the mean of its tokens, its
            first (a BERT's [CLS]) or its last; of several windows, the mean of theirs.
    """

    def __init__(
        self, model: str, *, layer: int = -1, pooling: Literal["tokens", "mean", "first", "last"] = "mean"
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling: Pooling = pooling

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return load_tokenizer(self.model)

    @cached_property
    def encoder(self) -> PreTrainedModel:
        """The model, in evaluation mode and without gradients."""
        loaded = load_encoder(self.model)
        layers = loaded.config.num_hidden_layers
        if not -layers - 1 <= self.layer <= layers:
            raise ValueError(
                f"Expected `layer` from {-layers - 1} to {layers} in `{self.model}`, but got {self.layer}."
            )
        return loaded

    @property
    def num_features(self) -> int:
        return int(self.encoder.config.hidden_size)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.encoder.parameters())

    @property
    def window(self) -> int | None:
        limit = getattr(self.encoder.config, "max_position_embeddings", None)
        prefix, suffix = self._around
        return None if limit is None else int(limit) - len(prefix) - len(suffix)

    @cached_property
    def model_fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.layer}".encode())
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().float().numpy().tobytes())
        return digest.hexdigest()

    def settings(self) -> dict[str, Any]:
        return {"model": self.model, "layer": self.layer, "pooling": self.pooling}

    @property
    def display_name(self) -> str:
        return self.model.rstrip("/").split("/")[-1].removeprefix("package:")

    def rows(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(B, T, D)`` float32 and their mask ``(B, T)``; T is 1 where a sequence has one row.

        The model's own special tokens are put around each window, and are no rows of ``tokens`` or ``mean``.
        """
        if self.pooling != "tokens":
            pooled_BD = self(ids_BT, mask_BT)
            return pooled_BD[:, None], torch.ones(len(pooled_BD), 1, dtype=torch.bool, device=ids_BT.device)
        states = self._states(ids_BT, mask_BT)
        lengths_B = mask_BT.sum(dim=1)
        real_BT = torch.arange(int(lengths_B.max()), device=mask_BT.device) < lengths_B[:, None]
        rows_BTD = states.hidden_WTD.new_zeros(*real_BT.shape, states.hidden_WTD.shape[2])
        rows_BTD[real_BT] = states.hidden_WTD[states.text_WT]  # windows are in the order of their sequences
        return rows_BTD, real_BT

    def pooled(self, ids_BT: Tensor, mask_BT: Tensor, *, masked: bool = True) -> dict[str, Tensor]:
        hidden_WTD, text_WT, row_W, last_W = self._states(ids_BT, mask_BT, masked=masked)
        tokens_W = text_WT.sum(dim=1)
        mean_WD = hidden_WTD.masked_fill(~text_WT[..., None], 0).sum(dim=1) / tokens_W[:, None]
        ends_WD = hidden_WTD[torch.arange(len(hidden_WTD), device=last_W.device), last_W]
        same_W = torch.ones_like(tokens_W)
        return {
            "mean": average_windows(mean_WD, row_W, tokens_W, len(ids_BT)),
            "first": average_windows(hidden_WTD[:, 0], row_W, same_W, len(ids_BT)),
            "last": average_windows(ends_WD, row_W, same_W, len(ids_BT)),
        }

    def _states(self, ids_BT: Tensor, mask_BT: Tensor, *, masked: bool = True) -> _States:
        prefix, suffix = (part.to(ids_BT) for part in self._around)
        windows, rows = [], []
        for row, (tokens_T, real_T) in enumerate(zip(ids_BT, mask_BT, strict=True)):  # whatever side the padding is on
            real = tokens_T[real_T]
            pieces = [real[piece] for piece in windows_of(len(real), self.window)]
            windows += [torch.cat([prefix, piece, suffix]) for piece in pieces]
            rows += [row] * len(pieces)
        shape = (len(windows), max(len(window) for window in windows))
        ids_WT = torch.zeros(shape, dtype=torch.int64, device=ids_BT.device)
        seen_WT = torch.zeros(shape, dtype=torch.bool, device=ids_BT.device)
        text_WT = torch.zeros_like(seen_WT)
        for i, window in enumerate(windows):
            ids_WT[i, : len(window)] = window
            seen_WT[i, : len(window)] = True
            text_WT[i, len(prefix) : len(window) - len(suffix)] = True
        encoder = self.encoder.to(ids_BT.device)  # type: ignore[arg-type] # its decorator hides the parameters
        attended_WT = seen_WT if masked else torch.ones_like(seen_WT)
        states = encoder(input_ids=ids_WT, attention_mask=attended_WT.long(), output_hidden_states=True).hidden_states
        return _States(
            states[self.layer].float(), text_WT, torch.tensor(rows, device=ids_BT.device), seen_WT.sum(dim=1) - 1
        )

    @cached_property
    def _around(self) -> tuple[Tensor, Tensor]:
        """The special tokens that the model's tokenizer puts before and after a text."""
        backend = self.tokenizer.backend
        plain = backend.encode("a", add_special_tokens=False).ids
        whole = backend.encode("a", add_special_tokens=True).ids
        first = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        return (
            torch.tensor(whole[:first], dtype=torch.int64),
            torch.tensor(whole[first + len(plain) :], dtype=torch.int64),
        )

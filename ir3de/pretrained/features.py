"""Features of tokens in their context: hidden states of a language model's layer, or a sentence encoder's vectors."""

import hashlib
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.locate import local_path, unreachable
from ir3de.pretrained.tokenizer import TextTokenizer

Pooling = Literal["tokens", "mean", "first", "last"]


class HiddenStates:
    """A frozen model as a function from token ids to features; loaded when it is first needed.

    Args:
        model: Whose hidden states: a hub id or a folder with safetensors.
        layer: Which layer: 0 is the embeddings, -1 the last.
        pooling: ``tokens`` gives a row for every token, the others one for the sequence: the mean of its tokens, its
            first (a BERT's [CLS]) or its last.
    """

    def __init__(self, model: str, *, layer: int = -1, pooling: Pooling = "mean") -> None:
        self.model = model
        self.layer = layer
        self.pooling: Pooling = pooling

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The model's own tokenizer."""
        return load_tokenizer(self.model)

    @cached_property
    def encoder(self) -> PreTrainedModel:
        """The model, in evaluation mode and without gradients."""
        path = local_path(self.model)
        try:
            loaded = AutoModel.from_pretrained(str(path or self.model), use_safetensors=True)
        except (OSError, ValueError) as error:
            where = f"`{path}` holds no model that transformers can read." if path else unreachable(self.model)
            raise ValueError(f"{where} ({str(error).splitlines()[0]})") from error
        layers = loaded.config.num_hidden_layers
        if not -layers - 1 <= self.layer <= layers:
            raise ValueError(
                f"Expected `layer` from {-layers - 1} to {layers} in `{self.model}`, but got {self.layer}."
            )
        model: PreTrainedModel = loaded.eval().requires_grad_(False)
        return model

    @property
    def num_features(self) -> int:
        """Features of a row."""
        return int(self.encoder.config.hidden_size)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the model's weights, the layer and the pooling."""
        digest = hashlib.sha256(f"{self.layer} {self.pooling}".encode())
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().float().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(B, T, D)`` float32 and their mask ``(B, T)``; T is 1 where a sequence has one row.

        The model's own special tokens are put around each sequence, and are no rows of ``tokens`` or ``mean``.

        Raises:
            ValueError: if a sequence is longer than the model has positions: it would have to be cut.
        """
        lengths_B = mask_BT.sum(dim=1)
        prefix, suffix = self._around
        width = len(prefix) + int(lengths_B.max()) + len(suffix)
        limit = getattr(self.encoder.config, "max_position_embeddings", None)
        if limit is not None and width > limit:
            raise ValueError(
                f"Expected sequences of at most {limit} tokens with the special ones, as many as `{self.model}` has"
                f" positions, but got {width}. Set `data.block_length` to less, or take another model."
            )
        ids = torch.zeros(len(ids_BT), width, dtype=torch.int64, device=ids_BT.device)
        text = torch.zeros(len(ids_BT), width, dtype=torch.bool, device=ids_BT.device)
        seen = torch.zeros_like(text)
        for row, (tokens, real) in enumerate(zip(ids_BT, mask_BT, strict=True)):  # on the right, whatever side it was
            whole = torch.cat([prefix.to(ids), tokens[real], suffix.to(ids)])
            ids[row, : len(whole)] = whole
            seen[row, : len(whole)] = True
            text[row, len(prefix) : len(whole) - len(suffix)] = True
        encoder = self.encoder.to(ids_BT.device)  # type: ignore[arg-type] # its decorator hides the parameters
        states = encoder(input_ids=ids, attention_mask=seen.long(), output_hidden_states=True).hidden_states
        hidden_BTD = states[self.layer].float()
        if self.pooling == "tokens":
            return hidden_BTD, text
        if self.pooling == "mean":
            pooled_BD = hidden_BTD.masked_fill(~text[..., None], 0).sum(dim=1) / lengths_B[:, None]
        elif self.pooling == "first":
            pooled_BD = hidden_BTD[:, 0]
        else:
            pooled_BD = hidden_BTD[torch.arange(len(hidden_BTD)), seen.sum(dim=1) - 1]
        return pooled_BD[:, None], torch.ones(len(pooled_BD), 1, dtype=torch.bool, device=ids_BT.device)

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

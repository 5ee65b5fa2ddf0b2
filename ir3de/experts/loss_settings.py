"""How the loss table is made, or where it is taken from: the key ``experts.losses`` of a config."""

from dataclasses import dataclass

from ir3de.experts.bank import DTypeName
from ir3de.experts.memory import Residence


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """How the losses of every sequence under every expert are computed.

    Args:
        dtype: The one precision of all experts and all uses; the losses themselves are always summed in float64 from
            float32 logits.
        residence: Whether experts stay in memory once loaded: `all`, `one` at a time, or `auto`, which estimates what
            they need before anything is loaded.
        batch_size: Sequences of a forward pass, on each process. It changes losses by rounding only.
        embeddings_layer: Also keep, for every sequence and expert, the mean over its tokens of this layer's hidden
            states, from the same pass: 0 is the token embeddings, -1 the last layer; null keeps none.
        adapter_base: The base model of all adapters of the bank, in the place of the one that their own configuration
            names.
        table: A table of scores made elsewhere (CSV or Parquet), in the place of computed losses; see docs/experts.md.
    """

    dtype: DTypeName = "float32"
    residence: Residence = "auto"
    batch_size: int = 16
    embeddings_layer: int | None = None
    adapter_base: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"Expected `experts.losses.batch_size` to be at least 1, but got {self.batch_size}.")

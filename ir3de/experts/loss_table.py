"""The loss table: every sequence's loss under every expert, computed once and read by every router's evaluation."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ir3de.experts.bank import WEIGHT_AVERAGE
from ir3de.files import replace_file
from ir3de.functional.quality import Measure, domain_quality

_METADATA = b"ir3de_loss_table"
_VERSION = 2


@dataclass(frozen=True, slots=True)
class LossTable:
    """Losses of a split's ``N`` sequences under ``E`` experts; row ``i`` is the split's row ``i``.

    ``nll_NE`` is ``(N, E)`` float64, the sum of the sequence's next-token losses in nats, a column per name in
    ``expert_names``. ``tokens_N`` and ``domain_N`` are ``(N,)`` int64: the targets summed over, and the true domain.
    ``average_nll_N`` is ``(N,)`` float64 under the average of the experts' weights, where there is one.
    ``own_nll_N`` is ``(N,)`` float64 under each domain's own expert where that was evaluated otherwise than the rest
    (``faults.own_dtype``). ``key`` says of what the table was computed, see ``loss_table_key``.
    """

    nll_NE: Tensor
    tokens_N: Tensor
    domain_N: Tensor
    expert_names: tuple[str, ...]
    key: str
    average_nll_N: Tensor | None = None
    own_nll_N: Tensor | None = None

    def __post_init__(self) -> None:
        num_rows = len(self.tokens_N)
        assert self.nll_NE.shape == (num_rows, len(self.expert_names))
        assert self.nll_NE.dtype == torch.float64
        assert self.domain_N.shape == (num_rows,)
        assert self.average_nll_N is None or self.average_nll_N.shape == (num_rows,)

    @property
    def measure(self) -> Measure:
        """What the values make."""
        return "perplexity"

    @property
    def values_NE(self) -> Tensor:
        """The losses."""
        return self.nll_NE

    @property
    def weights_N(self) -> Tensor:
        """The targets of each sequence."""
        return self.tokens_N

    @property
    def average_N(self) -> Tensor | None:
        """The losses under the average of weights."""
        return self.average_nll_N

    @property
    def own_N(self) -> Tensor:
        """The losses under each sequence's own expert, which normalized performance is relative to."""
        if self.own_nll_N is not None:
            return self.own_nll_N
        return self.nll_NE.gather(1, self.domain_N[:, None]).squeeze(1)

    @property
    def best_N(self) -> Tensor:
        """The expert with the lowest loss on each sequence; the first of equals."""
        return self.nll_NE.argmin(dim=1)

    @property
    def cost_NE(self) -> Tensor | None:
        """Nothing is known of costs."""
        return None

    def perplexity(self, domains: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the perplexity ``[member][domain]``: exp of a domain's NLL over its tokens; NaN without a target.

        Members are the experts, then ``weight_average`` where it is there.
        """
        members = dict(zip(self.expert_names, self.nll_NE.T, strict=True))
        if self.average_nll_N is not None:
            members[WEIGHT_AVERAGE] = self.average_nll_N
        domain_DN = torch.nn.functional.one_hot(self.domain_N, len(domains)).T.double()
        tokens_D = domain_DN @ self.tokens_N.double()
        return {
            member: dict(zip(domains, domain_quality(domain_DN @ nll_N, tokens_D, self.measure).tolist(), strict=True))
            for member, nll_N in members.items()
        }

    def save(self, path: Path) -> None:
        """Write the table as Parquet in one step, with checksums."""
        columns = {"domain": self.domain_N.numpy(), "tokens": self.tokens_N.numpy()}
        columns |= {
            f"nll:{name}": column.numpy() for name, column in zip(self.expert_names, self.nll_NE.T, strict=True)
        }
        if self.average_nll_N is not None:
            columns["average_nll"] = self.average_nll_N.numpy()
        header = {"version": _VERSION, "key": self.key, "expert_names": self.expert_names}
        table = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
        buffer = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({_METADATA: json.dumps(header)}), buffer, write_page_checksum=True)
        replace_file(path, buffer.getvalue().to_pybytes())

    @classmethod
    def load(cls, path: Path, *, key: str | None = None) -> Self:
        """Read a table that ``save`` wrote.

        Args:
            path: The Parquet file.
            key: The key that the table must have, if that is to be checked.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged, is not a loss table, or has another key.
        """
        if not path.is_file():
            raise FileNotFoundError(f"Expected a loss table at `{path}`, but there is no such file.")
        try:
            table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
            header = json.loads((table.schema.metadata or {})[_METADATA])
            names = tuple(header["expert_names"])
            column = {name: torch.from_numpy(table[name].to_numpy().copy()) for name in table.column_names}
            nll_NE = torch.stack([column[f"nll:{name}"] for name in names], dim=1)
            loaded = cls(
                nll_NE, column["tokens"], column["domain"], names, str(header["key"]), column.get("average_nll")
            )
            version = header["version"]
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"`{path}` is no readable loss table ({type(error).__name__}: {str(error).splitlines()[0]})."
                " Delete it; it will be computed again."
            ) from error
        if version != _VERSION:
            raise ValueError(f"`{path}` has format {version}, and this version reads {_VERSION}. Delete it.")
        if key is not None and loaded.key != key:
            raise ValueError(
                f"`{path}` was computed of other data or experts (key {loaded.key[:12]}, expected {key[:12]})."
                " Delete it; it will be computed again."
            )
        return loaded


def loss_table_key(
    *, data_fingerprint: str, expert_fingerprints: dict[str, str], precision: str, average: bool = False
) -> str:
    """Return the SHA-256 of all that decides a table: the sequences, the experts in their order, the precision."""
    content = [_VERSION, data_fingerprint, list(expert_fingerprints.items()), precision, average]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

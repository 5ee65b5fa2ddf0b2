"""Counts of live prompts: integers that add, in memory that does not grow with the number of prompts."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

Array = np.ndarray
GROUPS = 32
USUAL = 0.05  # a prompt with a smaller p-value is counted as unusual
ARRAYS = ("places", "counts", "prompts", "unusual")


@dataclass(frozen=True)
class Traffic:
    """What was counted of some prompts of one router, in ``GROUPS`` groups; adding two is counting both.

    A prompt's group is a hash of its content, so that the counts do not depend on the order, and a prompt that comes
    again and again is in one group. How much groups differ says how far the whole is due to chance.

    ``tokens_GV`` are the token counts, ``prompts_GE`` the prompts by the expert that they went to, and ``unusual_GE``
    those of them with a p-value below ``USUAL``, all int64. ``identity`` is that of the router.
    """

    tokens_GV: Array
    prompts_GE: Array
    unusual_GE: Array
    expert_names: tuple[str, ...]
    identity: str

    @classmethod
    def none(cls, *, vocab_size: int, expert_names: Sequence[str], identity: str) -> Self:
        """Return the counts of no prompts."""
        groups = [np.zeros((GROUPS, size), dtype=np.int64) for size in (vocab_size, len(expert_names))]
        return cls(groups[0], groups[1], groups[1].copy(), tuple(expert_names), identity)

    @property
    def prompts(self) -> int:
        """How many prompts were counted."""
        return int(self.prompts_GE.sum())

    @property
    def tokens(self) -> int:
        """How many tokens were counted."""
        return int(self.tokens_GV.sum())

    def count(self, ids_T: Array, *, expert: int, unusual: bool) -> None:
        """Count a prompt that was routed: its token ids, within the vocabulary, and the expert's index."""
        group = zlib.crc32(np.ascontiguousarray(ids_T, dtype="<i4").data) % GROUPS
        np.add.at(self.tokens_GV[group], ids_T, 1)
        self.prompts_GE[group, expert] += 1
        self.unusual_GE[group, expert] += unusual

    def __add__(self, other: Self) -> Self:
        """Return the counts of both.

        Raises:
            ValueError: if they are of different routers.
        """
        if self.identity != other.identity:
            raise ValueError(
                f"Expected counts of one router to add, but got those of {self.identity[:12]} and"
                f" {other.identity[:12]}. Count the prompts again with one router."
            )
        return type(self)(
            self.tokens_GV + other.tokens_GV, self.prompts_GE + other.prompts_GE, self.unusual_GE + other.unusual_GE,
            self.expert_names, self.identity,
        )  # fmt: skip

    def arrays(self) -> dict[str, Array]:
        """Return the counts as arrays without the zeros of ``tokens_GV``; equal counts give equal arrays."""
        flat_M = self.tokens_GV.ravel()
        places_S = np.flatnonzero(flat_M)
        return dict(zip(ARRAYS, (places_S, flat_M[places_S], self.prompts_GE, self.unusual_GE), strict=True))

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Array], *, vocab_size: int, expert_names: Sequence[str], identity: str
    ) -> Self:
        """Return the counts that ``arrays`` gave."""
        traffic = cls.none(vocab_size=vocab_size, expert_names=expert_names, identity=identity)
        traffic.tokens_GV.ravel()[arrays["places"]] = arrays["counts"]
        traffic.prompts_GE[:] = arrays["prompts"]
        traffic.unusual_GE[:] = arrays["unusual"]
        return traffic

    def to_bytes(self) -> bytes:
        """Return the counts as an ``.npz`` file."""
        about = {"experts": self.expert_names, "identity": self.identity, "vocab_size": self.tokens_GV.shape[1]}
        content = io.BytesIO()
        named: dict[str, Any] = {**self.arrays(), "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
        np.savez_compressed(content, **named)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str) -> Self:
        """Return the counts that ``to_bytes`` gave; ``name`` is for the error.

        Raises:
            ValueError: if there are none, whatever the damage.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:  # which checks what it reads, before it is believed
                parts = {part: archive.read(f"{part}.npy") for part in ("about", *ARRAYS)}
            found = {part: np.load(io.BytesIO(some), allow_pickle=False) for part, some in parts.items()}
            about = json.loads(found["about"].tobytes())
            return cls.from_arrays(
                found, vocab_size=about["vocab_size"], expert_names=about["experts"], identity=about["identity"]
            )
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib, NumPy and json raise nearly everything
            raise ValueError(f"Expected saved counts of prompts in {name}, but it holds none ({error}).") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the counts in a file that ``to_bytes`` made.

        Raises:
            FileNotFoundError: if there is none.
            OSError: if it cannot be read now, which says nothing about what it holds.
            ValueError: if it holds no such counts.
        """
        if not path.is_file():
            raise FileNotFoundError(f"Expected saved counts of prompts at `{path}`, but there is no such file.")
        return cls.from_bytes(path.read_bytes(), name=f"`{path}`")

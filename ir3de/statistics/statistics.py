"""What every domain contributes to a closed-form router, as a value: experts are added, removed and merged on it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np


class Share(Protocol):
    """One domain's contribution; adding two is reading both texts.

    ``sources`` ``(P,)`` int64, ascending, has 64 bits of the SHA-256 of every training document (or shard of a file)
    that was read, so that nothing is read twice unnoticed.
    """

    @property
    def sources(self) -> np.ndarray: ...

    @property
    def empty(self) -> bool: ...

    def __add__(self, other: Self, /) -> Self: ...

    def facts(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=Share)


@dataclass(frozen=True)
class Statistics(ABC, Generic[S]):
    """A share for every expert, always in the order of their names.

    ``basis`` is what two statistics must have in common to be put together (the tokenizer's fingerprint, for example).
    """

    shares: dict[str, S]
    basis: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", dict(sorted(self.shares.items())))

    @property
    def names(self) -> tuple[str, ...]:
        """The experts, in the order in which they are summed, solved and saved."""
        return tuple(self.shares)

    def with_expert(self, name: str, share: S) -> Self:
        """Return the statistics with one expert more.

        Raises:
            ValueError: if there is an expert of this name, the share is empty, or its sources have been read already.
        """
        self.check_new(name)
        check_share(name, share)
        self._check_sources({name: share})
        return replace(self, shares=self.shares | {name: share})

    def check_new(self, name: str) -> None:
        """Refuse a name that an expert has.

        Raises:
            ValueError: if there is one.
        """
        if name in self.shares:
            raise ValueError(
                f"Expected a new expert's name, but `{name}` exists already ({_list(self.names)})."
                f" Choose another name, or remove `{name}` first."
            )

    def check_domain(self, name: str) -> None:
        """Refuse, before anything is read, an expert that cannot be added by its domain's text alone.

        Raises:
            ValueError: if the name is taken, or more than the text is needed.
        """
        self.check_new(name)

    def without_expert(self, name: str) -> Self:
        """Return the statistics as if the expert's data had never been read.

        Raises:
            ValueError: if there is no such expert, or no other.
        """
        if name not in self.shares:
            raise ValueError(
                f"Expected the name of an expert to remove, but there is no `{name}` ({_list(self.names)})."
            )
        if len(self.shares) == 1:
            raise ValueError(f"Expected an expert to be left, but `{name}` is the last one. Delete the router instead.")
        return replace(self, shares={other: share for other, share in self.shares.items() if other != name})

    def merge(self, other: Self) -> Self:
        """Return the statistics of both; experts of equal names add.

        Raises:
            ValueError: if they have not the same basis, or share a source.
        """
        self.check_basis(other.basis)
        self._check_sources(other.shares)
        shares = dict(self.shares)
        for name, share in other.shares.items():
            shares[name] = shares[name] + share if name in shares else share
        return replace(self, shares=shares)

    def check_basis(self, basis: dict[str, Any]) -> None:
        """Refuse what was read in another way.

        Raises:
            ValueError: if ``basis`` is not that of these statistics; what differs is named.
        """
        differing = [f"{key} {_short(self.basis.get(key))} and {_short(basis[key])}" for key in sorted(basis)
                     if self.basis.get(key) != basis[key]]  # fmt: skip
        if differing:
            raise ValueError(
                f"Expected statistics that were made alike, but got {'; '.join(differing)}."
                " Read the text again with one tokenizer and one table."
            )

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the content of ``statistics.safetensors``; equal statistics are equal bytes."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, content: bytes, *, where: str) -> Self:
        """Read what ``to_bytes`` made.

        Raises:
            ValueError: if the content is truncated or something else; ``where`` names it.
        """

    def _check_sources(self, shares: dict[str, S]) -> None:
        for name, share in shares.items():
            for own_name, own in self.shares.items():
                common = np.intersect1d(own.sources, share.sources, assume_unique=True)
                if len(common):
                    raise ValueError(
                        f"{len(common)} of {len(share.sources)} sources of `{name}` have been read already, for"
                        f" `{own_name}`. Counting them twice would be wrong: leave them out of one of the two."
                    )


def content_hash(facts: dict[str, Any]) -> str:
    """Return the SHA-256 of what a share holds, of its ``facts``: counts, a Gram matrix, or rows."""
    return str(next(facts[key] for key in ("counts", "gram", "rows") if key in facts))


def check_share(name: str, share: Share) -> None:
    """Refuse an expert that nothing was read for.

    Raises:
        ValueError: if the share is empty.
    """
    if share.empty:
        raise ValueError(f"Expected training tokens for every domain, but `{name}` has none. Check its data.")


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:12])
    return f"there are {shown}" if len(names) <= 12 else f"there are {shown} and {len(names) - 12} more"


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 12 else str(value)

"""What a data module asks of a router: how it reads text."""

from typing import Protocol

from ir3de.pretrained.features import SequenceFeatures
from ir3de.pretrained.tokenizer import TextTokenizer


class Reader(Protocol):
    """Reads token ids of ``tokenizer`` (the experts' where it has none), or the vectors that ``features`` make."""

    @property
    def closed_form(self) -> bool: ...

    @property
    def tokenizer(self) -> TextTokenizer | None: ...

    @property
    def training_sequences(self) -> int | None: ...

    @property
    def features(self) -> SequenceFeatures | None: ...

    @property
    def reads_vectors(self) -> bool: ...

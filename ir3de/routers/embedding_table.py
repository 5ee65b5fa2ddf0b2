"""Token tables that are made with an embedding table: kept in the artifact as a copy, or by its fingerprint."""

from functools import cached_property
from typing import Any, Literal, Self

from ir3de.pretrained.embeddings import load_embedding_table, table_fingerprint
from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers.artifact import EMBEDDINGS, Artifact, tensor_bytes
from ir3de.routers.embeddings import Embeddings
from ir3de.routers.token_table import Selector, TokenTableRouter


class EmbeddingTableRouter(TokenTableRouter):
    """A token table with a tokenizer and an embedding table of its own; ``settings`` has ``embedding_table``."""

    def __init__(
        self,
        *,
        embeddings: str | Embeddings,
        tokenizer: str | None = None,
        embedding_table: Literal["copy", "pointer"],
        selector: Selector,
        k: int | None = None,
    ) -> None:
        super().__init__(selector=selector, k=k)
        self._embeddings = embeddings
        self._tokenizer = tokenizer
        self.embedding_table = embedding_table

    @cached_property
    def embeddings(self) -> Embeddings:
        """The tokenizer and the table, read when they are first needed."""
        given = self._embeddings
        return Embeddings.load(given, tokenizer=self._tokenizer) if isinstance(given, str) else given

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return self.embeddings.tokenizer

    @cached_property
    def _table(self) -> tuple[str, bytes]:
        """The table's fingerprint, and its file where the artifact has a copy: made once, it never changes."""
        table_VD = self.embeddings.table_VD
        return table_fingerprint(table_VD), tensor_bytes({"embeddings": table_VD})

    def with_settings(self, settings: dict[str, Any]) -> Self:
        return type(self)(embeddings=self.embeddings, **settings)

    def reads(self) -> dict[str, Any]:
        return super().reads() | {"embeddings": self._table[0]}

    def about(self) -> dict[str, Any]:
        table_VD = self.embeddings.table_VD
        shape = list(table_VD.shape)
        return super().about() | {"embeddings_source": self.embeddings.source, "embeddings_shape": shape}

    def files(self) -> dict[str, bytes]:
        return super().files() | ({EMBEDDINGS: self._table[1]} if self.embedding_table == "copy" else {})

    @classmethod
    def restored(cls, artifact: Artifact, tokenizer: TextTokenizer) -> Self:
        config, source = artifact.config, artifact.config["embeddings_source"]
        if config["settings"]["embedding_table"] == "copy":
            table_VD = artifact.tensors(EMBEDDINGS)["embeddings"]
        else:
            table_VD = load_embedding_table(source)
        if table_fingerprint(table_VD) != config["reads"]["embeddings"]:
            raise ValueError(
                f"The embedding table of `{source}` is not the one that the router in `{artifact.folder}` was fitted"
                f" with ({config['reads']['embeddings'][:12]}). Bring that one back, or fit again."
            )
        return cls(embeddings=Embeddings(source, tokenizer, table_VD), **config["settings"])

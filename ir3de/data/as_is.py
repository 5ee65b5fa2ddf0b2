"""Domains that come tokenized and split, and are used as they are: nothing is looked for, packed or copied twice."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as arrow_compute
import pyarrow.parquet as arrow_parquet

from ir3de.data.blocks import Sequences
from ir3de.data.cache import SequenceFile, write_sequences
from ir3de.data.corpus import cache_key
from ir3de.data.preparation import BlockSettings, check_range, encode_rows, sample
from ir3de.data.report import DomainReport
from ir3de.data.shards import Shard, parquet_shards, row_group_tokens
from ir3de.data.sources import Source, file_stamps
from ir3de.data.splits import SPLITS
from ir3de.data.tables import TokenizedParquet
from ir3de.files import cache_folder
from ir3de.pretrained.tokenizer import TextTokenizer

LABEL = "label"  # of published data: `input_ids` shifted by one, so that the last one follows the row
_VERSION = 2  # of what is written here; a new one makes old folders be ignored


@dataclass(frozen=True)
class AsIsDomain:
    """A domain of tokenized Parquet files with a source for each split."""

    name: str
    parts: dict[str, TokenizedParquet]

    @classmethod
    def of(cls, name: str, parts: list[tuple[str | None, Source]]) -> "AsIsDomain | None":
        """Return the domain, or None where its sources are to be prepared.

        Raises:
            ValueError: if some of its sources are to be used as they are and others are not.
        """
        as_is = {split: one for split, one in parts if isinstance(one, TokenizedParquet) and one.as_is}
        if not as_is:
            return None
        if len(as_is) < len(SPLITS) or None in as_is:
            raise ValueError(
                f"Expected `as_is: true` for each of train, validation and test of the domain `{name}`, but got it for"
                f" {sorted(str(split) for split in as_is)}. Rows that are not split already cannot be used as they are."
            )
        return cls(name, {str(split): one for split, one in as_is.items()})

    def report(self) -> DomainReport:
        """Return the numbers that the files' footers tell."""
        rows, tokens = {}, {}
        for split, source in self.parts.items():
            rows[split] = sum(arrow_parquet.read_metadata(file).num_rows for file in source.files())
            tokens[split] = sum(sum(row_group_tokens(file, source.field)) for file in source.files())
        nothing = dict.fromkeys(SPLITS[1:], float("nan"))
        return DomainReport(self.name, sum(rows.values()), {}, 0, 0, 0, 0, 0, 0, rows, nothing, rows, tokens)

    def shards(self, split: str, domain: int, *, masked_id: int | None, shard_tokens: int) -> list[Shard]:
        """Return the shards of a split; ``domain`` is the domain's number, ``masked_id`` a token that is no text."""
        source = self.parts[split]
        return [
            shard
            for file, stamp in zip(source.files(), file_stamps(source.files()), strict=True)
            for shard in parquet_shards(
                file,
                field=source.field,
                domain=domain,
                stamp=stamp,
                masked_id=masked_id,
                shard_tokens=shard_tokens,
            )
        ]

    def sequences(
        self, split: str, domain: int, *, vocab_size: int, settings: BlockSettings, cache: Path
    ) -> tuple[Path, str]:
        """Return a split's file of sequences and its content's hash, made when it is first asked for.

        Raises:
            ValueError: if a row has no value, or an id is not in the vocabulary.
        """
        limit, source = settings.max_blocks.get(split), self.parts[split]
        folder = cache / "blocks" / cache_key(_VERSION, "as is", source.identity(), limit, domain, vocab_size)
        path = folder / f"{split}.arrow"
        if not path.is_file():
            rows = _read(source, where=f"the {split} split of `{self.name}`", vocab_size=vocab_size)
            rows, _ = sample(rows, limit, f"{self.name}:{split}")
            with cache_folder(folder) as temporary:
                digest = write_sequences(temporary / path.name, rows, domain=domain)
                (temporary / "digest.json").write_text(json.dumps(digest))
        return path, json.loads((folder / "digest.json").read_text())

    def encoded(
        self, split: str, domain: int, *, tokenizer: TextTokenizer, router: TextTokenizer, settings: BlockSettings,
        cache: Path,
    ) -> tuple[Path, str]:  # fmt: skip
        """Return a split's rows in the router's tokenizer, of the text that the experts' tokenizer decodes them to."""
        path, digest = self.sequences(split, domain, vocab_size=tokenizer.vocab_size, settings=settings, cache=cache)
        folder = cache / "blocks" / cache_key(_VERSION, "decoded", digest, tokenizer.fingerprint, router.fingerprint)
        if not (folder / "digest.json").is_file():
            with cache_folder(folder) as temporary:
                views = encode_rows(SequenceFile(path), router, decode=tokenizer.decode)
                digest = write_sequences(temporary / path.name, views, domain=domain)
                (temporary / "digest.json").write_text(json.dumps(digest))
        return folder / path.name, json.loads((folder / "digest.json").read_text())


def _read(source: TokenizedParquet, *, where: str, vocab_size: int) -> Sequences:
    ids_M, length_N = _column(source, source.field, where)
    check_range([ids_M], vocab_size, where)
    offsets = np.concatenate([[0], np.cumsum(length_N)]).astype(np.int64)
    next_N = None
    if all(LABEL in arrow_parquet.read_schema(file).names for file in source.files()):
        label_M, label_length_N = _column(source, LABEL, where)
        check_range([label_M], vocab_size, where)
        last_N = offsets[1:][length_N > 0] - 1
        inner_M = np.ones(len(ids_M), dtype=bool)
        inner_M[last_N] = False  # the label of a row's last token is no token of the row
        shifted_M = np.roll(ids_M, -1)
        if not np.array_equal(length_N, label_length_N) or not np.array_equal(label_M[inner_M], shifted_M[inner_M]):
            raise ValueError(
                f"Expected `{LABEL}` to be `{source.field}` shifted by one in {where}, but it is not."
                " Rename that column if it means something else."
            )
        next_N = np.full(len(length_N), -1, dtype=np.int32)
        next_N[length_N > 0] = label_M[last_N]
    return Sequences(ids_M.astype(np.int32), offsets, length_N, np.arange(len(length_N)), None, next_N)


def _column(source: TokenizedParquet, name: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a column of lists as its values in a row ``(M,)`` and the length of each list ``(N,)`` int64."""
    columns = [arrow_parquet.read_table(file, columns=[name])[name] for file in source.files()]
    lists = pa.chunked_array([chunk for one in columns for chunk in one.chunks]).combine_chunks()
    values = lists.flatten()
    if lists.null_count or values.null_count:
        raise ValueError(f"Expected token ids in every row of `{name}` in {where}, but a row has no value.")
    length_N = arrow_compute.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return values.to_numpy(zero_copy_only=False), length_N

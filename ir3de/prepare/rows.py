"""Token ids of documents to rows of a split, written as Parquet: ``input_ids`` and ``label``, which is shifted by one.

Shape suffixes: ``N`` rows, ``T`` tokens of a row, ``M`` tokens in a run.
"""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as arrow_parquet

from ir3de.files import replace_file
from ir3de.prepare.journal import Journal, SplitState

_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "label")])
_ROWS_PER_GROUP = 1000


class SplitWriter:
    """Writes the rows of a split, file by file, and tells the journal of each.

    Packed, the documents are one run of tokens, cut into windows of ``block_length + 1`` that are ``block_length``
    apart; otherwise a document is a row, cut after ``block_length + 1`` tokens.
    """

    def __init__(
        self,
        journal: Journal,
        split: str,
        *,
        block_length: int,
        pack: bool,
        rows_per_file: int,
        max_tokens: int | None,
    ) -> None:
        self._journal = journal
        self._split = split
        self._length = block_length
        self._pack = pack
        self._rows_per_file = rows_per_file
        self._max_tokens = max_tokens
        self._max_rows = None if max_tokens is None else max_tokens // block_length
        self.state = replace(journal.splits[split], files=list(journal.splits[split].files))
        self._carry_M = np.asarray(self.state.carry, dtype=np.int32)
        self._file = _File()

    def add(self, document: int, ids_M: np.ndarray) -> None:
        """Write the rows that a document completes; ``document`` is its number in the pass."""
        assert document >= self.state.document, "what is written already is not given again"
        if not self._pack:
            self._add_row(document, ids_M)
            return
        skipped = self.state.token if document == self.state.document else 0
        self._add_packed(document, ids_M[skipped:], skipped)
        self._count_document(document, ids_M)
        if self._max_rows is not None and self.state.rows == self._max_rows:
            self.finish()

    def finish(self) -> None:
        """Write the last file; the journal knows that the split is complete, but is not saved yet."""
        self.state.complete = True
        used = 1 if self.state.rows else 0  # the label of the last row
        self.state.tokens_left_over += max(0, len(self._carry_M) - used)
        self.state.carry = []
        self._write_file(self.state)

    def _add_packed(self, document: int, ids_M: np.ndarray, skipped: int) -> None:
        run_M = np.concatenate([self._carry_M, ids_M])
        carried, first = len(self._carry_M), 0
        while (size := self._rows_in(len(run_M) - first)) > 0:
            last = first + size * self._length
            ids_NT = run_M[first:last].reshape(size, self._length)
            self._write_rows(ids_NT, run_M[first + 1 : last + 1].reshape(size, self._length))
            first = last
            if self._file.rows == self._rows_per_file:
                token = skipped + max(0, first - carried)
                self._close_file(
                    replace(self.state, document=document, token=token, carry=run_M[first:carried].tolist())
                )
        self._carry_M = run_M[first:]

    def _rows_in(self, size_M: int) -> int:
        """Return how many rows to write now of a run: as many as it has, the limit lets, and the file takes."""
        rows = min((size_M - 1) // self._length, self._rows_per_file - self._file.rows)
        return rows if self._max_rows is None else min(rows, self._max_rows - self.state.rows)

    def _add_row(self, document: int, ids_M: np.ndarray) -> None:
        row_T = ids_M[: self._length + 1]
        tokens = len(row_T) - 1
        if self._max_tokens is not None and self.state.tokens_in_rows + max(tokens, 0) > self._max_tokens:
            self.finish()
            return
        self._count_document(document, ids_M)
        if tokens < 1:  # a row needs a token and the one that follows it
            self.state.documents_without_row += 1
            self.state.tokens_left_over += len(ids_M)
            return
        self.state.tokens_cut += len(ids_M) - len(row_T)
        self._write_rows(row_T[None, :-1], row_T[None, 1:])
        if self._file.rows == self._rows_per_file:
            self._close_file(self.state)

    def _count_document(self, document: int, ids_M: np.ndarray) -> None:
        self.state.document, self.state.token = document + 1, 0
        self.state.documents += 1
        self.state.tokens += len(ids_M)

    def _write_rows(self, ids_NT: np.ndarray, label_NT: np.ndarray) -> None:
        self._file.add(ids_NT, label_NT)
        self.state.rows += len(ids_NT)
        self.state.tokens_in_rows += ids_NT.size

    def _close_file(self, state: SplitState) -> None:
        """Write the file and save the journal; ``state`` is what comes next."""
        self._write_file(state)
        self._journal.save()

    def _write_file(self, state: SplitState) -> None:
        if self._file.rows:
            name = f"data_{len(self.state.files):05}.parquet"
            content = self._file.content()
            replace_file(self._journal.folder / self._split / name, content)
            entry = {"name": name, "rows": self._file.rows, "bytes": len(content)}
            self.state.files.append(entry | {"sha256": hashlib.sha256(content).hexdigest()})
            self._file = _File()
        self._journal.splits[self._split] = replace(state, files=list(self.state.files))


class _File:
    """A Parquet file in memory, compressed row group by row group."""

    def __init__(self) -> None:
        self.rows = 0
        self._content = io.BytesIO()
        # Token ids repeat too little for a dictionary: without one, zstd is a quarter smaller and written faster.
        self._writer = arrow_parquet.ParquetWriter(self._content, _SCHEMA, use_dictionary=False, compression="zstd")
        self._pending: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._lengths: list[int] = []

    def add(self, ids_NT: np.ndarray, label_NT: np.ndarray) -> None:
        """Add rows of one length."""
        first = 0
        while first < len(ids_NT):
            last = min(len(ids_NT), first + _ROWS_PER_GROUP - len(self._lengths))
            for pending, rows_NT in zip(self._pending, (ids_NT, label_NT), strict=True):
                pending.append(rows_NT[first:last].ravel())
            self._lengths += [ids_NT.shape[1]] * (last - first)
            self.rows += last - first
            first = last
            if len(self._lengths) == _ROWS_PER_GROUP:
                self._write_group()

    def content(self) -> bytes:
        """Return the whole file."""
        if self._lengths:
            self._write_group()
        self._writer.close()
        return self._content.getvalue()

    def _write_group(self) -> None:
        offsets = pa.array(np.cumsum([0, *self._lengths]), pa.int32())
        lists = [
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(pending), pa.int32()))
            for pending in self._pending
        ]
        self._writer.write_table(pa.Table.from_arrays(lists, schema=_SCHEMA))
        self._pending, self._lengths = ([], []), []

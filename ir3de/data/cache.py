"""Sequences of one domain and split in an Arrow file, mapped into memory and gathered many at a time."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from ir3de.data.blocks import Sequences

_SCHEMA = [
    ("input_ids", pa.large_list(pa.int32())),
    ("length", pa.int64()),
    ("domain", pa.int64()),
    ("document", pa.int64()),
    ("text", pa.large_string()),
]
_NEXT = ("next", pa.int32())  # the token that follows a row; only where the data tell


def write_sequences(path: Path, sequences: Sequences, *, domain: int) -> str:
    """Write sequences as one record batch, and return the SHA-256 of their ids, lengths and next tokens."""
    size = len(sequences.length_N)
    lists = pa.LargeListArray.from_arrays(pa.array(sequences.offsets), pa.array(sequences.ids_M, pa.int32()))
    columns = [
        lists,
        pa.array(sequences.length_N, pa.int64()),
        pa.array(np.full(size, domain, dtype=np.int64)),
        pa.array(sequences.document_N, pa.int64()),
        pa.nulls(size, pa.large_string()) if sequences.texts is None else pa.array(sequences.texts, pa.large_string()),
    ]
    schema = pa.schema(_SCHEMA)
    if sequences.next_N is not None:
        schema = schema.append(pa.field(*_NEXT))
        columns.append(pa.array(sequences.next_N, pa.int32()))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    digest = hashlib.sha256(sequences.length_N.astype("<i8").tobytes())
    digest.update(sequences.offsets.astype("<i8").tobytes())
    digest.update(sequences.ids_M.astype("<i4").tobytes())
    if sequences.next_N is not None:
        digest.update(sequences.next_N.astype("<i4").tobytes())
    return digest.hexdigest()


class SequenceFile:
    """Sequences on disk, as NumPy views of the mapped file; nothing is copied until rows are gathered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        batch = pa.ipc.open_file(pa.memory_map(str(self.path))).get_batch(0)
        column = {name: batch.column(name) for name in batch.schema.names}
        self.ids_M = column["input_ids"].values.to_numpy(zero_copy_only=True)
        self.begin_N = column["input_ids"].offsets.to_numpy(zero_copy_only=True)[:-1]
        self.length_N = column["length"].to_numpy(zero_copy_only=True)
        self.document_N = column["document"].to_numpy(zero_copy_only=True)
        self._text = column["text"]
        self.next_N = column["next"].to_numpy(zero_copy_only=True) if "next" in column else None
        widths = np.diff(column["input_ids"].offsets.to_numpy(zero_copy_only=True))
        # One width for all rows: the ids are a matrix, and a row is copied as it lies.
        self.width = int(widths[0]) if len(widths) and bool((widths == widths[0]).all()) else None

    def __getstate__(self) -> Path:  # a worker process maps the file itself
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.length_N)

    @property
    def has_text(self) -> bool:
        return self._text.null_count == 0

    def texts(self, rows: np.ndarray) -> list[str]:
        """Return the text of the given rows."""
        return [str(text) for text in self._text.take(pa.array(rows)).to_pylist()]

    def rows(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the token ids of the given rows, each as long as it is."""
        return [self.ids_M[self.begin_N[row] : self.begin_N[row] + self.length_N[row]] for row in rows]

    def gather(self, rows_B: np.ndarray, width: int) -> np.ndarray:
        """Return ids of the given rows ``(B, width)`` int32; places at and after a row's length may hold anything."""
        if self.width == width:
            matrix_NT = self.ids_M.reshape(-1, width)
            first, size = int(rows_B[0]), len(rows_B)
            if int(rows_B[-1]) == first + size - 1 and bool((np.diff(rows_B) == 1).all()):
                return matrix_NT[first : first + size]
            return matrix_NT[rows_B]
        places_BT = self.begin_N[rows_B, None] + np.arange(width)
        return self.ids_M[np.minimum(places_BT, len(self.ids_M) - 1)]

"""Scores that were made elsewhere: read from CSV and Parquet, in the order of the split, or refused."""

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from ir3de.experts.score_table import read_score_table

PROMPTS = ["add 1", "sue, him", "add 2"]


def _columns():
    return {
        "prompt": ["sue, him", "add 1", "of no use", "add 2", "add 2"],
        "score:law": [0.9, 0.1, 0.0, 0.2, 0.2],
        "score:maths": [0.1, 1, 0.5, 0.8, 0.8],
        "cost:law": [1.0, 2, 3, 4, 4],
        "cost:maths": [5.0, 6, 7, 8, 8],
    }


def _read(path):
    domain_N = torch.tensor([1, 0, 1])
    return read_score_table(path, expert_names=("law", "maths"), prompts=PROMPTS, domain_N=domain_N)


def _write(folder, columns, suffix=".csv"):
    path = folder / f"table{suffix}"
    write = pq.write_table if suffix == ".parquet" else pyarrow.csv.write_csv
    write(pa.table(columns), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_are_in_the_order_of_the_prompts(tmp_path, suffix):
    table = _read(_write(tmp_path, _columns(), suffix))
    assert table.score_NE.tolist() == [[0.1, 1.0], [0.9, 0.1], [0.2, 0.8]]
    assert table.cost_NE.tolist() == [[2, 6], [1, 5], [4, 8]]
    assert table.best_N.tolist() == [1, 0, 1]
    assert table.weights_N.tolist() == [1, 1, 1]
    without = _read(_write(tmp_path, {k: v for k, v in _columns().items() if "cost" not in k}, suffix))
    assert without.cost_NE is None
    assert without.key != table.key


def test_weights_and_the_average_of_weights_are_read(tmp_path):
    more = {"weight": [2, 0.5, 1, 0, 0], "score:weight_average": [0.4, 0.6, 0, 0.3, 0.3]}
    more["domain"] = ["law", "maths", "law", "maths", "maths"]
    table = _read(_write(tmp_path, _columns() | more, ".parquet"))
    assert table.weights_N.tolist() == [0.5, 2, 0]
    assert table.score_NE.tolist() == [[0.1, 1.0], [0.9, 0.1], [0.2, 0.8]]
    assert table.values_NE.tolist() == [[0.05, 0.5], [1.8, 0.2], [0, 0]]
    assert table.own_N.tolist() == [0.5, 1.8, 0]
    assert table.average_N.tolist() == [0.3, 0.8, 0]
    assert table.cost_NE.tolist() == [[2, 6], [1, 5], [4, 8]]


def test_rows_without_a_test_sequence_are_reported(tmp_path, capsys):
    _read(_write(tmp_path, _columns() | {"domain": ["law", "maths", "law", "maths", "maths"]}, ".parquet"))
    assert "without a test sequence: 1 of law" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weight": [1.0, -1, 1, 1, 1]}, "a number that is not negative in row 1 of the column `weight`"),
        ({"weight": [1.0, 1, 1, 1, 2]}, "two rows with other values for the prompt 'add 2'"),
        ({"domain": ["law", "law", "law", "maths", "maths"]}, "'add 1' is of the domain `maths`, but of `law`"),
        ({"score:maths": None}, r"Expected the columns \['score:maths'\]"),
        ({"cost:law": None}, r"Expected the columns \['cost:law'\]"),
        ({"prompt": ["x", "add 1", "y", "add 2", "add 2"]}, "no row for 1 of 3 test prompts, the first is 'sue, him'"),
        ({"score:law": [0.9, 0.1, 0.0, 0.2, 0.3]}, "two rows with other values for the prompt 'add 2'"),
        ({"score:law": [0.9, float("nan"), 0.0, 0.2, 0.2]}, "a number in row 1 of the column `score:law`"),
        ({"score:law": ["good", "bad", "bad", "bad", "bad"]}, "Expected numbers in the column `score:law`"),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path, changes, message):
    columns = {key: value for key, value in (_columns() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        _read(_write(tmp_path, columns, ".parquet"))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="experts.losses.table"):
        _read(tmp_path / "none.csv")

"""From scores of questions to the rows of the score table: a row for each text, weighted as the benchmark does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ir3de.data.corpus import text_hash
from ir3de.files import replace_file
from ir3de.reasoning.task_scores import TaskScores


@dataclass(frozen=True)
class DomainRows:
    """A domain's rows ``R``: texts, weights ``(R,)``, scores ``(R, M)`` of the members, questions ``(R,)``, tasks."""

    domain: str
    prompts: list[str]
    weight_R: np.ndarray
    score_RM: np.ndarray
    question_R: np.ndarray
    task_R: list[str]

    def score_M(self) -> np.ndarray:
        """Return each member's score on the domain."""
        found: np.ndarray = self.weight_R @ self.score_RM / self.weight_R.sum()
        return found


@dataclass(frozen=True)
class Texts:
    """The texts of questions, each once: ``row_Q`` has each question's row.

    ``respaced`` counts questions that differ from another one by white space alone, and are routed by its text.
    """

    prompts: list[str]
    row_Q: np.ndarray
    respaced: int


def distinct(prompts: Sequence[str], *, domain: str) -> Texts:
    """Return every text once, of those that the data module takes for the same: they have one ``text_hash``.

    Raises:
        ValueError: if a question of ``domain`` has no text.
    """
    row_of: dict[bytes, int] = {}
    kept: list[str] = []
    row_Q = np.zeros(len(prompts), dtype=np.int64)
    respaced = 0
    for i, prompt in enumerate(prompts):
        if not prompt.strip():
            raise ValueError(
                f"Expected text in every question of `{domain}`, but question {i} has none that a router could read."
                f" Set `reasoning.prompt_field.{domain}` to another field."
            )
        key = text_hash(prompt)
        if key not in row_of:
            row_of[key] = len(kept)
            kept.append(prompt)
        row_Q[i] = row_of[key]
        respaced += kept[row_Q[i]] != prompt
    return Texts(kept, row_Q, respaced)


def domain_rows(domain: str, scores: Mapping[str, Sequence[TaskScores]]) -> DomainRows:
    """Return a domain's rows from the scores of each member, task by task in one order.

    The weighted mean of the rows is the mean over tasks of what lm-eval reports; weights add up to the number of
    questions. Questions of one text are one row, which changes nothing for a router: it decides by the text.
    """
    members = list(scores)
    tasks = scores[members[0]]
    texts = distinct([prompt for task in tasks for prompt in task.prompts], domain=domain)
    for member in members:
        same = [(one.task, one.prompts) for one in scores[member]] == [(one.task, one.prompts) for one in tasks]
        assert same, "all members answer the same questions"
    size = len(texts.row_Q)
    weight_Q = np.concatenate([one.weight_Q / one.weight_Q.sum() for one in tasks]) * size / len(tasks)
    score_QM = np.stack([np.concatenate([one.score_Q for one in scores[member]]) for member in members], axis=1)
    weight_R = np.bincount(texts.row_Q, weights=weight_Q)
    sum_RM = np.zeros((len(texts.prompts), len(members)))
    np.add.at(sum_RM, texts.row_Q, score_QM * weight_Q[:, None])
    task_Q = [one.task for one in tasks for _ in one.prompts]
    of_row: list[dict[str, None]] = [{} for _ in texts.prompts]
    for row, task in zip(texts.row_Q.tolist(), task_Q, strict=True):
        of_row[row][task] = None
    rows = DomainRows(
        domain,
        texts.prompts,
        weight_R,
        np.divide(sum_RM, weight_R[:, None], out=np.zeros_like(sum_RM), where=weight_R[:, None] > 0),
        np.bincount(texts.row_Q),
        [",".join(names) for names in of_row],
    )
    reported_M = np.asarray([np.mean([one.reported for one in scores[member]]) for member in members])
    assert np.allclose(rows.score_M(), reported_M, rtol=0, atol=1e-9), "the table's mean is the benchmark's"
    return rows


def write_score_table(path: Path, rows: Sequence[DomainRows], members: Sequence[str]) -> None:
    """Write the score table as Parquet, in one step; see ``read_score_table``."""
    columns: dict[str, pa.Array] = {
        "prompt": pa.array([prompt for one in rows for prompt in one.prompts], pa.large_string()),
        "domain": pa.array([one.domain for one in rows for _ in one.prompts]),
        "task": pa.array([task for one in rows for task in one.task_R]),
        "questions": pa.array(np.concatenate([one.question_R for one in rows])),
        "weight": pa.array(np.concatenate([one.weight_R for one in rows])),
    }
    for place, member in enumerate(members):
        columns[f"score:{member}"] = pa.array(np.concatenate([one.score_RM[:, place] for one in rows]))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer)
    replace_file(path, buffer.getvalue().to_pybytes())

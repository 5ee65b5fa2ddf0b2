"""How sure a compiled router may be: its scores as probabilities, from the validation sequences that shares keep."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ir3de.compiling.held_out import held_out
from ir3de.functional.calibration import Calibration, auroc, brier_score, expected_calibration_error
from ir3de.routers import TokenTableRouter
from ir3de.routers.threads import one_thread
from ir3de.serving.tables import Table
from ir3de.statistics.token_counts import TokenCounts

Array = np.ndarray
_THINNED_WEIGHT = 0.1  # of all thinned copies of a sequence together; its own is 1
_SHORTEST = 2  # tokens of a thinned copy
_SEQUENCES = 20_000  # of all experts together, spread evenly over each expert's
_ENTRIES = 1 << 23  # scores of these and of their thinned copies
_AT_ONCE = 1 << 18  # of these scores, which a processor's cache holds
_STEPS = 100


def calibrate(router: TokenTableRouter, table: Table) -> dict[str, Any] | None:
    """Return what makes scores probabilities, and how well it does; ``None`` without validation sequences.

    It is a function of the router's shares, so that it is right again after an expert was added or removed. A thinned
    copy of a sequence, half its tokens, a quarter and so on, stands for a shorter prompt, with little weight: where all
    validation sequences are of one length, only these tell what a length means.

    Of many sequences some are taken, ``sequences`` in all, and with many experts fewer of each, with fewer copies: at
    least one with one copy.
    """
    statistics = router.statistics
    if not isinstance(statistics, TokenCounts):  # a fit on losses knows no domains
        return None
    num_experts = len(statistics.shares)
    bags_E = held_out(statistics, at_most=max(1, min(_SEQUENCES // num_experts, _ENTRIES // (2 * num_experts**2))))
    bags = [(ids, expert) for expert, some in enumerate(bags_E) for ids in some]
    if not bags:
        return None
    copies = max(1, _ENTRIES // (num_experts * len(bags)) - 1)  # of a sequence, where all of them are too many
    draw = np.random.default_rng(0)
    rows, weights = [(ids, expert) for ids, expert in bags], [1.0] * len(bags)
    for i, (ids, expert) in enumerate(bags):
        lengths = [len(ids) >> j for j in range(1, len(ids).bit_length()) if len(ids) >> j >= _SHORTEST]
        step = -(-len(lengths) // copies) or 1
        some = lengths[i % step :: step]  # each length has its turn
        rows += [(draw.choice(ids, length, replace=False), expert) for length in some]
        weights += [_THINNED_WEIGHT / len(some) for _ in some]
    scores_NE = np.empty((len(rows), num_experts))
    for i, (ids, _) in enumerate(rows):
        scores_NE[i] = table.scores(ids)
    deciding_N = np.array([table.deciding(len(ids)) for ids, _ in rows])
    expert_N = np.array([expert for _, expert in rows])
    found = fit_calibration(scores_NE, deciding_N, expert_N, np.array(weights))
    whole = slice(0, len(bags))
    how_well = reliability(found, scores_NE[whole], deciding_N[whole], expert_N[whole])
    return {"calibration": found._asdict(), "sequences": len(bags), **how_well}


def fit_calibration(scores_NE: Array, deciding_N: Array, expert_N: Array, weight_N: Array) -> Calibration:
    """Return the calibration of lowest weighted negative log-likelihood, as if one sequence more were decided wrongly.

    That one keeps the scale finite where all are decided rightly, and a small pull towards zero the shifts of experts
    with hardly a sequence.
    """
    spread = float(np.average(scores_NE.max(axis=1) - scores_NE.mean(axis=1), weights=weight_N)) or 1.0  # of scores
    scores = torch.from_numpy(scores_NE / spread)
    log_tokens = torch.from_numpy(np.log(deciding_N))
    truth, weight = torch.from_numpy(expert_N), torch.from_numpy(weight_N)
    centre = (weight * log_tokens).sum() / weight.sum()
    total, num_experts = weight.sum(), scores_NE.shape[1]
    wrong = 1 / (total + 1)
    scale, exponent = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    shift = torch.zeros(num_experts, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, exponent, shift], max_iter=_STEPS, line_search_fn="strong_wolfe")
    rows = max(1, _AT_ONCE // num_experts)
    parts = [slice(first, first + rows) for first in range(0, len(scores), rows)]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (shift.square().sum() + exponent.square()) / (2 * total)
        loss.backward()
        value = loss.detach()
        for some in parts:
            logits = (scores[some] + shift) * (scale + exponent * (log_tokens[some] - centre)).exp()[:, None]
            losses = torch.nn.functional.cross_entropy(
                logits, truth[some], reduction="none", label_smoothing=float(wrong)
            )
            loss = (weight[some] * losses).sum() / total
            loss.backward()
            value = value + loss.detach()
        return value

    with one_thread():
        optimizer.step(closure)
    slope = float(exponent.detach())
    log_scale = float(scale.detach()) - slope * float(centre) - float(np.log(spread))
    return Calibration(log_scale, slope, tuple((spread * shift.detach()).tolist()))


def reliability(found: Calibration, scores_NE: Array, deciding_N: Array, expert_N: Array) -> dict[str, Any]:
    """Return the accuracy, and how far the confidence can be believed: ECE (0 to 1), Brier score (0 to 2), AUROC.

    AUROC is ``None`` where all decisions were right, or all wrong.
    """
    p_NE = found.probabilities(scores_NE, deciding_N)
    chosen_N = scores_NE.argmax(axis=1)
    confidence_N = p_NE[np.arange(len(p_NE)), chosen_N]
    right_N = chosen_N == expert_N
    area = auroc(confidence_N, right_N)
    return {
        "accuracy": float(right_N.mean()),
        "expected_calibration_error": expected_calibration_error(confidence_N, right_N),
        "brier_score": brier_score(p_NE, expert_N),
        "auroc": None if np.isnan(area) else area,
    }

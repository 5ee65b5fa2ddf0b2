"""What every router must hold to, as a check that a router of one's own can be run against."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ir3de.routers.router import Router, pad_rows

FILLER = 7


def check_router(router: Router, prompts: Sequence[Sequence[int]]) -> None:
    """Check a fitted router against the contract of ``Router``, on some prompts as token ids of unequal lengths.

    Scores are finite and do not depend on the padding or on the other prompts of a batch; the first of the highest
    scores is chosen; an empty prompt is refused; a saved router is the router, and the same bytes each time.

    Raises:
        AssertionError: if something does not hold; it says what.
    """
    assert router.expert_names, "Expected a fitted router, but it has no `expert_names`."
    assert list(router.expert_names) == sorted(router.expert_names), "`expert_names` must be in alphabetical order."
    settings = router.settings()
    assert json.loads(json.dumps(settings)) == settings, "`settings` must be plain values, as JSON keeps them."
    router.eval()
    with torch.inference_mode():
        scores_BE = _check_scores(router, prompts)
        with tempfile.TemporaryDirectory() as folder:
            _check_saving(router, prompts, scores_BE, Path(folder))


def _check_scores(router: Router, prompts: Sequence[Sequence[int]]) -> Tensor:
    ids_BT, mask_BT = pad_rows(prompts)
    scores_BE: Tensor = router(ids_BT, mask_BT)
    shape = (len(prompts), len(router.expert_names))
    assert scores_BE.shape == shape, f"Expected scores of shape {shape}, but got {tuple(scores_BE.shape)}."
    assert bool(scores_BE.isfinite().all()), "Scores must be finite."
    padded = torch.full((len(prompts), ids_BT.shape[1] + 3), FILLER)
    real = torch.zeros(padded.shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        padded[row, padded.shape[1] - len(prompt) :] = torch.tensor(prompt)
        real[row, padded.shape[1] - len(prompt) :] = True
    _close(router(padded, real), scores_BE, "Scores must not depend on the padding, on either side.")
    alone = torch.cat([router(*pad_rows([prompt])) for prompt in prompts])
    _close(alone, scores_BE, "A prompt's scores must not depend on the other prompts of its batch.")
    decision = router.decide(ids_BT, mask_BT)
    assert torch.equal(decision.expert_B, scores_BE.argmax(dim=1)), "`decide` must choose the first of the highest."
    assert decision.names == [router.expert_names[i] for i in decision.expert_B], "`names` must be those of `expert_B`."
    assert router.decide(ids_BT[:0], mask_BT[:0]).names == [], "An empty batch has no decision."
    try:
        router.decide(ids_BT[:1], torch.zeros_like(mask_BT[:1]))
    except ValueError:
        return scores_BE
    raise AssertionError("An empty prompt must be refused with a ValueError.")


def _check_saving(router: Router, prompts: Sequence[Sequence[int]], scores_BE: Tensor, folder: Path) -> None:
    for name in ("once", "twice"):
        router.save_pretrained(folder / name)
    contents = [{path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("once", "twice")]
    assert contents[0] == contents[1], "Saving twice must write the same bytes."
    loaded = type(router).from_pretrained(folder / "once")
    assert loaded.expert_names == router.expert_names, "A saved router must know the same experts."
    assert loaded.settings() == router.settings(), "A saved router must have the same settings."
    assert loaded.identity_hash() == router.identity_hash(), "A saved router must have the same identity."
    _close(loaded(*pad_rows(prompts)), scores_BE, "A saved router must give the same scores.")


def _close(found: Tensor, expected: Tensor, message: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda details: f"{message}\n{details}")

"""Naive Bayes on counts against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import MultinomialNB

from ir3de.functional.bayes import naive_bayes_scores
from ir3de.functional.votes import mean
from tests.helpers.text import pad


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("num_domains", [2, 5])
def test_agrees_with_multinomial_naive_bayes(smoothing, num_domains):
    generator = torch.Generator().manual_seed(0)
    counts_EV = torch.randint(0, 9, (num_domains, 30), generator=generator)
    prompts = [torch.randint(30, (n,), generator=generator).tolist() for n in (1, 4, 50)]
    model = MultinomialNB(alpha=smoothing, fit_prior=False).fit(counts_EV.numpy(), np.arange(num_domains))
    bags = np.stack([np.bincount(prompt, minlength=30) for prompt in prompts])
    expected = model.predict_joint_log_proba(bags)
    ours_BE = mean(
        *pad(prompts), naive_bayes_scores(counts_EV.T.double(), counts_EV.sum(dim=1).double(), smoothing, vocab_size=30)
    )
    for row, prompt in enumerate(prompts):  # theirs sums and adds the equal prior
        np.testing.assert_allclose(ours_BE[row] * len(prompt) - np.log(num_domains), expected[row], rtol=1e-10)


def test_smoothing_must_be_positive():
    with pytest.raises(ValueError, match="positive, but got 0"):
        naive_bayes_scores(torch.ones(3, 2), torch.full((2,), 3.0), 0, vocab_size=3)

"""What a bank or a router is worth on a domain, from losses or from scores (DESIGN.md section 2).

Sums may have leading dimensions, one for each resample of a bootstrap; the last is the domains ``D``.
"""

from typing import Literal

import torch
from torch import Tensor

Measure = Literal["perplexity", "score"]


def domain_quality(values_D: Tensor, weights_D: Tensor, measure: Measure) -> Tensor:
    """Return each domain's perplexity ``exp(ΣNLL / Σtokens)``, or its mean score; NaN for a domain without any."""
    mean_D = values_D / weights_D
    return mean_D.exp() if measure == "perplexity" else mean_D


def normalized_performance(routed_D: Tensor, own_D: Tensor, measure: Measure) -> Tensor:
    """Return the mean over domains of ``100 · p̂_d / p_d``, or of ``100 · p_d / p̂_d`` where more is better.

    A domain without sequences does not count; one whose sequences were not evaluated (``Faults.routed_batches``) counts
    as zero, as the published code's infinite perplexity does.
    """
    ratio_D = own_D / routed_D if measure == "perplexity" else routed_D / own_D
    ratio_D = torch.where(routed_D.isnan() & ~own_D.isnan(), 0.0, ratio_D)
    return 100 * ratio_D.nanmean(dim=-1)


def oracle_gain(routed_D: Tensor, single_D: Tensor, oracle_D: Tensor, measure: Measure) -> Tensor:
    """Return the share of the oracle's gain over the best single expert that a router keeps, in percent.

    Gains are means over domains, of log perplexity or of score: 100 is the oracle, 0 the best single expert, and less
    is worse than that. NaN where the oracle gains nothing.
    """

    def worth(quality_D: Tensor) -> Tensor:
        return (-quality_D.log() if measure == "perplexity" else quality_D).nanmean(dim=-1)

    gain = worth(oracle_D) - worth(single_D)
    return torch.where(gain > 0, 100 * (worth(routed_D) - worth(single_D)) / gain, torch.nan)

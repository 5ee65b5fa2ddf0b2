"""Whether sequences reach the expert of their true domain."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class RoutingConfusion(MulticlassConfusionMatrix):
    """The confusion matrix ``(true domain, chosen expert)``, and the two accuracies that are read off it."""

    def __init__(self, *, num_domains: int, sync_on_compute: bool = True) -> None:
        super().__init__(num_classes=num_domains, sync_on_compute=sync_on_compute)

    def accuracy(self) -> dict[str, Tensor]:
        """Return the share of sequences routed to their domain's expert, in percent.

        ``routing_accuracy`` is over all sequences, ``routing_accuracy_mean`` the mean over domains that have any.
        """
        confusion_EE = self.compute().double()
        right_E, total_E = confusion_EE.diagonal(), confusion_EE.sum(dim=1)
        return {
            "routing_accuracy": 100 * right_E.sum() / total_E.sum(),
            "routing_accuracy_mean": torch.nanmean(100 * right_E / total_E),
        }

"""A multilayer perceptron on vectors of sequences, trained by gradient."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ir3de.functional.ridge import Balance
from ir3de.pretrained.features import SequenceFeatures
from ir3de.routers.feature_router import unit_length
from ir3de.routers.trained import TrainedRouter


class MLPRouter(TrainedRouter):
    """Fully connected layers with ReLU over a vector at length one.

    Args:
        features: What makes a sequence's vector: mean token embeddings, or a sentence encoder.
        hidden: The widths of the hidden layers; an empty list is a linear classifier.
        dropout: The share of hidden units that is dropped in training.
        balance: `domain` lets every domain weigh the same in the loss; `none` every sequence.
        training_sequences: At most so many training sequences of each domain; null takes all.
    """

    def __init__(
        self,
        *,
        features: SequenceFeatures,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.1,
        balance: Balance = "domain",
        training_sequences: int | None = None,
    ) -> None:
        if any(width < 1 for width in hidden):
            raise ValueError(f"Expected the widths in `hidden` to be at least 1, but got {list(hidden)}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected `dropout` to be at least 0 and less than 1, but got {dropout}.")
        settings = {"hidden": list(hidden), "dropout": dropout}
        super().__init__(features=features, training_sequences=training_sequences, balance=balance, settings=settings)
        self._hidden = list(hidden)
        self._dropout = dropout
        self.layers = nn.Sequential()

    @property
    def display_name(self) -> str:
        return f"MLP ({self.features.display_name})"

    def build(self, num_experts: int) -> None:
        widths = [self.features.num_features, *self._hidden]
        hidden = [nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Dropout(self._dropout)) for i, o in pairwise(widths)]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], num_experts))

    def score_features(self, features_BD: Tensor) -> Tensor:
        # Vectors at length one have components of 1/sqrt(D); layers are made for components of size one.
        logits_BE: Tensor = self.layers(unit_length(features_BD) * features_BD.shape[1] ** 0.5)
        return logits_BE

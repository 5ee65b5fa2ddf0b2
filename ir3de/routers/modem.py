"""MoDEM: a BERT-like encoder with a pooler and a classifier, its head trained or all of it fine-tuned."""

from torch import Tensor, nn

from ir3de.functional.ridge import Balance
from ir3de.pretrained.hidden_states import HiddenStates
from ir3de.routers.trained import TrainedRouter


class MoDEMRouter(TrainedRouter):
    """Dense pooler (tanh) and classifier on a sequence's hidden state.

    Args:
        features: The encoder's hidden states, as a rule `pooling: first` (a BERT's [CLS]).
        train_encoder: `false` trains the head on hidden states that are computed once; `true` fine-tunes the encoder.
        dropout: The share of the pooler's units that is dropped in training.
        balance: `domain` lets every domain weigh the same in the loss; `none` every sequence.
        training_sequences: At most so many training sequences of each domain; null takes all.
    """

    features: HiddenStates

    def __init__(
        self,
        *,
        features: HiddenStates,
        train_encoder: bool = False,
        dropout: float = 0.1,
        balance: Balance = "domain",
        training_sequences: int | None = None,
    ) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected `dropout` to be at least 0 and less than 1, but got {dropout}.")
        if features.pooling == "tokens":
            raise ValueError("Expected `features.pooling` to be first, mean or last, but got tokens: it has many rows.")
        super().__init__(
            features=features,
            training_sequences=training_sequences,
            balance=balance,
            settings={"train_encoder": train_encoder, "dropout": dropout},
        )
        self.train_encoder = train_encoder
        self._dropout = dropout
        self.encoder: nn.Module | None = None
        self.head = nn.Sequential()

    @property
    def reads_vectors(self) -> bool:
        return not self.train_encoder

    @property
    def display_name(self) -> str:
        return f"MoDEM ({self.features.display_name}, {'fine-tuned' if self.train_encoder else 'head'})"

    @property
    def num_parameters(self) -> int:
        head = sum(parameter.numel() for parameter in self.head.parameters())
        return head + self.features.num_parameters

    def build(self, num_experts: int) -> None:
        width = self.features.num_features
        pooler = nn.Sequential(nn.Dropout(self._dropout), nn.Linear(width, width), nn.Tanh())
        self.head = nn.Sequential(pooler, nn.Dropout(self._dropout), nn.Linear(width, num_experts))
        if self.train_encoder:
            assert self.features.model_fingerprint, "taken before training changes the weights"
            self.encoder = self.features.encoder.requires_grad_(True)

    def freeze_pooler(self) -> None:
        """Leave the pooler as it was drawn, as the published code does; see ``Faults``."""
        self.head[0].requires_grad_(False)

    def score_features(self, features_BD: Tensor) -> Tensor:
        logits_BE: Tensor = self.head(features_BD)
        return logits_BE

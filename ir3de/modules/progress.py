"""A progress bar that says what is being done, and how long it will still take."""

from lightning.pytorch.callbacks import RichProgressBar


class NamedProgress(RichProgressBar):
    """Lightning's rich bar under a name of our own.

    Args:
        name: What the bar shows, e.g. ``Training law``; it may change between two runs of a trainer.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def _get_train_description(self, current_epoch: int) -> str:
        return self.name  # a stage is counted in steps, and has no epochs to show

    @property
    def predict_description(self) -> str:
        return self.name

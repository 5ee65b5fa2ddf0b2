"""DDP for routers: a module that has nothing to train is not wrapped, and a rank that dies ends the run."""

import signal
import threading
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from ir3de.rank_watch import RankWatch

NAME = "ddp_closed_form"


class ClosedFormDDP(DDPStrategy):
    """Lightning's DDP, which refuses a module without trainable parameters in ``fit``, without that refusal.

    A closed-form fit reduces counts and broadcasts what rank 0 solved; there are no gradients to average. For any other
    module nothing changes.
    """

    _watch: RankWatch | None = None

    def configure_ddp(self) -> None:
        assert self.lightning_module is not None, "Lightning connects the module before it configures DDP"
        if any(parameter.requires_grad for parameter in self.lightning_module.parameters()):
            super().configure_ddp()

    def _register_ddp_hooks(self) -> None:
        if self.model is not self.lightning_module:  # the hooks are the wrapper's
            super()._register_ddp_hooks()

    def setup_environment(self) -> None:
        super().setup_environment()
        if self.world_size > 1 and self._watch is None:
            self._watch = RankWatch(rank=self.global_rank, world_size=self.world_size, before_exit=self._stop_children)
            self._watch.start()
            _retire_observer()

    def on_exception(self, exception: BaseException) -> None:
        if self._watch is not None:
            if isinstance(exception, RuntimeError):  # a collective breaks off where a rank died, and does not say which
                self._watch.wait_for_cause()
            self._watch.fail(str(exception) or type(exception).__name__)
            self._watch = None
        super().on_exception(exception)

    def teardown(self) -> None:
        if self._watch is not None:
            self._watch.finish()
            self._watch = None
        super().teardown()

    def _stop_children(self) -> None:
        kill = getattr(self.launcher, "kill", None)  # torchrun and SLURM start and stop the processes themselves
        if kill is not None:
            kill(signal.SIGKILL)


def _retire_observer() -> None:
    """Let the watch take the place of Lightning's observer, which kills everything and names a process number only."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._run = lambda: True  # type: ignore[attr-defined] # its next look is its last


def register_strategy() -> None:
    """Make the strategy known by its name, and as what Lightning means by ``ddp`` and, on many devices, ``auto``."""
    for name in (NAME, "ddp"):
        arguments: dict[str, Any] = {"start_method": "popen"}
        StrategyRegistry.register(name, ClosedFormDDP, description=ClosedFormDDP.__doc__, override=True, **arguments)

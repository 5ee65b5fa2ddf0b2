"""One small reasoning setting for all tests: tasks, experts and what of the shipped config has to be overridden."""

import datasets
import pytest

from tests.helpers.benchmarks import overrides, save_experts, save_tasks


@pytest.fixture(scope="package")
def small(tmp_path_factory):
    """The folder with ``tasks`` and ``experts``, where each expert is, and the overrides of ``reasoning.yaml``."""
    folder = tmp_path_factory.mktemp("reasoning")
    save_tasks(folder / "tasks")
    bank = save_experts(folder / "experts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hub")
        yield folder, bank, overrides(folder, bank)

"""What is asked of the experts, and how they answer: the key ``reasoning`` of a config."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import ir3de.data.datamodule  # noqa: F401 - lets configs name sources by their class alone
from ir3de.data.sources import Source

KEY = "reasoning"


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """The benchmark of each domain, and how every expert answers it.

    Args:
        tasks: The tasks of lm-eval that are a domain's benchmark; its score is the mean of theirs.
        metric: For each domain the metric and the filter that make the score, as lm-eval names them in its results:
            `exact_match,flexible-extract`.
        prompt_field: For each domain the field of a question that the router reads: the question's own text.
        num_fewshot: Examples before a question, by domain; the task's own number where a domain is left out. A task
            that has 0 keeps it.
        training: Where a domain's training prompts for the router come from: a path or a source. The training split
            of its tasks where a domain is left out.
        prompts: Training prompts of each domain, at most.
        validation_prompts: Validation prompts of each domain, at most: of the tasks' validation split, or of training
            prompts that are not trained on.
        temperature: Of sampled answers; 0 takes the likeliest token each time.
        max_new_tokens: The longest answer; null leaves it to the task.
        bare_prompts: As the published code does, answers are generated from the question's own text, without
            few-shot examples and without stop strings.
        chat_template: Whether questions are put into each expert's chat template.
        batch_size: Answers of a forward pass. It changes answers by rounding only.
        shard_requests: After how many answers they are written; a run that was stopped goes on from there.
        device: Where experts answer: `auto` is the first GPU, or the CPU where there is none.
        include_path: A folder with tasks of your own, in lm-eval's format.
        limit: Only the first so many questions of every task: a smaller run, which says so.
        seed: Draws few-shot examples (lm-eval's own default), sampled answers, and the router's prompts.
        average: Whether the average of the experts' weights answers too, where they share an architecture.
    """

    tasks: dict[str, list[str]] = field(default_factory=dict)
    metric: dict[str, str] = field(default_factory=dict)
    prompt_field: dict[str, str] = field(default_factory=dict)
    num_fewshot: dict[str, int] = field(default_factory=dict)
    training: dict[str, str | Source] = field(default_factory=dict)
    prompts: int = 1000
    validation_prompts: int = 200
    temperature: float = 0.0
    max_new_tokens: int | None = None
    bare_prompts: bool = False
    chat_template: bool = False
    batch_size: int = 8
    shard_requests: int = 256
    device: str = "auto"
    include_path: str | None = None
    limit: int | None = None
    seed: int = 1234
    average: bool = True

    def __post_init__(self) -> None:
        least = {"prompts": 1, "validation_prompts": 1, "batch_size": 1, "shard_requests": 1, "temperature": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"Expected `{KEY}.{name}` to be at least {low}, but got {getattr(self, name)}.")
        for name in ("max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected `{KEY}.{name}` to be at least 1 or null, but got {value}.")
        for domain, metric in self.metric.items():
            if metric.count(",") != 1:
                raise ValueError(
                    f"Expected `{KEY}.metric.{domain}` to name a metric and a filter, such as"
                    f" `exact_match,flexible-extract` or `acc_norm,none`, but got `{metric}`."
                )
        if self.chat_template and self.bare_prompts:
            raise ValueError(f"`{KEY}.bare_prompts` and `{KEY}.chat_template` exclude each other. Set one to false.")

    def check(self, domains: Sequence[str]) -> None:
        """Refuse settings that do not fit the domains.

        Raises:
            ValueError: if a domain has no benchmark, or a benchmark has no domain, or a task is listed twice.
        """
        for name in ("tasks", "metric", "prompt_field"):
            given = getattr(self, name)
            if {*given} != {*domains}:
                raise ValueError(
                    f"Expected `{KEY}.{name}` to have each of the domains {sorted(domains)}, but got {sorted(given)}."
                )
        for name in ("num_fewshot", "training"):
            unknown = sorted({*getattr(self, name)} - {*domains})
            if unknown:
                raise ValueError(f"Expected `{KEY}.{name}` to name domains of {sorted(domains)}, but got {unknown}.")
        every = [task for domain in sorted(domains) for task in self.tasks[domain]]
        twice = sorted({task for task in every if every.count(task) > 1})
        if twice or not all(self.tasks.values()):
            what = f"{twice} stand twice" if twice else "a domain has none"
            raise ValueError(f"Expected every domain to have tasks, and every task once in `{KEY}.tasks`, but {what}.")

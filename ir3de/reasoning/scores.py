"""The command ``scores``: every expert answers every question once, and the router's prompts are written."""

from jsonargparse import Namespace

from ir3de.reasoning.requirement import needs_lm_eval


def scores(config: Namespace, *, domain: list[str] | str | None = None, allow_code_execution: bool = False) -> None:
    """Let every expert answer the benchmark of every domain once, by lm-eval, and write scores and prompts.

    Args:
        config: The experiment.
        domain: Answer the benchmark of this domain only, or of these (`[math, coding]`); the table is written when
            all have been answered, by a run without it.
        allow_code_execution: Run the code that models write (HumanEval): in isolation, without network, within limits.
    """
    with needs_lm_eval():
        from ir3de.reasoning.make_scores import make_scores  # noqa: PLC0415 - takes seconds, and nothing else needs it

    make_scores(config, only=[domain] if isinstance(domain, str) else domain, allow_code=allow_code_execution)

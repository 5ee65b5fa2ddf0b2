"""The command ``lm-eval``: lm-eval's own command line, with the routed bank among its models and code in isolation."""

from collections.abc import Sequence

from ir3de.reasoning.requirement import needs_lm_eval

UNSAFE = "--confirm_run_unsafe_code"


def lm_eval_command(arguments: Sequence[str]) -> None:
    """Run lm-eval's command line, which knows the model ``ir3de`` and runs model-written code in isolation only.

    Raises:
        ValueError: if an argument is wrong, or code would run without leave or isolation.
    """
    with needs_lm_eval():
        from ir3de.reasoning.harness import run_harness  # noqa: PLC0415 - takes seconds, and nothing else needs it

    run_harness(list(arguments), allow_code=UNSAFE in arguments)

"""lm-eval's command line from within: with the model ``ir3de``, and ``code_eval`` in isolation."""

import sys

from lm_eval._cli import HarnessCLI
from lm_eval.utils import setup_logging

import ir3de.reasoning.routed_lm  # noqa: F401 - registers the model
from ir3de.reasoning.code_execution import code_execution


def run_harness(arguments: list[str], *, allow_code: bool) -> None:
    """Run lm-eval with ``arguments``, as ``lm-eval`` does; see ``lm_eval_command``."""
    setup_logging()
    before = sys.argv
    sys.argv = ["lm-eval", *arguments]  # which it reads itself
    try:
        with code_execution(allowed=allow_code):
            parser = HarnessCLI()
            parser.execute(parser.parse_args())
    finally:
        sys.argv = before

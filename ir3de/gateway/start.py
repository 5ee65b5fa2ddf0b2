"""The command ``serve`` as a program, which says what is to be installed where something is missing."""

import os
import sys
import traceback
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Answer requests; a user's mistake ends with one sentence and exit status 1."""
    try:
        from ir3de.gateway.command import serve  # noqa: PLC0415 - needs packages that the other commands do not
    except ImportError as error:
        print(f"error: `serve` needs the package {error.name}. Run `pip install 'ir3de[serve]'`.", file=sys.stderr)
        sys.exit(1)
    try:
        serve(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("IR3DE_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

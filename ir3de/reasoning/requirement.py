"""lm-eval is an extra of this package: what needs it says so."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_lm_eval() -> Iterator[None]:
    """Say what to install where lm-eval, or a package that it needs here, cannot be imported.

    Raises:
        ValueError: if it cannot.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"The reasoning setting needs lm-eval, and the package `{error.name}` is missing."
            " Run `pip install 'ir3de[reasoning]'`."
        ) from error

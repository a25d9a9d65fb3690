"""The command line: thin, over `Client` and `ArtifactRepository`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

ERROR = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What stands behind `asyncstore`; None takes `sys.argv`.

    Returns:
        The exit status: 0 done, 1 error, 2 wrong usage, 130 interrupted.
    """
    try:
        import click  # noqa: F401  is it there?
        import rich  # noqa: F401  is it there?
    except ImportError as error:
        sys.stderr.write(
            f"Error: the command line needs the library {error.name}; "
            "run: pip install 'asyncstore[cli]'\n"
        )
        return ERROR
    from asyncstore.cli.app import run

    return run(arguments)

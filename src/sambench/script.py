"""How a command line starts: arguments from a function's signature and docstring, one line for the user's mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import cyclopts

from sambench.errors import InputError

# No --no-flag and --empty-list beside every option.
PLAIN = cyclopts.Parameter(negative=())


def run(main: Callable[..., Any]) -> None:
    """Run a script's `main`: its keyword-only parameters are the options, its docstring is the help.

    An InputError ends it with exit status 1 and one line on stderr; any other exception is a bug and shows itself.
    """
    app = cyclopts.App(help_format="markdown", default_parameter=PLAIN)
    app.default(main)
    guarded(app)


def guarded(app: cyclopts.App) -> None:
    """Call an app and turn an InputError into one line and exit status 1."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

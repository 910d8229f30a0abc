"""What goes to stderr (messages, progress) and to stdout (results)."""

import json
import math
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def complain(error: object) -> None:
    """Print one line that says what went wrong."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)


def note(text: str) -> None:
    """Print one line for people, not for programs."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a machine-readable result; undefined numbers become ``null``."""
    print(json.dumps(_plain(value), indent=1))


def stderr_console() -> "Console":
    """Return a rich console on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def stdout_console() -> "Console":
    """Return a rich console on stdout, wide enough for tables where it is not a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 140
    return Console(highlight=False, width=width)


def shows_unicode() -> bool:
    """Tell whether stdout can show box lines, arrows and true minus signs."""
    try:
        "│┏↑−×".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def typed(argument: object) -> str:
    """Return an argument of a command as one types it: a path may have blanks."""
    text = str(argument)
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)

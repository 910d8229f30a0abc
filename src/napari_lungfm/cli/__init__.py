"""The command line, ``napari-lungfm-bench``.

Modules here import only typer at the top, so that ``--help`` answers at once; what a command
needs is imported when it runs.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 = done, 1 = the work failed, 2 = the call was wrong."""
    from napari_lungfm.cli.app import run

    sys.exit(run(arguments))

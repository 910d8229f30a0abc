"""The command line, ``napari-lungfm-bench``.

Modules here import only typer at the top, so that ``--help`` answers at once; what a command
needs is imported when it runs.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 = done, 1 = the work failed, 2 = the call was wrong.

    A SIGTERM, as schedulers of clusters send it when the time is over, ends it like Ctrl-C.
    """
    from napari_lungfm.cli.app import run

    ours = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        if os.getpid() == ours:
            raise KeyboardInterrupt
        os.kill(os.getpid(), number)  # processes that were forked off end as ever

    signal.signal(signal.SIGTERM, interrupt)
    sys.exit(run(arguments))

"""What Dask runs in each worker process of this machine as it starts (a preload of its own)."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that started the workers and ends them in order.

    A terminal sends it to all processes, and each worker would leave a traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

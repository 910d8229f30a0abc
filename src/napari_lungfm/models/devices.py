"""Names of devices, for all who take one."""

import re

from napari_lungfm._core.exceptions import UsageError

#: How a device is asked for; ``cuda:1`` and the like are understood too.
DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device_name(device: str) -> None:
    """Refuse what is no device at all, whatever model it is for.

    Raises
    ------
    UsageError
        If there is no such kind of device.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        msg = f"there is no device '{device}'; choose from {', '.join(DEVICES)}"
        raise UsageError(msg)

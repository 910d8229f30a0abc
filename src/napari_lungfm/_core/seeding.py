"""Random numbers that depend on what they are for, not on the order of calls."""

import hashlib

import numpy as np


def stable_hash(*parts: str | int | float) -> int:
    """128-bit integer that is the same on every machine and Python version.

    Parameters
    ----------
    *parts
        What identifies the purpose: seed, case, protocol. Order matters.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part!r}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def generator(*parts: str | int | float) -> np.random.Generator:
    """Random generator for one purpose; see `stable_hash`."""
    return np.random.default_rng(stable_hash(*parts))

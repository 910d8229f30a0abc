"""Endless, seeded synthetic training data: no image of a person is among it.

A `Clip` is a small CT around one object. Two sources make them: `phantom_clips` cuts them from
the chest phantoms, `scenes` makes them from random tissues and shapes. `bank` keeps clips on disk
while a training goes over them more than once.
"""

from napari_lungfm.training.synthetic.bank import ClipBank, fill_bank
from napari_lungfm.training.synthetic.clips import Clip, make_clip

__all__ = ["Clip", "ClipBank", "fill_bank", "make_clip"]

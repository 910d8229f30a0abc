"""Windowing, resampling and cropping, with exact inverses."""

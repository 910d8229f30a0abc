"""Fits with lightning, whatever is fitted: seeds, logs, checkpoints, exact resume."""

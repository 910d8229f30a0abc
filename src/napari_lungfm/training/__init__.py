"""Losses, data modules and fits."""

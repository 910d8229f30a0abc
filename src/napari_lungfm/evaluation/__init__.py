"""Simulated users, scoring and statistics."""

"""Readers and writers of medical image files."""

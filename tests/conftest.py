"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the public real cases; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the public real cases are not at {REAL_DATA}")
    return REAL_DATA

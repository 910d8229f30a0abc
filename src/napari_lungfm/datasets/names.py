"""What cohorts may be called, and which seeds there are."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field


def _plain_name(name: str) -> str:
    """Refuse what is a path, or cannot be told apart when it is read."""
    odd = any(sign in "/\\" or not sign.isprintable() for sign in name)
    if odd or name.strip() != name or name.strip(".") == "":
        msg = (
            f"{name!r} is no name: it may not be empty, have a slash in it, begin or end with a "
            "blank, or consist of dots"
        )
        raise ValueError(msg)
    return name


#: Name of a cohort, which files are named after.
CohortName: TypeAlias = Annotated[str, AfterValidator(_plain_name)]
#: What random numbers begin with; generators take no more than 32 bits.
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]

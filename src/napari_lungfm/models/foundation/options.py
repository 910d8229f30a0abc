"""The options of the foundation models: what they may be, and what their factories say of them.

Nothing heavy is imported, so that options can be shown without torch.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

#: How precisely a network computes; see `runtime.Runtime`.
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
#: What is handed on to the next slice by a model without memory; see `sam_carry`.
Carry: TypeAlias = Literal["box", "mask", "box+mask"]
#: How SAM 2's memory attention is computed; see `sam2_attention`.
Attention: TypeAlias = Literal["stock", "fast"]
#: Which tracked slices SAM 2 remembers; see `sam2_memory`.
BankName: TypeAlias = Literal["recent", "self-sorting"]

#: What makes a model but is no choice of its user.
_NOT_OPTIONS = ("name", "device")


@dataclass(frozen=True)
class Option:
    """One option of a model.

    Parameters
    ----------
    name
        Its name, as in ``--option name=value``.
    default
        What counts where it is not given.
    choices
        What it may be, where that is one of a few words.
    text
        What it does.
    """

    name: str
    default: Any
    choices: tuple[str, ...]
    text: str


def options_of(factory: Callable[..., Any]) -> tuple[Option, ...]:
    """Return the options of a factory, read from its signature and its docstring.

    Parameters
    ----------
    factory
        A function whose docstring has numpydoc's section "Parameters".
    """
    texts, hints = parameter_texts(inspect.getdoc(factory) or ""), get_type_hints(factory)
    return tuple(
        Option(name, parameter.default, _choices(hints[name]), texts.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in _NOT_OPTIONS
    )


def parameter_texts(doc: str) -> dict[str, str]:
    """Return what a numpydoc docstring says of each parameter, without markup, on one line.

    Parameters
    ----------
    doc
        A docstring as `inspect.getdoc` returns it.
    """
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", doc, re.M | re.S)
    texts: dict[str, list[str]] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.split(",")]
            texts |= {name: [] for name in names}
        elif line.strip():
            for name in names:
                texts[name].append(line.strip())
    return {name: " ".join(lines).replace("`", "") for name, lines in texts.items()}


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return tuple(str(value) for value in get_args(hint))
    if get_origin(hint) is Union:
        return tuple(choice for part in get_args(hint) for choice in _choices(part))
    return ()

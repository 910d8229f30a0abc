"""Simulated users, scoring and statistics."""

from napari_lungfm.evaluation.prompt_protocols import (
    PromptProtocol,
    parse_protocol,
    protocol_names,
)

__all__ = ["PromptProtocol", "parse_protocol", "protocol_names"]

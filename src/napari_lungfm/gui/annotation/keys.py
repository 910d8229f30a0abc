"""Shortcuts that are bound while the panel is open, whatever layer is active."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding

Action = Callable[[], None]


class Shortcuts:
    """Key bindings of a viewer and of each of its layers.

    napari asks the active layer before the viewer, and layers have keys of their own (``B``, ``A``
    and ``R`` among them), so that both have to be bound.

    Parameters
    ----------
    viewer
        The viewer.
    actions
        Key, such as ``"B"`` or ``"Control-Z"`` → what it does.
    """

    def __init__(self, viewer: ViewerModel, actions: Mapping[str, Action]) -> None:
        self._viewer = viewer
        self._actions = {coerce_keybinding(key): action for key, action in actions.items()}
        #: Who has our keys now, weakly, for a layer may go meanwhile; what it had in their place.
        self._before: dict[int, tuple[weakref.ref[Any], dict[Any, Any]]] = {}

    @property
    def bound(self) -> bool:
        """Whether the keys do something now."""
        return bool(self._before)

    def bind(self) -> None:
        """Bind the keys, here and in layers that come."""
        if self.bound:
            return
        for provider in (self._viewer, *self._viewer.layers):
            self._bind(provider)
        self._viewer.layers.events.inserted.connect(self._on_inserted)
        self._viewer.layers.events.removed.connect(self._on_removed)

    def unbind(self) -> None:
        """Give the keys back to whom they belonged."""
        if not self.bound:
            return
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        for provider, _ in list(self._before.values()):
            self._give_back(provider())
        self._before.clear()

    def _bind(self, provider: Any) -> None:
        known = self._before.get(id(provider))
        if known is not None and known[0]() is provider:
            return
        keymap = provider.keymap
        before = {key: keymap[key] for key in self._actions if key in keymap}
        self._before[id(provider)] = (weakref.ref(provider), before)
        for key, action in self._actions.items():
            keymap[key] = _without_arguments(action)

    def _give_back(self, provider: Any) -> None:
        known = self._before.pop(id(provider), None)
        if provider is None or known is None:
            return
        for key in self._actions:
            provider.keymap.pop(key, None)
        provider.keymap.update(known[1])

    def _on_inserted(self, event: Any) -> None:
        self._bind(event.value)

    def _on_removed(self, event: Any) -> None:
        """Give its keys back to a layer that was taken out: it may come again."""
        self._give_back(event.value)


def _without_arguments(action: Action) -> Callable[..., None]:
    def call(*_: object) -> None:
        action()

    return call

"""Settings of the widgets, kept by napari (Preferences → Plugins → LungFM)."""

from typing import Any

#: Key of the configuration in the manifest.
_KEY = "annotation"
#: Sessions are kept in a folder next to the image file, or to the folder of a DICOM series.
BESIDE_THE_IMAGE = "beside the image"
_DEFAULTS: dict[str, Any] = {
    "model": "lungfm-s",
    "device": "auto",
    "autosave": True,
    "session_folder": BESIDE_THE_IMAGE,
    "show_quality": True,
    "model_window": "as published",
}


def setting(name: str) -> Any:
    """Return a setting; its default where napari does not know it.

    Parameters
    ----------
    name
        One of ``model``, ``device``, ``autosave``, ``session_folder``, ``show_quality``,
        ``model_window``.
    """
    try:
        from napari.settings import get_plugin_settings  # noqa: PLC0415

        return getattr(getattr(get_plugin_settings("napari-lungfm"), _KEY), name)
    except Exception:  # noqa: BLE001 - a plugin that napari does not know, an older napari
        return _DEFAULTS[name]

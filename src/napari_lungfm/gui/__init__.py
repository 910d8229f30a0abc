"""napari dock widgets: the only place that imports napari, Qt or magicgui."""

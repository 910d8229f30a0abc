"""The command line, napari-lungfm-bench."""

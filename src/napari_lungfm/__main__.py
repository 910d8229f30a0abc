"""``python -m napari_lungfm`` is ``napari-lungfm-bench``."""

from napari_lungfm.cli import main

main()

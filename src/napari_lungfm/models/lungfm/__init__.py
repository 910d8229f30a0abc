"""LungFM-S: the promptable model whose weights come with the package."""

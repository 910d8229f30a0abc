"""Annotation in a viewer, without Qt: what the widgets of `gui.widgets` show and ask for."""

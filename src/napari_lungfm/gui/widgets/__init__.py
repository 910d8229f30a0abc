"""Qt widgets. They show a `gui.annotation.controller.Controller` and call it; nothing more."""

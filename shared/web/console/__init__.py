"""The console: a page for people, made of files that are served as they are written, and of the API."""

from shared.web.console.controller import ConsolePageController

__all__ = ["ConsolePageController"]

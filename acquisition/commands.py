"""Command-line verbs of the acquisition room."""


def devices() -> None:
    """Not built yet."""
    raise NotImplementedError


def record() -> None:
    """Not built yet."""
    raise NotImplementedError

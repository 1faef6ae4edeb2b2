"""Command-line verbs of the fusion room."""


def fuse() -> None:
    """Not built yet."""
    raise NotImplementedError

"""Command-line verbs of the inspect room."""


def inspect() -> None:
    """Not built yet."""
    raise NotImplementedError


def listen() -> None:
    """Not built yet."""
    raise NotImplementedError


def demo() -> None:
    """Not built yet."""
    raise NotImplementedError

"""Command-line verbs of the models room."""


def evaluate() -> None:
    """Not built yet."""
    raise NotImplementedError

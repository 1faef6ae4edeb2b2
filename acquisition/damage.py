"""How the readers of a recording's bytes say that the bytes are wrong: where, and what was expected there."""


class DamageError(Exception):
    """The bytes of a recording are not what its format promises. `Recording` adds the file's name for the user.

    Attributes:
        offset: position in the file, in bytes, where the damage shows.
        what: what is wrong there, in words.
    """

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"{what} (byte {offset})")
        self.offset = offset
        self.what = what

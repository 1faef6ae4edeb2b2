"""What all of the house's PDF documents share: their letters, and pages that say which of how many they are."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

FONT, BOLD = "DejaVuSans", "DejaVuSans-Bold"


@cache
def register_fonts() -> None:
    """DejaVu as matplotlib carries it: PDF's own fonts lack σ, ² and the minus sign."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    for name in (FONT, BOLD):
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))


def numbered(frame: Callable[[Canvas, str], None]) -> type[Canvas]:
    """A canvas that knows the number of pages when it prints them [ISO/IEC 17025, 7.8.2.1 d].

    Args:
        frame: draws what stands on every page; it is given the canvas and "page 2 of 5".
    """

    class Numbered(Canvas):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()  # type: ignore[no-untyped-call] # pyright: ignore[reportAttributeAccessIssue]

        def save(self) -> None:
            for number, page in enumerate(self._pages, 1):
                self.__dict__.update(page)
                frame(self, f"page {number} of {len(self._pages)}")
                super().showPage()  # type: ignore[no-untyped-call]
            super().save()  # type: ignore[no-untyped-call]

    return Numbered

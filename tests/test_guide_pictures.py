"""Pictures of the guide: what is marked is what was found, none is too large, early is a part of the whole."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from boardstage import BASELINE_M, BOARD, LENS, place, seen_by
from matplotlib.collections import PathCollection
from matplotlib.image import AxesImage

from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.certify.guide_pictures import LARGEST_BYTES, Shown, _written, draw_found, early, shrunk
from depthcell.calib.observation import Device, Observation
from depthcell.calib.target.board_views import BoardViews, Place
from depthcell.calib.target.boardview import BoardView, DepthTiles
from depthcell.calib.target.detect import detect
from depthcell.errors import DepthcellError


def seen_board() -> Shown:
    image = seen_by("A", place(1)).infrared
    return Shown("depth:A", image, detect(BOARD, image).pixels)


def test_what_was_found_is_marked_where_it_is() -> None:
    one = seen_board()
    assert len(one.pixels) > 10
    axes = draw_found((one, one)).axes
    assert len(axes) == 3
    assert axes[0].get_title() == f"depth:A: {len(one.pixels)} corners"
    (image,) = (artist for artist in axes[0].get_children() if isinstance(artist, AxesImage))
    np.testing.assert_array_equal(image.get_array(), one.image)
    for each in axes:
        (marks,) = (artist for artist in each.get_children() if isinstance(artist, PathCollection))
        np.testing.assert_array_equal(marks.get_offsets(), one.pixels)


def test_the_magnified_corner_is_in_its_panel() -> None:
    one = seen_board()
    panel = draw_found((one, one)).axes[-1]
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    inside = (one.pixels > (left, top)) & (one.pixels < (right, bottom))
    assert inside.all(axis=1).any()


def observation() -> Observation:
    ids, pixels = np.arange(4), np.arange(8.0).reshape(4, 2)
    streams, instants = ("depth:A", "color:A", "depth:B", "color:B"), (0, 3, 6)
    views = tuple(BoardView(stream, at, 0, ids, pixels, 0.1) for at in instants for stream in streams)
    tiles = tuple(
        DepthTiles(serial, at, 0, pixels, np.full(4, 60.0), np.full(4, 0.05)) for at in instants for serial in "AB"
    )
    devices = {
        serial: Device(
            serial,
            "D415",
            "",
            {f"depth:{serial}": LENS, f"color:{serial}": LENS},
            RigidTransform(f"color:{serial}", f"depth:{serial}", np.eye(3), np.array([0.015, 0, 0])),
            BASELINE_M,
            None,
        )
        for serial in "AB"
    }
    seen = BoardViews(views, tuple(Place(0, at, (at, at + 1)) for at in instants), ())
    return Observation((BOARD,), devices, seen, tiles, (), ())


def test_early_is_the_first_places_of_the_left_imagers() -> None:
    whole = observation()
    first = early(whole, 2)
    assert {(view.stream, view.instant) for view in first.seen.views} == {
        (stream, at) for stream in ("depth:A", "depth:B") for at in (0, 3)
    }
    assert {(one.serial, one.instant) for one in first.depth} == {(serial, at) for serial in "AB" for at in (0, 3)}
    assert [place.instant for place in first.seen.places] == [0, 3]
    assert all(set(device.intrinsics) == {f"depth:{serial}"} for serial, device in first.devices.items())
    assert len(whole.seen.views) == 12  # left as it was


@pytest.mark.parametrize(("width_px", "expected"), [(40, (20, 40)), (80, (40, 80)), (200, (40, 80))])
def test_a_picture_is_made_narrower_never_wider(width_px: int, expected: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.full((40, 80, 3), 200, np.uint8))
    small = cv2.imdecode(np.frombuffer(shrunk(path, width_px), np.uint8), cv2.IMREAD_COLOR)
    assert small is not None
    assert small.shape[:2] == expected
    assert (small == 200).all()


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="is no picture"):
        shrunk(tmp_path / "none.png", 100)


def test_a_picture_that_is_too_large_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(DepthcellError, match="draw less in it"):
        _written(tmp_path / "large.png", bytes(LARGEST_BYTES + 1))
    assert list(tmp_path.iterdir()) == []
    assert _written(tmp_path / "small.png", bytes(LARGEST_BYTES)).stat().st_size == LARGEST_BYTES

"""A board held before software cameras: they send what they would see of it, for as long as they stream."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.camerasettings import StreamSettings
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.softwarecamera import SoftwareBus, SoftwareCamera
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.guiding.guidance import DIRECTIONS, facing_pose
from depthcell.calib.target.board import Board
from depthcell.calib.target.board_scene import BoardLight, board_image

BOARD = Board.parse("charuco:7x5:32mm")
SIZE = StreamSettings(424, 240, 30)
LENS = Intrinsics(424, 240, 0.6 * 424, 0.6 * 424, 212.0, 120.0)
"""As `SoftwareCamera` says."""
BASELINE_M, UNITS_M, DISPARITY_PX = 0.05, 0.001, 0.1
T_A_B = RigidTransform.from_rotation_vector(
    "depth:A", "depth:B", np.array([0.02, -0.3, 0.01]), np.array([0.1, 0.0, 0.01])
)
T_A_CAMERA = {"A": RigidTransform("depth:A", "depth:A", np.eye(3), np.zeros(3)), "B": T_A_B}
ROTATION_COLOR_DEPTH, TRANSLATION_COLOR_DEPTH = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), [0.015, 0.001, 0.002]
"""As `SoftwareCamera` says."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One camera's images, (H, W) uint8, (H, W) uint16, (H, W, 3) uint8."""

    infrared: NDArray[np.uint8]
    counts: NDArray[np.uint16]
    color: NDArray[np.uint8]


def place(number: int) -> RigidTransform:
    """`T_A_board` of a place before both cameras; each number another."""
    rng = np.random.default_rng(number)
    middle = np.array([0.05, 0.0, 0.34]) + rng.uniform(-1, 1, 3) * (0.02, 0.02, 0.04)
    turn = list(DIRECTIONS.values())[number % 4]
    return facing_pose("depth:A", BOARD, middle, float(np.radians(rng.uniform(18, 35))), turn)


def seen_by(serial: str, T_A_board: RigidTransform, blur_px: float = 0.6) -> Seen:
    """What a camera sees of the board on a wall in its plane."""
    rng = np.random.default_rng(sum(map(ord, serial)))
    T_depth_board, light = T_A_CAMERA[serial].inverse() @ T_A_board, BoardLight(blur_px=blur_px)
    T_color_depth = RigidTransform(
        f"color:{serial}", f"depth:{serial}", ROTATION_COLOR_DEPTH, np.array(TRANSLATION_COLOR_DEPTH)
    )
    rows, columns = np.mgrid[: LENS.height_px, : LENS.width_px]
    ideal = LENS.normalized(np.stack((columns, rows), axis=-1).astype(np.float64))
    normal = T_depth_board.rotation[:, 2]
    z_m = normal @ T_depth_board.translation_m / (np.concatenate((ideal, np.ones((*ideal.shape[:2], 1))), -1) @ normal)
    focal_baseline_m = LENS.fx_px * BASELINE_M
    noisy_m = focal_baseline_m / (focal_baseline_m / z_m + rng.normal(0, DISPARITY_PX, z_m.shape))
    counts = np.where((z_m > 0.1) & (z_m < 2), np.rint(noisy_m / UNITS_M), 0).astype(np.uint16)
    grey = board_image(BOARD, LENS, T_color_depth @ T_depth_board, light, rng)
    return Seen(board_image(BOARD, LENS, T_depth_board, light, rng), counts, np.repeat(grey[..., None], 3, axis=2))


@dataclass
class Stage:
    """Two cameras, A and B, and a board before them.

    Attributes:
        bus: that the cameras hang on.
        shift_px: by which the board moves from frame to frame.
        blind: cameras that send nothing although they stream.
    """

    bus: SoftwareBus = field(
        default_factory=lambda: SoftwareBus.of(SoftwareCamera("A", SIZE), SoftwareCamera("B", SIZE))
    )
    shift_px: int = 0
    blind: frozenset[str] = frozenset()
    _images: dict[str, Seen] = field(default_factory=dict)

    def hold(self, T_A_board: RigidTransform, *, blur_px: float = 0.6, shift_px: int = 0) -> None:
        """Show the board there."""
        self._images = {serial: seen_by(serial, T_A_board, blur_px) for serial in T_A_CAMERA}
        self.shift_px = shift_px

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send while cameras stream."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._send, args=(is_over.is_set,))
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _send(self, is_over: Callable[[], bool]) -> None:
        number = 0
        while not is_over():
            number += 1
            for serial, camera in dict(self.bus.cameras).items():
                seen = self._images.get(serial)
                is_streaming = camera.stereo.get_active_streams() and camera.rgb.get_active_streams()
                if seen is None or serial in self.blind or not is_streaming:
                    continue
                shift = self.shift_px * (number % 20)
                camera.send_infrared(number, intensity=np.ascontiguousarray(np.roll(seen.infrared, shift, axis=1)))
                camera.send_depth(number, counts=seen.counts)
                camera.send_color(number, rgb=np.ascontiguousarray(np.roll(seen.color, shift, axis=1)))
            time.sleep(0.02)

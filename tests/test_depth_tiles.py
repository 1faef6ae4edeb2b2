"""Depth on boards through the simulated stereo camera: what the tiles say against what is true."""

from dataclasses import replace

import numpy as np
import pytest

from depthcell.acquisition.frameset import DepthImage
from depthcell.acquisition.intrinsics import Intrinsics
from depthcell.acquisition.simulator.cameras import StereoModel, SystematicError, stereo_model
from depthcell.acquisition.simulator.stereo import StereoNoise, StereoView, correlated_noise, frame_counts, matched
from depthcell.acquisition.transform import RigidTransform
from depthcell.calib.cell import DisparityNoise
from depthcell.calib.depth.depth_tiles import BoardPlace, TileSettings, independent_patches, tiled_depth
from depthcell.errors import DepthcellError

MODEL: StereoModel = replace(stereo_model("D435"), focal_px=220.0)
INTRINSICS = Intrinsics(424, 240, 220.0, 220.0, 211.5, 119.5)
PLACE = BoardPlace("1", 3, 0, MODEL.focal_baseline_m)
NOISE = DisparityNoise(0.08, 0.03, 3.0)
OUTLINE = np.array([[70.0, 30.0], [360.0, 35.0], [350.0, 210.0], [75.0, 215.0]])
STILL = StereoNoise(staircase_px=0.0, hole_share=0.0)


def plate_depth(tilt_deg: float, distance_m: float = 0.35) -> np.ndarray:
    """z of a plate that is turned about the vertical axis of the image."""
    pose = RigidTransform.from_rotation_vector(
        "depth:1", "board", np.array([0.0, np.radians(tilt_deg), 0.0]), np.array([0.0, 0.0, distance_m])
    )
    normal = pose.rotation[:, 2]
    return np.asarray((normal @ pose.translation_m) / (INTRINSICS.rays() @ normal), dtype=np.float32)


def images_of(depth_m: np.ndarray, frames: int, seed: int, noise: StereoNoise = STILL) -> list[DepthImage]:
    rng = np.random.default_rng(seed)
    seen = np.ones(depth_m.shape, np.bool_)
    view = StereoView(depth_m, seen, np.ones_like(depth_m), ~seen)
    still = matched(view, MODEL, SystematicError(), noise, rng)
    return [
        DepthImage.from_counts(frame_counts(still, MODEL, noise, rng), INTRINSICS, MODEL.units_m) for _ in range(frames)
    ]


def error_px(depth_m: np.ndarray, seed: int, frames: int = 5) -> np.ndarray:
    """Errors of a view's tiles over their stated uncertainty."""
    tiles = tiled_depth(PLACE, images_of(depth_m, frames, seed), OUTLINE, NOISE).tiles
    normal = np.linalg.lstsq(INTRINSICS.rays().reshape(-1, 3), 1 / depth_m.ravel())[0]
    rays = np.column_stack((INTRINSICS.normalized(tiles.pixels), np.ones(len(tiles.pixels))))
    return np.asarray((tiles.disparity_px - MODEL.focal_baseline_m * (rays @ normal)) / tiles.sigma_px)


@pytest.mark.parametrize("frames", [1, 5])
def test_tiles_err_as_much_as_they_say(frames: int) -> None:
    scaled = np.concatenate(
        [error_px(plate_depth(tilt), seed, frames) for seed, tilt in enumerate((0, 20, 40, 10, 30))]
    )
    assert len(scaled) > 400
    assert np.sqrt(np.mean(scaled**2)) == pytest.approx(1.0, abs=0.15)
    assert 0.92 < np.mean(np.abs(scaled) < 1.96) < 0.98


def test_pixels_that_share_noise_are_not_counted_as_many() -> None:
    rng = np.random.default_rng(1)
    noise = correlated_noise((600, 600), 3.0, rng)
    means = noise.reshape(30, 20, 30, 20).mean(axis=(1, 3))
    assert 1 / means.var() == pytest.approx(independent_patches(20, 3.0), rel=0.15)
    assert independent_patches(20, 3.0) < 0.1 * independent_patches(20, 0.0)
    assert independent_patches(20, 0.0) == 400


def test_a_wrong_noise_model_is_outvoted_by_the_tiles() -> None:
    images = images_of(plate_depth(20), 3, 7)
    right, loud = (tiled_depth(PLACE, images, OUTLINE, noise).tiles for noise in (NOISE, DisparityNoise(0.1, 0.3, 3.0)))
    assert np.median(loud.sigma_px) < 4 * np.median(right.sigma_px)  # the model alone says 9 times


def test_strays_and_holes_are_dropped_and_counted() -> None:
    clean = images_of(plate_depth(20), 3, 8)
    spoilt = []
    for image in clean:
        depth_m = image.depth_m.copy()
        depth_m[60:75, 100:120] = 2.5  # ghosts
        depth_m[100:140, 200:240] = np.nan  # a highlight
        spoilt.append(replace(image, depth_m=depth_m))
    plain, found = (tiled_depth(PLACE, images, OUTLINE, NOISE) for images in (clean, spoilt))
    assert (plain.holes, plain.off, plain.frames) == (0, 0, 3)
    assert plain.temporal_px == pytest.approx(0.083, abs=0.01)  # with the steps of 1/32 px and of the unit
    assert found.holes == 1600
    assert found.stray >= plain.stray + 290
    assert found.thin > plain.thin
    common = {tuple(np.round(at)): d for at, d in zip(plain.tiles.pixels, plain.tiles.disparity_px, strict=True)}
    moved = [
        d - common[tuple(np.round(at))]
        for at, d in zip(found.tiles.pixels, found.tiles.disparity_px, strict=True)
        if tuple(np.round(at)) in common
    ]
    assert len(moved) > 60
    assert np.median(np.abs(moved)) < 1e-4
    assert np.abs(moved).max() < 0.1  # a tile that lost a third of its pixels; a ghost is 28 px off


def test_what_is_no_board_is_refused() -> None:
    with pytest.raises(DepthcellError, match="view 3, camera 1: no depth frame"):
        tiled_depth(PLACE, [], OUTLINE, NOISE)
    holed = images_of(plate_depth(0), 1, 9)[0]
    with pytest.raises(DepthcellError, match="pixels of the board have depth"):
        tiled_depth(PLACE, [replace(holed, depth_m=np.full((240, 424), np.nan, np.float32))], OUTLINE, NOISE)
    step = plate_depth(0)
    step[:, 190:] += 0.03
    with pytest.raises(DepthcellError, match="tiles lie off one smooth surface"):
        tiled_depth(PLACE, images_of(step, 2, 10), OUTLINE, NOISE)


def test_the_edge_of_the_board_stays_out() -> None:
    """A board before a wall: near the rim the window mixes both, and that must not reach the tiles."""
    board, wall = plate_depth(15), plate_depth(0, 0.8)
    inside = np.zeros(board.shape, np.bool_)
    inside[40:200, 80:340] = True
    scene = np.where(inside, board, wall).astype(np.float32)
    outline = np.array([[80.0, 40.0], [339.0, 40.0], [339.0, 199.0], [80.0, 199.0]])
    images = images_of(scene, 4, 11)
    careful = tiled_depth(PLACE, images, outline, NOISE).tiles
    inverse = np.linalg.lstsq(INTRINSICS.rays().reshape(-1, 3), 1 / board.ravel())[0]
    rays = np.column_stack((INTRINSICS.normalized(careful.pixels), np.ones(len(careful.pixels))))
    assert np.abs(careful.disparity_px - MODEL.focal_baseline_m * (rays @ inverse)).max() < 0.06
    assert careful.pixels[:, 0].min() - 10 > 80 + TileSettings().margin_px - 12

"""Patterns of drawn defects: how much of a defect is at a place of its tangent plane, 0 none, 1 all of it.

A pattern is a function of the tangent coordinates (u, v) and of how wide a pixel is there, all in metres. Its random
numbers are drawn once, so every view and every point that asks about a place gets the same answer.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from depthcell.acquisition.transform import FloatArray

FloatField = NDArray[np.float32]
Pattern = Callable[[FloatField, FloatField, FloatField], FloatField]
"""`pattern(u_m, v_m, width_m) -> weight`, all of one shape; the weight within 0 to 1."""

WAVES = 6


def bowl(size_m: float, rng: np.random.Generator) -> Pattern:
    """Smooth to its rim, pointed or blunt, round or oval: `(1 - r²)^k`."""
    share = _share(size_m, rng, uneven=0.06, narrowest=0.65)
    power = np.float32(rng.uniform(1.3, 2.8))

    def weight(u_m: FloatField, v_m: FloatField, _: FloatField) -> FloatField:
        return np.clip(1 - share(u_m, v_m) ** 2, 0, None) ** power

    return weight


def plateau(size_m: float, rng: np.random.Generator, wall: tuple[float, float]) -> Pattern:
    """Level within an uneven outline; its wall takes a share of the radius drawn from `wall`."""
    share = _share(size_m, rng, uneven=0.2, narrowest=0.7)
    wall_share = np.float32(rng.uniform(*wall))

    def weight(u_m: FloatField, v_m: FloatField, _: FloatField) -> FloatField:
        return _ramp((1 - share(u_m, v_m)) / wall_share)

    return weight


def ridge(size_m: float, rng: np.random.Generator) -> Pattern:
    """Along u, `size_m` to either side, uneven in height."""
    half_width_m = np.float32(size_m * rng.uniform(0.1, 0.26))
    period_m, turn, uneven = size_m * rng.uniform(0.3, 1.0), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)

    def weight(u_m: FloatField, v_m: FloatField, _: FloatField) -> FloatField:
        across = np.cos(np.clip(v_m / half_width_m, -1, 1) * np.float32(np.pi / 2)) ** 2
        along = 1 - uneven * (1 + np.sin(u_m * np.float32(2 * np.pi / period_m) + np.float32(turn)))
        return np.asarray(_ramp((1 - np.abs(u_m) / np.float32(size_m)) / 0.3) * across * along, np.float32)

    return weight


def pits(size_m: float, rng: np.random.Generator) -> Pattern:
    """Some pits spread over a disc by the golden angle, of several sizes."""
    count = int(rng.integers(4, 15))
    radii = size_m * rng.uniform(0.45, 0.9) / np.sqrt(count) * rng.uniform(0.5, 1.0, count)
    away = (size_m - radii.max()) * np.sqrt((np.arange(count) + rng.uniform(0, 0.5)) / count)
    angle = rng.uniform(0, 2 * np.pi) + np.arange(count) * np.pi * (3 - np.sqrt(5)) + rng.normal(0, 0.15, count)
    centres = np.stack((away * np.cos(angle), away * np.sin(angle)), axis=1)
    depths = rng.uniform(0.5, 1.0, count) / 1.0
    depths[0] = 1.0

    def weight(u_m: FloatField, v_m: FloatField, _: FloatField) -> FloatField:
        deepest = np.zeros_like(u_m)
        for (u0, v0), radius, depth in zip(centres.astype(np.float32), radii, depths, strict=True):
            square = ((u_m - u0) ** 2 + (v_m - v0) ** 2) / np.float32(radius**2)
            np.maximum(deepest, np.float32(depth) * np.clip(1 - square, 0, None) ** 2, out=deepest)
        return deepest

    return weight


def lines(size_m: float, rng: np.random.Generator) -> Pattern:
    """One to three curved lines along u, often thinner than a pixel, of which they then cover a part."""
    count = int(rng.choice((1, 1, 1, 2, 3)))
    half_widths = rng.uniform(0.08e-3, 0.5e-3, count).astype(np.float32)
    aside = (np.concatenate(([0.0], rng.uniform(-0.25, 0.25, count - 1))) * size_m).astype(np.float32)
    bends = (rng.uniform(-0.15, 0.15, count) / size_m).astype(np.float32)
    turns = rng.uniform(-0.08, 0.08, count).astype(np.float32)

    def weight(u_m: FloatField, v_m: FloatField, width_m: FloatField) -> FloatField:
        covered = np.zeros_like(u_m)
        for half_m, start_m, bend, turn in zip(half_widths, aside, bends, turns, strict=True):
            off_m = v_m - (start_m + turn * u_m + bend * u_m**2)
            inside_m = np.minimum(off_m + width_m / 2, half_m) - np.maximum(off_m - width_m / 2, -half_m)
            np.maximum(covered, np.clip(inside_m / width_m, 0, 1), out=covered)
        ends = _ramp((1 - np.abs(u_m) / np.float32(size_m)) / 0.1)
        return np.asarray(np.multiply(covered, ends), np.float32)

    return weight


def blot(size_m: float, rng: np.random.Generator, edge: tuple[float, float], uneven: float, patchy: float) -> Pattern:
    """A coloured place: soft edge of a share `edge` of its radius, outline and strength uneven."""
    share = _share(size_m, rng, uneven, narrowest=0.5)
    edge_share, texture = np.float32(rng.uniform(*edge)), _texture(size_m, rng)

    def weight(u_m: FloatField, v_m: FloatField, _: FloatField) -> FloatField:
        rough = texture(u_m, v_m)
        outline = _ramp((1 - share(u_m, v_m)) / edge_share)
        return np.asarray(outline * np.clip(1 - patchy * (0.5 - rough), 0, 1), np.float32)

    return weight


def _share(
    size_m: float, rng: np.random.Generator, uneven: float, narrowest: float
) -> Callable[[FloatField, FloatField], FloatField]:
    """Distance from the centre over that of a random oval outline, which stays within `size_m`."""
    orders = np.arange(2, 7)
    heights = uneven * rng.normal(size=orders.size) / orders
    turns = rng.uniform(0, 2 * np.pi, orders.size)
    slim, turn = rng.uniform(narrowest, 1.0), rng.uniform(0, np.pi)
    every = np.linspace(0, 2 * np.pi, 257)
    outline = np.clip(1 + np.sin(every[:, None] * orders + turns) @ heights, 0.4, None)
    outline /= outline.max()
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))

    def share(u_m: FloatField, v_m: FloatField) -> FloatField:
        along, across = u_m * cosine + v_m * sine, (v_m * cosine - u_m * sine) / np.float32(slim)
        radius = np.interp(np.arctan2(across, along) % (2 * np.pi), every, outline)
        return np.asarray(np.hypot(along, across) / (size_m * radius), np.float32)

    return share


def _texture(size_m: float, rng: np.random.Generator) -> Callable[[FloatField, FloatField], FloatField]:
    """Blotches of 0 to 1: a sum of waves of random direction and length, through a soft step."""
    lengths_m = np.exp(rng.uniform(np.log(0.12 * size_m), np.log(0.9 * size_m), WAVES))
    angles, turns = rng.uniform(0, np.pi, WAVES), rng.uniform(0, 2 * np.pi, WAVES)
    along = (2 * np.pi * np.stack((np.cos(angles), np.sin(angles))) / lengths_m).astype(np.float32)

    def texture(u_m: FloatField, v_m: FloatField) -> FloatField:
        total = sum(np.sin(u_m * a + v_m * b + np.float32(turn)) for a, b, turn in zip(*along, turns, strict=True))
        return np.asarray(0.5 + 0.5 * np.tanh(0.8 * np.asarray(total)), np.float32)

    return texture


def _ramp(x: FloatArray) -> FloatField:
    """Smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x), np.float32)

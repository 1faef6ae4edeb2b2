"""Probabilities that hold, and parts unlike all others that are known as such."""

from dataclasses import replace

import networkparts
import numpy as np
import pytest

from depthcell.errors import DepthcellError
from depthcell.models.decision.calibration import calibration_error, fit_calibration, reliability
from depthcell.models.decision.outofdistribution import Familiarity
from depthcell.models.network.partinput import CHANNELS, PartInput


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    is_defect = rng.random(count) < 0.5
    return np.where(is_defect, rng.normal(2, 1, count), rng.normal(0, 1, count)), is_defect


def test_probabilities_hold_on_fresh_parts_and_raw_scores_do_not() -> None:
    """Two normal scores 2 apart: the probability is known, `1 / (1 + exp(-(2 s - 2)))`."""
    rng = np.random.default_rng(1)
    curve = fit_calibration(*drawn(rng, 4000))
    assert curve.slope == pytest.approx(2.0, abs=0.2)
    assert curve.offset == pytest.approx(-2.0, abs=0.2)
    scores, is_defect = drawn(rng, 20000)
    assert calibration_error(reliability(curve.probability(scores), is_defect)) < 0.02
    raw = np.clip(scores / 4, 0, 1)
    assert calibration_error(reliability(raw, is_defect)) > 0.05


def test_reliability_counts_every_part_once() -> None:
    bins = reliability(np.array([0.0, 0.05, 0.5, 1.0]), np.array([False, False, True, True]))
    assert [one.count for one in bins] == [2, 1, 1]
    assert [one.share for one in bins] == [0.0, 1.0, 1.0]


def test_calibration_needs_both_kinds() -> None:
    with pytest.raises(DepthcellError, match="needs good and defective"):
        fit_calibration(np.arange(3.0), np.zeros(3, np.bool_))


def ball(seed: int, **channels: float) -> PartInput:
    part = networkparts.ball_part(seed)
    images = part.images.copy()
    for name, factor in channels.items():
        images[:, CHANNELS.index(name)] *= factor
    return replace(part, images=images)


def test_a_part_unlike_all_others_says_in_what() -> None:
    familiar = Familiarity.learn([ball(seed) for seed in range(12)])
    assert all(familiar.why(ball(seed)) is None for seed in range(20, 40))
    dark = familiar.why(ball(50, red=0.1))
    assert dark is not None
    assert dark.startswith("red of camera ")
    assert familiar.why(ball(51, deviation=40.0)) is not None
    blind = familiar.why(ball(52, measured=0.0))
    assert blind is not None
    assert "camera left" in blind


def test_familiarity_needs_three_parts() -> None:
    with pytest.raises(DepthcellError, match="2 good parts to learn from"):
        Familiarity.learn([ball(1), ball(2)])

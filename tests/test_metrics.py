"""The metrics against hand-computed examples, a plain slow twin, scikit-learn, and their own coverage."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from depthcell.errors import DepthcellError
from depthcell.models import metrics
from depthcell.models.metrics import (
    PIXEL_FIGURES,
    ScoredImage,
    auroc,
    auroc_estimate,
    curve,
    pixel_estimates,
    proportion_estimate,
)

SHAPE = (2, 4, 5)  # two images of 4 x 5 pixels
LEVELS = st.integers(0, 6).map(float)  # few levels, so that ties abound


def images_of(maps: np.ndarray, masks: np.ndarray) -> list[ScoredImage]:
    return [
        ScoredImage.of(scored.astype(np.float32), mask.astype(bool)) for scored, mask in zip(maps, masks, strict=True)
    ]


def connected(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """8-connected regions by spreading from one pixel at a time."""
    labels, count = np.zeros(mask.shape, int), 0
    for seed in np.argwhere(mask):
        if labels[tuple(seed)]:
            continue
        count, stack = count + 1, [tuple(seed)]
        while stack:
            row, column = stack.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and mask[row, column] and not labels[row, column]:
                labels[row, column] = count
                stack += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return labels, count


def naive_curve(maps: np.ndarray, masks: np.ndarray) -> tuple[list[float], list[float]]:
    """The definition read aloud: for each threshold, over each region, count."""
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        shares = []
        for scored, mask in zip(maps, masks, strict=True):
            labels, count = connected(mask)
            shares += [float((scored[labels == k] >= threshold).mean()) for k in range(1, count + 1)]
        rates.append(float((maps[~masks] >= threshold).mean()))
        overlaps.append(float(np.mean(shares)))
    return rates, overlaps


def naive_area(rates: list[float], overlaps: list[float], limit: float) -> float:
    area = 0.0
    for x0, y0, x1, y1 in zip(rates[:-1], overlaps[:-1], rates[1:], overlaps[1:], strict=True):
        if x0 >= limit:
            break
        end = min(x1, limit)
        y_end = y1 if x1 <= limit else y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, SHAPE, elements=LEVELS), arrays(np.bool_, SHAPE), st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0]))
def test_aupro_agrees_with_the_slow_twin(maps: np.ndarray, masks: np.ndarray, limit: float) -> None:
    if masks.all() or not masks.any():
        return
    assert curve(images_of(maps, masks)).aupro(limit) == pytest.approx(naive_area(*naive_curve(maps, masks), limit))


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, SHAPE, elements=LEVELS), arrays(np.bool_, SHAPE))
def test_pixel_and_image_auroc_agree_with_scikit_learn(maps: np.ndarray, masks: np.ndarray) -> None:
    peer = pytest.importorskip("sklearn.metrics")
    if masks.all() or not masks.any():
        return
    expected = peer.roc_auc_score(masks.ravel(), maps.ravel())
    assert curve(images_of(maps, masks)).pixel_auroc == pytest.approx(expected)
    assert auroc(masks.ravel(), maps.ravel()) == pytest.approx(expected)


def test_aupro_of_an_example_by_hand() -> None:
    # Regions {9, 5} and {5}, which touch at a corner only in the other image; good pixels 7 5 1 1 1.
    maps = np.array([[[9.0, 5.0], [7.0, 1.0]], [[5.0, 1.0], [5.0, 1.0]]])
    masks = np.array([[[True, True], [False, False]], [[True, False], [False, False]]])
    # Corners (rate, overlap): 9 -> (0, 1/4); 7 -> (1/5, 1/4); 5 -> (2/5, 1); 1 -> (1, 1).
    exact = curve(images_of(maps, masks))
    assert exact.aupro(0.2) == pytest.approx(0.25)
    # At 0.3 the line from (0.2, 0.25) to (0.4, 1) stands at 0.625.
    assert exact.aupro(0.3) == pytest.approx((0.2 * 0.25 + 0.1 * (0.25 + 0.625) / 2) / 0.3)
    # Defect 9 beats 5 of 5; each 5 beats 3 and ties with 1.
    assert exact.pixel_auroc == pytest.approx((5 + 3.5 + 3.5) / 15)


def test_regions_touching_at_a_corner_are_one() -> None:
    mask = np.array([[[True, False], [False, True]]])
    scored = np.array([[[1.0, 0.0], [0.0, 0.0]]])
    assert len(set(images_of(scored, mask)[0].region)) == 1
    assert images_of(scored, mask)[0].regions == 1


def test_perfect_maps_give_one_and_constant_maps_half_the_limit() -> None:
    masks = np.zeros((3, 8, 8), dtype=bool)
    masks[:2, 2:4, 2:5] = True
    perfect, constant = curve(images_of(masks * 1.0, masks)), curve(images_of(np.zeros(masks.shape), masks))
    assert [perfect.pixel_auroc, perfect.aupro(0.3), perfect.aupro(0.01)] == pytest.approx([1, 1, 1])
    assert [constant.pixel_auroc, constant.aupro(0.3), constant.aupro(0.01)] == pytest.approx([0.5, 0.15, 0.005])
    assert auroc(np.array([True, False]), np.zeros(2)) == 0.5


@pytest.mark.parametrize(("mask", "lacking"), [(np.zeros((3, 3), bool), "defect"), (np.ones((3, 3), bool), "good")])
def test_one_kind_alone_is_refused(mask: np.ndarray, lacking: str) -> None:
    with pytest.raises(DepthcellError, match=f"no {lacking} one"):
        curve([ScoredImage.of(np.zeros((3, 3), np.float32), mask)])
    with pytest.raises(DepthcellError, match=f"no {lacking} one"):
        auroc(mask.ravel(), np.zeros(9))


def test_scores_that_are_not_finite_and_wrong_sizes_are_refused() -> None:
    mask = np.eye(3, dtype=bool)
    with pytest.raises(DepthcellError, match="not finite"):
        ScoredImage.of(np.full((3, 3), np.nan, np.float32), mask)
    with pytest.raises(DepthcellError, match="differ in size"):
        ScoredImage.of(np.zeros((3, 4), np.float32), mask)
    with pytest.raises(DepthcellError, match="not finite"):
        auroc(mask.ravel(), np.full(9, np.inf))


@pytest.mark.parametrize("true_auroc", [0.6, 0.8, 0.95])
def test_interval_of_image_auroc_covers(true_auroc: float) -> None:
    """Normal scores with the subset's counts, 31 defects and 7 good: 95 % intervals hold 93 % of the time or more."""
    rng, trials = np.random.default_rng(5), 600
    shift = np.sqrt(2) * NormalDist().inv_cdf(true_auroc)
    is_defect = np.arange(38) < 31
    held = 0
    for _ in range(trials):
        estimate = auroc_estimate(is_defect, rng.normal(size=38) + shift * is_defect)
        held += estimate.low <= true_auroc <= estimate.high
    assert 0.93 <= held / trials <= 0.995


def test_interval_of_image_auroc_keeps_a_width_at_its_ends() -> None:
    is_defect = np.arange(10) < 5
    best, worst = auroc_estimate(is_defect, is_defect * 1.0), auroc_estimate(is_defect, ~is_defect * 1.0)
    assert best.value == best.high == 1.0
    assert 0.5 < best.low < 0.8
    assert (worst.low, worst.high) == pytest.approx((1 - best.high, 1 - best.low))


def test_interval_of_a_share_is_the_published_one() -> None:
    # Clopper and Pearson: no failure among n leaves the one-sided bound 1 - (alpha / 2)^(1 / n).
    estimate = proportion_estimate(0, 7)
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(1 - 0.025 ** (1 / 7))


def scored_parts(rng: np.random.Generator, parts: int) -> tuple[list[ScoredImage], list[str]]:
    """Parts with a defect of 3 x 3 pixels whose contrast differs from part to part; every fourth part is good."""
    images, kinds = [], []
    for index in range(parts):
        mask = np.zeros((24, 24), dtype=bool)
        if index % 4:
            mask[5:8, 5:8] = True
        scored = rng.normal(size=mask.shape) + mask * rng.uniform(0, 4)
        images.append(ScoredImage.of(scored.astype(np.float32), mask))
        kinds.append("dent" if index % 4 else "good")
    return images, kinds


def test_bootstrap_is_repeatable_and_encloses_the_value() -> None:
    images, kinds = scored_parts(np.random.default_rng(3), 24)
    estimates = pixel_estimates(images, kinds, seed=1)
    assert tuple(estimates) == PIXEL_FIGURES
    assert estimates == pixel_estimates(images, kinds, seed=1)
    assert estimates != pixel_estimates(images, kinds, seed=2)
    for estimate in estimates.values():
        assert 0 <= estimate.low < estimate.value < estimate.high <= 1


@pytest.mark.slow
def test_bootstrap_interval_covers() -> None:
    """Interval of AUPRO@30 % over 40 drawn parts against the figure of 4000 parts, in 200 trials."""
    rng = np.random.default_rng(11)
    truth = curve(scored_parts(rng, 4000)[0]).aupro(0.3)
    estimates = [pixel_estimates(*scored_parts(rng, 40), seed=trial)["aupro_30"] for trial in range(200)]
    held = sum(estimate.low <= truth <= estimate.high for estimate in estimates)
    assert 0.91 * 200 <= held <= 0.995 * 200


def test_draws_without_spread_claim_nothing() -> None:
    """One part in its stratum can only be drawn as it is, so the bootstrap sees no spread: the interval says so."""
    images, _ = scored_parts(np.random.default_rng(4), 6)
    estimates = pixel_estimates(images, [f"kind {index}" for index in range(6)], seed=0)
    assert {(estimate.low, estimate.high) for estimate in estimates.values()} == {(0.0, 1.0)}


@pytest.mark.parametrize("parts", [3, 60])
def test_thinned_levels_give_the_exact_figure(parts: int) -> None:
    """What the bootstrap reads on its few levels agrees with all levels."""
    images, _ = scored_parts(np.random.default_rng(parts), parts * 10)
    levels = metrics._levels(images)
    some = metrics._curve(metrics._summed(images, metrics._thinned(levels, images)))
    every = curve(images)
    assert [some.pixel_auroc, some.aupro(0.3), some.aupro(0.01)] == pytest.approx(
        [every.pixel_auroc, every.aupro(0.3), every.aupro(0.01)], abs=1e-3
    )

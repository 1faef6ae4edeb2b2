"""From truths and verdicts to capability: what counts as a hit, and what a handful of parts does not prove."""

import json
import math
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest
from conftest import verdict_on
from scipy.stats import gumbel_r  # type: ignore[attr-defined, unused-ignore]

from depthcell.acquisition.simulator.truth import DefectTruth, PartTruth, Pose
from depthcell.errors import DepthcellError
from depthcell.inspect.comparison import PLACE_TOLERANCE_MM, Comparison
from depthcell.inspect.pod_report import (
    classes_in_words,
    false_calls_in_words,
    markdown_rows,
    pod_table,
    render_page,
    render_picture,
)
from depthcell.inspect.pod_result import PodStudy
from depthcell.inspect.pod_run import write_study
from depthcell.inspect.pod_study import CRITERION, study_of
from depthcell.inspect.verdict import Decision, Finding, Measurement, Position, Quantity, Verdict

TOLERANCE_MM, SIGNIFICANCE, U_MM = 0.5, 5.0, 0.03
PLACE_MM = (10.0, 5.0, 0.0)


def defect(depth_mm: float | None = -0.8, kind: str = "dent", area_mm2: float = 80.0, at: float = 0.0) -> DefectTruth:
    """A defect, `at` mm aside of `PLACE_MM`."""
    x, y, z = PLACE_MM
    shape: Literal["surface", "volumetric"] = "surface" if depth_mm is None else "volumetric"
    return DefectTruth(kind, shape, (x + at, y, z), depth_mm, area_mm2, None, {})


def finding(depth_mm: float | None = -0.8, at: float = 0.0, source: str = "depth", kind: str = "dent") -> Finding:
    """What inspection found, `at` mm aside of `PLACE_MM`."""
    x, y, z = PLACE_MM
    depth = None if depth_mm is None else Quantity(depth_mm, U_MM)
    content = {
        "kind": kind,
        "depth_mm": depth,
        "area_mm2": Quantity(40.0, 2.0),
        "volume_mm3": None,
        "position_mm": Position((x + at, y, z), (0.1, 0.1, 0.1)),
        "sigma": 9.0,
        "source": source,
        "cameras": ("1",),
        "text": f"{kind} at {at}",
    }
    return msgspec.convert(content, Finding, from_attributes=True)


def compared(
    defects: tuple[DefectTruth, ...] = (),
    findings: tuple[Finding, ...] = (),
    decision: Decision = Decision.NOK,
    largest_mm: float = 0.18,
) -> Comparison:
    """One part, what it is and what was said of it."""
    nowhere = Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    truth = PartTruth(1, "part", "bracket", not defects, 0, nowhere, (1.0, 1.0, 1.0), defects, (), "cloud.ply")
    largest = tuple(
        Measurement(f"largest deviation {way}", sign * largest_mm, 0.04, "mm", None, None, Decision.OK, "made")
        for way, sign in (("outwards", 1), ("inwards", -1))
    )
    verdict: Verdict = msgspec.structs.replace(
        verdict_on(decision=decision), findings=findings, measurements=largest, verdict=decision
    )
    return Comparison(truth, verdict)


def study(*parts: Comparison) -> PodStudy:
    return study_of(parts, TOLERANCE_MM, SIGNIFICANCE)


@pytest.mark.parametrize(
    ("part", "hit", "reported", "elsewhere"),
    [
        (compared((defect(),), (finding(),)), 1, 1, 0),
        (compared((defect(),), (finding(-0.52),)), 0, 1, 0),  # too near to the limit: no NOK by itself
        (compared((defect(),), (finding(-0.2, source="depth+color"),)), 1, 1, 0),  # its colour rejects it
        (compared((defect(),), (finding(None, source="color"),)), 1, 1, 0),
        (compared((defect(),), (finding(),), Decision.CANNOT_TELL), 0, 1, 0),
        (compared((defect(),), ()), 0, 0, 0),
        (compared((defect(),), (finding(at=30.0),)), 0, 0, 1),
        (compared((defect(1.2, "warp", 6000.0),), (finding(0.9, at=60.0),)), 1, 1, 0),
    ],
)
def test_what_is_a_hit(part: Comparison, hit: int, reported: int, elsewhere: int) -> None:
    result = study(part)
    (kind,) = result.kinds.values()
    assert (kind.hits.count, kind.reported.count, result.findings_elsewhere) == (hit, reported, elsewhere)


def test_the_radius_is_that_of_the_defect_and_a_margin() -> None:
    reach_mm = math.sqrt(80.0 / math.pi) + PLACE_TOLERANCE_MM
    near, far = (compared((defect(),), (finding(at=reach_mm + off),)) for off in (-0.1, 0.1))
    assert study(near).kinds["dent"].hits.count == 1
    assert study(far).kinds["dent"].hits.count == 0
    assert f"{PLACE_TOLERANCE_MM:g} mm" in CRITERION


def test_a_finding_belongs_to_the_defect_it_is_nearest_to() -> None:
    both = (defect(), defect(0.8, "bump", at=10.0))
    result = study(compared(both, (finding(0.8, at=9.0),)))
    assert result.kinds["bump"].hits.count == 1
    assert result.kinds["dent"].hits.count == 0


def test_a_response_deviates_the_way_the_defect_does() -> None:
    parts = [compared((defect(-0.8),), (finding(+0.7),)), compared((defect(-0.9),), (finding(-0.7), finding(-0.85)))]
    assert study(*parts).kinds["dent"].responses_mm == (None, 0.85)


def test_sizes_are_depth_or_diameter() -> None:
    result = study(
        compared((defect(-0.8),), ()),
        compared((defect(None, "stain", math.pi),), ()),
        compared((defect(-6.0, "missing_bore", math.pi * 49),), ()),
    )
    sizes = {kind: capability.smallest_mm for kind, capability in result.kinds.items()}
    assert sizes == pytest.approx({"dent": 0.8, "stain": 2.0, "missing_bore": 14.0})
    assert "diameter" in result.kinds["stain"].size
    assert result.kinds["missing_bore"].response is None


def graded(count: int, noise_mm: float = 0.05, largest_mm: float = 1.6) -> list[Comparison]:
    """Dents from 0.2 mm to a largest, measured with noise; reported from 0.2 mm, NOK beyond the guard band."""
    rng = np.random.default_rng(count)
    parts = []
    for depth_mm in np.geomspace(0.2, largest_mm, count).tolist():
        seen_mm = depth_mm + noise_mm * float(rng.standard_normal())
        findings = (finding(-seen_mm),) if seen_mm > 0.2 else ()
        nok = seen_mm > TOLERANCE_MM + 1.645 * U_MM
        parts.append(compared((defect(-depth_mm),), findings, Decision.NOK if nok else Decision.OK))
    return parts


def test_eighty_dents_bound_a90_from_above() -> None:
    dents = study(*graded(80)).kinds["dent"]
    truth_mm = TOLERANCE_MM + 1.645 * U_MM + 1.2816 * 0.05
    assert dents.hit_miss.undetermined is None
    assert dents.response is not None
    assert dents.response.decision_mm == pytest.approx(TOLERANCE_MM + 1.645 * U_MM, abs=1e-3)
    for found, width in ((dents.hit_miss, 0.2), (dents.response.at_decision, 0.05)):
        assert found.a90_mm is not None
        assert found.a90_95_mm is not None
        assert found.a90_mm == pytest.approx(truth_mm, rel=0.1)
        assert found.a90_mm < found.a90_95_mm < found.a90_mm + width


def test_twelve_dents_never_do() -> None:
    dents = study(*graded(12)).kinds["dent"]
    assert dents.hit_miss.a90_95_mm is None
    assert dents.hit_miss.undetermined == "12 defects; a bound from hits and misses needs 60"
    assert dents.response is not None
    assert dents.response.at_decision.a90_95_mm is None
    assert dents.response.at_decision.undetermined == "12 defects; a bound from responses needs 40"


def test_hits_alone_or_misses_alone_give_a_share_and_no_size() -> None:
    hits = study(*[compared((defect(-depth),), (finding(-depth),)) for depth in np.linspace(0.7, 2.0, 60)])
    found = hits.kinds["dent"].hit_miss
    assert (found.a50_mm, found.a90_mm, found.a90_95_mm) == (None, None, None)
    assert found.undetermined is not None
    assert found.undetermined.startswith("all 60 from 0.70 mm up were hit: at least 94%")
    misses = study(*[compared((defect(-depth),), ()) for depth in np.linspace(0.1, 0.3, 60)])
    assert misses.kinds["dent"].hit_miss.undetermined == "none of 60 up to 0.30 mm was hit: at most 6% of such (95 %)"


def test_a_bound_beyond_what_was_tested_is_not_stated() -> None:
    found = study(*graded(80, largest_mm=0.62)).kinds["dent"].hit_miss
    assert found.a90_95_mm is None
    assert found.undetermined is not None
    assert "beyond 0.62 mm, the largest of 80" in found.undetermined


def test_hits_that_have_nothing_to_do_with_size_prove_nothing() -> None:
    parts = [
        compared((defect(-depth),), (finding(-0.9),) if number % 2 else ())
        for number, depth in enumerate(np.linspace(0.2, 1.0, 60))
    ]
    found = study(*parts).kinds["dent"].hit_miss
    assert found.undetermined == "60 defects do not prove that larger ones are detected more often"


def test_false_calls_and_noise_come_from_good_parts() -> None:
    rng = np.random.default_rng(1)
    largest = 0.2 + 0.03 * rng.gumbel(size=40)
    good = [compared((), (), Decision.OK, value) for value in largest]
    good[0] = compared((), (finding(),), Decision.NOK, 0.2)
    good[1] = compared((), (), Decision.CANNOT_TELL, 0.2)
    result = study(*good, compared((defect(),), ()))
    assert result.false_calls is not None
    assert result.held_back is not None
    assert (result.false_calls.count, result.held_back.count, result.false_calls.total) == (1, 1, 40)
    assert result.findings_elsewhere == 1
    assert result.noise is not None
    values = np.repeat([0.2, 0.2, *largest[2:]], 2)
    assert (result.noise.location_mm, result.noise.scale_mm) == pytest.approx(gumbel_r.fit(values), rel=1e-3)
    beyond = gumbel_r.sf(result.noise.threshold_mm, result.noise.location_mm, result.noise.scale_mm)
    assert 1 - (1 - beyond) ** 2 == pytest.approx(0.01, rel=1e-6)
    assert study(*good[:10], compared((defect(),), ())).noise is None


def test_a_run_without_defects_is_refused() -> None:
    with pytest.raises(DepthcellError, match="no part of the run has a defect"):
        study(compared())


def test_people_get_a_table_a_picture_and_a_page(tmp_path: Path) -> None:
    result = study(*graded(60), compared((defect(None, "stain", 4.0),), ()), compared((), (), Decision.OK))
    write_study(result, tmp_path, "recipe <plate>")
    again = json.loads((tmp_path / "pod.json").read_text())
    assert again["kinds"]["dent"]["hit_miss"]["a90_95_mm"] == result.kinds["dent"].hit_miss.a90_95_mm
    assert (tmp_path / "pod.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "pod.html").read_text()
    assert "recipe &lt;plate&gt;" in page
    assert "data:image/png;base64," in page
    assert "http" not in page  # asks nobody for anything
    assert page == render_page(result, tmp_path / "pod.png", "recipe <plate>")
    assert pod_table(result).row_count == 2
    rows = markdown_rows(result).splitlines()
    assert rows[2].startswith("| dent (depth) | 60 |")
    assert rows[3].startswith("| stain (diameter) | 1 | 0 |")
    assert classes_in_words(study(*graded(4))) == ["2 of 4 volumetric defects hit (95 %: 6.8% to 93.2%)"]
    assert false_calls_in_words(result)[0] == "0 of 1 good parts rejected (95 %: 0.0% to 97.5%)"
    assert "false calls are not known" in false_calls_in_words(study(*graded(4)))[0]
    render_picture(study(compared((defect(),), ())), tmp_path / "one.png")
    assert (tmp_path / "one.png").is_file()

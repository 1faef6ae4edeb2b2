"""What several test files share."""

from collections.abc import Callable

import pytest

from depthcell.inspect.verdict import (
    Decision,
    Finding,
    Measurement,
    Position,
    Provenance,
    Quantity,
    Verdict,
    sealed,
)

MakeVerdict = Callable[..., Verdict]


@pytest.fixture(scope="session")
def make_verdict() -> MakeVerdict:
    """A function that gives a sealed verdict: a rejected part with a dent, a stain and a bore, or a good one."""
    return verdict_on


def verdict_on(sequence: int = 1, decision: Decision = Decision.NOK) -> Verdict:
    dent = Finding(
        kind="dent",
        depth_mm=Quantity(-0.82, 0.09),
        area_mm2=Quantity(41.5, 2.1),
        volume_mm3=Quantity(-17.3, 1.8),
        position_mm=Position((12.5, -3.25, 40.0), (0.2, 0.2, 0.1)),
        sigma=9.1,
        source="depth",
        cameras=("405000001", "405000003"),
        text="dent 0.82 ± 0.09 mm deep on 42 mm², 9.1 sigma",
    )
    stain = Finding(
        kind="stain",
        depth_mm=None,
        area_mm2=Quantity(12.0, 1.0),
        volume_mm3=None,
        position_mm=Position((-8.0, 2.0, 40.0), (0.3, 0.3, 0.1)),
        sigma=7.5,
        source="color",
        cameras=("405000002",),
        text="stain on 12 mm², darker than good parts by 7.5 sigma",
    )
    bore = Measurement(
        name="bore A",
        value=12.07,
        u=0.04,
        unit="mm",
        lower=11.7,
        upper=12.3,
        decision=Decision.OK,
        provenance="circle through 412 rim points of 3 cameras",
    )
    rejected = decision is Decision.NOK
    return sealed(
        Verdict(
            schema_version=1,
            verdict=decision,
            part_id=f"part_{sequence:03d}",
            trigger_id=f"trigger-{sequence}",
            sequence=sequence,
            findings=(dent, stain) if rejected else (),
            measurements=(bore,),
            reasons=(dent.text, stain.text) if rejected else ("every check is within its tolerance",),
            timings_ms={"fuse": 41.2, "align": 12.9, "total": 54.1},
            issued_at="2026-03-04T05:06:07.891Z",
            provenance=Provenance("1" * 64, "2" * 64, "3" * 64, None, "depthcell 0.1.0"),
        )
    )

"""The verdict: its schema is committed and holds, and its digest covers all but the times."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthcell.errors import DepthcellError
from depthcell.inspect.verdict import (
    Decision,
    Finding,
    Measurement,
    Position,
    Provenance,
    Quantity,
    Verdict,
    digest_of,
    from_json,
    json_schema,
    sealed,
    to_json,
)
from depthcell.jsontext import canonical_json

COMMITTED = Path(__file__).resolve().parents[1] / "docs" / "verdict.schema.json"
NOT_IN_THE_DIGEST = {"timings_ms", "issued_at", "digest"}

numbers = st.floats(-1e6, 1e6)
uncertainties = st.floats(0, 1e3)
words = st.text(max_size=20)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
quantities = st.builds(Quantity, numbers, uncertainties)
findings = st.builds(
    Finding,
    kind=words,
    depth_mm=st.none() | quantities,
    area_mm2=quantities,
    volume_mm3=st.none() | quantities,
    position_mm=st.builds(Position, st.tuples(*[numbers] * 3), st.tuples(*[uncertainties] * 3)),
    sigma=numbers,
    source=st.sampled_from(["depth", "color", "depth+color"]),
    cameras=st.lists(words, max_size=3).map(tuple),
    text=words,
)
measurements = st.builds(
    Measurement,
    name=words,
    value=st.none() | numbers,
    u=st.none() | uncertainties,
    unit=words,
    lower=st.none() | numbers,
    upper=st.none() | numbers,
    decision=st.sampled_from(Decision),
    provenance=words,
)
verdicts = st.builds(
    Verdict,
    schema_version=st.just(1),
    verdict=st.sampled_from(Decision),
    part_id=words,
    trigger_id=words,
    sequence=st.integers(1, 10**9),
    findings=st.lists(findings, max_size=2).map(tuple),
    measurements=st.lists(measurements, max_size=2).map(tuple),
    reasons=st.lists(words, min_size=1, max_size=2).map(tuple),
    timings_ms=st.dictionaries(words, uncertainties, max_size=2),
    issued_at=words,
    provenance=st.builds(Provenance, hashes, hashes, hashes, st.none() | hashes, words),
).map(sealed)


VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def schema_accepts(content: Any) -> bool:
    return bool(VALIDATOR.is_valid(content))


@given(verdicts)
def test_every_verdict_survives_the_wire_and_satisfies_the_schema(verdict: Verdict) -> None:
    line = to_json(verdict)
    assert from_json(line) == verdict
    assert b"\n" not in line
    assert schema_accepts(json.loads(line))


def test_the_committed_schema_is_what_the_code_says() -> None:
    assert json.loads(COMMITTED.read_text()) == json_schema(), (
        "docs/verdict.schema.json is stale: write json_schema() into it"
    )


def test_schema_explains_every_field_of_the_message() -> None:
    definitions = json_schema()["$defs"]
    undescribed = [
        name
        for kind in ("Verdict", "Finding", "Measurement")
        for name, field in definitions[kind]["properties"].items()
        if not field.get("description")
    ]
    assert undescribed == []
    assert "Attributes:" not in json.dumps(definitions)


BREAKAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a field is missing": lambda content: content.pop("reasons"),
    "a field is unknown": lambda content: content.update(colour="red"),
    "the decision is a word of its own": lambda content: content.update(verdict="MAYBE"),
    "another schema version": lambda content: content.update(schema_version=2),
    "counting starts at one": lambda content: content.update(sequence=0),
    "no reason given": lambda content: content.update(reasons=[]),
    "a text for a number": lambda content: content["findings"][0].update(sigma="5"),
    "a negative uncertainty": lambda content: content["findings"][0]["area_mm2"].update(u=-0.1),
    "a position of two coordinates": lambda content: content["findings"][0]["position_mm"].update(value=[1.0, 2.0]),
    "no digest": lambda content: content.update(digest=""),
}


@pytest.mark.parametrize("why", BREAKAGES)
def test_what_breaks_the_contract_is_refused_by_schema_and_reader_alike(
    why: str, make_verdict: Callable[[], Verdict]
) -> None:
    content = json.loads(to_json(make_verdict()))
    assert schema_accepts(content)
    BREAKAGES[why](content)
    assert not schema_accepts(content)
    with pytest.raises(msgspec.ValidationError):
        from_json(json.dumps(content).encode())


@given(verdicts, st.dictionaries(words, uncertainties, max_size=3), words)
def test_times_do_not_change_the_digest(verdict: Verdict, timings_ms: dict[str, float], issued_at: str) -> None:
    later = msgspec.structs.replace(verdict, timings_ms=timings_ms, issued_at=issued_at)
    assert digest_of(later) == verdict.digest


def paths_to_leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value that holds no other, and every list and table, since their length is content too."""
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from paths_to_leaves(value, (*path, key))


def altered(value: Any) -> Any:
    """Another value of the same JSON type; a table and null have none."""
    if isinstance(value, str):
        others = {"OK": "NOK", "NOK": "OK", "CANNOT-TELL": "OK", "depth": "color", "color": "depth"}
        return others.get(value, value + "x")
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return value[:-1] or [*value, "x"]
    return value


@given(verdicts, st.data())
def test_everything_else_changes_the_digest(verdict: Verdict, data: st.DataObject) -> None:
    content = msgspec.to_builtins(verdict)
    covered = {name: value for name, value in content.items() if name not in NOT_IN_THE_DIGEST}
    path = data.draw(st.sampled_from([p for p in paths_to_leaves(json.loads(json.dumps(covered))) if p]))
    content = json.loads(json.dumps(content))
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    before = holder[path[-1]]
    holder[path[-1]] = altered(before)
    try:
        changed = msgspec.convert(content, Verdict)
    except msgspec.ValidationError:
        return  # the change broke the contract itself: it could not be sent
    if holder[path[-1]] != before:
        assert digest_of(changed) != verdict.digest


def test_every_field_but_the_times_is_covered(make_verdict: Callable[..., Verdict]) -> None:
    """Plain twin of the property above: one hand-made change per top-level field."""
    verdict = make_verdict()
    changes: dict[str, Any] = {
        "schema_version": 2,
        "verdict": Decision.OK,
        "part_id": "another",
        "trigger_id": "another",
        "sequence": 2,
        "findings": verdict.findings[:1],
        "measurements": (),
        "reasons": ("another",),
        "provenance": msgspec.structs.replace(verdict.provenance, model="4" * 64),
    }
    assert set(changes) | NOT_IN_THE_DIGEST == set(Verdict.__struct_fields__)
    for name, value in changes.items():
        assert digest_of(msgspec.structs.replace(verdict, **{name: value})) != verdict.digest, name


def test_the_digest_is_over_canonical_json_and_nothing_else(make_verdict: Callable[..., Verdict]) -> None:
    """Written out by hand here, as a controller in another language would: docs/wire.md gives the rule."""
    content = json.loads(to_json(make_verdict(1, Decision.OK)))
    digest = content.pop("digest")
    del content["timings_ms"], content["issued_at"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("number", "text"),
    [  # RFC 8785, appendix B
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-1.7976931348623157e308, "-1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (999999999999999700000.0, "999999999999999700000"),
        (1e21, "1e+21"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (0.000001, "0.000001"),
        (333333333.3333332, "333333333.3333332"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1424953923781206.2, "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_rfc_8785_shows(number: float, text: str) -> None:
    assert canonical_json([number]) == f"[{text}]".encode()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_canonical_number_reads_back_as_itself(number: float) -> None:
    assert float(canonical_json(number)) == number


def test_keys_are_sorted_and_text_stays_utf8() -> None:
    assert (
        canonical_json({"b": "0.8 ± 0.1", "a": [1, 2.5, None, True]})
        == '{"a":[1,2.5,null,true],"b":"0.8 ± 0.1"}'.encode()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_json_cannot_say_is_refused_when_sealed(
    value: float, make_verdict: Callable[..., Verdict]
) -> None:
    verdict = make_verdict()
    broken = msgspec.structs.replace(verdict.findings[0], sigma=value)
    with pytest.raises(DepthcellError, match=r"part_001.*sigma"):
        sealed(msgspec.structs.replace(verdict, findings=(broken,)))

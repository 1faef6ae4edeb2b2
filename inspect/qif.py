"""Measured parts as QIF 3.0 results (ISO 23952): one document, one set of measurement results for each part.

Uncertainty stands as `combinedUncertainty`, the standard uncertainty (k = 1) of each value, with `meanError` 0: what is
known of systematic error has been corrected (GUM 3.2.4). CANNOT-TELL is `INDETERMINATE` where a value was found, and
`NOT_ANALYZED` where there is none.
"""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from itertools import count
from xml.etree import ElementTree as ET

from depthcell import __version__
from depthcell.errors import DepthcellError
from depthcell.inspect.gauges.gauged import GaugeResult
from depthcell.inspect.measurement import MeasuredPart, MeasurementFacts
from depthcell.inspect.qif_characteristic import (
    VOLUME_UNIT,
    Characteristic,
    characteristic_of,
    decimal,
    legal,
    write_definition,
    write_nominal,
)
from depthcell.inspect.verdict import Decision

NAMESPACE = "http://qifstandards.org/xsd/qif3"
VERSION = "3.0.0"
DEGREE_RAD = "0.017453292519943295"
STANDARD_ID, SOFTWARE_ID = 1, 2
PART_STATUS = {Decision.OK: "PASS", Decision.NOK: "FAIL", Decision.CANNOT_TELL: "UNKNOWN"}
GAUGE_STATUS = {Decision.OK: "PASS", Decision.NOK: "FAIL", Decision.CANNOT_TELL: "INDETERMINATE"}


def qif_document(parts: Sequence[MeasuredPart], facts: MeasurementFacts) -> bytes:
    """The document, UTF-8; the same content gives the same bytes, its identifier (QPId) included.

    Raises:
        DepthcellError: there is no part, or two parts do not have the same gauges.
    """
    if not parts:
        raise DepthcellError("QIF: there is no part to write; name a recording with --qif")
    columns = _columns(parts)
    told = {name: characteristic_of(results) for name, results in columns.items()}
    ids = count(SOFTWARE_ID + 1)
    root = ET.Element("QIFDocument", {"xmlns": NAMESPACE, "versionQIF": VERSION, "idMax": ""})
    qpid = ET.SubElement(root, "QPId")
    _write_head(root, facts, [name for name, one in told.items() if one is None])
    known = {name: one for name, one in told.items() if one is not None}
    _write_units(root, with_volume=any(one.kind == "UserDefinedUnit" for one in known.values()))
    items = _write_characteristics(root, known, ids)
    _write_results(root, parts, facts, (known, items), ids)
    root.set("idMax", str(next(ids) - 1))
    digest = hashlib.sha256(ET.tostring(root)).hexdigest()
    qpid.text = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}#{digest}"))
    ET.indent(root)
    body: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return body + b"\n"


def _columns(parts: Sequence[MeasuredPart]) -> dict[str, list[GaugeResult]]:
    """The results of each gauge over the parts, in the recipe's order."""
    names = [result.name for result in parts[0].results]
    for part in parts:
        if [result.name for result in part.results] != names:
            raise DepthcellError(
                f"QIF: part '{part.part_id}' has other gauges than '{parts[0].part_id}'; write one file per recipe"
            )
    return {name: [part.results[number] for part in parts] for number, name in enumerate(names)}


def _write_head(root: ET.Element, facts: MeasurementFacts, untold: Sequence[str]) -> None:
    _text(ET.SubElement(root, "Version"), "TimeCreated", facts.written_at)
    header = ET.SubElement(root, "Header")
    left_out = f"; not told here, since QIF needs a limit: {', '.join(untold)}" if untold else ""
    about = f"depthcell measure {facts.source}, recipe {facts.recipe_name}, cell {facts.cell_name}{left_out}"
    _text(header, "Description", legal(about))
    _text(header, "Scope", "Results")
    standard = ET.SubElement(ET.SubElement(root, "StandardsDefinitions", n="1"), "Standard", id=str(STANDARD_ID))
    _text(ET.SubElement(standard, "Organization"), "StandardsOrganizationEnum", "ISO")
    _text(standard, "Designator", "1101")
    _text(standard, "Title", "Geometrical product specifications (GPS) - Geometrical tolerancing")
    software = ET.SubElement(ET.SubElement(root, "SoftwareDefinitions", n="1"), "Software", id=str(SOFTWARE_ID))
    _text(software, "VendorName", "depthcell")
    _text(software, "ApplicationName", "depthcell")
    _text(software, "Version", __version__)


def _write_units(root: ET.Element, *, with_volume: bool) -> None:
    units = ET.SubElement(root, "FileUnits")
    primary = ET.SubElement(units, "PrimaryUnits")
    for kind, name, factor in (("AngularUnit", "degree", DEGREE_RAD), ("LinearUnit", "mm", "0.001")):
        unit = ET.SubElement(primary, kind)
        _text(unit, "UnitName", name)
        _text(ET.SubElement(unit, "UnitConversion"), "Factor", factor)
    if with_volume:
        unit = ET.SubElement(ET.SubElement(units, "UserDefinedUnits", n="1"), "UserDefinedUnit")
        _text(unit, "WhatIsMeasured", "volume")
        _text(unit, "UnitName", VOLUME_UNIT)
        _text(unit, "StandardName", "SI")


def _write_characteristics(root: ET.Element, told: dict[str, Characteristic], ids: Iterator[int]) -> dict[str, int]:
    """Definitions, nominals and items; returns the QIF id of each gauge's item."""
    if not told:
        return {}
    top = ET.SubElement(root, "Characteristics")
    _text(top, "FormalStandardId", str(STANDARD_ID))
    lists = {
        aspect: ET.SubElement(top, f"Characteristic{aspect}", n=str(len(told)))
        for aspect in ("Definitions", "Nominals", "Items")
    }
    items = {}
    for name, one in told.items():
        definition, nominal, item = next(ids), next(ids), next(ids)
        write_definition(lists["Definitions"], one, definition)
        write_nominal(lists["Nominals"], one, nominal, definition)
        entry = ET.SubElement(lists["Items"], f"{one.kind}CharacteristicItem", id=str(item))
        _text(entry, "Name", legal(name))
        _text(entry, "CharacteristicNominalId", str(nominal))
        items[name] = item
    return items


def _write_results(
    root: ET.Element,
    parts: Sequence[MeasuredPart],
    facts: MeasurementFacts,
    characteristics: tuple[dict[str, Characteristic], dict[str, int]],
    ids: Iterator[int],
) -> None:
    results = ET.SubElement(root, "Results")
    measured = ET.SubElement(results, "MeasurementResultsSet", n=str(len(parts)))
    sets = ET.SubElement(results, "ActualComponentSets", n="1")
    components = ET.SubElement(sets, "ActualComponentSet", n=str(len(parts)))
    for part in parts:
        component = next(ids)
        _write_part(measured, part, component, characteristics, ids)
        actual = ET.SubElement(components, "ActualComponent", id=str(component))
        _text(actual, "SerialNumber", legal(part.part_id))
        _text(ET.SubElement(actual, "Status"), "InspectionStatusEnum", _part_status(part))
    traceability = ET.SubElement(results, "InspectionTraceability")
    _text(traceability, "ReportNumber", legal(facts.source))
    _text(traceability, "InspectionStart", min(part.measured_at for part in parts))
    software = ET.SubElement(traceability, "InspectionSoftwareItems")
    _text(ET.SubElement(software, "AnalysisSoftware", n="1"), "Id", str(SOFTWARE_ID))


def _write_part(
    into: ET.Element,
    part: MeasuredPart,
    component: int,
    characteristics: tuple[dict[str, Characteristic], dict[str, int]],
    ids: Iterator[int],
) -> None:
    told, items = characteristics
    entry = ET.SubElement(into, "MeasurementResults", id=str(next(ids)))
    hashes = (
        ("recording", part.provenance.recording),
        ("cell", part.provenance.cell),
        ("recipe", part.provenance.recipe),
    )
    reasons = ("verdict", part.decision.value), ("reasons", "; ".join(part.reasons))
    _write_attributes(entry, [*((f"sha256 of {what}", value) for what, value in hashes), *reasons], [])
    if told:
        measured = ET.SubElement(entry, "MeasuredCharacteristics")
        listed = ET.SubElement(measured, "CharacteristicMeasurements", n=str(len(told)))
        for result in part.results:
            if result.name in told:
                one = told[result.name]
                measurement = ET.SubElement(listed, f"{one.kind}CharacteristicMeasurement", id=str(next(ids)))
                _write_measurement(measurement, result, part.measured_at, (items[result.name], component), one)
    _text(ET.SubElement(entry, "InspectionStatus"), "InspectionStatusEnum", _part_status(part))
    _text(ET.SubElement(entry, "ActualComponentIds", n="1"), "Id", str(component))


def _write_measurement(
    into: ET.Element, result: GaugeResult, measured_at: str, refers: tuple[int, int], told: Characteristic
) -> None:
    numbers = [] if result.conformance is None else [("probability of conformance", result.conformance)]
    numbers += [(f"u from {row.source}", row.u) for row in result.budget]
    _write_attributes(into, [("decision", result.decision.value), ("reason", result.reason)], numbers)
    if result.note:
        _text(into, "Description", legal(result.note))
    _text(ET.SubElement(into, "Status"), "CharacteristicStatusEnum", _gauge_status(result))
    _text(into, "CharacteristicItemId", str(refers[0]))
    _text(into, "TimeStamp", measured_at)
    _text(into, "ActualComponentId", str(refers[1]))
    if result.value is not None:
        unit = {"unitName": VOLUME_UNIT} if told.kind == "UserDefinedUnit" else {}
        u = {} if result.u is None else {"combinedUncertainty": decimal(result.u), "meanError": "0"}
        ET.SubElement(into, "Value", unit | u).text = decimal(result.value)


def _part_status(part: MeasuredPart) -> str:
    return PART_STATUS[part.decision] if part.is_placed else "NOT_MEASURED"


def _gauge_status(result: GaugeResult) -> str:
    if result.value is None:
        return "NOT_ANALYZED"
    if result.lower is None and result.upper is None:
        return "UNDEFINED"
    return GAUGE_STATUS[result.decision]


def _write_attributes(into: ET.Element, texts: Sequence[tuple[str, str]], numbers: Sequence[tuple[str, float]]) -> None:
    attributes = ET.SubElement(into, "Attributes", n=str(len(texts) + len(numbers)))
    for name, text in texts:
        ET.SubElement(attributes, "AttributeStr", name=legal(name), value=legal(text))
    for name, number in numbers:
        ET.SubElement(attributes, "AttributeD1", name=legal(name), value=repr(float(number)))


def _text(into: ET.Element, name: str, text: str) -> None:
    ET.SubElement(into, name).text = text

"""STEP as a reference: units, accuracy, nominal features, refusals."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from depthcell.errors import DepthcellError
from depthcell.fusion.association.elements import Cylinder, Plane
from depthcell.fusion.cad import CadPart, load_cad
from depthcell.fusion.reference import Reference
from depthcell.inspect.recipe import ReferenceSection

BOX_MM, BORE_MM, BORE_AT_MM = (60.0, 40.0, 10.0), 14.0, (20.0, 20.0)


def occ(module: str) -> Any:
    return importlib.import_module(f"OCP.{module}")


def drilled_box() -> Any:
    gp, primitives = occ("gp"), occ("BRepPrimAPI")
    axis = gp.gp_Ax2(gp.gp_Pnt(*BORE_AT_MM, -1.0), gp.gp_Dir(0, 0, 1))
    tool = primitives.BRepPrimAPI_MakeCylinder(axis, BORE_MM / 2, BOX_MM[2] + 2).Shape()
    return occ("BRepAlgoAPI").BRepAlgoAPI_Cut(primitives.BRepPrimAPI_MakeBox(*BOX_MM).Shape(), tool).Shape()


def save_step(shape: Any, path: Path, unit: str = "MM", schema: str = "AP214IS") -> Path:
    occ("Message").Message.DefaultMessenger_s().ChangePrinters().Clear()
    control, static = occ("STEPControl"), occ("Interface").Interface_Static
    writer = control.STEPControl_Writer()  # its settings exist once there is one
    assert static.SetCVal_s("write.step.unit", unit)
    assert static.SetCVal_s("write.step.schema", schema)
    writer.Transfer(shape, control.STEPControl_StepModelType.STEPControl_AsIs)
    writer.Write(str(path))
    return path


def chord_m(part: CadPart, bore_radius_m: float) -> float:
    """Farthest that any triangle of the bore's wall comes from the true cylinder, at points all over it."""
    corners = part.mesh.corners_m
    centre = np.array([*BORE_AT_MM, 0.0]) / 1e3
    radius = np.linalg.norm((corners - centre)[..., :2], axis=-1)
    wall = (np.abs(radius - bore_radius_m) < 1e-7).all(axis=1) & (np.ptp(corners[..., 2], axis=1) > 1e-4)
    weights = np.random.default_rng(0).dirichlet((1, 1, 1), 200)
    points = np.einsum("wc,tcx->twx", weights, corners[wall])
    return float(np.abs(np.linalg.norm((points - centre)[..., :2], axis=-1) - bore_radius_m).max())


@pytest.mark.parametrize(("unit", "named"), [("MM", "mm"), ("INCH", "inch"), ("M", "m")])
@pytest.mark.parametrize("schema", ["AP203", "AP214IS", "AP242DIS"])
def test_the_file_says_its_unit_and_every_schema_gives_the_same_part(
    tmp_path: Path, unit: str, named: str, schema: str
) -> None:
    part = load_cad(save_step(drilled_box(), tmp_path / "box.step", unit, schema))
    assert part.unit == named
    np.testing.assert_allclose(part.mesh.max_m - part.mesh.min_m, np.array(BOX_MM) / 1e3, atol=1e-9)
    volume_mm3 = np.prod(BOX_MM) - np.pi * BORE_MM**2 / 4 * BOX_MM[2]
    assert part.mesh.volume_m3 * 1e9 == pytest.approx(volume_mm3, abs=np.pi * BORE_MM * BOX_MM[2] * 0.002)


@pytest.mark.parametrize("wished_m", [2e-6, 2e-5])
def test_the_chord_is_kept_and_measured(tmp_path: Path, wished_m: float) -> None:
    part = load_cad(save_step(drilled_box(), tmp_path / "box.step"), None, wished_m)
    assert part.chord_m <= wished_m
    assert chord_m(part, BORE_MM / 2e3) == pytest.approx(part.chord_m, rel=0.02)


def test_free_form_faces_are_measured_too(tmp_path: Path) -> None:
    torus = occ("BRepPrimAPI").BRepPrimAPI_MakeTorus(20.0, 5.0).Shape()
    spline = occ("BRepBuilderAPI").BRepBuilderAPI_NurbsConvert(torus).Shape()
    part = load_cad(save_step(spline, tmp_path / "ring.step"), None, 2e-5)
    points = np.einsum("wc,tcx->twx", np.random.default_rng(1).dirichlet((1, 1, 1), 8), part.mesh.corners_m)
    off_m = np.hypot(np.hypot(points[..., 0], points[..., 1]) - 0.02, points[..., 2]) - 0.005
    assert np.abs(off_m).max() <= part.chord_m <= 2e-5
    assert part.features == ()


def test_faces_are_offered_as_nominal_features(tmp_path: Path) -> None:
    part = load_cad(save_step(drilled_box(), tmp_path / "box.stp", "INCH"))
    (bore,) = [feature for feature in part.features if isinstance(feature.element, Cylinder)]
    assert isinstance(bore.element, Cylinder)
    assert bore.is_inward
    assert bore.element.radius_m == pytest.approx(BORE_MM / 2e3, abs=1e-9)
    np.testing.assert_allclose(bore.element.point, [0.02, 0.02, 0.005], atol=1e-9)
    np.testing.assert_allclose(np.abs(bore.element.axis), [0, 0, 1], atol=1e-12)
    planes = [feature.element for feature in part.features if isinstance(feature.element, Plane)]
    assert len(planes) == 6
    middle = np.array(BOX_MM) / 2e3
    assert all((plane.point - middle) @ plane.normal > 0 for plane in planes)  # out of the material
    areas = [feature.area_m2 for feature in part.features]
    assert areas == sorted(areas, reverse=True)


def test_a_shaft_is_not_a_bore(tmp_path: Path) -> None:
    shaft = occ("BRepPrimAPI").BRepPrimAPI_MakeCylinder(8.0, 30.0).Shape()
    part = load_cad(save_step(shaft, tmp_path / "shaft.step"))
    (wall,) = [feature for feature in part.features if isinstance(feature.element, Cylinder)]
    assert not wall.is_inward


def test_a_reference_takes_step_by_its_ending(tmp_path: Path) -> None:
    path = save_step(drilled_box(), tmp_path / "box.STEP", "INCH")
    reference = Reference.load(path, None)
    lower, upper = reference.bounds_part
    np.testing.assert_allclose(upper - lower, np.array(BOX_MM) / 1e3, atol=1e-9)
    assert reference.sha256 == Reference.load(path, "inch").sha256
    with pytest.raises(DepthcellError, match=r"box\.STEP: is written in inch, not mm; write mesh_unit as the file"):
        Reference.load(path, "mm")


def test_what_is_no_single_solid_is_refused(tmp_path: Path) -> None:
    builder, both = occ("BRep").BRep_Builder(), occ("TopoDS").TopoDS_Compound()
    builder.MakeCompound(both)
    builder.Add(both, drilled_box())
    builder.Add(both, occ("BRepPrimAPI").BRepPrimAPI_MakeSphere(5.0).Shape())
    with pytest.raises(DepthcellError, match=r"two\.step: holds 2 solids; save the one part"):
        load_cad(save_step(both, tmp_path / "two.step"))
    (tmp_path / "torn.step").write_text("ISO-10303-21;\nHEADER;\n")
    with pytest.raises(DepthcellError, match=r"torn\.step: "):
        load_cad(tmp_path / "torn.step")
    with pytest.raises(DepthcellError, match="no such file"):
        load_cad(tmp_path / "absent.step")
    path = save_step(drilled_box(), tmp_path / "box.step")
    with pytest.raises(DepthcellError, match="cannot be kept; give one above 0"):
        load_cad(path, None, 0.0)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    path = tmp_path / "part.step"
    path.write_text("ISO-10303-21;")
    with pytest.raises(DepthcellError, match=r"OpenCascade, which is not installed .*; pip install 'depthcell\[cad\]'"):
        Reference.load(path, "mm")


def test_a_recipe_leaves_the_unit_to_step_unless_it_says_one() -> None:
    assert ReferenceSection(mesh="part.STEP").stated_unit is None
    assert ReferenceSection(mesh="part.stp", mesh_unit="inch").stated_unit == "inch"
    assert ReferenceSection(mesh="part.stl").stated_unit == "mm"

"""The model card as people read it (M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019)."""

from collections.abc import Mapping
from typing import Any


def card_text(card: Mapping[str, Any]) -> str:
    """Markdown: what it is for, what it learned from, how good it is, where it ends."""
    figures = card["figures"]
    rows = "\n".join(
        f"| {name} | {one['value']:.3f} | {one['low']:.3f} to {one['high']:.3f} |"
        for name, one in figures["auroc"].items()
    )
    bins = "\n".join(
        f"| {one['probability']:.2f} | {one['share']:.2f} | {one['count']} |" for one in figures["reliability"]
    )
    found = figures["painted_found"]
    classes = ", ".join(f"{name} {count}" for name, count in card["recorded_of_each_class"].items())
    held_out = ", ".join(card["held_out"]) or "none"
    return f"""# Model for recipe {card["recipe"]}

**For** parts of recipe {card["recipe"]} in cell {card["cell"]} by cameras {", ".join(card["cameras"])}, at the nominal
pose and calibration that they had. Any other part, pose or cell is refused.

**Learned from** {card["good_to_learn_from"]} good parts, onto which defects were drawn in 3D and colour; chosen by
{card["good_to_choose_by"]} other good parts, each also painted with fixed defects
({card["painted_to_choose_by"]} parts).
Recorded of each class: {classes}. Kinds held out of training: {held_out}. Seed {card["seed"]},
SHA-256 of parts and settings {card["data_sha256"]}.

**On the validation parts** (drawn defects, sizes from where nothing can be found on; image AUROC, 95 % interval):

| judge | AUROC | interval |
|---|---|---|
{rows}

The network counts {figures["share_of_network"]:g}, the good parts the rest. {found["value"]:.1%} of painted parts
({found["low"]:.1%} to {found["high"]:.1%}) lie above the threshold, which {figures["threshold"]["statement"]}.

**Are the probabilities true?** Expected calibration error {figures["calibration_error"]:.3f}, on the parts that the
curve was fitted on:

| mean probability | share defective | parts |
|---|---|---|
{bins}

**Limits.** Drawn defects are not found ones: the figures above say how training went, not how a line fares; measure
that by `depthcell evaluate --model` on parts with known defects. Probabilities hold for as many defective parts as good
ones. Nothing is promised for a camera, a modality or a place that was not measured; the verdict then says so.

**Made** in {card["seconds"]:.0f} s{" (stopped early)" if card["stopped_early"] else ""} with {card["versions"]}.
"""

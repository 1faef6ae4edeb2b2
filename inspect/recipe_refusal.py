"""What is wrong with a recipe, in one line: each field by its name, with what to do."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

MAX_ERRORS_TOLD = 3


def told(error: ValidationError, recipe: type[BaseModel]) -> str:
    """The first few errors, each as `field.name: what is wrong`.

    Args:
        error: what pydantic found.
        recipe: the model that was asked, to know the fields that stand beside a misspelt one.
    """
    errors = error.errors(include_url=False)
    lines = [_told_one(list(e["loc"]), e["type"], e["msg"], e.get("input"), recipe) for e in errors[:MAX_ERRORS_TOLD]]
    rest = f" (and {len(errors) - MAX_ERRORS_TOLD} more)" if len(errors) > MAX_ERRORS_TOLD else ""
    return "; ".join(lines) + rest


def _told_one(location: list[int | str], kind: str, message: str, given: object, recipe: type[BaseModel]) -> str:
    section, place = _followed(location, recipe)
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if kind == "extra_forbidden":
        known = list(section.model_fields)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return f"{field}: unknown field; {advice}"
    if kind == "missing":
        return f"{field}: is missing; add it"
    if kind == "union_tag_not_found":
        return f"{field}.kind: is missing; add it"
    text = message.removeprefix("Value error, ")
    if kind == "union_tag_invalid" and isinstance(given, dict):
        kinds = [repr(known) for known in _kinds(recipe, str(place[0]))]
        return f"{field}.kind: {given.get('kind')!r} is unknown; known are {', '.join(kinds)}"
    if isinstance(given, str | int | float) and kind != "value_error":
        text += f", got {given!r}"
    return f"{field}: {text}" if field else text


def _followed(location: list[int | str], recipe: type[BaseModel]) -> tuple[type[BaseModel], list[int | str]]:
    """The section that holds the last word of a location, and the location without the words that tell kinds apart."""
    section, place = recipe, list[int | str]()
    sections: dict[str, type[BaseModel]] = {}
    for word in location:
        if isinstance(word, str) and word in sections:
            section, sections = sections[word], {}
            continue
        place.append(word)
        if isinstance(word, str) and word in section.model_fields:
            found = list(_models_in(section.model_fields[word].annotation))
            sections = {_kind_of(model): model for model in found if "kind" in model.model_fields}
            if len(found) == 1:
                section = found[0]
    return section, place


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models_in(part)


def _kind_of(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["kind"].annotation)[0])


def _kinds(recipe: type[BaseModel], field: str) -> list[str]:
    return [_kind_of(model) for model in _models_in(recipe.model_fields[field].annotation)]

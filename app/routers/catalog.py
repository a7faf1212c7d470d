"""`/v1/catalog`: all that can be asked for, with the JSON Schema of its parameters."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Path
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app import datasets, schemas
from app.dependencies import SessionDep
from app.planning import sizes_of_preset
from app.presets import PRESETS, paper
from ml import spec

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


class Sort(StrEnum):
    """What can be listed."""

    VIEWS = "views"
    DATASETS = "datasets"
    METHODS = "methods"
    ENCODERS = "encoders"
    TASKS = "tasks"
    ESTIMATORS = "estimators"
    PRESETS = "presets"


UNIONS: dict[Sort, Any] = {
    Sort.VIEWS: spec.Views,
    Sort.METHODS: spec.Method,
    Sort.ENCODERS: spec.Encoder,
    Sort.TASKS: spec.Task,
}


@router.get("/{sort}", response_model=schemas.Catalog)
def get_catalog(sort: Annotated[Sort, Path(description="What to list.")], session: SessionDep) -> Any:
    """What can be asked for: view families, datasets, methods, encoders, tasks, estimators, presets."""
    if sort in UNIONS:
        return {"data": [_variant(model) for model in _members(UNIONS[sort])]}
    if sort is Sort.PRESETS:
        with datasets.looked_up_once():
            return {"data": list(_presets(session))}
    return {"data": list({Sort.DATASETS: _datasets, Sort.ESTIMATORS: _estimators}[sort]())}


def _members(union: Any) -> tuple[type[BaseModel], ...]:
    """The models of a union, annotated or not, or a single model."""
    if isinstance(union, type):
        return (union,)
    inner, *_ = get_args(union)
    return (inner,) if isinstance(inner, type) else get_args(inner)


def _variant(model: type[BaseModel]) -> dict[str, Any]:
    (name,) = get_args(model.model_fields["kind"].annotation)
    return {"name": name, "description": " ".join((model.__doc__ or "").split()), "schema": model.model_json_schema()}


def _datasets() -> Iterator[dict[str, Any]]:
    present = datasets.present()
    schema = spec.Dataset.model_json_schema()
    for name in sorted({*datasets.NAMED, *present}):
        facts = datasets.facts(spec.Dataset(name=name)).model_dump(exclude={"name"}) if name in present else None
        description = datasets.description(name)
        yield {"name": name, "description": description, "present": name in present, "facts": facts, "schema": schema}


def _estimators() -> Iterator[dict[str, Any]]:
    schema = spec.MiEstimate.model_json_schema()
    for name, facts in spec.ESTIMATORS.items():
        yield {"name": name, **facts.model_dump(), "unit": "nats", "schema": schema}


def _presets(session: Session) -> Iterator[dict[str, Any]]:
    """With what each size takes here, and what was published."""
    schema = schemas.PresetRun.model_json_schema()
    for name, preset in PRESETS.items():
        sweep = preset.sweep.model_dump(mode="json", exclude_unset=True)
        found = paper(name)
        yield {
            "name": name,
            "description": preset.description,
            "sweep": sweep,
            "sizes": {size: takes.model_dump(mode="json") for size, takes in sizes_of_preset(session, preset).items()},
            "paper": found and found.model_dump(mode="json"),
            "schema": schema,
        }

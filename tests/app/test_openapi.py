"""The OpenAPI document says what the API does: schemathesis calls every operation with what is valid and with what is not."""

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import run_state_machine_as_test
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import settings as app_settings
from app.main import create_app
from app.persistence import experiments, keys, leases
from app.persistence.database import engine, open_session
from app.persistence.models import ApiKey, Base

Json = dict[str, Any]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12  # of each operation, mode and set of ids
DOCUMENT: Json = create_app().openapi()
OPERATIONS = [(method, path) for path, operations in DOCUMENT["paths"].items() for method in operations]


@pytest.fixture(autouse=True)
def _without_keys(monkeypatch: pytest.MonkeyPatch, database: Any) -> Iterator[None]:
    """schemathesis asks from nowhere."""
    monkeypatch.setenv("SWEETSPOT_AUTH", "off")
    app_settings.settings.cache_clear()
    yield
    monkeypatch.undo()
    app_settings.settings.cache_clear()


@pytest.fixture(scope="module")
def schema() -> Any:
    config = SchemathesisConfig()
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(), config=config)


@pytest.fixture
def ids(api: TestClient, work: Any, spec: Json, sweep_spec: Json) -> dict[str, str]:
    """What there is to ask about: a finished experiment, a sweep that runs, a preview, two uploads, and an estimate."""
    experiment = api.post("/v1/experiments", json=spec).json()["id"]
    claim = work.claimed()
    work.write(lambda session: leases.report(session, claim, experiments.IDLE, [("loss", 1, 4.2)]))
    work.succeed(claim, artifacts={"preview.png": b"\x89PNG\r\n\x1a\n", "encoder.safetensors": b"weights"})
    sweep = api.post("/v1/sweeps", json=sweep_spec).json()["id"]
    work.succeed(work.claimed())
    preview = api.post("/v1/previews", json=spec, headers={"Prefer": "wait=0"}).json()["id"]
    dataset = api.post("/v1/datasets", files={"file": b"PK"}).json()["id"]
    np.savez(arrays := io.BytesIO(), x=np.eye(64), y=np.eye(64))
    estimate = api.post("/v1/mi-estimates", files={"file": arrays.getvalue()}).json()["id"]
    header = b'{"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    weights = len(header).to_bytes(8, "little") + header + b"\0"
    checkpoint = api.post("/v1/checkpoints", files={"file": weights}).json()["id"]
    return {
        "experiments": experiment,
        "sweeps": sweep,
        "previews": preview,
        "datasets": dataset,
        "checkpoints": checkpoint,
        "mi-estimates": estimate,
    }


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method.upper()} {path}" for method, path in OPERATIONS])
def test_every_answer_is_documented(schema: Any, ids: dict[str, str], method: str, path: str) -> None:
    operation = schema[path][method.upper()]
    takes = {parameter["in"] for parameter in DOCUMENT["paths"][path][method].get("parameters", [])}
    call(operation, GenerationMode.POSITIVE, None)
    if "{" in path or "query" in takes:
        call(operation, GenerationMode.NEGATIVE, None)
    if "{id}" in path:
        known = {"id": ids[path.split("/")[2]]}
        call(operation, GenerationMode.POSITIVE, known)
        if "query" in takes:
            call(operation, GenerationMode.NEGATIVE, known)


def call(operation: Any, mode: GenerationMode, known: dict[str, str] | None) -> None:
    """Call it with what is valid, or is not, on any ids or on `known` ones."""

    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=known))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        case.headers["Prefer"] = "wait=0"  # nobody works here
        if mode is GenerationMode.POSITIVE:
            lead_on(case.body)
        case.call_and_validate(checks=CHECKS)

    check()


def lead_on(body: Any) -> None:
    """Chance does not find the dataset that there is, nor the path of a field: lead a valid body past these doors."""
    if isinstance(body, dict) and isinstance(body.get("dataset"), dict):
        body["dataset"]["name"] = "digits"
    if isinstance(body, dict) and "axis" in body:
        body["base"]["dataset"]["name"] = "digits"
        body["axis"]["path"] = "name"
        if body["axis"].get("values"):
            body["axis"]["values"] = [str(value)[:200] for value in body["axis"]["values"]]


# What answers lead on to

WALKS = int(os.environ.get("SWEETSPOT_WALKS", "12"))  # three hundred take some minutes
STEPS = 8


@pytest.mark.parametrize("auth", ["off", "on"])
def test_one_may_go_from_any_answer_to_any_other(schema: Any, database: Any, auth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that answers name are asked about, changed and deleted, with all of schemathesis's checks on the way."""
    with open_session() as session:
        _, secret = keys.create(session, "walker", "somebody", ["read", "submit", "admin"], None, {"per_minute": None})
        session.commit()
    monkeypatch.setenv("SWEETSPOT_AUTH", auth)
    app_settings.settings.cache_clear()
    seen: Counter[tuple[str, int]] = Counter()

    class Walk(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            """Each walk begins with nothing, so that it can be gone again."""
            super().setup()
            with engine().begin() as connection:
                for table in reversed(Base.metadata.sorted_tables):
                    if table is not ApiKey.__table__:
                        connection.execute(table.delete())

        def before_call(self, case: Any) -> None:
            case.headers["Prefer"] = "wait=0"
            if case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE:
                lead_on(case.body)
                keep_simple(case.body)
            if auth == "on":
                case.headers["Authorization"] = f"Bearer {secret}"

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            seen[case.operation.label, response.status_code] += 1
            unfit = [positive_data_acceptance]  # what fits a dataset stands in no schema
            unfit += [negative_data_rejection] if case.method == "GET" else []  # in a query everything is a text
            unfit += [ignored_auth] if auth == "off" else []
            case.validate_response(response, excluded_checks=unfit)

    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=WALKS,
            stateful_step_count=STEPS,
            derandomize="SWEETSPOT_WALKS" not in os.environ,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    good = {label for label, status in seen if status < 300}
    assert any(label.startswith("POST") for label in good) and any("{id}" in label for label in good), seen
    print(f"{sum(seen.values())} calls", *sorted(seen.items()), sep="\n")  # noqa: T201


def keep_simple(body: Any) -> None:
    """Of a generated experiment the titles, the seed and the dataset: the rest seldom fits the dataset, and leads nowhere."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("axis"), dict):
        body.update(axis={"path": "views.sigma", "values": [0.1, 0.5]}, seeds=1, preset=None)
    whole = body.get("base", body)
    if isinstance(whole, dict) and isinstance(whole.get("dataset"), dict) and "name" in whole["dataset"]:
        for part in ("method", "encoder", "pretrain", "mi", "tasks"):
            whole.pop(part, None)
        whole.update(dataset={"name": whole["dataset"]["name"]}, views={"kind": "noise"})


# What people read


def models() -> dict[str, Json]:
    return dict(DOCUMENT["components"]["schemas"])


def test_the_document_is_valid_and_is_served(api: TestClient) -> None:
    assert api.get("/openapi.json").json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1")
    for schema in models().values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_and_parameter_is_described(method: str, path: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    assert operation["description"]
    assert all(parameter["description"] for parameter in operation.get("parameters", []))
    for status, answer in operation["responses"].items():
        assert answer["description"]
        if status[0] in "45" and path != "/readyz":
            assert list(answer["content"]) == ["application/problem+json"]
            assert answer["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize(
    ("parent", "field"), [("ExperimentSpec", "views"), ("ExperimentSpec", "encoder"), ("PreviewRequest", "views")]
)
def test_the_spec_is_typed_to_its_last_field(parent: str, field: str) -> None:
    schema = models()[parent]["properties"][field]
    assert schema["discriminator"]["propertyName"] == "kind"
    mapping = schema["discriminator"]["mapping"]
    assert {one["$ref"] for one in schema["oneOf"]} == set(mapping.values())
    for kind, reference in mapping.items():
        variant = models()[reference.rpartition("/")[2]]
        assert variant["properties"]["kind"]["const"] == kind
        assert variant["description"] and variant["additionalProperties"] is False
        for name, found in variant["properties"].items():
            assert name == "kind" or found["description"], f"{kind}.{name}"


@pytest.mark.parametrize(
    ("model", "field", "unit"),
    [
        ("Noise", "sigma", "scaled to [0, 1]"),
        ("Crop", "area", "Fraction"),
        ("Augment", "blur_sigma", "pixels"),
        ("Dataset", "image_size", "pixels"),
        ("Point", "i_nce", "nats"),
        ("MutualInformation", "estimators", "nats"),
        ("Classification", "labels", "items"),
        ("Bracket", "lower", "nats"),
    ],
)
def test_units_are_named(model: str, field: str, unit: str) -> None:
    assert unit in models()[model]["properties"][field]["description"]


def bodies() -> list[tuple[str, Json]]:
    posts = [(path, operations["post"]) for path, operations in DOCUMENT["paths"].items() if "post" in operations]
    required = [(path, operation["requestBody"]) for path, operation in posts if "requestBody" in operation]
    return [(path, body) for path, body in required if body.get("required") and "application/json" in body["content"]]


@pytest.mark.parametrize(("path", "body"), bodies(), ids=[path for path, _ in bodies()])
def test_the_example_of_a_body_can_be_sent(path: str, body: Json, api: TestClient) -> None:
    reference = body["content"]["application/json"]["schema"]["$ref"]
    examples = models()[reference.rpartition("/")[2]]["examples"]
    assert examples
    for example in examples:
        answer = api.post(path, json=example, headers={"Prefer": "wait=0"})
        assert answer.status_code == 202, answer.text


def test_the_pages_of_the_documentation_work_offline(api: TestClient) -> None:
    page = api.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) >= 2
    assert not re.search(r"https?://", page.text)
    for address in addresses:
        assert api.get(address).status_code == 200

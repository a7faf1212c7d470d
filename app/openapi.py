"""The OpenAPI document: FastAPI's, with what every operation may answer besides."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.authentication import COOKIE, OPEN
from app.schemas import Problem

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
HEADERS = {
    "X-Request-Id": "The request's own `X-Request-Id`, or one made for it.",
    "ETag": "Strong; send it as `If-None-Match` to get 304 while nothing changes.",
    "Location": "Where to follow it.",
    "Idempotent-Replayed": "`true` where this is the answer that the first request with the same Idempotency-Key got.",
    "Preference-Applied": "How long `Prefer: wait` was honoured for.",
    "Retry-After": "Seconds after which to try again.",
    "WWW-Authenticate": "`Bearer`.",
    "RateLimit-Limit": "Requests a minute that the key may make, where it has a limit.",
    "RateLimit-Remaining": "How many of them are left.",
    "RateLimit-Reset": "Seconds after which there are more.",
}


SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, `ssk_…`; `sweetspot keys create` makes one."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A browser that signed in with a key."},
}
REFUSED = {
    "401": "It takes a key, and the request has none that is good.",
    "403": "The key lacks the scope, which `scope` names; or a page of another site asks.",
    "429": "The key has used up its quota, which `quota` names, or asks too often.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = made["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        made["components"]["securitySchemes"] = SCHEMES
        made["components"]["headers"] = {name: _header(description) for name, description in HEADERS.items()}
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                operation["security"] = [] if path in OPEN else [{"key": []}, {"session": []}, {}]  # none on the same machine
                operation["responses"] = _responses(path, method, operation)
        app.openapi_schema = made
    return app.openapi_schema


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _responses(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    responses = {status: answer for status, answer in operation["responses"].items() if status != "422"}
    if path.startswith("/v1"):
        for status, description in _problems(path, method, operation).items():
            responses[status] = {"description": description, "content": PROBLEM}
    if path not in OPEN:
        for status, description in REFUSED.items():
            responses[status] = {"description": description, "content": PROBLEM}
    if path.startswith("/v1") and method == "get":
        responses["304"] = {"description": "It is still as `If-None-Match` has it."}
    for status, answer in responses.items():
        names = _header_names(path, method, status, operation)
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return dict(sorted(responses.items()))


def _problems(path: str, method: str, operation: dict[str, Any]) -> dict[str, str]:
    found = {"422": "A field is at fault; `errors` names it.", "503": "The database is away; try again in a moment."}
    if "{" in path:
        found["404"] = "There is no such thing."
    if method != "get":
        found["409"] = "The state forbids it, or a request with this Idempotency-Key is in flight."
    if "requestBody" in operation:
        found |= {"400": "The body cannot be read.", "413": "The body is too large.", "415": "The body is of another type."}
    if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
        found["507"] = "The disk has no room for the file."
    return found


def _header_names(path: str, method: str, status: str, operation: dict[str, Any]) -> list[str]:
    taken = {parameter["name"] for parameter in operation.get("parameters", [])}
    good = status.startswith("2") and path.startswith("/v1")
    names = ["X-Request-Id"]
    if status == "304" or (good and method == "get" and status == "200"):
        names.append("ETag")
    if good and "idempotency-key" in taken:
        names += ["Location", "Idempotent-Replayed"]
    if good and "prefer" in taken:
        names.append("Preference-Applied")
    if status in ("429", "503"):
        names.append("Retry-After")
    if status == "401":
        names.append("WWW-Authenticate")
    if path not in OPEN and status != "401":
        names += ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
    return names

"""Every error leaves as a problem document (RFC 9457)."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from app.errors import DomainError, FieldError, Invalid, NotFound, Unavailable
from app.logs import redacted
from app.middleware import SAFE_HEADERS
from ml.spec import SpecError

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Turn every exception into its document."""
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(SpecError, lambda request, error: _domain(request, Invalid.field(error.pointer, error.message)))
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DataError, lambda request, _: _domain(request, Invalid("a value is one that cannot be kept")))
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(PoolTimeout, _database_away)
    app.add_exception_handler(Exception, _unexpected)


def field_errors(error: ValidationError, body: Any, prefix: str = "") -> tuple[FieldError, ...]:
    """A validation error's fields, as pointers into `body`."""
    return tuple(FieldError(prefix + _pointer(_location(item), body), _words(item)) for item in error.errors())


def escaped(key: str) -> str:
    """A key as a part of a JSON pointer, RFC 6901."""
    return key.replace("~", "~0").replace("/", "~1")


def problem(
    request: Request,
    status: int,
    slug: str,
    title: str,
    detail: str,
    *,
    errors: tuple[FieldError, ...] = (),
    retryable: bool = False,
    headers: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
) -> JSONResponse:
    """One problem document."""
    content = {
        **(extra or {}),
        "type": f"urn:sweetspot:problem:{slug}",
        "title": title,
        "status": status,
        "detail": _printable(detail),
        "errors": [{"pointer": _printable(error.pointer), "message": _printable(error.message)} for error in errors],
        "request_id": request.state.request_id,
        "retryable": retryable,
    }
    return JSONResponse(content, status_code=status, headers=headers, media_type="application/problem+json")


def answer(request: Request, error: Exception) -> JSONResponse:
    """The document of what went wrong outside of the routes: of a DomainError, or of a database that is away."""
    return _domain(request, error) if isinstance(error, DomainError) else _database_away(request, error)


def _domain(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)
    return problem(
        request,
        error.status,
        error.slug,
        error.title,
        error.detail,
        errors=error.errors,
        retryable=error.retryable,
        headers=error.headers,
        extra=error.extra,
    )


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = tuple(FieldError(_request_pointer(_location(item), error.body), _words(item)) for item in error.errors())
    detail = "; ".join(f"{item.pointer or 'the body'}: {item.message}" for item in errors[:3])
    if isinstance(error.body, bytes):  # it was not even read as JSON
        detail = "the body must be JSON, sent with Content-Type: application/json"
        return problem(request, 415, "unsupported-media-type", "Unsupported Media Type", detail)
    in_path = any(item["loc"][0] == "path" for item in error.errors())
    return _domain(request, (NotFound if in_path else Invalid)(detail, errors=errors))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    slug = title.lower().replace(" ", "-")
    return problem(request, error.status_code, slug, title, str(error.detail), headers=dict(error.headers or {}))


def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.error("the database does not answer", error=str(error))
    return _domain(request, Unavailable("the database does not answer; try again in a moment"))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", exc_info=error)
    detail = "an unexpected error, which has been logged under this request's id"
    headers = {"X-Request-Id": request.state.request_id, **SAFE_HEADERS}  # this answer goes past the middleware
    return problem(request, 500, "internal", "Something went wrong on our side", detail, headers=headers)


def _request_pointer(location: tuple[int | str, ...], body: Any) -> str:
    place, *rest = location
    return _pointer(tuple(rest), body) if place == "body" else "/".join(map(str, location))


def _pointer(location: tuple[int | str, ...], body: Any) -> str:
    """A JSON pointer from pydantic's location, which names the chosen member of a union as well as the fields."""
    parts: list[str] = []
    node = body
    for key in location:
        if isinstance(node, dict) and key not in node and node.get("kind") == key:
            continue
        parts.append(escaped(str(key)))
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            node = None
    return "".join(f"/{part}" for part in parts)


def _location(item: Any) -> tuple[int | str, ...]:
    """Where pydantic's error is; it places a wrong tag of a union at the union, and broken JSON at a character."""
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*item["loc"], "kind")
    return item["loc"][:1] if item["type"] == "json_invalid" else item["loc"]


def _words(item: Any) -> str:
    message = str(item["msg"])
    match item["type"]:
        case "missing":
            pass
        case "extra_forbidden":
            message = "unknown field"
        case "json_invalid":
            message = f"no JSON: {item['ctx']['error']} at character {item['loc'][-1]}"
        case "value_error":
            message = message.removeprefix("Value error, ")
        case "union_tag_not_found":
            message = "Field required: it chooses what the rest is"
        case "union_tag_invalid":
            message = f"Input should be one of {item['ctx']['expected_tags']}, not {item['ctx']['tag']!r}"
        case _:
            got = repr(item.get("input"))
            message = f"{message}, not {got if len(got) <= 80 else got[:77] + '...'}"
    return message


def _printable(text: str) -> str:
    """Half a surrogate pair, which JSON can smuggle in, cannot be sent back as UTF-8, and a secret must not be."""
    return redacted(text.encode(errors="backslashreplace").decode())

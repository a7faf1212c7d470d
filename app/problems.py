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

from app.errors import DomainError, FieldError, Invalid, Unavailable
from ml.spec import SpecError

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Turn every exception into its document."""
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(SpecError, lambda request, error: _domain(request, Invalid.field(error.pointer, error.message)))
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(
        DataError, lambda request, _: _domain(request, Invalid("a text holds a character that cannot be kept"))
    )
    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(PoolTimeout, _database_away)
    app.add_exception_handler(Exception, _unexpected)


def field_errors(error: ValidationError, body: Any, prefix: str = "") -> tuple[FieldError, ...]:
    """A validation error's fields, as pointers into `body`."""
    return tuple(FieldError(prefix + _pointer(item["loc"], body), _words(item)) for item in error.errors())


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
        "detail": detail,
        "errors": [{"pointer": error.pointer, "message": error.message} for error in errors],
        "request_id": request.state.request_id,
        "retryable": retryable,
    }
    return JSONResponse(content, status_code=status, headers=headers, media_type="application/problem+json")


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
        headers={"Retry-After": "1"} if error.retryable else None,
        extra=error.extra,
    )


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = tuple(FieldError(_request_pointer(item["loc"], error.body), _words(item)) for item in error.errors())
    detail = "; ".join(f"{item.pointer or 'the body'}: {item.message}" for item in errors[:3])
    return _domain(request, Invalid(detail, errors=errors))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    slug = title.lower().replace(" ", "-")
    return problem(request, error.status_code, slug, title, str(error.detail), headers=dict(error.headers or {}))


def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.error("the database does not answer", error=str(error))
    return _domain(request, Unavailable("the database does not answer; try again in a moment"))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", request_id=request.state.request_id, exc_info=error)
    detail = "an unexpected error, which has been logged under this request's id"
    return problem(request, 500, "internal", "Something went wrong on our side", detail)


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
        parts.append(str(key).replace("~", "~0").replace("/", "~1"))
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            node = None
    return "".join(f"/{part}" for part in parts)


def _words(item: Any) -> str:
    message = str(item["msg"])
    if item["type"] == "extra_forbidden":
        return "unknown field"
    if item["type"] in ("missing", "json_invalid", "union_tag_not_found"):
        return message
    got = repr(item.get("input"))
    return f"{message}, not {got if len(got) <= 80 else got[:77] + '...'}"

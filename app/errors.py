"""What can go wrong in the domain, and the HTTP status that says so."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldError:
    """One field at fault: its JSON pointer in the body (or `query/NAME`, `header/NAME` …), and what it would accept."""

    pointer: str
    message: str


class DomainError(Exception):
    """The root of the tree. `slug` names the kind of problem, `extra` goes into the problem document as it is."""

    status = 500
    slug = "internal"
    title = "Something went wrong on our side"
    retryable = False

    def __init__(self, detail: str, *, errors: tuple[FieldError, ...] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.extra = extra

    @property
    def headers(self) -> dict[str, str]:
        """What its answer says beside the document."""
        return {"Retry-After": "1"} if self.retryable else {}


class NotFound(DomainError):
    """There is no such thing."""

    status = 404
    slug = "not-found"
    title = "Not found"


class Invalid(DomainError):
    """The request is well-formed and cannot be done; `errors` name the fields."""

    status = 422
    slug = "invalid"
    title = "The request cannot be done as it stands"

    @classmethod
    def field(cls, pointer: str, message: str) -> "Invalid":
        """One field at fault."""
        return cls(message, errors=(FieldError(pointer, message),))


class StateConflict(DomainError):
    """The thing's state forbids what was asked; the state is in the problem document."""

    status = 409
    slug = "state-conflict"
    title = "The state forbids it"

    def __init__(self, detail: str, state: str) -> None:
        super().__init__(detail, state=state)


class IdempotencyMismatch(DomainError):
    """The same Idempotency-Key came with another request."""

    status = 422
    slug = "idempotency-mismatch"
    title = "This Idempotency-Key belongs to another request"


class InFlight(DomainError):
    """A request with the same Idempotency-Key is still being answered."""

    status = 409
    slug = "in-flight"
    title = "A request with this Idempotency-Key is in flight"
    retryable = True


class StorageFull(DomainError):
    """The disk has no room for it."""

    status = 507
    slug = "storage-full"
    title = "There is no room on the disk"


class Unavailable(DomainError):
    """Something that we need is away for now."""

    status = 503
    slug = "unavailable"
    title = "Not available for now"
    retryable = True


class Unauthorized(DomainError):
    """It takes a key, and the request has none that is good."""

    status = 401
    slug = "unauthorized"
    title = "It takes a key"

    @property
    def headers(self) -> dict[str, str]:
        """How a key is sent, RFC 6750."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(DomainError):
    """The key does not allow it, or the request comes from another site's page."""

    status = 403
    slug = "forbidden"
    title = "Not allowed"


class QuotaExceeded(DomainError):
    """It would be more than the key may have at once; waiting helps once some of that is done or deleted."""

    status = 429
    slug = "quota"
    title = "The key's quota is used up"
    retryable = True

    def __init__(self, quota: str, limit: int, used: int, detail: str) -> None:
        super().__init__(detail, quota=quota, limit=limit, used=used)

    @property
    def headers(self) -> dict[str, str]:
        """A guess: trainings take minutes."""
        return {"Retry-After": "60"}


class RateExceeded(DomainError):
    """Too many requests in too short a time."""

    status = 429
    slug = "rate-limit"
    title = "Too many requests"
    retryable = True

    def __init__(self, detail: str, seconds: int) -> None:
        super().__init__(detail)
        self.seconds = seconds

    @property
    def headers(self) -> dict[str, str]:
        """When to come again."""
        return {"Retry-After": str(self.seconds)}

"""A file that comes as a multipart form: it goes to the disk as it comes, hashed on the way, and is never whole in memory."""

import errno
import hashlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import fsync
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Self, get_origin
from uuid import uuid4

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.dependencies import refuse_unkeepable
from app.errors import Invalid, StorageFull
from app.persistence import callers, files, quotas
from app.persistence.database import open_session
from app.problems import escaped, field_errors
from app.settings import settings

FORM_ROOM = 64 * 1024  # bytes of a body that are not the file: boundaries, headers and the other fields
LONGEST_TEXT = 8 * 1024  # bytes of a field or of a header
A_TIME = 2**20  # bytes that go to the disk together: a thread for each network packet would cost more than the writing
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ARRIVING: Counter[str | None] = Counter()  # bytes of each key that this process is receiving now
_COUNTING = threading.Lock()


@dataclass(frozen=True)
class Received:
    """A file that came whole, and the form's other fields. `title` is what its sender called it, without folders and ending."""

    path: Path
    sha256: str
    size: int
    title: str
    fields: dict[str, str]


def receiving(model: type[BaseModel]) -> Callable[[Request], AsyncIterator[Received]]:
    """What an endpoint depends on to be sent a file and the fields of `model`; unless it keeps the file, that is removed."""

    async def received(request: Request) -> AsyncIterator[Received]:
        room = await run_in_threadpool(_room_of_key)
        with Form(request.headers.get("content-type", ""), files.incoming(), settings().largest_upload, model) as form:
            with _share_of(room, request.headers.get("content-length", "")) as grow_to:
                taken = bytearray()
                size = 0
                try:
                    async for chunk in request.stream():
                        taken += chunk
                        size += len(chunk)
                        grow_to(size)
                        if len(taken) >= A_TIME:
                            await run_in_threadpool(form.write, bytes(taken))
                            taken.clear()
                except ClientDisconnect:
                    raise HTTPException(400, "the client broke off") from None
                await run_in_threadpool(form.write, bytes(taken))
                came = await run_in_threadpool(form.finish)
            yield came

    return received


def documented(model: type[BaseModel], file: str) -> dict[str, Any]:
    """The body that `receiving` takes, for the OpenAPI document; `file` describes the file."""
    form = model.model_json_schema()
    form["properties"] = {"file": {"type": "string", "format": "binary", "description": file}, **form["properties"]}
    form["required"] = ["file"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


class Form:
    """A multipart form on its way in: one `file` of at most `largest` bytes, and the fields of `model`, which are text.

    A field that is a tuple may come several times, and is one text with commas then.

    Closing it removes the file from `folder`, unless somebody moved it elsewhere.
    """

    def __init__(self, content_type: str, folder: Path, largest: int, model: type[BaseModel]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            raise HTTPException(415, "the body must be a form, sent with Content-Type: multipart/form-data, that has a `file`")
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "headers_finished", "end")
        callbacks = {f"on_{name}": getattr(self, f"_on_{name}") for name in names}
        with _unreadable():
            self._parser = MultipartParser(options.get(b"boundary", b""), callbacks)  # type: ignore[arg-type]
        self._path = folder / uuid4().hex
        self._largest = largest
        self._model = model
        self._tuples = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is tuple}
        self._file: IO[bytes] | None = None
        self._sha256 = hashlib.sha256()
        self._size = self._taken = 0
        self._title = ""
        self._fields: dict[str, str] = {}
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._text = bytearray()
        self._header = (bytearray(), bytearray())
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises Invalid, StorageFull, or HTTPException with 400 or 413."""
        self._taken += len(chunk)
        if self._taken > self._largest + FORM_ROOM:
            raise self._too_large()
        with _unreadable(), _room():
            self._parser.write(chunk)

    def finish(self) -> Received:
        """The body has ended: the file is on the disk for good. Raises Invalid, StorageFull, or HTTPException with 400."""
        if not self._ended:
            raise HTTPException(400, "the form breaks off before its end")
        if self._file is None:
            raise Invalid.field("/file", "Field required")
        if self._size == 0:
            raise Invalid.field("/file", "the file is empty")
        with _room():
            self._file.flush()
            fsync(self._file.fileno())
        return Received(self._path, self._sha256.hexdigest(), self._size, self._title, self._fields)

    # What the parser finds

    def _on_part_begin(self) -> None:
        self._headers, self._header, self._text = {}, (bytearray(), bytearray()), bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        _append(self._header[0], data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        _append(self._header[1], data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise HTTPException(400, "a part of the form has no name: its Content-Disposition must be form-data; name=...")
        self._name = options[b"name"].decode(errors="replace")
        if self._name not in ("file", *self._model.model_fields):
            others = ", ".join(self._model.model_fields)
            raise Invalid.field(f"/{escaped(self._name)}", f"unknown field; besides `file` there are {others}")
        if (self._name in self._fields and self._name not in self._tuples) or (self._name == "file" and self._file is not None):
            raise Invalid.field(f"/{self._name}", f"one {self._name}, not several")
        if self._name == "file":
            self._title = PurePosixPath(options.get(b"filename", b"").decode(errors="replace").replace("\\", "/")).stem
            refuse_unkeepable(self._title, "/file")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != "file":
            return _append(self._text, data[start:end])
        self._size += end - start
        if self._size > self._largest:
            raise self._too_large()
        assert self._file is not None, "its part has begun"
        piece = memoryview(data)[start:end]
        self._sha256.update(piece)
        self._file.write(piece)
        return None

    def _on_part_end(self) -> None:
        if self._name != "file":
            text = self._text.decode(errors="replace")
            if self._name in self._fields:
                text = f"{self._fields[self._name]},{text}"
            refuse_unkeepable(text, f"/{self._name}")
            with _fitting():
                self._model.model_validate({self._name: text})  # before the file is there: it may be a large one
            self._fields[self._name] = text

    def _on_end(self) -> None:
        self._ended = True

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the file has more than the {self._largest} bytes that SWEETSPOT_LARGEST_UPLOAD allows")


def _room_of_key() -> quotas.Room:
    with open_session() as session:
        return quotas.room(session)


@contextmanager
def _share_of(room: quotas.Room, length: str) -> Iterator[Callable[[int], None]]:
    """The part of a key's room that one body takes while it comes, of its `Content-Length` or as large as it is told to grow.

    Uploads that come at once share the room. Raises QuotaExceeded where it does not suffice.
    """
    key_id, share = callers.key_id(), 0

    def grow_to(size: int) -> None:
        nonlocal share
        more = size - FORM_ROOM - share
        if more > 0:
            with _COUNTING:
                replace(room, used=room.used + _ARRIVING[key_id]).require(more)
                _ARRIVING[key_id] += more
            share += more

    grow_to(int(length) if length.isdecimal() else 0)
    try:
        yield grow_to
    finally:
        with _COUNTING:
            _ARRIVING[key_id] -= share


def _append(text: bytearray, more: bytes) -> None:
    text += more
    if len(text) > LONGEST_TEXT:
        raise HTTPException(400, f"a field or a header of the form has more than {LONGEST_TEXT} bytes")


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from None


@contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        found = field_errors(error, None)
        raise Invalid(found[0].message, errors=found) from None


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageFull(f"the disk does not take the file: {error.strerror}; delete datasets, or give it more room") from None

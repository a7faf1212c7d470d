"""The Python client: every call is one of the REST API's, every answer is that API's JSON.

with Sweetspot() as service:
    sweep = service.wait(service.run_preset("digits-noise")["id"], progress=True)
    print(service.curve(sweep["id"]).verdict())
"""

import json
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, overload
from urllib.parse import quote

import httpx

from app import runtime
from app.curve import Curve
from app.settings import settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ml.spec import ExperimentSpec, SweepSpec

Json = dict[str, Any]
CurveFormat = Literal["json", "csv", "svg", "png", "pdf", "vl.json"]
RecipeFormat = Literal["torchvision", "lightly", "json"]
Sort = Literal["views", "datasets", "methods", "encoders", "tasks", "estimators", "presets"]
Layout = Literal["class_folders", "photos", "array", "clips", "paired"]
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "ready", "rejected"})
_COLLECTIONS = {"exp": "experiments", "swp": "sweeps", "ds": "datasets", "mie": "mi-estimates", "ckp": "checkpoints"}
_LONGEST_WAIT = 60.0  # seconds that the API holds a request with `Prefer: wait`


class SweetspotError(Exception):
    """The root of what can go wrong with a call."""


class UnreachableError(SweetspotError):
    """Nobody answers at the URL."""


class WaitTimeoutError(SweetspotError):
    """It was not finished in time; it goes on."""


class ProblemError(SweetspotError):
    """The API refused: a problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]):
        self.status = status
        self.problem = dict(problem)
        self.title = str(problem.get("title") or f"HTTP {status}")
        self.detail = str(problem.get("detail") or "")
        self.errors = [(str(item.get("pointer", "")), str(item.get("message", ""))) for item in problem.get("errors") or []]
        self.request_id = problem.get("request_id")
        self.retryable = bool(problem.get("retryable", status in (429, 502, 503, 504)))
        super().__init__(self._words())

    def _words(self) -> str:
        if self.errors:
            lines = [f"{self.title}:", *(f"  {pointer or '(the whole body)'}: {message}" for pointer, message in self.errors)]
        else:
            lines = [f"{self.title}: {self.detail}" if self.detail else self.title]
        if self.status >= 500 and self.request_id:
            lines.append(f"(request {self.request_id})")
        return "\n".join(lines)


class InvalidError(ProblemError):
    """400 or 422: a field is at fault; `errors` has the (pointer, message) of each."""


class NotFoundError(ProblemError):
    """404: there is no such thing."""


class ConflictError(ProblemError):
    """409: its state forbids it."""


class AuthError(ProblemError):
    """401 or 403: it takes a key, or another one."""


class UnavailableError(ProblemError):
    """429, 502, 503 or 504: not now."""


_ERRORS: dict[int, type[ProblemError]] = {
    400: InvalidError,
    401: AuthError,
    403: AuthError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
    **dict.fromkeys((429, 502, 503, 504), UnavailableError),
}


@dataclass(frozen=True)
class Event:
    """Something that happened to an experiment. `progress` events have no `id`, and are not replayed."""

    type: str
    data: Json
    id: int | None


class Png(bytes):
    """A picture, which a notebook shows."""

    def __repr__(self) -> str:
        return f"<PNG of {len(self)} bytes>"

    def _repr_png_(self) -> bytes:
        return bytes(self)


class Sweetspot:
    """A running service.

    `url` is by default SWEETSPOT_URL, else that of the `sweetspot up` on the data folder, else http://127.0.0.1:8000; `key` is by
    default SWEETSPOT_KEY, else none, which does where the service is on this machine. A call that fails for want of a connection,
    or as `retryable`, is tried again for `patience` seconds; one Idempotency-Key sees to it that nothing is created twice. Errors
    are SweetspotErrors.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, data_dir: Path | None = None, patience: float = 30):
        self.url = (url or _default_url(data_dir)).rstrip("/")
        self._patience = patience
        self._reached = False
        key = (os.environ.get("SWEETSPOT_KEY", "") if key is None else key).strip()
        if not re.fullmatch(r"[!-~]*", key):
            raise SweetspotError("the key holds what no key holds; look at SWEETSPOT_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        proxied = httpx.URL(self.url).host not in ("127.0.0.1", "localhost", "::1")  # no proxy knows our loopback
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=proxied)

    def __repr__(self) -> str:
        return f"Sweetspot({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    # What is asked for

    def submit(self, spec: "Mapping[str, Any] | ExperimentSpec", wait: bool = False) -> Json:
        """Queue an experiment; the finished one with `wait`."""
        experiment = self._create("/v1/experiments", spec)
        return self.wait(experiment["id"]) if wait else experiment

    def sweep(self, spec: "Mapping[str, Any] | SweepSpec", wait: bool = False) -> Json:
        """Queue experiments along an axis; the finished sweep with `wait`."""
        sweep = self._create("/v1/sweeps", spec)
        return self.wait(sweep["id"]) if wait else sweep

    def run_preset(
        self,
        name: str,
        *,
        size: Literal["quick", "standard", "full"] | None = None,
        seed: int | None = None,
        title: str | None = None,
        dataset: str | None = None,
    ) -> Json:
        """Queue a preset as a sweep, in this size, from this first seed, under this title, on this dataset instead of its own."""
        chosen = {"size": size, "seed": seed, "name": title, "dataset": dataset}
        return self._create(f"/v1/presets/{name}/run", {field: value for field, value in chosen.items() if value is not None})

    def upload(self, file: Path | BinaryIO, *, name: str | None = None, layout: Layout | None = None, wait: bool = False) -> Json:
        """Upload a zip or an npz as a dataset, reading it as it is sent; the dataset that is ready or rejected with `wait`.

        Experiments on it may be submitted at once.
        """
        dataset = self._send_file("/v1/datasets", file, {"name": name, "layout": layout})
        return self.wait(dataset["id"]) if wait else dataset

    def upload_checkpoint(self, file: Path | BinaryIO, name: str | None = None) -> Json:
        """Upload an encoder's weights, safetensors or what torch.save wrote; specs name its id as their `encoder.weights`."""
        return self._send_file("/v1/checkpoints", file, {"name": name})

    def estimate_mi(
        self,
        arrays: "Path | BinaryIO | tuple[ArrayLike, ArrayLike]",
        *,
        estimators: str | Sequence[str] | None = None,
        critic: str | None = None,
        k: int | None = None,
        repeats: int | None = None,
        seed: int | None = None,
        name: str | None = None,
        wait: bool = False,
    ) -> Json:
        """Queue an estimate of I(x; y) of two arrays [N, d], given as such or as an npz of `x` and `y`; finished with `wait`."""
        if isinstance(arrays, tuple):
            import numpy as np  # noqa: PLC0415 - who sends none need not load it

            x, y = arrays
            file = BytesIO()
            np.savez(file, x=np.asarray(x), y=np.asarray(y))
            file.seek(0)
            arrays = file
        fields = {"name": name, "estimators": estimators, "critic": critic, "k": k, "repeats": repeats, "seed": seed}
        estimate = self._send_file("/v1/mi-estimates", arrays, fields)
        return self.wait(estimate["id"]) if wait else estimate

    def retry(self, id: str) -> Json:
        """Queue a new experiment of the same spec, or a sweep's failed ones again."""
        return self._create(f"{_path(id)}/retry", {})

    def preview(self, dataset: Mapping[str, Any], views: Mapping[str, Any], timeout: float = 120) -> Png:
        """A PNG of v1 | v2 pairs. Raises WaitTimeoutError where no worker made it in time."""
        deadline = time.monotonic() + timeout
        answer = self._send("POST", "/v1/previews", {"dataset": dict(dataset), "views": dict(views)}, creates=True, wait=10)
        while answer.status_code == 202:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"the preview is not there after {timeout:g} s; does a worker run?")
            answer = self._send("GET", answer.headers["Location"], wait=min(left, _LONGEST_WAIT))
        return Png(answer.content)

    # What there is

    def experiment(self, id: str) -> Json:
        """An experiment."""
        return self._json("GET", f"/v1/experiments/{id}")

    def get(self, id: str) -> Json:
        """An experiment, a sweep, an uploaded dataset, an estimate or a checkpoint."""
        return self._json("GET", _path(id))

    def experiments(self, **filters: str) -> Iterator[Json]:
        """Experiments, newest first; filters are `state`, `sweep`, `tag`, `created_after`, `q`."""
        return self._list("/v1/experiments", filters)

    def sweeps(self) -> Iterator[Json]:
        """Sweeps, newest first."""
        return self._list("/v1/sweeps", {})

    def datasets(self) -> Iterator[Json]:
        """Uploaded datasets, newest first; those that everybody has are in `catalog("datasets")`."""
        return self._list("/v1/datasets", {})

    def mi_estimates(self) -> Iterator[Json]:
        """Estimates of two arrays' information, newest first."""
        return self._list("/v1/mi-estimates", {})

    def catalog(self, sort: Sort) -> list[Json]:
        """All that can be asked for of one sort, with the JSON Schema of its parameters."""
        variants: list[Json] = self._json("GET", f"/v1/catalog/{sort}")["data"]
        return variants

    @overload
    def curve(self, id: str, format: Literal["json"] = "json", task: str | None = None) -> Curve: ...
    @overload
    def curve(self, id: str, format: Literal["csv", "svg", "png", "pdf", "vl.json"], task: str | None = None) -> bytes: ...
    @overload
    def curve(self, id: str, format: CurveFormat, task: str | None = None) -> Curve | bytes: ...
    def curve(self, id: str, format: CurveFormat = "json", task: str | None = None) -> Curve | bytes:
        """A sweep's curve, parsed if JSON, else the file; pictures are of this task alone, if one is named."""
        answer = self._send("GET", f"{_path(id)}/curve.{format}", params={"task": task} if task else None)
        return Curve(answer.json(), draw=lambda only: self._drawn(id, only)) if format == "json" else answer.content

    def report(self, id: str) -> bytes:
        """A sweep as one HTML file, which needs nothing beside it."""
        return self._send("GET", f"{_path(id)}/report.html").content

    @overload
    def recipe(self, id: str, format: Literal["torchvision", "lightly"] = "torchvision", task: str | None = None) -> str: ...
    @overload
    def recipe(self, id: str, format: Literal["json"], task: str | None = None) -> Json: ...
    @overload
    def recipe(self, id: str, format: RecipeFormat, task: str | None = None) -> Json | str: ...
    def recipe(self, id: str, format: RecipeFormat = "torchvision", task: str | None = None) -> Json | str:
        """A sweep's winning recipe, for its first task or this one: as a Python file, or as JSON with a `spec` to submit."""
        params = {"format": format} | ({"task": task} if task else {})
        answer = self._send("GET", f"{_path(id)}/recipe", params=params)
        return answer.json() if format == "json" else answer.text

    def views(self, id: str) -> Png:
        """A PNG of the view pairs as a succeeded experiment's encoder saw them."""
        return Png(self._send("GET", f"{_path(id)}/preview.png").content)

    def metrics(self, id: str, *names: str) -> list[Json]:
        """What was measured during an experiment's current attempt: `name`, `step` and `value`; only these names, if any."""
        points: list[Json] = self._send("GET", f"{_path(id)}/metrics", params={"name": names} if names else None).json()["data"]
        return points

    def logs(self, id: str, attempt: int | None = None) -> str:
        """What an experiment's attempt printed, the current one by default."""
        return self._send("GET", f"{_path(id)}/logs", params=None if attempt is None else {"attempt": str(attempt)}).text

    def artifacts(self, id: str) -> list[Json]:
        """The files that a succeeded experiment left: `name`, `media_type`, `size` and `sha256` of each."""
        files: list[Json] = self._json("GET", f"{_path(id)}/artifacts")["data"]
        return files

    def artifact(self, id: str, name: str) -> bytes:
        """One of an experiment's files."""
        return self._send("GET", f"{_path(id)}/artifacts/{quote(name, safe='')}").content

    def reproduce(self, id: str) -> Json:
        """All that is needed to come to an experiment's numbers again: spec, versions, seeds, data hashes, hardware."""
        return self._json("GET", f"{_path(id)}/reproduce")

    # What happens to it

    def wait(
        self,
        id: str,
        timeout: float | None = None,
        on_change: Callable[[Json], None] | None = None,
        progress: bool = False,
    ) -> Json:
        """The experiment, sweep, dataset or estimate once it is finished; `on_change` is told of every change within a second.

        With `progress` there are bars in a terminal or a notebook, else a line every few seconds. Raises WaitTimeoutError.
        """
        if progress:
            from app.progress import follow  # noqa: PLC0415 - who watches nothing need not load it

            return follow(self, id, timeout=timeout, on_change=on_change)
        deadline = None if timeout is None else time.monotonic() + timeout
        seen: Json | None = None
        while True:
            left = _LONGEST_WAIT if deadline is None else max(deadline - time.monotonic(), 0.0)
            found = self._json("GET", _path(id), wait=min(left, 1.0 if on_change else _LONGEST_WAIT))
            if on_change and found != seen:
                on_change(found)
            seen = found
            if found["state"] in TERMINAL:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{id} is still {found['state']} after {timeout:g} s; it goes on")

    def events(self, id: str, after: int = 0) -> Iterator[Event]:
        """What happens to an experiment, from the event after number `after` on, until it is finished."""
        while True:
            try:
                for event in self._stream(f"{_path(id)}/events", after):
                    after = event.id or after
                    yield event
            except httpx.TransportError:
                time.sleep(0.2)  # the stream broke: go on after the last event that came
            if self.get(id)["state"] in TERMINAL and not self._send("GET", f"{_path(id)}/events?cursor={after}").json()["data"]:
                return

    def cancel(self, id: str) -> Json:
        """Ask for its end; it is `cancelled` once nothing works on it any more."""
        return self._json("POST", f"{_path(id)}/cancel")

    def delete(self, id: str) -> None:
        """Forget it and free its files."""
        self._send("DELETE", _path(id))

    # How it is asked

    def _create(self, path: str, body: Any) -> Json:
        answer: Json = self._send("POST", path, body, creates=True).json()
        return answer

    def _send_file(self, path: str, file: Path | BinaryIO, fields: Mapping[str, Any]) -> Json:
        """Create something out of a file, read as it is sent, and the fields that are not None."""
        if isinstance(file, Path):
            with file.open("rb") as opened:
                return self._send_file(path, opened, fields)
        given = {field: value for field, value in fields.items() if value is not None}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        times = httpx.Timeout(30, read=600)  # all of a large file must reach the disk before the answer

        def request() -> httpx.Request:
            whole = {"file": (Path(getattr(file, "name", "arrays.npz")).name, file)}
            return self._http.build_request("POST", path, data=given, files=whole, headers=headers, timeout=times)

        answer: Json = self._deliver(request).json()
        return answer

    def _json(self, method: str, path: str, *, wait: float = 0) -> Json:
        answer: Json = self._send(method, path, wait=wait).json()
        return answer

    def _drawn(self, id: str, task: str | None) -> Json | None:
        """The service's drawing of a curve as Vega-Lite; None once the connections were let go."""
        return None if self._http.is_closed else json.loads(self.curve(id, "vl.json", task))

    def _list(self, path: str, filters: Mapping[str, str]) -> Iterator[Json]:
        page: Json = {"next_cursor": None, "has_more": True}
        while page["has_more"]:
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
            page = self._send("GET", path, params={**filters, **cursor}).json()
            yield from page["data"]

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str | Sequence[str]] | None = None,
        creates: bool = False,
        wait: float = 0,
    ) -> httpx.Response:
        headers = {"Idempotency-Key": uuid.uuid4().hex} if creates else {}
        if wait >= 1:
            headers["Prefer"] = f"wait={int(wait)}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = _encoded(body)
        request = self._http.build_request(
            method, path, content=content, params=params, headers=headers, timeout=httpx.Timeout(30, read=30 + wait)
        )
        return self._deliver(lambda: request)

    def _deliver(self, request: Callable[[], httpx.Request]) -> httpx.Response:
        started, pause = time.monotonic(), 0.1
        while True:
            error: SweetspotError
            told = 0.0  # seconds that the service asks to wait
            try:
                answer = self._http.send(request())
            except httpx.TransportError as failure:
                error = UnreachableError(f"no answer from {self.url}: {failure}\nIs the service up? `sweetspot up` starts it.")
                patience = self._patience if self._reached else min(self._patience, 1.0)
            else:
                self._reached = True
                if answer.is_success:
                    return answer
                error, patience = _problem(answer), self._patience
                if not error.retryable:
                    raise error
                told = _seconds(answer.headers.get("Retry-After", "")) if answer.status_code == 429 else 0.0
            if time.monotonic() + max(pause, told) - started > patience:
                raise error from None
            time.sleep(told + pause * random.uniform(0.5, 1))  # nosec B311 # apart, where many try again at once
            pause = min(2 * pause, 2.0)

    def _stream(self, path: str, after: int) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30, read=60)) as answer:
            if not answer.is_success:
                answer.read()
                error = _problem(answer)
                if error.retryable:
                    time.sleep(0.5)
                    return
                raise error
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = fields[name] + "\n" + value.removeprefix(" ") if name in fields else value.removeprefix(" ")
                elif "data" in fields:
                    number = fields.get("id")
                    yield Event(fields.get("event", "message"), json.loads(fields["data"]), int(number) if number else None)
                    fields = {}
                else:
                    fields = {}


def _default_url(data_dir: Path | None) -> str:
    running = runtime.read(data_dir or settings().data_dir)
    return os.environ.get("SWEETSPOT_URL") or (running.api_url if running else f"http://127.0.0.1:{settings().port}")


def _path(id: str) -> str:
    collection = _COLLECTIONS.get(id.partition("_")[0])
    if collection is None:
        kinds = "an experiment (exp_...), a sweep (swp_...), a dataset (ds_...), an estimate (mie_...) or a checkpoint (ckp_...)"
        raise SweetspotError(f"{id!r} is no id of {kinds}")
    return f"/v1/{collection}/{id}"


def _encoded(body: Any) -> bytes:
    plain = body.model_dump(mode="json") if hasattr(body, "model_dump") else body
    try:
        return json.dumps(plain, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise SweetspotError(f"this cannot be sent as JSON: {error}") from None


def _seconds(retry_after: str) -> float:
    return float(retry_after) if re.fullmatch(r"\d{1,6}", retry_after) else 0.0


def _problem(answer: httpx.Response) -> ProblemError:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"title": f"{answer.status_code} {answer.reason_phrase}", "detail": f"from {answer.url}"}
    return _ERRORS.get(answer.status_code, ProblemError)(answer.status_code, document)

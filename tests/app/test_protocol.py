"""What reaches a real server over a socket and no client library would send: it answers with a 4xx or hangs up, and goes on."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from app import middleware
from app.main import create_app


@pytest.fixture
def server(database: Any) -> Iterator[int]:
    """The port of the API under uvicorn, as `sweetspot api` starts it."""
    running = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="warning", ws="none", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield running.servers[0].sockets[0].getsockname()[1]
    running.should_exit = True
    thread.join()


def said(port: int, *pieces: bytes, patience: float = 10) -> bytes:
    """What the server answers to these bytes, until it hangs up or nothing more comes."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # it has hung up already
            pass
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            pass
        return answer


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", *headers, b"Connection: close", b"", body])


JSON = b"Content-Type: application/json"
POST = b"POST /v1/experiments HTTP/1.1"
RAW: dict[str, tuple[bytes, set[int]]] = {
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    "an unknown version": (request(b"GET /v1/experiments HTTP/9.9"), {400}),
    "a line without a target": (request(b"GET"), {400}),
    "two lengths": (request(POST, JSON, b"Content-Length: 2", b"Content-Length: 3", body=b"{}x"), {400}),
    "a length that is negative": (request(POST, JSON, b"Content-Length: -1", body=b"{}"), {400}),
    "a length that is no number": (request(POST, JSON, b"Content-Length: 0x10", body=b"{}"), {400}),
    "a length beyond all numbers": (request(POST, JSON, b"Content-Length: " + b"9" * 40, body=b"{}"), {400}),
    "a length and chunks": (
        request(POST, JSON, b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        {400, 422},
    ),
    "a chunk of no size": (request(POST, JSON, b"Transfer-Encoding: chunked", body=b"xyz\r\n{}\r\n0\r\n\r\n"), {400}),
    "a chunk of a giant size": (request(POST, JSON, b"Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\n{}\r\n"), {400}),
    "a chunk longer than it says": (request(POST, JSON, b"Transfer-Encoding: chunked", body=b"1\r\n{}\r\n0\r\n\r\n"), {400}),
    "an encoding of a transfer that is none": (request(POST, JSON, b"Transfer-Encoding: gzip", body=b"{}"), {400, 415, 422}),
    "a body shorter than its length": (request(POST, JSON, b"Content-Length: 100", body=b"{}"), {400}),
    "a body longer than its length": (request(POST, JSON, b"Content-Length: 1", body=b'{"seed": 1}'), {400, 422}),
    "a header without a colon": (request(b"GET /v1/experiments HTTP/1.1", b"NoColon"), {400}),
    "a header with a space in its name": (request(b"GET /v1/experiments HTTP/1.1", b"X Y: z"), {400}),
    "a header with NUL": (request(b"GET /v1/experiments HTTP/1.1", b"X-A: a\0b"), {400}),
    "a header that is folded": (request(b"GET /v1/nowhere HTTP/1.1", b"X-A: a\r\n b: c"), {400, 404}),
    "a smuggled header": (request(b"GET /v1/nowhere?x=\r\nX-Injected: 1 HTTP/1.1"), {400}),
    "a target of absolute form": (request(b"GET http://evil.example/v1/nowhere HTTP/1.1"), {404}),
    "a target with an authority": (request(b"GET //evil.example/v1/experiments/ HTTP/1.1"), {404}),
    "a target that is a star": (request(b"OPTIONS * HTTP/1.1"), {400, 404}),
    "CONNECT": (request(b"CONNECT redis:6379 HTTP/1.1"), {400, 404, 405}),
    "a target that is no ASCII": (request(b"GET /v1/exp\xe9riments HTTP/1.1"), {400, 404}),
    "a query that is no ASCII": (
        request(b"POST /v1/experiments?\xff\xfe HTTP/1.1", JSON, b"Content-Length: 2", body=b"{}"),
        {400, 422},
    ),
    "a target with NUL": (request(b"GET /v1/\0 HTTP/1.1"), {400, 404}),
    "a target of dots": (request(b"GET /static/../../../../etc/passwd HTTP/1.1"), {404}),
    "a target of encoded dots": (request(b"GET /static/%2e%2e/%2e%2e/app/settings.py HTTP/1.1"), {404}),
    "a target of a line break": (request(b"GET /v1/nowhere%0d%0aSet-Cookie:%20a HTTP/1.1"), {404}),
    "a percent that encodes nothing": (request(b"GET /v1/experiments/%zz%f HTTP/1.1"), {404}),
    "a target of 100 kilobytes": (request(b"GET /" + b"x" * 100_000 + b" HTTP/1.1"), {400, 404, 414, 431}),
    "a header of 100 kilobytes": (request(b"GET /v1/nowhere HTTP/1.1", b"X-A: " + b"x" * 100_000), {400, 404, 431}),
    "ten thousand headers": (request(b"GET /v1/nowhere HTTP/1.1", *[b"X-A: b"] * 10_000), {400, 404, 431}),
    "a host that is none": (
        b"POST /v1/experiments HTTP/1.1\r\nHost: [\r\n" + JSON + b"\r\nContent-Length: 2\r\n\r\n{}",
        {400, 401, 422},
    ),
    "no host": (b"GET /v1/nowhere HTTP/1.1\r\n\r\n", {400, 401, 404}),
    "a websocket": (
        request(b"GET /static/style.css HTTP/1.1", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        {200, 400, 404},
    ),
    "HTTP/2 without TLS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405}),
    "a form of huge headers": (
        request(
            b"POST /v1/datasets HTTP/1.1",
            b"Content-Type: multipart/form-data; boundary=b",
            b"Content-Length: 1000000",
            body=b"--b\r\n" + b"X: " + b"y" * 1_000_000,
        ),
        {400},
    ),
}


@pytest.mark.parametrize("case", RAW)
def test_bytes_that_no_client_sends_are_refused(server: int, case: str) -> None:
    sent, statuses = RAW[case]
    answer = said(server, sent)
    head = answer.split(b"\r\n\r\n")[0]
    assert not answer or int(head.split()[1]) in statuses, answer[:300]
    assert b"Traceback" not in answer and b".py" not in answer and b"root:" not in answer
    assert b"Set-Cookie" not in head and b"X-Injected" not in head
    assert httpx.get(f"http://127.0.0.1:{server}/healthz").status_code == 200


def test_a_websocket_is_no_reason_to_fail(server: int) -> None:
    sent = request(
        b"GET /static/style.css HTTP/1.1",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ).replace(b"Connection: close", b"Connection: Upgrade")
    assert b" 500 " not in said(server, sent, patience=2).split(b"\r\n")[0]


@pytest.mark.parametrize("path", [b"/v1/experiments", b"/v1/datasets"])
def test_a_body_that_stops_coming_is_not_waited_for(server: int, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE", 0.3)
    kind = JSON if path == b"/v1/experiments" else b"Content-Type: multipart/form-data; boundary=b"
    with socket.create_connection(("127.0.0.1", server), timeout=10) as connection:
        connection.sendall(
            b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + kind + b"\r\nContent-Length: 1000\r\n\r\n--b\r\n"
        )
        answer = connection.recv(65536)
    assert b"408 Request Timeout" in answer.split(b"\r\n")[0] and b"application/problem+json" in answer


def test_a_body_in_chunks_without_end_is_cut_off(server: int) -> None:
    head = b"POST /v1/experiments HTTP/1.1\r\nHost: localhost\r\n" + JSON + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
    answer = said(server, head, *[chunk] * 40)
    assert not answer or answer.startswith(b"HTTP/1.1 413 ")

"""Log lines: ours, and those of uvicorn, Celery and Python's warnings, all through one renderer that leaves secrets out."""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.settings import SettingsError, settings

FORMATS = ("auto", "console", "json", "logfmt")
LEVELS = ("debug", "info", "warning", "error")
GONE = "[redacted]"
SECRET_NAMES = {"authorization", "proxy-authorization", "password", "cookie", "set-cookie"}
SECRETS = (
    (re.compile(r"""(?i)(authorization["']?\s*[:=,]\s*(?:b(?=["']))?["']?)(?:(?:bearer|basic)\s+)?[^\s"',]+"""), rf"\1{GONE}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_.~-]{8,}=*"), rf"\1 {GONE}"),
    (re.compile(r"(ssk_)[A-Za-z0-9_-]+"), rf"\1{GONE}"),
    (re.compile(r"""(\w://[^\s:/@'"]*:)[^\s'"]{1,500}@"""), rf"\1{GONE}@"),  # greedy: a password may hold another @
    (re.compile(r"""(?i)(password["']?\s*[:=]\s*["']?)[^\s"',&)]+"""), rf"\1{GONE}"),
)


def configure_logs() -> None:
    """Lines on standard error, as the settings want them: with `auto` for people on a terminal, `key=value` elsewhere."""
    shown, level = settings().log_format, settings().log_level
    if shown not in FORMATS:
        raise SettingsError(f"SWEETSPOT_LOG_FORMAT must be one of {', '.join(FORMATS)}, not {shown!r}")
    if level not in LEVELS:
        raise SettingsError(f"SWEETSPOT_LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level!r}")
    if shown == "auto":
        shown = "console" if sys.stderr.isatty() else "logfmt"
    stamp = structlog.processors.TimeStamper("%H:%M:%S", utc=False) if shown == "console" else _iso()
    known: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, stamp]
    drawn: list[Processor] = [structlog.processors.format_exc_info, _redact, _renderer(shown)]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*known, *drawn],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=_Stderr()),  # type: ignore[arg-type]
    )
    _adopt(known, drawn, number)


def redacted(text: str) -> str:
    """The text without what would let its reader in: keys, authorizations, passwords in URLs."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


def _adopt(known: list[Processor], drawn: list[Processor], level: int) -> None:
    """What others log by Python's logging is drawn as ours is; uvicorn has set up handlers of its own by now."""
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(processors=[strip, *drawn], foreign_pre_chain=known)
    handler = logging.StreamHandler(_Stderr())  # type: ignore[type-var]
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))  # of what libraries tell, the warnings; uvicorn says its own level
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)  # uvicorn has given each a level of its own
        logger.propagate = name != "uvicorn.access"  # requests have lines of ours, without their queries
    logging.getLogger("uvicorn").setLevel(level)
    logging.captureWarnings(True)


class _Stderr:
    """Standard error as it is at the time of writing: whoever captures it may have closed the one that was before."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _renderer(shown: str) -> Processor:
    if shown == "json":
        return structlog.processors.JSONRenderer()
    if shown == "console":
        plain = structlog.dev.plain_traceback
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])


def _iso() -> Processor:
    return structlog.processors.TimeStamper("iso", utc=True)


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: _without_secrets(name, value) for name, value in event.items()}


def _without_secrets(name: str, value: Any) -> Any:
    if name.lower() in SECRET_NAMES:
        return GONE
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {key: _without_secrets(str(key), part) for key, part in value.items()}
        case list() | tuple() | set():
            return [_without_secrets("", part) for part in value]
    return redacted(str(value))

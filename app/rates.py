"""How many requests come in a minute: counted in Redis for all processes, or by this process alone while Redis is silent."""

import math
import threading
import time
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network

import structlog
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.settings import settings

REDIS_PATIENCE = 0.3  # seconds that a request waits for Redis
REDIS_SILENCE = 10.0  # seconds in which a Redis that did not answer is not asked again
MOST_FAILURES = 30  # a minute, of one address

log = structlog.get_logger()


@dataclass(frozen=True)
class Standing:
    """Where a key stands after a request: whether that was too many, how many are left, and when there are more."""

    good: bool
    limit: int
    left: int
    seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """As answers tell it."""
        return {"RateLimit-Limit": str(self.limit), "RateLimit-Remaining": str(self.left), "RateLimit-Reset": str(self.seconds)}


class Rates:
    """Counts what keys ask for in a sliding minute."""

    def __init__(self, redis_url: str | None) -> None:
        self._here = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = None if redis_url is None else SlidingWindowCounterRateLimiter(_redis(redis_url))
        self._silent_until = 0.0
        self._one = threading.Lock()

    def count(self, key_id: str, per_minute: int) -> Standing:
        """One request more."""
        item = RateLimitItemPerMinute(per_minute)
        if self._shared is not None and time.monotonic() >= self._silent_until:
            try:
                return _standing(self._shared, item, key_id)
            except (RedisError, OSError) as error:
                self._silent_until = time.monotonic() + REDIS_SILENCE
                log.warning("requests are counted without Redis", error=str(error))
        with self._one:
            return _standing(self._here, item, key_id)


@cache
def rates() -> Rates:
    """This process's."""
    return Rates(settings().redis_url)


class Failures:
    """Counts requests with a bad key from an address, and for how long they are too many. Good keys are not held up by them."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerMinute(MOST_FAILURES)

    def too_many(self, address: str) -> int | None:
        """One failure more: seconds to wait where it is one too many."""
        place = _place(address)
        if self._limiter.hit(self._item, place):
            return None
        return _seconds(self._limiter.get_window_stats(self._item, place).reset_time)


@cache
def failures() -> Failures:
    """This process's."""
    return Failures()


def _redis(url: str) -> RedisStorage:
    waits = {"socket_timeout": REDIS_PATIENCE, "socket_connect_timeout": REDIS_PATIENCE}
    return RedisStorage(url, key_prefix="sweetspot:rates", retry=Retry(NoBackoff(), 0), **waits)


def _standing(limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, key_id: str) -> Standing:
    good = limiter.hit(item, key_id)
    window = limiter.get_window_stats(item, key_id)
    return Standing(good, item.amount, window.remaining, _seconds(window.reset_time))


def _seconds(at: float) -> int:
    return max(1, math.ceil(at - time.time()))


def _place(address: str) -> str:
    """Whoever has an IPv6 address has all of its /64."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address

"""Identifiers: a prefix that says what it names, over a UUIDv7, so that ids sort by time of creation."""

from typing import Literal

from uuid6 import uuid7

Prefix = Literal["exp", "swp", "prv", "ds", "mie", "key"]


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `exp_0193b1c2…` (32 hexadecimal digits)."""
    return f"{prefix}_{uuid7().hex}"

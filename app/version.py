"""What code this is."""

import hashlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

VERSION = version("sweetspot")


def _science() -> str:
    """A digest of the sources of `ml`: two numbers compare only where it is the same."""
    found = find_spec("ml")
    assert found is not None and found.submodule_search_locations, "ml is part of this distribution"
    root = Path(next(iter(found.submodule_search_locations)))
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


CODE_VERSION = f"{VERSION}+{_science()}"

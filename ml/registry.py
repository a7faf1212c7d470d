"""Which function or class implements which part of the spec. A new variant is one new file in its package, and nothing else."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from ml import spec

Implementation = TypeVar("Implementation")


class Registry(Generic[Implementation]):
    """The implementations of one kind of part, found by importing every module of `package` at the first look-up."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._implementations: dict[type[spec.Part], Implementation] = {}
        self._imported = False

    def implements(self, part: type[spec.Part]) -> Callable[[Implementation], Implementation]:
        """Decorator: what it decorates is what carries out `part`."""

        def register(implementation: Implementation) -> Implementation:
            self._implementations[part] = implementation
            return implementation

        return register

    def find(self, part: spec.Part) -> Implementation:
        """What carries out this part. Raises NotImplementedError where no module of the package does."""
        if not self._imported:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._imported = True
        try:
            return self._implementations[type(part)]
        except KeyError:
            raise NotImplementedError(f"nothing in {self._package} implements {type(part).__name__}") from None

"""Views that the user brings along."""

from torch import Generator

from ml import spec, views
from ml.views import Views


@views.implements(spec.Paired)
def paired(recipe: spec.Paired, pairs: Views, generator: Generator) -> Views:
    """v1 and v2 of each item as they are stored."""
    return pairs


@views.cleans(spec.Paired)
def clean_paired(recipe: spec.Paired, pairs: Views) -> Views:
    """The same: nothing was done to them."""
    return pairs

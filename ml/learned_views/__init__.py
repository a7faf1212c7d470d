"""Views that are learned: an invertible map of colours, and the game in which it is found. Tian et al. 2020, section 4.3."""

from pydantic import PrivateAttr

from ml import spec
from ml.learned_views.flow import Flow


class Found(spec.Learned):
    """The recipe with the map that was learned for it: what makes views of it from then on."""

    _flow: Flow = PrivateAttr()

    @classmethod
    def of(cls, recipe: spec.Learned, flow: Flow) -> "Found":
        """`flow` is frozen from here on."""
        found = cls.model_construct(recipe.model_fields_set, **dict(recipe))
        found._flow = flow.eval().requires_grad_(requires_grad=False)
        return found

    @property
    def channels(self) -> Flow:
        """From RGB images to the channels of the learned colour space."""
        return self._flow

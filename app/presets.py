"""Sweeps worth running as they are."""

from dataclasses import dataclass

from app.errors import NotFound
from ml.spec import SweepSpec


@dataclass(frozen=True)
class Preset:
    """A named sweep, and what question it answers."""

    description: str
    sweep: SweepSpec


PRESETS = {
    "digits-noise": Preset(
        "How much noise should two views of a handwritten digit carry, if 50 labels are to do? "
        "Minutes on two cores, with scikit-learn's digits: nothing to download.",
        SweepSpec.model_validate(
            {
                "name": "Noise on handwritten digits",
                "base": {
                    "name": "digits with noise",
                    "dataset": {"name": "digits", "image_size": 16},
                    "views": {"kind": "noise"},
                    "pretrain": {"steps": 300, "batch_size": 256},
                    "mi": {"k": 512},
                    "tasks": [{"kind": "classification", "labels": 50}],
                },
                "axis": {"path": "views.sigma", "values": [0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5]},
                "seeds": 3,
            }
        ),
    ),
}


def get(name: str) -> Preset:
    """Raises NotFound."""
    if name not in PRESETS:
        raise NotFound(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

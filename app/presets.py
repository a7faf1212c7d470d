"""Sweeps worth running as they are: the paper's experiments, in sizes from minutes on two cores to those of the paper."""

from dataclasses import dataclass
from typing import Any

from app import datasets
from app.errors import Invalid, NotFound
from app.paper import PAPERS
from app.preset_documents import DOCUMENTS, Document, Size, Variation
from app.schemas import Paper
from ml.spec import ExperimentSpec, SpecError, SweepSpec, resolve


@dataclass(frozen=True)
class Preset:
    """A named sweep, and what question it answers. `documents` has its sizes, the standard one among them."""

    name: str
    description: str
    documents: dict[Size, dict[str, Any]]
    differs: dict[Size, str]
    """In what a size is not as the paper's experiment, where it is one of the paper's."""

    @property
    def sweep(self) -> SweepSpec:
        """The sweep of standard size, on the datasets that are there; on the first of each choice where none is."""
        return self.at("standard")

    def at(self, size: Size) -> SweepSpec:
        """The sweep of this size, likewise. Raises Invalid at `/size`."""
        return SweepSpec.model_validate(self._document(size))

    def on(self, dataset: str, size: Size = "standard") -> SweepSpec:
        """The sweep, pretrained on another dataset at that one's own size, with those of its tasks that can be done there.

        Batch size and K go by that dataset. So do the tasks where none of the preset's can be done, and where nothing is known of
        the dataset yet, since it is an upload that is still decoded. Raises Invalid at `/size`.
        """
        document = self._document(size)
        base = document["base"] | {"dataset": {"name": dataset}}
        base["pretrain"].pop("batch_size", None)
        base.get("mi", {}).pop("k", None)
        tasks = [task for task in base.pop("tasks", []) if _can_be_done(task, base)]
        return SweepSpec.model_validate(document | {"base": base | ({"tasks": tasks} if tasks else {})})

    def _document(self, size: Size) -> dict[str, Any]:
        if size not in self.documents:
            raise Invalid.field("/size", f"{self.name} comes as {' or '.join(self.documents)}, not {size}")
        chosen: dict[str, Any] = _chosen(self.documents[size])
        return chosen | {"preset": f"{self.name}/{size}"}


def get(name: str) -> Preset:
    """Raises NotFound."""
    if name not in PRESETS:
        raise NotFound(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def paper(name: str | None) -> Paper | None:
    """What the paper found in the experiment of a preset, by its name or as a sweep names it, `fig5-crop/quick`."""
    return PAPERS.get((name or "").partition("/")[0])


def _chosen(node: Any) -> Any:
    """The document with one dataset in the place of each choice."""
    if isinstance(node, dict):
        return {key: _chosen(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_chosen(value) for value in node]
    return datasets.first_present(node) if isinstance(node, tuple) else node


def _can_be_done(task: dict[str, Any], base: dict[str, Any]) -> bool:
    try:
        resolve(ExperimentSpec.model_validate(base | {"tasks": [task]}), lambda dataset, _: datasets.facts(dataset))
    except (SpecError, Invalid):
        return False
    return True


def _merged(document: Any, change: Any) -> Any:
    """The document with a JSON merge patch applied, RFC 7396: null takes a field away, lists are replaced."""
    if not isinstance(change, dict):
        return change
    known = document if isinstance(document, dict) else {}
    kept = {key: value for key, value in known.items() if key not in change}
    return kept | {key: _merged(known.get(key), value) for key, value in change.items() if value is not None}


def _preset(name: str, document: Document) -> Preset:
    variations: dict[Size, Variation | None] = {
        "quick": document.quick,
        "standard": Variation({}, document.differs or ""),
        "full": document.full,
    }
    sizes = {size: found for size, found in variations.items() if found is not None}
    return Preset(
        name=name,
        description=document.description,
        documents={size: _merged(document.sweep, found.change) for size, found in sizes.items()},
        differs={size: found.differs for size, found in sizes.items() if found.differs},
    )


PRESETS = {name: _preset(name, document) for name, document in DOCUMENTS.items()}

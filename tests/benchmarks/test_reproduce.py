"""What `make reproduce` makes of presets and of results; nothing is trained here."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import reproduce
from benchmarks.reproduce import STUDIES, Rows, Study

Json = dict[str, Any]
ITEMS = 400


def line(seed: int, nats: float, right: int, views: Json) -> Json:
    """As a training is kept, in which the first so many held-out items came out right."""
    merits = f"{ITEMS} {base64.b64encode(np.packbits(np.arange(ITEMS) < right)).decode()}"
    score = {"metric": "accuracy", "value": right / ITEMS}
    results = {"mi": {"infonce": {"value": nats, "stderr": 0.03}}, "tasks": {"classification": score}}
    spec = {"dataset": {"name": "cifar10"}, "views": views, "seed": seed}
    return {"spec": spec, "results": results, "merits": {"classification": merits}}


def of(space: str, **modes: tuple[float, int]) -> Rows:
    """Two seeds of each mode, by its I_NCE and how many items came out right."""
    labels = [f"{space} {mode.replace('_', '-')}" for mode in modes]
    views = {"kind": "color_split"}
    lines = [[line(seed, nats + seed / 10, right, views) for seed in (0, 1)] for nats, right in modes.values()]
    return Rows(labels, list(modes), lines, {})


def test_the_studies_have_a_sweep_each_of_which_every_value_has_a_name() -> None:
    for study in STUDIES.values():
        sweep = reproduce._swept(study)
        assert len(set(reproduce._labels(sweep.axis))) == len(sweep.axis.values)


def test_presets_of_one_base_are_joined_along_their_axis() -> None:
    sweep = reproduce._swept(STUDIES["learned"])
    names = tuple(f"{space} {mode}" for space in reproduce.BASE_SPACES for mode in reproduce.MODES)
    assert reproduce._labels(sweep.axis) == names
    assert [value.get("base_space", value.get("space")) for value in sweep.axis.values] == ["rgb"] * 4 + ["ydbdr"] * 4
    with pytest.raises(ValueError, match="vary different things"):
        reproduce._swept(Study(("frequency", "fig5-crop"), STUDIES["crop"].judge, ""))


def test_views_that_were_learned_are_held_against_raw_ones(tmp_path: Path) -> None:
    rows = of("RGB", raw=(2, 200), unsupervised=(1.5, 200), supervised=(2.2, 180), semi_supervised=(2.05, 210))
    checks = list(STUDIES["learned"].judge(rows))
    assert [check.met for check in checks] == [True, False, True, True, True]
    below, above, kept, order, margin = (check.measured for check in checks)
    assert (below, above) == ("-0.50, -0.50 nats", "+0.05, +0.05 nats")
    assert kept.startswith("+2.5 (+")
    assert (order, margin) == ("52.5, 50.0, 45.0 %", "by +2.5 and +7.5 points")
    told = "\n".join(STUDIES["learned"].section(rows, tmp_path / "learned"))
    assert "| RGB unsupervised | -0.50 ± 0.04 | -0.50 ± 0.04 |" in told  # root of 2 x .03^2


def test_accuracy_that_is_wholly_below_is_not_kept() -> None:
    *_, kept = STUDIES["learned"].judge(of("YDbDr", raw=(2, 300), semi_supervised=(1, 200)))
    assert not kept.met


def test_what_is_not_there_yet_is_not_told(tmp_path: Path) -> None:
    study = STUDIES["learned"]
    alone = of("YDbDr", unsupervised=(1, 200))
    assert list(study.judge(alone)) == []
    paragraphs = list(study.section(alone, tmp_path / "learned"))
    assert "| YDbDr unsupervised | 2 | 1.05 ± 0.07 | 50.0 ± 0.0 |" in "\n".join(paragraphs)
    assert not any(paragraph.startswith(("I_NCE less", "Differences")) for paragraph in paragraphs)
    assert (tmp_path / "learned-seeds.svg").read_bytes().startswith(b"<svg")

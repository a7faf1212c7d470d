"""`make reproduce`: the paper's experiments on real data, one study a view family, with figures, pictures and a verdict each.

`python -m benchmarks.reproduce [STUDY ...]`. A study trains its preset's sweep, one training a core, and keeps each result as
soon as it is there: broken off, it goes on where it was. Reports lie in `benchmarks/reproduce/`.
"""

import argparse
import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from app.up import gpus
from benchmarks.run import as_runners_are, hardware

FOLDER = Path(__file__).with_name("reproduce")
Json = dict[str, Any]


PARTS = ("views", "method", "encoder", "pretrain")  # of a spec, told in a report


@dataclass(frozen=True)
class Check:
    """A statement of the paper or of theory, and whether it is so here."""

    statement: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Study:
    """A preset, what to look for in its trainings, and the values at which its view pairs are shown."""

    preset: str
    judge: Callable[["Rows"], Iterator[Check]]
    differs: str
    """In what it is not as the paper's experiment."""
    references: Json = field(default_factory=dict)
    """What each training is held against, by name: the parts in which it is not as the sweep's base."""
    needs_gpu: bool = False
    """Whether it is left out, unless it is named, where there is no GPU."""


class Rows:
    """The finished trainings of a study, by axis value, and the curve's verdicts by task."""

    def __init__(
        self, labels: Sequence[str], values: Sequence[Any], results: Sequence[Sequence[Json]], verdicts: dict[str, Any]
    ) -> None:
        self.verdicts = verdicts
        self.labels = labels
        self.values = values
        self.results = results

    def i_nce(self, index: int) -> float:
        """Mean over the seeds, in nats."""
        return mean(found["mi"]["infonce"]["value"] for found in self.results[index])

    def task(self, index: int, name: str) -> float:
        """Mean over the seeds of a task's value."""
        return mean(found["tasks"][name]["value"] for found in self.results[index])

    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return list(self.results[0][0]["tasks"])


def mean(values: Iterator[float]) -> float:
    """Of at least one number."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


# What each study should show ------------------------------------------------------------------------------------------


def _monotone(rows: Rows, falls: bool) -> Check:
    from scipy.stats import spearmanr  # noqa: PLC0415 - slow to import

    rho = float(spearmanr(range(len(rows.values)), [rows.i_nce(index) for index in range(len(rows.values))]).statistic)
    words = "falls" if falls else "rises"
    return Check(
        f"I_NCE {words} along the axis: Spearman of absolute value at least .9",
        f"{rho:+.2f}",
        rho <= -0.9 if falls else rho >= 0.9,
    )


def _patches(rows: Rows) -> Iterator[Check]:
    yield _monotone(rows, falls=True)
    yield from _peaks(rows)


def _crop(rows: Rows) -> Iterator[Check]:
    yield _monotone(rows, falls=False)
    yield from _peaks(rows)


def _jitter(rows: Rows) -> Iterator[Check]:
    yield _monotone(rows, falls=True)
    yield from _peaks(rows)


def _frequency(rows: Rows) -> Iterator[Check]:
    best = max(range(len(rows.values)), key=rows.i_nce)
    met = 0 < best < len(rows.values) - 1
    yield Check("I_NCE has its maximum inside the axis", f"at {rows.labels[best]} px", met)
    yield from _peaks(rows)


def _peaks(rows: Rows) -> Iterator[Check]:
    for name, verdict in rows.verdicts.items():
        values = [rows.task(index, name) for index in range(len(rows.values))]
        best = max(range(len(values)), key=values.__getitem__)
        measured = f"highest at {rows.labels[best]} ({values[best]:.3f}); {verdict.words}"
        yield Check(f"{name}: an inverted U, by the two-lines test", measured, verdict.shape == "inverted_u")


LUMA_CHROMA = ("yuv", "ycbcr", "ydbdr", "ypbpr", "yiq", "lab", "luv")
SAME_PLANE = ("yuv", "ycbcr", "ydbdr", "ypbpr", "yiq")


def _colours(rows: Rows) -> Iterator[Check]:
    nats = {value: rows.i_nce(index) for index, value in enumerate(rows.values)}
    for space in ("rgb", "xyz"):
        most = max(LUMA_CHROMA, key=nats.__getitem__)
        above = nats[space] > nats[most]
        statement = f"{space.upper()} shares more than every luma-chroma space"
        yield Check(statement, f"{nats[space]:.2f} against at most {nats[most]:.2f} nats ({most})", above)
    spread = max(nats[space] for space in SAME_PLANE) - min(nats[space] for space in SAME_PLANE)
    apart = min(abs(nats[space] - nats[same]) for space in ("rgb", "xyz", "hsv", "hed") for same in SAME_PLANE)
    yield Check(
        "the five spaces of one luma axis and one chroma plane lie together, nearer to each other than to RGB, XYZ, HSV and HED "
        "(that they tie is theory of whitened views; here each channel is standardised for itself)",
        f"spread {spread:.2f} nats, nearest other {apart:.2f} nats away",
        spread < apart,
    )
    from scipy.stats import spearmanr  # noqa: PLC0415 - slow to import

    for name in rows.tasks():
        values = [rows.task(index, name) for index in range(len(rows.values))]
        rho = float(spearmanr(list(nats.values()), values).statistic)
        yield Check(f"less I_NCE, better accuracy of {name}: Spearman below 0", f"{rho:+.2f}", rho < 0)


def _moving_mnist(rows: Rows) -> Iterator[Check]:
    """The ordering of the paper's table 2, as error rates in percent and pixels."""
    at = {label: index for index, label in enumerate(rows.labels)}

    def errors(label: str) -> tuple[float, float, float]:
        digit, background = (100 * (1 - rows.task(at[label], name)) for name in ("digit", "background"))
        return digit, background, rows.task(at[label], "position")

    wanted: list[tuple[str, str, Callable[[float, float, float], bool]]] = [
        ("digit", "digit < 25 %, background > 80 %, position > 10 px", lambda d, b, p: d < 25 and b > 80 and p > 10),
        ("background", "background < 60 %, digit > 80 %", lambda d, b, p: b < 60 and d > 80),
        ("position", "position < 6 px", lambda d, b, p: p < 6),
        ("digit + background + position", "digit > 75 %", lambda d, b, p: d > 75),
    ]
    for label, statement, met in wanted:
        if label not in at:
            continue
        found = errors(label)
        measured = "digit {:.1f} %, background {:.1f} %, position {:.1f} px".format(*found)
        yield Check(f"sharing {label}: {statement}", measured, met(*found))


def _methods(rows: Rows) -> Iterator[Check]:
    """That the quick probe stands for the field's, and that no lower bound reads above its ceiling."""
    each = [
        [100 * (found["tasks"]["linear, SGD"]["value"] - found["tasks"]["linear"]["value"]) for found in row]
        for row in rows.results
    ]
    of_methods = max(abs(mean(iter(row))) for row in each)
    of_one = max(abs(apart) for row in each for apart in row)
    yield Check(
        "the quick linear probe and the field's agree within half a point, in every training",
        f"at most {of_one:.1f} points, of 1000 images; by the mean over each method's seeds at most {of_methods:.1f}",
        of_one <= 0.5,
    )
    below = all(found["mi"]["infonce"]["value"] < found["mi"]["infonce"]["log_k"] for row in rows.results for found in row)
    yield Check("I_NCE lies below log K", "so" if below else "not so", below)


def _anchors(rows: Rows) -> Iterator[Check]:
    """lightly's CIFAR-10 benchmark: kNN, k = 200 and t = .1, best epoch on the test set."""
    published = {"SimCLR": 0.847, "MoCo": 0.838}
    for index, label in enumerate(rows.labels):
        found = rows.task(index, "knn")
        apart = abs(found - published[label])
        yield Check(f"{label}: kNN within 1.2 points of {published[label]}", f"{found:.3f}", apart <= 0.012)


SMALL = "a small encoder and a short training, for two cores; some thousands of CIFAR-10 images where the paper has STL-10"
SCENES = "2 past frames where the paper shows 10, and CIFAR-10 backgrounds where it has STL-10; a short training, one seed"
STUDIES = {
    "patches": Study("fig3-patches", _patches, f"{SMALL}; the photographs are not DIV2K's unless that is there"),
    "colour-spaces": Study("fig4-colour-spaces", _colours, SMALL),
    "frequency": Study("frequency", _frequency, f"{SMALL}; two random crops are split, since one image alone saturates I_NCE"),
    "crop": Study("fig5-crop", _crop, SMALL),
    "jitter": Study("fig5-jitter", _jitter, SMALL),
    "methods": Study(
        "six-methods",
        _methods,
        "a quarter of the small AlexNet's channels, 240 steps of 128 pairs where the papers train for hundreds of epochs, and "
        "4000 images; MoCo's and InfoMin's key encoders keep .99 and not .999 of their weights a step, since there are so few; "
        "bank and queue are as large as 4000 images allow. InstDis has the softmax over its whole bank: with NCE, whose "
        "normaliser the first batch sets, its loss grew from 17 to 100 within two passes, I_NCE came to .04 nats, and the linear "
        "probe to 31 %, below the random encoder's 40 (both with a penalty of 1)",
        {"random": {"method": {"kind": "frozen"}}, "supervised": {"method": {"kind": "supervised"}}},
    ),
    "anchors": Study(
        "cifar10-anchors",
        _anchors,
        "where the dataset is cifar10_jpeg its images are lossy, which costs 2 to 3 points",
        needs_gpu=True,
    ),
    "moving-mnist": Study("table2-moving-mnist", _moving_mnist, SCENES),
    "moving-mnist-places": Study(
        "moving-mnist-places", _moving_mnist, f"{SCENES}; and the last map flattened where the paper averages over it"
    ),
}


# Training -------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out the studies asked for, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("study", nargs="*", help=f"{', '.join(STUDIES)}; all by default")
    parser.add_argument("--only", nargs="+", metavar="LABEL", help="of one study, train these values of the axis alone")
    parser.add_argument("--fresh", action="store_true", help="train anew what other versions of the code have trained")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at a time, each of one thread")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.study) - set(STUDIES):
        parser.error(f"no study {', '.join(sorted(unknown))}; there are {', '.join(STUDIES)}")
    if chosen.only and len(chosen.study) != 1:
        parser.error("--only is for one study")
    as_runners_are("benchmarks.reproduce")
    on_a_gpu = bool(gpus())
    for name in chosen.study or [name for name, study in STUDIES.items() if on_a_gpu or not study.needs_gpu]:
        _carry_out(name, STUDIES[name], chosen.workers, chosen.only, chosen.fresh)


def _carry_out(name: str, study: Study, workers: int, only: Sequence[str] | None, fresh: bool) -> None:
    from app import planning, presets  # noqa: PLC0415
    from app.version import CODE_VERSION  # noqa: PLC0415
    from ml.spec import WHOLE, Axis, expand, resolve  # noqa: PLC0415

    sweep = presets.get(study.preset).sweep
    trainings = [(index, resolve(spec, planning.facts, _precision())) for index, spec in expand(sweep)]
    references = [
        (name, resolve(spec, planning.facts, _precision()))
        for name, parts in study.references.items()
        for _, spec in expand(sweep.model_copy(update={"axis": Axis(path=WHOLE, values=(parts,))}))
    ]
    kept = FOLDER / f"{name}.jsonl"
    done: dict[str, Json] = {}
    if kept.exists():
        lines = map(json.loads, kept.read_text().splitlines())
        done = {line["key"]: line for line in lines if not fresh or line["code"] == CODE_VERSION}
    keys = [_key(spec) for _, spec in trainings]
    labels = _labels(sweep.axis)
    if only is not None and not set(only) <= set(labels):
        sys.exit(f"{name} has no {', '.join(sorted(set(only) - set(labels)))}; it has {', '.join(labels)}")
    missing = {
        key: spec
        for key, (index, spec) in zip(keys, trainings, strict=True)
        if key not in done and (only is None or labels[index] in only)
    }
    if only is None:
        missing |= {key: spec for _, spec in references if (key := _key(spec)) not in done}
    print(f"{name}: {len(trainings) + len(references)} trainings, {len(missing)} to do", flush=True)
    FOLDER.mkdir(exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(_train, spec.model_dump_json()): key for key, spec in missing.items()}
        for future in as_completed(running):
            line = {"key": running[future], **future.result()}
            done[line["key"]] = line
            with kept.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{name}: {line['words']}", flush=True)
    beside: dict[str, list[Json]] = {}
    for title, spec in references:
        if (key := _key(spec)) in done:
            beside.setdefault(title, []).append(done[key])
    found = [(index, done[key]) for key, (index, _) in zip(keys, trainings, strict=True) if key in done]
    _report(name, study, sweep, found, beside)


def _key(spec: Any) -> str:
    from ml.spec import identity  # noqa: PLC0415

    return hashlib.sha256(json.dumps(identity(spec), sort_keys=True).encode()).hexdigest()[:16]


def _train(document: str) -> Json:
    """In a process of its own: one training, and what is kept of it."""
    import torch  # noqa: PLC0415

    from app.version import CODE_VERSION  # noqa: PLC0415
    from ml import experiment  # noqa: PLC0415
    from ml.events import Artifact, Result  # noqa: PLC0415
    from ml.spec import ExperimentSpec  # noqa: PLC0415

    torch.set_num_threads(1)
    spec = ExperimentSpec.model_validate_json(document)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    merits: dict[str, str] = {}
    for event in experiment.run(spec, _library(), device):
        if isinstance(event, Artifact) and event.name == "predictions.npz":
            merits = _packed(event.content)
        if isinstance(event, Result):
            results = event.results
    nats = results["mi"]["infonce"]["value"]
    tasks = ", ".join(f"{name} {found['value']:.3f}" for name, found in results["tasks"].items())
    words = f"{spec.method.kind}, {spec.views.model_dump(exclude_defaults=True)} seed {spec.seed}: {nats:.2f} nats; {tasks}"
    return {
        "spec": spec.model_dump(mode="json"),
        "results": results,
        "merits": merits,
        "seconds": round(time.monotonic() - started, 1),
        "code": CODE_VERSION,
        "date": datetime.now(UTC).date().isoformat(),
        "words": words,
    }


def _library() -> Any:
    from app.settings import settings  # noqa: PLC0415
    from ml.datasets import Library  # noqa: PLC0415

    return Library(settings().datasets_dir, settings().uploads_dir, settings().prepared_dir)


def _precision() -> Any:
    from app.persistence.hardware import describe  # noqa: PLC0415

    return "bfloat16" if describe()["fast_bfloat16"] else "float32"


# Reporting ------------------------------------------------------------------------------------------------------------


def _report(
    name: str, study: Study, sweep: Any, trainings: Sequence[tuple[int, Json]], references: dict[str, list[Json]]
) -> None:
    """`NAME.md` with its checks and its table, `NAME.svg` with its curve, `NAME-views.png` with pairs along the axis."""
    import vl_convert  # noqa: PLC0415

    from app import figure  # noqa: PLC0415
    from ml import curve, preview  # noqa: PLC0415
    from ml.spec import ExperimentSpec  # noqa: PLC0415

    axis = sweep.axis
    labels = _labels(axis)
    trained = sorted({index for index, _ in trainings})
    results = [[line["results"] for at, line in trainings if at == index] for index in trained]
    traced = curve.trace(axis, [_measurement(index, line) for index, line in trainings])
    rows = Rows([labels[index] for index in trained], [axis.values[index] for index in trained], results, traced.verdicts)
    (FOLDER / f"{name}.svg").write_bytes(figure.render(figure.figure(traced, sweep.name), "svg"))
    shown = sorted({0, len(trained) // 2, len(trained) - 1}) if axis.ordered else range(len(trained))
    specs = [ExperimentSpec.model_validate(next(line["spec"] for at, line in trainings if at == trained[row])) for row in shown]
    pictures = [preview.preview(spec.dataset, spec.views, _library(), 2, spec.seed, spec.method) for spec in specs]
    captions = [f"{rows.labels[row]}: {rows.i_nce(row):.2f} nats" for row in shown]
    views = figure.views_picture(list(zip(captions, pictures, strict=True)))
    (FOLDER / f"{name}-views.png").write_bytes(vl_convert.vegalite_to_png(views, scale=1))
    untrained = [label for index, label in enumerate(labels) if index not in trained]
    page = _page(name, study, sweep, rows, [line for _, line in trainings], untrained)
    if references:
        of_rows = {label: [line for at, line in trainings if labels[at] == label] for label in rows.labels}
        page += _beside(of_rows, references)
    (FOLDER / f"{name}.md").write_text(page)
    print(f"{name}: written to {FOLDER / name}.md", flush=True)


def _labels(axis: Any) -> tuple[str, ...]:
    return tuple(axis.labels or (f"{value:g}" for value in axis.values))


def _measurement(index: int, line: Json) -> Any:
    from ml import curve  # noqa: PLC0415

    nats, tasks = line["results"]["mi"]["infonce"], line["results"]["tasks"]
    parts, quality = line["results"]["information"] or {}, line["results"]["quality"] or {}
    return curve.Measurement(
        experiment=line["key"],
        index=index,
        seed=line["spec"]["seed"],
        i_nce=nats["value"],
        i_nce_stderr=nats["stderr"],
        log_k=nats["log_k"],
        saturated=nats["saturated"],
        tasks={name: curve.TaskResult(found["value"], tuple(found["ci"]), found["metric"]) for name, found in tasks.items()},
        task_information=parts["task"]["value"] if parts.get("task") else None,
        nuisance=parts["nuisance"]["value"] if parts.get("nuisance") else None,
        quality={name: quality[name] for name in curve.QUALITIES if quality.get(name) is not None},
    )


def _page(name: str, study: Study, sweep: Any, rows: Rows, lines: Sequence[Json], untrained: Sequence[str]) -> str:
    from ml import preview  # noqa: PLC0415
    from ml.spec import WHOLE, ExperimentSpec, in_words  # noqa: PLC0415

    tasks = rows.tasks()
    spec = lines[0]["spec"]
    checks = [f"| {check.statement} | {check.measured} | {'yes' if check.met else '**no**'} |" for check in study.judge(rows)]
    table = [
        f"| {label} | {rows.i_nce(index):.2f} | " + " | ".join(f"{rows.task(index, task):.3f}" for task in tasks) + " |"
        for index, label in enumerate(rows.labels)
    ]
    alike = [part for part in PARTS if all(line["spec"][part] == spec[part] for line in lines)]
    told = PARTS if sweep.axis.path != WHOLE else alike
    parts = {part: in_words({key: value for key, value in spec[part].items() if value is not None}) for part in told}
    axis = sweep.axis.path.partition(".")[2]
    recipe = preview.parameters(ExperimentSpec.model_validate(spec).views)
    if "views" in parts:
        parts["views"] = in_words({key: value for key, value in recipe.items() if key != axis})
    codes = sorted({line["code"] for line in lines})
    dates = sorted({line["date"] for line in lines})
    return "\n".join(
        [
            f"# {sweep.name}",
            "",
            f"`make reproduce-{name}`, the preset `{study.preset}`: dataset {spec['dataset']['name']}, {len(lines)} trainings "
            f"({len(lines) // len(rows.labels)} a value), K = {spec['mi']['k']}. "
            + " ".join(f"{part.capitalize()}: {words}." for part, words in parts.items())
            + f" Trained {' to '.join(dates)} on {hardware()}, one thread a training, "
            f"{sum(line['seconds'] for line in lines) / 60:.0f} minutes of one busy core in all; code {', '.join(codes)}"
            + (" (more than one version: `--fresh` trains all with the present one)." if len(codes) > 1 else "."),
            "",
            f"Not as in the paper: {study.differs}.",
            "",
            "| what should be seen | measured | met |",
            "|---|---|---|",
            *checks,
            "",
            f"| {sweep.axis.path} | I_NCE (nats) | " + " | ".join(tasks) + " |",
            "|---" * (2 + len(tasks)) + "|",
            *table,
            *(["", f"Not trained yet: {', '.join(untrained)}."] if untrained else []),
            "",
            f"![The curve]({name}.svg)",
            "",
            f"![View pairs along the axis]({name}-views.png)",
            "",
        ]
    )


def _beside(rows: dict[str, list[Json]], references: dict[str, list[Json]]) -> str:
    """Each row of a study and its references, with the differences between them."""
    tasks = list(next(iter(rows.values()))[0]["merits"])
    everything = rows | references
    table = [
        f"| {label} | "
        + " | ".join(f"{100 * mean(line['results']['tasks'][task]['value'] for line in lines):.1f}" for task in tasks)
        + f" | {mean(line['results']['mi']['infonce']['value'] for line in lines):.2f}"
        + f" | {median([line['results']['timing']['pairs_per_second'] for line in lines]):.0f}"
        + f" | {len(lines)} |"
        for label, lines in everything.items()
    ]
    differences = [
        f"| {label} | " + " | ".join(_apart(rows[label], of, task) for task in tasks for of in references.values()) + " |"
        for label in rows
    ]
    heads = " | ".join(f"{task}: less {reference}" for task in tasks for reference in references)
    return "\n".join(
        [
            "",
            "## Beside what was not trained, and what was trained with labels",
            "",
            "Accuracies in percent, means over the seeds; pairs per second of one thread beside another, medians. InstDis encodes"
            " one view of a pair, CMC two of half the width. All trainings together took "
            f"{sum(line['seconds'] for lines in everything.values() for line in lines) / 60:.0f} minutes of one busy core.",
            "",
            "| | " + " | ".join(tasks) + " | I_NCE (nats) | pairs/s | seeds |",
            "|---" * (len(tasks) + 4) + "|",
            *table,
            "",
            "Differences in points, with 95 % intervals by a bootstrap over seeds and held-out images, paired by image.",
            "",
            f"| | {heads} |",
            "|---" * (1 + len(tasks) * len(references)) + "|",
            *differences,
            "",
        ]
    )


def _apart(lines: Sequence[Json], references: Sequence[Json], task: str) -> str:
    import torch  # noqa: PLC0415

    from ml.tasks import bootstrap  # noqa: PLC0415

    ours, theirs = (torch.stack([_unpacked(line["merits"][task]) for line in of]) for of in (lines, references))
    low, high = bootstrap.difference(ours, theirs, torch.Generator().manual_seed(0))
    return f"{100 * (ours.mean() - theirs.mean()):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _packed(predictions: bytes) -> dict[str, str]:
    """Of each task that learned from all labels, whether each held-out item was right: bits, as base64."""
    import numpy as np  # noqa: PLC0415

    with np.load(BytesIO(predictions), allow_pickle=False) as arrays:
        merits = {name.removesuffix(".merits"): arrays[name] for name in arrays.files if name.endswith(".merits")}
    whole = {name: values for name, values in merits.items() if np.isin(values, (0, 1)).all()}
    return {name: f"{len(values)} {base64.b64encode(np.packbits(values > 0)).decode()}" for name, values in whole.items()}


def _unpacked(text: str) -> Any:
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    count, bits = text.split(" ")
    return torch.from_numpy(np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8))[: int(count)]).double()


if __name__ == "__main__":
    main()

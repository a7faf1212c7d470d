"""`make bench-search`: what a search for the peak saves, and whether its intervals hold what they promise.

On the closed-form toy of tests/ml/test_search.py, a hundred searches at each of several budgets, and on controls that have no
peak; then on handwritten digits, trained in earnest: a dense grid against a search with half its trainings, and fresh trainings
at the two places that they name. Trainings are kept as they come: broken off, it goes on where it was. The report is `search.md`.
"""

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from benchmarks.run import as_runners_are, hardware

REPORT = Path(__file__).with_name("search.md")
KEPT = Path(__file__).with_name("search.jsonl")
BUDGETS = (10, 16, 24)
GRID, SEEDS, FRESH = 13, 3, 8
LOW, HIGH = 0.05, 2.5
CONTROLS: dict[str, Callable[[float], float]] = {
    "rises": lambda t: 0.6 + 0.08 * t,
    "rises to a plateau": lambda t: 0.8 - 0.2 * math.exp(-3 * t),
    "falls": lambda t: 0.8 - 0.05 * t,
    "falls late": lambda t: 0.8 - 0.2 / (1 + math.exp(-6 * (t - 1.8))),
    "flat": lambda t: 0.8,
}
Json = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not kept yet, and write the report."""
    parser = argparse.ArgumentParser(prog="benchmarks.search", description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings at once on the dense grid")
    parser.add_argument("--fresh", action="store_true", help="train everything anew")
    options = parser.parse_args(arguments)
    as_runners_are("benchmarks.search")
    if options.fresh:
        KEPT.unlink(missing_ok=True)
    lines = [
        "# Searching for the peak",
        "",
        f"By `make bench-search` on {datetime.now(UTC).date().isoformat()}, {hardware()}.",
        "",
        *_on_the_toy(),
        "",
        *_on_controls(),
        "",
        *_on_digits(options.workers),
    ]
    REPORT.write_text("\n".join(lines) + "\n")
    print(f"written to {REPORT}")


def _on_the_toy() -> Iterator[str]:
    from ml import search  # noqa: PLC0415
    from tests.ml.test_search import PEAK, accuracy, information, searched, traced  # noqa: PLC0415

    yield "## The toy whose peak is known"
    yield ""
    yield (
        "Strength t of views between 0 and 2.4, accuracy of a probe on 200 labels, one training at a time with its scatter (sd "
        f".005 beyond the peak, .05 below it). The true peak is at t = {PEAK}, and within .002 of it from 1.1 to 1.25. A hundred "
        "searches each."
    )
    yield ""
    yield "| trainings | peak in [1.0, 1.4] and I in [2.1, 5.0] | 90 % interval holds the peak | its median width | verdicts |"
    yield "|---|---|---|---|---|"
    for budget in BUDGETS:
        hits, covered, widths, shapes = 0, 0, [], Counter[str]()
        for seed in range(100):
            asked, trials = searched(seed, accuracy, trainings=budget)
            peak = search.peak(asked, trials)
            assert peak is not None
            hits += 1.0 <= peak.value <= 1.4 and 2.1 <= information(peak.value) <= 5.0
            covered += peak.value_ci[0] <= PEAK <= peak.value_ci[1]
            widths.append(peak.value_ci[1] - peak.value_ci[0])
            shapes[traced(asked, trials).verdicts["classification"].shape] += 1
        yield f"| {budget} | {hits} of 100 | {covered} of 100 | {median(widths):.2f} | {_counted(shapes)} |"
        print(f"toy, {budget} trainings: {hits} hits, {covered} covered", flush=True)


def _on_controls() -> Iterator[str]:
    from tests.ml.test_search import searched, traced  # noqa: PLC0415

    yield "## Controls without a peak"
    yield ""
    yield "A search crowds where it believes a peak: does it see one that is not there? Scatter .008, a hundred searches each."
    yield ""
    yield "| accuracy along t | " + " | ".join(f"{budget} trainings" for budget in BUDGETS) + " |"
    yield "|---" * (len(BUDGETS) + 1) + "|"
    for name, control in CONTROLS.items():
        cells = []
        for budget in BUDGETS:

            def measure(t: float, chance: np.random.Generator, control: Callable[[float], float] = control) -> float:
                return control(t) + 0.008 * chance.standard_normal()

            runs = (searched(1000 + seed, measure, trainings=budget) for seed in range(100))
            cells.append(_counted(Counter(traced(*run).verdicts["classification"].shape for run in runs)))
        yield f"| {name} | " + " | ".join(cells) + " |"
        print(f"control that {name}: {cells}", flush=True)


def _on_digits(workers: int) -> Iterator[str]:
    from ml import search  # noqa: PLC0415
    from ml.search import Trial  # noqa: PLC0415
    from ml.spec import Search  # noqa: PLC0415

    sigmas = [float(f"{sigma:.3g}") for sigma in np.geomspace(LOW, HIGH, GRID)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        grid = _trained(pool, [(sigma, seed) for sigma in sigmas for seed in range(SEEDS)])
        asked, trials = Search(low=LOW, high=HIGH, scale="log", trainings=GRID * SEEDS // 2), list[Trial]()
        while following := search.ask(asked, trials, search.independent(asked, trials) or 1):
            repeats = [sum(trial.value == one.value for trial in trials + following[:at]) for at, one in enumerate(following)]
            places = [(one.value, 100 + repeat) for one, repeat in zip(following, repeats, strict=True)]
            scores = _trained(pool, places)
            trials += [Trial(value, scores[value, seed], repeat=seed) for value, seed in places]
        peak = search.peak(asked, trials)
        assert peak is not None
        by_sigma = {sigma: [grid[sigma, seed] for seed in range(SEEDS)] for sigma in sigmas}
        best = max(sigmas, key=lambda sigma: mean(by_sigma[sigma]))
        seeds = range(1000, 1000 + FRESH)
        fresh = _trained(pool, [(sigma, seed) for sigma in {best, peak.value} for seed in seeds])
    of_best, of_peak = ([fresh[sigma, seed] for seed in seeds] for sigma in (best, peak.value))
    error = stdev(by_sigma[best]) / math.sqrt(SEEDS)
    differences = [ours - theirs for ours, theirs in zip(of_peak, of_best, strict=True)]
    apart, apart_error = mean(differences), stdev(differences) / math.sqrt(FRESH)
    within = mean(of_peak) >= mean(by_sigma[best]) - error
    yield "## Handwritten digits"
    yield ""
    yield (
        f"The preset `digits-noise`, sigma from {LOW} to {HIGH}: a dense grid of {GRID} values with {SEEDS} seeds each, against "
        f"a search. Then {FRESH} fresh seeds at both places, so that neither is judged by the trainings that chose it."
    )
    yield ""
    yield "| | trainings | sigma | accuracy as it was found | accuracy of fresh trainings |"
    yield "|---|---|---|---|---|"
    yield (
        f"| dense grid's best | {GRID * SEEDS} | {best:g} | {mean(by_sigma[best]):.4f} ± {error:.4f} | "
        f"{mean(of_best):.4f} ± {stdev(of_best) / math.sqrt(FRESH):.4f} |"
    )
    between = f"90 %: {peak.value_ci[0]:.2g} to {peak.value_ci[1]:.2g}"
    yield (
        f"| search | {len(trials)} | {peak.value:g} ({between}) | {peak.score:.4f} | "
        f"{mean(of_peak):.4f} ± {stdev(of_peak) / math.sqrt(FRESH):.4f} |"
    )
    yield ""
    yield (
        f"± is one standard error over seeds. Search less grid, seed by seed: {apart:+.4f} ± {apart_error:.4f}. Within one "
        f"standard error of the dense grid's best, as that was found: {'yes' if within else 'NO'}."
    )
    yield ""
    yield f"Dense grid: {', '.join(f'{sigma:g}: {mean(found):.3f}' for sigma, found in by_sigma.items())}."
    yield ""
    yield f"Tried by the search, in this order: {', '.join(f'{trial.value:g} ({trial.score:.3f})' for trial in trials)}."


def _trained(pool: ProcessPoolExecutor, places: Sequence[tuple[float, int]]) -> dict[tuple[float, int], float]:
    """The accuracy of each (sigma, seed), trained unless it is kept."""
    from app.version import CODE_VERSION  # noqa: PLC0415
    from benchmarks.reproduce import train  # noqa: PLC0415

    lines = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    kept = {(line["sigma"], line["seed"]): line["accuracy"] for line in lines}
    missing = [place for place in dict.fromkeys(places) if place not in kept]
    for place, line in zip(missing, pool.map(train, [_document(*place) for place in missing]), strict=True):
        kept[place] = line["results"]["tasks"]["classification"]["value"]
        note = {"sigma": place[0], "seed": place[1], "accuracy": kept[place], "seconds": line["seconds"], "code": CODE_VERSION}
        with KEPT.open("a") as file:
            file.write(json.dumps(note) + "\n")
        print(f"sigma {place[0]:g}, seed {place[1]}: {kept[place]:.3f}", flush=True)
    return kept


def _document(sigma: float, seed: int) -> str:
    from app import datasets, presets  # noqa: PLC0415
    from ml.spec import expand, resolve  # noqa: PLC0415

    sweep = presets.get("digits-noise").sweep
    axis = sweep.axis.model_copy(update={"values": (sigma,)})
    ((_, spec),) = expand(sweep.model_copy(update={"axis": axis, "seeds": 1}))
    return resolve(spec.model_copy(update={"seed": seed}), lambda dataset, _: datasets.facts(dataset)).model_dump_json()


def _counted(shapes: Counter[str]) -> str:
    return ", ".join(f"{shape.replace('_', ' ')} {count}" for shape, count in shapes.most_common())


if __name__ == "__main__":
    main()

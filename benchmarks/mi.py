"""`make bench-mi`: every estimator of mutual information on every distribution that knows its own, as a table and a heat map.

`python -m benchmarks.mi [--only WORDS] [--fresh]`. Each distribution is kept as soon as it is measured: broken off, it goes on
where it was. The report lies in `benchmarks/mi/`.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from scipy.stats import norm

from benchmarks.run import as_runners_are, hardware
from ml.spec import ESTIMATORS, MiEstimate

FOLDER = Path(__file__).with_name("mi")
KEPT = FOLDER / "estimates.jsonl"
PAIRS = 5000
TOLERATED = 0.08  # nats, or this share of the truth
LEVEL = 0.01  # of lower bounds above the truth, over all comparisons together
DEFAULT = MiEstimate().estimators
Json = dict[str, Any]


def main() -> None:
    """Measure what is missing, and report all of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", default="", help="distributions whose names hold these words")
    parser.add_argument("--default", action="store_true", help="the default estimators alone, by this code; the others stay")
    parser.add_argument("--fresh", action="store_true", help="measure all of them anew")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="distributions at a time")
    asked = parser.parse_args()
    as_runners_are("benchmarks.mi")
    from app.version import CODE_VERSION  # noqa: PLC0415
    from ml.mi.known import TESTBED  # noqa: PLC0415 - torch takes a while to import

    FOLDER.mkdir(exist_ok=True)
    if asked.fresh:
        KEPT.unlink(missing_ok=True)
    done = {line["name"]: line for line in map(json.loads, KEPT.read_text().splitlines())} if KEPT.exists() else {}
    wanted = DEFAULT if asked.default else tuple(ESTIMATORS)
    known = {
        name: not asked.default or line["codes"][-1] == CODE_VERSION
        for name, line in done.items()
        if set(wanted) <= set(line["estimates"])
    }
    missing = [name for name in TESTBED if asked.only in name and not known.get(name, False)]
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, name, wanted) for name in missing]):
            line = future.result()
            before = done.get(line["name"], {"estimates": {}, "codes": []})
            line["estimates"] = before["estimates"] | line["estimates"]
            line["codes"] = [code for code in before["codes"] if code not in line["codes"]] + line["codes"]
            done[line["name"]] = line
            KEPT.write_text("".join(json.dumps(done[name]) + "\n" for name in TESTBED if name in done))
            print(f"{line['name']}: {line['information']:.3f} nats; {line['verdict']}", flush=True)
    report([done[name] for name in TESTBED if name in done])


def measure(name: str, wanted: tuple[str, ...]) -> Json:
    """One distribution: what the default estimators say together, and each that is wanted, with its time."""
    import torch  # noqa: PLC0415

    from app.version import CODE_VERSION  # noqa: PLC0415
    from ml.mi.estimate import TRAINED_FOR  # noqa: PLC0415
    from ml.mi.known import TESTBED  # noqa: PLC0415

    torch.set_num_threads(1)
    known = TESTBED[name]
    x, y = known.sample(PAIRS, torch.Generator().manual_seed(0))
    found, seconds = _timed(MiEstimate(), x, y)
    every, each = (found, seconds) if wanted == DEFAULT else _timed(MiEstimate.model_validate({"estimators": wanted}), x, y)
    estimates = {
        estimator: {
            "value": its.value,
            "stderr": its.stderr,
            "kind": its.kind,
            "seconds": round(each[TRAINED_FOR.get(estimator)], 2),
        }
        for estimator, its in every.mi.items()
    }
    return {
        "name": name,
        "dims": known.dims,
        "information": known.information,
        "hard": known.hard,
        "k": found.k,
        "estimates": estimates,
        "default": {estimator: asdict(its) for estimator, its in found.mi.items()},
        "bracket": None if found.bracket is None else asdict(found.bracket),
        "verdict": found.verdict,
        "seconds": round(sum(seconds.values()), 2),
        "codes": [CODE_VERSION],
        "date": datetime.now(UTC).date().isoformat(),
    }


def _timed(asked: MiEstimate, x: Any, y: Any) -> tuple[Any, dict[str | None, float]]:
    """The estimates, and how long each training took with its readings; None stands for what needs none."""
    from ml.mi.estimate import TRAINED_FOR, estimate  # noqa: PLC0415

    trainings = list(dict.fromkeys(TRAINED_FOR[name] for name in asked.estimators if name in TRAINED_FOR))
    seconds: dict[str | None, float] = dict.fromkeys((None, *trainings), 0.0)
    steps, at, began = estimate(asked, x, y), 0, time.perf_counter()
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value, seconds
        ended = time.perf_counter()
        seconds[trainings[at % len(trainings)] if at < len(trainings) * asked.repeats else None] += ended - began
        at, began = progress.step, ended


# Reporting ------------------------------------------------------------------------------------------------------------


def report(lines: Sequence[Json]) -> None:
    """`README.md` with what should be so and the tables, `errors.svg` with the heat map."""
    from app import figure  # noqa: PLC0415

    (FOLDER / "errors.svg").write_bytes(figure.render(heat_map(lines), "svg"))
    codes = list(dict.fromkeys(code for line in lines for code in line["codes"]))
    dates = {line["date"] for line in lines}
    slowest = max(lines, key=lambda line: line["seconds"])
    median = statistics.median(line["seconds"] for line in lines)
    took = f"the median is {median:.0f}, the longest {slowest['seconds']:.0f} ({slowest['name']})"
    checks = [f"| {statement} | {measured} | {'yes' if met else '**no**'} |" for statement, measured, met in _checks(lines)]
    page = [
        "# Estimators of mutual information where it is known",
        "",
        f"`make bench-mi`: {len(lines)} distributions of `ml/mi/known.py`, {PAIRS} pairs of each, all estimators with their "
        f"defaults (separable critic, 3 trainings). Measured {' to '.join(sorted(dates))} on {hardware()}, one thread each; code "
        f"{', '.join(codes)}, the verdicts by the last. All in nats.",
        "",
        "| what should be so | measured | met |",
        "|---|---|---|",
        *checks,
        "",
        "![Estimate less truth, of every estimator on every distribution](errors.svg)",
        "",
        "## Estimators",
        "",
        "Errors are over the distributions that the literature does not call too hard for some thousands of pairs. js and smile "
        "are read from one training, and so are leave_one_out, club and doe.",
        "",
        "| | kind | median of absolute errors | largest | seconds (median) |",
        "|---|---|---|---|---|",
        *_by_estimator(lines),
        "",
        "## Distributions",
        "",
        f"Estimate ± standard error. The verdict is that of the default set ({', '.join(DEFAULT)}), in so many seconds: {took}.",
        "",
        "| | truth | " + " | ".join(ESTIMATORS) + " | verdict | s |",
        "|---" * (len(ESTIMATORS) + 4) + "|",
        *_by_distribution(lines),
        "",
    ]
    (FOLDER / "README.md").write_text("\n".join(page))
    print(f"written to {FOLDER / 'README.md'}", flush=True)


def heat_map(lines: Sequence[Json]) -> Json:
    """Estimate less truth: red is too high, blue too low."""
    import altair as alt  # noqa: PLC0415

    cells = [
        {
            "distribution": f"{line['name']}  ({line['information']:.2f})",
            "estimator": estimator,
            "error": its["value"] - line["information"],
            "shown": f"{its['value'] - line['information']:+.2f}",
        }
        for line in lines
        for estimator, its in line["estimates"].items()
    ]
    rows = [f"{line['name']}  ({line['information']:.2f})" for line in lines]
    base = alt.Chart(alt.Data(values=cells)).encode(
        x=alt.X("estimator:N", sort=list(ESTIMATORS), title=None, axis=alt.Axis(orient="top", labelAngle=-40)),
        y=alt.Y("distribution:N", sort=rows, title=None, axis=alt.Axis(labelLimit=420)),
    )
    colour = alt.Color(
        "error:Q",
        scale=alt.Scale(scheme="redblue", reverse=True, domain=[-0.5, 0.5], clamp=True),
        legend=alt.Legend(title="estimate - truth (nats)", orient="bottom", gradientLength=300),
    )
    far = alt.expr.abs(alt.datum.error) > 0.35
    words = base.mark_text(fontSize=9).encode(text="shown:N", color=alt.condition(far, alt.value("white"), alt.value("#222")))
    chart = alt.layer(base.mark_rect(stroke="white").encode(color=colour), words).properties(
        width=46 * len(ESTIMATORS), height=17 * len(rows), background="white", title="Estimate less truth, in nats"
    )
    found: Json = chart.to_dict()
    return found


def _checks(lines: Sequence[Json]) -> Iterator[tuple[str, str, bool]]:
    """What the estimators promise: the statement, what was measured, and whether it is so."""
    easy = [line for line in lines if not line["hard"]]
    near = [line["name"] for line in easy if _near(line)]
    far = [line for line in lines if not _near(line)]
    yield (
        f"on at least 20 distributions the best lower bound of the default set is within {TOLERATED} nats or {TOLERATED:.0%}",
        f"{len(near)} of {len(easy)}" + "".join(f"; not {line['name']}" for line in easy if not _near(line)),
        len(near) >= 20,
    )
    unflagged = [line["name"] for line in far if line["default"]["infonce"]["caution"] is None]
    yield (
        "where it is not, a caution says that it is low or may be",
        f"{len(far) - len(unflagged)} of {len(far)}" + "".join(f"; not {name}" for name in unflagged),
        not unflagged,
    )
    lower = [(line, its) for line in lines for its in line["estimates"].values() if its["kind"] == "lower"]
    allowed = float(norm.isf(LEVEL / len(lower)))
    excess = [(its["value"] - line["information"]) / max(its["stderr"], 1e-6) for line, its in lower]
    above = [line["name"] for (line, _), errors in zip(lower, excess, strict=True) if errors > allowed]
    yield (
        f"no lower bound is above the truth, family-wise at {LEVEL:.0%}",
        f"{len(lower)} comparisons, {allowed:.2f} standard errors allowed, the highest {max(excess):.2f} above"
        + "".join(f"; {name}" for name in above),
        not above,
    )
    upper = [(line, its) for line in lines for its in (line["default"]["leave_one_out"],) if its["kind"] == "upper"]
    beneath = [(line["information"] - its["value"]) / max(its["stderr"], 1e-6) for line, its in upper]
    allowed = float(norm.isf(LEVEL / max(len(upper), 1)))
    yield (
        f"no leave-one-out upper bound that held-out residuals bear out is beneath the truth, family-wise at {LEVEL:.0%}",
        f"{len(upper)} comparisons, {allowed:.2f} standard errors allowed, the lowest {max(beneath, default=0):.2f} beneath",
        max(beneath, default=0) <= allowed,
    )


def _near(line: Json) -> bool:
    best = max(its["value"] for its in line["default"].values() if its["kind"] == "lower")
    return abs(best - line["information"]) <= max(TOLERATED, TOLERATED * line["information"])


def _by_estimator(lines: Sequence[Json]) -> Iterator[str]:
    for estimator, facts in ESTIMATORS.items():
        measured = [(line, line["estimates"][estimator]) for line in lines if estimator in line["estimates"]]
        errors = [abs(its["value"] - line["information"]) for line, its in measured if not line["hard"]]
        if not errors:
            yield f"| {estimator} | {facts.kind} | not measured yet | | |"
            continue
        seconds = statistics.median(its["seconds"] for _, its in measured)
        yield f"| {estimator} | {facts.kind} | {statistics.median(errors):.3f} | {max(errors):.2f} | {seconds:.1f} |"


def _by_distribution(lines: Sequence[Json]) -> Iterator[str]:
    for line in lines:
        found = [line["estimates"].get(estimator) for estimator in ESTIMATORS]
        cells = " | ".join(f"{its['value']:.3f} ± {its['stderr']:.3f}" if its else "" for its in found)
        name = line["name"] + (f" ({line['hard']})" if line["hard"] else "")
        yield f"| {name} | {line['information']:.3f} | {cells} | {line['verdict']} | {line['seconds']:.0f} |"


if __name__ == "__main__":
    main()

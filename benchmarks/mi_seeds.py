"""`make bench-mi-seeds`: the default estimators again and again, also on distributions that no rule was chosen on.

`python -m benchmarks.mi_seeds [--seeds N] [--first SEED] [--fresh]`. Whether standard errors are what estimates scatter by, and
whether what is wrong says so, shows only over many draws. What is measured is kept: broken off, it goes on where it was. The
report is `benchmarks/mi/seeds.md`.
"""

import argparse
import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any

from scipy.stats import norm

from benchmarks.mi import FOLDER, LEVEL, TOLERATED
from benchmarks.run import as_runners_are, hardware
from ml.spec import MiEstimate

KEPT = FOLDER / "seeds.jsonl"
SIZES = (1000, 5000)  # pairs
WIDE = 3.0  # standard errors
LEAST_DRAWS = 5  # that a scatter is told of
Json = dict[str, Any]


def main() -> None:
    """Measure what is missing, and report all of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="draws of each distribution and size")
    parser.add_argument("--first", type=int, default=1, help="seed of the first draw")
    parser.add_argument("--fresh", action="store_true", help="measure all of them anew")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="estimates at a time")
    asked = parser.parse_args()
    as_runners_are("benchmarks.mi_seeds")
    if asked.fresh:
        KEPT.unlink(missing_ok=True)
    lines = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    from app.version import CODE_VERSION  # noqa: PLC0415

    done = {(line["name"], line["pairs"], line["seed"]) for line in lines if line["code"] == CODE_VERSION}
    seeds = range(asked.first, asked.first + asked.seeds)
    jobs = [(name, pairs, seed) for seed in seeds for pairs in SIZES for name in _collection()]
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as pool, KEPT.open("a") as kept:
        for future in as_completed([pool.submit(measure, *job) for job in jobs if job not in done]):
            lines.append(future.result())
            kept.write(json.dumps(lines[-1]) + "\n")
            kept.flush()
    report(lines)


def measure(name: str, pairs: int, seed: int) -> Json:
    """What the default estimators say of one draw."""
    import torch  # noqa: PLC0415

    from app.version import CODE_VERSION  # noqa: PLC0415
    from ml.mi.estimate import estimate  # noqa: PLC0415

    torch.set_num_threads(1)
    known = _collection()[name]
    x, y = known.sample(pairs, torch.Generator().manual_seed(seed))
    steps = estimate(MiEstimate(seed=seed), x, y)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
    return {
        "name": name,
        "pairs": pairs,
        "seed": seed,
        "information": known.information,
        "hard": known.hard,
        "estimates": {
            estimator: {"value": its.value, "stderr": its.stderr, "kind": its.kind, "caution": its.caution}
            for estimator, its in found.mi.items()
        },
        "bracket": None if found.bracket is None else [found.bracket.lower, found.bracket.upper],
        "verdict": found.verdict,
        "hardware": hardware(),
        "code": CODE_VERSION,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _collection() -> dict[str, Any]:
    from ml.mi.known import TESTBED  # noqa: PLC0415

    return TESTBED | _unseen()


def _unseen() -> dict[str, Any]:
    """Of the same families, but on which no rule of what to flag was tried while it was chosen."""
    from ml.mi import known  # noqa: PLC0415
    from ml.mi.known import correlated, mapped, shared_class, student, together, uniform_noise, wave  # noqa: PLC0415

    chosen = (
        correlated(3, 0.5),
        correlated(8, 0.4),
        known.sparse(6, 3, (0.8, 0.3)),
        known.dense(4, 9, 0.4),
        known.noise_axis(6, 0.7),
        known.ou_strips(0.2, 1.0, 6),
        mapped(correlated(2, 0.9), x=known.CUBE, y=known.WIGGLY),
        mapped(known.dense(8, 8, 0.3), x=known.HALF_CUBE, y=known.NORMAL_CDF),
        student(2, 3, dof=5, rho=0.5),
        student(3, 3, dof=3, rho=0.4),
        student(1, 1, dof=1, rho=0.5),
        uniform_noise(0.15),
        uniform_noise(0.5),
        wave(1, 0.5),
        wave(4, 0.4),
        shared_class(7),
        shared_class(8),
        known.flipped_bit(0.3),
        together(shared_class(2), correlated(3, 0.6)),
        together(wave(1, 0.4), correlated(2, 0.8)),
        mapped(mapped(correlated(1, 0.8), x=known.NORMAL_CDF, y=known.NORMAL_CDF), y=known.SWISS_ROLL),
        mapped(correlated(2, 0.7), x=known.spiral(0.5)),
        mapped(known.sparse(3, 5, (0.8, 0.6)), y=known.spiral(0.4)),
    )
    return {its.name: its for its in chosen}


# Reporting ------------------------------------------------------------------------------------------------------------


def report(lines: Sequence[Json]) -> None:
    """`seeds.md`: what should be so, and how each distribution fared.

    What is flagged is told of this code alone; values and their errors of all.
    """
    from app.version import CODE_VERSION  # noqa: PLC0415

    unseen, collection = _unseen(), _collection()
    last = {(line["name"], line["pairs"], line["seed"]): line for line in lines if line["name"] in collection}
    lines = [line | {"unseen": line["name"] in unseen} for line in last.values()]
    rules = [line for line in lines if line["code"] == CODE_VERSION]
    dates, machines = ({line[field] for line in lines} for field in ("date", "hardware"))
    page = [
        "# The default estimators over many draws",
        "",
        f"`make bench-mi-seeds`: {len(lines)} estimates by {', '.join(MiEstimate().estimators)}, of which {len(rules)} by code "
        f"{CODE_VERSION}, of which alone brackets and cautions are told. *Chosen on* are the distributions of `TESTBED`, on "
        "other draws of which the rules were chosen of what to flag; *unseen* are others, measured when the rules stood. "
        f"Measured {' to '.join(sorted(dates))} on {' and on '.join(sorted(machines))}. All in nats.",
    ]
    for pairs in SIZES:
        all_of_size, ruled = ([line for line in some if line["pairs"] == pairs] for some in (lines, rules))
        apart = [
            list(_checks(*([line for line in some if line["unseen"] is unseen] for some in (all_of_size, ruled))))
            for unseen in (False, True)
        ]
        page += [
            "",
            f"## {pairs} pairs",
            "",
            "| what should be so | chosen on | unseen |",
            "|---|---|---|",
            *(f"| {statement} | {one} | {other} |" for (statement, one), (_, other) in zip(*apart, strict=True)),
            "",
            "Per distribution: the mean of infonce less the truth, its scatter over draws beside the root mean square of its "
            "standard errors, and how many draws were bracketed, trusted as a lower bound, or flagged.",
            "",
            "| | truth | draws | bias | scatter | standard error | bracketed | trusted | flagged |",
            "|---" * 9 + "|",
            *_by_distribution(all_of_size, CODE_VERSION),
        ]
    (FOLDER / "seeds.md").write_text("\n".join(page) + "\n")
    print(f"written to {FOLDER / 'seeds.md'}", flush=True)


def _checks(lines: Sequence[Json], ruled: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """What the estimators promise, and what was measured."""
    yield (
        f"no lower bound is above the truth, family-wise at {LEVEL:.0%}",
        _family([_errors_above(line, "infonce") for line in lines]),
    )
    scatters = [_scatter(draws) for draws in _draws(lines) if len(draws) >= LEAST_DRAWS]
    ratios = [scatter / stderr for _, scatter, stderr in scatters if stderr > 1e-3]
    measured = (
        f"median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}" if ratios else "too few draws"
    )
    yield "scatter over standard error of infonce is 1", measured
    upper = [line for line in ruled if line["estimates"]["leave_one_out"]["kind"] == "upper"]
    beneath = [-_errors_above(line, "leave_one_out") for line in upper]
    yield f"no upper bound that is borne out is beneath it, family-wise at {LEVEL:.0%}", _family(beneath)
    brackets = [line for line in ruled if line["bracket"] is not None]
    missed = [line for line in brackets if _missed(line)]
    yield (
        f"a bracket holds the truth within {WIDE:.0f} standard errors",
        f"{len(brackets) - len(missed)} of {len(brackets)}{_named(missed)}",
    )
    low = [line for line in ruled if _low(line)]
    unflagged = [line for line in low if line["estimates"]["infonce"]["caution"] is None]
    yield (
        f"what is low by more than {TOLERATED} nats, {TOLERATED:.0%} and {WIDE:.0f} standard errors is flagged",
        f"{len(low) - len(unflagged)} of {len(low)}{_named(unflagged)}",
    )
    right = [line for line in ruled if not _low(line)]
    trusted = [line for line in right if line["estimates"]["infonce"]["caution"] is None]
    yield "what is not, is trusted", f"{len(trusted)} of {len(right)}"


def _errors_above(line: Json, estimator: str) -> float:
    its = line["estimates"][estimator]
    return float((its["value"] - line["information"]) / max(its["stderr"], 1e-6))


def _family(excess: Sequence[float]) -> str:
    allowed = float(norm.isf(LEVEL / max(len(excess), 1)))
    beyond = sum(errors > allowed for errors in excess)
    said = "none" if beyond == 0 else f"{beyond}"
    return f"{said} of {len(excess)}; the farthest {max(excess, default=0):.2f} standard errors, {allowed:.2f} allowed"


def _low(line: Json) -> bool:
    its, truth = line["estimates"]["infonce"], line["information"]
    return bool(truth - its["value"] > max(TOLERATED, TOLERATED * truth, WIDE * its["stderr"]))


def _missed(line: Json) -> bool:
    lower, upper = line["bracket"]
    stderr = max(its["stderr"] for its in line["estimates"].values() if its["kind"] != "neither")
    return not lower - WIDE * stderr <= line["information"] <= upper + WIDE * stderr


def _named(lines: Sequence[Json]) -> str:
    counts = {line["name"]: sum(other["name"] == line["name"] for other in lines) for line in lines}
    return "".join(f"; {name} ({count})" for name, count in counts.items())


def _draws(lines: Sequence[Json]) -> Iterator[list[Json]]:
    for name in dict.fromkeys(line["name"] for line in sorted(lines, key=lambda line: (line["unseen"], line["name"]))):
        yield [line for line in lines if line["name"] == name]


def _scatter(draws: Sequence[Json]) -> tuple[float, float, float]:
    """Of infonce: its mean less the truth, its standard deviation, and the root mean square of its standard errors."""
    values = [line["estimates"]["infonce"]["value"] for line in draws]
    squares = [line["estimates"]["infonce"]["stderr"] ** 2 for line in draws]
    scatter = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.mean(values) - draws[0]["information"], scatter, math.sqrt(statistics.mean(squares))


def _by_distribution(lines: Sequence[Json], code: str) -> Iterator[str]:
    for draws in _draws(lines):
        first, ruled = draws[0], [line for line in draws if line["code"] == code]
        bias, scatter, stderr = _scatter(draws)
        flagged = sum(line["estimates"]["infonce"]["caution"] is not None for line in ruled)
        bracketed = sum(line["bracket"] is not None for line in ruled)
        name = first["name"] + (f" ({first['hard']})" if first["hard"] else "") + (", unseen" if first["unseen"] else "")
        errors = f"{bias:+.3f} | {scatter:.3f} | {stderr:.3f}"
        counts = f"{bracketed} | {len(ruled) - flagged} | {flagged}" if ruled else " | | "
        yield f"| {name} | {first['information']:.3f} | {len(draws)} | {errors} | {counts} |"


if __name__ == "__main__":
    main()

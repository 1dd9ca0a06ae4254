"""Counterfactuals against the truth of virtual patients whose equations the twin does not share.

Learns each of the patients of `glucose/uva_padova` from three noisy days, then answers the treatments of another day
(`cohort_counterfactuals`) through `twin.on`: late, half and early bolus minus bolus with the meal, for mean, peak, nadir and
time in range of plasma glucose. The embedded person of `make run` is a seventh: learned by the models of `make run` from the
three days lived, asked about the third (06:00 to 16:00), where the boluses came 12 minutes after breakfast and 5 before lunch.
Beside the pooled twin stand its single structures, the twin with independent sensor error, the prior alone and, for the six, the
cohort's average twin.

    python -m benchmarks.counterfactuals [--method nuts|laplace] [--temper 3] [--save out.json]
    python -m benchmarks.counterfactuals --json [--chirho-python PYTHON]      # how many worlds a second instead: throughput.py

`--patients FOLDER` asks of other patients instead, stored the same way (see `make_virtual_patients.py`).
"""

import argparse
import csv
import dataclasses
import functools
import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import hybridtwin as ht
from hybridtwin import demo
from hybridtwin.physiology import T1DMinimal, T1DTwoPool
from hybridtwin.twin import simulate_worlds

ARMS = ("late", "half", "early")
OUTCOMES = ("mean", "peak", "nadir", "time in range")
BIG = np.array([5.0, 5.0, 5.0, 3.0])  # mg/dL and points: effects whose sign counts


class Case(NamedTuple):
    """One person: the record to learn from, the worlds to ask about, and the truth."""

    record: ht.Person
    worlds: Callable  # a twin -> its worlds: bolus with the meal, then ARMS
    times: np.ndarray  # (N,) minutes of a world at which it is measured
    truth: np.ndarray  # (3, 4): ARMS minus bolus with the meal, by OUTCOMES


def folder() -> Path:
    """The shared data."""
    for place in (os.environ.get("HYBRIDTWIN_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        if place and (Path(place) / "glucose" / "uva_padova").exists():
            return Path(place) / "glucose" / "uva_padova"
    raise SystemExit("the folder glucose/uva_padova was not found: set HYBRIDTWIN_DATA")


def rows(path):
    """Rows of a CSV file, plain or gzipped."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return list(csv.DictReader(file))


def person_of(name, protocol, weight, readings=None, stop=None) -> ht.Person:
    """A record from the protocol of one run: meals, boluses, basal rate, and readings if there are any."""
    doses = {
        key: ht.Regimen.bolus(
            [e[amount] for e in protocol[events]], unit, at=[float(e["t_min"]) for e in protocol[events]]
        )
        for key, events, amount, unit in (("meal", "meals", "carbs_g", "g"), ("bolus", "boluses", "units", "[IU]"))
    }
    return ht.Person.of(
        name,
        start=0.0,
        stop=float(stop),
        time="min",
        doses=doses,
        signals={"basal": ht.Signal.constant(60 * protocol["basal_U_per_min"], "[IU]/h")},
        covariates={"weight": (weight, "kg")},
        readings=readings or {},
    )


def load(root):
    """id -> `Case` of each stored patient: noisy days to learn from, another day to be asked about."""
    weights = {r["Name"]: float(r["BW"]) for r in rows(root / "patient_parameters.csv")}
    noisy, days = (json.loads((root / f).read_text()) for f in ("noisy_cgm_inputs.json", "cohort_inputs.json"))
    cgm, plasma = {}, {}
    for r in rows(root / "noisy_cgm_3days.csv.gz"):
        cgm.setdefault(r["patient"], []).append((float(r["t_min"]), float(r["cgm_mg_per_dL"])))
    for r in rows(root / "cohort_counterfactuals.csv.gz"):
        plasma.setdefault((r["patient"], r["scenario"]), []).append(float(r["plasma_glucose_mg_per_dL"]))
    found = {}
    for name, protocol in noisy.items():
        t, y = np.array(cgm[name]).T
        learned = person_of(name, protocol, weights[name], {"cgm": (t, y, "mg/dL")}, stop=t[-1])
        days_of, answers = {}, []
        for arm in ("", *ARMS):
            scenario = f"three_meals_{arm}_bolus" if arm else "three_meals_bolus"
            day = days[f"{name}/{scenario}"]
            days_of[arm] = person_of(name, day, weights[name], stop=day["duration_min"])
            answers.append(measured(np.array(plasma[name, scenario])[:96]))
        truth = np.stack(answers[1:]) - answers[0]
        found[name] = Case(learned, functools.partial(other_day, days_of), np.arange(0.0, 1440.0, 15.0), truth)
    return found


def other_day(days, twin):
    """The worlds of a stored patient: the body on another day, and its boluses replaced."""
    base = twin.on(days[""], start="steady")
    return [base] + [base.do(bolus=days[arm].regimens["bolus"]) for arm in ARMS]


def embedded():
    """The embedded person as a `Case`: the third day as lived, and the interventions of `make run`."""
    person, truth = ht.datasets.virtual_adult(), ht.datasets.virtual_adult_truth()
    facts = {fact["name"]: fact for fact in ht.datasets.virtual_adult_facts()["interventions"]}
    start, stop = (person.clock.at(moment) for moment in demo.WINDOW)
    inside = (truth["time"] >= start) & (truth["time"] <= stop)
    lived = measured(truth["lived"][inside])
    return Case(
        person,
        lambda twin: [twin] + [demo.changed(twin, facts[arm]) for arm in ARMS],
        truth["time"][inside],
        np.stack([measured(truth[arm][inside]) - lived for arm in ARMS]),
    )


def measured(glucose):
    """The four outcomes of glucose (..., times): (..., 4)."""
    inside = 100 * np.mean((glucose >= 70) & (glucose <= 180), axis=-1)
    return np.stack([glucose.mean(-1), glucose.max(-1), glucose.min(-1), inside], axis=-1)


def contrasts_of(twin, case, *, prior=False):
    """Draws of the 12 contrasts of one twin: (draws, 3, 4), and the structure of each draw."""
    paths = simulate_worlds(case.worlds(twin), at=case.times, prior=prior, names=("G",))
    values = [measured(p["G"]) for p in paths]
    return np.stack([v - values[0] for v in values[1:]], axis=1), paths[0].structure


def score(draws, truth, big=BIG):
    """Signs, coverage, width, MAE and interval score of the 90 % intervals over all contrasts, whose last axis is outcomes."""
    names, low, middle, high = [], [], [], []
    for name in draws:
        q = np.nanquantile(draws[name], [0.05, 0.5, 0.95], axis=0)
        names.append(truth[name].ravel())
        for store, value in zip((low, middle, high), q, strict=True):
            store.append(value.ravel())
    true, low, middle, high = (np.concatenate(x) for x in (names, low, middle, high))
    big = np.abs(true) > np.tile(big, len(true) // len(big))
    miss = np.maximum(low - true, 0) + np.maximum(true - high, 0)
    return {
        "signs": float(100 * np.mean(np.sign(middle[big]) == np.sign(true[big]))),
        "coverage": float(100 * np.mean((true >= low) & (true <= high))),
        "width": float(np.mean(high - low)),
        "mae": float(np.mean(np.abs(middle - true))),
        "score": float(np.mean(high - low + 20 * miss)),
        "contrasts": len(true),
    }


def line(name, s):
    """One row of the table."""
    parts = "  ".join(f"{s[k]:5.{d}f}" for k, d in (("signs", 0), ("coverage", 0), ("width", 1), ("mae", 1), ("score", 1)))
    return f"{name:<42} {parts}"


def answer(models, cases, method, temper, key):
    """Personalize the cohort and answer: name -> (draws, structure), prior draws, verdicts, seconds."""
    started = time.monotonic()
    records = [case.record for case in cases.values()]
    if len(records) == 1:  # as a lone person is: a cohort's tiles have room for 32
        learned = [ht.personalize(models, records[0], method, key=key, temper=temper)]
    else:
        learned = ht.personalize(models, ht.Cohort(records), method, key=key, temper=temper).values()
    twins = dict(zip(cases, learned, strict=True))
    seconds = time.monotonic() - started
    found = {name: contrasts_of(twins[name], case) for name, case in cases.items()}
    prior = {name: contrasts_of(twins[name], case, prior=True)[0] for name, case in cases.items()}
    return found, prior, {name: twin.verdict.headline for name, twin in twins.items()}, seconds


def structures(**options):
    """The two structures; `options` are those of `Model` (start) and of the sensor (independent)."""
    start = options.pop("start")
    return [ht.Model(s, start=start, cgm=ht.sensors.CGM("G_isf", **options)) for s in (T1DMinimal(), T1DTwoPool())]


def table_of(pooled, prior, single):
    """Rows of the table, each name -> draws of everybody's contrasts."""
    table = {"pool of both": {name: d for name, (d, _) in pooled.items()}}
    for structure in ("T1DMinimal", "T1DTwoPool"):
        table[structure] = {name: d[s == structure] for name, (d, s) in pooled.items()}
    table["prior only (pool)"] = prior
    if len(pooled) > 1:  # of one person there are no others; and of one day no other's answers
        table["cohort average"] = {
            name: np.concatenate([d for other, (d, _) in pooled.items() if other != name]) for name in pooled
        }
    if single:
        table["T1DMinimal, independent error, temper 1"] = {name: d for name, (d, _) in single.items()}
    return table


def told(title, table, truth):
    """Print one part of the table; its scores."""
    results = {name: score(draws, truth) for name, draws in table.items()}
    print(f"{title:<42} signs  cov90  width    MAE  score")
    for name, s in results.items():
        print(line(name, s))
    for k, outcome in enumerate(OUTCOMES):
        part = score(
            {n: d[:, :, k : k + 1] for n, d in table["pool of both"].items()},
            {n: t[:, k : k + 1] for n, t in truth.items()},
            big=BIG[k : k + 1],
        )
        print(line(f"  pool, {outcome}", part))
        results[f"pool, {outcome}"] = part
    print(flush=True)
    return results


def one_by_one(draws, truth):
    """Print one person's contrasts, draws (draws, 3, 4) beside the truth (3, 4)."""
    for arm, some, true in zip(ARMS, np.moveaxis(draws, 1, 0), truth, strict=True):
        q = np.nanquantile(some, [0.5, 0.05, 0.95], axis=0).T
        cells = [f"{o} {m:+.0f} ({a:+.0f} to {b:+.0f}), {t:+.0f}" for o, (m, a, b), t in zip(OUTCOMES, q, true, strict=True)]
        print(f"  {arm:<6} twin (90 % interval), truth: " + "; ".join(cells))
    print(flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="auto", choices=["auto", "nuts", "laplace"])
    parser.add_argument("--temper", type=float, default=3.0)
    parser.add_argument("--start", default="steady", choices=["steady", "free"], help="of the six stored patients")
    parser.add_argument("--key", type=int, default=0)
    parser.add_argument(
        "--no-independent", action="store_true", help="leave out the twin with independent sensor error"
    )
    parser.add_argument("--only", choices=["embedded", "six"])
    parser.add_argument("--patients", metavar="FOLDER", help="other patients in place of all of these")
    parser.add_argument("--save", metavar="FILE", help="write the tables as JSON")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="throughput instead, JSON as the last line")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chirho-python", metavar="PYTHON", help="a Python that has chirho, for the throughput")
    given = parser.parse_args()
    if given.json:
        from benchmarks import throughput

        throughput.main(given)
        return
    nuts = ht.NUTS(draws=200, warmup=150, most=3)
    method = {"auto": ht.Auto(draws=800, most=3), "nuts": nuts, "laplace": ht.Laplace()}[given.method]
    parts, verdicts, results, spent = {}, {}, {}, {}
    asked = {"embedded": ("embedded person", "free"), "six": ("six stored patients", given.start)}
    if given.patients:
        asked = {"others": ("other patients", given.start)}
    for which, (title, start) in asked.items():
        if given.only not in (None, which):
            continue
        cases = {"embedded": embedded()} if which == "embedded" else load(Path(given.patients or folder()))
        pooled, prior, verdicts[title], spent[title] = answer(
            structures(start=start), cases, method, given.temper, given.key
        )
        single = {}
        if not given.no_independent:
            single, *_ = answer([structures(start=start, independent=True)[0]], cases, method, 1.0, given.key)
        parts[title] = table_of(pooled, prior, single), {name: case.truth for name, case in cases.items()}
        results[title] = told(title, *parts[title])
        if which == "embedded":
            one_by_one(parts[title][0]["pool of both"]["embedded"], parts[title][1]["embedded"])
    if len(parts) > 1:
        (own, own_truth), (six, six_truth) = parts.values()
        results["all seven"] = told("all seven", {row: six[row] | own[row] for row in own}, six_truth | own_truth)
    print(f"{type(method).__name__}, temper {given.temper:g}; seconds and verdicts: {json.dumps([spent, verdicts])}")
    if given.save:
        Path(given.save).write_text(
            json.dumps(
                {
                    "results": results,
                    "verdicts": verdicts,
                    "seconds": spent,
                    "method": dataclasses.asdict(method),
                    "temper": given.temper,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()

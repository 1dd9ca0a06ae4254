"""Counterfactuals against the truth of virtual patients whose equations the twin does not share.

Learns each of the patients of `glucose/uva_padova` from three noisy days, then answers the treatments of another day
(`cohort_counterfactuals`) through `twin.on`: late, half and early bolus minus bolus with the meal, for mean, peak, nadir and
time in range of plasma glucose. Beside the pooled twin stand its single structures, the twin with independent sensor error, the
prior alone and the cohort's average twin.

    python benchmarks/counterfactuals.py [--method nuts|laplace] [--temper 3] [--json out.json]
"""

import argparse
import csv
import dataclasses
import gzip
import json
import os
import time
from pathlib import Path

import numpy as np

import hybridtwin as ht
from hybridtwin.physiology import T1DMinimal, T1DTwoPool
from hybridtwin.twin import simulate_worlds

ARMS = ("late", "half", "early")
OUTCOMES = ("mean", "peak", "nadir", "time in range")


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
    """id -> (record of the noisy days, arm -> record of the other day, arm -> true plasma glucose (96,))."""
    weights = {r["Name"]: float(r["BW"]) for r in rows(root / "patient_parameters.csv")}
    noisy, days = (json.loads((root / f).read_text()) for f in ("noisy_cgm_inputs.json", "cohort_inputs.json"))
    cgm, truth = {}, {}
    for r in rows(root / "noisy_cgm_3days.csv.gz"):
        cgm.setdefault(r["patient"], []).append((float(r["t_min"]), float(r["cgm_mg_per_dL"])))
    for r in rows(root / "cohort_counterfactuals.csv.gz"):
        truth.setdefault((r["patient"], r["scenario"]), []).append(
            (float(r["t_min"]), float(r["plasma_glucose_mg_per_dL"]))
        )
    found = {}
    for name, protocol in noisy.items():
        t, y = np.array(cgm[name]).T
        learned = person_of(name, protocol, weights[name], {"cgm": (t, y, "mg/dL")}, stop=t[-1])
        arms, answers = {}, {}
        for arm in ("", *ARMS):
            scenario = f"three_meals_{arm}_bolus" if arm else "three_meals_bolus"
            day = days[f"{name}/{scenario}"]
            arms[arm] = person_of(name, day, weights[name], stop=day["duration_min"])
            answers[arm] = np.array(truth[name, scenario])
        found[name] = (learned, arms, answers)
    return found


def measured(glucose):
    """The four outcomes of glucose (..., times): (..., 4)."""
    inside = 100 * np.mean((glucose >= 70) & (glucose <= 180), axis=-1)
    return np.stack([glucose.mean(-1), glucose.max(-1), glucose.min(-1), inside], axis=-1)


def contrasts_of(twin, arms, *, prior=False):
    """Draws of the 12 contrasts of one twin: (draws, 3, 4), and the structure of each draw."""
    times = np.arange(0.0, 1440.0, 15.0)
    base = twin.on(arms[""], start="steady")
    worlds = [base] + [base.do(bolus=ht_regimen(arms[arm])) for arm in ARMS]
    paths = simulate_worlds(worlds, at=times, prior=prior, names=("G",))
    values = [measured(p["G"]) for p in paths]
    return np.stack([v - values[0] for v in values[1:]], axis=1), paths[0].structure


def ht_regimen(person):
    """The boluses of a record as a regimen, for `do`."""
    return person.regimens["bolus"]


def score(draws, truth):
    """Signs, coverage, width, MAE and interval score of the 90 % intervals over all contrasts."""
    names, low, middle, high = [], [], [], []
    for name in draws:
        q = np.nanquantile(draws[name], [0.05, 0.5, 0.95], axis=0)
        names.append(truth[name].ravel())
        for store, value in zip((low, middle, high), q, strict=True):
            store.append(value.ravel())
    true, low, middle, high = (np.concatenate(x) for x in (names, low, middle, high))
    big = np.abs(true) > np.tile([5, 5, 5, 3], len(true) // 4)
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


def answer(models, data, method, temper, key):
    """Personalize the cohort and answer: name -> (draws, structure), prior draws, verdicts, seconds."""
    started = time.monotonic()
    twins = ht.personalize(
        models, ht.Cohort([learned for learned, _, _ in data.values()]), method, key=key, temper=temper
    )
    seconds = time.monotonic() - started
    found = {name: contrasts_of(twins[name], arms) for name, (_, arms, _) in data.items()}
    prior = {name: contrasts_of(twins[name], arms, prior=True)[0] for name, (_, arms, _) in data.items()}
    return found, prior, {name: twins[name].verdict.headline for name in data}, seconds


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="auto", choices=["auto", "nuts", "laplace"])
    parser.add_argument("--temper", type=float, default=3.0)
    parser.add_argument("--start", default="steady", choices=["steady", "free"])
    parser.add_argument("--key", type=int, default=0)
    parser.add_argument(
        "--no-independent", action="store_true", help="leave out the twin with independent sensor error"
    )
    parser.add_argument("--json")
    given = parser.parse_args()
    data = load(folder())
    truth = {
        name: np.stack([measured(answers[arm][:96, 1]) - measured(answers[""][:96, 1]) for arm in ARMS])
        for name, (_, _, answers) in data.items()
    }
    nuts = ht.NUTS(draws=200, warmup=150, most=3)
    method = {"auto": ht.Auto(draws=800, most=3), "nuts": nuts, "laplace": ht.Laplace()}[given.method]

    def models(**options):
        sensor = ht.sensors.CGM("G_isf", **options)
        return [ht.Model(s, start=given.start, cgm=sensor) for s in (T1DMinimal(), T1DTwoPool())]

    pooled, prior, verdicts, seconds = answer(models(), data, method, given.temper, given.key)
    table = {"pool of both": {name: d for name, (d, _) in pooled.items()}}
    for structure in ("T1DMinimal", "T1DTwoPool"):
        table[structure] = {name: d[s == structure] for name, (d, s) in pooled.items()}
    table["prior only (pool)"] = prior
    table["cohort average"] = {
        name: np.concatenate([d for other, (d, _) in pooled.items() if other != name]) for name in data
    }
    if not given.no_independent:
        single, *_ = answer([models(independent=True)[0]], data, method, 1.0, given.key)
        table["T1DMinimal, independent error, temper 1"] = {name: d for name, (d, _) in single.items()}
    results = {name: score(draws, truth) for name, draws in table.items()}
    print(f"{'twin':<42} signs  cov90  width    MAE  score")
    for name, s in results.items():
        print(line(name, s))
    for k, outcome in enumerate(OUTCOMES):
        part = score(
            {n: d[:, :, k : k + 1].repeat(4, axis=2) for n, d in table["pool of both"].items()},
            {n: t[:, k : k + 1].repeat(4, axis=1) for n, t in truth.items()},
        )
        print(line(f"  pool, {outcome}", part))
    print(
        f"{len(data)} patients, {type(method).__name__}, temper {given.temper:g}, personalized in {seconds:.0f} s; verdicts: "
        + ", ".join(f"{n} {v}" for n, v in verdicts.items())
    )
    if given.json:
        Path(given.json).write_text(
            json.dumps(
                {
                    "results": results,
                    "verdicts": verdicts,
                    "seconds": seconds,
                    "method": dataclasses.asdict(method),
                    "temper": given.temper,
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()

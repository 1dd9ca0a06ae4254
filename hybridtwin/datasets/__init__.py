"""Recordings to try a twin on.

Embedded: one virtual adult with type 1 diabetes, with the simulator's own answers to four treatments. Real, found in
`$HYBRIDTWIN_DATA`, then in `../shared/data`, then fetched from their public source: two drug studies (theophylline,
warfarin) and two recordings of life with type 1 diabetes (Shanghai, D1NAMO).
"""

import csv
import dataclasses
import json
from datetime import datetime

import numpy as np

from hybridtwin.datasets import files
from hybridtwin.datasets.files import Rows
from hybridtwin.datasets.recordings import d1namo, shanghai_t1d
from hybridtwin.records import Cohort, Person
from hybridtwin.signals import Regimen, Signal

__all__ = ["d1namo", "shanghai_t1d", "theophylline", "virtual_adult", "virtual_adult_facts", "virtual_adult_truth",
           "warfarin"]  # fmt: skip

_HERE = files._PACKAGE
_THEOPH = ("vincentarelbundock/Rdatasets", "e38552ac3cb40a532941b09d7332b03d19409919", "csv/datasets/Theoph.csv",
           "330662e4c3b4863203f30506cc12b675e13da83a8d8773c6d0b472b0cc46b25e")  # fmt: skip


def virtual_adult() -> Person:
    """Three days of a virtual adult with type 1 diabetes: cgm (mg/dL), meal (g), bolus ([IU]), basal ([IU]/h), weight.

    Made by `benchmarks/make_embedded_person.py` with the UVA/Padova simulator of 2008 (simglucose 0.2.11), whose
    equations hybridtwin does not share. Day 3, 2026-03-11 in Europe/Rome, is the day the demo asks about.
    """
    facts = virtual_adult_facts()
    with open(_HERE / "virtual_adult.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {name: [row[name] for row in rows] for name in rows[0]}
    person = Person.from_csv(table, units=facts["units"], tz=facts["tz"], id=facts["id"])
    weight = Signal.constant(*facts["covariates"]["weight"])
    return dataclasses.replace(person, covariates={"weight": weight.resolve(person.clock, "min", "kg")})


def virtual_adult_truth() -> dict[str, np.ndarray]:
    """The simulator's plasma glucose on day 3 under five treatments, without noise.

    time: (288,) minutes since the first row of the record; every other key is a world of `virtual_adult_facts`
    ("lived", "early", "late", "half", "small_meals"): (288,) mg/dL.
    """
    start = datetime.fromisoformat(virtual_adult_facts()["start"])
    rows = files.read(_HERE / "virtual_adult_truth.csv")
    truth = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "time"}
    minutes = [(datetime.fromisoformat(row["time"]) - start).total_seconds() / 60 for row in rows]
    return {"time": np.array(minutes), **truth}


def virtual_adult_facts() -> dict:
    """What is known of the virtual adult: id, tz, units, body weight, provenance, and the interventions of the truth.

    Each intervention names target, `do` (as on the command line), shift_min, times, start and stop; events whose lived
    time lies in [start, stop) are changed.
    """
    return json.loads((_HERE / "virtual_adult.json").read_text())


def theophylline() -> Cohort:
    """Twelve adults after one oral dose of theophylline, eleven samples each: C (mg/L), dose oral (mg), weight (kg).

    Time in h from the dose. Source: Boeckmann, Sheiner and Beal 1994 (R `datasets::Theoph`).
    """
    people: dict[str, Rows] = {}
    for row in files.rows("pkpd/theophylline.csv", _fetch_theophylline):
        people.setdefault(row["id"], []).append(row)
    return Cohort(_theophylline(name, rows) for name, rows in people.items())


def _theophylline(name: str, rows: Rows) -> Person:
    times = [float(row["time_h"]) for row in rows]
    weight, dose = float(rows[0]["wt_kg"]), float(rows[0]["dose_mg_per_kg"])
    return Person.of(
        name,
        start=0.0,
        stop=max(times),
        time="h",
        doses={"oral": Regimen.bolus(weight * dose, "mg", at=0.0)},
        covariates={"weight": (weight, "kg")},
        readings={"C": (times, [float(row["conc_mg_per_L"]) for row in rows], "mg/L")},
    )


def _fetch_theophylline() -> Rows:
    return [
        {
            "id": row["Subject"],
            "wt_kg": row["Wt"],
            "dose_mg_per_kg": row["Dose"],
            "time_h": row["Time"],
            "conc_mg_per_L": row["conc"],
        }
        for row in files.read(files.download(*_THEOPH))
    ]


def warfarin() -> Cohort:
    """Thirty-two people after one oral dose of warfarin: cp (mg/L), pca (prothrombin complex activity, %), oral (mg).

    Covariates weight (kg), age (a), sex (1 is male). Time in h from the dose. Source: O'Reilly 1963 and 1968, as in
    nlmixr2data `warfarin.rda`, an R file that is not read here: without a local copy in CSV an error says so.
    """
    people: dict[str, Rows] = {}
    for row in files.rows("pkpd/warfarin_pkpd.csv", _fetch_warfarin):
        people.setdefault(row["id"], []).append(row)
    return Cohort(_warfarin(name, rows) for name, rows in people.items())


def _warfarin(name: str, rows: Rows) -> Person:
    given = [(float(row["time_h"]), float(row["amt_mg"])) for row in rows if row["evid"] == "1"]
    seen = [row for row in rows if row["evid"] == "0"]
    units = {"cp": "mg/L", "pca": "%"}
    readings = {}
    for quantity, unit in units.items():
        own = [row for row in seen if row["dvid"] == quantity]
        if own:
            readings[quantity] = ([float(row["time_h"]) for row in own], [float(row["dv"]) for row in own], unit)
    times, amounts = zip(*given, strict=True)
    first = rows[0]
    return Person.of(
        name,
        start=0.0,
        stop=max(float(row["time_h"]) for row in rows),
        time="h",
        readings=readings,
        doses={"oral": Regimen.bolus(list(amounts), "mg", at=list(times))},
        covariates={
            "weight": (float(first["wt_kg"]), "kg"),
            "age": (float(first["age_y"]), "a"),
            "sex": (float(first["sex"] == "male"), "1"),
        },
    )


def _fetch_warfarin() -> Rows:
    raise files.absent(
        "the public source of warfarin is an R file, data/warfarin.rda of nlmixr2/nlmixr2data at commit f7bd1f7b1b89; "
        "write it from R as CSV with columns id,time_h,amt_mg,dv,dvid,evid,wt_kg,age_y,sex",
        "pkpd/warfarin_pkpd.csv",
    )

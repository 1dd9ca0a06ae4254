"""Recordings of people with type 1 diabetes: sensor glucose, insulin, and meals whose carbohydrate nobody measured.

Every meal has an unknown amount with a prior made from what was written (weighed food, energy); it is latent, never 0.
Nobody wrote down body weights: they are taken as 65 kg, which the record says in a note; the volumes of a model that
scale with weight take up the error.
"""

import dataclasses
import re
from datetime import datetime

import numpy as np

from hybridtwin.clock import Clock
from hybridtwin.datasets import files, foods
from hybridtwin.datasets.files import Rows
from hybridtwin.records import Cohort, Note, Person, Series
from hybridtwin.signals import Dose, Regimen, Signal

_WEIGHT = 65.0  # kg
_LONG = ("glargine", "detemir", "degludec")
_PREMIXED = {"30R": 0.3, "50R": 0.5}  # share of regular insulin, the rest is NPH
_PUMP_GAP = 12 * 60.0  # min without a pump entry after which a long-acting injection means the pump is gone
_BACK = 6 * 60.0  # min before the first pump entry to which its rate is carried back

_SHANGHAI = ("SEMedical/DAM_CGM_Prediction", "7f65b6844ee56e7e7b8a3af10b3a1ddb82134a8a", "data_set/Shanghai_T1DM/")
_SESSIONS = ("1001_0_20210730", "1002_0_20210504", "1002_1_20210521", "1002_2_20210909", "1003_0_20210831",
             "1004_0_20210425", "1005_0_20210522", "1006_0_20210114", "1006_1_20210209", "1006_2_20210303",
             "1007_0_20210726", "1008_0_20210713")  # fmt: skip
_SHANGHAI_COLUMNS = (
    "time",
    "cgm_mg_per_dL",
    "cbg_mg_per_dL",
    "ketone_mmol_per_L",
    "diet_text",
    "diet_text_zh",
    "insulin_sc_text",
    "oral_agents_text",
    "csii_bolus_IU",
    "csii_basal_IU_per_h",
    "insulin_iv_text",
)
_SHANGHAI_CONTENT = ("patient", "session", "time", "cgm_mg_per_dL", "csii_bolus_IU", "csii_basal_IU_per_h")
_SHANGHAI_SHA = "8f3e8d186d51c8991a5be8ae78739687b6e42f6afcd3c80d236ee70fb13c3f1f"

_D1NAMO = ("moeinsamadi/Glucovision", "c2570895f03e89dc644e588a64e5578cba9cf3c6",
           "diabetes_subset_pictures-glucose-food-insulin/")  # fmt: skip
_D1NAMO_PEOPLE = ("001", "002", "004", "006")
_D1NAMO_CONTENT = {
    "glucose": (
        ("patient", "time", "glucose_mmol_per_L"),
        "c5c191949c9059c9419efafe7bd2c42c8e037deca11b46fd3b64f5ccddf689e8",
    ),
    "insulin": (
        ("patient", "time", "fast_insulin_IU", "slow_insulin_IU"),
        "7f403901d626987dc361bbc2f31f6da90bfcb4727747df3bea3f63325f6c1aef",
    ),
    "food": (("patient", "time", "energy_kcal"), "287bf25c1ecd694ed92a330e04340f8a472dc1552f5896efa9e1349aaafaf369"),
}


def shanghai_t1d() -> Cohort:
    """Eight adults with type 1 diabetes in a Shanghai hospital: twelve recordings of 4 to 14 days, "1001-0", ...

    cgm (mg/dL every 15 min, at or below 39.6 is "below 40"), fingerstick (mg/dL), meal (g, latent), bolus and
    long_acting ([IU], with product), basal ([IU]/h, pump). Regular human insulin counts as bolus; premixed insulin is
    split. Each recording of a person is a record of its own: months lie between them. Some took acarbose or voglibose,
    which slow absorption; insulin in intravenous drips is left out and noted.

    Source: Zhao 2023, Sci Data 10:35, doi:10.1038/s41597-023-01940-7 (CC BY 4.0).
    """
    table = files.rows("glucose/shanghai_t1dm.csv.gz", _fetch_shanghai)
    path = files.local("glucose/shanghai_t1dm_patients.csv")
    facts = {row["person_id"]: row for row in files.read(path)} if path else {}
    sessions: dict[tuple[str, str], Rows] = {}
    for row in table:
        sessions.setdefault((row["patient"], row["session"]), []).append(row)
    people = [
        _shanghai(f"{patient}-{session}", rows, facts.get(patient, {})) for (patient, session), rows in sessions.items()
    ]
    return Cohort(people)


def d1namo() -> Cohort:
    """Four adults with type 1 diabetes, four to five days of ordinary life in Switzerland: "001", "002", "004", "006".

    cgm (mg/dL every 5 min, below 40 and above 400 censored), fingerstick (mg/dL), meal (g, latent: 45 % of the energy
    seen in a photograph), bolus (rapid) and long_acting ([IU]). Basal insulin is injected, there is no pump ("006"
    wrote down none). Many snacks were not written down.

    Source: Dubosson 2018, doi:10.1016/j.imu.2018.09.003 (CC BY-SA 4.0).
    """
    tables = {
        part: files.rows(
            f"glucose/d1namo_{part}.csv" + ".gz" * (part == "glucose"), lambda part=part: _fetch_d1namo(part)
        )
        for part in _D1NAMO_CONTENT
    }
    return Cohort(
        _d1namo(name, {part: [row for row in rows if row["patient"] == name] for part, rows in tables.items()})
        for name in _D1NAMO_PEOPLE
    )


# ----------------------------------------------------------------------------------------------- records


@dataclasses.dataclass
class _Diary:
    """What the rows of one recording say; times are minutes since its first row."""

    cgm: list = dataclasses.field(default_factory=list)
    fingerstick: list = dataclasses.field(default_factory=list)
    meal: list = dataclasses.field(default_factory=list)
    bolus: list = dataclasses.field(default_factory=list)
    long_acting: list = dataclasses.field(default_factory=list)
    pump: list = dataclasses.field(default_factory=list)
    covariates: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)

    def seen(self, text: str, column: str | None = None, remedy: str = "", kind: str = "seen"):
        self.notes.append(Note(kind, text, column=column, remedy=remedy))


def _shanghai(name: str, rows: Rows, facts: dict[str, str]) -> Person:
    origin = datetime.fromisoformat(rows[0]["time"])
    diary = _Diary(covariates=_facts(facts))
    for row in rows:
        t = (datetime.fromisoformat(row["time"]) - origin).total_seconds() / 60
        if row["cgm_mg_per_dL"]:
            diary.cgm.append((t, float(row["cgm_mg_per_dL"])))
        if row["cbg_mg_per_dL"]:
            diary.fingerstick.append((t, float(row["cbg_mg_per_dL"])))
        if row["diet_text"] and (prior := foods.described(row["diet_text"])):
            diary.meal.append(Dose(t, None, prior=prior))
        if row["csii_bolus_IU"] and float(row["csii_bolus_IU"]) > 0:
            diary.bolus.append(Dose(t, float(row["csii_bolus_IU"]), product="pump"))
        if row["csii_basal_IU_per_h"]:
            diary.pump.append((t, float(row["csii_basal_IU_per_h"])))
        for kind, amount, product in injections(row["insulin_sc_text"] or ""):
            getattr(diary, kind).append(Dose(t, amount, product=product))
        if row["insulin_iv_text"]:
            text = f"insulin in a drip at {row['time']}: {row['insulin_iv_text']}"
            diary.seen(text, "insulin_iv_text", "Read the hours after it with care", kind="left out")
    agents = sorted({re.sub(r"[ ,].*", "", row["oral_agents_text"]) for row in rows if row["oral_agents_text"]})
    if agents:
        diary.seen(f"oral drugs: {', '.join(agents)}; they slow the absorption of carbohydrate", "oral_agents_text")
    stop = (datetime.fromisoformat(rows[-1]["time"]) - origin).total_seconds() / 60
    return _person(name, Clock(origin, "Asia/Shanghai", "min"), stop, diary, high=None)


def _d1namo(name: str, tables: dict[str, Rows]) -> Person:
    moments = [datetime.fromisoformat(row["time"]) for rows in tables.values() for row in rows]
    # The diary begins before the sensor: what was eaten and injected on the morning before still acts.
    origin = min(moments).replace(second=0)

    def minute(row):
        return (datetime.fromisoformat(row["time"]) - origin).total_seconds() / 60

    diary = _Diary()
    for row in tables["glucose"]:
        column = diary.cgm if row["source"] == "cgm" else diary.fingerstick
        column.append((minute(row), round(float(row["glucose_mmol_per_L"]) * 18.0156, 2)))
    diary.meal += [Dose(minute(row), None, prior=foods.energy(float(row["energy_kcal"]))) for row in tables["food"]]
    for row in tables["insulin"]:
        if row["fast_insulin_IU"] and float(row["fast_insulin_IU"]) > 0:
            diary.bolus.append(Dose(minute(row), float(row["fast_insulin_IU"]), product="rapid"))
        if row["slow_insulin_IU"] and float(row["slow_insulin_IU"]) > 0:
            diary.long_acting.append(Dose(minute(row), float(row["slow_insulin_IU"]), product="long-acting"))
    diary.seen("carbohydrate is a guess from the energy of photographed food (45 %, log-sd 0.6)", "energy_kcal")
    if not diary.long_acting:
        text = "no long-acting insulin was written down and there is no pump"
        diary.seen(text, "slow_insulin_IU", "Glucose at rest then stands for the basal insulin that is not known")
    stop = (max(moments) - origin).total_seconds() / 60
    return _person(name, Clock(origin, "Europe/Zurich", "min"), stop, diary, high=400.0)


def _person(name: str, clock: Clock, stop: float, diary: _Diary, high: float | None) -> Person:
    """The record of a diary; the sensor prints at least 40 mg/dL (2.2 mmol/L is below) and at most `high`."""
    times, values = np.array(sorted(diary.cgm)).T
    above = values >= (np.inf if high is None else high - 0.1)
    censored = above.astype(int) - (values < 40.0)
    limit = np.where(censored < 0, 40.0, np.where(above, high or np.nan, np.nan))
    readings = {"cgm": Series.of(times, np.where(censored, limit, values), "mg/dL", censored=censored, limit=limit)}
    if diary.fingerstick:
        readings["fingerstick"] = (*zip(*diary.fingerstick, strict=True), "mg/dL")
    diary.seen(f"body weight was not recorded; {_WEIGHT:g} kg is assumed", "weight")
    signals = {"basal": _pump(diary, clock)} if diary.pump else {}
    doses = {"meal": (diary.meal, "g"), "bolus": (diary.bolus, "[IU]"), "long_acting": (diary.long_acting, "[IU]")}
    person = Person.of(
        name,
        start=0.0,
        stop=stop,
        time=clock,
        doses={kind: Regimen(tuple(given), unit, "min") for kind, (given, unit) in doses.items()},
        readings=readings,
        signals=signals,
        covariates={"weight": (_WEIGHT, "kg"), **diary.covariates},
    )
    return dataclasses.replace(person, notes=(*person.notes, *diary.notes))


def _pump(diary: _Diary, clock: Clock) -> Signal:
    """The pump's basal rate; a rate holds until the next entry, or until long-acting insulin takes over."""
    first, rate = diary.pump[0]
    knots = dict(diary.pump)
    knots.setdefault(0.0, rate if first <= _BACK else 0.0)
    entries, off = [t for t, _ in diary.pump], -1.0
    for dose in diary.long_acting:
        last = max((t for t in entries if t <= dose.time), default=None)
        if last is None or off >= last or (dose.time - last <= _PUMP_GAP and last != entries[-1]):
            continue
        knots[dose.time], off = 0.0, dose.time
        text = f"the pump is taken as off from {clock.label(dose.time)}, when long-acting insulin was injected"
        diary.seen(text, "csii_basal_IU_per_h", "Give the pump's basal rates if they are known")
    times, values = zip(*sorted(knots.items()), strict=True)
    return Signal.steps(times, values, "[IU]/h")


def _facts(facts: dict[str, str]) -> dict[str, tuple[float, str]]:
    """Age, sex (1 is male) and HbA1c as covariates."""
    if not facts:
        return {}
    return {
        "age": (float(facts["age"]), "a"),
        "sex": (float(facts["gender"] == "male"), "1"),
        "hba1c": (float(facts["hba1c_%"]), "%"),
    }


def injections(text: str) -> list[tuple[str, float, str]]:
    """(input, [IU], product) of each injection in "Humulin R, 2 IU, insulin degludec, 12 IU"."""
    found = []
    for product, amount in re.findall(r"([A-Za-z][A-Za-z0-9 ]*?),?\s+(\d+(?:\.\d+)?)\s*IU", text):
        product, amount = product.strip(), float(amount)
        regular = next((value for mark, value in _PREMIXED.items() if mark in product), None)
        if any(word in product for word in _LONG):
            found.append(("long_acting", amount, product))
        elif regular is not None:
            found += [("bolus", amount * regular, product), ("long_acting", amount * (1 - regular), product)]
        else:
            found.append(("bolus", amount, product))
    return found


# ------------------------------------------------------------------------------------------- public sources


def _fetch_shanghai() -> Rows:
    repository, commit, folder = _SHANGHAI
    table = []
    for session in _SESSIONS:
        name = f"processed_{session}.csv" if session.startswith("1001") else f"processed_{session}.xlsx.csv"
        patient, number, _ = session.split("_")
        table += shanghai_rows(files.download(repository, commit, folder + name).read_text(), patient, number)
    return files.checked(table, _SHANGHAI_CONTENT, _SHANGHAI_SHA, repository)


def shanghai_rows(text: str, patient: str, session: str) -> Rows:
    """One file of the source (by the position of its eleven columns) in the columns of the shared table."""
    import csv
    import io

    rows = []
    for cells in list(csv.reader(io.StringIO(text)))[1:]:
        row = dict(zip(_SHANGHAI_COLUMNS, cells, strict=False)) | {"patient": patient, "session": session}
        row["diet_text"] = re.sub(r"\s*\n\s*", "; ", row["diet_text"])
        stopped = any("suspend" in row[name].lower() for name in ("csii_bolus_IU", "csii_basal_IU_per_h"))
        for name in ("csii_bolus_IU", "csii_basal_IU_per_h"):
            row[name] = "" if "suspend" in row[name].lower() else row[name]
        if stopped:
            row["csii_basal_IU_per_h"] = "0"
        rows.append(row)
    return rows


def _fetch_d1namo(part: str) -> Rows:
    repository, commit, folder = _D1NAMO
    columns, digest = _D1NAMO_CONTENT[part]
    table = [
        row
        for name in _D1NAMO_PEOPLE
        for row in d1namo_rows(part, files.read(files.download(repository, commit, f"{folder}{name}/{part}.csv")), name)
    ]
    return files.checked(table, columns, digest, repository)


def d1namo_rows(part: str, rows: Rows, name: str) -> Rows:
    """One file of the source in the columns of the shared tables."""
    if part == "glucose":
        return [
            {
                "patient": name,
                "time": f"{row['date']} {row['time']}",
                "glucose_mmol_per_L": row["glucose"],
                "source": row["type"],
            }
            for row in rows
            if row["glucose"]
        ]
    if part == "insulin":
        return [
            {
                "patient": name,
                "time": f"{row['date']} {row['time']}",
                "fast_insulin_IU": row["fast_insulin"],
                "slow_insulin_IU": row["slow_insulin"],
            }
            for row in rows
        ]
    return [
        {
            "patient": name,
            "time": re.sub(r"^(\d+):(\d+):(\d+)", r"\1-\2-\3", row["datetime"]),
            "description": row["description"],
            "energy_kcal": row["calories"],
        }
        for row in rows
        if row["datetime"]
    ]

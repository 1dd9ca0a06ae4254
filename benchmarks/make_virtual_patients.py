"""Write more virtual patients for `benchmarks/counterfactuals.py`: the other 23 of the package simglucose.

The shared data hold noisy days of six virtual patients, and `make run` shows a seventh. What holds for these must hold for
others of their kind, so this writes a folder of the same form, by the rules read off the stored one (three days of three meals
and sometimes a snack, boluses 10 minutes early to 15 late and 70 to 120 % of what the carbohydrates ask, the sensor "Dexcom",
then the four treatments of one day), with the PyPI package `simglucose` (MIT). Fourteen of them were among the fifteen on
which the center of one prior was chosen (docs/design.md); those numbered 8 to 10 no one here had looked at: `--new` writes
these nine alone.

    python3 -m venv /tmp/sg && /tmp/sg/bin/pip install "setuptools<80" simglucose==0.2.11
    /tmp/sg/bin/python benchmarks/make_virtual_patients.py FOLDER [--new]
    python -m benchmarks.counterfactuals --patients FOLDER
"""

import csv
import gzip
import importlib.util
import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_embedded_person import import_simglucose

SEEN = {"adult#001", "adult#004", "adolescent#003", "adolescent#005", "child#002", "child#006", "adult#003"}
DAY, DAYS = 1440, 3
MEALS = {"adult": (45.0, 70.0, 60.0), "adolescent": (45.0, 70.0, 60.0), "child": (25.0, 40.0, 35.0)}  # g, of the day asked about
TIMES = (420, 720, 1080)  # min
ARMS = {"": (0, 1.0), "late_": (60, 1.0), "half_": (0, 0.5), "early_": (-20, 1.0)}  # minutes, and times
LIVED = {"adult": ((25, 70), (45, 90), (70, 100), (8, 30)), "child": ((12, 35), (30, 45), (38, 55), (7, 20))}  # g


def prepared(name, basal):
    """A patient of the package whose constants are plain attributes: a pandas row is most of the run time."""
    patient_class, action, sensor_class = import_simglucose()
    patient = patient_class.withName(name)
    patient._params = SimpleNamespace(**patient._params.to_dict())
    return patient, action, sensor_class


def run(name, protocol, minutes, sensor_seed=None):
    """Plasma glucose and insulin every 15 minutes; readings and true values at the sensor's own times."""
    patient, action, sensor_class = prepared(name, protocol["basal_U_per_min"])
    sensor = sensor_class.withName("Dexcom", seed=sensor_seed) if sensor_seed is not None else None
    meals = {m["t_min"]: m["carbs_g"] for m in protocol["meals"]}
    boluses = {b["t_min"]: b["units"] for b in protocol["boluses"]}
    params, plasma, readings = patient._params, [], []
    for minute in range(minutes):
        if minute % 15 == 0:
            plasma.append((minute, patient.state[3] / params.Vg, patient.state[12] / params.Vg, patient.state[5] / params.Vi))
        if sensor is not None and minute % int(sensor.sample_time) == 0:
            readings.append((minute, sensor.measure(patient), patient.state[12] / params.Vg))
        patient.step(
            action(CHO=meals.get(minute, 0.0), insulin=protocol["basal_U_per_min"] + boluses.get(minute, 0.0))
        )
    return plasma, readings


def lived(name, ratio, basal, seed):
    """Three days as a patient might live them."""
    chance, meals, boluses = random.Random(seed), [], []
    sizes = LIVED["child" if name.startswith("child") else "adult"]
    for day in range(DAYS):
        for middle, (least, most) in zip((*TIMES, 1290), sizes, strict=True):
            if middle == 1290 and chance.random() < 0.5:
                continue
            at, grams = day * DAY + middle + chance.randint(-45, 45), float(chance.randint(least, most))
            units = round(chance.uniform(0.7, 1.2) * grams / ratio, 2)
            meals.append({"t_min": at, "carbs_g": grams})
            boluses.append({"t_min": at + chance.choice((-10, 0, 15)), "units": units})
    return {"basal_U_per_min": basal, "meals": meals, "boluses": boluses, "sensor": "Dexcom", "sensor_seed": seed}


def everything(job):
    """All that is told of one patient."""
    name, ratio, seed = job
    patient, *_ = prepared(name, 0.0)
    basal = float(patient._params.u2ss * patient._params.BW / 6000)
    noisy = lived(name, ratio, basal, seed)
    _, readings = run(name, noisy, DAYS * DAY, seed)
    days, paths = {}, {}
    grams = MEALS[name.split("#")[0]]
    for arm, (later, times) in ARMS.items():
        days[arm] = {
            "duration_min": DAY,
            "meals": [{"t_min": t, "carbs_g": g} for t, g in zip(TIMES, grams, strict=True)],
            "boluses": [{"t_min": t + later, "units": times * g / ratio} for t, g in zip(TIMES, grams, strict=True)],
            "basal_U_per_min": basal,
        }
        paths[arm], _ = run(name, days[arm], DAY)
    return name, float(patient._params.BW), noisy, readings, days, paths


def main():
    """Write the folder."""
    import_simglucose()
    out, new = Path(sys.argv[1]), "--new" in sys.argv
    out.mkdir(parents=True, exist_ok=True)
    quest = Path(importlib.util.find_spec("simglucose").origin).parent / "params" / "Quest.csv"
    with open(quest) as file:
        ratios = {row["Name"]: float(row["CR"]) for row in csv.DictReader(file)}
    jobs = [(name, ratio, 200 + k) for k, (name, ratio) in enumerate(ratios.items()) if name not in SEEN]
    jobs = [job for job in jobs if not new or int(job[0].split("#")[1]) >= 8]
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(everything, jobs))
    with open(out / "patient_parameters.csv", "w", newline="") as file:
        csv.writer(file).writerows([("Name", "BW"), *((name, weight) for name, weight, *_ in found)])
    (out / "noisy_cgm_inputs.json").write_text(json.dumps({f[0]: f[2] for f in found}))
    days = {f"{f[0]}/three_meals_{arm}bolus": day for f in found for arm, day in f[4].items()}
    (out / "cohort_inputs.json").write_text(json.dumps(days))
    with gzip.open(out / "noisy_cgm_3days.csv.gz", "wt", newline="") as file:
        table = csv.writer(file)
        table.writerow(("patient", "t_min", "cgm_mg_per_dL", "true_sc_glucose_mg_per_dL"))
        table.writerows((f[0], t, f"{y:.5f}", f"{true:.3f}") for f in found for t, y, true in f[3])
    with gzip.open(out / "cohort_counterfactuals.csv.gz", "wt", newline="") as file:
        table = csv.writer(file)
        head = ("patient", "scenario", "t_min", "plasma_glucose_mg_per_dL", "sc_glucose_mg_per_dL", "plasma_insulin_pmol_per_L")
        table.writerow(head)
        table.writerows(
            (f[0], f"three_meals_{arm}bolus", t, *(f"{v:.5f}" for v in values))
            for f in found
            for arm, path in f[5].items()
            for t, *values in path
        )


if __name__ == "__main__":
    main()

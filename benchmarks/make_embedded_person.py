"""Write the embedded virtual adult: `hybridtwin/datasets/virtual_adult{.csv,_truth.csv,.json}`.

Three days of one person with type 1 diabetes, made with the PyPI package `simglucose` (MIT; a
re-implementation of the 2008 UVA/Padova simulator), and the same simulator's own answers to the
treatments that the demo asks about. `simglucose` is no dependency of hybridtwin, and no equation of
hybridtwin was fitted to this person. To run it again:

    python3 -m venv /tmp/sg && /tmp/sg/bin/pip install simglucose==0.2.11
    /tmp/sg/bin/python benchmarks/make_embedded_person.py

Every world is the same simulation from the same first minute with other inputs, so worlds agree to
the last bit until their first different input. Rules of the simulator: inputs are constant within a
minute; a meal is eaten at 5 g/min from its minute on; a bolus enters within one minute.
"""

import csv
import importlib.util
import json
import sys
import types
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

PATIENT = "adult#003"
SENSOR, SENSOR_SEED = "GuardianRT", 20260309  # the sensor of the package that reports every 5 minutes
VERSION = "0.2.11"
START = datetime(2026, 3, 9)  # a Monday; no clock change in these days
DAYS, DAY = 3, 1440
PREROLL = 2 * DAY  # minutes at the pump's basal rate, so that the record starts at rest under it
BASAL = 1.45  # [IU]/h; 1.425 holds this person at rest, the pump delivers steps of 0.05
WINDOW = (2 * DAY + 6 * 60, 2 * DAY + 16 * 60)  # day 3, 06:00 to 16:00: breakfast and lunch
OUT = Path(__file__).resolve().parent.parent / "hybridtwin" / "datasets"


def at(day, clock):
    """Minute of the record of a clock time ("07:10") on a day (1 is the first)."""
    hours, minutes = clock.split(":")
    return (day - 1) * DAY + 60 * int(hours) + int(minutes)


# Carbohydrate ratio of this person: 9 g/[IU]. People do not dose exactly: boluses come 13 minutes before
# to 18 minutes after the meal, and up to 15 % off. One snack has no bolus, one bolus corrects away
# from food and one night has a lower basal rate: without these, meals and insulin cancel in the record.
MEALS = {at(1, "07:10"): 48.0, at(1, "12:45"): 62.0, at(1, "16:40"): 18.0, at(1, "19:40"): 78.0,
         at(2, "07:25"): 35.0, at(2, "13:05"): 70.0, at(2, "20:05"): 84.0, at(2, "22:10"): 15.0,
         at(3, "07:20"): 52.0, at(3, "12:55"): 66.0, at(3, "19:30"): 72.0}  # fmt: skip
BOLUSES = {at(1, "07:15"): 5.6, at(1, "12:35"): 6.2, at(1, "19:58"): 9.4,
           at(2, "07:12"): 4.4, at(2, "13:15"): 6.65, at(2, "16:30"): 1.8, at(2, "20:00"): 9.0, at(2, "22:05"): 1.6,
           at(3, "07:32"): 5.5, at(3, "12:50"): 7.8, at(3, "19:30"): 8.2}  # fmt: skip
BASALS = {0: BASAL, at(2, "02:00"): 0.95, at(2, "05:00"): BASAL}

INTERVENTIONS = [
    {"name": "early", "doc": "the boluses of breakfast and lunch 20 min earlier", "do": "bolus=shift(-20 min)",
     "target": "bolus", "shift_min": -20, "times": 1.0},
    {"name": "late", "doc": "the boluses of breakfast and lunch 60 min later", "do": "bolus=shift(60 min)",
     "target": "bolus", "shift_min": 60, "times": 1.0},
    {"name": "half", "doc": "the boluses of breakfast and lunch halved", "do": "bolus=*0.5",
     "target": "bolus", "shift_min": 0, "times": 0.5},
    {"name": "small_meals", "doc": "breakfast and lunch halved, the boluses as lived", "do": "meal=*0.5",
     "target": "meal", "shift_min": 0, "times": 0.5},
]  # fmt: skip


def import_simglucose():
    """The patient and the sensor noise of simglucose, without its gym environments.

    The package registers a gym environment when imported and finds its tables by `pkg_resources`;
    neither exists in a current Python, and neither is part of the simulator.
    """
    registration = types.ModuleType("gym.envs.registration")
    registration.register = lambda **kwargs: None
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda package, path: str(
        Path(importlib.util.find_spec(package).origin).parent / path
    )
    sys.modules.update({"gym": types.ModuleType("gym"), "gym.envs": types.ModuleType("gym.envs"),
                        "gym.envs.registration": registration, "pkg_resources": resources})  # fmt: skip
    here = Path(__file__).resolve().parent  # benchmarks/simglucose.py is not the package
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != here]
    from simglucose.patient.t1dpatient import Action, T1DPatient
    from simglucose.sensor.cgm import CGMSensor

    return T1DPatient, Action, CGMSensor


def simulate(meals, boluses, with_sensor=False):
    """Plasma glucose (mg/dL) at each minute 0..3 days, and the sensor's value every 5 minutes if asked."""
    T1DPatient, Action, CGMSensor = import_simglucose()
    patient = T1DPatient.withName(PATIENT)
    # The same numbers in a plain namespace: attribute access on a pandas row is most of the run time.
    patient._params = params = SimpleNamespace(**patient._params.to_dict())
    for _ in range(PREROLL):
        patient.step(Action(CHO=0, insulin=BASAL / 60))
    sensor = CGMSensor.withName(SENSOR, seed=SENSOR_SEED) if with_sensor else None
    plasma, readings, basal = [], [], BASAL
    for minute in range(DAYS * DAY + 1):
        plasma.append(patient.state[3] / params.Vg)
        if sensor is not None and minute % int(sensor.sample_time) == 0:
            readings.append(sensor.measure(patient))
        basal = BASALS.get(minute, basal)
        patient.step(Action(CHO=meals.get(minute, 0.0), insulin=basal / 60 + boluses.get(minute, 0.0)))
    return plasma, readings, params.BW


def intervene(events, intervention, target):
    """The events of a world: those inside the window are shifted and scaled if they are the target."""
    if intervention["target"] != target:
        return events
    start, stop = WINDOW
    return {
        time + intervention["shift_min"] * (start <= time < stop): amount
        * (intervention["times"] if start <= time < stop else 1.0)
        for time, amount in events.items()
    }


def clock(minute):
    return (START + timedelta(minutes=minute)).strftime("%Y-%m-%d %H:%M")


def cell(reading):
    """A sensor prints whole numbers between 40 and 400, and words outside."""
    return "LOW" if reading < 40 else "HIGH" if reading > 400 else str(round(reading))


def write_record(readings):
    rows = {5 * i: {"cgm": cell(value)} for i, value in enumerate(readings) if 5 * i < DAYS * DAY}
    for name, events in (("meal", MEALS), ("bolus", BOLUSES), ("basal", BASALS)):
        for minute, amount in events.items():
            rows.setdefault(minute, {})[name] = f"{amount:g}"
    with open(OUT / "virtual_adult.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ["time", "cgm", "meal", "bolus", "basal"], restval="", lineterminator="\n")
        table.writeheader()
        table.writerows({"time": clock(minute), **rows[minute]} for minute in sorted(rows))


def write_truth(worlds):
    with open(OUT / "virtual_adult_truth.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["time", *worlds])
        for minute in range((DAYS - 1) * DAY, DAYS * DAY, 5):
            table.writerow([clock(minute), *(f"{plasma[minute]:.3f}" for plasma in worlds.values())])


def write_facts(body_weight):
    facts = {
        "id": "virtual-adult",
        "doc": "One virtual adult with type 1 diabetes: three days of sensor glucose, meals and insulin. Not a person.",
        "tz": "Europe/Rome",
        "start": clock(0),
        "stop": clock(DAYS * DAY - 5),
        "units": {"cgm": "mg/dL", "meal": "g", "bolus": "[IU]", "basal": "[IU]/h"},
        "covariates": {"weight": [round(float(body_weight), 3), "kg"]},
        "carbohydrate_ratio": [9, "g/[IU]"],
        "truth": {
            "file": "virtual_adult_truth.csv",
            "what": "plasma glucose of the simulator without any noise, every 5 min of day 3",
            "unit": "mg/dL",
            "worlds": ["lived", *(i["name"] for i in INTERVENTIONS)],
        },
        "interventions": [
            {**i, "start": clock(WINDOW[0]), "stop": clock(WINDOW[1])} for i in INTERVENTIONS
        ],
        "window_rule": "events whose lived time lies in [start, stop) are changed; all others stay as lived",
        "provenance": {
            "made_by": "benchmarks/make_embedded_person.py",
            "simulator": f"simglucose {VERSION} (MIT), a re-implementation of the UVA/Padova simulator of 2008",
            "patient": PATIENT,
            "sensor": f"{SENSOR}, seed {SENSOR_SEED}, every 5 min, rounded to whole mg/dL",
            "rest": f"{PREROLL} min at {BASAL} [IU]/h before the first row",
            "meals": "eaten at 5 g/min from their minute on",
            "boluses": "given within one minute",
        },
    }  # fmt: skip
    (OUT / "virtual_adult.json").write_text(json.dumps(facts, indent=1) + "\n")


def main():
    plasma, readings, body_weight = simulate(MEALS, BOLUSES, with_sensor=True)
    worlds = {"lived": plasma}
    for i in INTERVENTIONS:
        worlds[i["name"]], _, _ = simulate(intervene(MEALS, i, "meal"), intervene(BOLUSES, i, "bolus"))
    write_record(readings)
    write_truth(worlds)
    write_facts(body_weight)
    for name, values in worlds.items():
        day = values[WINDOW[0] : DAYS * DAY]
        share = 100 * sum(70 <= g <= 180 for g in day) / len(day)
        shown = f"mean {sum(day) / len(day):6.1f}  peak {max(day):6.1f}  nadir {min(day):6.1f}  in range {share:5.1f} %"
        print(f"{name:12s} {shown}")


if __name__ == "__main__":
    main()

"""One patient-day of the package simglucose, timed; run by benchmarks/simglucose.py with the Python that has the package.

Reads one JSON object from standard input: `patients` (names), `protocol` (minutes, meals, boluses, basal), `fast`. Prints one:
`parameters` of each patient as the package holds them, `seconds` and `glucose` (plasma, every fifth minute) of the first.

As shipped, the patient integrates each minute by SciPy's dopri5 (default tolerances: relative 1e-6, absolute 1e-12), and
looks every constant up in a pandas row in each evaluation of its rates; `fast` hands it the same numbers as plain attributes.
"""

import importlib.util
import json
import logging
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace


def patient_class():
    """The package's patient and action; its gym registration and table finder are stood in for where they are missing."""
    try:
        import gym.envs.registration  # noqa: F401
    except ImportError:
        registration = types.ModuleType("gym.envs.registration")
        registration.register = lambda **kwargs: None
        sys.modules.update({"gym": types.ModuleType("gym"), "gym.envs": types.ModuleType("gym.envs"),
                            "gym.envs.registration": registration})  # fmt: skip
    try:
        import pkg_resources  # noqa: F401
    except ImportError:
        resources = types.ModuleType("pkg_resources")
        resources.resource_filename = lambda package, path: str(Path(importlib.util.find_spec(package).origin).parent / path)
        sys.modules["pkg_resources"] = resources
    from simglucose.patient.t1dpatient import Action, T1DPatient

    return T1DPatient, Action


def main():
    here = Path(__file__).resolve().parent  # benchmarks/simglucose.py is not the package
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != here]
    logging.disable(logging.CRITICAL)
    asked = json.loads(sys.stdin.read())
    T1DPatient, Action = patient_class()
    import pandas

    table = Path(importlib.util.find_spec("simglucose").origin).parent / "params" / "Quest.csv"
    ratios = pandas.read_csv(table).set_index("Name")["CR"]  # grams of carbohydrate an IU covers
    patients = [T1DPatient.withName(name) for name in asked["patients"]]
    numbers = [
        {k: float(v) for k, v in p._params.items() if isinstance(v, int | float) or hasattr(v, "dtype")} for p in patients
    ]
    for name, values in zip(asked["patients"], numbers, strict=True):
        values["CR"] = float(ratios[name])
    patient, protocol = patients[0], asked["protocol"]
    if asked["fast"]:
        state = patient._params.iloc[2:15]
        patient = T1DPatient(SimpleNamespace(Name=asked["patients"][0], **numbers[0]), init_state=state.to_numpy(float))
    meals = {m["t_min"]: m["carbs_g"] for m in protocol["meals"]}
    boluses = {b["t_min"]: b["units"] for b in protocol["boluses"]}
    glucose, began = [], time.perf_counter()
    for minute in range(protocol["duration_min"]):
        if minute % 5 == 0:
            glucose.append(float(patient.state[3] / numbers[0]["Vg"]))
        patient.step(
            Action(CHO=meals.get(minute, 0.0), insulin=protocol["basal_U_per_min"] + boluses.get(minute, 0.0))
        )
    seconds = time.perf_counter() - began
    sys.stdout.write(json.dumps({"parameters": numbers, "seconds": seconds, "glucose": glucose}) + "\n")


if __name__ == "__main__":
    main()

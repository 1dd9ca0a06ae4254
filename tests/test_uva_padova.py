"""UVA/Padova against trajectories of the simulator itself (simglucose), from the same inputs, and its rules of eating."""

import csv
import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest

import hybridtwin as ht
from hybridtwin.errors import InterventionError
from hybridtwin.interventions import Do, World
from hybridtwin.physiology import UVAPadova
from hybridtwin.signals import Regimen
from hybridtwin.simulate.mesh import lay, layout_of

NAMES = (
    "kmax", "kmin", "kabs", "b", "d", "f", "Gb", "Ib", "EGPb", "Vg", "k1", "k2", "kp2", "kp3", "ki", "Vmx", "Km0", "p2u",
    "Fsnc", "ke1", "ke2", "Vi", "m1", "m2", "HEb", "ka1", "ka2", "kd", "ksc",
)  # fmt: skip
COLUMNS = {
    "qsto1": "qsto1_mg", "qsto2": "qsto2_mg", "qgut": "qgut_mg", "Gp": "gp_mg_per_kg", "Gt": "gt_mg_per_kg",
    "Ip": "ip_pmol_per_kg", "X": "x_pmol_per_L", "I1": "i1_pmol_per_L", "Id": "id_pmol_per_L", "Il": "il_pmol_per_kg",
    "isc1": "isc1_pmol_per_kg", "isc2": "isc2_pmol_per_kg", "Gs": "gs_mg_per_kg",
    "G": "plasma_glucose_mg_per_dL", "G_isf": "sc_glucose_mg_per_dL", "insulin": "plasma_insulin_pmol_per_L",
}  # fmt: skip
ARMS = {
    "late": lambda b: b.shift(60, "min"),
    "half": lambda b: 0.5 * b,
    "early": lambda b: b.shift(-20, "min"),
}


def rows(path):
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data("glucose/uva_padova/patient_parameters.csv").parent


@pytest.fixture(scope="module")
def patients(folder):
    """Name -> (system, weight)."""
    found = {row["Name"]: row for row in rows(folder / "patient_parameters.csv")}
    return {
        name: (UVAPadova(**{p: float(row[p]) for p in NAMES}), float(row["BW"])) for name, row in found.items()
    }


def person_of(protocol, weight):
    """The record of one run's inputs."""
    basal = 60 * protocol["basal_U_per_min"]
    signal = ht.Signal.constant(basal, "[IU]/h")
    if change := protocol.get("temporary_basal"):
        times = [0.0, float(change["start_min"]), float(change["end_min"])]
        signal = ht.Signal.steps(times, [basal, basal * change["multiplier"], basal], "[IU]/h")
    doses = {
        key: ht.Regimen.bolus([e[amount] for e in protocol[events]], unit, at=[float(e["t_min"]) for e in protocol[events]])
        for key, events, amount, unit in (("meal", "meals", "carbs_g", "g"), ("bolus", "boluses", "units", "[IU]"))
        if protocol[events]
    }
    return ht.Person.of(
        "anna", start=0.0, stop=float(protocol["duration_min"]), time="min", doses=doses, signals={"basal": signal},
        covariates={"weight": (weight, "kg")},
    )  # fmt: skip


def grouped(table):
    found = {}
    for row in table:
        found.setdefault((row["patient"], row["scenario"]), []).append(row)
    return found


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.heavy), 11])
def test_all_states_of_the_simulator_are_met(folder, patients, every):
    inputs = json.loads((folder / "full_state_inputs.json").read_text())
    runs = grouped(rows(folder / "full_state_reference.csv.gz"))
    assert len(runs) == 32
    worst = {}
    for (patient, scenario), truth in list(runs.items())[::every]:
        system, weight = patients[patient]
        at = [float(row["t_min"]) for row in truth]
        found = ht.simulate(system, person_of(inputs[f"{patient}/{scenario}"], weight), at=at, tol=1e-5)
        assert not found.failed.any()
        for name, column in COLUMNS.items():
            expected = np.array([float(row[column]) for row in truth])
            off = np.max(np.abs(found.values[name][0] - expected))
            relative = off / max(1e-6, np.max(np.abs(expected)))
            worst[name] = max(worst.get(name, 0.0), off if name in ("G", "G_isf") else relative)
    assert max(worst["G"], worst["G_isf"]) <= 1e-3, worst
    assert max(worst.values()) <= 1e-3, worst


def answers(found):
    """What the cohort's table holds of one run, from the plasma glucose of every fifth minute."""
    G = found.values["G"][0]
    return {"mean": G.mean(), "sd": G.std(ddof=1), "min": G.min(), "max": G.max(), "time_below_70": np.mean(G < 70),
            "time_70_180": np.mean((G >= 70) & (G <= 180)), "time_above_180": np.mean(G > 180)}  # fmt: skip


def check_treatments(folder, patients, names):
    """Late, half and early boluses by `do` on the lived day: the simulator's own curves and metrics."""
    inputs = json.loads((folder / "cohort_inputs.json").read_text())
    runs = grouped(rows(folder / "cohort_counterfactuals.csv.gz"))
    metrics = {(row["patient"], row["scenario"]): row for row in rows(folder / "cohort_metrics.csv")}
    for name in names:
        system, weight = patients[name]
        lived = person_of(inputs[f"{name}/three_meals_bolus"], weight)
        for arm, change in {"": None, **ARMS}.items():
            key = name, f"three_meals_{arm}_bolus".replace("__", "_")
            truth = runs[key]
            at = [5.0 * k for k in range(int(float(truth[-1]["t_min"])) // 5 + 1)]
            change = [Do({"bolus": change})] if change else []
            found = ht.simulate(system, lived, at=at, tol=1e-5, do=change)
            for column, output in (("G", "plasma_glucose_mg_per_dL"), ("G_isf", "sc_glucose_mg_per_dL")):
                expected = [float(row[output]) for row in truth]
                np.testing.assert_allclose(found.values[column][0][::3], expected, rtol=0, atol=1e-3)
            for metric, value in answers(found).items():
                assert value == pytest.approx(float(metrics[key][metric]), abs=1e-3, rel=1e-4), (key, metric)


def test_treatments_by_do_are_the_simulators_own(folder, patients):
    check_treatments(folder, patients, ("child#003",))


@pytest.mark.heavy
def test_treatments_by_do_of_every_patient(folder, patients):
    check_treatments(folder, patients, sorted(patients))


def quick(meals, stop=240.0, **more):
    doses = {"meal": Regimen.bolus([g for _, g in meals], "g", at=[t for t, _ in meals]), **more}
    return ht.Person.of("anna", start=0.0, stop=stop, time="min", doses=doses, covariates={"weight": (70.0, "kg")},
                        signals={"basal": ht.Signal.constant(1.0, "[IU]/h")})  # fmt: skip


def stepwise(meals, minutes):
    """Grams of each minute and size of the meal without what was left in the stomach, by the simulator's own loop."""
    planned, last, size, eaten, sizes = 0.0, 0.0, 0.0, [], []
    for minute in range(minutes):
        planned += sum(g for t, g in meals if t == minute)
        now = min(5.0, planned)
        planned -= now
        size = (0.0 if last <= 0 else size) + now if now > 0 else size
        last = now
        eaten.append(now)
        sizes.append(size)
    return np.array(eaten), np.array(sizes)


def laid(person):
    """Minutes and the grams, sizes and restarts of the portions on the mesh."""
    spec = UVAPadova.spec
    bound = person.bind(spec)
    world = World(bound.inputs, bound.start, bound.stop, bound.resets)
    layout = layout_of([world], spec)
    return layout, lay([world], spec, layout, [], max_step=1.0)[0]


@pytest.mark.parametrize(
    "meals",
    [[(10, 48.0)], [(10, 20.0), (12, 13.0)], [(10, 20.0), (14, 7.0)], [(10, 3.0), (11, 4.0), (12, 30.0)]],
    ids=["one", "one in the midst of another", "one right after another", "three"],
)
def test_meals_are_eaten_as_the_simulator_eats_them(meals):
    layout, mesh = laid(quick(meals))
    eaten, sizes = stepwise(meals, 60)
    rate = mesh.rate[:, layout.rates.index("meal")]
    size, found = 0.0, []
    for minute in range(60):
        k = np.flatnonzero(mesh.t == minute)[-1]
        assert rate[k] == pytest.approx(eaten[minute], abs=1e-9)
        column = layout.portions.index("meal")
        size = (0.0 if mesh.first[k, column] else size) + mesh.portion[k, column]
        found.append(size)
    np.testing.assert_allclose(found, sizes, atol=1e-9)


def test_the_size_of_a_meal_counts_what_the_stomach_still_holds():
    found = ht.simulate(UVAPadova().typical(), quick([(10, 40.0), (60, 20.0)]), at=[9.5, 10, 17.5, 59.5, 60, 100], tol=1e-8)
    left = found.values["qsto1"][0] + found.values["qsto2"][0]
    expected = [0.0, 5e3, 40e3, 40e3, left[4] + 5e3, left[4] + 20e3]
    np.testing.assert_allclose(found.values["Dbar"][0], expected, rtol=1e-9)


def test_what_is_eaten_arrives_or_is_still_there():
    body = UVAPadova(f=1.0).typical()
    at = np.arange(961) * 0.5
    found = ht.simulate(body, quick([(10, 48.0), (200, 7.0)], stop=480.0), at=at, tol=1e-7)
    held = sum(found.values[name][0][-1] for name in ("qsto1", "qsto2", "qgut"))
    flow = found.values["appearance"][0] * 70.0
    arrived = np.sum((flow[:-1:2] + 4 * flow[1::2] + flow[2::2]) / 6)  # Simpson over each minute
    assert held + arrived == pytest.approx(55e3, rel=1e-6)


def test_a_latent_meal_scales_its_portions():
    body = UVAPadova().typical().with_values({"Gb": ht.lognormal(139.0, 0.045)})
    at = [20.0, 120.0]
    sure = ht.simulate(body, quick([(10, 48.0)]), at=at, draws=5, key=0)
    unsure = ht.simulate(body, quick([(10, 48.0)]).uncertain("meal", 0.2), at=at, draws=5, key=0)
    share = unsure.values["Dbar"] / sure.values["Dbar"]
    assert np.ptp(share[:, 0]) > 0.05
    np.testing.assert_allclose(share[:, 1], share[:, 0], rtol=1e-12)
    np.testing.assert_allclose(unsure.values["qsto1"][:, 0] / sure.values["qsto1"][:, 0], share[:, 0], rtol=1e-9)


def test_steady_trains_of_meals_are_refused():
    person = quick([(10, 48.0)])
    train = dataclasses.replace(person, regimens={**person.regimens, "meal": person.regimens["meal"].steady(every="6 h")})
    with pytest.raises(InterventionError, match="in portions"):
        ht.simulate(UVAPadova().typical(), train)


def test_it_rests_under_any_basal_rate():
    system = UVAPadova().typical()
    for basal in (0.4, 1.0, 1.6):
        u = UVAPadova.spec.input({"basal": basal, "weight": 70.0})
        with jax.enable_x64(True):
            rest = system.steady(u)
            change = UVAPadova.spec.flatten(system.rates(0.0, rest, u))
        size = UVAPadova.spec.flatten(rest)
        for name, value in change.items():
            assert abs(float(value)) <= 1e-9 * max(1.0, abs(float(size[name]))), (basal, name)

"""Breakfast insulin chosen on a twin and judged in the simulator, whose equations the twin lacks, against the rule of thumb.

Bodies are drawn from the adults of the UVA/Padova simulator (13 states, `UVAPadova`); each lives two days of three meals whose
boluses are 70 to 120 % of what 10 g a unit asks, read by a sensor with drift. The twin is `T1DMinimal`, tempered by 3. Asked is
the bolus of the third day's breakfast of 60 g: 2 to 12 units in steps of one, at the meal or 15 minutes before, for the time of
06:30 to 12:30 in 70 to 180 mg/dL under P(nadir < 54 mg/dL) <= 5 %. Where none meets that the rule of thumb (6 units at the meal)
stays. What came of the choice, and of the rule, is read off the simulator.

    python -m benchmarks.decisions [--people 6] [--json]
"""

import time

import jax
import numpy as np

import hybridtwin as ht
from benchmarks import measure
from hybridtwin.engine import double
from hybridtwin.physiology import T1DMinimal, UVAPadova
from hybridtwin.sensors import Seen

DAY, MORNING, MEAL, END = 1440.0, 2 * 1440.0 + 390.0, 2 * 1440.0 + 420.0, 2 * 1440.0 + 750.0
CARBS, RULE, WEIGHT = 60.0, 6.0, 78.0
WINDOW = (MORNING, END)
OUTCOMES = {
    "tir": ht.outcomes.time_in_range("G", 70, 180, "mg/dL", *WINDOW),
    "below_54": ht.outcomes.time_below("G", 54, "mg/dL", *WINDOW),
    "below_70": ht.outcomes.time_below("G", 70, "mg/dL", *WINDOW),
    "nadir": ht.outcomes.nadir("G", *WINDOW),
}


def lived(rng):
    """Meals (time, g) and boluses (time, units) of two days."""
    meals = [(day * DAY + at + rng.uniform(-30, 30), rng.uniform(*size)) for day in range(2)
             for at, size in ((420, (30, 70)), (765, (45, 90)), (1170, (60, 100)))]  # fmt: skip
    boluses = [(at + rng.uniform(-10, 15), round(carbs / 10 * rng.uniform(0.7, 1.2), 1)) for at, carbs in meals]
    return meals, boluses


def record(name, meals, boluses, basal, stop, readings=None):
    """A record of these inputs."""
    return ht.Person.of(
        name, time="min", start=0.0, stop=stop, readings=readings or {},
        doses={"meal": ht.Regimen.bolus([g for _, g in meals], "g", at=[t for t, _ in meals]),
               "bolus": ht.Regimen.bolus([u for _, u in boluses], "[IU]", at=[t for t, _ in boluses])},
        signals={"basal": ht.Signal.constant(basal, "[IU]/h")}, covariates={"weight": (WEIGHT, "kg")},
    )  # fmt: skip


def body_of(rng):
    """A body of the simulator, every parameter drawn by itself, and its resting basal insulin."""
    key = jax.random.key(int(rng.integers(2**31)))
    with double():
        priors = UVAPadova().priors()
        values = {path: float(prior.sample(jax.random.fold_in(key, i))) for i, (path, prior) in enumerate(priors.items())}
        body = UVAPadova(**values)
        basal = float(body.resting_basal(body.Input(basal=0.0, weight=WEIGHT)))
    return body, round(basal, 2)


def read(body, person, rng):
    """Readings of a sensor with drift, every quarter of an hour, of two days and the morning after."""
    times = np.arange(0.0, MORNING + 1, 15.0)
    course = ht.simulate(body, person, at=times)
    sensor = ht.sensors.CGM("G_isf", white=2.0, drift=7.0, tau=45.0)
    n = len(times)
    with double():
        seen = Seen(np.zeros(n), times, np.ones(n, bool), np.zeros(n, np.int32), np.zeros(n, np.int32))
        values = np.asarray(sensor.sample(jax.random.key(int(rng.integers(2**31))), course["G_isf"][0], seen))
    return {"cgm": (times, np.clip(values, 40.0, 400.0), "mg/dL")}


def truth(body, name, meals, boluses, basal, bolus):
    """Outcomes of the morning in the simulator, with this bolus (time, units)."""
    person = record(name, [*meals, (MEAL, CARBS)], [*boluses, bolus], basal, END)
    course = ht.simulate(body, person, at=np.arange(0.0, END + 1, 5.0))
    return {word: float(outcome.of(course)[0]) for word, outcome in OUTCOMES.items()}


def chosen(twin):
    """(time, units) of the candidate of the lowest risk, the rule of thumb where none meets the limit, and the decision."""
    plan = twin.forecast(END, meal=ht.Regimen.bolus(CARBS, "g", at=MEAL), bolus=ht.Regimen.bolus(RULE, "[IU]", at=MEAL))
    grid = ht.Regimen.grid(range(2, 13), "[IU]", first=[MEAL - 15.0, MEAL])
    limit = ht.Chance(OUTCOMES["nadir"], below=(54, "mg/dL"), at_most=0.05)
    found = ht.optimize(plan, {"bolus": grid}, target=OUTCOMES["tir"], limits=limit, accept="bodies of a simulator")
    if found.lowest is None:
        return (MEAL, RULE), found
    (dose,) = found.lowest.world.world().inputs["bolus"].doses
    return (dose.time, dose.amount), found


def main():
    """See the module."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--people", type=int, default=6)
    given = parser.parse_args()
    measure.use(given.device)
    rng, bodies, people = np.random.default_rng(20261130), {}, []
    while len(people) < given.people:
        body, basal = body_of(rng)
        meals, boluses = lived(rng)
        name = f"virtual{len(people)}"
        readings = read(body, record(name, meals, boluses, basal, MORNING), rng)
        bodies[name] = (body, meals, boluses, basal)
        people.append(record(name, meals, boluses, basal, MORNING, readings))
    model = ht.Model(T1DMinimal(), cgm=ht.sensors.CGM("G_isf"))
    started = time.perf_counter()
    twins = ht.personalize(model, ht.Cohort(people), ht.Laplace(draws=250, starts=2), key=0, temper=3, progress=False)
    rows = []
    for name, twin in twins.items():
        bolus, found = chosen(twin)
        rule, choice = (truth(bodies[name][0], name, *bodies[name][1:], b) for b in ((MEAL, RULE), bolus))
        rows.append({"person": name, "verdict": found.verdict.headline, "minutes": bolus[0] - MEAL, "units": bolus[1],
                     "feasible": int(found.feasible.sum()), **{f"rule_{k}": v for k, v in rule.items()},
                     **{f"chosen_{k}": v for k, v in choice.items()}})  # fmt: skip
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key.startswith(("rule", "chosen"))}
    claims = {f"gain_{word}": mean[f"chosen_{word}"] - mean[f"rule_{word}"] for word in OUTCOMES}
    claims["worse"] = float(sum(row["chosen_tir"] < row["rule_tir"] - 1 for row in rows))
    claims["seconds"] = time.perf_counter() - started
    measure.report("decisions", given, claims=claims, people=rows, mean=mean)


if __name__ == "__main__":
    main()

"""Which gut do readings of glucose speak for: a chain of three compartments, or one that is free in shape?

Twenty-nine virtual people of two simulators (21 of UVA/Padova, 8 drawn from Hovorka 2004), three days of noisy readings each (the
six stored ones, and others made alike: correlated error of 12 mg/dL, 42 min), and four treatments of another day as in
`counterfactuals.py`. The two structures of the library, written once more in `appearance.py`, learn each by a mode and a
Gaussian around it (a screen: the real thing is `counterfactuals.py`), the likelihood to the power 1/3, the error's scales given.
Printed, by set and gut: signs, coverage, width, error and interval score of 90 % intervals, and the sum of the log evidence.

    python -m benchmarks.guts [--parts none chain] [--sets stored uva hovorka]
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

import hybridtwin as ht
from benchmarks import counterfactuals as asked
from benchmarks.appearance import laid, priors, simulated
from benchmarks.simglucose import NAMES
from hybridtwin.engine import double
from hybridtwin.physiology import Hovorka2004, UVAPadova

TEMPER, SD, TAU, WHITE, EVERY, DAYS = 3.0, 12.0, 42.0, 3.0, 14, 3
GAIN, OFFSET = 0.03 * 130.0, 3.0  # of one sensor, at a glucose of 130 mg/dL


def lived(body, protocol, weight, days, name, every=5.0):
    """`name` of a simulator's body under a protocol, each `every` minutes."""
    person = asked.person_of("virtual", protocol, weight, stop=1440.0 * days)
    return ht.simulate(body, person, at=list(np.arange(0.0, 1440.0 * days, every)), tol=1e-4).values[name][0]


def three_days(rng, basal, ratio, scale):
    """A protocol to learn from: meals and boluses that vary as in the stored ones. `ratio`: g of carbohydrate for 1 U."""
    meals, boluses = [], []
    for day in range(DAYS):
        for clock, (low, high) in zip((450, 715, 1095), ((30, 60), (50, 90), (60, 100)), strict=True):
            t, carbs = day * 1440 + clock + int(rng.integers(-30, 31)), float(round(rng.uniform(low, high) * scale))
            units = round(carbs / ratio * float(rng.uniform(0.87, 1.13)), 2)
            meals.append({"t_min": t, "carbs_g": carbs})
            boluses.append({"t_min": t + int(rng.choice([-10, 0, 15])), "units": units})
    return {"basal_U_per_min": basal, "meals": meals, "boluses": boluses}


def person(body, weight, protocol, arms, rng):
    """(weight, protocol, times, readings, arms, truth) of one virtual person."""
    t = np.arange(0.0, 1440.0 * DAYS, 5.0)
    decay, error = np.exp(-5.0 / TAU), [SD * rng.normal()]
    for _ in t[1:]:
        error.append(decay * error[-1] + SD * np.sqrt(1.0 - decay**2) * rng.normal())
    seen = lived(body, protocol, weight, DAYS, "G_isf") + np.array(error) + 1.5 * rng.normal(size=len(t))
    answers = [asked.measured(lived(body, arm, weight, 1, "G", 15.0)) for arm in arms]
    return weight, protocol, t, np.clip(seen, 39.0, 400.0), arms, np.stack(answers[1:]) - answers[0]


def uva(root):
    """The 15 patients of whom no noisy days are stored."""
    noisy, days = (json.loads((root / f).read_text()) for f in ("noisy_cgm_inputs.json", "cohort_inputs.json"))
    found = {}
    for i, row in enumerate(asked.rows(root / "patient_parameters.csv")):
        name = row["Name"]
        if name in noisy:
            continue
        arms = [days[f"{name}/three_meals_{arm}_bolus".replace("__", "_")] for arm in ("", *asked.ARMS)]
        carbs, units = (sum(e[key] for e in arms[0][events]) for events, key in (("meals", "carbs_g"), ("boluses", "units")))
        rng = np.random.default_rng(100 + i)
        protocol = three_days(rng, arms[0]["basal_U_per_min"], carbs / units, carbs / 175.0)
        body = UVAPadova(**{n: float(row[n]) for n in NAMES})
        found[name] = person(body, float(row["BW"]), protocol, arms, rng)
    return found


def hovorka(count=8):
    """Bodies drawn from Hovorka 2004, half as sensitive to insulin, whose boluses bring glucose back six hours after a meal."""
    found, rng = {}, np.random.default_rng(7)
    while len(found) < count:
        values = {}
        for path, prior in Hovorka2004().priors().items():
            k = np.clip(rng.normal(), -1.8, 1.8)
            values[path] = float(0.8 + 0.05 * k) if path == "AG" else float(np.exp(prior.loc + k * prior.scale))
        values |= {"G0": float(rng.uniform(110.0, 140.0))} | {s: 0.5 * values[s] for s in ("SIT", "SID", "SIE")}
        weight, body = float(rng.uniform(50.0, 95.0)), Hovorka2004(**values)
        basal = float(body.basal_for(values["G0"], body.Input(basal=0.0, weight=weight))) / 60.0
        if not 0.2 / 60.0 < basal < 3.0 / 60.0:
            continue
        low, high = 1.5, 60.0  # g for 1 U
        for _ in range(9):
            ratio = np.sqrt(low * high)
            meal = {"meals": [{"t_min": 60, "carbs_g": 60.0}], "boluses": [{"t_min": 60, "units": 60.0 / ratio}]}
            over = lived(body, {"basal_U_per_min": basal} | meal, weight, 0.3, "G", 30.0)[14] > values["G0"]
            low, high = (low, ratio) if over else (ratio, high)
        if not 3.0 < ratio < 40.0:
            continue
        meals = [{"t_min": t, "carbs_g": g} for t, g in ((420, 45.0), (720, 60.0), (1080, 70.0))]
        arms = []
        for shift, share in ((0, 1.0), (60, 1.0), (0, 0.5), (-20, 1.0)):
            boluses = [{"t_min": m["t_min"] + shift, "units": round(share * m["carbs_g"] / ratio, 2)} for m in meals]
            arms.append({"basal_U_per_min": basal, "meals": meals, "boluses": boluses})
        protocol = three_days(rng, basal, ratio, 1.0)
        found[f"hovorka#{len(found)}"] = person(body, weight, protocol, arms, rng)
    return found


def stored(root):
    """The six patients with noisy days."""
    noisy, days = (json.loads((root / f).read_text()) for f in ("noisy_cgm_inputs.json", "cohort_inputs.json"))
    weights = {r["Name"]: float(r["BW"]) for r in asked.rows(root / "patient_parameters.csv")}
    found = {}
    for name, case in asked.load(root).items():
        arms = [days[f"{name}/three_meals_{arm}_bolus".replace("__", "_")] for arm in ("", *asked.ARMS)]
        seen = case.record.series["cgm"]
        found[name] = weights[name], noisy[name], np.array(seen.time), np.array(seen.value), arms, case.truth
    return found


class Screen:
    """One structure with one gut: learns a person by a mode and a Gaussian around it."""

    def __init__(self, kind, part):
        found = priors(kind, part)
        self.names, (median, sd) = list(found), np.array(list(found.values())).T

        def course(z, eaten, given, weight, basal):
            p, none = dict(zip(self.names, median * jnp.exp(sd * z), strict=True)), jnp.zeros(len(eaten))
            return simulated(p, eaten, given, none, none, weight, basal, kind, part)

        def worlds(z, eaten, given, weight, basal):
            return jax.vmap(lambda e, g: course(z, e, g, weight, basal)[0, ::15])(eaten, given)

        def read(z, *given):
            return course(z, *given)[1, ::EVERY]

        self.read, self.slope = jax.jit(read), jax.jit(jax.jacfwd(read))
        self.worlds = jax.jit(jax.vmap(worlds, (0, None, None, None, None)))

    def learn(self, weight, protocol, times, seen, arms, _, *, draws=200):
        """Draws of the 12 effects (draws, 3, 4), and the log evidence."""
        at = np.arange(0.0, 1440.0 * DAYS, EVERY)
        y, basal = np.interp(at, times, seen), protocol["basal_U_per_min"]
        error = SD**2 * np.exp(-np.abs(at[:, None] - at) / TAU) + GAIN**2 + OFFSET**2 + WHITE**2 * np.eye(len(at))
        root, given = np.linalg.cholesky(TEMPER * error), (*laid(protocol, 1440 * DAYS), weight, basal)

        def height(z):
            miss = np.linalg.solve(root, y - np.asarray(self.read(z, *given)))
            value = -0.5 * (miss @ miss + z @ z)
            return value if np.isfinite(value) else -np.inf

        def bend(z):
            """Slope of the height at z, and its curvature by Gauss and Newton."""
            slope = np.linalg.solve(root, np.asarray(self.slope(z, *given)))
            miss = np.linalg.solve(root, y - np.asarray(self.read(z, *given)))
            return slope.T @ miss - z, slope.T @ slope + np.eye(len(z))

        z, damp, gain = np.zeros(len(self.names)), 0.1, np.inf
        value = height(z)
        while gain > 1e-3 and damp < 1e6:
            up, curve = bend(z)
            step = np.linalg.solve(curve + damp * np.diag(np.diag(curve)), up)
            step *= min(1.0, 2.0 / np.abs(step).max())
            new = height(z + step)
            if new > value:
                z, value, gain, damp = z + step, new, new - value, max(damp / 5.0, 1e-8)
            else:
                damp *= 5.0
        curve = bend(z)[1]
        noise = np.random.default_rng(1).standard_normal((draws, len(z)))
        eaten, insulin = np.array([laid(arm, 1440) for arm in arms]).transpose(1, 0, 2)
        drawn = z + np.linalg.solve(np.linalg.cholesky(curve).T, noise.T).T
        answers = asked.measured(np.asarray(self.worlds(drawn, eaten, insulin, weight, basal)))
        return answers[:, 1:] - answers[:, :1], value - 0.5 * np.linalg.slogdet(curve)[1]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=["none", "chain"], default=["chain", "none"])
    parser.add_argument("--sets", nargs="+", choices=["stored", "uva", "hovorka"], default=["stored", "uva", "hovorka"])
    given, began = parser.parse_args(), time.time()
    make = {"stored": lambda: stored(asked.folder()), "uva": lambda: uva(asked.folder()), "hovorka": hovorka}
    people = {which: make[which]() for which in given.sets}
    with double():
        for part in given.parts:
            screens = {kind: Screen(kind, part) for kind in "AB"}
            for which, cases in people.items():
                found = {kind: {name: s.learn(*case) for name, case in cases.items()} for kind, s in screens.items()}
                truth = {name: case[-1] for name, case in cases.items()}
                pool = {name: np.concatenate([found[kind][name][0] for kind in "AB"]) for name in cases}
                proof = [sum(evidence for _, evidence in found[kind].values()) for kind in "AB"]
                gut = "free in shape" if part == "none" else "three in a chain"
                print(asked.line(f"{which} ({len(cases)} people), {gut}", asked.score(pool, truth)), end="")
                print(f"   log evidence {proof[0]:.0f}, {proof[1]:.0f}", flush=True)
    print(f"{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()

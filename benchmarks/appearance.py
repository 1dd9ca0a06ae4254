"""Which part of the two structures makes the effects of late and half boluses wrong?

A patient of the UVA/Padova simulator lives a day without any noise (bolus with the meals). The two structures of the library are
fitted to it by their priors and a tight error (mode, 3 mg/dL, a reading every 15 minutes), and asked about late, half and early
boluses; then again with a part replaced by what the simulator itself had there: the glucose that appears from the gut (its amount
still unknown), plasma insulin, or both; and with the gut of ReplayBG, a chain of three compartments, the library's before.
`all` learns from all four treatments at once: what the structure *can* hold. The structures are written once more here, as plain
RK4 of one minute.

    python -m benchmarks.appearance [--patients adult#003 ...] [--parts none meal insulin both chain] [--json out.json]
"""

import argparse
import csv
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import hybridtwin as ht
from benchmarks.counterfactuals import ARMS, folder, measured, person_of
from benchmarks.simglucose import NAMES
from hybridtwin.engine import double
from hybridtwin.physiology import T1DMinimal, T1DTwoPool, UVAPadova

VG, VI, MINUTES, EVERY = 1.6, 0.12, 1440, 15
PARTS = ("none", "meal", "insulin", "both", "chain")
CHAIN = {"kabs": (0.012, 0.8)}  # absorption from the one compartment of ReplayBG's intestine [1/min]
WALK = ("kt", "ka", "r2", "r3", "r4")
INITIAL = ("G0", "cob", "iob")  # not used: the day begins at rest


def laid(protocol, minutes):
    """Meals [g/min] at 5 g/min and insulin [U/min], (minutes,) each, of a protocol."""
    eaten, given = np.zeros(minutes), np.full(minutes, protocol["basal_U_per_min"])
    for meal in protocol["meals"]:
        left, t = meal["carbs_g"], int(meal["t_min"])
        while left > 0 and t < minutes:
            eaten[t], left, t = min(5.0, left), left - 5.0, t + 1
    for bolus in protocol["boluses"]:
        given[int(bolus["t_min"])] += bolus["units"]
    return eaten, given


def patient(name, root):
    """Inputs (4, minutes), what the simulator had (4, minutes) and glucose (4, readings) of a patient's four days."""
    with (root / "patient_parameters.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    days, weight = json.loads((root / "cohort_inputs.json").read_text()), float(rows[name]["BW"])
    system = UVAPadova(**{n: float(rows[name][n]) for n in NAMES})
    minutes, grid = np.arange(float(MINUTES)), np.arange(0.0, MINUTES + 1.0, 5.0)
    meal, insulin, appearing, plasma, glucose = [], [], [], [], []
    for arm in ("", *ARMS):
        day = days[f"{name}/three_meals_{arm}_bolus".replace("__", "_")]
        found = ht.simulate(system, person_of(name, day, weight, stop=MINUTES), at=list(grid), tol=1e-4).values
        eaten, given = laid(day, MINUTES)
        meal.append(eaten)
        insulin.append(given)
        appearing.append(np.interp(minutes, grid, found["appearance"][0]) / VG)  # mg/kg/min -> mg/dL/min
        plasma.append(np.interp(minutes, grid, found["insulin"][0]) / 6.0)  # pmol/L -> mU/L
        glucose.append(found["G"][0][: MINUTES // 5 : EVERY // 5])
    inputs = tuple(np.array(x) for x in (meal, insulin, appearing, plasma))
    return (*inputs, weight, days[f"{name}/three_meals_bolus"]["basal_U_per_min"]), np.array(glucose)


def priors(kind, part):
    """Name -> (median, log sd), those of the library's own system; a path's last word is its name here."""
    body = T1DMinimal() if kind == "A" else T1DTwoPool()
    found = {path.rpartition(".")[2]: (float(np.exp(d.loc)), float(d.scale)) for path, d in body.priors().items()}
    found = {name: prior for name, prior in found.items() if name not in INITIAL}
    if part == "chain":
        return {name: prior for name, prior in found.items() if name not in WALK} | CHAIN
    return found


def intestine(p, part):
    """(what each of its parts absorbs, what it hands on) of one unit in it, [1/min]."""
    if part == "chain":
        return [p["kabs"]], [0.0]
    rates = [p["ka"]]
    for name in ("r2", "r3", "r4"):
        rates.append(p[name] * rates[-1])
    return [*rates, p["kt"]], [p["kt"]] * 4 + [0.0]


def simulated(p, meal, bolus, appearing, plasma, weight, basal, kind, part):
    """Plasma and interstitial glucose (2, minutes) by one body; `appearing` and `plasma` count where `part` says so."""
    given_meal, given_insulin = part in ("meal", "both"), part in ("insulin", "both")
    kd, none = p["ka2"] * (1.0 + p["lead"]), 0.0 * p["Gb"]
    own = basal * 1000.0 / (VI * weight * p["ke"])
    resting = plasma[0] if given_insulin else own
    absorbs, hands = intestine(p, part)

    def floor(z):
        return jnp.logaddexp(0.0, 20.0 * z) / 20.0

    def gut(q1, q2, parts, eaten):
        """Their rates, and what appears [g/min]."""
        came, rates = p["kemp"] * q2, [eaten - p["kemp"] * q1, p["kemp"] * (q1 - q2)]
        for held, absorbed, handed in zip(parts, absorbs, hands, strict=True):
            rates.append(came - (absorbed + handed) * held)
            came = handed * held
        return rates, sum(a * held for a, held in zip(absorbs, parts, strict=True))

    def rates(x, u):
        q1, q2, s1, s2, own, X, Xe, G, G2, C, *parts = x
        eaten, infused, Ra, insulin = u
        belly, appears = gut(q1, q2, parts, eaten)
        Ra = Ra * p["f"] / 0.9 if given_meal else p["f"] * appears * 1000.0 / (VG * weight)
        insulin = insulin if given_insulin else own
        skin = [infused - kd * s1, kd * s1 - p["ka2"] * s2, p["ka2"] * s2 * 1000.0 / (VI * weight) - p["ke"] * own]
        action, flow = -p["p2"] * (X - p["SI"] * (insulin - resting)), -p["SG"] * (G - p["Gb"]) + Ra
        if kind == "A":
            body = [action, none, flow - X * G, none]
        else:
            made = p["E0"] * (floor(1.0 - Xe) - floor(1.0 - p["SIE"] * resting))
            exchange, lost = p["k12"] * (G - G2), 0.003 * 5.0 * jnp.logaddexp(0.0, (G - 180.0) / 5.0)
            held = -p["ka3"] * (Xe - p["SIE"] * insulin)
            body = [action, held, flow + made - exchange - lost, exchange - X * G2]
        return jnp.stack([*belly[:2], *skin, *body, (G - C) / p["tis"], *belly[2:]])

    def step(x, u):
        a = rates(x, u)
        b = rates(x + 0.5 * a, u)
        c = rates(x + 0.5 * b, u)
        return x + (a + 2.0 * b + 2.0 * c + rates(x + c, u)) / 6.0, jnp.stack([x[7], x[9]])

    action = p["SIE"] * resting if kind == "B" else none
    start = [none, none, basal / kd, basal / p["ka2"], own, none, action, p["Gb"], p["Gb"], p["Gb"]]
    return jax.lax.scan(step, jnp.stack(start + [none] * len(hands)), (meal, bolus, appearing, plasma))[1].T


class Structure:
    """One structure with one part replaced: its modelled readings (4, readings) at coordinates z, and their slope."""

    def __init__(self, kind, part):
        found = priors(kind, part)
        self.names, (median, sd) = list(found), np.array(list(found.values())).T

        def curves(z, inputs):
            p = dict(zip(self.names, median * jnp.exp(sd * z), strict=True))
            meal, bolus, appearing, plasma, weight, basal = inputs
            each = jax.vmap(lambda *day: simulated(p, *day, weight, basal, kind, part))
            return each(meal, bolus, appearing, plasma)[:, 0, ::EVERY]

        self.curves, self.slope = jax.jit(curves), jax.jit(jax.jacfwd(curves))

    def mode(self, inputs, glucose, learned, sd=3.0, starts=2):
        """Coordinates at the best of several modes (Levenberg and Marquardt), learned from these treatments."""
        rng, best, at = np.random.default_rng(0), (np.inf, None), list(learned)

        def cost(z):
            miss = ((glucose - np.asarray(self.curves(z, inputs)))[at] / sd).ravel()
            value = 0.5 * miss @ miss + 0.5 * z @ z
            return (value if np.isfinite(value) else np.inf), miss

        for start in range(starts):
            z = 0.7 * rng.standard_normal(len(self.names)) * (start > 0)
            (value, miss), damp, gain = cost(z), 1e-2, np.inf
            while np.isfinite(value) and gain > 1e-3 and damp < 1e6:
                slope = -np.asarray(self.slope(z, inputs))[at].reshape(-1, len(z)) / sd
                curvature, gain = slope.T @ slope + np.eye(len(z)), 0.0
                while gain <= 0.0 and damp < 1e6:
                    step = -np.linalg.solve(curvature + damp * np.diag(np.diag(curvature)), slope.T @ miss + z)
                    step *= min(1.0, 2.0 / np.abs(step).max())
                    there, new = cost(z + step)
                    gain = value - there
                    damp = max(damp / 5.0, 1e-8) if gain > 0.0 else damp * 5.0
                if gain > 0.0:
                    z, value, miss = z + step, there, new
            best = min(best, (value, z), key=lambda found: found[0])
        return best[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--patients", nargs="+", default=["adult#003"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--learned", nargs="+", choices=["with-meal", "all"], default=["with-meal"])
    parser.add_argument("--sd", type=float, default=3.0, help="of the error, mg/dL")
    parser.add_argument("--json")
    given, found, began = parser.parse_args(), {}, time.time()
    with double():
        people = {name: patient(name, folder()) for name in given.patients}
        for kind in "AB":
            for part in given.parts:
                structure = Structure(kind, part)
                for name, (inputs, glucose) in people.items():
                    truth = measured(glucose)[1:] - measured(glucose)[0]
                    for learned in given.learned:
                        z = structure.mode(inputs, glucose, range(1 if learned == "with-meal" else 4), given.sd)
                        curves = np.asarray(structure.curves(z, inputs))
                        effect = measured(curves)[1:] - measured(curves)[0]
                        row = {"rms": np.sqrt(np.mean((curves - glucose) ** 2, axis=1)).tolist(), "effect": effect.tolist(),
                               "truth": truth.tolist(), "mae": float(np.abs(effect - truth).mean()),
                               "z": dict(zip(structure.names, z.tolist(), strict=True))}  # fmt: skip
                        found[f"{name}, {kind}, {part}, {learned}"] = row
                        far = ", ".join(f"{n} {v:+.1f}" for n, v in row["z"].items() if abs(v) >= 1.5)
                        print(f"{name:<15} {kind} {part:<8} {learned:<9} rms {row['rms'][0]:4.1f} mg/dL; half bolus, mean "
                              f"{effect[1, 0]:+.0f} (truth {truth[1, 0]:+.0f}); error of the 12 effects {row['mae']:4.1f}; "
                              f"prior sds away: {far or 'none beyond 1.5'}", flush=True)  # fmt: skip
    print(f"{time.time() - began:.0f} s")
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Worlds a second: people x draws x scenarios of a glucose model with a rescue rule at each draw's own moments, beside chirho.

`worlds_per_second`: eight personalized twins, 250 draws each, four scenarios (no bolus, three boluses), each with a rescue rule
that gives sugar below a threshold. `chirho_ratio`: one twin, two worlds without rules (chirho has one event time for a whole
batch), the same draws, the same output times, at equal measured error: theirs at the loosest tolerance at which it is not less
precise than ours, against diffrax at 1e-11. `loop_ratio`: against one draw and one world at a time by diffrax (rtol 1e-6),
compiled.

    python3 -m venv /tmp/chirho && /tmp/chirho/bin/pip install chirho torchdiffeq "torch==2.3.1" "numpy<2"
    python -m benchmarks.counterfactuals --json --chirho-python /tmp/chirho/bin/python
"""

import json
import subprocess
from pathlib import Path

from benchmarks import measure

PEOPLE, DRAWS, AT, BOLUS, SUGAR = 8, 250, 30.0, 40.0, 100.0
TIMES = [0.0, *(float(t) for t in range(5, 241, 5))]


def system():
    """Glucose, insulin action and plasma insulin: what chirho_peer.py writes down too."""
    import hybridtwin as ht
    from hybridtwin.system import Scalar

    class Glucose(ht.System):
        """dG/dt = -(SG + X) G + SG Gb,  dX/dt = -p2 (X - SI I),  dI/dt = -n I."""

        time = "min"

        class State(ht.State):
            G: Scalar = ht.state("mg/dL", "plasma glucose")
            X: Scalar = ht.state("1/min", "insulin action")
            I: Scalar = ht.state("m[IU]/L", "plasma insulin above rest")

        class Input(ht.Input):
            sugar: Scalar = ht.dose("mg/dL", "glucose, as what it adds", into="G")
            bolus: Scalar = ht.dose("m[IU]/L", "insulin, as what it adds", into="I")

        SG: Scalar = ht.parameter(ht.lognormal(0.02, 0.3), "1/min", "glucose effectiveness")
        SI: Scalar = ht.parameter(ht.lognormal(6e-4, 0.4), "L/m[IU]/min", "insulin sensitivity")
        p2: Scalar = ht.parameter(ht.lognormal(0.03, 0.3), "1/min", "rate of insulin action")
        n: Scalar = ht.parameter(ht.lognormal(0.1, 0.2), "1/min", "insulin clearance")
        Gb: Scalar = ht.parameter(ht.lognormal(90.0, 0.1), "mg/dL", "glucose at rest")

        def rates(self, t, x, u):
            return self.State(G=-(self.SG + x.X) * x.G + self.SG * self.Gb, X=-self.p2 * (x.X - self.SI * x.I), I=-self.n * x.I)

        def initial(self, u):
            return self.State(G=self.Gb, X=0.0, I=0.0)

    return Glucose


def twins():
    """Eight people, each with nine readings after sugar and a bolus of their own body."""
    import numpy as np

    import hybridtwin as ht

    body, people = system(), []
    times = [5.0, 15, 30, 45, 60, 90, 120, 180, 240]
    given = {"sugar": ht.Regimen.bolus(SUGAR, "mg/dL", at=0.0), "bolus": ht.Regimen.bolus(BOLUS, "m[IU]/L", at=AT)}
    blank = ht.Person.of("blank", time="min", start=0.0, stop=240.0, doses=given)
    drawn = ht.simulate(body(), blank, at=times, draws=PEOPLE, key=7)["G"]
    for i, values in enumerate(drawn + np.random.default_rng(7).normal(0, 3.0, drawn.shape)):
        readings = {"bg": (times, values, "mg/dL")}
        people.append(ht.Person.of(f"p{i}", time="min", start=0.0, stop=240.0, doses=given, readings=readings))
    model = ht.Model(body(), bg=ht.sensors.Gaussian("G", sd=3.0))
    return ht.personalize(model, ht.Cohort(people), ht.Laplace(draws=DRAWS), key=0, progress=False)


def chirho(python, draws, repeats, rtol):
    """What chirho_peer.py says."""
    script = Path(__file__).resolve().parent / "chirho_peer.py"
    asked = {"draws": {n: list(map(float, v)) for n, v in draws.items()}, "times": TIMES, "sugar": SUGAR, "bolus": BOLUS,
             "at": AT, "repeats": repeats, "rtol": rtol, "atol": rtol * 1e-2}  # fmt: skip
    done = subprocess.run([python, str(script)], input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} could not run chirho:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def world_of(rtol, ts):
    """One draw and one world by diffrax (Tsit5, PID), compiled: (p (5,), bolus) -> glucose at times `ts`."""
    import diffrax
    import jax
    import jax.numpy as jnp

    def rates(t, y, p):
        return jnp.stack([-(p[0] + y[1]) * y[0] + p[0] * p[4], -p[2] * (y[1] - p[1] * y[2]), -p[3] * y[2]])

    def piece(y, p, start, stop):
        held = diffrax.PIDController(rtol=rtol, atol=rtol * 1e-2)
        save = diffrax.SaveAt(ts=jnp.array([start, *(t for t in ts if start < t < stop), stop]))
        return diffrax.diffeqsolve(diffrax.ODETerm(rates), diffrax.Tsit5(), start, stop, 1.0, y, p, saveat=save,
                                   stepsize_controller=held, max_steps=100_000).ys  # fmt: skip

    @jax.jit
    def world(p, bolus):
        early = piece(jnp.stack([p[4] + SUGAR, 0.0, 0.0]), p, 0.0, AT)
        late = piece(early[-1] + jnp.stack([0.0, 0.0, bolus]), p, AT, ts[-1])
        return jnp.concatenate([early, late[1:]])[:, 0]  # glucose does not jump at the bolus

    return world


def rows_of(values):
    """Draws as rows (n, 5) of `world_of`."""
    import numpy as np

    return np.stack([values[n] for n in ("SG", "SI", "p2", "n", "Gb")], axis=1)


def main(given):
    """Run and report; see the module."""
    measure.use(given.device)
    import jax
    import numpy as np

    import hybridtwin as ht
    from hybridtwin.twin import simulate_worlds

    people = twins()
    rescue = ht.When("G", below=(80.0, "mg/dL"), give=("sugar", 20.0, "mg/dL"), wait="15 min")
    doses = [ht.Regimen.none("m[IU]/L"), *(ht.Regimen.bolus(b, "m[IU]/L", at=AT) for b in (20.0, 40.0, 80.0))]

    def everybody():
        return [simulate_worlds([t.do(bolus=d, respond=rescue) for d in doses], at=TIMES, names=("G",)) for t in people.values()]

    one = next(iter(people.values()))
    values = {n: np.asarray(one.fits[0].values[n])[:DRAWS] for n in ("SG", "SI", "p2", "n", "Gb")}

    def two():  # what is done is part of the question, as it is in the peer's
        return simulate_worlds([one.do(bolus=doses[0]), one], at=TIMES, names=("G",))

    rows = rows_of(values)
    with jax.enable_x64(True):
        single, exact = world_of(1e-6, TIMES), jax.vmap(world_of(1e-11, TIMES), (0, None))
        truth = np.stack([np.asarray(exact(rows, bolus)) for bolus in (0.0, BOLUS)])

        def loop():
            return [jax.block_until_ready(single(rows[i], BOLUS * (i % 2))) for i in range(50)]

        times = measure.interleaved({"everybody": everybody, "two": two, "loop": loop}, repeats=given.repeats)

    def error(found):
        return float(np.max(np.abs(found - truth)) / np.max(truth))

    ours = error(np.stack([course["G"] for course in two()]))
    rescued = np.mean([np.mean(course.acts[0].count) for courses in everybody() for course in courses])
    claims = {"worlds_per_second": PEOPLE * DRAWS * len(doses) / times["everybody"].median}
    claims["loop_ratio"] = (times["loop"].median / 50) / (times["two"].median / (2 * DRAWS))
    results = {"rescues_per_world": float(rescued), "error": ours, "seconds": {n: t.to_json() for n, t in times.items()}}
    if given.chirho_python:
        for rtol in (1e-4, 1e-5, 1e-6, 1e-7):
            peer = chirho(given.chirho_python, values, given.repeats, rtol)
            ratio = float(np.median(peer["seconds"])) / times["two"].median
            apart = error(np.array(peer["G"]))
            results[f"chirho rtol {rtol:g}"] = {"seconds": peer["seconds"], "ratio": ratio, "error": apart}
            print(f"chirho at rtol {rtol:g}: {ratio:.3g} times our time, error {apart:.2g} (ours {ours:.2g})")
            claims["chirho_ratio"] = ratio
            if apart <= ours:
                break
    else:
        print("chirho: not run (--chirho-python)")
    measure.report("counterfactuals", given, claims=claims, results=results)

"""Virtual patient-days per second: the UVA/Padova simulator of this library beside the PyPI package simglucose.

The job is a virtual trial: each published patient in many variants (insulin sensitivity from day to day), a day of three
meals with boluses under four treatments (as prescribed, an hour late, halved, 20 minutes early) as worlds of `do`. The
package does a patient-day of the same inputs as shipped (it looks its constants up in a pandas row at every evaluation, and
integrates minute by minute with SciPy's dopri5, started anew each minute) and with plain attributes in place of the row: in one
process, which is what its `batch_sim` does by default (`parallel=False`), and, told beside it, in a process a core, since ours
uses all cores. Ours are fixed steps on the mesh, float64, finer for the minutes after a meal begins,
where the stomach's emptying switches. The error told is against diffrax at 1e-10, over all published patients and treatments
(where glucose falls to zero the simulator's own guard jumps, and nothing converges: runs that do are counted apart); the
package's own day is compared, too.

    python3 -m venv /tmp/sg && /tmp/sg/bin/pip install "setuptools<80" simglucose==0.2.11
    python -m benchmarks.simglucose --peer-python /tmp/sg/bin/python --json
"""

import functools
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import measure

MINUTES, VARIANTS = 1440, 64
MEALS = {"adult": (45.0, 70.0, 60.0), "adolescent": (45.0, 70.0, 60.0), "child": (25.0, 40.0, 35.0)}  # g
TIMES = (420, 720, 1080)  # min
COARSE, FINE = 1.0, 0.2  # min: steps, and steps while the stomach's emptying can switch
SWITCHING = 25.0  # min after the beginning of a meal in which it can
NAMES = (
    "kmax", "kmin", "kabs", "b", "d", "f", "Gb", "Ib", "EGPb", "Vg", "k1", "k2", "kp2", "kp3", "ki", "Vmx", "Km0", "p2u",
    "Fsnc", "ke1", "ke2", "Vi", "m1", "m2", "HEb", "ka1", "ka2", "kd", "ksc",
)  # fmt: skip


def protocol_of(name, parameters):
    """The prescribed day of a patient: three meals, insulin by the patient's own basal rate and carbohydrate ratio."""
    meals = list(zip(TIMES, MEALS[name.split("#")[0]], strict=True))
    return {
        "duration_min": MINUTES, "basal_U_per_min": parameters["u2ss"] * parameters["BW"] / 6000,
        "meals": [{"t_min": t, "carbs_g": g} for t, g in meals],
        "boluses": [{"t_min": t, "units": g / parameters["CR"]} for t, g in meals],
    }  # fmt: skip


def peer(python, patients, protocol, fast):
    """What simglucose_peer.py says."""
    script = Path(__file__).resolve().parent / "simglucose_peer.py"
    asked = json.dumps({"patients": patients, "protocol": protocol, "fast": fast})
    done = subprocess.run([python, str(script)], input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} could not run simglucose:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def everywhere(python, patient, protocol, fast):
    """Days a second of the package: (in one process, in as many at once as there are cores, what the one answered)."""
    from hybridtwin.engine import cores

    one = peer(python, [patient], protocol, fast)
    with ThreadPoolExecutor(cores()) as pool:
        runs = list(pool.map(lambda _: peer(python, [patient], protocol, fast), range(cores())))
    return 1 / one["seconds"], sum(1 / run["seconds"] for run in runs), one


def worlds_of(name, parameters):
    """The prescribed day of one patient and its three other treatments, as `do` makes them."""
    import hybridtwin as ht
    from hybridtwin.interventions import Do, World, enact
    from hybridtwin.physiology import UVAPadova

    plan, minutes = protocol_of(name, parameters), [float(t) for t in TIMES]
    person = ht.Person.of(
        "patient", start=0.0, stop=float(MINUTES), time="min", covariates={"weight": (parameters["BW"], "kg")},
        doses={"meal": ht.Regimen.bolus([m["carbs_g"] for m in plan["meals"]], "g", at=minutes),
               "bolus": ht.Regimen.bolus([b["units"] for b in plan["boluses"]], "[IU]", at=minutes)},
        signals={"basal": ht.Signal.constant(60 * plan["basal_U_per_min"], "[IU]/h")},
    )  # fmt: skip
    bound = person.bind(UVAPadova.spec)
    lived = World(bound.inputs, bound.start, bound.stop, bound.resets)
    changes = [lambda b: b.shift(60, "min"), lambda b: 0.5 * b, lambda b: b.shift(-20, "min")]
    return [lived, *(enact(lived, [Do({"bolus": change})], UVAPadova.spec, bound.clock) for change in changes)]


class Trial:
    """The virtual trial: what is compiled, and the arguments of each patient."""

    def __init__(self, people, stepper, *, coarse=COARSE, fine=FINE):
        import jax
        import jax.numpy as jnp
        import numpy as np

        from hybridtwin.physiology import UVAPadova
        from hybridtwin.simulate.mesh import lay, layout_of
        from hybridtwin.simulate.rules import LAST
        from hybridtwin.simulate.solve import Extras, first, observer, states

        spec, none = UVAPadova.spec, jnp.zeros(0)
        reads = [(5.0 * k, LAST) for k in range(MINUTES // 5 + 1)]
        knots = [t + fine * k for t in TIMES for k in range(int(SWITCHING / fine))] if fine else []
        worlds = [worlds_of(name, p) for name, p in people.items()]
        layout = layout_of([w for each in worlds for w in each], spec)
        self.meshes = [jax.device_put(lay(each, spec, layout, reads, max_step=coarse, knots=knots)) for each in worlds]
        noise = np.exp(0.1 * np.random.default_rng(0).normal(size=(len(people), VARIANTS, 3)))
        noise[:, 0], noise[..., 2] = 1.0, 1.0  # the first variant is the published patient; only sensitivities vary
        self.values = [
            {n: p[n] * noise[i, :, {"Vmx": 0, "kp3": 1}.get(n, 2)] for n in NAMES}
            for i, p in enumerate(people.values())
        ]

        def lane(values, mesh):
            system, extras = UVAPadova().with_values(values), Extras(none, none, none)
            here, u = first(system, layout, mesh, extras)
            path, _ = states(system, layout, stepper, mesh, here.initial(u), extras, observer(("G",)))
            return path[mesh.read, 0]

        self.program = jax.jit(jax.vmap(lane, (0, None)))

    def run(self, lanes=VARIANTS):
        """Glucose (lanes, times) of every patient in every world, as the library runs its batches: tiles, a thread a core."""
        import numpy as np

        from hybridtwin.engine import side_by_side
        from hybridtwin.physiology import UVAPadova
        from hybridtwin.simulate.run import tile

        width = min(lanes, tile(len(UVAPadova.spec.states)))

        def day(values, mesh, at):
            return np.asarray(self.program({n: a[at : at + width] for n, a in values.items()}, mesh))

        each = [(v, mesh) for v, meshes in zip(self.values, self.meshes, strict=True) for mesh in meshes]
        calls = [functools.partial(day, v, mesh, at) for v, mesh in each for at in range(0, lanes, width)]
        found = [calls[0](), *side_by_side(calls[1:])]  # the first alone, so that it is compiled once
        tiles, count = lanes // width, len(self.meshes[0])
        days = [np.concatenate(found[i : i + tiles]) for i in range(0, len(found), tiles)]
        return [days[i : i + count] for i in range(0, len(days), count)]


def errors(people):
    """Largest error (mg/dL) of plasma glucose over patients, treatments and times against 1e-10, and runs that touch zero."""
    import numpy as np

    from hybridtwin.simulate.steppers import RK4, Adaptive

    found, truth = (
        np.array([[np.asarray(g) for g in each] for each in trial.run(1)])
        for trial in (Trial(people, RK4(1)), Trial(people, Adaptive(rtol=1e-10, atol=1e-10), coarse=5.0, fine=None))
    )
    touched = truth.min(axis=-1) <= 1e-3
    return float(np.max(np.abs(found - truth)[~touched])), int(touched.sum())


def main():
    """Run both, in turns, and print patient-days per second."""
    parser = measure.arguments(__doc__, repeats=3)
    parser.add_argument("--peer-python", required=True, help="a Python that has simglucose, see above")
    parser.add_argument("--patients", type=int, default=30)
    given = parser.parse_args()
    measure.use(given.device)
    groups = ("adult", "adolescent", "child")
    names = [f"{groups[i % 3]}#{i // 3 + 1:03d}" for i in range(given.patients)]
    nothing = {"duration_min": 0, "meals": [], "boluses": []}
    people = dict(zip(names, peer(given.peer_python, names, nothing, False)["parameters"], strict=True))
    protocol = protocol_of(names[0], people[names[0]])
    from hybridtwin.engine import double

    with double():
        import numpy as np

        from hybridtwin.simulate.steppers import RK4

        trial, days = Trial(people, RK4(1)), len(people) * 4 * VARIANTS
        trial.run()
        seconds, shipped, fast, one = [], [], [], {}
        for _ in range(given.repeats):
            for kind, plain in ((shipped, False), (fast, True)):
                seconds.append(measure.interleaved({"ours": trial.run}, repeats=1, warmup=0)["ours"].median)
                *rates, one[plain] = everywhere(given.peer_python, names[0], protocol, plain)
                kind.append(rates)
        own = np.asarray(trial.run(1)[0][0])[0, :-1]
        worst, touched = errors(people)
    rate = days / float(np.median(seconds))
    (slow, slow_cores), (quick, quick_cores) = (np.median(np.array(kind), axis=0) for kind in (shipped, fast))
    print(measure.table([("hybridtwin, all cores", rate, ""),
                         ("simglucose as shipped, one process", slow, rate / slow),
                         ("simglucose as shipped, a process a core", slow_cores, rate / slow_cores),
                         ("simglucose, plain attributes, one process", quick, rate / quick),
                         ("simglucose, plain attributes, a process a core", quick_cores, rate / quick_cores)],
                        ("", "patient-days a second", "ours / theirs")))  # fmt: skip
    claims = {
        "patient_days_ratio": rate / slow, "patient_days_ratio_fast": rate / quick, "patient_days_per_second": rate,
        "patient_days_ratio_per_core": rate / slow_cores, "patient_days_ratio_fast_per_core": rate / quick_cores,
        "max_error_mg_dL": worst,
        "difference_from_peer_mg_dL": float(np.max(np.abs(own - np.array(one[False]["glucose"])))),
    }  # fmt: skip
    measure.report("simglucose", given, claims=claims, patient_days=days, runs_at_zero=touched, nodes=len(trial.meshes[0][0].t),
                   ours=seconds, peer_days_per_second=shipped, peer_fast_days_per_second=fast)  # fmt: skip


if __name__ == "__main__":
    main()

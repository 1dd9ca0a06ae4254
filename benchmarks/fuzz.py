"""No silent wrong lane: bodies drawn from priors twice as wide, each against a reference at 1e-10.

Every registered system, on a record that uses all of its doses (boluses and infusions) and signals, is solved as
`ht.simulate` does by default. Every lane is compared with diffrax's adaptive solvers at 1e-10 on every output and state, and
a share of those again with scipy's LSODA at 1e-10 between the events of a dose table of this script's own (which has no
portions and no switches: `reference_off` is nan for a system that has them).

A lane is *wrong* where some output or state is off by more than 10 times the tolerance, relative to its largest value;
*missed* where it is wrong and not in `trajectory.failures`; a *false alarm* where it is there though what it shows is not wrong
(a masked lane shows nothing: it counts as a false alarm wherever the reference has a solution).

    python -m benchmarks.fuzz [--systems A,B] [--draws 300] [--wide 2] [--json]
"""

import functools
import itertools
import time

import numpy as np

from benchmarks import measure

SPAN = {"min": 480.0, "h": 48.0}
AMOUNT = {"g": 40.0, "mg": 100.0, "[IU]": 4.0}
TOL = 1e-4
ABSOLUTE = 1e-13  # absolute tolerance of the reference
LEAST = 10 * ABSOLUTE / TOL  # what it can tell from nothing to the tolerance asked for
FIRST_PART = {  # of days that take the reference hours: beats, minutes of bleeding, days of a clock
    "Smith2004": 3.0, "Zenker2007": 900.0, "Respiration": 25.0, "Forger99": 96.0, "Jewett99": 96.0, "Hilaire07": 96.0,
    "Hannay19": 96.0, "Hannay19TP": 96.0, "Breslow13": 72.0, "Skeldon23": 72.0, "TwoProcess": 96.0,
}  # fmt: skip
PATIENCE = 200_000  # evaluations of the rates between two events after which scipy is stopped
FEW = 0.1  # share of lanes that may be solved one by one
METHOD = {"Smith2004": "DOP853"}  # scipy's of a check, else LSODA, which does not get over the valves of a heart
SMALLER = {"Geng2017": 1e-250}  # a tumor of 1e-60 cm^3 grows back, and must have its digits


def record(system):
    """A person whose day uses every dose of a system: three boluses of each, and an infusion into a vein.

    Systems with other inputs than drugs, meals and insulin live their typical day, with a bolus of what it leaves out.
    """
    import hybridtwin as ht

    spec = system.spec
    plain = spec.time in SPAN and {f.unit for f in spec.doses.values()} <= set(AMOUNT)
    other = set(spec.signals) | set(spec.covariates)
    if not plain or other - {"basal", "insulin", "weight", "usual_basal", "usual_slow", "Ib"}:
        return typical_day(system)
    span, doses = SPAN[spec.time], {}
    for i, (name, field) in enumerate(spec.doses.items()):
        at = span * (0.05 + 0.03 * i + np.array([0.0, 0.3, 0.33]))
        doses[name] = ht.Regimen.bolus(AMOUNT[field.unit], field.unit, at=[float(t) for t in at])
        if "iv" in name:
            extra = ht.Regimen.infusion(AMOUNT[field.unit], field.unit, at=0.55 * span, over=f"{0.04 * span:g} {spec.time}")
            doses[name] = doses[name] + extra
    signals = {}
    for name, field in spec.signals.items():
        if name == "insulin":
            signals[name] = ht.Signal.linear([0, 24, 40, 120, 300], [4.5, 60, 20, 4.5, 12.0], field.unit)
        else:
            signals[name] = ht.Signal.steps([0.0, 0.4 * span, 0.7 * span], [0.8, 1.3, 0.5], field.unit)
    known = {"weight": (70.0, "kg")}
    covariates = {name: known[name] for name in spec.covariates if name in known}
    return ht.Person.of("fuzz", start=0.0, stop=span, time=spec.time, doses=doses, signals=signals, covariates=covariates)


def typical_day(system):
    """The typical day of a system, its missing doses given as large as the others of their unit (else one of it).

    Of a day that takes the reference hours, the first part.
    """
    import dataclasses

    import hybridtwin as ht

    day, spec = system.protocol, system.spec
    day = dataclasses.replace(day, stop=FIRST_PART.get(spec.name, day.stop))
    usual = AMOUNT | {r.unit: float(r.doses[0].amount) for r in day.doses.values()}
    more = {name: ht.Regimen.bolus(usual.get(field.unit, 1.0), field.unit, at=0.3 * day.stop)
            for name, field in spec.doses.items() if name not in day.doses}  # fmt: skip
    return dataclasses.replace(day, doses={**day.doses, **more}).person(spec.time, "fuzz")


def widened(prior, wide):
    """The same prior with its standard deviation (on the scale on which it is normal) multiplied."""
    import numpyro.distributions as dist

    if isinstance(prior, dist.LogNormal):
        return dist.LogNormal(prior.loc, wide * prior.scale)
    if isinstance(prior, dist.Normal):
        return dist.Normal(prior.loc, wide * prior.scale)
    if isinstance(prior, dist.TransformedDistribution) and isinstance(prior.base_dist, dist.Normal):
        return dist.TransformedDistribution(widened(prior.base_dist, wide), prior.transforms)
    return prior


def reference(system, person, at, draws, key):
    """The same bodies by an adaptive solver at 1e-10: explicit, and implicit for those it does not bring home.

    A few that fail (bodies of which some suffocate) are solved one by one: in a batch all would wait for those.
    """
    import hybridtwin as ht

    absolute = SMALLER.get(system.spec.name, ABSOLUTE)
    found = ht.simulate(system, person, at=at, draws=draws, key=key, solver=ht.Adaptive(1e-10, absolute, max_steps=4_000))
    lost = np.flatnonzero(found.failed)
    stiff = ht.Adaptive(1e-10, absolute, stiff=True, max_steps=20_000)
    if len(lost) > FEW * draws:
        other = ht.simulate(system, person, at=at, draws=draws, key=key, solver=stiff)
        for name, values in found.values.items():
            values[lost] = other[name][lost]
        return found
    for lane in lost:
        body = system.with_values({path: float(v[lane]) for path, v in found.parameters.items()})
        if table_knows(system.spec):
            seen = outputs(body, person, at, by_scipy(body, person, at, "Radau"))
        else:
            seen = {name: values[0] for name, values in ht.simulate(body, person, at=at, solver=stiff).values.items()}
        for name, values in found.values.items():
            values[lane] = seen[name]
    return found


def table_knows(spec):
    """Can `dose_table` tell all that enters? It knows no meals in portions, and no switches."""
    return not {"portion", "switches"} & set(spec.defines)


def outputs(body, person, at, states):
    """Every output and state (N,) of one body, from its states (N, S) at these times."""
    import jax

    spec, inputs = body.spec, person.bind(body.spec).inputs
    found = {path: states[:, i] for i, path in enumerate(spec.states)}
    named = {name: np.array([float(inputs[name](t)) for t in at]) for name in (*spec.signals, *spec.covariates)}

    def one(x, u):
        return {name: out.value for name, out in body.outputs(spec.state(x), spec.input(u)).items()}

    with jax.enable_x64(True):
        seen = jax.vmap(one)(dict(found), named)
    return {name: np.asarray(value, float) for name, value in seen.items()} | found


def dose_table(system, spec, bound, u):
    """Every dose as (start, end, state, amount), the end that of an infusion or the start, lag and fraction applied."""
    from hybridtwin.units import factor

    routes, rows = system.dosing(u) if "dosing" in spec.defines else {}, []
    for name, field in spec.doses.items():
        route = routes.get(name)
        lag = 0.0 if route is None or route.lag is None else float(route.lag)
        share = 1.0 if route is None or route.fraction is None else float(route.fraction)
        for dose in bound.inputs[name].doses:
            pace = spec.spread(name)
            lasts = float(dose.amount) / pace if pace and not dose.duration else float(dose.duration or 0.0)
            amount = float(dose.amount) * share * factor(field.unit, spec.states[field.into].unit)
            rows.append((dose.time + lag, dose.time + lag + lasts, field.into, amount))
    return rows


def by_scipy(system, person, at, method="LSODA"):
    """The states (N, S) of one body by scipy at 1e-10, stopped and restarted at every event; NaN from where it fails on."""
    import jax
    import jax.numpy as jnp
    import scipy.integrate

    spec = system.spec
    bound = person.bind(spec)
    paths, names = list(spec.states), (*spec.signals, *spec.covariates)

    def seen(t):
        return spec.input({name: float(bound.inputs[name](t)) for name in names})

    with jax.enable_x64(True):
        doses = dose_table(system, spec, bound, seen(bound.start))
        start = spec.flatten(system.initial(seen(bound.start)))
        rates = _rates(jax.tree.structure(system))
        leaves = [jnp.asarray(leaf, float) for leaf in jax.tree.leaves(system)]
        x = np.array([float(start[path]) for path in paths])
        events = [t for dose in doses for t in dose[:2]] + [float(t) for n in spec.signals for t in bound.inputs[n].knots]
        edges = [bound.start]
        for t in sorted({*(t for t in events if bound.start < t < bound.stop), bound.stop}):
            if t - edges[-1] > 1e-9:  # times that differ by rounding alone are one
                edges.append(t)
        rows = np.full((len(at), len(paths)), np.nan)
        for t0, t1 in itertools.pairwise(edges):
            flow = np.zeros(len(paths))
            for begin, end, into, amount in doses:
                x[paths.index(into)] += amount if begin == end and abs(begin - t0) < 1e-9 else 0.0
                flow[paths.index(into)] += amount / (end - begin) if begin < 0.5 * (t0 + t1) < end else 0.0
            quarter = 0.25 * (t1 - t0)
            early, late = ([float(bound.inputs[n](t)) for n in spec.signals] for t in (t0 + quarter, t1 - quarter))
            line = np.array(early), (np.array(late) - np.array(early)) / (2 * quarter), t0 + quarter
            fixed = np.array([float(bound.inputs[n](t0)) for n in spec.covariates])

            asked = itertools.count()

            def slope(t, y, line=line, fixed=fixed, flow=flow, asked=asked):
                if next(asked) > PATIENCE:
                    raise ValueError("no end of it")
                return np.asarray(rates(t, leaves, line[0] + line[1] * (t - line[2]), fixed, y)) + flow

            try:
                done = scipy.integrate.solve_ivp(slope, (t0, t1), x, method=method, rtol=1e-10, dense_output=True,
                                                 atol=SMALLER.get(spec.name, ABSOLUTE))  # fmt: skip
            except ValueError:  # rates that are no numbers, or jump back and forth (a valve) until patience ends
                break
            inside = (at >= t0) & ((at < t1) | (t1 == bound.stop))
            inside &= at <= done.t[-1]
            if inside.any():
                rows[inside] = done.sol(at[inside]).T
            if not done.success:
                break
            x = done.y[:, -1].copy()
    return rows


@functools.lru_cache(maxsize=32)
def _rates(tree):
    """Compiled: (time, leaves, signals, covariates, states) -> rates, all as arrays in the order of the declaration."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def find(t, leaves, signals, covariates, y):
        system = jax.tree.unflatten(tree, leaves)
        spec = system.spec
        named = dict(zip((*spec.signals, *spec.covariates), [*signals, *covariates], strict=True))
        found = spec.flatten(system.rates(t, spec.state(dict(zip(spec.states, y, strict=True))), spec.input(named)))
        return jnp.stack([jnp.asarray(found[path], float) for path in spec.states])

    return find


def worst(found, wanted):
    """Largest error of any output or state of each lane, relative to its largest value; inf where nothing is shown.

    A state that has emptied between any two times looked at may be 1e-13 at its largest, where the reference itself knows no
    digit: values count as at least what the reference's absolute tolerance can tell from it to the tolerance asked for.
    """
    error = np.zeros(len(found.failed))
    with np.errstate(invalid="ignore"):
        for name, truth in wanted.values.items():
            size = np.maximum(np.max(np.abs(truth), axis=1, keepdims=True), LEAST)
            error = np.maximum(error, np.max(np.abs(found[name] - truth) / size, axis=1))
    return np.where(np.isfinite(error), error, np.inf)


def fuzz(name, draws, wide, share, key=0):
    """One system: a row of counts, and the failures that were told."""
    import hybridtwin as ht
    from hybridtwin.physiology import REGISTRY

    system = REGISTRY[name]()
    system = system.with_values({path: widened(prior, wide) for path, prior in system.priors().items()})
    spec, person = system.spec, record(system)
    at = np.linspace(0.0, person.clock.stop, 49)
    began = time.perf_counter()
    found = ht.simulate(system, person, at=at, draws=draws, key=key, tol=TOL)
    ours = time.perf_counter() - began
    wanted = reference(system, person, at, draws, key)
    error = worst(found, wanted)
    for side in (-1.0, 1.0) if spec.switches and np.any(error > 10 * TOL) else ():
        # What a switch sets jumps: within a ten-thousandth of the time between two readings both sides of it are right.
        beside = np.clip(at + side * TOL * (at[1] - at[0]), at[0], at[-1])
        error = np.minimum(error, worst(found, reference(system, person, beside, draws, key)))
    solvable = np.isfinite(wanted[next(iter(spec.states))]).all(axis=1)
    flagged = np.zeros(draws, bool)
    flagged[found.failures.draws] = True
    wrong = ~(error <= 10 * TOL)
    told = table_knows(spec)
    rng, apart = np.random.default_rng(0), np.nan
    count = max(1, round(share * solvable.sum())) if told else 0
    for lane in rng.choice(np.flatnonzero(solvable), count, replace=False):
        body = system.with_values({path: float(v[lane]) for path, v in found.parameters.items()})
        states = by_scipy(body, person, at, METHOD.get(name, "LSODA"))
        if not np.isfinite(states).all():  # LSODA does not get over rates that jump
            states = by_scipy(body, person, at, "DOP853")
        if np.isfinite(states).all():
            size = np.max(np.abs(states), axis=0)
            off = np.max(np.abs(np.stack([wanted[path][lane] for path in spec.states], axis=1) - states), axis=0)
            apart = float(np.fmax(apart, np.max(off / np.maximum(size, LEAST))))
    row = {
        "system": name,
        "draws": draws,
        "missed": int(np.sum(wrong & ~flagged)),
        "flagged": int(np.sum(flagged)),
        "false_alarms": int(np.sum(flagged & solvable & ~(wrong & ~found.failed))),
        "unsolvable": int(np.sum(~solvable)),
        "worst_shown": float(np.max(error[~flagged], initial=0.0)),
        "reference_off": apart,
        "seconds": ours,
    }
    return row, found.failures


def main():
    """Fuzz the systems asked for and print the table."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--systems", help="names, separated by commas; all by default")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--wide", type=float, default=2.0, help="factor on the standard deviation of every prior")
    parser.add_argument("--share", type=float, default=0.01, help="share of the lanes that scipy solves too")
    given = parser.parse_args()
    measure.use(given.device)
    from hybridtwin.physiology import REGISTRY

    rows, told = [], {}
    for name in given.systems.split(",") if given.systems else REGISTRY:
        if REGISTRY[name].spec.step is not None:
            print(f"{name}: a difference equation, which no other solver solves")
            continue
        row, failures = fuzz(name, given.draws, given.wide, given.share)
        rows.append(row)
        told[name] = [str(failure) for failure in failures[:5]]
        print(measure.table([tuple(row.values())], tuple(row)), *("  " + line for line in failures.told()), sep="\n", flush=True)
    if not rows:
        return
    total = sum(row["draws"] for row in rows)
    claims = {
        "missed": sum(row["missed"] for row in rows),
        "flagged_share": sum(row["flagged"] for row in rows) / total,
        "false_alarm_share": sum(row["false_alarms"] for row in rows) / total,
        "worst_flagged_share": max(row["flagged"] / row["draws"] for row in rows),
        "worst_false_alarm_share": max(row["false_alarms"] / row["draws"] for row in rows),
        "reference_off": max((row["reference_off"] for row in rows if row["reference_off"] == row["reference_off"]), default=0.0),
    }
    print(measure.table([tuple(row.values()) for row in rows], tuple(rows[0])))
    measure.report("fuzz", given, claims=claims, rows=rows, failures=told, tolerance=TOL, wide=given.wide)


if __name__ == "__main__":
    main()

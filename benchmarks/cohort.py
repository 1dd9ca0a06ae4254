"""Cohorts: people per second beside a loop of plain NumPyro + diffrax, and compile time at 8, 64 and 512 people.

One dose by mouth, Michaelis-Menten elimination, 15 log-normal readings a person, five unknowns. The peer is counted
as that of a careful user, whose data are arguments: its compiling is measured and left out; its chains run in
parallel. It is timed on a few of the same people and extrapolated to the cohort, at the same effective number of draws.

"Effective" is the smallest bulk ESS over the unknowns for chains. Importance draws are independent: for them it is
Kish's effective number of the weighted draws, at most the number kept; how many of those are distinct is told, too.

    python -m benchmarks.cohort --json [--people 1000] [--peer-people 3]
"""

import functools
import json
import os
import subprocess
import sys
import time

import numpy as np

from benchmarks import measure

TIMES = np.array([0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24.0])
DOSE = 300.0  # mg
PRIORS = {"ka": (1.2, 0.4), "Vmax": (30.0, 0.35), "Km": (3.0, 0.4), "V": (40.0, 0.25)}  # 1/h, mg/h, mg/L, L: median, sd of log
SPREAD = 0.2  # scale of the half-normal prior of the error


def readings(count, seed=0):
    """Readings (count, 15) of bodies drawn from the prior, by small steps of RK4."""
    rng = np.random.default_rng(seed)
    chance = rng.standard_normal((count, len(PRIORS) + len(TIMES)))  # by rows: nobody's depend on how many there are
    ka, vmax, km, v = (m * np.exp(s * chance[:, i]) for i, (m, s) in enumerate(PRIORS.values()))

    def rates(depot, c):
        return -ka * depot, ka * depot / v - vmax / v * c / (km + c)

    depot, c, t, h, found = np.full(count, DOSE), np.zeros(count), 0.0, 0.005, []
    for stop in TIMES:
        while t < stop - 1e-9:
            k1 = rates(depot, c)
            k2 = rates(depot + h / 2 * k1[0], c + h / 2 * k1[1])
            k3 = rates(depot + h / 2 * k2[0], c + h / 2 * k2[1])
            k4 = rates(depot + h * k3[0], c + h * k3[1])
            depot, c = (x + h / 6 * (a + 2 * b + 2 * d + e) for x, a, b, d, e in zip((depot, c), k1, k2, k3, k4, strict=True))
            t += h
        found.append(c)
    return np.stack(found, axis=1) * np.exp(0.15 * chance[:, len(PRIORS) :])


@functools.cache
def saturable():
    """The model in this library's words."""
    import hybridtwin as ht
    from hybridtwin.system import Scalar

    class Saturable(ht.System):
        """One compartment by mouth with saturable elimination."""

        time = "h"

        class State(ht.State):
            depot: Scalar = ht.state("mg")
            central: Scalar = ht.state("mg")

        class Input(ht.Input):
            oral: Scalar = ht.dose("mg", into="depot", cmt=1)

        ka: Scalar = ht.parameter(ht.lognormal(*PRIORS["ka"]), "1/h")
        Vmax: Scalar = ht.parameter(ht.lognormal(*PRIORS["Vmax"]), "mg/h")
        Km: Scalar = ht.parameter(ht.lognormal(*PRIORS["Km"]), "mg/L")
        V: Scalar = ht.parameter(ht.lognormal(*PRIORS["V"]), "L")

        def rates(self, t, x, u):
            gone = self.Vmax * x.central / (self.Km * self.V + x.central)
            return self.State(depot=-self.ka * x.depot, central=self.ka * x.depot - gone)

        def outputs(self, x, u):
            return {"C": ht.output(x.central / self.V, "mg/L")}

    return ht.Model(Saturable(), C=ht.sensors.LogNormal("C", sd=ht.halfnormal(SPREAD)))


def cohort_of(count, seed):
    """People who took one dose and were read fifteen times."""
    import hybridtwin as ht

    people = [
        ht.Person.of(f"p{i}", start=0.0, stop=24.0, doses={"oral": ht.Regimen.bolus(DOSE, "mg", at=0.0)},
                     readings={"C": (TIMES, row, "mg/L")})
        for i, row in enumerate(readings(count, seed))
    ]  # fmt: skip
    return ht.Cohort(people)


def effective(fit):
    """Effective draws of a fit, and how many are distinct."""
    if "ess_bulk" in fit.stats:
        return float(np.min(fit.stats["ess_bulk"])), fit.count
    return min(float(fit.stats["ess"]), fit.count), int(fit.stats["distinct"])


def ours(count, draws, rounds):
    """In this process: seconds of the first cohort and of further ones of the same shape, and what compiling took."""
    import jax

    compiled = []

    def heard(event, seconds, **_):
        if "/jax/core/compile" in event:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(heard)
    import hybridtwin as ht

    found = []
    for turn in range(rounds):
        model, cohort = saturable(), cohort_of(count, seed=turn)
        compiled.clear()
        began = time.perf_counter()
        twins = ht.personalize(model, cohort, ht.Auto(draws=draws), key=turn, progress=False)
        seconds = time.perf_counter() - began
        fits = [twin.fits[0] for twin in twins.values()]
        ess, distinct = np.array([effective(f) for f in fits]).T
        stages = [f.stage for f in fits]
        found.append(
            {
                "seconds": seconds,
                "compile_seconds": sum(compiled),
                "programs": len(compiled),
                "ess_median": float(np.median(ess)),
                "ess_tenth": float(np.quantile(ess, 0.1)),
                "distinct_median": float(np.median(distinct)),
                "stages": {s: stages.count(s) for s in set(stages)},
                "not_ok": sum(f.parts["computed"].level != "OK" for f in fits),
                "medians": {k: float(np.median(v)) for k, v in fits[0].values.items()},
                "memory_MiB": 1024 * measure.held(),
            }
        )
    return found


def plain(count, warmup, draws, chains):
    """The peer, person after person: seconds of warm-up, of sampling and of compiling, apart, and ESS."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    numpyro.enable_x64()
    numpyro.set_host_device_count(chains)
    import arviz
    from numpyro.infer import MCMC, NUTS

    def model(y):
        p = {n: numpyro.sample(n, dist.LogNormal(jnp.log(m), s)) for n, (m, s) in PRIORS.items()}
        sd = numpyro.sample("sd", dist.HalfNormal(SPREAD))

        def rates(t, x, args):
            absorbed = p["ka"] * x[0]
            return jnp.stack([-absorbed, absorbed / p["V"] - p["Vmax"] / p["V"] * x[1] / (p["Km"] + x[1])])

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates), diffrax.Tsit5(), 0.0, TIMES[-1], 0.1, jnp.array([DOSE, 0.0]),
            saveat=diffrax.SaveAt(ts=jnp.asarray(TIMES)), stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
            adjoint=diffrax.ForwardMode(), max_steps=4096, throw=False,
        )  # fmt: skip
        c = jnp.maximum(solution.ys[:, 1], 1e-10)
        ok = (solution.result == diffrax.RESULTS.successful) & jnp.all(jnp.isfinite(c))
        numpyro.factor("ok", jnp.where(ok, 0.0, -jnp.inf))
        numpyro.sample("C", dist.LogNormal(jnp.log(jnp.where(ok, c, 1.0)), sd), obs=y)

    compiled, found = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if "/jax/core/compile" in event else None
    )
    for i, row in enumerate(readings(count)):
        compiled.clear()
        sampler = MCMC(
            NUTS(model, dense_mass=True, forward_mode_differentiation=True), num_warmup=warmup, num_samples=draws,
            num_chains=chains, chain_method="parallel", progress_bar=False,
        )  # fmt: skip
        key, y = jax.random.key(i), jnp.asarray(row)
        began = time.perf_counter()
        sampler.warmup(key, y)
        jax.block_until_ready(sampler.last_state)
        warm, compile_warm = time.perf_counter(), sum(compiled)
        sampler.run(key, y)
        values = jax.block_until_ready(sampler.get_samples(group_by_chain=True))
        done = time.perf_counter()
        ess = min(float(arviz.ess(np.asarray(v), method="bulk")) for v in values.values())
        medians = {k: float(np.median(v)) for k, v in values.items()}
        found.append(
            {
                "warmup_seconds": warm - began - compile_warm,
                "draw_seconds": done - warm - (sum(compiled) - compile_warm),
                "compile_seconds": sum(compiled),
                "ess": ess,
                "medians": medians,
            }
        )
    return found


def worker(words):
    """A process of its own; its last line is JSON."""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cohort", *words], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Run everybody and print what the claims rest on."""
    parser = measure.arguments(__doc__, repeats=2)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--peer-people", type=int, default=3)
    parser.add_argument("--peer-warmup", type=int, default=500)
    parser.add_argument("--peer-draws", type=int, default=500)
    parser.add_argument("--peer-chains", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="*", default=[8, 64, 512], help="cohorts whose compile time is compared")
    parser.add_argument("--worker", choices=["ours", "plain"], help="used by the script itself")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    measure.use(given.device)
    if given.worker == "ours":
        print(json.dumps(ours(given.people, given.draws, given.rounds)))
        return
    if given.worker == "plain":
        print(json.dumps(plain(given.peer_people, given.peer_warmup, given.peer_draws, given.peer_chains)))
        return
    base = ["--device", given.device, "--draws", str(given.draws)]
    asked = {n: [*base, "--worker", "ours", "--people", str(n), "--rounds", "1"] for n in given.sizes}
    turns = [{n: worker(words)[0] for n, words in asked.items()} for _ in range(3)]  # in turns, of which the middle one counts
    cold = {n: sorted((turn[n] for turn in turns), key=lambda r: r["compile_seconds"])[1] for n in asked}
    warm = worker([*base, "--worker", "ours", "--people", str(given.people), "--rounds", str(1 + given.repeats)])
    numbers = {"people": given.peer_people, "warmup": given.peer_warmup, "draws": given.peer_draws, "chains": given.peer_chains}
    peers = worker(["--worker", "plain", *(w for k, v in numbers.items() for w in (f"--peer-{k}", str(v)))])
    last = min(warm[1:], key=lambda r: r["seconds"])
    target = last["ess_median"]
    each = float(np.median([p["warmup_seconds"] + p["draw_seconds"] * target / p["ess"] for p in peers]))
    mine = last["seconds"] / given.people
    sizes = [*cold.items(), (f"{given.people}, warm", last)]
    rows = [(n, *(r[k] for k in ("compile_seconds", "programs", "seconds", "memory_MiB", "stages"))) for n, r in sizes]
    print(measure.table(rows, ("people", "compile s", "programs", "seconds", "MiB", "stages")))
    print(f"ours: {1 / mine:.1f} people/s at a median of {target:.0f} effective draws "
          f"(a tenth have under {last['ess_tenth']:.0f}; {last['distinct_median']:.0f} distinct of {given.draws})")  # fmt: skip
    compiling = float(np.median([p["compile_seconds"] for p in peers]))
    print(f"plain: {each:.2f} s a person to as many (median of {len(peers)} people, extrapolated), {compiling:.1f} s of "
          f"compiling a person left out")  # fmt: skip
    claims = {"people_ratio": each / mine, "people_per_second": 1 / mine, f"memory_GiB_{given.people}": last["memory_MiB"] / 1024}
    if {8, 512} <= set(cold):
        claims["compile_ratio_512_8"] = cold[512]["compile_seconds"] / cold[8]["compile_seconds"]
    measure.report("cohort", given, claims=claims, cold=cold, warm=warm, plain=peers)


if __name__ == "__main__":
    main()

"""A population pharmacokinetic model: hybridtwin's pooled HMC beside plain NumPyro, in one run, on the same simulated people.

One compartment by mouth, additive error, everybody with one dose and eight samples; typical values, between-person spread and
error with the same priors on both sides, random effects non-centered on both. Two peers:

- *closed form*, the harder one, behind `ess_ratio_60`: the concentration over all people and times at once, default NUTS
  (diagonal mass matrix, acceptance 0.8), begun at prior medians (from its own default a chain stays in the mirror mode where ka
  and CL / V change places, and does not mix), four chains one after the other (its default on a CPU: side by side they would wait
  for each other's trees).
- *equations*, behind `ess_ratio_60_ode`: the same program with diffrax (Tsit5, PID at 1e-5, reverse mode) under `vmap` over
  people, what a user writes as soon as a model has no closed form. It has the same posterior on the same coordinates, so it takes
  the same trajectories, and many minutes for them. So its gradient is timed in turns with that of the closed form, and what it
  costs more is added to the closed form's seconds, for each leapfrog of the draws and as many for the warm-up (whose trees are
  deeper).

hybridtwin is not told the closed form: it has the rates of change and a record for every person, and also makes a twin of each,
which is counted. Told is the minimum effective sample size a second, over the population and everybody's own three parameters,
warm-up counted, both sides compiled (a first run of each, with another key, is told apart as `cold`). Sides take turns.

    python -m benchmarks.pooling [--people 12,60,120] [--draws 500] [--repeats 3] [--json] [--device cpu|gpu]
"""

import time

import numpy as np

from benchmarks import measure

TIMES = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0])
DOSE, NAMES = 300.0, ("ka", "CL", "V")
TYPICAL, SPREAD, ERROR = np.array([1.2, 3.0, 30.0]), np.array([0.5, 0.3, 0.2]), 0.5
PRIOR_SD = np.array([0.7, 0.4, 0.3])  # of the model as declared; the hyperpriors follow from it


def concentration(ka, cl, v, t, xp=np):
    """The closed form."""
    k = cl / v
    return DOSE * ka / (v * (ka - k)) * (xp.exp(-k * t) - xp.exp(-ka * t))


def simulated(people, seed=0):
    """Concentrations (people, 8) in mg/L."""
    rng = np.random.default_rng(seed)
    own = TYPICAL * np.exp(SPREAD * rng.normal(size=(people, 3)))
    mean = concentration(*(own[:, i : i + 1] for i in range(3)), TIMES)
    return mean + ERROR * rng.normal(size=mean.shape)


def ours(readings):
    """run(key) -> dict name -> draws (chains, n), of the population and everybody; and what went wrong."""
    import hybridtwin as ht
    from hybridtwin.physiology import OneCompartmentOral

    priors = {name: ht.lognormal(float(m), float(s)) for name, m, s in zip(NAMES, TYPICAL, PRIOR_SD, strict=True)}
    sensor = ht.sensors.Gaussian("C", sd=ht.lognormal(1.0, 1.0))
    model = ht.Model(OneCompartmentOral(tlag=0.0, **priors), C=sensor, pooling=ht.Pooling())
    dose = ht.Regimen.bolus(DOSE, "mg", at=0.0)
    cohort = ht.Cohort(
        ht.Person.of(str(i), start=0.0, stop=24.0, time="h", doses={"oral": dose}, readings={"C": (TIMES, row, "mg/L")})
        for i, row in enumerate(readings)
    )

    def run(key, draws):
        twins = ht.personalize(model, cohort, ht.HMC(draws=draws), key=key, progress=False)
        chains, count = twins.population.draws.shape[:2]
        found = {f"population {name}": np.log(v).reshape(chains, count) for name, v in twins.population.samples.items()}
        for name, twin in twins.items():
            found |= {f"{name} {p}": np.log(twin.fits[0].values[p]).reshape(chains, count) for p in NAMES}
        return found, twins.population.stats["divergent"], twins.population.stats["leapfrogs"]

    return run


def program(mean=None):
    """The model in NumPyro; mean((P, 3)) -> (P, 8), by default the closed form."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def closed(own):
        return concentration(own[:, 0:1], own[:, 1:2], own[:, 2:3], jnp.asarray(TIMES), jnp)

    def model(y):
        loc, scale = jnp.log(jnp.asarray(TYPICAL)), jnp.asarray(PRIOR_SD)
        theta = numpyro.sample("theta", dist.Normal(loc, 3 * scale).to_event(1))
        omega = numpyro.sample("omega", dist.HalfNormal(2 * scale).to_event(1))
        sd = numpyro.sample("sd", dist.LogNormal(0.0, 1.0))
        eta = numpyro.sample("eta", dist.Normal(jnp.zeros((y.shape[0], 3)), 1.0).to_event(2))
        own = jnp.exp(theta + omega * eta)
        numpyro.sample("y", dist.Normal((mean or closed)(own), sd).to_event(2), obs=y)

    return model


def plain(readings):
    """The same by NumPyro alone, with the closed form."""
    import jax
    import jax.numpy as jnp
    import numpyro

    model = program()
    made, arrays = {}, []

    def run(key, draws):
        with jax.enable_x64(True):
            arrays[:] = arrays or [jnp.asarray(readings)]  # NumPyro compiles again for another array, be it equal
            if draws not in made:
                kernel = numpyro.infer.NUTS(model, init_strategy=numpyro.infer.init_to_median())
                made[draws] = numpyro.infer.MCMC(
                    kernel, num_warmup=draws, num_samples=draws, num_chains=4, chain_method="sequential", progress_bar=False
                )
            mcmc = made[draws]
            mcmc.run(jax.random.key(key), arrays[0], extra_fields=("num_steps", "diverging"))
            got = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
            extra = {name: np.asarray(v) for name, v in mcmc.get_extra_fields().items()}
        own = got["theta"][:, :, None] + got["omega"][:, :, None] * got["eta"]
        found = {f"population {name}": got["theta"][..., i] for i, name in enumerate(NAMES)}
        found |= {f"population omega.{name}": np.log(got["omega"][..., i]) for i, name in enumerate(NAMES)}
        found |= {"population C.sd": np.log(got["sd"])}
        found |= {f"{p} {name}": own[:, :, p, i] for p in range(len(readings)) for i, name in enumerate(NAMES)}
        return found, float(extra["diverging"].mean()), float(extra["num_steps"].mean())

    return run


def slower(readings, repeats):
    """Seconds of one gradient of NumPyro's potential at a typical place: by the closed form, by diffrax."""
    import diffrax
    import jax
    import jax.numpy as jnp
    from numpyro.infer import init_to_median
    from numpyro.infer.util import initialize_model

    def solved(own):
        def rates(t, x, args):
            ka, cl, v = own
            return jnp.stack([-ka * x[0], ka * x[0] - cl / v * x[1]])

        begin, saved = jnp.array([DOSE, 0.0]), diffrax.SaveAt(ts=jnp.asarray(TIMES))
        control = diffrax.PIDController(rtol=1e-5, atol=1e-5)
        found = diffrax.diffeqsolve(diffrax.ODETerm(rates), diffrax.Tsit5(), 0.0, TIMES[-1], None, begin, saveat=saved,
                                    stepsize_controller=control, max_steps=256, throw=False)  # fmt: skip
        return found.ys[:, 1] / own[2]

    with jax.enable_x64(True):
        y, sides, values = jnp.asarray(readings), {}, []
        for name, mean in (("closed form", None), ("equations", jax.vmap(solved))):
            started = initialize_model(jax.random.key(0), program(mean), model_args=(y,), init_strategy=init_to_median())
            place = jax.tree.map(lambda a: 0.2 * jnp.sin(1.0 + jnp.arange(a.size, dtype=float)).reshape(a.shape) + 0.0 * a,
                                 started.param_info.z)  # fmt: skip
            place["theta"] = jnp.log(jnp.asarray(TYPICAL))
            gradient = jax.jit(jax.value_and_grad(started.potential_fn))
            values.append(float(gradient(place)[0]))
            sides[name] = lambda gradient=gradient, place=place: gradient(place)
        assert abs(values[0] - values[1]) < 0.05, values  # one posterior
        times = measure.interleaved(sides, repeats=max(repeats, 5), at_least=0.2)
    return times["closed form"].median, times["equations"].median


def judged(found):
    """(minimum effective sample size, which, largest R-hat)."""
    from hybridtwin.inference import diagnostics

    names = list(found)
    stacked = np.stack([found[n] for n in names])
    ess = np.minimum(diagnostics.ess_bulk(stacked), diagnostics.ess_tail(stacked))
    return float(ess.min()), names[int(ess.argmin())], float(np.max(diagnostics.rhat(stacked)))


def compare(people, draws, repeats):
    """Both sides in turns on one cohort: side -> measures, medians over the rounds."""
    readings = simulated(people)
    sides, rounds, last = {"hybridtwin": ours(readings), "NumPyro": plain(readings)}, {"hybridtwin": [], "NumPyro": []}, {}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            began = time.perf_counter()
            found, diverging, leapfrogs = run(turn, draws)
            seconds = time.perf_counter() - began
            ess, worst, rhat = judged(found)
            rounds[name].append({"seconds": seconds, "ess": ess, "worst": worst, "rhat": rhat, "diverging": diverging,
                                 "leapfrogs": leapfrogs, "per_second": ess / seconds})  # fmt: skip
            last[name] = found
    result = {}
    for name, parts in rounds.items():
        cold, warm = parts[0], parts[1:]
        result[name] = {k: float(np.median([w[k] for w in warm])) for k in warm[0] if k != "worst"}
        result[name] |= {"cold_seconds": cold["seconds"], "worst": warm[-1]["worst"]}
    # do both sample one posterior? the largest difference of medians of the population, in posterior sds
    apart = [
        abs(np.median(last["hybridtwin"][n]) - np.median(last["NumPyro"][n])) / np.std(last["NumPyro"][n])
        for n in last["NumPyro"]
        if n.startswith("population")
    ]
    result["apart"] = float(max(apart))
    closed, equations = slower(readings, repeats)
    side = result["NumPyro"]
    leapfrogs = 2 * 4 * draws * side["leapfrogs"]  # four chains, warm-up as long as the draws
    seconds = side["seconds"] + leapfrogs * (equations - closed)
    result["NumPyro + diffrax"] = {"seconds": seconds, "ess": side["ess"], "per_second": side["ess"] / seconds,
                                   "gradient_closed": closed, "gradient_equations": equations}  # fmt: skip
    return result


def main():
    parser = measure.arguments(__doc__, repeats=3)
    parser.add_argument("--people", default="12,60,120")
    parser.add_argument("--draws", type=int, default=500)
    given = parser.parse_args()
    measure.use(given.device)
    from hybridtwin.engine import prepare

    prepare()  # the same flags of XLA for both sides
    results, rows, claims = {}, [], {}
    for people in map(int, given.people.split(",")):
        found = results[str(people)] = compare(people, given.draws, given.repeats)
        claims[f"ess_ratio_{people}"] = found["hybridtwin"]["per_second"] / found["NumPyro"]["per_second"]
        claims[f"ess_ratio_{people}_ode"] = found["hybridtwin"]["per_second"] / found["NumPyro + diffrax"]["per_second"]
        claims[f"apart_{people}"] = found["apart"]
        for name in ("hybridtwin", "NumPyro"):
            side = found[name]
            rows.append((f"{name}, {people} people", side["seconds"], side["ess"], side["per_second"], side["leapfrogs"],
                         side["rhat"], 100 * side["diverging"], side["cold_seconds"]))  # fmt: skip
        side = found["NumPyro + diffrax"]
        rows.append((f"NumPyro + diffrax, {people} people (by its gradient)", side["seconds"], side["ess"], side["per_second"],
                     *("",) * 4))  # fmt: skip
    heads = ("", "seconds", "min ESS", "ESS/s", "leapfrogs", "R-hat", "% diverging", "cold seconds")
    print(measure.table(rows, heads))
    measure.report("pooling", given, claims=claims, results=results)


if __name__ == "__main__":
    main()

"""Simulation-based calibration of every method on systems of every kind: exact, mesh, correlated sensor, stiff, hierarchical.

For each system and method: bodies drawn from the prior, readings of their own at a real design, ranks of the truth among the
draws (`ht.calibrate`). Told: the smallest p-value over all quantities, log likelihood and log prior among them, after Bonferroni.
With many rows a few small values are chance: the last line holds all of them together against uniform (Fisher).

`hierarchical` draws populations from their hyperpriors, twelve people of each, and readings by the closed form in NumPy (nothing
of ours); ranked are the population's seven numbers, one person's three, and the log likelihood of everybody. It is fitted by the
pooled methods among `--methods` (`HMC`, `NUTS`), else by `HMC`.

    python -m benchmarks.sbc [--systems oral,hierarchical] [--methods Auto,NUTS,SMC] [--replicates 256] [--cohorts 64] [--json]
"""

import math
import time

import numpy as np

import hybridtwin as ht
from benchmarks import measure
from benchmarks.pooling import DOSE, concentration
from hybridtwin.physiology import BergmanMinimal, OneCompartmentOral, T1DMinimal
from hybridtwin.system import Input, Scalar, State, System


class Binding(System):
    r"""A drug that binds its target fast: full target-mediated disposition (Mager and Jusko 2001, doi:10.1023/A:1014414520282).

    dL/dt = -kel L - kon L R + koff C,   dR/dt = ksyn - kdeg R - kon L R + koff C,   dC/dt = kon L R - (kint + koff) C

    Free drug L, target R and complex C as concentrations. Stiff: binding takes seconds, elimination days.
    """

    time = "h"

    class State(State):
        L: Scalar = ht.state("nmol/L", "free drug")
        R: Scalar = ht.state("nmol/L", "free target")
        C: Scalar = ht.state("nmol/L", "complex")

    class Input(Input):
        iv: Scalar = ht.dose("nmol/L", "dose over volume", into="L", cmt=1)

    kel: Scalar = ht.parameter(ht.typical(0.05, cv=0.3), "1/h", "elimination of free drug")
    kint: Scalar = ht.parameter(ht.typical(0.1, cv=0.3), "1/h", "internalization of the complex")
    R0: Scalar = ht.parameter(ht.typical(10.0, cv=0.3), "nmol/L", "target without drug")
    kdeg: Scalar = ht.constant(0.2, "1/h", "turnover of the target")
    kon: Scalar = ht.constant(50.0, "L/nmol/h", "binding")
    koff: Scalar = ht.constant(5.0, "1/h", "dissociation")

    def rates(self, t, x, u):
        bound = self.kon * x.L * x.R - self.koff * x.C
        return self.State(
            L=-self.kel * x.L - bound, R=self.kdeg * (self.R0 - x.R) - bound, C=bound - self.kint * x.C
        )

    def initial(self, u):
        return self.State(L=0.0, R=self.R0, C=0.0)

    def outputs(self, x, u):
        return {"total": ht.output(x.L + x.C, "nmol/L", "total drug")}


def oral():
    """One compartment by mouth, combined error, eleven samples."""
    times = [0.25, 0.5, 1, 2, 3, 4, 6, 9, 12, 18, 24]
    person = ht.Person.of("oral", start=0, stop=24, time="h", doses={"oral": ht.Regimen.bolus(320, "mg", at=0)},
                          readings={"C": (times, np.ones(11), "mg/L")})  # fmt: skip
    sensor = ht.sensors.Combined2("C", add=ht.lognormal(0.2, 0.3), prop=ht.lognormal(0.1, 0.3))
    return ht.Model(OneCompartmentOral(tlag=0.1), C=sensor), person


def bergman():
    """An intravenous glucose tolerance test with measured insulin."""
    times = [2, 4, 6, 8, 10, 14, 19, 22, 25, 30, 40, 50, 60, 80, 100, 120, 140, 160, 180]
    insulin = ht.Signal.linear([0, 2, 5, 10, 20, 30, 60, 100, 180], [7, 60, 40, 25, 18, 25, 22, 12, 7], "m[IU]/L")
    person = ht.Person.of("ivgtt", start=0, stop=180, time="min", doses={"glucose_iv": ht.Regimen.bolus(21, "g", at=0)},
                          signals={"insulin": insulin}, covariates={"weight": (70, "kg")},
                          readings={"G": (times, np.full(len(times), 100.0), "mg/dL")})  # fmt: skip
    return ht.Model(BergmanMinimal(), G=ht.sensors.LogNormal("G", sd=ht.lognormal(0.03, 0.3))), person


def t1d():
    """One day of the embedded person: meals, boluses, a correlated glucose sensor."""
    person = ht.datasets.virtual_adult()
    start, stop = person.clock.start, person.clock.stop
    return ht.Model(T1DMinimal(), cgm=ht.sensors.CGM("G_isf")), person.between(start, start + (stop - start) / 3)


def stiff():
    """Fast binding, slow elimination."""
    times = [0.1, 0.5, 1, 2, 4, 8, 12, 24, 36, 48, 72]
    person = ht.Person.of("tmdd", start=0, stop=72, time="h", doses={"iv": ht.Regimen.bolus(30, "nmol/L", at=0)},
                          readings={"total": (times, np.full(11, 10.0), "nmol/L")})  # fmt: skip
    return ht.Model(Binding(), total=ht.sensors.LogNormal("total", sd=ht.lognormal(0.1, 0.2))), person


SYSTEMS = {f.__name__: f for f in (oral, bergman, t1d, stiff)}
PEOPLE, DRAWN = 12, 99  # of one cohort; posterior draws among which a truth is ranked
HYPER = {"ka": (1.2, 0.3), "CL": (3.0, 0.2), "V": (30.0, 0.2)}  # typical values: median and sd of the logarithm
OMEGA, ERROR = (0.35, 0.3), (0.4, 0.3)  # between-person sds, the error's sd: alike
SAMPLED = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])


def hierarchical(method, cohorts, seed=0):
    """`ht.Calibration` of a pooled method on cohorts of their own populations."""
    names = tuple(HYPER)
    rng, ranks, red = np.random.default_rng(seed), {}, 0
    body = OneCompartmentOral(tlag=0.0, **{name: ht.lognormal(median, 0.4) for name, (median, _) in HYPER.items()})
    typical = {name: ht.lognormal(*numbers) for name, numbers in HYPER.items()}
    pooling = ht.Pooling(omega={name: ht.lognormal(*OMEGA) for name in HYPER}, typical=typical)
    model = ht.Model(body, C=ht.sensors.Gaussian("C", sd=ht.lognormal(*ERROR)), pooling=pooling)
    dose = ht.Regimen.bolus(DOSE, "mg", at=0.0)

    def drawn(median, sd):
        return median * np.exp(sd * rng.normal())

    for number in range(cohorts):
        truth = {name: drawn(*numbers) for name, numbers in HYPER.items()}
        truth |= {f"omega.{name}": drawn(*OMEGA) for name in HYPER} | {"C.sd": drawn(*ERROR)}
        own = {n: truth[n] * np.exp(truth[f"omega.{n}"] * rng.normal(size=PEOPLE)) for n in HYPER}
        mean = concentration(*(own[n][:, None] for n in names), SAMPLED)
        seen = mean + truth["C.sd"] * rng.normal(size=mean.shape)
        people = [ht.Person.of(str(i), start=0.0, stop=16.0, time="h", doses={"oral": dose},
                               readings={"C": (SAMPLED, row, "mg/L")}) for i, row in enumerate(seen)]  # fmt: skip
        twins = ht.personalize(model, ht.Cohort(people), method, key=number, progress=False)
        population = twins.population
        red += population.computed.level == "DO NOT USE"
        rows = np.linspace(0, len(population.samples["ka"]) - 1, DRAWN).round().astype(int)
        found = {name: population.samples[name][rows] for name in truth}
        each = {n: np.stack([t.fits[0].values[n].reshape(-1)[rows] for t in twins.values()]) for n in HYPER}
        found |= {f"{n} of one person": each[n][0] for n in HYPER}
        truth |= {f"{n} of one person": own[n][0] for n in HYPER}
        fitted = concentration(*(each[n][:, None] for n in names), SAMPLED[:, None])
        found["log likelihood"] = _gaussian(seen[..., None], fitted, found["C.sd"])
        truth["log likelihood"] = _gaussian(seen[..., None], mean[..., None], truth["C.sd"])[0]
        for name, value in truth.items():
            ranks.setdefault(name, []).append(int(np.sum(found[name] < value)))
    columns = {name: np.array(column) for name, column in ranks.items()}
    return ht.Calibration("hierarchical", type(method).__name__, columns, DRAWN, 0, red)


def _gaussian(seen, mean, sd):
    """Log likelihood (n,) of readings (P, N, 1) at means (P, N, n)."""
    return np.sum(-0.5 * ((seen - mean) / sd) ** 2 - np.log(sd), axis=(0, 1))
POOLED = {"HMC": ht.HMC(draws=200), "NUTS": ht.NUTS(draws=150, warmup=150)}
METHODS = {
    "Auto": ht.Auto(draws=400, starts=4),
    "NUTS": ht.NUTS(draws=150, warmup=150, starts=4),
    "Importance": ht.Importance(draws=400, starts=4),
    "SMC": ht.SMC(),
    "ShortChains": ht.ShortChains(),
    "Variational": ht.Variational(),
    "Laplace": ht.Laplace(draws=1000, starts=4),
}
# of a day of glucose, where a body would take half a minute of a core: fewer chains, the same method
LIGHTER = {
    "NUTS": ht.NUTS(draws=100, warmup=100, chains=2, starts=4),
    "ShortChains": ht.ShortChains(chains=32, superchains=4, starts=4),
    "SMC": ht.SMC(particles=320, islands=8),
}
# these claim to sample the posterior itself; the others tell how far off they are
EXACT = ("Auto", "NUTS", "HMC", "SMC", "ShortChains")


def fisher(p):
    """Are these p-values together those of chance? The probability of so small a product."""
    from scipy import stats

    return float(stats.chi2.sf(-2 * np.sum(np.log(np.maximum(p, 1e-300))), 2 * len(p)))


def main():
    parser = measure.arguments(__doc__)
    parser.add_argument("--systems", default=",".join([*SYSTEMS, "hierarchical"]))
    parser.add_argument("--methods", default="Auto")
    parser.add_argument("--replicates", type=int, default=256)
    parser.add_argument("--cohorts", type=int, default=64, help="replicates of the hierarchical model")
    given = parser.parse_args()
    measure.use(given.device)
    rows, all_p, claims, details = [], [], {}, {}
    for name in given.systems.split(","):
        methods = given.methods.split(",")
        if name == "hierarchical":
            methods = [m for m in methods if m in POOLED] or ["HMC"]
        else:
            methods, (model, person) = [m for m in methods if m in METHODS], SYSTEMS[name]()
        for method in methods:
            began = time.monotonic()
            if name == "hierarchical":
                found = hierarchical(POOLED[method], given.cohorts)
            else:
                chosen = LIGHTER.get(method, METHODS[method]) if name == "t1d" else METHODS[method]
                found = ht.calibrate(model, person, chosen, key=0, replicates=given.replicates)
            p = found.p_values()
            worst = min(p, key=p.__getitem__)
            adjusted = min(1.0, p[worst] * len(p))
            spent = time.monotonic() - began
            rows.append((name, method, found.replicates, len(p), adjusted, worst, found.failed, found.red, spent))
            claims[f"{name}_{method}_p"] = adjusted
            all_p += [p[q] for q in p] if method in EXACT else []
            details[f"{name} {method}"] = {"p": p, "table": found.to_dataframe().to_dict("index")}
            print(found, flush=True)
    heads = ("system", "method", "ranked", "quantities", "p (Bonferroni)", "worst", "unsolved", "red", "seconds")
    print(measure.table(rows, heads))
    if all_p:
        claims["fisher_p"] = fisher(all_p)
    measure.report("sbc", given, claims={k: v for k, v in claims.items() if math.isfinite(v)}, details=details)


if __name__ == "__main__":
    main()

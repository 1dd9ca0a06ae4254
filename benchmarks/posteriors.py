"""Posteriors with reference draws (posteriordb, stat_comp_benchmarks): does every method meet them within Monte Carlo error?

    python -m benchmarks.posteriors [--methods NUTS,SMC,ShortChains] [--only sir] [--json]

Two ODE posteriors by 10,000 reference draws each, on a log scale (K_m has no mean worth comparing): mean in standard errors of
both sides, the ratio of standard deviations, and the largest difference of the two ECDFs; `sir` by its published moments. Times
are of a fresh program and of a second call in the same process. `sir` is left to SMC: its counts have no slope to climb where the
first bodies of the prior stand, so no ascent finds the mode that the other methods start from.
"""

import json
import os
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln

import hybridtwin as ht
from benchmarks import measure
from hybridtwin import Scalar
from hybridtwin.sensors import AbstractSensor, Terms


class HareLynx(ht.System):
    """Prey and predator: du/dt = (alpha - beta v) u, dv/dt = (delta u - gamma) v. A year is told as a day."""

    time = "d"

    class State(ht.State):
        u: Scalar = ht.state("1", "hares, thousands")
        v: Scalar = ht.state("1", "lynxes, thousands")

    alpha: Scalar = ht.parameter(lambda: dist.TruncatedNormal(1.0, 0.5, low=0.0), "1/d")
    beta: Scalar = ht.parameter(lambda: dist.TruncatedNormal(0.05, 0.05, low=0.0), "1/d")
    gamma: Scalar = ht.parameter(lambda: dist.TruncatedNormal(1.0, 0.5, low=0.0), "1/d")
    delta: Scalar = ht.parameter(lambda: dist.TruncatedNormal(0.05, 0.05, low=0.0), "1/d")
    u0: Scalar = ht.parameter(ht.lognormal(10.0, 1.0), "1", initial=True)
    v0: Scalar = ht.parameter(ht.lognormal(10.0, 1.0), "1", initial=True)

    def rates(self, t, x, u):
        return self.State(u=(self.alpha - self.beta * x.v) * x.u, v=(self.delta * x.u - self.gamma) * x.v)

    def initial(self, u):
        return self.State(u=self.u0, v=self.v0)

    def outputs(self, x, u):
        return {"hare": ht.output(x.u, "1"), "lynx": ht.output(x.v, "1")}


class Saturated(ht.System):
    """dC/dt = ka A / V - (Vm / V) C / (Km + C), dA/dt = -ka A: the published exp(-ka t) D ka / V, with its depot told."""

    time = "h"

    class State(ht.State):
        depot: Scalar = ht.state("mg")
        C: Scalar = ht.state("mg/L", positive=False)

    class Input(ht.Input):
        oral: Scalar = ht.dose("mg", into="depot")

    ka: Scalar = ht.parameter(lambda: dist.HalfCauchy(1.0), "1/h")
    Km: Scalar = ht.parameter(lambda: dist.HalfCauchy(1.0), "mg/L")
    Vm: Scalar = ht.parameter(lambda: dist.HalfCauchy(1.0), "mg/h")
    V: Scalar = ht.constant(2.0, "L")

    def rates(self, t, x, u):
        eliminated = self.Vm / self.V * x.C / (self.Km + x.C)
        return self.State(depot=-self.ka * x.depot, C=self.ka * x.depot / self.V - eliminated)

    def outputs(self, x, u):
        return {"C": ht.output(x.C, "mg/L")}


class Waterborne(ht.System):
    """dS/dt = -beta B / (B + 1e6) S, dI/dt = -dS/dt - gamma I, dB/dt = xi I - delta B."""

    time = "d"

    class State(ht.State):
        S: Scalar = ht.state("1")
        I: Scalar = ht.state("1")
        B: Scalar = ht.state("1")

    beta: Scalar = ht.parameter(lambda: dist.HalfCauchy(2.5), "1/d")
    gamma: Scalar = ht.parameter(lambda: dist.HalfCauchy(1.0), "1/d")
    xi: Scalar = ht.parameter(lambda: dist.HalfCauchy(25.0), "1/d")
    delta: Scalar = ht.parameter(lambda: dist.HalfCauchy(1.0), "1/d")

    def rates(self, t, x, u):
        fresh = self.beta * x.B / (x.B + 1e6) * x.S
        return self.State(S=-fresh, I=fresh - self.gamma * x.I, B=self.xi * x.I - self.delta * x.B)

    def initial(self, u):
        return self.State(S=10000.0, I=0.0, B=10000.0)

    def outputs(self, x, u):
        return {"S": ht.output(x.S, "1"), "B": ht.output(x.B, "1")}


class Falls(AbstractSensor):
    """Counts of how far an output has fallen since the reading before (the first since `start`), Poisson."""

    of: str
    start: float = 10000.0

    def terms(self, mean, seen):
        before = jnp.concatenate([jnp.full(1, self.start), mean[:-1]])
        rate = jnp.maximum(before - mean, 1e-10)
        loglik = seen.value * jnp.log(rate) - rate - gammaln(seen.value + 1.0)
        zero = jnp.zeros_like(mean)
        return Terms(jnp.where(seen.mask, loglik, 0.0), zero, zero)

    def sample(self, key, mean, seen):
        raise NotImplementedError


def folder() -> Path:
    """Where the reference posteriors lie."""
    root = os.environ.get("HYBRIDTWIN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(root) / "posteriors"


def _data(name):
    return json.loads((folder() / f"{name}.data.json").read_text())


def hare_lynx():
    """Model, person, and our site -> their draws."""
    data = _data("hudson_lynx_hare")
    times = np.array([0.0, *data["ts"]])
    seen = np.array([data["y_init"], *data["y"]], float)
    spread = ht.lognormal(float(np.exp(-1.0)), 1.0)
    model = ht.Model(HareLynx(), hare=ht.sensors.LogNormal("hare", sd=spread), lynx=ht.sensors.LogNormal("lynx", sd=spread))
    readings = {"hare": (times, seen[:, 0], "1"), "lynx": (times, seen[:, 1], "1")}
    person = ht.Person.of("hudson", start=0.0, stop=float(times[-1]), time="d", readings=readings)
    names = {f: f"theta[{i}]" for i, f in enumerate(("alpha", "beta", "gamma", "delta"), 1)}
    names |= {"u0": "z_init[1]", "v0": "z_init[2]", "hare.sd": "sigma[1]", "lynx.sd": "sigma[2]"}
    return model, person, {ours: _draws("hudson_lynx_hare", theirs) for ours, theirs in names.items()}


def saturated():
    """Model, person, and our site -> their draws."""
    data = _data("one_comp_mm_elim_abs")
    model = ht.Model(Saturated(), C=ht.sensors.LogNormal("C", sd=dist.HalfCauchy(1.0)))
    person = ht.Person.of(
        "mm", start=0.0, stop=10.0, doses={"oral": ht.Regimen.bolus(float(data["D"]), "mg", at=0.0)},
        readings={"C": (np.array(data["times"], float), np.array(data["C_hat"]), "mg/L")},
    )  # fmt: skip
    names = {"ka": "k_a", "Km": "K_m", "Vm": "V_m", "C.sd": "sigma"}
    return model, person, {ours: _draws("one_comp_mm_elim_abs", theirs) for ours, theirs in names.items()}


def waterborne():
    """Model, person, and our site -> (mean, sd) of theirs."""
    data = _data("sir")
    times = np.array(data["t"], float)
    readings = {"cases": (times, np.array(data["stoi_hat"], float), "1"), "bacteria": (times, np.array(data["B_hat"]), "1")}
    person = ht.Person.of("sir", start=0.0, stop=float(times[-1]), time="d", readings=readings)
    model = ht.Model(Waterborne(), cases=Falls("S"), bacteria=ht.sensors.LogNormal("B", sd=0.15))
    moments = json.loads((folder() / "reference_summary.json").read_text())["sir-sir"]["summary"]
    return model, person, {n: (moments[n]["mean"], moments[n]["sd"]) for n in ("beta", "gamma", "xi", "delta")}


POSTERIORS = {"hudson_lynx_hare": hare_lynx, "one_comp_mm_elim_abs": saturated, "sir": waterborne}


def _draws(name, theirs):
    with np.load(folder() / f"{name}.reference_draws.npz") as file:
        return np.asarray(file[theirs], float).ravel()


def score(fit, reference):
    """One row a parameter: mean difference in standard errors, ratio of sds, largest difference of ECDFs (NaN for moments)."""
    rows = []
    at = {name: i for i, name in enumerate(fit.names)}
    for name, theirs in reference.items():
        ours = np.asarray(fit.values[name])
        ess = min(float(fit.stats["ess_bulk"][at[name]]), len(ours)) if "ess_bulk" in fit.stats else float(len(ours))
        if isinstance(theirs, tuple):
            mean, sd, ecdf = *theirs, np.nan
        else:
            ours, theirs = np.log(ours), np.log(theirs)
            mean, sd = theirs.mean(), theirs.std()
            grid = np.quantile(theirs, np.linspace(0.005, 0.995, 199))
            ecdf = float(np.abs(np.searchsorted(np.sort(ours), grid) / len(ours) - np.linspace(0.005, 0.995, 199)).max())
        error = sd * np.sqrt(1 / ess + 1 / 10000)
        rows.append((name, float((ours.mean() - mean) / error), float(ours.std() / sd), ecdf, ess))
    return rows


def main():
    parser = measure.arguments(__doc__)
    parser.add_argument("--methods", default="NUTS,SMC,ShortChains")
    parser.add_argument("--only", choices=list(POSTERIORS))
    given = parser.parse_args()
    measure.use(given.device)
    methods = {
        "NUTS": ht.NUTS(draws=1000), "SMC": ht.SMC(particles=4096, islands=16, moves=4),
        "ShortChains": ht.ShortChains(chains=256, draws=32),
    }  # fmt: skip
    claims, results = {}, {}
    for name, make in POSTERIORS.items():
        if given.only not in (None, name):
            continue
        model, person, reference = make()
        for method in given.methods.split(",") if name != "sir" else ["SMC"]:
            seconds = []
            for key in (0, 1):
                began = time.perf_counter()
                fit = ht.personalize(model, person, methods[method], key=key, progress=False).fits[0]
                seconds.append(time.perf_counter() - began)
            rows = score(fit, reference)
            print(f"{name} by {method}: {seconds[0]:.1f} s at first, {seconds[1]:.2f} s again; {fit.parts['computed']}")
            print(measure.table(rows, ("parameter", "z of mean", "sd ratio", "ECDF", "ESS")))
            claims[f"{name}_{method}_z"] = max(abs(r[1]) for r in rows)
            claims[f"{name}_{method}_sd"] = max(abs(np.log(r[2])) for r in rows)
            claims[f"{name}_{method}_ess_per_second"] = min(r[4] for r in rows) / seconds[1]
            if not np.isnan(rows[0][3]):
                claims[f"{name}_{method}_ecdf"] = max(r[3] for r in rows)
            results[f"{name}_{method}"] = {"seconds": seconds, "rows": rows}
    measure.report("posteriors", given, claims=claims, results=results)


if __name__ == "__main__":
    main()

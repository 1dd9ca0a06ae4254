"""Statins and cholesterol: individual effects in SyncTwin's simulator, by pooled twins that know the law.

    P' = Kin(t) - K P        R' = K P - D / (D + D50) K R        D' = O(t) - H D        (time in days)

K = .18, H = .1, D50 = .1, P = R = .5 and D = 0 at the start; O = 1 from day 25 on in the treated. Kin holds still within a day:
six Chebyshev polynomials on [0, 1] times N(0, 1) coefficients, of which one cluster has the first and the fifth, the other the
second. Kin, P and R of 25 days (of the treated R of 30) are z-scored over everybody and day, then noise of .1 is added. All 200
treated are of the first cluster; of N controls a share p is. Asked: what the statin did to R of each treated on days 26 to 30, in
sd of R; error: mean |estimate - truth|. Written anew from the equations of ZhaozhiQIAN/SyncTwin-NeurIPS-2021 (`sim/pkpd.py`).

Ours: a system with six personal coefficients, N(0, 1) each, and shared K, H and D50 that are not known; readings as they come,
in sd. `--treated` of the 200 treated, who are those asked about, and `--controls` of the controls (drawn at random; they teach K
alone) are pooled by `ht.HMC`; each treated twin's draws answer with and without statin. `--full` takes all of both. `damaged`:
the saturating term is taken out, and what the drug does is a piecewise linear function of it whose four values are learned.
Rows of reference: `pooled_exact`, the exact posterior under the twins' own priors, of the same people, by NumPy alone;
`bayes_optimal`, that of the coefficients where K, H and D50 are known; `ridge`, the
coefficients from Kin alone; `oracle`, the true body through our solver; `published`. Rivals match the treated with controls and
are not given the law.

    python -m benchmarks.statin --json [--seeds 5] [--treated 60] [--controls 10] [--full] [--settings 200_50 hidden]
"""

import argparse
import dataclasses
import functools
import time

import numpy as np

from benchmarks import measure

DAYS, BEFORE, TERMS, NOISE = 30, 25, 6, 0.1
K, H, D50, START = 0.18, 0.1, 0.1, 0.5
TREATED = 200
SETTINGS = {"200_50": (200, 0.5), "200_10": (200, 0.1), "1000_50": (1000, 0.5), "hidden": (200, 0.5), "damaged": (200, 0.5)}
PUBLISHED = {  # mean absolute error of SyncTwin (its better variant) and of the best other, from its results/*.txt
    "200_50": (0.119, 0.150), "200_10": (0.324, 0.341), "1000_50": (0.094, 0.104), "hidden": (0.110, 0.139),
}  # fmt: skip
STEPS = 40  # of RK4 a day: exact to 1e-7


def basis() -> np.ndarray:
    """Chebyshev polynomials (TERMS, DAYS) of the share of the days that has passed."""
    x = np.arange(DAYS) / DAYS
    found = [np.ones_like(x), x]
    for _ in range(TERMS - 2):
        found.append(2 * x * found[-1] - found[-2])
    return np.stack(found)


def solved(kin: np.ndarray, treated: np.ndarray, start=START) -> np.ndarray:
    """(Kin, P, R) of each day (3, DAYS, n): Kin (n, DAYS) of the day, P and R at its end. `start`: P and R at first."""
    state, found, h = np.stack([np.full(len(kin), start)] * 2 + [np.zeros(len(kin))]), [], 1 / STEPS

    def rates(x, made, given):
        p, r, d = x
        return np.stack([made - K * p, K * p - d / (d + D50) * K * r, given - H * d])

    for day in range(DAYS):
        now = kin[:, day], treated * (day >= BEFORE)
        for _ in range(STEPS):
            a = rates(state, *now)
            b = rates(state + h / 2 * a, *now)
            c = rates(state + h / 2 * b, *now)
            d = rates(state + h * c, *now)
            state = state + h / 6 * (a + 2 * b + 2 * c + d)
        found.append(np.stack([kin[:, day], state[0], state[1]]))
    return np.stack(found, axis=1)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One data set: `n` controls, then the treated."""

    z: np.ndarray  # (3, DAYS, people) noisy z-scores of Kin, P, R
    mean: np.ndarray  # (3,)
    sd: np.ndarray  # (3,)
    controls: int
    effect: np.ndarray  # (TREATED, DAYS - BEFORE) true, in sd of R
    coefficients: np.ndarray  # (people, TERMS) true

    @classmethod
    def drawn(cls, rng, controls: int, share: float) -> "Trial":
        near = round(share * controls)
        mask = np.zeros((controls + TREATED, TERMS))
        mask[:near, [0, 4]] = mask[controls:, [0, 4]] = 1.0
        mask[near:controls, 1] = 1.0
        draws, noises = (rng.standard_normal((controls + TREATED, *shape)) for shape in ((TERMS,), (3, DAYS)))
        kin = (draws * mask) @ basis()
        treated = np.arange(len(kin)) >= controls
        x = solved(kin, treated)
        mean, sd = x.mean(axis=(1, 2)), x.std(axis=(1, 2), ddof=1)
        z = (x - mean[:, None, None]) / sd[:, None, None] + NOISE * noises.transpose(1, 2, 0)
        without = solved(kin[controls:], np.zeros(TREATED, bool))
        return cls(z, mean, sd, controls, ((x[2, BEFORE:, controls:] - without[2, BEFORE:]) / sd[2]).T, draws * mask)


# ------------------------------------------------------------------------------------------------------- exact answers


def exact(trial: Trial, what: str):
    """Mean and sd (TREATED, days) of the effect where K, H and D50 are known: all is linear in the coefficients.

    `what`: "all" (Kin, P and R), "hidden" (P and R) or "kin" (Kin alone, as a ridge regression).
    """
    count = TERMS + 1  # the coefficients one by one, and the start alone
    kin = np.concatenate([basis(), np.zeros((1, DAYS))])
    start = np.array([0.0] * TERMS + [START])
    treated, without = (solved(kin, np.full(count, on), start) for on in (True, False))
    seen = np.zeros((3, DAYS), bool)
    seen[0, :BEFORE], seen[1, :BEFORE], seen[2] = what != "hidden", what != "kin", what != "kin"
    design = (treated / trial.sd[:, None, None])[seen]
    y = (trial.z[:, :, trial.controls :] + (trial.mean / trial.sd)[:, None, None])[seen] - design[:, -1:]
    design = design[:, :TERMS]
    covariance = np.linalg.inv(np.eye(TERMS) + design.T @ design / NOISE**2)
    found = covariance @ design.T @ y / NOISE**2
    ask = (treated - without)[2, BEFORE:] / trial.sd[2]
    spread = np.sqrt(np.einsum("di,ij,dj->d", ask[:, :TERMS], covariance, ask[:, :TERMS]))
    return (ask[:, :TERMS] @ found + ask[:, -1:]).T, np.broadcast_to(spread, (TREATED, DAYS - BEFORE))


def responses(k, h, d50, on: bool, steps=8) -> np.ndarray:
    """P and R at the end of each day (G, 2, DAYS, TERMS + 1), of each coefficient alone and of the start alone, for G laws."""
    kin = np.concatenate([basis(), np.zeros((1, DAYS))])
    p = np.tile(np.array([0.0] * TERMS + [START]), (len(k), 1))
    x, found, step, (k, h, d50) = np.stack([p, p, 0 * p]), [], 1 / steps, (a[:, None] for a in (k, h, d50))
    for day in range(DAYS):
        given = float(on and day >= BEFORE)

        def rates(x, made=kin[:, day], given=given):
            p, r, d = x
            return np.stack([made - k * p, k * p - d / (d + d50) * k * r, given - h * d])

        for _ in range(steps):
            a = rates(x)
            b = rates(x + step / 2 * a)
            c = rates(x + step / 2 * b)
            x = x + step / 6 * (a + 2 * b + 2 * c + rates(x + step * c))
        found.append(x[:2])
    return np.stack(found, axis=2).transpose(1, 0, 2, 3)


def pooled_exact(trial: Trial, hidden: bool, few, treated, rng, count=800):
    """Draws (treated, days, 400) of the effect from the exact posterior with K, H and D50 unknown, under the twins' priors.

    Given the three, everything is linear and Gaussian, so that their likelihood has a closed form; they are drawn by importance
    (a Student t, fitted in rounds). Nothing of the library is used. Kin, where it is read, does not depend on the three.
    """
    middle, spread = np.log(0.2), 0.5

    def judged(z):
        logml, kept, law = 0.0, None, np.exp(z).T
        for who, on in ((few, False), (treated, True)):
            last, x = (DAYS if on else BEFORE), responses(*law, on)
            parts = [(x[:, 0, :BEFORE] / trial.sd[1], 1, BEFORE), (x[:, 1, :last] / trial.sd[2], 2, last)]
            if not hidden:
                shown = np.concatenate([basis().T, np.zeros((DAYS, 1))], axis=1)[None, :BEFORE] / trial.sd[0]
                parts.append((np.broadcast_to(shown, (len(z), BEFORE, TERMS + 1)), 0, BEFORE))
            design = np.concatenate([part for part, _, _ in parts], axis=1)
            y = np.concatenate([trial.z[i, :n][:, who] + trial.mean[i] / trial.sd[i] for _, i, n in parts])
            a, rest = design[..., :TERMS], y[None] - design[..., TERMS:]
            precision = np.eye(TERMS) + np.einsum("gni,gnj->gij", a, a) / NOISE**2
            b = np.einsum("gni,gnp->gip", a, rest) / NOISE**2
            mean = np.linalg.solve(precision, b)
            fit = np.einsum("gnp,gnp->g", rest, rest) / NOISE**2 - np.einsum("gip,gip->g", b, mean)
            logml = logml - 0.5 * (fit + len(who) * np.linalg.slogdet(precision)[1])
            kept = mean, precision
        return logml - 0.5 * np.sum((z - middle) ** 2, axis=1) / spread**2, kept

    center, scale, weights = np.full(3, middle), spread**2 * np.eye(3), np.zeros(count)
    for _ in range(12):
        root = np.linalg.cholesky(scale)
        raw = rng.standard_normal((count, 3)) / np.sqrt(rng.chisquare(6, count) / 6)[:, None]
        z = center + raw @ root.T
        with np.errstate(over="ignore", invalid="ignore"):  # laws so far out that the steps do not follow them have no weight
            density, (mean, precision) = judged(z)
        log = np.nan_to_num(density + 4.5 * np.log1p(np.sum(raw**2, axis=1) / 6), nan=-np.inf)
        weights, power = np.exp(log - log.max()), 1.0
        while np.sum(weights) ** 2 / np.sum(weights**2) < 60:  # far off at first: weights are softened until some count
            power *= 0.8
            weights = np.exp(power * (log - log.max()))
        weights = weights / weights.sum()
        center, scale = weights @ z, (1.3 if power == 1.0 else 1.6) * np.cov(z.T, aweights=weights) + 1e-10 * np.eye(3)
    ask = (responses(*np.exp(z).T, True) - responses(*np.exp(z).T, False))[:, 1, BEFORE:] / trial.sd[2]
    found = []
    for i in rng.choice(count, 400, p=weights):
        drawn = mean[i] + np.linalg.solve(np.linalg.cholesky(precision[i]).T, rng.standard_normal(mean[i].shape))
        found.append(ask[i, :, :TERMS] @ drawn + ask[i, :, TERMS:])
    return np.stack(found, axis=-1).transpose(1, 0, 2)


# ------------------------------------------------------------------------------------------------------- ours


@functools.cache
def model(damaged: bool):
    """The law in this library's words, with what it does not know."""
    import jax.numpy as jnp

    import hybridtwin as ht
    from hybridtwin.system import Scalar

    class Base:
        """What both forms share: a system is final, so these are functions."""

        @staticmethod
        def kin(s, u):
            return s.c0 * u.b0 + s.c1 * u.b1 + s.c2 * u.b2 + s.c3 * u.b3 + s.c4 * u.b4 + s.c5 * u.b5

        @staticmethod
        def outputs(s, x, u):
            scores = {"Kin_z": (Base.kin(s, u) * ht.const(1.0, "d") - u.mean_Kin) / u.sd_Kin,
                      "P_z": (x.P - u.mean_P) / u.sd_P, "R_z": (x.R - u.mean_R) / u.sd_R}  # fmt: skip
            return {name: ht.output(value, "1") for name, value in scores.items()}

    class Lipids(ht.System):
        """Precursor P, cholesterol R and statin D of SyncTwin's simulator."""

        time = "d"

        class State(ht.State):
            P: Scalar = ht.state("1", positive=False)
            R: Scalar = ht.state("1", positive=False)
            D: Scalar = ht.state("1")

        class Input(ht.Input):
            statin: Scalar = ht.signal("1/d", default=0.0)
            b0: Scalar = ht.signal("1")
            b1: Scalar = ht.signal("1")
            b2: Scalar = ht.signal("1")
            b3: Scalar = ht.signal("1")
            b4: Scalar = ht.signal("1")
            b5: Scalar = ht.signal("1")
            mean_Kin: Scalar = ht.covariate("1")
            sd_Kin: Scalar = ht.covariate("1")
            mean_P: Scalar = ht.covariate("1")
            sd_P: Scalar = ht.covariate("1")
            mean_R: Scalar = ht.covariate("1")
            sd_R: Scalar = ht.covariate("1")

        c0: Scalar = ht.parameter(ht.normal(0, 1), "1/d")
        c1: Scalar = ht.parameter(ht.normal(0, 1), "1/d")
        c2: Scalar = ht.parameter(ht.normal(0, 1), "1/d")
        c3: Scalar = ht.parameter(ht.normal(0, 1), "1/d")
        c4: Scalar = ht.parameter(ht.normal(0, 1), "1/d")
        c5: Scalar = ht.parameter(ht.normal(0, 1), "1/d")
        K: Scalar = ht.parameter(ht.lognormal(0.2, 0.5), "1/d", "turnover", shared=True)
        H: Scalar = ht.parameter(ht.lognormal(0.2, 0.5), "1/d", "elimination of the statin", shared=True)
        D50: Scalar = ht.parameter(ht.lognormal(0.2, 0.5), "1", "statin of half its effect", shared=True)
        w1: Scalar = ht.parameter(None, "1/d", "damaged: what the statin does at .25", shared=True)
        w2: Scalar = ht.parameter(None, "1/d", "at 1", shared=True)
        w3: Scalar = ht.parameter(None, "1/d", "at 2", shared=True)
        w4: Scalar = ht.parameter(None, "1/d", "at 4", shared=True)

        def rates(self, t, x, u):
            made = self.K * x.P
            gone = self.learned(x.D) if damaged else self.K * x.D / (x.D + self.D50)
            return self.State(P=Base.kin(self, u) - made, R=made - gone * x.R, D=u.statin - self.H * x.D)

        def learned(self, d):
            """A piecewise linear function of the statin through 0 at 0: one layer of fixed units, its weights learned."""
            knots, values = (0.0, 0.25, 1.0, 2.0, 4.0), (0.0 * self.w1, self.w1, self.w2, self.w3, self.w4)
            pieces = zip(knots, knots[1:], values, values[1:], strict=False)
            return sum((b - a) * jnp.clip((d - low) / (high - low), 0.0, 1.0) for low, high, a, b in pieces)

        def outputs(self, x, u):
            return Base.outputs(self, x, u)

        def initial(self, u):
            return self.State(P=ht.const(START, "1"), R=ht.const(START, "1"), D=ht.const(0.0, "1"))

    names = [f"c{i}" for i in range(TERMS)]
    weights = {f"w{i}": ht.lognormal(0.1, 1.0) if damaged else 0.0 for i in range(1, 5)}
    sensors = {name: ht.sensors.Gaussian(f"{name}_z", sd=NOISE) for name in ("Kin", "P", "R")}
    pooling = ht.Pooling(omega=dict.fromkeys(names, 1.0), typical=dict.fromkeys(names, 0.0))
    return ht.Model(Lipids(**weights, **({"D50": 0.1} if damaged else {})), pooling=pooling, **sensors)


def record(trial: Trial, i: int, hidden: bool):
    """What was read of one person, in sd, with what it takes to read it."""
    import hybridtwin as ht

    days, treated = np.arange(DAYS), i >= trial.controls
    signals = {f"b{j}": ht.Signal.steps(days, row, "1") for j, row in enumerate(basis())}
    signals["statin"] = ht.Signal.steps([0.0, BEFORE], [0.0, float(treated)], "1/d")
    last = DAYS if treated else BEFORE
    readings = {"P": (days[:BEFORE] + 1.0, trial.z[1, :BEFORE, i], "1"), "R": (days[:last] + 1.0, trial.z[2, :last, i], "1")}
    if not hidden:
        readings["Kin"] = (days[:BEFORE] + 0.5, trial.z[0, :BEFORE, i], "1")
    numbers = zip(("Kin", "P", "R"), trial.mean, trial.sd, strict=True)
    covariates = {f"{word}_{n}": (float(v), "1") for n, mean, sd in numbers for word, v in (("mean", mean), ("sd", sd))}
    return ht.Person.of(f"p{i}", start=0.0, stop=float(DAYS), time="d", signals=signals, readings=readings, covariates=covariates)


def chosen(trial: Trial, given, seed: int):
    """Places of the controls and of the treated that are pooled."""
    few = np.random.default_rng(seed).choice(trial.controls, min(given.controls, trial.controls), replace=False)
    return np.sort(few), np.arange(trial.controls, trial.controls + given.treated)


def effects(trial: Trial, setting: str, given, seed: int):
    """Draws (treated, days, draws) of the effect on those who were pooled, their twins and seconds."""
    import hybridtwin as ht
    from hybridtwin.twin import simulate_worlds

    few, treated = chosen(trial, given, seed)
    cohort = ht.Cohort([record(trial, int(i), setting == "hidden") for i in (*few, *treated)])
    began = time.perf_counter()
    method = ht.HMC(draws=given.draws, chains=2, warmup=60, most=2)
    twins = ht.personalize(model(setting == "damaged"), cohort, method, key=seed, progress=False)
    learned, at, found = time.perf_counter(), np.arange(BEFORE + 1.0, DAYS + 1.0), []
    for i in treated:
        twin = twins[f"p{i}"]
        a, b = simulate_worlds([twin, twin.do(statin=0.0)], at=at, names=("R_z",))
        found.append((a["R_z"] - b["R_z"]).T)
    asked = time.perf_counter()
    return np.array(found), twins, (learned - began, asked - learned)


def solver_error(trial: Trial, count=3) -> float:
    """Mean error of the effect where the body is known: that of our integration."""
    import hybridtwin as ht

    at, missed, known = np.arange(BEFORE + 1.0, DAYS + 1.0), [], model(False).system
    for k in range(count):
        i = trial.controls + k
        body = {f"c{j}": float(c) for j, c in enumerate(trial.coefficients[i])} | {"K": K, "H": H, "D50": D50}
        person, system = record(trial, i, False), known.with_values(body)
        off = dataclasses.replace(person, signals={**person.signals, "statin": ht.Signal.constant(0.0, "1/d")})
        a, b = (ht.simulate(system, p, at=at)["R_z"][0] for p in (person, off))
        missed.append(np.abs(a - b - trial.effect[k]))
    return float(np.mean(missed))


def scored(true, middle, low, high) -> dict:
    """Mean absolute error and coverage at 90 %."""
    return {"mae": float(np.mean(np.abs(middle - true))), "coverage": float(np.mean((low <= true) & (true <= high)))}


def run(setting: str, seed: int, given) -> dict:
    """One seed of one setting."""
    trial = Trial.drawn(np.random.default_rng([seed, list(SETTINGS).index(setting)]), *SETTINGS[setting])
    draws, twins, seconds = effects(trial, setting, given, seed)
    true = trial.effect[: given.treated]
    found = {"ours": scored(true, np.median(draws, axis=-1), *np.quantile(draws, [0.05, 0.95], axis=-1))}
    for name, what in (("bayes_optimal", "hidden" if setting == "hidden" else "all"), ("ridge", "kin")):
        mean, sd = (a[: given.treated] for a in exact(trial, what))
        found[name] = scored(true, mean, mean - 1.6449 * sd, mean + 1.6449 * sd)
    if setting != "damaged":
        drawn = pooled_exact(trial, setting == "hidden", *chosen(trial, given, seed), np.random.default_rng([seed, 1]))
        found["pooled_exact"] = scored(true, np.median(drawn, axis=-1), *np.quantile(drawn, [0.05, 0.95], axis=-1))
    population = twins.population
    levels = [twin.verdict.headline for twin in twins.values()]
    found |= {"setting": setting, "seed": seed, "size": float(np.abs(true).mean()), "seconds": seconds,
              "shared": {k: float(v) for k, v in population.estimates.items()}, "population": population.computed.level,
              "levels": {level: levels.count(level) for level in set(levels)}}  # fmt: skip
    print(f"{setting} seed {seed}: MAE {found['ours']['mae']:.4f}, coverage {found['ours']['coverage']:.3f}; "
          f"{seconds[0]:.0f} s to learn, {seconds[1]:.0f} s to ask", flush=True)  # fmt: skip
    return found


def main():
    """Run every setting and print what the claims rest on."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--treated", type=int, default=60, help="treated that are pooled and asked about")
    parser.add_argument("--controls", type=int, default=10, help="controls that are pooled with them")
    parser.add_argument("--full", action="store_true", help="all treated and all controls: hours")
    parser.add_argument("--draws", type=int, default=100, help="of each of two chains")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS))
    given = parser.parse_args()
    given.treated, given.controls = (TREATED, 1000) if given.full else (given.treated, given.controls)
    measure.use(given.device)
    few = argparse.Namespace(**{**vars(given), "treated": 30, "controls": 4, "draws": 50})  # the damaged law takes far longer
    small = given if given.full else few
    runs = [run(s, seed, small if s == "damaged" else given) for s in given.settings for seed in range(given.seeds)]
    rows, claims = [], {}

    def mean(name, key, setting):
        return float(np.mean([r[name][key] if name in r else np.nan for r in runs if r["setting"] == setting]))

    for setting in given.settings:
        claims[f"mae_{setting}"] = mean("ours", "mae", setting)
        spread = float(np.std([r["ours"]["mae"] for r in runs if r["setting"] == setting]))
        exact_row = [mean(n, "mae", setting) for n in ("pooled_exact", "bayes_optimal", "ridge")]
        covers = [mean(n, "coverage", setting) for n in ("ours", "pooled_exact", "bayes_optimal")]
        rows.append((setting, claims[f"mae_{setting}"], spread, *exact_row, *PUBLISHED.get(setting, ("", "")), *covers))
    heads = ("setting", "ours", "sd", "pooled_exact", "bayes_optimal", "ridge", "SyncTwin", "best other", "cov90", "pooled_exact",
             "bayes_optimal")  # fmt: skip
    print(measure.table(rows, heads))
    lawful = [s for s in given.settings if s not in ("hidden", "damaged")] or given.settings
    claims["coverage"] = float(np.mean([mean("ours", "coverage", s) for s in lawful]))
    claims |= {f"coverage_{s}": mean("ours", "coverage", s) for s in given.settings if s not in lawful}
    oracle = solver_error(Trial.drawn(np.random.default_rng(0), *SETTINGS["200_50"]))
    print(f"oracle (true body, our solver): {oracle:.1e}")
    measure.report("statin", given, claims=claims, runs=runs, published=PUBLISHED, oracle=oracle)


if __name__ == "__main__":
    main()

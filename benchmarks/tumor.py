"""Tumors under treatment: individual counterfactuals of the Causal Transformer's simulator, by twins that know the law.

Each (patient, day) of the test set becomes one twin: volumes and doses up to that day, personalized to `Watched`, the law of
`tumor_law` with its population as prior; all of them are one `ht.Cohort`. Its draws carry the noise of the days to come as well,
shared by all worlds of a draw, so that predictions are means over all that is not known and contrasts have intervals.
Asked are all four arms of that day (one step) and ten plans of five further days (the sixth day). The published test sets have
300,000 such rows; here `--rows` (patient, day) pairs of each set are drawn, half of them evenly, half by the size of what is not
known (variance of the growth under both treatments times the volume squared), and weighted so that squared errors are unbiased.
Few pairs hold most of the error, so a sample of them says little: RMSEs are those of *all* pairs, the exact posterior's own and
what our squared errors differ from it on the pairs that were asked. Coverage, choices and their share of right ones are of the
even half. Rows of reference: `bayes_optimal` (the exact posterior, NumPy), `oracle` (the true parameters), `published`.
Published methods learn from 10,000 patients without being given the law; ours is given law and population and learns from no
other patient.

    python -m benchmarks.tumor --json [--rows 32] [--seeds 5] [--full]
"""

import dataclasses
import functools
import time

import numpy as np

from benchmarks import measure
from benchmarks import tumor_law as law

PUBLISHED = {  # best of the corrected tables 9 and 11 of the Causal Transformer's repository, gamma 0 to 4
    "onestep": (0.755, 0.783, 0.862, 1.057, 1.319),
    "sliding6": (0.789, 0.790, 0.909, 1.177, 1.436),
}
SIDES = ("ours", "bayes_optimal", "oracle")
INSITE, RUNS = 0.788, 10  # six-step, gamma 2, its own rerun of 100 test patients, ten times; 84 s a run
DRAWS, EXACT, TOGETHER = 200, 4000, 500
REGIMENS = {"chemo": (5.0, "mg/m^3"), "radio": (2.0, "Gy")}


@functools.cache
def model():
    """The law in this library's words, read as growth from day to day."""
    import jax.numpy as jnp
    from jax.scipy.special import ndtr, ndtri

    import hybridtwin as ht
    from hybridtwin.system import Scalar

    slope, left = law.CORRELATION * law.RHO[1] / law.ALPHA[1], law.RHO[1] * np.sqrt(1 - law.CORRELATION**2)

    def positive(mean, sd, z):
        """Of a normal that is cut at zero, the value at a standard normal z."""
        return mean - sd * ndtri(ndtr(-z) * ndtr(mean / sd))

    class Watched(ht.System):
        """Geng 2017 day by day, where the volume is measured each day: what grows in a day starts from what was measured.

        The pair (alpha, rho) is a bivariate normal of which both are positive: alpha is a normal cut at zero, rho given alpha
        another; that such a rho exists at all is knowledge of alpha, and enters as a reading: `expected` rho, known to be
        above zero (a censored reading of the sensor `exists`).
        """

        time = "d"
        step = "1 d"
        grid = "1 d"

        class State(ht.State):
            volume: Scalar = ht.state("cm^3")
            drug: Scalar = ht.state("mg/m^3")
            field: Scalar = ht.state("Gy")
            growth: Scalar = ht.state("1", "of the day that ended, as a share", positive=False)

        class Input(ht.Input):
            chemo: Scalar = ht.dose("mg/m^3", into="drug", cmt=2)
            radio: Scalar = ht.dose("Gy", into="field", cmt=3)
            measured: Scalar = ht.signal("cm^3", "volume, 0 where it was not measured", default=0.0)
            ahead: Scalar = ht.signal("1", "days after the last one measured, 0 before", default=0.0)
            more_alpha: Scalar = ht.covariate("1/Gy/d", "of the patient's type")
            more_chemo: Scalar = ht.covariate("m^3/mg/d", "of the patient's type")

        a: Scalar = ht.parameter(ht.normal(0, 1), "1", "radiosensitivity, by rank")
        r: Scalar = ht.parameter(ht.normal(0, 1), "1", "growth, by rank")
        b: Scalar = ht.parameter(ht.normal(0, 1), "1", "effect of chemotherapy, by rank")
        e1: Scalar = ht.parameter(ht.normal(0, law.NOISE), "1/d", "growth beside the law on the first day to come")
        e2: Scalar = ht.parameter(ht.normal(0, law.NOISE), "1/d")
        e3: Scalar = ht.parameter(ht.normal(0, law.NOISE), "1/d")
        e4: Scalar = ht.parameter(ht.normal(0, law.NOISE), "1/d")
        e5: Scalar = ht.parameter(ht.normal(0, law.NOISE), "1/d")
        e6: Scalar = ht.parameter(ht.normal(0, law.NOISE), "1/d")

        def body(self):
            """Alpha and rho less their units, and the rho that alpha lets expect."""
            alpha = positive(law.ALPHA[0], law.ALPHA[1], self.a)
            expected = law.RHO[0] + slope * (alpha - law.ALPHA[0])
            return alpha, positive(expected, left, self.r), expected

        def rates(self, t, x, u):
            day = ht.const(1.0, "d")
            alpha, rho, _ = self.body()
            alpha = alpha * ht.const(1.0, "1/Gy/d") + u.more_alpha
            beta_c = (law.CHEMO[0] + law.CHEMO[1] * self.b) * ht.const(1.0, "m^3/mg/d") + u.more_chemo
            here = jnp.where(u.measured > 0.0, u.measured, x.volume)
            noise = sum(jnp.where(u.ahead == k, e, 0.0 * e) for k, e in enumerate(
                (self.e1, self.e2, self.e3, self.e4, self.e5, self.e6), start=1))  # fmt: skip
            room = ht.const(law.CAPACITY, "cm^3") / (here + ht.const(1e-7, "cm^3"))
            growth = (rho * ht.const(1.0, "1/d") * jnp.log(room) + noise - beta_c * x.drug
                      - alpha * x.field * (1.0 + x.field / ht.const(10.0, "Gy")))  # fmt: skip
            after = here + here * growth * day
            # at the end of the day asked about a patient may have died, and no tumor is less than nothing; what is lived ends so
            # in the simulator, whose other arms of that day, and later days of plans, go on
            lived = jnp.clip(after, 0.0 * after, ht.const(law.DEAD, "cm^3"))
            after = jnp.where((u.ahead > 0.5) & (u.ahead < 1.5), lived, after)
            return self.State(volume=(after - x.volume) / day, drug=-ht.const(0.5, "1/d") * x.drug,
                              field=-x.field / day, growth=growth - x.growth / day)  # fmt: skip

        def outputs(self, x, u):
            return {"tumor": ht.output(x.volume, "cm^3"), "expected": ht.output(self.body()[2], "1")}

        def initial(self, u):
            none = ht.const(0.0, "1")
            drug, field = none * ht.const(1.0, "mg/m^3"), none * ht.const(1.0, "Gy")
            return self.State(volume=u.measured, drug=drug, field=field, growth=none)

    growth, exists = ht.sensors.Gaussian("growth", sd=law.NOISE), ht.sensors.Gaussian("expected", sd=float(left))
    return ht.Model(Watched(), growth=growth, exists=exists)


def record(name: str, lives: law.Lives, patients: law.Patients, who: int, day: int):
    """What is known of a patient on a day: volumes up to it, doses up to and with it; six days to come, their noise unknown."""
    import hybridtwin as ht
    from hybridtwin.records import Series

    days, volume = np.arange(day + 1.0), lives.volume[who, : day + 1]
    given = {"chemo": lives.chemo[who, : day + 1], "radio": lives.radio[who, : day + 1]}
    alpha, chemo = law.KINDS[int(patients.kind[who])]
    readings = {"exists": Series.of([0.0], [0.0], "1", censored=[1], limit=[0.0])}
    if day:
        readings["growth"] = (days[1:], volume[1:] / volume[:-1] - 1, "1")
    return ht.Person.of(
        name, start=0.0, stop=day + law.AHEAD + 1.0, time="d", readings=readings,
        doses={name: ht.Regimen.bolus(REGIMENS[name][0], REGIMENS[name][1], at=list(np.flatnonzero(on).astype(float)))
               for name, on in given.items()},
        signals={"measured": ht.Signal.steps([*days, day + 1.0], [*volume, 0.0], "cm^3"),
                 "ahead": ht.Signal.steps([0.0, *(day + k for k in range(law.AHEAD + 1) if day + k)],
                                          [*([0.0] if day else []), *range(1, law.AHEAD + 2)], "1")},
        covariates={"more_alpha": (alpha, "1/Gy/d"), "more_chemo": (chemo, "m^3/mg/d")},
    )  # fmt: skip


def worlds_of(twin, day: int, plans) -> list:
    """The twin in each world. `plans` (worlds, days, 2): doses of `day`, or where there are five days of those behind it."""
    import hybridtwin as ht

    first = day + (plans.shape[1] > 1)

    def put(name, on):
        amount, unit = REGIMENS[name]
        more = ht.Regimen.bolus(amount, unit, at=list(first + np.flatnonzero(on).astype(float)))
        return lambda old: old.without(first, first + 6.0) + more

    return [twin.do(chemo=put("chemo", plan[:, 0]), radio=put("radio", plan[:, 1])) for plan in plans]


def answers(twins, questions: law.Questions):
    """Volumes (N, worlds, steps, draws) in every world of every twin, with the same draws."""
    from hybridtwin.twin import simulate_worlds

    found, one = [], questions.truth.shape[1] == len(law.ARMS)
    plans = law.ARMS[:, None] if one else law.PLANS
    for twin, day in zip(twins, questions.day, strict=True):
        at = [day + 1.0] if one else np.arange(day + 2.0, day + law.AHEAD + 2.0)
        courses = simulate_worlds(worlds_of(twin, int(day), plans), at=at, names=("tumor",))
        found.append(np.stack([c["tumor"] for c in courses]).transpose(0, 2, 1))
    return np.stack(found)


def drawn(rng, lives, patients, questions: law.Questions, rows: int):
    """Rows of the set, half of them evenly, half by what is not known, and the weight that makes their squares unbiased."""
    _, covariance = law.gaussian(lives, patients, questions)
    dose = np.array([0.0, -5.0, -2.4])
    spread = np.einsum("i,nij,j->n", dose, covariance, dose) + law.NOISE**2
    size = lives.volume[questions.who, questions.day] ** 2 * spread
    n = len(size)
    chance = 0.5 / n + 0.5 * size / size.sum()
    even = rng.choice(n, rows // 2)
    picked = np.concatenate([even, rng.choice(n, rows - rows // 2, p=size / size.sum())])
    _, first = np.unique(picked, return_index=True)
    order = np.sort(first)  # a row that comes twice is asked once and counts twice
    counts = np.array([np.sum(picked == picked[i]) for i in order])
    return picked[order], counts / (n * chance[picked[order]]) / rows, order < rows // 2


def scored(predicted, truth, weight, evenly, decide):
    """Mean square error of the last step; of contrasts: coverage at 90 %, choice of two worlds, and what a wrong one costs.

    predicted (N, worlds, draws) and truth (N, worlds) of the last step; `decide`: pairs of worlds.
    """
    mean, a, b = np.nanmean(predicted, axis=-1), *np.array(decide).T
    ok = np.isfinite(truth)
    square = np.where(ok, (mean - np.where(ok, truth, 0.0)) ** 2, 0.0)
    share = weight @ ok.mean(axis=1)  # rows of the set that are left out count for nothing
    low, high = np.nanquantile(predicted[:, a] - predicted[:, b], [0.05, 0.95], axis=-1)
    true = truth[:, a] - truth[:, b]
    told = ok[:, a] & ok[:, b]
    inside = (low <= true) & (true <= high)
    right = np.sign(mean[:, a] - mean[:, b]) == np.sign(true)
    lost = np.where(told & ~right, np.abs(np.where(told, true, 0.0)), 0.0).mean(axis=1)
    even = told & evenly[:, None]
    return {
        "square": float((100 / law.DEAD) ** 2 * (weight @ square.mean(axis=1)) / share),
        "coverage": [int(inside[even].sum()), int(even.sum())],
        "right": [int(right[even].sum()), int(even.sum())],
        "regret": float(100 / law.DEAD * (weight @ lost)),
    }


@dataclasses.dataclass(frozen=True)
class Set:
    """One test set of one seed, and the pairs that are asked of it. `kind` is onestep or sliding6."""

    kind: str
    gamma: int
    policy: str
    seed: int
    lives: law.Lives
    patients: law.Patients
    questions: law.Questions
    weight: np.ndarray
    evenly: np.ndarray
    everything: law.Questions

    @classmethod
    def made(cls, kind, gamma, policy, seed, rows, count=1000) -> "Set":
        asked = law.one_step if kind == "onestep" else law.sliding
        rng = np.random.default_rng([seed, gamma, kind == "onestep"])
        patients, chance = law.Patients.drawn(rng, count), law.Chance.drawn(rng, count)
        rows_of = law.rows_of(asked)
        lives = law.lived(patients, chance, gamma) if policy == "fixed" else law.coded(patients, chance, gamma, rows_of)
        everything = asked(lives, patients, chance)
        picked, weight, evenly = drawn(rng, lives, patients, everything, rows)
        return cls(kind, gamma, policy, seed, lives, patients, everything.of(picked), weight, evenly, everything)

    def squares(self) -> tuple[float, float]:
        """Mean square errors of the last step over all pairs: of the exact posterior, and of the true parameters."""
        rng, lost, count = np.random.default_rng(self.seed), np.zeros(2), np.zeros(2)
        for at in range(0, len(self.everything.who), TOGETHER):
            part = self.everything.of(np.arange(at, min(at + TOGETHER, len(self.everything.who))))
            truth, n = part.truth[:, :, -1], len(part.who)
            noise = law.NOISE * rng.standard_normal((n, law.AHEAD + 1, DRAWS))
            exact = law.forecast(self.lives, part, law.exact(self.lives, self.patients, part, rng, DRAWS), noise)
            quiet = law.forecast(self.lives, part, self.true(part), np.zeros((n, law.AHEAD + 1, 1)))
            ok = np.isfinite(truth)
            for k, found in enumerate((exact, quiet)):
                square = (np.nanmean(found[:, :, -1][ok], axis=-1) - truth[ok]) ** 2
                lost[k] += np.nansum(square)
                count[k] += np.sum(np.isfinite(square))
        return tuple((100 / law.DEAD) ** 2 * lost / count)

    def true(self, questions: law.Questions) -> law.Bodies:
        """The bodies of the patients asked about, as they are."""
        names = [f.name for f in dataclasses.fields(law.Bodies)]
        return law.Bodies(*(getattr(self.patients, name)[questions.who][:, None] for name in names))

    def records(self, name: str) -> list:
        """One record a pair; `name` tells sets apart."""
        pairs = zip(self.questions.who, self.questions.day, strict=True)
        return [record(f"{name}:{i}@{t}", self.lives, self.patients, int(i), int(t)) for i, t in pairs]


def asked(sets: list[Set], key: int) -> tuple[list[dict], float]:
    """All pairs of all sets as one cohort: scores of each set, and seconds."""
    import hybridtwin as ht

    began = time.perf_counter()
    people = [one.records(str(k)) for k, one in enumerate(sets)]
    cohort, method = ht.Cohort([p for part in people for p in part]), ht.Importance(draws=DRAWS, batch=256)
    twins = list(ht.personalize(model(), cohort, method, key=key, progress=False).values())
    learned, found = time.perf_counter(), []
    for one in sets:
        mine, twins = twins[: len(one.weight)], twins[len(one.weight) :]
        found.append((one, mine, answers(mine, one.questions)))
    done = time.perf_counter()
    print(f"{sum(map(len, people))} twins of {len(sets)} sets: {learned - began:.0f} s to learn, {done - learned:.0f} s to ask",
          flush=True)  # fmt: skip
    from hybridtwin.engine import side_by_side

    return side_by_side([functools.partial(one_set, *each) for each in found]), done - began


def one_set(one: Set, twins, ours) -> dict:
    """Scores of one set, beside those of the exact posterior and of the true parameters."""
    rng, n, questions = np.random.default_rng(one.seed), len(one.weight), one.questions
    noise = law.NOISE * rng.standard_normal((n, law.AHEAD + 1, EXACT))
    exact = law.forecast(one.lives, questions, law.exact(one.lives, one.patients, questions, rng, EXACT), noise)
    quiet = np.zeros((n, law.AHEAD + 1, 1))
    sides = {"ours": ours, "bayes_optimal": exact, "oracle": law.forecast(one.lives, questions, one.true(questions), quiet)}
    decide = [(1, 2), (3, 0)] if one.kind == "onestep" else [(5 + k, k) for k in range(5)]  # radiotherapy or chemotherapy?
    scores = {name: scored(v[:, :, -1], questions.truth[:, :, -1], one.weight, one.evenly, decide) for name, v in sides.items()}
    levels = [twin.verdict.headline for twin in twins]
    every = dict(zip(SIDES[1:], one.squares(), strict=True))
    every["ours"] = every["bayes_optimal"] + scores["ours"]["square"] - scores["bayes_optimal"]["square"]
    for name, side in scores.items():
        side |= {"rmse": float(np.sqrt(max(every[name], 0.0))), "rmse_asked": float(np.sqrt(side.pop("square")))}
    told = {"kind": one.kind, "gamma": one.gamma, "policy": one.policy, "seed": one.seed, "pairs": n}
    told["of"] = len(one.everything.who)
    return told | scores | {"levels": {level: levels.count(level) for level in set(levels)}}


def together(runs: list[dict], side: str) -> dict:
    """Runs of several seeds: mean and sd of the RMSE and of the regret, shares over all."""
    rmse = [r[side]["rmse"] for r in runs]
    shares = {k: np.sum([r[side][k] for r in runs], axis=0) for k in ("coverage", "right")}
    return {"rmse": float(np.mean(rmse)), "sd": float(np.std(rmse, ddof=1)) if len(rmse) > 1 else 0.0,
            "regret": float(np.mean([r[side]["regret"] for r in runs])),
            **{k: float(a / max(n, 1)) for k, (a, n) in shares.items()}}  # fmt: skip


def insite(given) -> dict:
    """INSITE's setting, as often: 100 test patients at confounding 2, policy as coded; its 1,000 + 100 others are not needed."""
    found, seconds = [], []
    for seed in range(RUNS):
        scores, spent = asked([Set.made("sliding6", 2, "coded", 100 + seed, given.rows_insite, count=100)], seed)
        found, seconds = found + scores, [*seconds, spent]
    return {side: together(found, side) for side in SIDES} | {"seconds": seconds, "pairs": [r["pairs"] for r in found]}


def main():
    """Ask every set and print what the claims rest on."""
    parser = measure.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=32, help="pairs of each set and seed, half as many under the fixed policy")
    parser.add_argument("--gammas", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--policies", nargs="+", default=["coded", "fixed"])
    parser.add_argument("--rows-insite", type=int, default=128, help="the same of each run in INSITE's setting")
    parser.add_argument("--full", action="store_true", help="1,000 pairs of each set: hours")
    given = parser.parse_args()
    given.rows, given.rows_insite = (1000, 1000) if given.full else (given.rows, given.rows_insite)
    measure.use(given.device)
    names = [(kind, gamma, policy, seed) for policy in given.policies for kind in PUBLISHED for gamma in given.gammas
             for seed in range(given.seeds)]  # fmt: skip
    sets = [Set.made(*name, given.rows if name[2] == "coded" else given.rows // 2) for name in names]
    runs, seconds = asked(sets, 0)
    table, claims = [], {}
    for policy in given.policies:
        for kind, best in PUBLISHED.items():
            for gamma in given.gammas:
                mine = [r for r in runs if (r["kind"], r["gamma"], r["policy"]) == (kind, gamma, policy)]
                ours, exact, oracle = (together(mine, side) for side in SIDES)
                claims[f"{kind}_{gamma}" if policy == "coded" else f"{kind}_{gamma}_fixed"] = ours["rmse"]
                table.append((policy, kind, gamma, ours["rmse"], ours["sd"], exact["rmse"], oracle["rmse"],
                              best[gamma] if policy == "coded" else "", ours["coverage"], exact["coverage"], ours["right"],
                              exact["right"], ours["regret"], exact["regret"]))  # fmt: skip
    heads = ("policy", "asked", "gamma", "ours", "sd", "bayes", "oracle", "published",
             "cov90", "bayes", "P(right)", "bayes", "regret", "bayes")  # fmt: skip
    print(measure.table(table, heads))
    six = [r for r in runs if r["kind"] == "sliding6" and r["policy"] == "coded"] or runs
    every, exact = together(six, "ours"), together(six, "bayes_optimal")
    apart = insite(given)
    claims |= {"coverage": every["coverage"], "p_correct": every["right"], "regret": every["regret"],
               "regret_bayes": exact["regret"], "insite6": apart["ours"]["rmse"],
               "insite_seconds": float(np.median(apart["seconds"]))}  # fmt: skip
    print(f"INSITE's setting: {apart['ours']['rmse']:.3f} (exact {apart['bayes_optimal']['rmse']:.3f}; published {INSITE}), "
          f"{claims['insite_seconds']:.1f} s a run of {int(np.median(apart['pairs']))} pairs")  # fmt: skip
    pairs = sum(r["pairs"] for r in runs)
    levels = {level: sum(r["levels"].get(level, 0) for r in runs) for level in ("OK", "CAUTION", "DO NOT USE")}
    print(f"{pairs} twins in {seconds:.0f} s, verdicts: {levels}")
    measure.report("tumor", given, claims=claims, runs=runs, insite=apart, published=PUBLISHED, levels=levels)


if __name__ == "__main__":
    main()

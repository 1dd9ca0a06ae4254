"""Structural causal models whose answers are known in closed form: linear-Gaussian ones, and discrete ones with hidden types.

The closed forms are done here in NumPy (Gaussian conditioning, enumeration of types), or printed in a book.
"""

import dataclasses
import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

import hybridtwin as ht
from hybridtwin.system import Scalar
from hybridtwin.twin import simulate_worlds

# ------------------------------------------------------------------------------------------------ linear, in continuous time


class Chain(ht.System):
    """dX/dt = p - k X + share of each dose, dM/dt = a X - c M, seen: y = b M + d X. Linear in X0, p and share alike."""

    time = "h"

    class State(ht.State):
        X: Scalar = ht.state("mg", positive=False)
        M: Scalar = ht.state("mg", positive=False)

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="X")

    X0: Scalar = ht.parameter(ht.normal(4.0, 1.0), "mg", initial=True)
    p: Scalar = ht.parameter(ht.normal(2.0, 0.5), "mg/h")
    share: Scalar = ht.parameter(ht.normal(0.9, 0.2), "1")
    k: Scalar = ht.constant(0.5, "1/h")
    a: Scalar = ht.constant(0.8, "1/h")
    c: Scalar = ht.constant(0.3, "1/h")
    b: Scalar = ht.constant(1.5, "1")
    d: Scalar = ht.constant(-0.4, "1")

    def dosing(self, u):
        return {"iv": ht.route(fraction=self.share)}

    def rates(self, t, x, u):
        return self.State(X=self.p - self.k * x.X, M=self.a * x.X - self.c * x.M)

    def outputs(self, x, u):
        return {"y": ht.output(self.b * x.M + self.d * x.X, "mg")}

    def initial(self, u):
        return self.State(X=self.X0, M=0.0 * self.X0)


MEAN, SPREAD, SD = np.array([4.0, 2.0, 0.9]), np.array([1.0, 0.5, 0.2]), 0.7
TIMES, READ = np.array([1.0, 2.0, 3.5, 5.0, 7.0, 9.0]), np.array([3.2, 6.9, 15.1, 16.8, 17.9, 20.4])
LATER = np.array([4.5, 6.0, 8.0, 10.0])


def design(times, doses, k=((0.0, 0.5),), held=None):
    """(N, 3), (N,): y = rows @ (X0, p, share) + rest, by matrix exponentials. `k`: (since, value); `held`: (since, X)."""
    rows = np.zeros((len(times), 3))
    rest = np.zeros(len(times))
    for j in range(4):  # the column of each unknown, then what is left with all of them at zero
        unit = np.eye(4)[j]
        for i, t in enumerate(times):
            x = np.array([unit[0], 0.0, 1.0])
            events = sorted({0.0, t, *(s for s, _ in doses if s < t), *(s for s, _ in k if s < t)}
                            | ({held[0]} if held and held[0] < t else set()))  # fmt: skip
            for here, there in itertools.pairwise(events):
                x[0] += sum(unit[2] * amount for s, amount in doses if s == here)
                now = [v for s, v in k if s <= here][-1]
                flow = np.array([[-now, 0.0, unit[1]], [0.8, -0.3, 0.0], [0.0, 0.0, 0.0]])
                if held and here >= held[0]:
                    flow[0], x[0] = 0.0, held[1] if j == 3 else 0.0
                x = expm((there - here) * flow) @ x
            if held and t == held[0]:
                x[0] = held[1] if j == 3 else 0.0
            value = 1.5 * x[1] - 0.4 * x[0]
            if j < 3:
                rows[i, j] = value
            else:
                rest[i] = value
    return rows, rest


def conditioned(rows):
    """Posterior mean and covariance of the three unknowns, and the log evidence, by Gaussian conditioning."""
    prior = np.diag(SPREAD**2)
    total = rows @ prior @ rows.T + SD**2 * np.eye(len(rows))
    gain = prior @ rows.T @ np.linalg.inv(total)
    evidence = stats.multivariate_normal(rows @ MEAN, total).logpdf(READ)
    return MEAN + gain @ (READ - rows @ MEAN), prior - gain @ rows @ prior, evidence


DRAWS = 800


@functools.cache
def chain_twin():
    person = ht.Person.of("ida", time="h", start=0.0, stop=10.0, doses={"iv": ht.Regimen.bolus([6.0, 8.0], "mg", at=[0.5, 4.0])},
                          readings={"y": (TIMES, READ, "mg")})  # fmt: skip
    model = ht.Model(Chain(), y=ht.sensors.Gaussian("y", sd=SD))
    return ht.personalize(model, person, ht.Laplace(draws=DRAWS, starts=2), key=0, progress=False)


LIVED = ((0.5, 6.0), (4.0, 8.0))


def test_a_linear_gaussian_body_is_abducted_exactly():
    """Mode, density, evidence and draws against Gaussian conditioning: the Laplace approximation has nothing to approximate."""
    twin = chain_twin()
    rows, rest = design(TIMES, LIVED)
    assert np.allclose(rest, 0.0)
    mean, cov, evidence = conditioned(rows)
    fit, names = twin.fits[0], ("X0", "p", "share")
    mode = twin.mode()
    np.testing.assert_allclose([mode[n] for n in names], mean, rtol=1e-6)
    assert fit.log_evidence == pytest.approx(evidence, abs=1e-5)
    some = np.random.default_rng(0).normal(size=(20, 3))
    there = np.array([fit.problem.density(z) for z in some])
    values = MEAN + SPREAD * some
    wanted = stats.norm.logpdf(some).sum(axis=1) + stats.norm.logpdf(READ, values @ rows.T, SD).sum(axis=1)
    np.testing.assert_allclose(there, wanted, rtol=1e-9)
    drawn = np.stack([fit.values[n] for n in names], axis=1)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * np.sqrt(np.diag(cov).max() / DRAWS))
    np.testing.assert_allclose(np.cov(drawn.T), cov, atol=5 * np.diag(cov).max() / np.sqrt(DRAWS))
    assert twin.verdict.parts["computed"].level == "OK"


DOSED = dict(iv=lambda doses: 0.5 * doses)
WORLDS = {
    "half the doses": (lambda t: t.do(**DOSED), {"doses": ((0.5, 3.0), (4.0, 4.0))}),
    "a dose later": (lambda t: t.do(iv=lambda d: d.shift(1.5, "h"), start=3.0), {"doses": ((0.5, 6.0), (5.5, 8.0))}),
    "a faster way out": (lambda t: t.do(k=0.9, start=3.0), {"doses": LIVED, "k": ((0.0, 0.5), (3.0, 0.9))}),
    "a state held": (lambda t: t.do(X=(5.0, "mg"), start=3.0), {"doses": LIVED, "held": (3.0, 5.0)}),
}


@pytest.mark.parametrize("world", WORLDS)
def test_interventions_and_counterfactuals_of_a_linear_gaussian_body(world):
    """Draw by draw by the design of the other world; over draws, mean and variance of the Gaussian that conditioning gives."""
    do, told = WORLDS[world]
    twin = dataclasses.replace(chain_twin(), draws=DRAWS)
    other = do(twin)
    lived, _ = design(TIMES, LIVED)
    mean, cov, _ = conditioned(lived)
    drawn = np.stack([twin.fits[0].values[n] for n in ("X0", "p", "share")], axis=1)

    rows, rest = design(LATER, **told)  # the intervention: a body like hers, at times at which nobody looked
    course = other.simulate(at=LATER)["y"]
    np.testing.assert_allclose(course, drawn @ rows.T + rest, rtol=1e-5)
    spread = np.sqrt(np.einsum("ni,ij,nj->n", rows, cov, rows))
    np.testing.assert_allclose(course.mean(axis=0), rows @ mean + rest, atol=4.5 * spread.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(course.std(axis=0), spread, rtol=4.5 / np.sqrt(2 * DRAWS), atol=1e-9)

    rows, rest = design(TIMES, **told)  # the counterfactual: her own day, what the readings say beside the model kept
    kept = other.counterfactual()["y"].readings
    change, moved = rows - lived, rest
    np.testing.assert_allclose(kept, READ + drawn @ change.T + moved, rtol=1e-5)
    spread = np.sqrt(np.einsum("ni,ij,nj->n", change, cov, change))
    np.testing.assert_allclose(kept.mean(axis=0), READ + change @ mean + moved, atol=4.5 * spread.max() / np.sqrt(DRAWS) + 1e-6)
    np.testing.assert_allclose(kept.std(axis=0), spread, rtol=4.5 / np.sqrt(2 * DRAWS), atol=1e-6)
    assert np.array_equal(twin.do().counterfactual()["y"].readings, np.broadcast_to(READ, kept.shape))

    again = other.predicted("y", LATER).readings  # and somebody like her on such a day, read anew
    rows, rest = design(LATER, **told)
    spread = np.sqrt(np.einsum("ni,ij,nj->n", rows, cov, rows) + SD**2)
    np.testing.assert_allclose(again.std(axis=0), spread, rtol=4.5 / np.sqrt(2 * DRAWS))


# ------------------------------------------------------------------------------------------------ linear, in steps


class Homework(ht.System):
    """Encouragement X, homework H := .5 X + U_H, score Y := .7 X + .4 H + U_Y, in steps of a day: H the day after, then Y.

    Source: Pearl, Glymour and Jewell 2016, Causal Inference in Statistics: A Primer, section 4.2.3, model 4.1.
    """

    time = "d"
    step = "1 d"

    class State(ht.State):
        H: Scalar = ht.state("1", positive=False)
        Y: Scalar = ht.state("1", positive=False)

    class Input(ht.Input):
        X: Scalar = ht.signal("1", default=0.0)
        Z: Scalar = ht.signal("1", "what else moves the score", default=0.0)

    U_H: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1")
    U_Y: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1")
    a: Scalar = ht.constant(0.5, "1")
    b: Scalar = ht.constant(0.7, "1")
    c: Scalar = ht.constant(0.4, "1")
    e: Scalar = ht.constant(0.3, "1")

    def rates(self, t, x, u):
        day = ht.const(1.0, "d")
        return self.State(
            H=(self.a * u.X + self.U_H - x.H) / day, Y=(self.b * u.X + self.c * x.H + self.e * u.Z + self.U_Y - x.Y) / day
        )


@functools.cache
def joe():
    """X = .5, H = 1, Y = 1.5, seen to a thousandth."""
    person = ht.Person.of("joe", time="d", start=0.0, stop=2.0, signals={"X": ht.Signal.constant(0.5, "1")},
                          readings={"h": ([1.0], [1.0], "1"), "y": ([2.0], [1.5], "1")})  # fmt: skip
    model = ht.Model(Homework(), h=ht.sensors.Gaussian("H", sd=1e-3), y=ht.sensors.Gaussian("Y", sd=1e-3))
    return ht.personalize(model, person, ht.Laplace(draws=400, starts=2), key=0, progress=False)


def test_joe_and_his_homework():
    """The book's numbers: U_H = .75, U_Y = .75, and had he done twice as much homework his score would have been 1.90."""
    twin = joe()
    for name in ("U_H", "U_Y"):
        assert np.mean(twin.fits[0].values[name]) == pytest.approx(0.75, abs=1e-3)
    twice = twin.do(H=(2.0, "1"))
    found = twice.counterfactual()["y"].readings[:, 0]
    assert found.mean() == pytest.approx(1.90, abs=2e-4) and found.std() == pytest.approx(0.4 * 1e-3, rel=0.15)
    somebody = twice.simulate(at=[2.0], prior=True)["Y"][:, 0]  # no abduction: Y under do(H = 2) of anybody with X = .5
    assert somebody.mean() == pytest.approx(0.7 * 0.5 + 0.4 * 2.0, abs=0.25) and somebody.std() == pytest.approx(1.0, rel=0.2)


def test_paths_and_shares_are_products_of_coefficients():
    twin = joe()
    more = twin.do(X=1.5)
    y = ht.outcomes.at("Y", 2.0, better="higher")
    lived, total, direct = simulate_worlds([twin, more, more.do(H=ht.as_in(twin))], at=[2.0])
    np.testing.assert_allclose(total["Y"] - lived["Y"], 0.7 + 0.4 * 0.5, rtol=1e-9)
    np.testing.assert_allclose(direct["Y"] - lived["Y"], 0.7, rtol=1e-9)
    found = ht.path_effect(more, twin, y, through="H")
    for part, wanted in {"total": 0.9, "direct": 0.7, "indirect": 0.2, "alone": 0.2}.items():
        np.testing.assert_allclose(found.draws[part], wanted, rtol=1e-9, err_msg=part)
    assert found.error < 1e-12 and found.ways == ("X -> H -> Y",)

    both = twin.do(X=1.5).do(Z=2.0)
    why = ht.explain(both, y, baseline={"X": 0.5, "Z": 0.0}, windows=1)
    assert why.shares is not None
    shares = dict(zip((p.parts[0][0] for p in why.shares.players), why.shares.draws, strict=True))
    np.testing.assert_allclose(shares["X"], 0.9 * (1.5 - 0.5), rtol=1e-9)
    np.testing.assert_allclose(shares["Z"], 0.3 * 2.0, rtol=1e-9)
    for name, wanted in {"X": 0.9, "Z": 0.3, "U_H": 0.4, "U_Y": 1.0}.items():
        np.testing.assert_allclose(why.sensitivity[name].draws, wanted, rtol=1e-6, err_msg=name)


# ------------------------------------------------------------------------------------------------ discrete, with hidden types


class Squad(ht.System):
    """Court order U, captain C := U, riflemen A := C or W (nervous) and B := C, prisoner dead D := A or B, in steps of a minute.

    U and W are thresholds of standard normals: U with probability `p`, W with `q`. Source: Pearl 2009, Causality, 7.1.2.
    """

    time = "min"
    step = "1 min"

    class State(ht.State):
        C: Scalar = ht.state("1")
        A: Scalar = ht.state("1")
        B: Scalar = ht.state("1")
        D: Scalar = ht.state("1")

    order: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1", "ordered where above a threshold")
    nerves: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1", "nervous where above a threshold")
    ordered: Scalar = ht.constant(float(stats.norm.isf(0.4)), "1")
    nervous: Scalar = ht.constant(float(stats.norm.isf(0.3)), "1")

    def rates(self, t, x, u):
        def either(a, b):
            return jnp.where((a > 0.5) | (b > 0.5), 1.0, 0.0)

        U, W = jnp.where(self.order > self.ordered, 1.0, 0.0), jnp.where(self.nerves > self.nervous, 1.0, 0.0)
        now = {"C": U, "A": either(x.C, W), "B": either(x.C, 0.0 * x.C), "D": either(x.A, x.B)}
        return self.State(**{n: (v - getattr(x, n)) / ht.const(1.0, "min") for n, v in now.items()})


@pytest.mark.heavy
def test_the_firing_squad():
    """Alive had A not shot, though dead: 1 - p / (1 - (1 - p) (1 - q)), by the book; and what A's not shooting does as such."""
    p, q = 0.4, 0.3
    sensor = ht.sensors.Gaussian("D", sd=0.05)
    person = ht.Person.of("prisoner", time="min", start=0.0, stop=3.0, readings={"dead": ([3.0], [1.0], "1")})
    method = ht.SMC(particles=1024)
    twin = ht.personalize(ht.Model(Squad(), dead=sensor), person, method, key=0, progress=False)
    twin = dataclasses.replace(twin, draws=1024)
    spared = twin.do(A=(0.0, "1"))
    assert np.all(twin.simulate(at=[3.0])["D"] == 1.0)
    alive = 1.0 - spared.counterfactual()["dead"].readings[:, 0]
    dead = 1 - (1 - p) * (1 - q)
    assert alive.mean() == pytest.approx(1 - p / dead, abs=0.06)
    order = twin.fits[0].values["order"] > stats.norm.isf(p)
    assert order.mean() == pytest.approx(p / dead, abs=0.06)
    prior = spared.simulate(at=[3.0], prior=True)["D"][:, 0]  # P(D) under do(A = 0), of anybody: the order alone
    assert prior.mean() == pytest.approx(p, abs=4.5 * np.sqrt(p * (1 - p) / len(prior)))
    assert np.array_equal(twin.do().counterfactual()["dead"].readings, np.ones((len(alive), 1)))


class Types(ht.System):
    """A treatment x and one of four hidden types: dies anyway, helped, hurt, recovers anyway; well after a day or not.

    Source of the types: Balke and Pearl 1994, doi:10.1016/B978-1-55860-332-5.50011-0.
    """

    time = "d"
    step = "1 d"

    class State(ht.State):
        well: Scalar = ht.state("1")

    class Input(ht.Input):
        x: Scalar = ht.signal("1", default=0.0)

    kind: Scalar = ht.parameter(ht.normal(0.0, 1.0), "1", "which type, by thresholds")
    first: Scalar = ht.constant(float(stats.norm.ppf(0.3)), "1")
    second: Scalar = ht.constant(float(stats.norm.ppf(0.3 + 0.35)), "1")
    third: Scalar = ht.constant(float(stats.norm.ppf(0.3 + 0.35 + 0.1)), "1")

    def rates(self, t, x, u):
        helped = (self.kind > self.first) & (self.kind <= self.second)
        hurt = (self.kind > self.second) & (self.kind <= self.third)
        treated = u.x > 0.5
        well = (self.kind > self.third) | (helped & treated) | (hurt & ~treated)
        return self.State(well=(jnp.where(well, 1.0, 0.0) - x.well) / ht.const(1.0, "d"))


@pytest.mark.parametrize(("treated", "well"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_four_types_of_patients(treated, well):
    """The probability that she would be well under the other treatment, by enumeration of the types that fit what was seen."""
    share = {"never": 0.3, "helped": 0.35, "hurt": 0.1, "always": 0.25}
    outcome = {"never": (0, 0), "helped": (0, 1), "hurt": (1, 0), "always": (1, 1)}
    fits = {name: part for name, part in share.items() if outcome[name][int(treated)] == well}
    wanted = sum(part * outcome[name][int(1 - treated)] for name, part in fits.items()) / sum(fits.values())
    person = ht.Person.of("p", time="d", start=0.0, stop=1.0, signals={"x": ht.Signal.constant(treated, "1")},
                          readings={"seen": ([1.0], [well], "1")})  # fmt: skip
    model = ht.Model(Types(), seen=ht.sensors.Gaussian("well", sd=0.05))
    twin = ht.personalize(model, person, ht.SMC(particles=1024), key=0, progress=False)
    other = dataclasses.replace(twin, draws=1024).do(x=1.0 - treated)
    assert other.counterfactual()["seen"].readings.mean() == pytest.approx(wanted, abs=0.06)
    anybody = other.simulate(at=[1.0], prior=True)["well"].mean()
    by_treatment = sum(part * outcome[name][int(1 - treated)] for name, part in share.items())
    assert anybody == pytest.approx(by_treatment, abs=0.1)

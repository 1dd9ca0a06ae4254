"""Process noise: one path whatever the steps, mesh and world; strong order and moments against closed forms."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import hybridtwin as ht
from hybridtwin.errors import DeclarationError, ParameterError, UnitError
from hybridtwin.inference.methods import Laplace
from hybridtwin.interventions import Do, When, World
from hybridtwin.paths import Wiener
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.noise import keys_of
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.solve import Extras, observer, states
from hybridtwin.simulate.steppers import RK4, Exact, Repeated
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Scalar
from hybridtwin.twin import simulate_worlds


class Growth(ht.System):
    """Geometric Brownian motion: dx = a x dt + b x dW."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("1")

    a: Scalar = ht.constant(0.3, "1/h")
    b: Scalar = ht.constant(0.8, "1/h^0.5")

    def rates(self, t, x, u):
        return self.State(x=self.a * x.x)

    def diffusion(self, t, x, u):
        return self.State(x=self.b * x.x)

    def initial(self, u):
        return self.State(x=1.0)


class Wanders(ht.System):
    """Ornstein-Uhlenbeck about a level, beside a compartment without noise: dy = -k (y - m) dt + s dW, dA/dt = -k A."""

    time = "h"

    class State(ht.State):
        y: Scalar = ht.state("mg/L", positive=False)
        amount: Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="amount")

    k: Scalar = ht.parameter(ht.typical(0.7, cv=0.3), "1/h")
    m: Scalar = ht.constant(1.5, "mg/L")
    s: Scalar = ht.constant(0.6, "mg/L/h^0.5")
    V: Scalar = ht.constant(10.0, "L")

    def rates(self, t, x, u):
        return self.State(y=-self.k * (x.y - self.m), amount=-self.k * x.amount)

    def diffusion(self, t, x, u):
        return self.State(y=self.s, amount=0.0)

    def outputs(self, x, u):
        return {"C": ht.output(x.y + x.amount / self.V, "mg/L")}


class Logistic(ht.System):
    """dx = r x (1 - x / K) dt + s sqrt(x) dW: nonlinear in both, and it can reach zero."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("1")

    r: Scalar = ht.constant(1.0, "1/h")
    s: Scalar = ht.constant(0.5, "1/h^0.5")
    start: Scalar = ht.constant(0.8, "1")

    def rates(self, t, x, u):
        return self.State(x=self.r * x.x * (1.0 - x.x))

    def diffusion(self, t, x, u):
        return self.State(x=self.s * jnp.sqrt(x.x))

    def initial(self, u):
        return self.State(x=self.start)


EMPTY = Person.of("p", start=0.0, stop=4.0)


def test_what_is_declared():
    assert Growth.spec.noise == (("x", True),) and Wanders.spec.noise == (("y", False),)
    assert Growth().spec.linear
    with pytest.raises(UnitError, match="noise of x"):

        class Wrong(ht.System):
            time = "h"

            class State(ht.State):
                x: Scalar = ht.state("mg")

            b: Scalar = ht.constant(0.8, "1/h")

            def rates(self, t, x, u):
                return self.State(x=-self.b * x.x)

            def diffusion(self, t, x, u):
                return self.State(x=self.b * x.x)


def ends(system, counts, lanes, max_step, name):
    """End value of some lanes with several numbers of sub-steps, and W there: {count: (L,)}, (L,)."""
    spec = system.spec
    bound = EMPTY.bind(spec)
    world = World(bound.inputs, bound.start, bound.stop, bound.resets)
    layout = layout_of([world], spec, noise=True)
    mesh = lay([world], spec, layout, [(4.0, LAST)], max_step=max_step)[0]
    with jax.enable_x64(True):
        keys = keys_of(jax.random.key(3), np.arange(lanes))

        @jax.jit
        @functools.partial(jax.vmap, in_axes=(0, None))
        def run(key, count):
            extras = Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0), key)
            path, _ = states(system, layout, Repeated(RK4(), count), mesh, system.initial(None), extras, observer((name,)))
            return path[mesh.read][0, 0]

        def at_the_end(key):
            wiener = Wiener.over(jax.random.wrap_key_data(key, impl="threefry2x32"), mesh.cells, 1)
            return wiener.at(4.0)[0] - wiener.at(0.0)[0]

        return ({n: np.asarray(run(keys, jnp.asarray(n))) for n in counts}, np.asarray(jax.jit(jax.vmap(at_the_end))(keys)))


def test_strong_order_one_on_the_path_of_geometric_brownian_motion():
    found, w = ends(Growth(), (1, 2, 4, 8, 16), 400, 0.25, "x")
    wanted = np.exp((0.3 - 0.8**2 / 2) * 4.0 + 0.8 * w)
    errors = np.array([np.sqrt(np.mean((found[n] - wanted) ** 2)) for n in found]) / np.sqrt(np.mean(wanted**2))
    order = -np.polyfit(np.log2(list(found)), np.log2(errors), 1)[0]
    assert 0.85 < order < 1.2, (errors, order)
    assert errors[-1] < 0.02
    assert stats.kstest(w / 2.0, "norm").pvalue > 1e-3


def test_moments_of_ornstein_uhlenbeck():
    body, at = Wanders(k=0.7), np.array([0.5, 1.0, 2.0, 4.0])
    person = Person.of("p", start=0.0, stop=4.0, doses={"iv": Regimen.bolus(20.0, "mg", at=0.0)})
    found = simulate(body, person, at=at, draws=1500, key=7)
    assert not found.failed.any() and found.error < 0.05
    np.testing.assert_allclose(found["amount"], np.tile(20 * np.exp(-0.7 * at), (1500, 1)), rtol=1e-4)
    y, shrunk = found["y"], np.exp(-0.7 * at)
    variance = 0.6**2 / 1.4 * (1 - shrunk**2)
    np.testing.assert_allclose(y.mean(axis=0), 1.5 * (1 - shrunk), atol=4 * np.sqrt(variance / 1500).max())
    np.testing.assert_allclose(y.var(axis=0), variance, rtol=4 * np.sqrt(2 / 1500))
    wanted = 0.6**2 / 1.4 * (np.exp(-0.7 * 1.0) - np.exp(-0.7 * 3.0))  # cov(y(1), y(2))
    assert np.cov(y[:, 1], y[:, 2])[0, 1] == pytest.approx(wanted, abs=4 * variance[2] / np.sqrt(1500))


@pytest.mark.heavy
def test_the_same_distribution_as_diffrax_and_no_state_below_zero():
    """Nonlinear drift and noise, where zero is reached now and then: two-sample test against diffrax's Euler-Maruyama."""
    found = simulate(Logistic(), EMPTY, at=[1.0, 4.0], draws=800, key=1)
    assert not found.failed.any() and found["x"].min() >= 0.0
    with jax.enable_x64(True):

        def one(key):
            path = diffrax.VirtualBrownianTree(0.0, 4.0, tol=1e-3, shape=(), key=key)
            terms = diffrax.MultiTerm(
                diffrax.ODETerm(lambda t, x, _: jnp.maximum(x, 0.0) * (1 - x)),
                diffrax.ControlTerm(lambda t, x, _: 0.5 * jnp.sqrt(jnp.maximum(x, 0.0)), path),
            )
            saved = diffrax.SaveAt(ts=jnp.array([1.0, 4.0]))
            return diffrax.diffeqsolve(terms, diffrax.Euler(), 0.0, 4.0, 1 / 256, 0.8,
                                       saveat=saved).ys  # fmt: skip

        theirs = np.maximum(np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 800))), 0.0)
    for i in range(2):
        assert stats.ks_2samp(found["x"][:, i], theirs[:, i]).pvalue > 1e-3


@pytest.mark.heavy
def test_finer_steps_other_meshes_and_other_draws_leave_a_path_alone():
    at = np.array([1.0, 2.5, 4.0])
    person = Person.of("p", start=0.0, stop=4.0)
    body = Wanders(k=0.7)
    draw = functools.partial(simulate, body, person, key=5)
    few, fine = draw(at=at, draws=8), draw(at=np.linspace(0.0, 4.0, 401), draws=8, tol=1e-3)
    np.testing.assert_allclose(few["y"], fine["y"][:, np.round(at * 100).astype(int)], atol=0.02)
    many = draw(at=at, draws=70)
    assert np.array_equal(many["y"][:8], few["y"]) and np.std(many["y"][:, 2]) > 0.3
    dosed = draw(at=at, draws=8, do=[Do({"iv": Regimen.bolus(5.0, "mg", at=1.7)})])
    np.testing.assert_allclose(dosed["y"], few["y"], atol=0.02)
    nothing = draw(at=at, draws=8, do=[Do({"iv": lambda d: d})])
    assert np.array_equal(nothing["y"], few["y"])


def test_rules_under_process_noise():
    """A refill at the moment the path passes a level: told, bounded by a sub-step, and on the same path."""
    body = Wanders(k=0.7)
    rule = When("y", above=(1.8, "mg/L"), give=("iv", 1.0, "mg"), wait="30 min", at_most=16)
    at = np.linspace(0.0, 4.0, 201)
    plain, found = (simulate(body, EMPTY, at=at, draws=40, key=5, do=do) for do in ([], [rule]))
    np.testing.assert_allclose(plain["y"], found["y"], atol=0.05)
    first = np.min(np.where(np.isfinite(found.acts[0].times), found.acts[0].times, np.inf), axis=1)
    crossed = plain["y"] > 1.8
    assert 0.3 < crossed.any(axis=1).mean() <= 1.0
    seen = at[np.argmax(crossed, axis=1)][crossed.any(axis=1)]
    late = first[crossed.any(axis=1)]
    assert np.mean(late <= seen + 0.05) > 0.9
    given = np.isfinite(found.acts[0].times).sum(axis=1)
    assert np.all((found["amount"][:, -1] > 0) == (given > 0))


def test_twins_share_the_path_between_worlds():
    rng = np.random.default_rng(0)
    times = np.arange(0.5, 4.0, 0.5)
    values = 1.5 * (1 - np.exp(-0.7 * times)) + 2 * np.exp(-0.7 * times) + 0.2 * rng.normal(size=len(times))
    person = Person.of("p", start=0.0, stop=4.0, doses={"iv": Regimen.bolus(20.0, "mg", at=0.0)},
                       readings={"C": (times, values, "mg/L")})  # fmt: skip
    sensor = ht.sensors.Gaussian("C", sd=0.3)
    model = ht.Model(Wanders(), noise=False, C=sensor)
    twin = ht.personalize(model, person, Laplace(draws=50, starts=2), key=0, progress=False)
    assert "process noise" in str(twin.verdict) + repr(twin)
    later = twin.do(iv=lambda d: d.shift(1, "h"))
    a, b, c = simulate_worlds([twin, twin.do(), later], names=("C", "y", "amount"))
    assert np.array_equal(a["C"], b["C"]) and np.std(a["y"][:, -1]) > 0.3
    np.testing.assert_allclose(a["y"], c["y"], atol=1e-9)  # the dose touches another state
    alone = twin.simulate(at=[2.0, 4.0])
    np.testing.assert_allclose(alone["C"][:, 1], a["C"][:, -1], atol=0.05)
    assert np.array_equal(twin.simulate()["C"], twin.do().simulate()["C"])
    effect = ht.contrast(later, twin, ht.outcomes.at("C", 3.0))
    assert effect[0].high - effect[0].low < 1.0  # the noise cancels


def test_requests_that_cannot_be_met():
    with pytest.raises(ParameterError, match="which path"):
        simulate(Growth(), EMPTY)
    with pytest.raises(DeclarationError, match="process noise"):
        simulate(Growth(), EMPTY, draws=3, key=0, solver=Exact())


class Breeds(ht.System):
    """A difference equation with noise of its own size: x(t+1) = x(t) + .3 x(t) + .5 x(t) z(t)."""

    time = "d"
    step = "1 d"

    class State(ht.State):
        x: Scalar = ht.state("1", positive=False)

    a: Scalar = ht.constant(0.3, "1/d")
    b: Scalar = ht.constant(0.5, "1/d^0.5")

    def rates(self, t, x, u):
        return self.State(x=self.a * x.x)

    def diffusion(self, t, x, u):
        return self.State(x=self.b * x.x)

    def initial(self, u):
        return self.State(x=1.0)


def test_drawn_noise_of_a_difference_equation_is_its_own_law():
    """One step is Gaussian, as it is on a lived path: the term that a path between steps would add made it skew."""
    day = Person.of("one", start=0.0, stop=2.0, time="d")
    found = simulate(Breeds(), day, draws=4000, key=3, at=[1.0, 2.0])["x"]
    for x, before in ((found[:, 0], 1.0), (found[:, 1], found[:, 0])):
        z = (x - 1.3 * before) / (0.5 * before)
        assert abs(stats.skew(z)) < 4.5 * np.sqrt(6 / 4000)
        assert abs(z.mean()) < 4.5 / np.sqrt(4000) and z.std() == pytest.approx(1.0, abs=4.5 / np.sqrt(8000))

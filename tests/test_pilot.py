"""How to integrate: found by a pilot solve, overridable, and said in every result."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from small import Saturable

import hybridtwin as package
import hybridtwin.system as ht
from hybridtwin import sensors
from hybridtwin.errors import DeclarationError
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model, lived_world
from hybridtwin.physiology import Hall2011, OneCompartment, T1DMinimal, Warfarin
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.simulate.pilot import Pilot, choose
from hybridtwin.simulate.steppers import RK4, Adaptive, Chebyshev, Exact
from hybridtwin.simulate.stiff import Rosenbrock
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Scalar


class Robertson(ht.System):
    """Three reactions whose rates lie nine decades apart (Robertson 1966); `a` is also given as a dose."""

    time = "h"

    class State(ht.State):
        a: Scalar = ht.state("1")
        b: Scalar = ht.state("1")
        c: Scalar = ht.state("1")

    class Input(ht.Input):
        feed: Scalar = ht.dose("1", into="a")

    slow: Scalar = ht.parameter(ht.typical(0.04, cv=0.3), "1/h")
    back: Scalar = ht.parameter(ht.typical(1e4, cv=0.1), "1/h")
    pair: Scalar = ht.parameter(ht.typical(3e7, cv=0.1), "1/h")

    def rates(self, t, x, u):
        fall, back, pair = self.slow * x.a, self.back * x.b * x.c, self.pair * x.b**2
        return self.State(a=-fall + back, b=fall - back - pair, c=pair)

    def initial(self, u):
        return self.State(a=1.0, b=0.0, c=0.0)

    def outputs(self, x, u):
        return {"A": ht.output(x.a, "1"), "C": ht.output(x.c, "1")}


@functools.cache
def fed():
    """Fed once more after ten hours."""
    return Person.of("r", start=0.0, stop=40.0, doses={"feed": Regimen.bolus(0.5, "1", at=10.0)})


def by_scipy(slow, times):
    def f(t, y):
        fall, back, pair = slow * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [-fall + back, fall - back - pair, pair]

    x, rows = np.array([1.0, 0.0, 0.0]), []
    for begin, end in ((0.0, 10.0), (10.0, 40.0)):
        x = x + np.array([0.5, 0.0, 0.0]) * (begin == 10.0)
        inside = times[(times >= begin) & ((times < end) | (end == 40.0))]
        found = scipy.integrate.solve_ivp(f, (begin, end), x, "Radau", rtol=1e-10, atol=1e-14, dense_output=True)
        rows.append(found.sol(inside).T)
        x = found.y[:, -1]
    return np.concatenate(rows)


@pytest.mark.heavy
def test_a_stiff_body_is_solved_where_the_pilot_stepped():
    times = np.linspace(0.0, 40.0, 21)
    found = simulate(Robertson().typical(), fed(), at=times)
    assert "Rosenbrock" in found.solver and "stiff" in found.solver and found.solver in repr(found)
    wanted = by_scipy(0.04, times)
    for i, name in enumerate(("A", "b", "C")):
        np.testing.assert_allclose(found[name][0], wanted[:, i], atol=2e-4 * np.max(np.abs(wanted[:, i])))
    drawn = simulate(Robertson(), fed(), at=times, draws=12, key=0)
    assert not drawn.failures
    for k in (0,):
        body = Robertson(**{path: float(v[k]) for path, v in drawn.parameters.items()})
        other = simulate(body, fed(), at=times[:4], solver=Adaptive(1e-9, 1e-12, stiff=True))
        np.testing.assert_allclose(drawn["A"][k, :4], other["A"][0], rtol=1e-3)


class Valve(ht.System):
    """What is pushed back and forth passes a valve with inertia, and fills a vessel: rates jump where it opens and shuts."""

    time = "s"

    class State(ht.State):
        flow: Scalar = ht.state("mL/s", positive=False)
        filled: Scalar = ht.state("mL")

    pace: Scalar = ht.parameter(ht.lognormal(8.0, 0.3), "1/s", "of the push")
    fast: Scalar = ht.parameter(ht.lognormal(300.0, 0.2), "1/s", "resistance over inertia")

    def rates(self, t, x, u):
        push = self.fast * ht.const(500.0, "mL/s") * jnp.sin(self.pace * t - 1.0)
        passed = jnp.maximum(x.flow, 0.0 * x.flow)
        shut = -ht.const(250.0, "1/s") * jnp.minimum(x.flow, 0.0 * x.flow)
        return self.State(flow=jnp.where((x.flow > 0.0) | (push > 0.0), push - self.fast * passed, shut), filled=passed)

    def initial(self, u):
        return self.State(flow=0.0, filled=0.0)

    def outputs(self, x, u):
        return {"V": ht.output(x.filled, "mL")}


def through(pace, fast, times):
    """The flow [mL/s] in closed form: opened where the push turns to the front, shut where the flow is 0 again."""
    size = 500.0 * fast / np.hypot(pace, fast)
    flow = np.zeros_like(times)
    for opened in np.arange(1.0 / pace, times[-1], 2 * np.pi / pace):
        def course(t, opened=opened):
            lag, since = np.arctan2(pace, fast), t - opened
            return size * (np.sin(pace * since - lag) + np.sin(lag) * np.exp(-fast * since))
        shut = scipy.optimize.brentq(course, opened + 0.5 * np.pi / pace, opened + 1.9 * np.pi / pace, xtol=1e-14)
        inside = (times > opened) & (times < shut)
        flow[inside] = course(times[inside])
    return flow


def test_a_valve_shuts_in_each_body_at_its_own_moment():
    """Nodes of a mesh are the same for all bodies, and of no use there: the pilot says so, and every lane finds its own steps."""
    times = np.linspace(0.0, 3.0, 61)
    person = Person.of("v", start=0.0, stop=3.0, time="s")
    found = simulate(Valve(), person, at=times, draws=24, key=0)
    assert found.solver.startswith("Controlled()") and "jump" in found.solver and not found.failures
    for flow, pace, fast in zip(found["flow"], *(found.parameters[name] for name in ("pace", "fast")), strict=True):
        np.testing.assert_allclose(np.maximum(flow, 0.0), through(pace, fast, times), atol=0.05)
    with package.engine.double():
        slow = Pilot(Valve(pace=1e-3), lived_world(person.bind(Valve.spec)))
        assert not slow.kinked()


class Timed(ht.System):
    """A slow body that is fed by the time itself: a bump, or a gate that opens and shuts at each body's own moments."""

    time = "h"

    class State(ht.State):
        bump: Scalar = ht.state("mg")
        gate: Scalar = ht.state("mg")

    k: Scalar = ht.parameter(ht.lognormal(0.05, 0.3), "1/h", "elimination")
    opens: Scalar = ht.parameter(ht.normal(10.3, 0.03), "h")
    shuts: Scalar = ht.parameter(ht.normal(10.5, 0.03), "h")
    flow: Scalar = ht.parameter(ht.lognormal(3e3, 0.1), "mg/h")
    gated: bool = True

    def rates(self, t, x, u):
        bump = ht.const(4e3, "mg/h") * jnp.exp(-(((t - self.opens) / ht.const(0.05, "h")) ** 2))
        gate = jnp.where((t >= self.opens) & (t < self.shuts), self.flow, 0.0) if self.gated else 0.0
        return self.State(bump=bump - self.k * x.bump, gate=gate - self.k * x.gate)


@pytest.mark.parametrize("gated", [False, True])
def test_what_only_the_time_does_is_seen_in_every_body(gated):
    """One reading after a day: steps as long as the slow rate allows would pass over a bump of minutes, twice as many, too; and
    halving tells nothing of a gate, whose ends err by a few sizes that often cancel."""
    found = simulate(Timed(gated=gated), Person.of("t", start=0.0, stop=24.0, time="h"), at=[24.0], draws=128, key=0)
    k, opens, shuts, flow = (found.parameters[name] for name in ("k", "opens", "shuts", "flow"))
    assert found.solver.startswith("Controlled()" if gated else "RK4()") and not found.failures
    bump = 4e3 * 0.05 * np.sqrt(np.pi) * np.exp(-k * (24 - opens) + (0.05 * k / 2) ** 2)
    gate = flow / k * (np.exp(-k * (24 - shuts)) - np.exp(-k * (24 - opens))) if gated else np.zeros(128)
    np.testing.assert_allclose(found["bump"][:, 0], bump, rtol=1e-4)
    np.testing.assert_allclose(found["gate"][:, 0], gate, rtol=1e-4)


class Passing(ht.System):
    """Something is released while a state that decays passes a window of each body's own."""

    time = "h"

    class State(ht.State):
        level: Scalar = ht.state("1")
        out: Scalar = ht.state("mg")

    c: Scalar = ht.parameter(ht.lognormal(0.1, 0.3), "1/h")
    k: Scalar = ht.parameter(ht.lognormal(0.05, 0.3), "1/h")
    high: Scalar = ht.parameter(ht.normal(0.42, 0.01), "1")
    low: Scalar = ht.parameter(ht.normal(0.375, 0.005), "1")

    def rates(self, t, x, u):
        flow = jnp.where((x.level < self.high) & (x.level > self.low), ht.const(300.0, "mg/h"), 0.0)
        return self.State(level=-self.c * x.level, out=flow - self.k * x.out)

    def initial(self, u):
        return self.State(level=1.0, out=0.0)


def test_what_happens_long_before_the_only_reading_is_compared_too():
    """A window that one step passes over, and ends of it whose errors cancel behind it: neither shows in a reading at the end."""
    found = simulate(Passing(), Person.of("w", start=0.0, stop=24.0, time="h"), at=[24.0], draws=400, key=1)
    c, k, high, low = (found.parameters[name] for name in ("c", "k", "high", "low"))
    begin, end = -np.log(high) / c, -np.log(low) / c
    wanted = 300 / k * (np.exp(-k * (24 - end)) - np.exp(-k * (24 - begin)))
    sound = (end < 24.0) & ~found.failed
    assert sound.sum() > 380 and len(found.failures) <= 4 and found["out"].shape == (400, 1)
    np.testing.assert_allclose(found["out"][sound, 0], wanted[sound], rtol=1e-3)


def test_the_solver_can_be_given_and_is_told():
    person = Person.of("p", start=0.0, stop=48.0, doses={"oral": Regimen.bolus(100.0, "mg", at=2.0)})
    drug, at = Warfarin().typical(), np.linspace(0.0, 48.0, 13)
    plain = simulate(drug, person, at=at)
    assert plain.solver.startswith("RK4()") and "fastest rate 1.24/h" in plain.solver
    for solver in (Rosenbrock(), Chebyshev(5), RK4(2)):
        other = simulate(drug, person, at=at, solver=solver)
        assert other.solver.startswith(repr(solver)) or repr(solver) in other.solver
        np.testing.assert_allclose(other["pca"], plain["pca"], rtol=1e-3)
    vein = Person.of("p", start=0.0, stop=9.0, doses={"iv": Regimen.bolus(1.0, "mg", at=0.0)})
    assert "linear" in simulate(OneCompartment(CL=1.0, V=9.0), vein).solver
    assert package.Rosenbrock is Rosenbrock


def test_the_pilot_sees_the_day_and_not_only_its_first_moment():
    """Saturated elimination is slow while there is much, fast when little is left: the rate is that of the emptied body."""
    full = Person.of("p", start=0.0, stop=24.0, doses={"iv": Regimen.bolus(300.0, "mg", at=0.0)})
    world = lived_world(full.bind(Saturable.spec))
    with package.engine.double():
        pilot = Pilot(Saturable(), world)
    assert pilot.rate == pytest.approx(30.0 / (4.0 * 30.0), rel=0.15)  # VM / (KM V), reached at the end
    assert len(pilot.rates) == 13 and np.ptp(pilot.rates) > 0.01


def test_inference_is_asked_the_same_way():
    day = package.datasets.virtual_adult()
    model = Model(T1DMinimal(), cgm=sensors.CGM("G_isf"))
    with package.engine.double():
        choice = choose(model, lived_world(day.bind(model.spec)))
    assert isinstance(choice.stepper, Chebyshev) and choice.step == pytest.approx(1.2 / 0.14)
    with pytest.raises(DeclarationError, match="no exact steps"), package.engine.double():
        choose(Model(T1DMinimal(), solver=Exact()), lived_world(day.bind(model.spec)))
    with pytest.raises(DeclarationError, match="is no stepper"):
        Model(T1DMinimal(), solver="stiff")
    assert Model(T1DMinimal(), solver=RK4(2)).key != Model(T1DMinimal()).key
    assert Model(T1DMinimal(), solver=RK4(2)).starting("steady").solver == RK4(2)


def test_a_stiff_system_is_personalized():
    """Rosenbrock steps under Laplace: gradients by both modes, the posterior where the truth is."""
    times = np.array([2.0, 5.0, 9.0, 12.0, 18.0, 25.0, 33.0, 40.0])
    truth, rng = by_scipy(0.05, times), np.random.default_rng(0)
    person = Person.of("r", start=0.0, stop=40.0, doses={"feed": Regimen.bolus(0.5, "1", at=10.0)},
                       readings={"A": (times, truth[:, 0] + 0.003 * rng.normal(size=8), "1")})  # fmt: skip
    model = Model(Robertson(back=1e4, pair=3e7), A=sensors.Gaussian("A", sd=0.003))
    twin = personalize(model, person, Laplace(draws=100, starts=2), key=0, progress=False)
    fit = twin.fits[0]
    assert isinstance(fit.kernel.stepper, Rosenbrock)
    assert "Rosenbrock" in fit.stepper and fit.stepper in repr(twin) and fit.stepper in repr(fit)
    low, high = np.quantile(fit.values["slow"], [0.005, 0.995])
    assert low < 0.05 < high and high - low < 0.01 and fit.stats["mesh_share"] > 0.99
    assert "Rosenbrock" in twin.simulate().solver


def test_steps_carry_bodies_far_from_the_typical_one():
    """One day is short enough for steps of one's choice: a stomach that empties in a minute must not meet their end."""
    day = package.datasets.virtual_adult().between(None, 1440.0)
    model = Model(T1DMinimal(), cgm=sensors.CGM("G_isf"))
    with package.engine.double():
        choice = choose(model, lived_world(day.bind(model.spec)))
        problem = model.bind(day)
        data = problem.data
        z = np.zeros((2, problem.kernel.size))
        place = [site.name for site in problem.kernel.sites].index("gut.kemp")
        z[1, place] = 3.5
        found = [float(problem.kernel.log_density(one, data, problem.kernel.untempered())) for one in z]
    assert choice.far > 4 * choice.rate
    assert np.isfinite(found).all() and found[1] > found[0] - 1000


def test_a_look_at_stiff_steps_ends_as_soon_as_it_could_not_pay():
    with package.engine.double():
        pilot = Pilot(Robertson(), lived_world(fed().bind(Robertson.spec)))
        found = pilot.stops()
        assert found is not None and 20 < len(found) < 200
        assert pilot.stops(1.01 * len(found) * pilot.cost) == found
        assert pilot.stops(0.9 * len(found) * pilot.cost) is None


def test_a_thousand_stable_steps_are_worth_a_look():
    """Three years of body weight: 1,160 stable steps, or 25 stiff ones."""
    person = Hall2011.protocol.person("d").with_readings({"weight": ([100.0, 300.0], [84.0, 82.0], "kg")})
    with package.engine.double():
        model = Model(Hall2011(), weight=sensors.Gaussian("weight", sd=1.0))
        choice = choose(model, lived_world(person.bind(model.spec)))
    assert isinstance(choice.stepper, Rosenbrock) and len(choice.knots) < 60


class Emptied(ht.System):
    """Elimination at a constant rate until nothing is left, as pharmacologists write it: Michaelis-Menten's with a tiny Km."""

    time = "h"

    class State(ht.State):
        a: Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="a")

    k: Scalar = ht.parameter(ht.lognormal(10.0, 0.4), "mg/h")

    def rates(self, t, x, u):
        return self.State(a=-self.k * x.a / (x.a + ht.const(0.01, "mg")))


def test_what_is_empty_stays_so_in_every_body():
    """Beyond the pole at -Km elimination goes on, and n and 2n steps agree on it: a quarter of the bodies ended at -100 mg."""
    person = Person.of("p", start=0.0, stop=24.0, time="h", doses={"iv": Regimen.bolus(100.0, "mg", at=1.0)})
    found = simulate(Emptied(), person, draws=100, key=0)
    wanted = np.maximum(100.0 - found.parameters["k"][:, None] * (found.time - 1.0), 0.0)
    assert len(found.failures) == 0 and np.sum(wanted[:, -1] == 0) > 90
    np.testing.assert_allclose(found["a"][:, found.time >= 1.0], wanted[:, found.time >= 1.0], atol=0.1)  # ten Km


def test_a_state_below_a_bound_it_was_only_declared_to_have_is_no_failure():
    class Deviation(ht.System):
        """An oscillator that nobody declared to go below 0; not linear, so that it is solved in steps."""

        time = "h"

        class State(ht.State):
            x: Scalar = ht.state("1")
            v: Scalar = ht.state("1/h")

        w: Scalar = ht.parameter(ht.lognormal(1.0, 0.2), "1/h")

        def rates(self, t, x, u):
            return self.State(x=x.v, v=-self.w**2 * jnp.sin(x.x))

        def initial(self, u):
            return self.State(x=0.01, v=0.0)

    found = simulate(Deviation(), Person.of("p", start=0.0, stop=10.0, time="h"), at=[2.0, 5.0], draws=20, key=0)
    assert len(found.failures) == 0 and any("Declare it positive=False" in note for note in found.notes)
    np.testing.assert_allclose(found["x"], 0.01 * np.cos(found.parameters["w"][:, None] * [2.0, 5.0]), atol=1e-6)

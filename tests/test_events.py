"""Rules that act at the moment itself: located moments, split steps, gradients through them, and their limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from small import DRIP, Saturable, drip_twin, mesh_twin

import hybridtwin as ht
from hybridtwin.errors import DeclarationError, InterventionError, UnknownTarget
from hybridtwin.interventions import Do, Rescue, When, World, enact
from hybridtwin.physiology import BergmanMinimal, OneCompartment, OneCompartmentOral
from hybridtwin.records import Person
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.simulate.failures import OVERFLOW
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.solve import Extras, observer, states
from hybridtwin.simulate.steppers import RK4, Adaptive, Chebyshev, Exact, Repeated
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Scalar
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import factor

CL, V = 3.1, 28.0
K = CL / V
VEIN = OneCompartment(CL=CL, V=V)
REFILL = When("C", below=(1.0, "mg/L"), give=("iv", 50.0, "mg"))
REFILLED = np.log(100 / V) / K + np.arange(6) * np.log(78 / 28) / K  # 28 mg are 1 mg/L


def bolus(stop=60.0, **more):
    return Person.of("p", start=0.0, stop=stop, doses={"iv": Regimen.bolus(100.0, "mg", at=0.0)}, **more)


def times_of(found, which=0):
    times = found.acts[which].times[0]
    return times[np.isfinite(times)]


# ------------------------------------------------------------------------------------------ moments in closed form


@pytest.mark.parametrize(
    ("solver", "error"),
    [(None, 1e-12), (RK4(), 3e-7), (Chebyshev(5), 2e-5), (Adaptive(1e-10, 1e-10), 1e-8)],
    ids=["Exact", "RK4", "Chebyshev", "Adaptive"],
)
def test_moments_of_repeated_refills(solver, error):
    """Exponential decay from 100 mg, 50 mg more at each fall through 1 mg/L: moments and course are known."""
    at = np.linspace(0.0, 60.0, 61)
    found = simulate(VEIN, bolus(), at=at, do=[REFILL], solver=solver, tol=1e-6)
    np.testing.assert_allclose(times_of(found), REFILLED[REFILLED < 60], rtol=0, atol=error)
    last = np.searchsorted(REFILLED, at) - 1
    wanted = np.where(last < 0, 100 * np.exp(-K * at), 78 * np.exp(-K * (at - REFILLED[np.maximum(last, 0)])))
    np.testing.assert_allclose(found["central"][0], wanted, rtol=1e-5)
    assert "rescue iv given at" in " ".join(found.notes) and "6 times" not in repr(found)
    table = found.acted()
    assert len(table) == 6 and set(table["name"]) == {"iv"} and table["amount"].eq(50.0).all()


def test_a_moment_is_found_to_a_millionth_of_a_step_whatever_the_step():
    """Where the step itself is exact, only the search for the moment errs: steps of up to three time constants."""
    spec = OneCompartment.spec
    world = world_of(spec, bolus(), REFILL)
    layout = layout_of([world], spec)
    for step in (0.5, 5.0, 27.0):
        mesh = lay([world], spec, layout, [(60.0, LAST)], max_step=step)[0]
        with jax.enable_x64(True):
            _, acts = lane(VEIN, layout, Exact(), mesh)({})
        error = np.abs(np.asarray(acts.times)[0, :6] - REFILLED) / step
        assert error.max() < 1e-6, (step, error)


def world_of(spec, person, *rules):
    bound = person.bind(spec)
    return enact(World(bound.inputs, bound.start, bound.stop, bound.resets), [], spec, bound.clock, rules)


def lane(system, layout, stepper, mesh, names=("C",)):
    """(values by path) -> (outputs at the readings, acts) of one lane."""

    @jax.jit
    def run(values):
        body = system.with_values(values)
        extras = Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
        path, acts = states(body, layout, stepper, mesh, body.initial(None), extras, observer(names))
        return path[mesh.read], acts

    return run


def test_refills_do_not_spoil_the_order_of_convergence():
    """Saturable elimination with three refills: the error falls as the fourth power of the step, as without them."""
    system, spec = Saturable(VM=30.0, V=30.0), Saturable.spec
    world = world_of(spec, bolus(24.0), When("C", below=(1.0, "mg/L"), give=("iv", 45.0, "mg")))
    layout = layout_of([world], spec)
    mesh = lay([world], spec, layout, [(t, LAST) for t in (11.0, 24.0)], max_step=4.0)[0]

    @jax.jit
    def program(n):
        extras = Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
        return states(system, layout, Repeated(RK4(), n), mesh, system.initial(None), extras, observer(("C",)))

    with jax.enable_x64(True):
        runs = {n: program(jnp.asarray(n)) for n in (4, 8, 16, 512)}
    ends = {n: np.asarray(path)[mesh.read, 0] for n, (path, _) in runs.items()}
    moments = {n: np.asarray(acts.times)[0] for n, (_, acts) in runs.items()}
    assert np.isfinite(moments[512]).sum() >= 3
    for values in (ends, moments):
        errors = [np.nanmax(np.abs(values[n] - values[512])) for n in (4, 8, 16)]
        order = np.log2(np.array(errors[:-1]) / errors[1:])
        assert np.all(order > 3.5), (errors, order)


# ------------------------------------------------------------------------------------------ against scipy


def test_a_glucose_rescue_agrees_with_scipy():
    """Bergman's minimal model under an insulin ramp; 5 g into the blood below 70 mg/dL, at least 15 min apart."""
    insulin = Signal.linear([0, 30, 90, 240], [4.5, 90, 60, 4.5], "m[IU]/L")
    person = Person.of("p", start=0.0, stop=240.0, time="min", covariates={"weight": (70.0, "kg")},
                       signals={"insulin": insulin})  # fmt: skip
    body, at = BergmanMinimal().typical(), np.linspace(0.0, 240.0, 49)
    rule = When("G", below=(70, "mg/dL"), give=("glucose_iv", 5, "g"), wait="15 min", at_most=16)
    found = simulate(body, person, at=at, do=[rule], tol=1e-8)
    given = times_of(found)
    spec = body.spec
    dose, lived = spec.doses["glucose_iv"].into, person.bind(spec).inputs
    gain = 5 * factor("g", spec.states[dose].unit)
    order = list(spec.states)

    def inputs(t):
        return spec.input({name: float(lived[name](t)) for name in (*spec.covariates, *spec.signals)})

    def rates(t, y):
        with jax.enable_x64(True):
            dx = body.rates(t, spec.state(dict(zip(order, y, strict=True))), inputs(t))
        return np.array([float(v) for v in spec.flatten(dx).values()])

    def glucose(y, t):
        return float(body.outputs(spec.state(dict(zip(order, y, strict=True))), inputs(t))["G"].value)

    y = np.array([float(v) for v in spec.flatten(body.initial(inputs(0.0))).values()])
    t, times, ready, course = 0.0, [], -np.inf, np.empty(len(at))
    course[0] = glucose(y, 0.0)
    knots = [30.0, 90.0, 240.0]
    while t < 240.0 - 1e-12:
        if t >= ready and glucose(y, t) <= 70.0 + 1e-9:
            times.append(t)
            y = y.copy()
            y[order.index(dose)] += gain
            ready = t + 15.0
        stop = min([s for s in (*knots, ready) if s > t + 1e-12])

        def low(s, y):
            return glucose(y, s) - 70.0

        low.terminal, low.direction = t >= ready, -1
        leg = solve_ivp(rates, (t, stop), y, rtol=1e-10, atol=1e-12, events=low, dense_output=True)
        inside = (at > t) & (at <= leg.t[-1])
        course[inside] = [glucose(leg.sol(s), s) for s in at[inside]]
        t, y = leg.t[-1], leg.y[:, -1]
    assert len(times) >= 3
    np.testing.assert_allclose(given, times, atol=2e-6)
    np.testing.assert_allclose(found["G"][0], course, rtol=1e-6)


# ------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("stepper", [Exact(), Repeated(RK4(), 8)], ids=["Exact", "RK4"])
def test_gradients_go_through_the_moments(stepper):
    """Of the moments and of later concentrations, against central differences and, for the moments, the closed form."""
    spec = OneCompartment.spec
    world = world_of(spec, bolus(40.0), When("C", below=(1.0, "mg/L"), give=("iv", 50.0, "mg"), wait="30 min"))
    layout = layout_of([world], spec)
    mesh = lay([world], spec, layout, [(t, LAST) for t in (5.0, 12.0, 19.0, 33.0, 40.0)], max_step=2.0)[0]
    with jax.enable_x64(True):
        run = lane(VEIN, layout, stepper, mesh)

        def flat(clearance):
            path, acts = run({"CL": clearance})
            return jnp.concatenate([path[:, 0], acts.times[0, :4]])

        at = jnp.asarray(CL)
        slope = np.asarray(jax.jit(jax.jacfwd(flat))(at))
        central = np.asarray((flat(at + 1e-5) - flat(at - 1e-5)) / 2e-5)
        amounts = np.asarray(flat(at))
    seen = np.isfinite(amounts)
    np.testing.assert_allclose(slope[seen], central[seen], rtol=2e-6, atol=1e-8)
    moments = amounts[5:][seen[5:]]
    np.testing.assert_allclose(slope[5:][seen[5:]], -moments / CL, rtol=1e-5)  # t = log(...) V / CL
    assert len(moments) == 4 and np.abs(slope[1:5]).min() > 1e-3


def test_gradients_of_waits_and_of_doses_at_parameter_dependent_times():
    """A dose with a lag, and a rule that acts again when its wait is over: every moment moves with the lag."""
    body, spec = OneCompartmentOral(ka=1.3, CL=CL, V=V, tlag=0.35), OneCompartmentOral.spec
    person = Person.of("p", start=0.0, stop=24.0, doses={"oral": Regimen.bolus(80.0, "mg", at=0.0).every("9 h", times=2)})
    rule = When("C", above=(1.2, "mg/L"), give=("iv", 7.0, "mg"), wait="2 h", at_most=20)
    world = world_of(spec, person, rule)
    layout = layout_of([world], spec)
    mesh = lay([world], spec, layout, [(t, LAST) for t in (1.0, 3.0, 8.0, 14.0, 23.0)], max_step=0.5)[0]
    with jax.enable_x64(True):
        run = lane(body, layout, Repeated(RK4(), 4), mesh)

        def flat(lag):
            path, acts = run({"tlag": lag})
            return jnp.concatenate([path[:, 0], acts.times[0]])

        at = jnp.asarray(0.35)
        slope, values = np.asarray(jax.jit(jax.jacfwd(flat))(at)), np.asarray(flat(at))
        central = np.asarray((flat(at + 1e-5) - flat(at - 1e-5)) / 2e-5)
    seen = np.isfinite(values)
    assert seen[5:].sum() >= 4
    np.testing.assert_allclose(slope[seen], central[seen], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(slope[5:7], 1.0, rtol=1e-5)  # the first two moments move with the lag, one for one


class Absorbs(ht.System):
    """One compartment with absorption; the lag and how long a dose enters are parameters."""

    time = "h"

    class State(ht.State):
        depot: Scalar = ht.state("mg")
        central: Scalar = ht.state("mg")

    class Input(ht.Input):
        oral: Scalar = ht.dose("mg", into="depot")
        iv: Scalar = ht.dose("mg", into="central")

    ka: Scalar = ht.parameter(ht.typical(1.3), "1/h")
    k: Scalar = ht.parameter(ht.typical(0.11), "1/h")
    lag: Scalar = ht.parameter(ht.typical(0.35), "h")
    lasts: Scalar = ht.parameter(ht.typical(2.0), "h")

    def dosing(self, u):
        return {"oral": ht.route(lag=self.lag), "iv": ht.route(lag=self.lag, duration=self.lasts)}

    def rates(self, t, x, u):
        return self.State(depot=-self.ka * x.depot, central=self.ka * x.depot - self.k * x.central)

    def outputs(self, x, u):
        return {"A": ht.output(x.central, "mg")}


@pytest.mark.parametrize("stepper", [Exact(), Repeated(RK4(), 16)], ids=["Exact", "RK4"])
def test_gradients_of_lag_and_duration_against_the_closed_form(stepper):
    """Bateman's function, shifted, and an infusion of modelled duration: d/d(lag), d/d(lasts) by hand."""
    body, spec = Absorbs(ka=1.3, k=0.11, lag=0.35, lasts=2.0), Absorbs.spec
    drip = Regimen((Dose(3.0, 40.0, modelled="duration"),), "mg")
    person = Person.of("p", start=0.0, stop=12.0, doses={"oral": Regimen.bolus(80.0, "mg", at=0.0), "iv": drip})
    at = np.array([0.2, 0.5, 1.0, 3.2, 4.0, 5.2, 5.5, 9.0, 12.0])
    world = world_of(spec, person)
    layout = layout_of([world], spec)
    mesh = lay([world], spec, layout, [(t, LAST) for t in at], max_step=1.0)[0]

    def closed(p):
        since, into = at - p["lag"], np.clip(at - 3.0 - p["lag"], 0.0, p["lasts"])
        gone = np.clip(at - 3.0 - p["lag"] - p["lasts"], 0.0, None)
        oral = 80 * p["ka"] / (p["ka"] - p["k"]) * (np.exp(-p["k"] * since) - np.exp(-p["ka"] * since))
        iv = 40 / p["lasts"] / p["k"] * (1 - np.exp(-p["k"] * into)) * np.exp(-p["k"] * gone)
        return np.where(since > 0, oral, 0.0) + iv

    values = {"ka": 1.3, "k": 0.11, "lag": 0.35, "lasts": 2.0}
    with jax.enable_x64(True):
        run = lane(body, layout, stepper, mesh, ("A",))
        found = np.asarray(run(values)[0][:, 0])
        slopes = jax.jit(jax.jacfwd(lambda p: run(p)[0][:, 0]))({n: jnp.asarray(v) for n, v in values.items()})
    np.testing.assert_allclose(found, closed(values), rtol=1e-6)
    for name, value in values.items():
        step = 1e-6 * value
        wanted = (closed(values | {name: value + step}) - closed(values | {name: value - step})) / (2 * step)
        np.testing.assert_allclose(slopes[name], wanted, rtol=2e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------ what a rule does


def test_an_infusion_is_stopped_for_good():
    person = Person.of("p", start=0.0, stop=12.0, doses={
        "iv": Regimen.infusion(100.0, "mg", at=0.0, over="10 h") + Regimen.bolus(50.0, "mg", at=9.0)})  # fmt: skip
    at = np.linspace(0.0, 12.0, 49)
    found = simulate(VEIN, person, at=at, do=[When("C", above=(2.0, "mg/L"), stop="iv")])
    (moment,) = times_of(found)
    assert moment == pytest.approx(-np.log(1 - 2.0 * CL / 10.0) / K, abs=1e-9)
    rising = 10 / CL * (1 - np.exp(-K * at))
    np.testing.assert_allclose(found["C"][0], np.where(at < moment, rising, 2.0 * np.exp(-K * (at - moment))), rtol=1e-9)
    assert any("iv stopped at" in note for note in found.notes)


def test_a_pump_is_suspended_and_goes_on_again():
    """dA/dt = push - k A between two levels: off above 4 mg/L, on again below 3, in closed form."""
    body = DRIP.system.with_values({"CL": 3.0, "V": 30.0})
    person = Person.of("p", start=0.0, stop=40.0, signals={"push": Signal.constant(20.0, "mg/h")})
    rule = When("C", above=(4.0, "mg/L"), stop="push", until=(3.0, "mg/L"))
    found = simulate(body, person, at=np.linspace(0.0, 40.0, 81), do=[rule])
    rest, k = 20.0 / 3.0, 0.1
    first = np.log(rest / (rest - 4.0)) / k
    cycle = np.log(4.0 / 3.0) / k + np.log((rest - 3.0) / (rest - 4.0)) / k
    wanted = first + cycle * np.arange(8)
    np.testing.assert_allclose(times_of(found), wanted[wanted < 40.0], rtol=1e-12)
    course = found["C"][0][found.time > first]
    assert course.max() <= 4.0 + 1e-9 and course.min() >= 3.0 - 1e-9


def test_waits_levels_and_several_acts_in_one_segment():
    """Below the level from the start: it acts at once, then each time the wait is over, until the level is left behind."""
    person = Person.of("p", start=0.0, stop=10.0, doses={"iv": Regimen.bolus(10.0, "mg", at=0.0)})
    rule = When("C", below=(2.0, "mg/L"), give=("iv", 20.0, "mg"), wait="20 min")
    found = simulate(VEIN, person, at=[10.0], do=[rule], solver=Adaptive(1e-10, 1e-10))
    amount, t, wanted = 10.0, 0.0, []
    while t <= 10.0:
        wanted.append(t)
        amount += 20.0
        after = amount * np.exp(-K / 3)
        if after <= 2.0 * V:
            amount, t = after, t + 1 / 3
        else:
            t += np.log(amount / (2.0 * V)) / K
            amount = 2.0 * V
    np.testing.assert_allclose(times_of(found), wanted, atol=1e-7)


def test_two_rules_and_one_that_only_looks():
    at = np.linspace(0.0, 30.0, 121)
    up, down = When("C", below=(1.0, "mg/L"), give=("iv", 90.0, "mg")), When("C", above=(3.0, "mg/L"), give=("iv", 1.0, "mg"))
    looks = Rescue("C", 1.5, "mg/L", "iv", 3.0, "mg", every="4 h", wait="1 h")
    found = simulate(VEIN, bolus(30.0), at=at, do=[up, looks, down])
    amount, t, events = 100.0, 0.0, [[], [], [0.0]]
    amount += 1.0  # above 3 mg/L at the start: acts at once, and again only when the level is passed again
    for node in (*range(0, 32, 4), 30):
        end = float(node)
        while amount * np.exp(-K * (end - t)) < V * 1.0:
            t += np.log(amount / V) / K
            amount = V + 90.0
            events[0].append(t)
            if amount > 3.0 * V:
                amount += 1.0
                events[2].append(t)
        amount, t = amount * np.exp(-K * (end - t)), end
        if node < 30 and amount < 1.5 * V:
            amount += 3.0
            events[1].append(t)
    for which, wanted in enumerate(events):
        np.testing.assert_allclose(times_of(found, which), wanted, atol=1e-9)
    assert found["central"][0, -1] == pytest.approx(amount, rel=1e-9)


def test_a_draw_that_needs_more_acts_is_failed_counted_and_explained():
    system = OneCompartment(CL=ht.lognormal(3.0, 0.8), V=V)
    rule = When("C", below=(1.0, "mg/L"), give=("iv", 50.0, "mg"), at_most=3)
    found = simulate(system, bolus(48.0), at=[10.0, 48.0], draws=80, key=3, do=[rule])
    free = simulate(system, bolus(48.0), at=[10.0, 48.0], draws=80, key=3,
                    do=[When("C", below=(1.0, "mg/L"), give=("iv", 50.0, "mg"), at_most=200)])  # fmt: skip
    many = free.acts[0].count > 3
    assert 0 < many.sum() < 80 and np.array_equal(found.failed, many) and not free.failed.any()
    assert np.isnan(found["C"][many]).all()
    np.testing.assert_array_equal(found["C"][~many], free["C"][~many])
    note = next(n for n in found.notes if "more often than it may act" in n)
    assert f"{many.sum()} of 80 draws" in note and "at_most=" in note
    assert f"in {int((free.acts[0].count > 0).sum())} of 80 draws" in " ".join(free.notes)
    third = {lane: free.acts[0].times[lane, 2] for lane in np.flatnonzero(many)}  # the last act that is allowed
    assert {row.draw: row.time for row in found.failures} == pytest.approx(third)
    assert OVERFLOW == 2


# ------------------------------------------------------------------------------------------ worlds


def test_rules_in_twins():
    """Before the first act the worlds agree to the last bit; a rule that never acts changes nothing at all."""
    stopped, faster = drip_twin().do(push=0.0, start=12.0), mesh_twin().do(VM=lambda v: 3 * v, start=7.0)
    for twin, level in ((faster, 8.0), (stopped, 7.0)):
        cared = twin.do(respond=When("C", below=(level, "mg/L"), give=("iv", 60.0, "mg"), wait="1 h", at_most=32))
        idle = twin.do(respond=When("C", above=(1e6, "mg/L"), give=("iv", 60.0, "mg")))
        a, b, c = simulate_worlds([twin, cared, idle])
        assert np.array_equal(a["C"], c["C"]) and not c.acts[0].count.any()
        assert b.acts[0].count.max() > 1 and np.median(b.acts[0].count) >= 1
        first = np.min(np.where(np.isfinite(b.acts[0].times), b.acts[0].times, np.inf), axis=1)
        before = b.time[None] < first[:, None]
        assert np.array_equal(a["C"][before], b["C"][before]) and before.mean() > 0.4
        assert not np.array_equal(a["C"], b["C"])
        np.testing.assert_allclose(cared.simulate().acts[0].times, b.acts[0].times, rtol=1e-4)
        assert any("given by the rescue rule in" in note for note in b.notes) and "give 60 mg of iv when C < " in cared.label
        effect = ht.contrast(cared, twin, ht.outcomes.mean("C"))
        assert effect[0].low >= 0 and effect[0].median > 0


def test_rules_watch_from_the_start_of_a_window():
    rule = When("C", below=(1e3, "mg/L"), give=("iv", 1.0, "mg"), wait="24 h")
    cared = drip_twin().do(start=12.5, respond=rule)
    plain, found = simulate_worlds([drip_twin(), cared])
    before = found.time < 12.5
    assert np.all(found.acts[0].times[:, 0] == 12.5) and "care from Tue 24 Mar 12:30" in cared.label
    assert np.array_equal(plain["C"][:, before], found["C"][:, before])
    assert np.all(found["C"][:, found.time > 12.5] > plain["C"][:, found.time > 12.5])
    with pytest.raises(InterventionError, match="Leave stop= out"):
        drip_twin().do(stop=13.0, respond=rule)


def test_a_twin_whose_every_draw_needs_more_acts_says_so():
    with pytest.raises(ht.errors.SolveError, match="at_most="):
        drip_twin().do(respond=When("C", below=(99.0, "mg/L"), give=("iv", 1.0, "mg"), wait="30 min")).simulate()


def test_rules_that_cannot_be():
    ok = functools.partial(When, "C", below=(1.0, "mg/L"))
    for wrong in (
        lambda: When("C", give=("iv", 1.0, "mg")),
        lambda: ok(above=(2.0, "mg/L"), give=("iv", 1.0, "mg")),
        lambda: ok(),
        lambda: ok(give=("iv", 1.0, "mg"), stop="iv"),
        lambda: ok(give=("iv", 1.0)),
        lambda: ok(give=("iv", -1.0, "mg")),
        lambda: ok(give=("iv", 1.0, "mg"), at_most=0),
        lambda: ok(give=("iv", 1.0, "mg"), until=(0.5, "mg/L")),
        lambda: ok(give=("iv", 1.0, "mg"), wait="soon"),
        lambda: ok(give=("iv", 1.0, "mg"), wait="0 min"),
        lambda: When("C", below=1.0, give=("iv", 1.0, "mg")),
    ):
        with pytest.raises(DeclarationError) as error:
            wrong()
        assert str(error.value).rstrip().endswith(".")
    person = bolus(5.0)
    with pytest.raises(UnknownTarget, match="no output"):
        simulate(VEIN, person, do=[When("Q", below=(1.0, "mg/L"), give=("iv", 1.0, "mg"))])
    with pytest.raises(UnknownTarget, match="no dose"):
        simulate(VEIN, person, do=[ok(give=("oral", 1.0, "mg"))])
    with pytest.raises(UnknownTarget, match="no dose or signal"):
        simulate(VEIN, person, do=[ok(stop="pump")])
    with pytest.raises(ht.errors.UnitError):
        simulate(VEIN, person, do=[When("C", below=(1.0, "mmHg"), give=("iv", 1.0, "mg"))])
    with pytest.raises(InterventionError, match="lag"):
        simulate(OneCompartmentOral(ka=1.3, CL=CL, V=V, tlag=0.35), person, do=[ok(give=("oral", 1.0, "mg"))])
    with pytest.raises(InterventionError, match="no rule of care"):
        drip_twin().do(respond=Do({}))

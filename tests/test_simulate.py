"""The simulator: orders, nodes, windows, worlds, gradients, failures, and one trace a shape."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.linalg
from small import Explodes

import hybridtwin.system as ht
from hybridtwin.clock import Clock
from hybridtwin.errors import DeclarationError, HybridTwinError, ParameterError, PastHorizon
from hybridtwin.interventions import Do, Rescue, World, enact
from hybridtwin.physiology import (
    BergmanMinimal,
    OneCompartment,
    OneCompartmentOral,
    TwoCompartmentOral,
    Warfarin,
)
from hybridtwin.physiology.glucose.t1d import Gut
from hybridtwin.records import Person
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.simulate.course import course
from hybridtwin.simulate.linear import matrix_exponential
from hybridtwin.simulate.mesh import lay, layout_of
from hybridtwin.simulate.rules import FIRST, LAST
from hybridtwin.simulate.solve import Extras, observer, states
from hybridtwin.simulate.steppers import RK4, Adaptive, Chebyshev, Exact, Heun, Repeated, Tsit5
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Scalar

CL, V = 3.1, 28.0
VEIN = OneCompartment(CL=CL, V=V)
ORAL = OneCompartmentOral(ka=1.3, CL=CL, V=V, tlag=0.35)


def one_bolus(amount=100.0, stop=24.0, **kwargs):
    return Person.of("p", start=0.0, stop=stop, doses={"iv": Regimen.bolus(amount, "mg", at=0.0)}, **kwargs)


# ---------------------------------------------------------------------------------------------------- steppers


@pytest.mark.parametrize(("stepper", "order"), [(Heun(), 2), (Chebyshev(4), 2), (RK4(), 4), (Tsit5(), 5)],
                         ids=lambda s: type(s).__name__ if not isinstance(s, int) else "")  # fmt: skip
def test_observed_order_of_convergence(stepper, order):
    def f(t, x):
        return {"a": x["a"] * (1 - x["b"]), "b": x["b"] * (x["a"] - 1) + 0.1 * jnp.cos(5 * t)}

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def end(stepper, count):
        x = {"a": jnp.asarray(1.5), "b": jnp.asarray(0.5)}
        h = jnp.asarray(6.0 / count)
        x = jax.lax.fori_loop(0, count, lambda i, y: stepper.advance(f, i * h, h, y), x)
        return jnp.stack([x["a"], x["b"]])

    with jax.enable_x64(True):
        truth = end(Tsit5(), 6000)
        errors = [float(jnp.max(jnp.abs(end(stepper, n) - truth))) for n in (48, 96, 192)]
        refined = float(jnp.max(jnp.abs(end(stepper.refined(), 48) - truth)))
    observed = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(observed > order - 0.3), (errors, observed)
    assert order == 5 or np.all(observed < order + 0.3), (
        errors,
        observed,
    )  # Tsit5's leading terms are tuned to be small
    assert refined == pytest.approx(errors[1], rel=1e-6)


def test_matrix_exponential_agrees_with_scipy():
    rng, exponential = np.random.default_rng(3), jax.jit(matrix_exponential)
    with jax.enable_x64(True):
        for n in (1, 3, 5):
            a = rng.normal(size=(n, n))
            a = a - np.eye(n) * (np.abs(np.linalg.eigvals(a)).max() + 0.1)
            for scale in (1e-9, 0.3, 40.0, 3e4):
                wanted = scipy.linalg.expm(a * scale)
                got = exponential(jnp.asarray(a * scale))
                np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-10 * np.abs(wanted).max())
        assert np.isnan(exponential(jnp.full((3, 3), -1e7))).all()  # beyond its range it says so
        gradient = jax.jit(jax.grad(lambda h: matrix_exponential(a * h).sum()))(1.0)
        forward = jax.jit(lambda h: jax.jvp(lambda h: matrix_exponential(a * h).sum(), (h,), (1.0,))[1])(1.0)
        assert float(gradient) == pytest.approx(float((a @ scipy.linalg.expm(a)).sum()), rel=1e-9)
        assert float(gradient) == pytest.approx(float(forward), rel=1e-9)


@pytest.mark.parametrize(
    "solver", [Adaptive(1e-10, 1e-10), Adaptive(1e-10, 1e-10, stiff=True)], ids=["Tsit5", "Kvaerno5"]
)
def test_adaptive_solvers_agree(solver):
    insulin = Signal.linear([0, 24, 40, 120], [4.5, 60, 20, 4.5], "m[IU]/L")
    person = Person.of("p", start=0.0, stop=180.0, time="min", covariates={"weight": (70.0, "kg")},
                       signals={"insulin": insulin}, doses={"glucose_iv": Regimen.bolus(21.0, "g", at=5.0)})  # fmt: skip
    body, at = BergmanMinimal().typical(), np.linspace(0.0, 180.0, 25)
    mesh, other = simulate(body, person, at=at, tol=1e-8), simulate(body, person, at=at, solver=solver)
    for name in ("G", "action"):
        np.testing.assert_allclose(other[name], mesh[name], rtol=1e-7, atol=1e-9)


def test_the_error_told_is_the_error_made():
    person = Person.of("p", start=0.0, stop=96.0, doses={"oral": Regimen.bolus(100.0, "mg", at=2.0)})
    drug, at = Warfarin().typical(), np.linspace(0.0, 96.0, 25)
    truth = simulate(drug, person, at=at, tol=1e-8)
    for tol in (1e-3, 1e-5):
        found = simulate(drug, person, at=at, tol=tol)
        true = max(np.max(np.abs(found[n] - truth[n])) / np.max(np.abs(truth[n])) for n in ("cp", "pca"))
        assert true <= tol and found.error <= tol and true <= 2 * found.error


def test_exact_is_refused_where_it_is_not():
    person = Person.of("p", start=0.0, stop=9.0, doses={"oral": Regimen.bolus(1.0, "mg", at=0.0)})
    with pytest.raises(DeclarationError, match="Leave solver= out"):
        simulate(Warfarin().typical(), person, solver=Exact())


# ------------------------------------------------------------------------------------------ nodes and worlds


def worlds_of(spec, person, *dos):
    bound = person.bind(spec)
    lived = World(bound.inputs, bound.start, bound.stop, bound.resets)
    return lived, *(enact(lived, [do] if do else [], spec, bound.clock) for do in dos)


def test_jumps_windows_and_knots_fall_on_nodes_and_worlds_share_them():
    regimen = Regimen.bolus(50.0, "mg", at=[1.1, 7.3]) + Regimen.infusion(20.0, "mg", at=2.2, over="0.9 h")
    person = Person.of("p", start=0.0, stop=24.0, doses={"iv": regimen})
    do = Do({"iv": lambda b: b.shift(-0.7, "h"), "CL": lambda v: 2 * v}, start=7.0, stop=9.5)
    lived, other = worlds_of(OneCompartment.spec, person, do)
    layout = layout_of([lived, other], OneCompartment.spec)
    reads = [(7.3, FIRST), (7.3, LAST), (20.0, LAST)]
    a, b = lay([lived, other], OneCompartment.spec, layout, reads, max_step=0.5)
    for t in (0.0, 1.1, 2.2, 3.1, 6.6, 7.0, 7.3, 9.5, 20.0, 24.0):
        assert np.isclose(a.t, t, atol=0).any() or np.isclose(a.t, t, rtol=1e-12).any(), t
    assert np.array_equal(a.t, b.t) and np.all(np.diff(a.t) <= 0.5 + 1e-12) and np.all(np.diff(a.t) >= 0)
    assert a.read[0] < a.read[1] and a.t[a.read[0]] == a.t[a.read[1]] == 7.3  # before and after the dose
    assert a.jump[a.read[1]].sum() == 50.0 and a.jump[a.read[0]].sum() == 0.0
    assert b.jump.sum() == a.jump.sum() and b.jump[b.t == 6.6].sum() == 50.0
    assert np.array_equal(b.override[:, 0], (b.t >= 7.0) & (b.t < 9.5))
    assert a.rate[:, 0] @ np.append(np.diff(a.t), 0.0) == pytest.approx(20.0)


def test_steps_between_nodes_are_those_that_nodes_would_be_and_agree_with_the_closed_form():
    """100 mg into a vein: exponential decay. What is largest is seen at nodes, and where a lane is at the ends of stretches."""
    spec, reads = OneCompartment.spec, [(t, LAST) for t in (0.0, 3.1, 20.0)]
    (lived,) = worlds_of(spec, one_bolus())
    found = []
    with jax.enable_x64(True):
        for strides in (1, 4):
            layout = dataclasses.replace(layout_of([lived], spec), strides=strides)
            mesh = lay([lived], spec, layout, reads, max_step=0.5)[0]

            def lane(mesh, count, layout=layout):
                extras = Extras(*[jnp.zeros(0)] * 3)
                return course(VEIN, layout, Repeated(RK4(), count), mesh, VEIN.initial(None), extras, ("C",))

            found.append((mesh, jax.tree.map(np.asarray, jax.jit(lane)(mesh, 2))))
    (every, plain), (some, strode) = found
    assert every.steps.max() == 1 and some.steps.max() == 4 and len(some.t) < len(every.t) / 2
    assert some.steps[:-1].sum() == len(every.t) - 1 and np.isin(some.t, every.t).all()
    np.testing.assert_allclose(strode.values, plain.values, rtol=1e-13)
    np.testing.assert_allclose(strode.values[0], 100.0 / V * np.exp(-CL / V * np.array([0.0, 3.1, 20.0])), rtol=1e-7)
    np.testing.assert_allclose(strode.size, [100.0 / V, 100.0], rtol=1e-12)
    assert list(strode.broken) == [-1, 0] and np.all(np.diff(strode.marks[0]) <= 0)


def test_doing_nothing_is_bit_identical_and_worlds_agree_before_the_start():
    person = Person.of("p", start=0.0, stop=24.0, doses={"iv": Regimen.bolus(50.0, "mg", at=[1.1, 7.3])})
    at = np.linspace(0.0, 24.0, 49)
    lived = simulate(VEIN, person, at=at)
    same = simulate(VEIN, person, at=at, do=[Do({"iv": lambda b: b})])
    assert np.array_equal(lived["C"], same["C"])
    later = simulate(VEIN, person, at=at, do=[Do({"iv": lambda b: 2 * b}, start=7.0)])
    before = at < 7.3
    assert np.array_equal(later["C"][:, before], lived["C"][:, before])
    assert np.all(later["C"][:, ~before] > lived["C"][:, ~before])


def test_windows_that_differ_from_a_node_by_rounding():
    """0.1 + 0.2 is not 0.3: a window or a step that starts a rounding later still starts at the node."""
    person = Person.of("p", start=0.0, stop=2.0, doses={"iv": Regimen.bolus(50.0, "mg", at=0.3)})
    found = simulate(VEIN, person, at=[1.3], do=[Do({"CL": 0.0}, start=0.1 + 0.2)])
    assert found["C"][0, 0] == pytest.approx(50.0 / V, rel=1e-12)


def test_override_in_a_window():
    at = np.array([1.0, 3.0, 4.0, 6.0, 10.0])
    found = simulate(VEIN, one_bolus(), at=at, do=[Do({"CL": lambda v: 3 * v}, start=3.0, stop=6.0)])
    lost = CL / V * (at + 2 * np.clip(at - 3.0, 0.0, 3.0))
    np.testing.assert_allclose(found["C"][0], 100 / V * np.exp(-lost), rtol=1e-10)


def test_clamp_in_a_window_to_a_moving_target():
    at = np.array([1.9, 2.0, 3.0, 4.9, 6.0])
    level = Signal.linear([2.0, 5.0], [20.0, 50.0], "mg")
    found = simulate(VEIN, one_bolus(), at=at, do=[Do({"central": level}, start=2.0, stop=5.0)])
    held = 20.0 + 10.0 * (at - 2.0)
    free = np.where(at < 2.0, 100 * np.exp(-CL / V * at), 50.0 * np.exp(-CL / V * (at - 5.0)))
    np.testing.assert_allclose(found["central"][0], np.where((at >= 2.0) & (at < 5.0), held, free), rtol=1e-4)


def test_a_moving_dose_does_not_break_a_clamp():
    person = Person.of("p", start=0.0, stop=9.0, doses={"oral": Regimen.bolus(80.0, "mg", at=2.5)})
    do = Do({"central": Signal.linear([2.0, 5.0], [20.0, 50.0], "mg")}, start=2.0, stop=5.0)
    found = simulate(ORAL, person, at=[2.9, 4.0], do=[do])
    np.testing.assert_allclose(found["central"][0], [29.0, 40.0], rtol=1e-6)


def test_worlds_with_another_number_of_moving_doses_share_a_shape():
    person = Person.of("p", start=0.0, stop=9.0, doses={"oral": Regimen.bolus(80.0, "mg", at=[1.0, 2.5])})
    spec = OneCompartmentOral.spec
    lived, none = worlds_of(spec, person, Do({"oral": Regimen.none("mg")}))
    layout = layout_of([lived, none], spec)
    a, b = lay([lived, none], spec, layout, [(5.0, LAST)], max_step=10.0)
    assert [x.shape for x in jax.tree.leaves(a)] == [x.shape for x in jax.tree.leaves(b)]
    found = simulate(ORAL, person, at=[5.0], do=[Do({"oral": lambda b: b.only(0.0, 2.0)})])
    since, k = 5.0 - 1.35, CL / V
    wanted = 80.0 / V * 1.3 / (1.3 - k) * (np.exp(-k * since) - np.exp(-1.3 * since))
    np.testing.assert_allclose(found["C"], wanted, rtol=1e-10)


# ------------------------------------------------------------------------------------------ draws and unknowns


def test_a_world_without_the_doses_that_were_lived():
    """Leaving out all doses of an input: the layout must hold the lived world too, whose nodes the other has."""
    oral, iv = Regimen.bolus(100.0, "mg", at=0.0), Regimen.infusion(10.0, "mg", at=5.0, over="1 h")
    body = OneCompartment(CL=3.0, V=30.0)
    both = Person.of("p", start=0.0, stop=24.0, time="h", doses={"iv": oral + iv})
    none = simulate(body, both, at=[6.0, 24.0], do=[Do({"iv": Regimen.none("mg")})])
    assert none["C"].max() == 0.0
    system = OneCompartmentOral(ka=1.5, CL=3.0, V=30.0, tlag=0.2)
    both = Person.of("p", start=0.0, stop=24.0, time="h", doses={"oral": oral, "iv": iv})
    alone = Person.of("p", start=0.0, stop=24.0, time="h", doses={"oral": oral})
    found = simulate(system, both, at=[6.0, 24.0], do=[Do({"iv": Regimen.none("mg")})])
    np.testing.assert_allclose(found["C"], simulate(system, alone, at=[6.0, 24.0])["C"], rtol=1e-10)


def test_uncertain_amounts_scale_a_linear_course():
    regimen = Regimen((Dose(0.0, 100.0, amount_sd=0.4), Dose(6.0, 100.0)), "mg")
    person = Person.of("p", start=0.0, stop=24.0, doses={"iv": regimen})
    found = simulate(VEIN, person, at=[0.0, 3.0, 6.0], draws=400, key=5)
    plain = simulate(VEIN, person, at=[0.0, 3.0, 6.0])
    assert plain["C"].shape == (1, 3) and plain["C"][0, 0] == pytest.approx(100 / V)
    system = OneCompartment(CL=dist.LogNormal(np.log(CL), 1e-9), V=V)
    found = simulate(system, person, at=[0.0, 3.0, 6.0], draws=400, key=5)
    factor = found["central"][:, 0] / 100.0
    assert np.std(np.log(factor)) == pytest.approx(0.4, rel=0.12)
    one, two = plain["central"][0, 1:]
    np.testing.assert_allclose(found["central"][:, 1], factor * one, rtol=1e-7)
    np.testing.assert_allclose(found["central"][:, 2], factor * two + (1 - factor) * 100.0, rtol=1e-7)


def test_priors_need_draws_and_a_key_and_the_same_key_gives_the_same_bits():
    with pytest.raises(ParameterError, match="draws= and key="):
        simulate(OneCompartment(), one_bolus())
    drawn = functools.partial(simulate, OneCompartment(), one_bolus(), at=[1.0, 9.0], draws=70)
    a, b, c = drawn(key=1), drawn(key=jax.random.key(1)), drawn(key=2)
    assert a["C"].shape == (70, 2) and np.array_equal(a["C"], b["C"]) and not np.array_equal(a["C"], c["C"])
    assert not jax.config.jax_enable_x64 and a["C"].dtype == np.float64


def lane_of(system, person, reads, stepper, name, max_step=100.0):
    """(values by path) -> readings of one output, for gradients."""
    spec = system.spec
    (lived,) = worlds_of(spec, person)
    layout = layout_of([lived], spec)
    mesh = lay([lived], spec, layout, reads, max_step=max_step)[0]

    def run(values):
        body = system.with_values(values)
        extras = Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
        path, _ = states(body, layout, stepper, mesh, body.initial(None), extras, observer((name,)))
        return path[mesh.read, 0]

    return run


def test_gradient_with_respect_to_lag():
    regimen = Regimen.bolus(80.0, "mg", at=0.0).every("6 h", times=3) + Regimen.infusion(50.0, "mg", at=1.0, over="2 h")
    person = Person.of("p", start=0.0, stop=24.0, doses={"oral": regimen})
    reads = [(t, LAST) for t in (0.2, 1.0, 1.7, 4.0, 6.1, 7.0, 13.0, 23.0)]
    with jax.enable_x64(True):
        run = lane_of(ORAL, person, reads, Exact(), "C")
        at = jax.jit(lambda lag: run({"tlag": lag}))
        slope = np.asarray(jax.jacfwd(at)(0.35))
        central = (np.asarray(at(0.35 + 1e-5)) - np.asarray(at(0.35 - 1e-5))) / 2e-5
    np.testing.assert_allclose(slope, central, rtol=1e-6, atol=1e-8)
    assert slope[0] == 0.0 and np.abs(slope[2:]).min() > 1e-3


# ------------------------------------------------------------------------------------------ rescue and failure


def test_rescue_rule():
    rule = Rescue("C", 1.0, "mg/L", "iv", 50.0, "mg", every="1 h", wait="2.5 h")
    at = np.arange(0.0, 24.5, 0.5)
    found = simulate(VEIN, one_bolus(), at=at, do=[rule], tol=1e-6)
    amount, waited, wanted = 100.0, np.inf, []
    for k in range(25):  # the rule by hand
        if amount / V < 1.0 and waited >= 2.5 and k < 24:
            amount, waited = amount + 50.0, 0.0
        wanted.append(amount / V)
        amount, waited = amount * np.exp(-CL / V), waited + 1.0
    np.testing.assert_allclose(found["C"][0, ::2], wanted, rtol=1e-5)
    assert any("rescue iv given at" in note for note in found.notes)


def test_failed_lanes_are_masked_counted_and_explained():
    person = Person.of("p", start=0.0, stop=1.0)
    found = simulate(Explodes(a=ht.lognormal(1.0, 0.7)), person, at=[0.25, 0.5, 1.0], draws=100, key=0)
    with jax.enable_x64(True):
        a = np.asarray(dist.LogNormal(0.0, 0.7).sample(jax.random.fold_in(jax.random.key(0), 0), (100,)))
    assert np.array_equal(found.failed, np.isnan(found["y"]).all(axis=1))
    assert not np.isnan(found["y"][~found.failed]).any()
    assert found.failed[a > 1.05].all() and not found.failed[a < 0.9].any()
    solved = ~found.failed & (a < 0.9)
    np.testing.assert_allclose(found["y"][solved, 2], 1 / (1 - a[solved]), rtol=1e-3)
    assert any("of 100 draws" in note and "NaN" in note for note in found.notes)
    assert found.quantile("y", 0.5).shape == (3,) and "draws solved" in repr(found)
    doomed = simulate(Explodes(a=5.0), person, at=[1.0])
    assert doomed.failed.all() and doomed.notes


# ------------------------------------------------------------------------------------------ mass, shapes, requests


def test_mass_is_conserved():
    system = TwoCompartmentOral(ka=1.3, CL=0.0, Vc=V, Q=4.0, Vp=40.0, tlag=0.35, F=0.8)
    regimen = Regimen.bolus(80.0, "mg", at=0.0).every("6 h", times=3)
    vein = Regimen.infusion(30.0, "mg", at=5.0, over="4 h")
    person = Person.of("p", start=0.0, stop=24.0, doses={"oral": regimen, "iv": vein})
    at = np.array([0.2, 1.0, 5.0, 7.0, 9.0, 24.0])
    found = simulate(system, person, at=at)
    given = 0.8 * 80.0 * sum((at >= 6 * k + 0.35).astype(float) for k in range(3)) + 7.5 * np.clip(at - 5.0, 0.0, 4.0)
    np.testing.assert_allclose(found["depot"][0] + found["central"][0] + found["peripheral"][0], given, rtol=1e-10)


def test_a_meal_is_eaten_at_its_pace_and_nothing_is_lost():
    person = Person.of("p", start=0.0, stop=200.0, time="min", doses={"meal": Regimen.bolus(60.0, "g", at=30.0)})
    at = np.array([30.0, 33.0, 36.0, 42.0, 90.0, 200.0])
    found = simulate(Gut(kt=0.0, ka=0.0).typical(), person, at=at)
    eaten = sum(found[q][0] for q in ("q1", "q2", "p1", "p2", "p3", "p4", "p5"))
    np.testing.assert_allclose(eaten, 5.0 * np.clip(at - 30.0, 0.0, 12.0), rtol=1e-10)


COUNTED: list[str] = []


class Counted(ht.System):
    """A system that tells how often its rates are traced."""

    time = "h"

    class State(ht.State):
        x: Scalar = ht.state("mg")

    class Input(ht.Input):
        iv: Scalar = ht.dose("mg", into="x")
        push: Scalar = ht.signal("mg/h")

    k: Scalar = ht.parameter(ht.lognormal(0.3, 0.3), "1/h")
    half: Scalar = ht.constant(100.0, "mg")

    def rates(self, t, x, u):
        COUNTED.append("rates")
        return self.State(x=u.push - self.k * x.x / (1.0 + x.x / self.half))

    def outputs(self, x, u):
        return {"y": ht.output(x.x, "mg")}


def test_one_trace_a_shape():
    def run(system, amount, **kwargs):
        COUNTED.clear()
        person = Person.of("p", start=0.0, stop=12.0, doses={"iv": Regimen.bolus(amount, "mg", at=1.0)})
        simulate(system, person, at=[1.0, 5.0, 12.0], solver=RK4(), tol=1.0, **kwargs)
        return len(COUNTED)

    assert run(Counted(k=0.3), 50.0) > 2
    assert run(Counted(k=0.35, half=80.0), 70.0) == 0, "other numbers made another trace"
    assert run(Counted(), 60.0, draws=30, key=1) == 0, "draws are not lanes of the same program"
    assert run(Counted(), 60.0, draws=150, key=1) == 0


def test_a_step_signal_and_a_ramp():
    """dx/dt = push: the integral of the signal, which is exact on nodes for lines as for steps."""
    system = Counted(k=0.0)
    steps = Signal.steps([0.0, 2.5, 7.1], [1.0, 4.0, 0.5], "mg/h")
    ramp = Signal.linear([0.0, 3.0, 8.0], [0.0, 6.0, 1.0], "mg/h")
    at = np.array([1.0, 2.5, 5.0, 7.1, 12.0])
    for signal in (steps, ramp):
        person = Person.of("p", start=0.0, stop=12.0, signals={"push": signal})
        found = simulate(system, person, at=at)
        np.testing.assert_allclose(found["y"][0], [signal.integral(0.0, t) for t in at], rtol=1e-9)


def test_requests_that_cannot_be_met():
    person = one_bolus()
    with pytest.raises(PastHorizon, match="before the record starts"):
        simulate(VEIN, person, at=[-1.0])
    with pytest.raises(DeclarationError, match="free"):
        simulate(VEIN, person, start="lived")
    week = Person.of("p", start=0.0, stop=30.0 * 24 * 60, time="min", covariates={"weight": (70.0, "kg")})
    with pytest.raises(PastHorizon, match="declared valid"):
        simulate(BergmanMinimal().typical(), week)
    with pytest.raises(PastHorizon, match="spans no time"):
        simulate(VEIN, Person.of("p", doses={"iv": Regimen.bolus(1.0, "mg", at=3.0)}))


@pytest.mark.parametrize("dose", [Dose(0.0, 50.0, time_sd=0.5), Dose(0.0, 50.0, duration=2.0, time_sd=0.5)])
def test_an_uncertain_time_loses_no_dose_at_the_start(dose):
    """Every second draw has the first dose of a day before the day begins: it was given in none of these, without a word."""
    day = Person.of("p", start=0.0, stop=24.0, doses={"iv": Regimen((dose,), "mg")})
    found = simulate(OneCompartment(CL=ht.lognormal(1.0, 1e-6), V=30.0), day, at=[6.0], draws=64, key=0)["central"][:, 0]
    at_start = 50 * np.exp(-6 / 30) if not dose.duration else 50 / 2 * 30 * (np.exp(-4 / 30) - np.exp(-6 / 30))
    assert found.min() == pytest.approx(at_start, rel=1e-5)  # shifts to later leave more
    assert 10 < np.sum(found < at_start * (1 + 1e-4)) < 54


def test_doses_outside_the_record_are_told():
    day = Person.of("p", start=2.0, stop=24.0, doses={"iv": Regimen.bolus(10.0, "mg", at=[1.0, 3.0, 30.0])})
    late, early = simulate(VEIN, day, at=[24.0]).notes
    assert early.startswith("iv: 1 doses before the record begins") and late.startswith("iv: 1 doses after the end of the record")
    assert len(simulate(VEIN, day, at=[30.0]).notes) == 1  # which lengthens the record


def test_times_as_clock_text_and_beyond_the_record():
    clock = Clock("2026-03-24T07:00:00+01:00", unit="min")
    person = Person.of("p", time=clock, start=0.0, stop=60.0, doses={"iv": Regimen.bolus(100.0, "mg", at="07:30")})
    found = simulate(VEIN, person, at=["07:30", "08:00", 180.0])
    assert found.time.tolist() == [0.5, 1.0, 3.0] and found.clock.unit == "h"
    np.testing.assert_allclose(found["C"][0], 100 / V * np.exp(-CL / V * np.array([0.0, 0.5, 2.5])), rtol=1e-10)
    assert simulate(VEIN, person)["C"].shape == (1, 400)


def test_the_verb_and_the_folder_of_one_name():
    import hybridtwin

    found = hybridtwin.simulate(VEIN, one_bolus(), at=[1.0])
    assert np.array_equal(found["C"], simulate(VEIN, one_bolus(), at=[1.0])["C"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do": [{"iv": Regimen.none("mg")}]}, "is no intervention"),
        ({"do": "iv=none"}, "is no intervention"),
        ({"solver": "rk4"}, "no stepper"),
        ({"tol": 0.0}, "no tolerance"),
        ({"tol": float("nan")}, "no tolerance"),
        ({"tol": "fine"}, "no tolerance"),
        ({"at": [1.0, float("inf")]}, "not finite"),
        ({"draws": 0, "key": 0}, "no number of bodies"),
        ({"draws": 2.5, "key": 0}, "no number of bodies"),
    ],
)
def test_what_is_asked_wrongly_is_refused(given, message):
    """An intervention that is no `Do` was passed over without a word."""
    with pytest.raises(HybridTwinError, match=message):
        simulate(VEIN, one_bolus(), **given)


def test_one_intervention_needs_no_list_and_a_class_is_no_body():
    one = Do({"iv": Regimen.none("mg")})
    np.testing.assert_array_equal(simulate(VEIN, one_bolus(), at=[5.0], do=one)["C"], [[0.0]])
    with pytest.raises(DeclarationError, match=r"Write OneCompartment\(\)"):
        simulate(type(VEIN), one_bolus())

"""Declaring a system: its fields, its spec, its leaves, the unit walk, and every bad declaration."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import hybridtwin.system as ht
from hybridtwin.dimensions import check, is_linear
from hybridtwin.errors import DeclarationError, ParameterError, UnitError
from hybridtwin.priors import describe, median
from hybridtwin.system import Scalar


class OralOneCompartment(ht.System):
    """One-compartment model with first-order absorption."""

    time = "h"

    class State(ht.State):
        depot: Scalar = ht.state("mg", "amount at the absorption site")
        central: Scalar = ht.state("mg", "amount in plasma")

    class Input(ht.Input):
        oral: Scalar = ht.dose("mg", into="depot", cmt=1)
        iv: Scalar = ht.dose("mg", into="central", cmt=2)
        weight: Scalar = ht.covariate("kg")

    ka: Scalar = ht.parameter(ht.typical(1.5, cv=0.53), "1/h", "absorption rate constant")
    CL: Scalar = ht.parameter(ht.typical(2.8, cv=0.42), "L/h", "clearance of a 70 kg adult")
    V: Scalar = ht.parameter(ht.typical(32, cv=0.3), "L", "volume of distribution")
    tlag: Scalar = ht.parameter(ht.typical(0.2, cv=0.5), "h", "lag before absorption")
    exponent: Scalar = ht.parameter(ht.normal(0.75, 0.1), "1", "allometric exponent", shared=True)

    def dosing(self, u):
        return {"oral": ht.route(lag=self.tlag)}

    def rates(self, t, x: State, u: Input) -> State:
        clearance = self.CL * (u.weight / ht.const(70, "kg")) ** self.exponent
        return self.State(depot=-self.ka * x.depot, central=self.ka * x.depot - clearance / self.V * x.central)

    def outputs(self, x: State, u: Input):
        return {"C": ht.output(x.central / self.V, "mg/L")}


class Gut(ht.System):
    """A gut in two compartments."""

    time = "min"

    class State(ht.State):
        q1: Scalar = ht.state("g")
        q2: Scalar = ht.state("g")

    class Input(ht.Input):
        meal: Scalar = ht.dose("g", into="q1", spread="5 g/min")

    kempt: Scalar = ht.parameter(ht.typical(0.05), "1/min", "emptying")
    kabs: Scalar = ht.parameter(ht.typical(0.02), "1/min", "absorption")

    def rates(self, t, x, u):
        return self.State(q1=-self.kempt * x.q1, q2=self.kempt * x.q1 - self.kabs * x.q2)

    def outputs(self, x, u):
        return {"Ra": ht.output(self.kabs * x.q2, "g/min")}


class Glucose(ht.System):
    """Glucose with a gut as a part."""

    time = "min"
    horizon = "72 h"
    grid = "5 min"

    class State(ht.State):
        G: Scalar = ht.state("mg/dL", "plasma glucose")
        gut: Gut.State

    class Input(ht.Input):
        gut: Gut.Input
        basal: Scalar = ht.signal("[IU]/h", default=0.8)

    gut: Gut = Gut(kabs=0.03)
    SG: Scalar = ht.parameter(lambda: dist.Beta(2.0, 50.0), "1/min", "glucose effectiveness", low=0, high=1)
    VG: Scalar = ht.parameter(ht.typical(1.6), "dL/kg", varies="day", spread=0.2, source="Bergman 1979")
    f: Scalar = ht.parameter(ht.logitnormal(0.9, 0.5), "1", "fraction absorbed")
    Gb: Scalar = ht.constant(110, "mg/dL", "basal glucose")

    def rates(self, t, x, u):
        gut = self.gut.rates(t, x.gut, u.gut)
        ra = self.f * self.gut.outputs(x.gut, u.gut)["Ra"].value * ht.const(1000, "mg/g") / self.VG / ht.const(70, "kg")
        return self.State(G=-self.SG * (x.G - self.Gb) + ra, gut=gut)

    def initial(self, u):
        return self.State(G=self.Gb, gut=self.gut.State(q1=0.0, q2=0.0))

    def outputs(self, x, u):
        return {"G": ht.output(x.G, "mg/dL", "plasma glucose")}


# ------------------------------------------------------------------------------------------ spec and leaves


def test_spec_of_the_design_example():
    spec = OralOneCompartment.spec
    assert (spec.time, list(spec.states), spec.routes, spec.moving) == (
        "h",
        ["depot", "central"],
        ("oral", "iv"),
        ("oral",),
    )
    assert spec.outputs["C"].unit == "mg/L" and spec.linear and spec.unchecked == ()
    assert spec.parameters["exponent"].shared and not spec.parameters["ka"].shared
    assert spec.doses["iv"].into == "central" and spec.states["depot"].low == 0.0
    assert OralOneCompartment().spec is spec  # once per class
    assert {
        ("CL", "x.central"),
        ("u.weight", "x.central"),
        ("x.depot", "x.central"),
        ("x.central", "y.C"),
        ("tlag", "u.oral"),
        ("u.oral", "x.depot"),
    } <= set(spec.edges)
    assert ("CL", "x.depot") not in spec.edges and ("x.depot", "y.C") not in spec.edges


def test_the_prior_is_the_leaf():
    whole = OralOneCompartment()
    assert list(whole.priors()) == ["ka", "CL", "V", "tlag", "exponent"] and whole.values() == {}
    fixed = OralOneCompartment(V=30)
    assert fixed.values() == {"V": 30.0} and "V" not in fixed.priors()
    replaced = OralOneCompartment(ka=dist.LogNormal(1.0, 0.1))
    assert replaced.priors()["ka"].loc == 1.0
    assert OralOneCompartment(V=(3000, "cL")).values()["V"] == 30.0
    assert whole.typical().values() == pytest.approx({"ka": 1.5, "CL": 2.8, "V": 32, "tlag": 0.2, "exponent": 0.75})
    assert whole.with_values({"V": 30.0}).values() == {"V": 30.0} and whole.values() == {}


def test_a_draw_is_the_same_tree_under_jit_vmap_and_grad():
    system, spec = OralOneCompartment(), OralOneCompartment.spec
    draws = {path: jnp.asarray([0.5, 1.0, 2.0]) for path in system.priors()}

    @jax.jit
    def rates(draws, depot, weight):
        body = system.with_values(draws)
        x, u = spec.state({"depot": depot, "central": 1.0}), spec.input({"weight": weight})
        return spec.flatten(body.rates(0.0, x, u)), body.outputs(x, u)["C"].value, body.dosing(u)["oral"].lag

    change, c, lag = jax.vmap(rates, in_axes=(0, None, None))(draws, 10.0, 70.0)
    np.testing.assert_allclose(change["depot"], [-5, -10, -20])
    np.testing.assert_allclose(change["central"], [4, 9, 19])
    np.testing.assert_allclose(c, [2, 1, 0.5])
    np.testing.assert_allclose(lag, [0.5, 1, 2])
    slope = jax.grad(lambda ka: rates({**system.typical().values(), "ka": ka}, 10.0, 70.0)[0]["depot"])(1.0)
    assert slope == -10.0
    assert jax.tree.leaves(spec.state({"depot": 1.0, "central": 2.0})) == [1.0, 2.0]


def test_subsystems_are_namespaced():
    spec = Glucose.spec
    assert list(spec.states) == ["G", "gut.q1", "gut.q2"]
    assert list(spec.parameters) == ["gut.kempt", "gut.kabs", "SG", "VG", "f"] and list(spec.constants) == ["Gb"]
    assert spec.doses["gut.meal"].into == "gut.q1" and spec.spread("gut.meal") == 5.0
    assert (spec.horizon, spec.grid, spec.defines) == (72 * 60, 5.0, {"initial"})
    assert ("gut.kabs", "x.G") in spec.edges and ("Gb", "x.G") in spec.edges
    system = Glucose()
    assert system.values() == {"gut.kabs": 0.03, "Gb": 110.0}
    assert isinstance(system.priors()["SG"], dist.Beta)  # the lambda was called
    other = system.with_values({"gut.kempt": 1.0})
    assert other.gut.kempt == 1.0 and isinstance(system.gut.kempt, dist.Distribution)
    assert Glucose(gut=Gut()).priors().keys() > system.priors().keys()
    assert system.typical().f == pytest.approx(0.9)
    assert 0.02 < system.typical().SG < 0.05
    start = system.typical().initial(None)
    assert spec.flatten(start) == {"G": 110.0, "gut.q1": 0.0, "gut.q2": 0.0}
    assert spec.flatten(spec.input({})) == {"basal": 0.8}


def test_a_subsystem_without_default_is_checked_at_construction():
    class Needs(ht.System):
        time = "min"

        class State(ht.State):
            gut: Gut.State

        gut: Gut

        def rates(self, t, x, u):
            return self.State(gut=self.gut.rates(t, x.gut, u))

    assert list(Needs(gut=Gut()).spec.parameters) == ["gut.kempt", "gut.kabs"]
    with pytest.raises(ParameterError, match="needs gut"):
        Needs()


def test_hybrid_systems_report_what_is_unchecked():
    class Hybrid(ht.System):
        time = "h"

        class State(ht.State):
            G: Scalar = ht.state("mg/dL")

        k: Scalar = ht.parameter(ht.typical(0.1), "1/h")
        net: eqx.nn.MLP
        layers: int = 2

        def rates(self, t, x, u):
            return self.State(G=-self.k * x.G + self.net(jnp.stack([x.G]))[0])

    system = Hybrid(net=eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0)))
    assert any("net" in line for line in system.spec.unchecked) and not system.spec.linear
    leaves = jax.tree.leaves(eqx.filter(system, eqx.is_array))
    assert len(leaves) == 4  # learned: the arrays; `layers` is structure
    assert jnp.isfinite(system.typical().rates(0.0, system.State(G=100.0), system.Input()).G)


def test_linearity_is_read_off_the_rates():
    assert is_linear(OralOneCompartment) and is_linear(Glucose)
    for make in (
        lambda s, t, x, u: x.central * x.depot / ht.const(1, "mg"),
        lambda s, t, x, u: jnp.sqrt(x.depot * x.depot),
        lambda s, t, x, u: jnp.maximum(x.depot, 0.0),
        lambda s, t, x, u: x.depot / (1 + x.central / ht.const(1, "mg")),
        lambda s, t, x, u: jnp.where(x.depot > x.central, x.depot, 0.0),
        lambda s, t, x, u: x.depot * (t / ht.const(1, "h")),
    ):
        assert not is_linear(declare(lambda s, t, x, u, f=make: s.State(depot=-s.ka * f(s, t, x, u), central=0.0)))
    assert is_linear(
        declare(lambda s, t, x, u: s.State(depot=-s.ka * (x.depot - 3 * x.central) / 2, central=s.ka * s.V * s.conc))
    )


# ------------------------------------------------------------------------------------------ the unit walk


def declare(rates, outputs=None, **methods):
    """A small system with these rates."""

    class Small(ht.System):
        time = "h"

        class State(ht.State):
            depot: Scalar = ht.state("mg")
            central: Scalar = ht.state("mg")

        class Input(ht.Input):
            oral: Scalar = ht.dose("mg", into="depot")
            weight: Scalar = ht.covariate("kg")

        ka: Scalar = ht.parameter(ht.typical(1.5), "1/h")
        per_minute: Scalar = ht.parameter(ht.typical(1.5), "1/min")
        V: Scalar = ht.parameter(ht.typical(32), "L")
        deciliters: Scalar = ht.parameter(ht.typical(32), "dL")
        conc: Scalar = ht.constant(1, "mg/L")
        n: Scalar = ht.parameter(ht.normal(1.0, 0.1), "1")

        def rates(self, t, x, u):
            return rates(self, t, x, u)

        def outputs(self, x, u):
            return outputs(self, x, u) if outputs else {}

        def initial(self, u):
            return methods["initial"](self, u) if "initial" in methods else self.State(depot=0.0, central=0.0)

        def dosing(self, u):
            return methods["dosing"](self, u) if "dosing" in methods else {}

    return Small


def first(expression):
    return lambda s, t, x, u: s.State(depot=-s.ka * x.depot, central=expression(s, t, x, u))


@jax.jit
def per_mg(x):
    return x / ht.const(2.0, "mg")


def softened(x):
    return jax.nn.softplus(x / ht.const(1, "mg")) * ht.const(1, "mg")


FINE = [
    lambda s, t, x, u: s.ka * x.depot + 0.0,
    lambda s, t, x, u: s.per_minute * ht.const(60, "min/h") * x.depot,
    lambda s, t, x, u: jnp.where(x.depot > 0, s.ka * x.depot, 0.0),
    lambda s, t, x, u: s.ka * jnp.maximum(x.depot, 0) * jnp.exp(-x.depot / x.central),
    lambda s, t, x, u: s.ka * x.depot * (u.weight / ht.const(70, "kg")) ** s.n,
    lambda s, t, x, u: s.ka * jnp.sqrt(x.depot * x.central) + 2 * s.ka * x.depot**2 / x.central,
    lambda s, t, x, u: s.ka * x.depot**0.5 * x.central**0.5,
    lambda s, t, x, u: s.ka * x.depot * per_mg(x.depot),
    lambda s, t, x, u: s.ka * softened(x.depot) * jax.nn.sigmoid(s.n),
    lambda s, t, x, u: jax.lax.cond(x.depot > x.central, lambda: s.ka * x.depot, lambda: s.ka * x.central),
    lambda s, t, x, u: s.ka * jnp.clip(x.depot, 0.0, x.central) * jnp.cos(2 * jnp.pi * t / ht.const(24, "h")),
    lambda s, t, x, u: ht.empirical(jnp.log(u.weight / ht.const(1, "kg")) * 3, "mg/h", source="a fit"),
    lambda s, t, x, u: s.ka * x.depot * jnp.mod(t, ht.const(24, "h")) / ht.const(24, "h"),
    lambda s, t, x, u: jnp.sum(jnp.stack([s.ka * x.depot, s.ka * x.central])),
    lambda s, t, x, u: jnp.zeros(()),
    lambda s, t, x, u: jax.checkpoint(lambda a: s.ka * a)(x.depot),
    lambda s, t, x, u: s.ka * jnp.minimum(x.depot, jnp.inf),
]


@pytest.mark.parametrize("expression", FINE)
def test_right_units_pass_and_nothing_is_left_unchecked(expression):
    assert declare(first(expression)).spec.unchecked == ()


WRONG = [
    (
        lambda s, t, x, u: s.ka * x.depot + s.V,
        r'd central/dt: cannot add "ka \* depot" \[mg/h\] and "V" \[L\].*test_system.py',
    ),
    (lambda s, t, x, u: s.per_minute * x.depot, r"d central/dt is .*\[mg/min\].*factor 60"),
    (
        lambda s, t, x, u: s.ka * x.depot - s.per_minute * x.central,
        r"cannot subtract.*factor 60.*ht.const\(60, \"min/h\"\)",
    ),
    (lambda s, t, x, u: s.ka * s.deciliters * (x.depot / s.V + x.depot / s.deciliters), "cannot add.*factor 10"),
    (lambda s, t, x, u: x.depot, r'is "depot" \[mg\].*needs \[mg/h\]'),
    (lambda s, t, x, u: s.ka * x.depot + 1.0, r"ht.const\(1, \"mg/h\"\)"),
    (lambda s, t, x, u: s.ka * (x.depot + 1e-9), "cannot add"),
    (lambda s, t, x, u: 3.0, "bare number"),
    (lambda s, t, x, u: s.ka * x.depot * u.weight**s.n, r"Write \(weight / ht.const"),
    (lambda s, t, x, u: s.ka * x.depot * jnp.exp(-x.depot), "exp needs a plain number"),
    (lambda s, t, x, u: s.ka * x.depot * jnp.tanh(s.ka / s.per_minute), "has a scale.*60"),
    (lambda s, t, x, u: s.ka * x.depot * 2.0**u.weight, "exponent needs a plain number"),
    (lambda s, t, x, u: jnp.where(x.depot > 3.0, s.ka * x.depot, 0.0), "cannot compare"),
    (lambda s, t, x, u: jnp.where(x.depot > 0, s.ka * x.depot, x.depot), "choose between"),
    (lambda s, t, x, u: jnp.maximum(s.ka * x.depot, s.V), "take the larger"),
    (lambda s, t, x, u: s.ka * jax.nn.softplus(x.depot), "in softplus"),
    (lambda s, t, x, u: s.ka * x.depot * per_mg(s.V), r"\[L/h\]"),
    (
        lambda s, t, x, u: jax.lax.cond(x.depot > x.central, lambda: s.ka * x.depot, lambda: s.V * s.conc),
        "choose between",
    ),
    (lambda s, t, x, u: s.ka * x.depot * jnp.sin(t), "sin needs a plain number"),
    (lambda s, t, x, u: ht.empirical(x.depot, "mg/min"), "factor 60"),
]


@pytest.mark.parametrize(("expression", "message"), WRONG)
def test_wrong_units_are_errors_that_name_the_term(expression, message):
    with pytest.raises(UnitError, match=message) as caught:
        declare(first(expression))
    assert "Small.rates" in str(caught.value)


@pytest.mark.parametrize(("unit", "number", "by"), [("mg/min", r"60", "min/h"), ("mg/d", r"1 / 24", "d/h")])
def test_a_result_of_another_scale_is_told_what_to_multiply_it_by(unit, number, by):
    """The result itself is what can be multiplied, never the rate that is needed: followed, the advice is right."""
    with pytest.raises(UnitError, match=rf'Multiply it by ht.const\({number}, "{by}"\)'):
        declare(first(lambda s, t, x, u: ht.empirical(x.depot, unit)))
    declare(first(lambda s, t, x, u: ht.empirical(x.depot, unit) * ht.const(60 if by == "min/h" else 1 / 24, by)))


def test_outputs_initial_and_dosing_are_walked_too():
    rates = first(lambda s, t, x, u: s.ka * x.depot)
    concentration = declare(rates, lambda s, x, u: {"C": ht.output(x.central / s.V, "mg/L")})
    assert concentration.spec.outputs["C"].unit == "mg/L"
    with pytest.raises(UnitError, match=r"Small.outputs: C .*factor 10"):
        declare(rates, lambda s, x, u: {"C": ht.output(x.central / s.deciliters, "mg/L")})
    with pytest.raises(UnitError, match=r"Small.initial: central"):
        declare(rates, initial=lambda s, u: s.State(depot=0.0, central=s.conc))
    for route in (dict(lag=lambda s: 1 / s.per_minute), dict(fraction=lambda s: s.V), dict(rate=lambda s: s.conc)):
        with pytest.raises(UnitError, match=r"Small.dosing"):
            declare(rates, dosing=lambda s, u, r=route: {"oral": ht.route(**{k: f(s) for k, f in r.items()})})
    with pytest.raises(DeclarationError, match="no dose"):
        declare(rates, dosing=lambda s, u: {"orla": ht.route(lag=1 / s.ka)})
    moving = declare(rates, dosing=lambda s, u: {"oral": ht.route(fraction=s.n)})
    assert moving.spec.moving == ()


def test_unknown_primitives_are_reported():
    report = check(declare(first(lambda s, t, x, u: s.ka * jax.scipy.special.i1(x.depot / x.central) * x.depot)))
    assert any("bessel_i1" in line and "test_system.py" in line for line in report.unchecked)


def test_a_vector_of_mixed_units_is_reported():
    spec = declare(first(lambda s, t, x, u: s.ka * x.depot + jnp.stack([x.depot, s.V])[1])).spec
    assert any("mixed units" in line for line in spec.unchecked)


def test_the_walk_leaves_no_mark_on_real_runs():
    """`per_mg` is jitted: its trace in the walk, with marked constants, must not be what a real run finds."""
    declare(first(lambda s, t, x, u: s.ka * x.depot * per_mg(x.depot)))
    assert per_mg(4.0) == 2.0 and jax.grad(per_mg)(4.0) == 0.5
    with pytest.raises(UnitError):
        declare(first(lambda s, t, x, u: s.ka * x.depot * per_mg(s.V)))
    assert ht.const(70, "kg") == 70.0 and isinstance(ht.const(70, "kg"), float)
    with pytest.raises(UnitError):
        ht.const(70, "kgg")


# ------------------------------------------------------------------------------------------ bad declarations


def test_bad_rates():
    cases = [
        (lambda s, t, x, u: {"depot": 0.0}, "returns dict"),
        (lambda s, t, x, u: s.State(depot=0.0), "lacks 'central'"),
        (lambda s, t, x, u: s.State(depot=0.0, central=0.0, centrl=0.0), "no field 'centrl'"),
        (first(lambda s, t, x, u: u.oral), "is a dose"),
        (first(lambda s, t, x, u: u.wieght), "Did you mean 'weight'"),
        (first(lambda s, t, x, u: s.ka * x.dept), "Did you mean 'depot'"),
        (first(lambda s, t, x, u: s.kaa), "Did you mean 'ka'"),
        (first(lambda s, t, x, u: s.ka * x.depot if x.depot > x.central else 0.0), "jnp.where"),
        (first(lambda s, t, x, u: jnp.stack([s.ka * x.depot])), "scalar"),
    ]
    for rates, message in cases:
        with pytest.raises(DeclarationError, match=message):
            declare(rates)
    with pytest.raises(DeclarationError, match=r"ht\.output"):
        declare(first(lambda s, t, x, u: 0.0), lambda s, x, u: {"C": x.central})


BAD = {
    "unknown state": ("oral: Scalar = ht.dose('mg', into='depott')", DeclarationError, "Did you mean 'depot'"),
    "same cmt": (
        "oral: Scalar = ht.dose('mg', into='depot', cmt=1)\n  iv: Scalar = ht.dose('mg', into='depot', cmt=1)",
        DeclarationError,
        "cmt=1",
    ),
    "dose in another dimension": ("oral: Scalar = ht.dose('mL', into='depot')", UnitError, "cannot enter"),
    "spread is no rate": ("oral: Scalar = ht.dose('mg', into='depot', spread='5 mg')", UnitError, "spread"),
    "unknown unit": ("weight: Scalar = ht.covariate('kgg')", UnitError, "kgg"),
    "bare U": ("basal: Scalar = ht.signal('U/h')", UnitError, "IU"),
    "state among inputs": ("weight: Scalar = ht.state('kg')", DeclarationError, "does not belong"),
    "plain field": ("weight: float = 3.0", DeclarationError, "does not belong"),
    "name used twice": ("depot: Scalar = ht.signal('mg')", DeclarationError, "Rename"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs(case):
    source, error, message = BAD[case]
    with pytest.raises(error, match=message):
        exec(_class(inputs=source), {"ht": ht, "Scalar": Scalar})


def _class(
    inputs="pass",
    body="",
    head="time = 'h'",
    rates="def rates(self, t, x, u): return self.State(depot=-self.ka * x.depot)",
):
    return (
        f"class Bad(ht.System):\n {head}\n class State(ht.State):\n  depot: Scalar = ht.state('mg')\n"
        f" class Input(ht.Input):\n  {inputs}\n"
        f" ka: Scalar = ht.parameter(ht.typical(1.0), '1/h')\n {body}\n {rates}\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": ""}, "unit of time"),
        ({"head": "time = 'mg'"}, "unit of time"),
        ({"rates": "pass"}, "no rates"),
        ({"body": "State = None"}, "no states"),
        ({"body": "values: Scalar = ht.constant(1, '1')"}, "word of the library"),
        ({"body": "k: Scalar = ht.parameter(ht.typical(1.0), '1/h', varies='day')"}, "spread"),
        (
            {
                "body": "linear = True",
                "rates": "def rates(self, t, x, u): return self.State(depot=self.ka * abs(x.depot))",
            },
            "linear",
        ),
    ],
)
def test_bad_classes(change, message):
    with pytest.raises(DeclarationError, match=message):
        exec(_class(**change), {"ht": ht, "Scalar": Scalar})


RETURNS = {
    "a state that rates lack": ("def rates(self, t, x, u): return self.State()", "Bad.rates: Bad.State lacks 'depot'"),
    "np on a value": ("def rates(self, t, x, u): return self.State(depot=np.exp(x.depot))", "jnp.exp instead of np.exp"),
    "a dict as state": ("def initial(self, u): return {'depot': 0.0}", "Bad.initial returns dict, not its State"),
    "no state at rest": ("def steady(self, u): pass", "Bad.steady returns NoneType, not its State"),
    "a route alone": ("def dosing(self, u): return ht.route(lag=1.0 / self.ka)", "Bad.dosing returns Route. Return a dict"),
    "an amount without its gain": ("def conserved(self, x, u): return {'drug': x.depot}", r"Bad.conserved must return a dict"),
    "a list of switches": ("def switches(self, x, u): return []", "Bad.switches must return a dict"),
    "a list of couplings": ("def couplings(self, x, u): return [x.depot]", "Bad.couplings returns list. Return a dict"),
    "an output that hides a state": ("def outputs(self, x, u): return {'depot': ht.output(x.depot * self.ka, 'mg/h')}",
                                     r"depot \[mg/h\] has the name of a state \[mg\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", RETURNS)
def test_methods_that_return_something_else(case):
    body, message = RETURNS[case]
    change = {"rates": body} if body.startswith("def rates") else {"body": body}
    with pytest.raises(DeclarationError, match=message):
        exec(_class(**change), {"ht": ht, "np": np, "Scalar": Scalar})


def test_bad_priors():
    cases = [
        (lambda: ht.typical(-3.0), "typical value -3.0.* above 0"),
        (lambda: ht.typical(3.0, cv=-0.3), "coefficient of variation -0.3"),
        (lambda: ht.typical(3.0, cv=0), "coefficient of variation 0"),
        (lambda: ht.lognormal(float("nan"), 0.3), "median nan"),
        (lambda: ht.lognormal(3.0, "wide"), "standard deviation 'wide'"),
        (lambda: ht.normal(3.0, -0.3), "standard deviation -0.3"),
        (lambda: ht.normal(float("inf"), 0.3), "mean inf"),
        (lambda: ht.logitnormal(61, 0.3), "median 61.* between 0 and 1"),
        (lambda: ht.halfnormal(0.0), "scale 0.0"),
        (lambda: exec(_class(body="k: Scalar = ht.parameter(ht.typical(0.5), 'L', low=1.0)"), {"ht": ht, "Scalar": Scalar}),
         "prior of Bad.k has its median 0.5 L outside the declared range 1 to inf"),
    ]  # fmt: skip
    for make, message in cases:
        with pytest.raises(ParameterError, match=message):
            make()


def test_systems_are_final():
    with pytest.raises(DeclarationError, match="final"):

        class Child(OralOneCompartment):
            pass


def test_bad_leaves():
    cases = [
        ({"v": 3}, "Did you mean 'V'"),
        ({"V": -1}, "outside its range"),
        ({"V": "big"}, "Give a number"),
        ({"V": float("nan")}, "outside"),
        ({"V": float("inf")}, "outside"),
        ({"V": True}, "Give a number"),
        ({"V": dist.Normal(np.zeros(3), 1.0)}, "scalar"),
    ]
    for keywords, message in cases:
        with pytest.raises(ParameterError, match=message):
            OralOneCompartment(**keywords)
    with pytest.raises(ParameterError, match="range"):
        Glucose(SG=1.5)
    with pytest.raises(UnitError):
        OralOneCompartment(V=(3, "mg"))
    with pytest.raises(ParameterError, match=r"Gut has no parameter 'kabz'\. Did you mean 'kabs'"):
        Glucose().with_values({"gut.kabz": 1.0})


# ------------------------------------------------------------------------------------------ priors and how it shows


def test_annotated_class_attributes_and_postponed_annotations():
    """`time: str = "h"` is no field, and nested states are found when annotations are text."""
    source = (
        "from __future__ import annotations\nclass Whole(ht.System):\n time: str = 'min'\n class State(ht.State):\n"
        "  gut: Gut.State\n gut: Gut = Gut()\n n: int = 3\n"
        " def rates(self, t, x, u): return self.State(gut=self.gut.rates(t, x.gut, u))\n"
    )
    namespace = {"ht": ht, "Gut": Gut, "__name__": __name__}
    exec(source, namespace)
    assert list(namespace["Whole"].spec.states) == ["gut.q1", "gut.q2"]
    assert len(jax.tree.leaves(namespace["Whole"]().typical())) == 2


def test_priors():
    assert median(ht.halfnormal(1.0)) == pytest.approx(0.6744898)
    assert median(ht.logitnormal(0.2, 1.0)) == pytest.approx(0.2)
    assert median(dist.Uniform(1.0, 3.0)) == 2.0
    assert median(dist.Gamma(2.0, 1.0)) == pytest.approx(1.678, abs=0.03)
    prior = ht.typical(2.0, cv=0.5)
    assert median(prior) == pytest.approx(2.0) and np.sqrt(prior.variance) / prior.mean == pytest.approx(0.5, rel=1e-5)
    assert describe(prior).startswith("log-normal 2 (") and describe(3.0) == "= 3"
    assert "logit-normal 0.2" in describe(ht.logitnormal(0.2, 1.0)) and "concentration" in describe(
        dist.Gamma(2.0, 1.0)
    )


def test_it_shows_itself():
    text = repr(OralOneCompartment(V=30))
    assert len(text.splitlines()) <= 15 and "absorption rate constant" in text and "= 30" in text and "[mg/L]" in text
    assert "One-compartment" in text
    page = Glucose()._repr_html_()
    assert "<svg" in page and "gut.kabs" in page and "Bergman 1979" in page and "once for each day" in page
    import xml.dom.minidom

    xml.dom.minidom.parseString(page)
    graph = Glucose().mermaid()
    assert graph.startswith("graph LR") and '"gut.q2"' in graph and "-->" in graph and '"SG"' not in graph
    assert '"SG"' in Glucose().mermaid(parameters=True)


def test_declaring_starts_no_backend(tmp_path):
    module = tmp_path / "declared.py"
    module.write_text(
        textwrap.dedent(
            """
        import hybridtwin.system as ht
        class Decay(ht.System):
            time = "h"
            class State(ht.State):
                a = ht.state("mg")
            k = ht.parameter(ht.logitnormal(0.5, 1.0), "1/h")
            s = ht.parameter(ht.halfnormal(1.0), "1")
            def rates(self, t, x, u):
                return self.State(a=-self.k * x.a * (x.a / ht.const(1, "mg")) ** self.s)
        repr(Decay()), Decay()._repr_html_(), Decay().typical(), Decay(k=0.2)
        import sys
        from jax._src import xla_bridge
        assert not xla_bridge._backends, xla_bridge._backends
        assert not {"pint", "arviz", "matplotlib", "pandas", "polars", "dowhy"} & set(sys.modules)
        """
        )
    )
    root = str(Path(ht.__file__).parents[1])
    subprocess.run([sys.executable, str(module)], check=True, env={**os.environ, "PYTHONPATH": root})

"""Path effects in closed form, and maps of learned terms: completeness, agreement with shares, and the sanity check."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import spearmanr
from small import drip_twin

import hybridtwin.system as ht
from hybridtwin import outcomes, sensors
from hybridtwin.errors import InterventionError, UnrelatedTwins
from hybridtwin.explain import maps as mapping
from hybridtwin.explain.maps import learned, maps, randomized
from hybridtwin.explain.paths import path_effect
from hybridtwin.explain.shapley import shares
from hybridtwin.inference.methods import Laplace
from hybridtwin.inference.personalize import personalize
from hybridtwin.model import Model
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import Scalar


class Chain(ht.System):
    """dP/dt = s - k P, dE/dt = a P + d s - c E: a signal that acts through P and past it."""

    time = "h"

    class State(ht.State):
        P: Scalar = ht.state("mg", "mediator")
        E: Scalar = ht.state("mg", "effect")

    class Input(ht.Input):
        s: Scalar = ht.signal("mg/h", "drive")
        bolus: Scalar = ht.dose("mg", "into the mediator", into="P")

    k: Scalar = ht.parameter(ht.typical(0.4, cv=0.2), "1/h", "loss of P")
    a: Scalar = ht.constant(0.5, "1/h", "gain")
    c: Scalar = ht.constant(0.25, "1/h", "loss of E")
    d: Scalar = ht.constant(0.3, "1", "gain past P")

    def rates(self, t, x, u):
        return self.State(P=u.s - self.k * x.P, E=self.a * x.P + self.d * u.s - self.c * x.E)

    def outputs(self, x, u):
        return {"E": ht.output(x.E, "mg", "effect")}


@pytest.fixture(scope="module")
def chain():
    person = Person.of("f", start=0.0, stop=10.0, signals={"s": Signal.constant(2.0, "mg/h")},
                       doses={"bolus": Regimen.bolus(5.0, "mg", at=3.0)},
                       readings={"E": ([2.0, 5.0, 8.0], [2.4, 5.5, 6.0], "mg")})  # fmt: skip
    model = Model(Chain(), E=sensors.Gaussian("E", sd=0.3))
    return personalize(model, person, Laplace(draws=60, starts=1), key=0, progress=False)


def test_direct_and_indirect_effects_in_closed_form(chain):
    """One mg/h more of the drive for ten hours.

    Past P: d (1 - e^-ct) / c. Through P: a / k ((1 - e^-ct) / c - (e^-kt - e^-ct) / (c - k)).
    """
    more, t = chain.do(s=(3.0, "mg/h")), 10.0
    found = path_effect(more, chain, outcomes.at("E", t), "P")
    k, c = np.asarray(chain.fits[0].values["k"]), 0.25
    still = (1 - np.exp(-c * t)) / c
    direct = np.full(len(k), 0.3 * still)
    indirect = 0.5 / k * (still - (np.exp(-k * t) - np.exp(-c * t)) / (c - k))
    np.testing.assert_allclose(found.draws["direct"], direct, rtol=1e-3)
    np.testing.assert_allclose(found.draws["indirect"], indirect, rtol=1e-3)
    np.testing.assert_allclose(found.draws["alone"], indirect, rtol=1e-3)  # linear: nothing interacts
    np.testing.assert_allclose(found.draws["direct"] + found.draws["indirect"], found.draws["total"], rtol=1e-12)
    assert found.ways == ("s -> P -> E",) and found.error < 1e-3
    assert "past P: +" in found.text and "through P: +" in found.text and set(found.table["effect"]) == set(found.draws)


def test_a_dose_into_the_mediator_has_no_other_way(chain):
    found = path_effect(chain.do(bolus=lambda b: 2.0 * b), chain, outcomes.at("E", 10.0), "P")
    assert np.max(np.abs(found.draws["direct"])) < 1e-3 * np.min(found.draws["total"])
    assert found.ways == ("bolus -> P -> E",)
    past = path_effect(chain.do(d=0.6), chain, outcomes.at("E", 10.0), "P")
    assert np.max(np.abs(past.draws["indirect"])) <= 2 * past.error < 1e-4
    assert past.ways == () and "none leads through P" in past.text


def test_what_cannot_be_asked_of_paths(chain):
    with pytest.raises(InterventionError, match="no state"):
        path_effect(chain.do(d=0.6), chain, outcomes.at("E", 10.0), "G")
    with pytest.raises(UnrelatedTwins):
        path_effect(drip_twin(), chain, outcomes.at("E", 10.0), "P")


class Lit(ht.System):
    """dG/dt = -k G + a net(light): what is learned is how light acts. `dead` stands in no rate."""

    time = "h"

    class State(ht.State):
        G: Scalar = ht.state("mg", "amount")

    class Input(ht.Input):
        light: Scalar = ht.signal("1", "light")
        drug: Scalar = ht.signal("mg/h", "drug")

    k: Scalar = ht.parameter(ht.typical(0.3, cv=0.2), "1/h", "loss")
    a: Scalar = ht.constant(5.0, "mg/h", "scale of what is learned")
    one: eqx.nn.Linear
    two: eqx.nn.Linear

    def rates(self, t, x, u):
        hidden = jnp.tanh(self.one(jnp.stack([u.light])))
        return self.State(G=self.a * self.two(hidden)[0] + u.drug - self.k * x.G)

    def outputs(self, x, u):
        return {"y": ht.output(x.G, "mg", "amount")}


@pytest.fixture(scope="module")
def lit():
    with jax.enable_x64(True):
        net = {"one": eqx.nn.Linear(1, 6, key=jax.random.key(3)), "two": eqx.nn.Linear(6, 1, key=jax.random.key(4))}
    person = Person.of("g", start=0.0, stop=9.0, signals={"light": Signal.steps([0.0, 3.0, 6.0], [0.2, 1.5, -1.0], "1"),
                                                        "drug": Signal.steps([0.0, 4.5], [1.0, 3.0], "mg/h")},
                       readings={"y": ([2.0, 5.0, 8.0], [1.4, 1.5, 6.0], "mg")})  # fmt: skip
    model = Model(Lit(**net), y=sensors.Gaussian("y", sd=2.0))
    return personalize(model, person, Laplace(draws=20, starts=1), key=0, progress=False)


def test_maps_of_a_learned_term_tell_their_completeness_and_their_sanity(lit, monkeypatch):
    monkeypatch.setattr(mapping, "_RANDOMIZED", 1)
    found = maps(lit, outcomes.auc("y"), windows=[3.0, 6.0], key=0)
    assert learned(lit.fits[0].model.system) and set(found.sanity) == set(mapping.NAMES)
    assert found.completeness < 1e-5, "integrated gradients sum to the whole"
    np.testing.assert_allclose(found.values["integrated"].sum(axis=0), found.total, rtol=1e-5)
    by = {p.label: i for i, p in enumerate(found.players)}
    drug = [i for label, i in by.items() if label.startswith("drug")]
    for name in ("integrated", "surrogate"):  # the drug acts linearly, whatever the rest does: all maps agree on it
        np.testing.assert_allclose(found.values[name][drug], found.values["gradient"][drug], rtol=1e-3)
    game = shares(dataclasses.replace(lit, draws=40), outcomes.auc("y"), windows=[3.0, 6.0])
    np.testing.assert_allclose(found.values["surrogate"], game.draws, rtol=0.05, atol=0.02)
    assert "no map is a reason" in found.text and "because" not in found.text
    assert {"map", "player", "value", "q05", "q95", "sanity"} <= set(found.table.columns)


def test_a_map_of_what_does_not_depend_on_the_network_fails_the_sanity_check(lit, monkeypatch):
    """Over the drug alone the map is the same whatever was learned, and says so."""
    monkeypatch.setattr(mapping, "_RANDOMIZED", 1)
    found = maps(lit, outcomes.auc("y"), inputs=["drug"], windows=[2.0, 6.0], key=0)
    assert all(score > 0.99 for score in found.sanity.values()) and "does not depend on what was learned" in found.text


def test_randomized_arrays_are_others_of_the_same_size_and_nothing_else_changes(lit):
    system = lit.fits[0].model.system
    other = randomized(system, np.random.default_rng(0))
    assert not np.allclose(np.asarray(other.one.weight), np.asarray(system.one.weight))
    assert other.one.weight.shape == system.one.weight.shape
    assert other.k is system.k and other.a == system.a
    assert np.asarray(other.one.weight).std() == pytest.approx(np.asarray(system.one.weight).std(), rel=1.0)


def test_where_nothing_is_learned_there_is_no_score():
    found = maps(drip_twin(), outcomes.auc("C"), inputs=["iv"], key=0)
    assert found.sanity == {} and "nothing to randomize" in found.text


def test_a_flat_map_has_no_order_and_nothing_to_fit():
    """Ties share their rank, a flat map has none, and rounding is no map."""
    flat, steep = np.zeros((4, 3)), np.arange(4.0)[:, None] * np.ones(3)
    assert np.isnan(mapping._rank_correlation(flat, steep)) and mapping._rank_correlation(steep, flat) == 0.0
    assert mapping._rank_correlation(steep, -steep) == pytest.approx(-1.0)
    tied = np.array([1.0, 1.0, 2.0, 3.0])[:, None]
    assert mapping._rank_correlation(tied, steep) == pytest.approx(spearmanr([1.0, 1.0, 2.0, 3.0], [0, 1, 2, 3])[0])
    masks = np.array([[a, b] for a in (False, True) for b in (False, True)])
    assert np.isnan(mapping._surrogate(masks, 5.0 + 1e-15 * np.arange(4.0)[:, None], 5e-9)[1])


@pytest.mark.heavy
def test_a_network_with_kinks_meets_its_sum_and_a_constant_one_has_flat_maps(lit, monkeypatch):
    """Eight points of the path miss the sum of a network of steep rectifiers; a constant network tells of no input."""
    monkeypatch.setattr(mapping, "_RANDOMIZED", 1)
    asked = {"windows": [3.0, 6.0], "inputs": ["light"], "baseline": {"light": 0.0}, "key": 0}
    system = lit.fits[0].model.system
    still = eqx.tree_at(lambda s: s.two.weight, system, jnp.zeros_like(system.two.weight))
    constant = dataclasses.replace(lit, fits=tuple(mapping._with_system(f, still) for f in lit.fits))
    found = maps(constant, outcomes.auc("y"), **asked)
    assert all(np.isnan(score) for score in found.sanity.values()) and found.completeness == 0.0 and np.isnan(found.fit)
    assert all(not np.any(v) for v in found.values.values()) and "it is flat" in found.text and "nan" not in found.text

    with jax.enable_x64(True):
        one = eqx.tree_at(lambda n: (n.weight, n.bias), system.one, (40.0 * system.one.weight, 20.0 * system.one.bias))
    steep = eqx.tree_at(lambda s: s.one, system, one)
    kinked = dataclasses.replace(lit, fits=tuple(mapping._with_system(f, steep) for f in lit.fits))
    rough = mapping._integrated(dataclasses.replace(kinked, draws=20), outcomes.auc("y"), *_players(kinked, asked), 1)
    found = maps(kinked, outcomes.auc("y"), **asked)
    assert mapping._missed(rough, found.total) > 0.01 >= found.completeness


def _players(twin, asked):
    base = mapping.baselines(twin, asked["baseline"])
    return mapping.players_of(twin, windows=asked["windows"], inputs=asked["inputs"], baseline=asked["baseline"]), base


class Loop(ht.System):
    """dD/dt = -ka D, dM/dt = a D/(1.5 + D) - c M (1 + .4 Y), dY/dt = g M^2/(.8 + M^2) + .3 D exp(-M/.7) - .5 Y: saturable,
    and each of M and Y acts on the other.
    """

    time = "h"

    class State(ht.State):
        D: Scalar = ht.state("mg", "drug")
        M: Scalar = ht.state("1", "mediator")
        Y: Scalar = ht.state("1", "effect")

    class Input(ht.Input):
        x: Scalar = ht.dose("mg", into="D")

    ka: Scalar = ht.parameter(ht.lognormal(0.6, 0.3), "1/h")
    a: Scalar = ht.parameter(ht.lognormal(2.0, 0.2), "1/h")
    c: Scalar = ht.parameter(ht.lognormal(0.8, 0.2), "1/h")
    g: Scalar = ht.parameter(ht.lognormal(1.5, 0.2), "1/h")

    def rates(self, t, x, u):
        D, hour = x.D / ht.const(1.0, "mg"), ht.const(1.0, "1/h")
        up = self.g * x.M**2 / (0.8 + x.M**2) + 0.3 * hour * D * jnp.exp(-x.M / 0.7)
        return self.State(
            D=-self.ka * x.D, M=self.a * D / (1.5 + D) - self.c * x.M * (1 + 0.4 * x.Y), Y=up - 0.5 * hour * x.Y
        )


def by_scipy(body, doses, held=None, stop=7.0):
    """Course of (M, Y) as a function of time, of one body; `held`: M as a function of time."""
    ka, a, c, g = body

    def drug(t):
        return sum(amount * np.exp(-ka * (t - s)) for s, amount in doses if t >= s)

    def rates(t, x):
        D, M, Y = drug(t), x[0] if held is None else held(t)[0], x[1]
        return [a * D / (1.5 + D) - c * M * (1 + 0.4 * Y), g * M**2 / (0.8 + M**2) + 0.3 * D * np.exp(-M / 0.7) - 0.5 * Y]

    pieces, at = [], np.unique([0.0, *(s for s, _ in doses), 0.5, 3.0, stop])
    x = np.zeros(2)
    for lo, hi in itertools.pairwise(at):
        found = solve_ivp(rates, (lo, hi - 1e-12), x, rtol=1e-9, atol=1e-11, dense_output=True)
        pieces.append((lo, found.sol))
        x = found.y[:, -1]
    return lambda t: [sol for lo, sol in pieces if t >= lo][-1](t)


@pytest.mark.heavy
def test_path_effects_of_a_loop_are_nested_counterfactuals():
    """Natural effects through M, nonlinear and with a circle, against courses nested by hand in SciPy, draw by draw."""
    person = Person.of("ned", start=0.0, stop=8.0, doses={"x": Regimen.bolus([3.0, 2.0], "mg", at=[0.5, 3.0])},
                       readings={"Y": ([1.0, 2.0, 4.0, 6.0], [0.6, 1.1, 1.4, 1.2], "1")})  # fmt: skip
    model = Model(Loop(), Y=sensors.Gaussian("Y", sd=0.1))
    twin = personalize(model, person, Laplace(draws=20, starts=2), key=0, progress=False)
    found = path_effect(twin.do(x=lambda d: 2.0 * d), twin, outcomes.at("Y", 7.0, better="lower"), through="M")
    bodies = np.stack([twin.fits[0].values[n] for n in ("ka", "a", "c", "g")], axis=1)
    for i, body in enumerate(bodies[:2]):
        twice, once = (by_scipy(body, [(0.5, 3.0 * k), (3.0, 2.0 * k)]) for k in (2.0, 1.0))
        a, b = twice(7.0)[1], once(7.0)[1]
        direct = by_scipy(body, [(0.5, 6.0), (3.0, 4.0)], held=once)(7.0)[1]
        alone = by_scipy(body, [(0.5, 3.0), (3.0, 2.0)], held=twice)(7.0)[1]
        wanted = {"total": a - b, "direct": direct - b, "indirect": a - direct, "alone": alone - b}
        for part, value in wanted.items():
            assert found.draws[part][i] == pytest.approx(value, abs=1e-5), part
        assert abs(wanted["direct"] + wanted["alone"] - wanted["total"]) > 0.01, "parts that only a nonlinear body has"
    past = path_effect(twin.do(x=lambda d: 2.0 * d), twin, outcomes.at("Y", 7.0, better="lower"), through=["M", "D"])
    assert np.abs(past.draws["direct"]).max() < 3 * past.error < 1e-4, "all ways are held"

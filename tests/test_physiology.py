"""Every system of the registry inherits these tests: declared, in range, at rest when it says so, solved alike, and as
published. What compiles much (the typical day of a large system; drawn bodies, another solver, gradients) runs for some
systems in `make test` and for all of them in `make test-all`.
"""

import dataclasses
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import hybridtwin.physiology as physiology
from hybridtwin.drawing import interventions, source
from hybridtwin.errors import DeclarationError, ParameterError, UnitError
from hybridtwin.interventions import Do, World, enact
from hybridtwin.physiology import (
    REGISTRY,
    BergmanMinimal,
    DallaMan2007,
    OneCompartmentOral,
    Protocol,
    Reference,
    Warfarin,
    balance,
    evidence,
)
from hybridtwin.physiology.pages import said
from hybridtwin.physiology.reference import Evidence, Since, lived
from hybridtwin.records import Person
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.mesh import lay, layout_of, override_columns
from hybridtwin.simulate.pilot import settled
from hybridtwin.simulate.rules import LAST
from hybridtwin.simulate.solve import Extras, first, observer, states
from hybridtwin.simulate.steppers import RK4, Adaptive
from hybridtwin.simulate.stiff import Rosenbrock
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import Input, Scalar, State, System, dose, lognormal, output, parameter, state
from hybridtwin.units import factor

COVARIATES = {"weight": (70.0, "kg")}
PAGES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "physiology"
QUICK = ("T1DMinimal", "OneCompartmentOral")  # the others of these are heavy
CHEAP = (*QUICK, "BergmanMinimal", "Kidney", "OneCompartment", "OneCompartmentMM", "Geng2017Daily", "Claret2009",
         "TwoCompartment", "TwoCompartmentOral", "Warfarin", "Windkessel2", "Forger99", "Banister")  # fmt: skip
every_system = pytest.mark.parametrize("name", REGISTRY)


def those(light, names):
    """All of the names, the others heavy."""
    return pytest.mark.parametrize("name", [n if n in light else pytest.param(n, marks=pytest.mark.heavy) for n in names])


every_body = pytest.mark.parametrize("name", [*REGISTRY, "DallaMan2007.type2"])
cheap_ones = those(CHEAP, REGISTRY)
cheap_bodies = those(CHEAP, [*REGISTRY, "DallaMan2007.type2"])
quick_ones = those(QUICK, [*REGISTRY, "DallaMan2007.type2"])


MOMENTS = ("tlag",)  # when a dose enters: no number of the body from a time on
VARIANTS = {"DallaMan2007.type2": DallaMan2007.type2}  # other bodies of a system: the same laws, numbers of their own


def body(name):
    """A system with its priors."""
    return VARIANTS.get(name, REGISTRY.get(name))()


@functools.cache
def held(name):
    return Evidence(name, (), lived(body(name))) if name in VARIANTS else evidence(body(name))


def typical(name):
    return body(name).typical()


def person(name):
    """The system's typical day."""
    return body(name).protocol.person(body(name).spec.time)


def whole(name, t):
    """Times on whole steps where a difference equation knows no others."""
    step = body(name).spec.step
    return t if step is None else np.round(np.asarray(t) / step) * step


def times(name):
    return np.unique(whole(name, np.linspace(0.0, body(name).protocol.stop, 25)))


def inputs(name):
    """What a resting person's system sees: no dose."""
    spec = body(name).spec
    day = lived(body(name)).again(doses={}).protocol.person(spec.time)
    bound = day.bind(spec)
    return spec.input({n: float(bound.inputs[n](0.0)) for n in (*spec.covariates, *spec.signals)})


def of_page(name):
    path = PAGES / f"{name}.md"
    assert path.exists(), f"write the page: python -m hybridtwin.physiology.pages docs/physiology {name}"
    return path.read_text()


def test_the_registry_is_the_public_surface():
    assert set(REGISTRY) | {"REGISTRY", "Protocol", "Reference", "balance", "evidence"} == set(physiology.__all__)
    assert all(cls.__name__ == name for name, cls in REGISTRY.items())


@every_system
def test_declared_in_full(name):
    system = REGISTRY[name]()
    spec = system.spec
    assert spec.unchecked == (), "a term whose unit was not checked"
    assert spec.outputs and spec.parameters
    told = source(system)
    assert told, "where the equations come from: a sentence of the docstring that begins with Source:"
    assert re.search(r"\b(1[89]|20)\d\d\b", told), told
    assert re.search(r"doi:10\.\d{4,}/\S|ISBN 97[89]-[\d-]{11}|PubMed \d|PMC\d{6}", told), told
    for field in spec.parameters.values():
        assert field.doc and field.source, field.path
    for field in (*spec.states.values(), *spec.outputs.values()):
        assert field.doc, field.path
    assert name in repr(system) and "<table" in system._repr_html_()
    assert all(isinstance(prior, dist.Distribution) for prior in system.priors().values())
    assert isinstance(system.protocol, Protocol) and all(isinstance(r, Reference) for r in system.references)


@every_system
def test_what_was_published_has_its_place_in_the_picture(name):
    """A reference that is drawn names an output of the picture in a unit of the same kind, at a time of the typical day; or is
    itself such a time. A picture without one says why."""
    system = REGISTRY[name]()
    shown, drawn = system.protocol.shows or tuple(system.spec.outputs), [r for r in system.references if r.drawn]
    assert bool(drawn) != bool(system.protocol.undrawn), "a picture shows what was published, or its protocol says why not"
    for reference in drawn:
        output, time = reference.drawn
        assert output in shown, f"{output} of {reference.quantity!r} is not in the picture"
        if isinstance(time, Since):
            time = time.moment + np.max(reference.expected) * factor(reference.unit, system.spec.time)
        else:
            assert factor(reference.unit, {**system.spec.states, **system.spec.outputs}[output].unit) > 0
        assert time is None or 0.0 <= time <= system.protocol.stop


def test_a_published_time_is_drawn_where_it_falls_on_our_curve():
    """Lispro is highest 30 to 90 min after the injection, which is at 60 min of the typical day."""
    found = held("T1DMinimal")
    ax = found.plot().axes[1]
    bars = [segment for lines in ax.collections for segment in getattr(lines, "get_segments", list)()]
    height = found.lived.at("insulin", 120.0)
    assert any(np.allclose(bar, [[90.0, height], [150.0, height]], rtol=1e-3) for bar in bars if len(bar) == 2), bars


def test_what_was_published_is_drawn_over_ours():
    found = evidence(REGISTRY["Myelosuppression"])
    (ax,) = found.plot().axes
    low, high = next(r.expected for r in found.lived.body.references if r.drawn == ("neutrophils", 504.0))
    bars = [segment for lines in ax.collections for segment in getattr(lines, "get_segments", list)()]
    assert any(np.allclose(bar, [[504.0, low], [504.0, high]]) for bar in bars)
    assert "published" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_day_of_another_drug_has_its_numbers_and_not_those_of_the_priors(monkeypatch):
    """They belong together: a system with a leaf of its own keeps all of its own. An unknown one is refused."""
    system = REGISTRY["OneCompartment"]
    numbers = system.protocol.parameters
    assert {p: float(getattr(lived(system).body, p)) for p in numbers} == dict(numbers)
    own = lived(system(V=70.0)).body
    assert float(own.V) == 70.0 and float(own.CL) == pytest.approx(4.0)
    assert "CL 0.007144 L/h, V 1.4592 L" in (PAGES / "OneCompartment.md").read_text()
    told = Evidence("x", (), lived(system(V=70.0))).day
    assert "CL 4 L/h, V 70 L" in told, told
    monkeypatch.setattr(system, "protocol", dataclasses.replace(system.protocol, parameters={"Cl": 1.0}))
    with pytest.raises(ParameterError, match="no parameter 'Cl'"):
        lived(system)


@every_system
def test_the_interventions_that_make_sense_are_named(name):
    """A sentence of the docstring that begins with Interventions: and names inputs, parameters or states; its page says it."""
    system, told = REGISTRY[name](), interventions(REGISTRY[name]())
    spec = system.spec
    known = {*spec.doses, *spec.signals, *spec.covariates, *spec.parameters, *spec.constants, *spec.states, *spec.outputs}
    named = re.findall(r"`([A-Za-z_][\w.]*)`", told)
    assert named and not set(named) - known, told
    assert set(named) & {*spec.doses, *spec.signals, *spec.parameters, *spec.constants}, "something that do acts on"
    assert f"What makes sense: {told}." in of_page(name)


def test_a_source_goes_on_behind_a_short_form():
    assert source(REGISTRY["Hilaire07"]()) == "St. Hilaire 2007, doi:10.1016/j.jtbi.2007.04.001"
    named = type("Named", (), {"__doc__": "A system.\n\nSource: J. Doe et al. 2002,\nIn Vivo 3:4. Nothing else."})()
    assert source(named) == "J. Doe et al. 2002, In Vivo 3:4"


@cheap_ones
def test_held_against_what_was_published(name):
    """Every system has references, and a typical body is nowhere poor without a reason that the table gives."""
    found = held(name)
    assert found.rows, "a system of the library is held against something published"
    assert [row.reference.quantity for row in found.rows if row.light == "poor" and not row.reference.why] == [], repr(found)
    assert found.name in repr(found) and len(found.to_dataframe()) == len(found.rows)


@every_system
def test_its_page_says_what_it_says_itself(name):
    """`python -m hybridtwin.physiology.pages docs/physiology` was run after the last change."""
    page = of_page(name)
    missing = [line for line in said(REGISTRY[name]()) if line not in page]
    assert not missing, missing
    for reference in REGISTRY[name]().references:
        assert f"| {reference.quantity} | {reference.unit} |" in page
    assert f"[{name}]({name}.md)" in (PAGES / "README.md").read_text() and (PAGES / f"{name}.svg").exists()


@cheap_bodies
def test_a_typical_body_is_finite_and_positive(name):
    spec, found = body(name).spec, held(name).lived.course
    assert not found.failed.any() and set(found.values) == {*spec.outputs, *spec.states}
    assert (found.error == 0.0) == spec.linear or found.error < 1e-5
    for path, field in spec.states.items():
        assert np.isfinite(found[path]).all()
        if field.low == 0.0:
            assert found[path].min() >= -1e-9 * max(found[path].max(), 1.0), path


@every_body
def test_rest_is_a_fixed_point(name):
    system, spec, u = typical(name), body(name).spec, inputs(name)
    if spec.restless is not None:
        pytest.skip(f"has no rest: {spec.restless}")
    with jax.enable_x64(True):
        rest = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), system.steady(u))
        speed = jax.jvp(lambda x: system.rates(0.0, x, u), (rest,), (rest,))  # (rates, how fast the parts change)
    still, parts = spec.flatten(speed[0]), spec.flatten(speed[1])
    restless = [n for n, part in vars(system).items() if isinstance(part, System) and part.spec.restless]
    for path, value in still.items():
        if path.split(".")[0] in restless:  # the clock of a body: the rest of that body holds for this time of its day
            continue
        size = max(abs(float(parts[path])), abs(float(spec.flatten(rest)[path])), 1e-6)
        assert abs(float(value)) <= 1e-8 * size, path


CONSERVING = [name for name in REGISTRY if REGISTRY[name].spec.conserved]


@every_system
def test_a_system_conserves_something_or_says_why_not(name):
    system = REGISTRY[name]
    assert bool(system.spec.conserved) != bool(system.unconserved), "conserved(self, x, u), or unconserved = a reason"


@those(("Kidney",), CONSERVING)
def test_what_was_given_is_in_the_body_or_has_left_it(name):
    """Over the typical day, doses with their lag and fraction, switches and portions included."""
    body = typical(name)
    found = balance(body, person(name), tol=body.protocol.tol)
    assert set(found.accounts) == set(body.spec.conserved) and all(a.holds for a in found.accounts.values()), repr(found)


@pytest.mark.parametrize("name", CONSERVING)
def test_every_dose_is_part_of_an_account(name):
    """What is given raises an amount that is conserved: else the law would hold of a part of the body alone."""
    system, spec, u = typical(name), body(name).spec, inputs(name)
    with jax.enable_x64(True):
        x = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), system.initial(u))
        slopes = [spec.flatten(jax.grad(lambda x, law=law: system.conserved(x, u)[law][0])(x)) for law in spec.conserved]
        assert [d for d, f in spec.doses.items() if not any(float(slope[f.into]) > 0.0 for slope in slopes)] == []


def test_an_account_in_closed_form():
    """320 mg at half an hour, of which .8 arrive: what is in the body is Bateman's, and the rest has been cleared."""
    body = OneCompartmentOral(ka=1.5, CL=2.8, V=32.0, tlag=0.5, F=0.8)
    day = Person.of("p", start=0.0, stop=10.0, doses={"oral": Regimen.bolus(320.0, "mg", at=1.0)})
    found, k, t = balance(body, day)["drug"], 2.8 / 32.0, 8.5
    left = 256.0 * (np.exp(-1.5 * t) + 1.5 / (1.5 - k) * (np.exp(-k * t) - np.exp(-1.5 * t)))
    assert (found.begin, found.given) == (0.0, pytest.approx(256.0, rel=1e-12)) and found.unit == "mg"
    assert found.end == pytest.approx(left, rel=1e-9) and found.gained == pytest.approx(left - 256.0, rel=1e-9)


def test_a_kidney_that_fails_keeps_what_it_does_not_filter():
    """Creatinine: 24 h at a tenth of the filtration; A(t) = A_rest + (A0 - A_rest) exp(-k t), 10 times A0 at rest."""
    failing = lived(REGISTRY["Kidney"]).again(stop=24.0, signals={"function": Signal.steps([0.0, 1e-6], [1.0, 0.1], "1")})
    found = balance(failing.body, failing.protocol.person("h"))["creatinine"]
    k = 100.0 * 0.06 * 0.1 / 42.0
    assert found.end == pytest.approx(found.begin * (10.0 - 9.0 * np.exp(-24.0 * k)), rel=1e-6)
    assert found.holds and found.given == 0.0 and found.gained == pytest.approx(found.end - found.begin, rel=1e-9)


def test_an_account_that_leaves_something_out_does_not_add_up():
    class Half(System):
        """dD/dt = -k D, dA/dt = k D - k A: the law below forgets the depot."""

        time = "h"

        class State(State):
            D: Scalar = state("mg", "depot")
            A: Scalar = state("mg", "body")

        class Input(Input):
            oral: Scalar = dose("mg", "swallowed", into="D")

        k: Scalar = parameter(lognormal(1.0, 0.1), "1/h", "rate")

        def rates(self, t, x, u):
            return self.State(D=-self.k * x.D, A=self.k * x.D - self.k * x.A)

        def conserved(self, x, u):
            return {"drug": (x.A, -self.k * x.A)}

    day = Person.of("p", start=0.0, stop=2.0, doses={"oral": Regimen.bolus(100.0, "mg", at=0.0)})
    found = balance(Half(k=1.0), day)["drug"]
    assert not found.holds and found.given == 0.0 and found.missing == pytest.approx(100.0 * (1.0 - np.exp(-2.0)), rel=1e-9)
    with pytest.raises(DeclarationError, match="Banister conserves nothing: effects of training, no amounts"):
        balance(typical("Banister"), person("Banister"))


@pytest.mark.parametrize("name", CONSERVING)
def test_what_is_conserved_changes_by_what_comes_and_goes(name):
    """At states all about: the amount's derivative along the rates is its gain, to rounding of the flows that make it up."""
    system, spec, u = typical(name), body(name).spec, inputs(name)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        begin = spec.flatten(system.initial(u))
        largest = max(abs(float(v)) for v in begin.values())
        for _ in range(20):
            spread = {p: np.exp(0.4 * rng.normal()) * (float(v) or 0.01 * largest * rng.random()) for p, v in begin.items()}
            x = spec.state({p: jnp.float64(v) for p, v in spread.items()})
            x_rates = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), system.rates(float(rng.random()), x, u))
            amounts, found = jax.jvp(lambda x: {k: v[0] for k, v in system.conserved(x, u).items()}, (x,), (x_rates,))
            size = max(abs(float(rate)) for rate in spec.flatten(x_rates).values())
            for what, (_, gain) in system.conserved(x, u).items():
                assert abs(float(found[what]) - float(gain)) <= 1e-11 * max(size, abs(float(amounts[what]))), what


@pytest.mark.parametrize("name", CONSERVING)
def test_a_law_of_conservation_can_be_broken(name):
    """Rates that lose a thousandth break what the system declares: the test above is no tautology."""
    system, u = typical(name), inputs(name)
    with jax.enable_x64(True):
        x = jax.tree.map(lambda leaf: jnp.asarray(leaf, float) + 0.1, system.initial(u))
        rates = jax.tree.map(lambda leaf: 1.001 * jnp.asarray(leaf, float) + 1e-3, system.rates(0.0, x, u))
        for what in system.conserved(x, u):
            change = jax.jvp(lambda x, what=what: system.conserved(x, u)[what][0], (x,), (rates,))[1]
            assert abs(float(change) - float(system.conserved(x, u)[what][1])) > 1e-6, what


def test_a_gain_has_the_unit_of_its_amount_over_time():
    with pytest.raises(UnitError, match=r"conserved: gain of drug .*needs \[mg/h\]"):

        class Wrong(System):
            """dA/dt = -k A."""

            time = "h"

            class State(State):
                A: Scalar = state("mg", "amount")

            k: Scalar = parameter(lognormal(1.0, 0.1), "1/h", "rate")

            def rates(self, t, x, u):
                return self.State(A=-self.k * x.A)

            def conserved(self, x, u):
                return {"drug": (x.A, -self.k)}

            def outputs(self, x, u):
                return {"y": output(x.A, "mg")}


COUNTS = {"Rosenbrock": 2400, "Controlled": 20_000}  # segments of a day, where what solved it does not say


@quick_ones
def test_worlds_agree_until_they_differ_and_one_trace_does_for_all(name):
    """`do` of what was lived is bit-identical, a change of the body leaves all before it bit-identical; other worlds, numbers
    of the body and amounts on the same nodes make no second trace."""
    system, spec = typical(name), body(name).spec
    bound, when = person(name).bind(spec), float(whole(name, 0.37 * body(name).protocol.stop))
    lived_world = World(bound.inputs, bound.start, bound.stop)
    changed = [p for p in body(name).priors() if not spec.parameters[p].initial and p not in MOMENTS]
    dos = [[], [Do({n: lambda same: same for n in (*spec.doses, *spec.signals)})] if spec.doses or spec.signals else [],
           [Do({p: lambda old, k=k: (1.2 + 0.07 * k) * old for k, p in enumerate(changed)}, start=when)]]  # fmt: skip
    worlds = [enact(lived_world, each, spec, bound.clock) for each in dos]
    layout = layout_of(worlds, spec)
    reads = [(t, LAST) for t in times(name)]
    told, law = held(name).lived.course.solver, settled(spec, None, False)  # steps of a difference equation, or nothing
    said = re.search(r"segments of at most (\S+)", told)
    stepper = Rosenbrock() if told.startswith("Rosenbrock") else law.stepper if law else RK4()
    count = COUNTS.get(told.split("(")[0], 300)
    longest = law.step if law else min(float(said[1]) if said else np.inf, body(name).protocol.stop / count)
    meshes = lay(worlds, spec, layout, reads, max_step=longest)
    traces = []

    @jax.jit
    def run(values, overrides, mesh):
        traces.append(name)
        here = system.with_values(values)
        extras = Extras(jnp.zeros(0), jnp.zeros(0), overrides)
        begun, u = first(here, layout, mesh, extras)
        path, _ = states(here, layout, stepper, mesh, begun.initial(u), extras, observer((*spec.outputs, *spec.states)))
        return path[mesh.read]

    with jax.enable_x64(True):
        values = {p: np.float64(v) for p, v in system.values().items() if p in body(name).priors()}
        found = []
        for world, mesh in zip(worlds, meshes, strict=True):
            overrides = np.zeros(len(layout.overridden))
            for o, column in zip(world.overrides, override_columns(world, layout), strict=True):
                overrides[column] = o.change(values[o.path])
            found.append(np.asarray(run(values, overrides, mesh)))
        run({p: 1.01 * v for p, v in values.items()}, overrides, meshes[0])
    plain, same, other = found
    before = times(name) < when
    assert np.isfinite(plain).all() and len(traces) == 1
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_array_equal(plain[before], other[before])
    assert not np.array_equal(plain[~before], other[~before])


@quick_ones
def test_drawn_bodies_are_solved(name):
    found = simulate(body(name), person(name), at=times(name), draws=100, key=3, tol=1e-2)
    assert found.error <= 1e-2 and found.failed.mean() <= 0.05
    assert set(np.flatnonzero(found.failed)) <= set(found.failures.draws), "a body that is not solved is named"
    assert all(np.nanmax(found[n]) > np.nanmin(found[n]) for n in body(name).spec.outputs)
    for path, field in body(name).spec.states.items():
        if field.low == 0.0:
            assert np.nanmin(found[path]) >= -1e-4 * max(np.nanmax(found[path]), 1.0), path  # a step may end a little below


@quick_ones
def test_solvers_agree(name):
    """Exact steps, where there are any, with the mesh and with an adaptive solver; else the mesh with the adaptive solver."""
    if body(name).spec.step:
        pytest.skip("a difference equation has one solution")
    linear = body(name).spec.linear
    accuracy = 1e-6 if linear else 1e-4
    found = simulate(typical(name), person(name), at=times(name))
    for solver in (RK4(4), Adaptive(1e-9, 1e-11)) if linear else (Adaptive(1e-9, 1e-11),):
        other = simulate(typical(name), person(name), at=times(name), solver=solver, tol=1e-6)
        for seen in body(name).spec.outputs:
            np.testing.assert_allclose(found[seen], other[seen], atol=accuracy * np.abs(other[seen]).max(), err_msg=str(solver))


@quick_ones
def test_gradients_agree_with_differences(name):
    """The directional derivative of all outputs in all parameters at once."""
    system, spec = typical(name), body(name).spec
    paths = list(body(name).priors())
    bound = person(name).bind(spec)
    world = World(bound.inputs, bound.start, bound.stop)
    layout = layout_of([world], spec)
    told, stop = held(name).lived.course.solver, body(name).protocol.stop
    stepper, count = Rosenbrock() if told.startswith("Rosenbrock") else RK4(), COUNTS.get(told.split("(")[0], 240)
    longest = float(found[1]) if (found := re.search(r"segments of at most (\S+)", told)) else stop
    longest = spec.step or min(longest, stop / count)
    mesh = lay([world], spec, layout, [(t, LAST) for t in times(name)[1::4]], max_step=longest)[0]
    direction = np.random.default_rng(1).normal(size=len(paths))
    off = 0.02 if name in VARIANTS else 0.0  # it rests exactly where secretion by a rise of glucose has its kink
    centre = np.array([system.values()[p] for p in paths]) * np.exp(off * direction)

    def run(eps, mesh):
        body = system.with_values({p: c * jnp.exp(eps * d) for p, c, d in zip(paths, centre, direction, strict=True)})
        extras = Extras(jnp.zeros(0), jnp.zeros(0), jnp.zeros(0))
        here, u = first(body, layout, mesh, extras)
        path, _ = states(body, layout, stepper, mesh, here.initial(u), extras, observer(tuple(spec.outputs)))
        return path[mesh.read]

    with jax.enable_x64(True):
        program = jax.jit(lambda eps: jax.jvp(lambda e: run(e, mesh), (eps,), (1.0,)))
        slope = np.asarray(program(0.0)[1])
        eps = 1e-7 if spec.step else 1e-5  # what is decided once a step jumps where a decision falls into another step
        difference = (np.asarray(program(eps)[0]) - np.asarray(program(-eps)[0])) / (2 * eps)
    size = np.abs(difference).max(axis=0, keepdims=True)
    assert (size > 0).any()
    np.testing.assert_allclose(slope / np.maximum(size, 1e-12), difference / np.maximum(size, 1e-12), atol=2e-6)


# ------------------------------------------------------------------------------------------- what each is known for


def test_bergman_rest_and_the_glucose_of_a_test():
    body = BergmanMinimal(SG=0.02, SI=4e-4, p2=0.025, Gb=90.0, VG=1.7)
    constant = Person.of(
        "p",
        start=0.0,
        stop=600.0,
        time="min",
        covariates={**COVARIATES, "Ib": (5.0, "m[IU]/L")},
        signals={"insulin": Signal.constant(30.0, "m[IU]/L")},
    )
    action = 4e-4 * 25.0
    found = simulate(body, constant, at=[0.0, 600.0])
    assert found["G"][0, 0] == pytest.approx(90.0) and found["G"][0, 1] == pytest.approx(
        0.02 * 90.0 / (0.02 + action), rel=1e-4
    )
    resting = simulate(body, constant, at=[0.0, 600.0], start="steady")
    np.testing.assert_allclose(resting["G"], 0.02 * 90.0 / (0.02 + action), rtol=1e-10)
    test = Person.of("p", start=0.0, stop=60.0, time="min", covariates=COVARIATES,
                     doses={"glucose_iv": Regimen.bolus(21.0, "g", at=0.0)})  # fmt: skip
    jump = simulate(body, test, at=[0.0, 60.0])["G"][0]
    assert jump[0] == pytest.approx(90.0 + 300.0 / 1.7) and jump[1] == pytest.approx(
        90.0 + 300.0 / 1.7 * np.exp(-1.2), rel=1e-4
    )


def test_warfarin_lowers_clotting_and_clotting_comes_back():
    found = simulate(Warfarin().typical(), Person.of("p", start=0.0, stop=24.0 * 30, doses={
        "oral": Regimen.bolus(100.0, "mg", at=0.0)}), at=[0.0, 12.0, 36.0, 24.0 * 30])  # fmt: skip
    assert found.units == {"cp": "mg/L", "pca": "%", "depot": "mg", "gut": "mg", "central": "mg", "effect": "%"}
    assert found["pca"][0, 0] == pytest.approx(96.66687) and found["pca"][0, 2] < 30.0
    assert found["pca"][0, 3] == pytest.approx(96.66687, rel=0.02) and 8.0 < found["cp"][0, 1] < 13.0


def test_a_constant_can_be_given_a_prior():
    import hybridtwin.system as ht

    system = OneCompartmentOral(ka=1.5, CL=2.8, V=32.0, tlag=0.0, F=ht.logitnormal(0.8, 0.5))
    assert list(system.priors()) == ["F"]
    body = Person.of("p", start=0.0, stop=24.0, doses={"oral": Regimen.bolus(100.0, "mg", at=0.0)})
    found = simulate(system, body, at=[4.0], draws=200, key=1)
    full = simulate(OneCompartmentOral(ka=1.5, CL=2.8, V=32.0, tlag=0.0), body, at=[4.0])["C"][0, 0]
    assert 0.75 < np.median(found["C"]) / full < 0.85 and found["C"].max() < full


def test_the_records_of_the_datasets_speak_the_systems_words(shared_data):
    from hybridtwin import datasets

    shared_data("pkpd/theophylline.csv")
    for cohort, cls, readings in ((datasets.theophylline(), OneCompartmentOral, {"C"}),
                                  (datasets.warfarin(), Warfarin, {"cp", "pca"})):  # fmt: skip
        spec = cls.spec
        someone = next(iter(cohort.values()))
        bound = someone.bind(spec, {name: spec.outputs[name].unit for name in readings})
        assert len(bound.inputs["oral"].doses) == 1 and set(bound.readings) == readings

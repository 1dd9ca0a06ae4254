"""Systems composed of systems: what couples the parts is all that is new, and it does what it says."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hybridtwin as ht
from hybridtwin.errors import DeclarationError, UnitError, UnknownTarget
from hybridtwin.interventions import Do
from hybridtwin.physiology import REGISTRY, Chemotherapy, T1DDay, Vancomycin
from hybridtwin.physiology.reference import lived
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate


@pytest.mark.heavy
def test_a_day_without_exercise_and_rhythm_is_the_minimal_model():
    day = lived(REGISTRY["T1DDay"])
    still = day.again(parameters={"swing": 0.0}, signals={"basal": Signal.constant(1.0, "[IU]/h")})
    minimal = lived(REGISTRY["T1DMinimal"]).again(doses=day.protocol.doses, stop=day.protocol.stop)
    np.testing.assert_allclose(still["G"], minimal["G"], rtol=1e-5)
    # and its clock is the clock alone, in hours
    clock = lived(REGISTRY["Forger99"]).again(
        signals={"light": Signal.steps([0.0, 7.0, 23.0], [0.0, 500.0, 0.0], "lux")}, stop=21.0
    )
    np.testing.assert_allclose(np.interp(day.time / 60.0, clock.time, clock["x"]), day["clock.x"], atol=1e-4)


@pytest.mark.heavy
def test_exercise_lowers_glucose_and_a_night_shift_moves_the_sensitivity():
    day = lived(REGISTRY["T1DDay"])
    record = day.protocol.person("min")
    calm = simulate(day.body, record, at=day.time, do=[Do({"intensity": 0.0})])
    before = day.time < 900.0
    np.testing.assert_allclose(calm["G"][0][before], day["G"][before], rtol=1e-6)
    after = np.interp([960.0, 1140.0], day.time, calm["G"][0] - day["G"])
    assert 26.0 < day.at("G", 900.0) - day.at("G", 960.0) < 108.0  # Zaharieva 2019: 67 +- 41 with the pump stopped
    assert 50.0 < after[0] < 110.0  # Garcia-Garcia 2015: 2.79 to 6.06 mmol/L in the hour
    assert 10.0 < after[1] < 110.0  # and insulin does more for hours
    shifted = simulate(day.body, record, at=day.time, do=[Do({"light": Signal.steps([0.0, 420.0], [1000.0, 0.0], "lux")})])
    assert abs(shifted["sensitivity"][0, -1] / day["sensitivity"][-1] - 1.0) > 0.01


def published_exercise(t, x, minutes, basal=True):
    """Deichmann 2021 as LoopInsighT1 has it, in a body at rest on its basal: G, Y, Z and beats since the session began; `basal`
    tells whether what insulin does more is in it."""
    G, Y, Z, beats = x
    rate = 48.0 if t < minutes else 0.0
    f = 1.0 / (1.0 + (0.1 * 80.0 / max(Y, 1e-9)) ** 4)
    more = 2.59e-4 * beats * Z * ACTION if basal else 0.0
    return [-0.0055 * (G - 130.0) - more * G - 3.39e-4 * Y * G, (rate - Y) / 5.0, -(f + 1 / 600.0) * Z + f, rate]


ACTION = 0.5 * 9e-4 * 1000.0 / 60.0 / (0.12 * 70.0 * 0.135)  # of basal insulin at 1 U/h in muscle


def exercised(minutes, stop):
    """The typical body at rest that runs for so long at 40 %, without a swing of the clock: its course."""
    signals = {"basal": Signal.constant(1.0, "[IU]/h"), "intensity": Signal.steps([0.0, minutes], [40.0, 0.0], "%")}
    quiet = {"swing": 0.0, "body.cob": 1e-9, "body.iob": 1e-9, "body.G0": 130.0}
    return lived(REGISTRY["T1DDay"]).again(parameters=quiet, doses={}, signals=signals, stop=stop)


@pytest.mark.heavy
@pytest.mark.parametrize("minutes", [20.0, 45.0, 60.0])
def test_one_session_is_that_of_the_published_equations(minutes):
    """The two states here against their four, by SciPy: glucose and what insulin gains, through ten hours after the session."""
    ours = exercised(minutes, 660.0)
    for start, stop, state in ((0.0, minutes, [130.0, 0.0, 0.0, 0.0]), (minutes, 660.0, None)):
        state = theirs.y[:, -1] if state is None else state
        theirs = solve_ivp(published_exercise, (start, stop), state, args=(minutes,), rtol=1e-10, atol=1e-10, dense_output=True)
        at = np.linspace(start, stop, 40)
        G, _, Z, beats = theirs.sol(at)
        np.testing.assert_allclose(np.interp(at, ours.time, ours["G"]), G, rtol=0.03)
        there = at > 10.0  # their Z rises within minutes
        np.testing.assert_allclose(np.interp(at, ours.time, ours["exercise.beats"])[there], (Z * beats)[there], rtol=0.07)


def test_what_is_left_of_a_session_adds_to_the_next():
    """beats of two equal sessions a day apart: exp(-24/10) of the first is left."""
    signals = {"intensity": Signal.steps([0.0, 60.0, 1440.0, 1500.0], [40.0, 0.0, 40.0, 0.0], "%")}
    day = lived(REGISTRY["Breton2008"]).again(signals=signals, stop=1500.0)
    one = 48.0 * 600.0 * (1.0 - np.exp(-60.0 / 600.0))
    assert day.at("beats", 60.0) == pytest.approx(one, rel=1e-6)
    assert day.at("beats", 1500.0) == pytest.approx(one * (1.0 + np.exp(-2.4)), rel=1e-6)


@pytest.mark.heavy
def test_the_dose_that_shrinks_the_tumor_is_limited_by_neutrophils():
    whole = lived(REGISTRY["Chemotherapy"])
    alone = lived(REGISTRY["Myelosuppression"]).again(doses=whole.protocol.doses, stop=whole.protocol.stop)
    np.testing.assert_allclose(whole["neutrophils"], np.interp(whole.time, alone.time, alone["neutrophils"]), rtol=2e-3)
    wild = whole.again(doses={})
    np.testing.assert_allclose(wild["size"], 80.0 * np.exp(6e-5 * wild.time), rtol=1e-6)
    half = whole.again(doses={"iv": Regimen.infusion(90.0, "mg", at=0.0, over=1.0).every("21 d", times=3)})
    assert whole["size"][-1] < half["size"][-1] < wild["size"][-1]
    assert whole["neutrophils"].min() < half["neutrophils"].min() < wild["neutrophils"].min()


@pytest.mark.heavy
def test_exercise_settles_where_uptake_wins():
    """At 40 % the liver adds 1.13 and muscles take 1.61 mg/kg/min: a1/a2 and a3/a4 times the effort, and insulin a5/a6."""
    found = lived(REGISTRY["Exercise"]).again(signals={"intensity": Signal.constant(40.0, "%")}, stop=600.0)
    last = [found[name][-1] for name in ("production", "uptake", "removal", "net")]
    expected = [0.00158 / 0.056 * 40.0, 0.00195 / 0.0485 * 40.0, 0.00125 / 0.075 * 40.0]
    np.testing.assert_allclose(last, [*expected, expected[1] - expected[0]], rtol=1e-6)
    steady = simulate(found.body, found.protocol.person("min"), at=[0.0, 60.0], start="steady")
    np.testing.assert_allclose(steady["net"], last[3], rtol=1e-6)


# ------------------------------------------------------------------------------------------------ couplings


class Filter(ht.System):
    """A filter that fails by itself: dg/dt = -loss g."""

    time = "h"

    class State(ht.State):
        g = ht.state("L/h", "what is filtered")

    loss = ht.parameter(ht.lognormal(0.05, 0.3), "1/h", "how fast the filter fails")

    def rates(self, t, x, u):
        return self.State(g=-self.loss * x.g)

    def initial(self, u):
        return self.State(g=ht.const(5.0, "L/h") + 0.0 * self.loss * ht.const(1.0, "L"))


class Body(ht.System):
    """What a filter of a given clearance takes: dA/dt = -CL A / V."""

    time = "h"

    class State(ht.State):
        A = ht.state("mg", "amount")

    class Input(ht.Input):
        iv = ht.dose("mg", "given", into="A")
        CL = ht.signal("L/h", "clearance", default=5.0)

    V = ht.parameter(ht.lognormal(40.0, 0.3), "L", "volume")

    def rates(self, t, x, u):
        return self.State(A=-u.CL * x.A / self.V)

    def outputs(self, x, u):
        return {"C": ht.output(x.A / self.V, "mg/L", "concentration")}


class Patient(ht.System):
    """Both parts as they are: the body's input is what the filter gives."""

    time = "h"

    class State(ht.State):
        filter: Filter.State
        body: Body.State

    class Input(ht.Input):
        iv = ht.dose("mg", "given", into="body.A")
        CL = ht.coupled("L/h", "clearance: of the filter, to the body")

    filter: Filter = Filter()
    body: Body = Body()

    def couplings(self, x, u):
        return {"CL": x.filter.g}

    def rates(self, t, x, u):
        return self.State(filter=self.filter.rates(t, x.filter, u), body=self.body.rates(t, x.body, u))

    def outputs(self, x, u):
        return self.body.outputs(x.body, u)

    def initial(self, u):
        return self.State(filter=self.filter.initial(u), body=self.body.initial(u))


class Ward(ht.System):
    """A whole as a part of another whole."""

    time = "h"

    class State(ht.State):
        patient: Patient.State

    class Input(ht.Input):
        iv = ht.dose("mg", "given", into="patient.body.A")

    patient: Patient = Patient()

    def rates(self, t, x, u):
        return self.State(patient=self.patient.rates(t, x.patient, u))

    def outputs(self, x, u):
        return self.patient.outputs(x.patient, u)

    def initial(self, u):
        return self.State(patient=self.patient.initial(u))


DAY = ht.Person.of("p", start=0.0, stop=24.0, time="h", doses={"iv": ht.Regimen.bolus(400.0, "mg", at=0.0)})
NUMBERS = {"filter.loss": 0.05, "body.V": 40.0}


def test_a_part_is_driven_by_another_through_its_own_input():
    """C = 10 exp(-(5 / 40 / .05) (1 - exp(-.05 t))): a body whose signal is what a filter gives that fails exponentially."""
    times = np.array([1.0, 8.0, 24.0])
    found = simulate(Patient().with_values(NUMBERS), DAY, at=times, tol=1e-8)["C"][0]
    np.testing.assert_allclose(found, 10.0 * np.exp(-2.5 * -np.expm1(-0.05 * times)), rtol=1e-7)
    whole = simulate(Ward().with_values({f"patient.{k}": v for k, v in NUMBERS.items()}), DAY, at=times, tol=1e-8)
    np.testing.assert_array_equal(whole["C"][0], found)


def test_a_coupling_counts_as_if_it_were_written_out():
    """To solvers and to methods for graphs: products of states are not linear, whatever stands between them."""

    class Plain(ht.System):
        """`Patient`, written out."""

        time = "h"
        State = Patient.State

        class Input(ht.Input):
            iv = ht.dose("mg", "given", into="body.A")

        filter: Filter = Filter()
        body: Body = Body()

        def rates(self, t, x, u):
            return self.State(filter=self.filter.rates(t, x.filter, u), body=Body.State(A=-x.filter.g * x.body.A / self.body.V))

        def outputs(self, x, u):
            return {"C": ht.output(x.body.A / self.body.V, "mg/L", "concentration")}

        def initial(self, u):
            return self.State(filter=self.filter.initial(u), body=self.body.initial(u))

    assert not Patient.spec.linear and not Plain.spec.linear and Filter.spec.linear
    for read in ("edges", "flows", "starts", "linear", "unforced", "restless", "unchecked"):
        assert getattr(Patient.spec, read) == getattr(Plain.spec, read), read
    coupled, plain = ht.graph(Patient()), ht.graph(Plain())
    assert coupled.bare.edges == plain.edges and coupled.unrolled(3).edges == plain.unrolled(3).edges
    numbers = [simulate(cls().with_values(NUMBERS), DAY, at=[3.0, 20.0])["C"] for cls in (Patient, Plain)]
    np.testing.assert_array_equal(*numbers)


def test_a_coupling_is_seen_where_a_system_is_shown():
    assert "coupling  CL [L/h]: filter.g -> body.A" in repr(Patient())
    graph = ht.graph(Patient())
    assert graph.nodes["CL"].kind == "coupling" and graph.nodes["CL"].unit == "L/h"
    assert graph.parents("CL") == ("filter.g",) and graph.children("CL") == ("body.A",)
    assert "filter.g" not in graph.parents("body.A") and "filter.g" in graph.ancestors("C")
    assert '>"CL"]' in graph.mermaid() and '{{"CL"}}' in Patient().mermaid() and "CL [L/h]" in Patient()._repr_html_()
    assert "CL" in repr(graph) and "CL" not in repr(graph.bare) and "CL" not in graph.unrolled(2).nodes


@pytest.mark.parametrize(("cls", "names"), [(T1DDay, {"sensitivity", "worked"}), (Vancomycin, {"filtration"}),
                                            (Chemotherapy, {"C"})])  # fmt: skip
def test_the_wholes_of_the_library_name_what_couples_them(cls, names):
    """No part acts on another but through a coupling: without them the parts fall apart."""
    spec, graph = cls.spec, ht.graph(cls())
    assert set(spec.couplings) == names and all(graph.parents(n) and graph.children(n) for n in names)
    parts = [part for part, value in vars(cls()).items() if isinstance(value, ht.System)]
    of = lambda node: next((part for part in parts if node.startswith(f"{part}.")), cls.__name__)
    states = [(a, b) for a, b in graph.edges if graph.nodes[a].kind == graph.nodes[b].kind == "state"]
    assert states and [(a, b) for a, b in states if of(a) != of(b)] == []


def test_a_coupling_is_checked_when_it_is_declared():
    def declared(unit="L/h", made=lambda self, x, u: {"CL": x.filter.g}, **more):
        inputs = type(ht.Input)("Input", (ht.Input,), {"iv": ht.dose("mg", into="body.A"), "CL": ht.coupled(unit)})
        parts = {k: vars(Patient)[k] for k in ("time", "State", "rates", "outputs", "initial")}
        notes = {"__annotations__": {"filter": Filter, "body": Body}, "filter": Filter(), "body": Body()}
        return type(Patient)("Wrong", (ht.System,), {**parts, **notes, "Input": inputs, "couplings": made, **more})

    assert declared().spec.couplings["CL"].unit == "L/h"
    with pytest.raises(UnitError, match=r"Wrong.couplings: CL is .*filter.g.* \[L/h\], but its declaration needs \[mL/min\]"):
        declared("mL/min")
    with pytest.raises(UnitError, match=r"d body.A/dt .*mg/min"):
        declared("L/min", lambda self, x, u: {"CL": x.filter.g * ht.const(1 / 60, "h/min")})
    with pytest.raises(DeclarationError, match=r"Wrong.couplings gives filtration, but Input declares CL. Give a value"):
        declared(made=lambda self, x, u: {"filtration": x.filter.g})
    with pytest.raises(DeclarationError, match=r"Wrong.couplings gives nothing, but Input declares CL"):
        declared(made=lambda self, x, u: {})
    with pytest.raises(DeclarationError, match=r"Wrong.initial reads a coupling \(CL\), which is not known there"):
        declared(initial=lambda self, u: self.State(filter=Filter.State(g=2.0 * u.CL), body=Body.State(A=0.0)))


def test_a_coupling_is_no_target_and_says_what_is():
    with pytest.raises(UnknownTarget, match=r"'CL' is a coupling: it follows from filter\.g\. Act on one of those"):
        simulate(Patient().with_values(NUMBERS), DAY, do=[Do({"CL": 1.0})])

"""The promises of the design, section 8, one by one (6 is tests/test_pharmacokinetics.py, 5 is in tests/test_inference.py)."""

import ast
import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made import effect, verdict
from small import (
    CLOCK,
    DRIP,
    MESH,
    ORAL,
    Drip,
    Explodes,
    drip_person,
    drip_twin,
    mesh_person,
    mesh_twin,
    oral_person,
)

import hybridtwin.system as ht
from hybridtwin import cli, grammar, outcomes, sensors
from hybridtwin.causal import contrast as contrasting
from hybridtwin.causal.contrast import contrast
from hybridtwin.engine import double
from hybridtwin.errors import HybridTwinError, NoReadings, RecordError, UnitError
from hybridtwin.inference import methods
from hybridtwin.inference.check import check
from hybridtwin.inference.methods import NUTS, Laplace
from hybridtwin.inference.personalize import personalize, update
from hybridtwin.interventions import Rescue
from hybridtwin.model import Model
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.records import Cohort, Person
from hybridtwin.sensors import Seen
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.system import Scalar
from hybridtwin.twin import simulate_worlds

QUICK = Laplace(draws=64, starts=2)
PACKAGE = Path(__file__).resolve().parent.parent / "hybridtwin"


def same(a, b, names=("C",)):
    return all(np.array_equal(a[name], b[name]) for name in names)


# --------------------------------------------------------------------------- 1: doing nothing, and before the start


@pytest.mark.parametrize("twin", [drip_twin, mesh_twin], ids=["exact", "mesh"])
def test_1_doing_nothing_is_bit_identical(twin):
    lived = twin()
    nothing = [
        lived.do(),
        lived.do(iv=lambda b: b),
        lived.do(iv=lambda b: 1.0 * b, start=5.0, stop=9.5),
        lived.do(iv=lambda b: b.shift(0.0, "min")),
        lived.do(iv=lambda b: 2 * b).do(iv=lambda b: 0.5 * b),
    ]
    truth = lived.simulate()
    for other in nothing:
        assert same(truth, other.simulate()), other.label
        a, b = simulate_worlds([other, lived])
        assert same(a, b)
        np.testing.assert_allclose(a["C"], truth["C"], rtol=1e-11)  # one world or two: other lanes, other last bits


def test_1_the_lived_input_is_the_lived_world():
    """Nodes come from the inputs that result, so giving the record's own regimen, signal or covariate changes nothing."""
    lived = drip_twin()
    day = lived.world().inputs
    truth = lived.simulate()
    assert same(truth, lived.do(iv=day["iv"], push=day["push"], weight=day["weight"]).simulate())
    assert same(truth, lived.do(push=lambda s: s, start=7.3, stop=15.1).simulate())
    assert same(truth, lived.do(iv=Regimen.bolus(120.0, "mg", at=["01:00", "09:00", "17:00"])).simulate())
    c = contrast(lived.do(push=lambda s: s, start=7.3), lived, outcomes.auc("C"))
    assert np.all(c[0].difference == 0) and c[0].p_text == "no difference"


BEFORE = {
    "dose": lambda t: t.do(iv=lambda b: 0.5 * b, start=8.0),
    "shift": lambda t: t.do(iv=lambda b: b.shift(90, "min"), start=8.0),
    "parameter": lambda t: t.do(CL=lambda v: 2 * v, start=8.0),
    "constant": lambda t: t.do(CL=1.1, start=8.0, stop=15.3),
    "pump": lambda t: t.do(push=0.0, start=8.0),
    "covariate": lambda t: t.do(weight=90.0, start=8.0),
    "clamp": lambda t: t.do(amount=200.0, start=8.0, stop=10.0),
}


@pytest.mark.parametrize("change", BEFORE)
def test_1_before_the_start_the_worlds_agree_exactly(change):
    """Of what a contrast shows: both worlds on one union of nodes, exactly equal before 08:00 and not after."""
    lived = drip_twin()
    c = contrast(BEFORE[change](lived), lived, outcomes.mean("C"))
    a, b = c.trajectories
    before = a.time < 8.0
    assert before.sum() > 50 and np.array_equal(a.time, b.time)
    assert np.array_equal(a["C"][:, before], b["C"][:, before])
    assert np.all(np.abs(a["C"] - b["C"]).max(axis=1) > 1e-3), "nothing happened"


@pytest.mark.parametrize("change", ["dose", "parameter"])
def test_1_before_the_start_on_the_mesh(change):
    lived = mesh_twin()
    other = {
        "dose": lambda t: t.do(iv=lambda b: b.shift(-30, "min"), start=6.0),
        "parameter": lambda t: t.do(VM=lambda v: 2 * v, start=5.37),
    }
    a, b = contrast(other[change](lived), lived, outcomes.mean("C")).trajectories
    before = a.time < (5.5 if change == "dose" else 5.37)
    assert np.array_equal(a["C"][:, before], b["C"][:, before]) and not same(a, b)
    if change == "dose":
        assert any("moved before" in note for note in a.notes), (
            "a dose moved before the start moves the start, and that is told"
        )


# --------------------------------------------------------------------------- 2: shared parameters and shared noise


def test_2_scenarios_share_parameters_draw_by_draw():
    """With parameters shared, twice the clearance from the first moment is what twice the clearance is in closed form."""
    lived = drip_twin()
    worlds = simulate_worlds(
        [lived, lived.do(iv=lambda b: 0 * b + b), lived.do(CL=lambda v: 1 * v), lived.do(V=lambda v: 3 * v)],
        at=[0.5, 9.0, 20.0],
    )
    np.testing.assert_allclose(worlds[1]["C"], worlds[0]["C"], rtol=1e-12)
    np.testing.assert_allclose(worlds[2]["C"], worlds[0]["C"], rtol=1e-12)
    assert not np.allclose(worlds[3]["C"], worlds[0]["C"])


def test_2_many_scenarios_cost_one_program_and_change_nothing():
    """S worlds solved together are the S worlds solved in pairs: no cross of scenarios, no noise of their own."""
    lived = drip_twin()
    halves = [lived.do(iv=lambda b, k=k: k * b, start=8.0) for k in (0.25, 0.5, 0.75, 1.25)]
    together = simulate_worlds([lived, *halves], at=[4.0, 9.5, 23.0])
    assert len(together) == 5
    for i, half in enumerate(halves):
        pair = simulate_worlds([lived, half], at=[4.0, 9.5, 23.0])
        assert np.array_equal(pair[1]["C"], together[i + 1]["C"]), "to the last bit"
    spread = [np.std(t["C"][:, 2] - together[0]["C"][:, 2]) for t in together[1:]]
    assert spread[1] == pytest.approx(2 * spread[2], rel=1e-9), (
        "a linear system: differences of paired draws scale with the dose"
    )


def rows(time, session=None):
    n = len(time)
    return Seen(
        jnp.zeros(n),
        jnp.asarray(time, float),
        jnp.ones(n, bool),
        jnp.zeros(n, jnp.int32),
        jnp.zeros(n, jnp.int32) if session is None else jnp.asarray(session, jnp.int32),
        jnp.asarray(time, float),
    )


@pytest.mark.parametrize(
    "sensor",
    [
        sensors.Gaussian("C", sd=0.7),
        sensors.LogNormal("C", sd=0.3),
        sensors.Combined2("C", add=0.2, prop=0.1),
        sensors.Absorbing("C", add=0.2, early=0.4),
        sensors.Combined1("C", add=0.2, prop=0.1),
        sensors.Poisson("C"),
    ],
    ids=lambda s: type(s).__name__,
)
def test_2_noise_is_keyed_by_clock_time(sensor):
    """The same key on another mesh of reading times gives the same noise where the times are the same."""
    few, many = [-30.0, 0.0, 7.5, 60.0], [-45.0, -30.0, -1.0, 0.0, 1.0, 7.5, 30.0, 60.0, 61.0]
    with double():
        key = jax.random.key(3)
        a = np.asarray(sensor.sample(key, jnp.full(4, 5.0), rows(few)))
        b = np.asarray(sensor.sample(key, jnp.full(9, 5.0), rows(many)))
        assert np.array_equal(a, b[np.isin(many, few)])
        other = np.asarray(sensor.sample(jax.random.key(4), jnp.full(4, 5.0), rows(few)))
    assert not np.array_equal(a, other)
    assert isinstance(sensor, sensors.Poisson) or len(np.unique(b)) == 9, "two times share their noise"


def test_2_two_worlds_of_a_twin_have_the_same_sensor_noise():
    lived = drip_twin()
    a, b = lived.predict()["C"], lived.do(iv=lambda r: 0.5 * r, start=8.0).predict()["C"]
    np.testing.assert_allclose(a.readings - a.expectation, b.readings - b.expectation, rtol=1e-9, atol=1e-12)
    assert np.std(a.readings - a.expectation) == pytest.approx(0.3, rel=0.05)


# --------------------------------------------------------------------------- 3: a person's bits in a cohort


def poisoned():
    """A person whose readings no body can give."""
    return Person.of(
        "poison",
        start=0.0,
        stop=24.0,
        doses={"oral": Regimen.bolus(320.0, "mg", at=0.0)},
        readings={"C": ([2.0, 4.0, 9.0], [1e9, 1e-9, 1e12], "mg/L")},
    )


def unlike():
    """People whose records have another structure: infusion, latent amount, many readings."""
    infused = Person.of(
        "infused",
        start=0.0,
        stop=24.0,
        readings={"C": ([2.0, 4.0, 9.0], [1.0, 2.0, 0.5], "mg/L")},
        doses={"oral": Regimen.bolus(100.0, "mg", at=0.0), "iv": Regimen.infusion(100.0, "mg", at=1.0, over="2 h")},
    )
    return [infused, oral_person("long", 4, n=19)]


def fit(model, people, method=QUICK):
    return personalize(model, Cohort(list(people)), method, key=0, progress=False)


def bits(twins, who):
    f = twins[who].fits[0]
    return f.z, f.log_density, *f.prior_values.values()


def assert_same_bits(a, b, who):
    assert all(np.array_equal(x, y) for x, y in zip(bits(a, who), bits(b, who), strict=True))


TRIO = [oral_person(name, seed) for name, seed in (("anna", 1), ("bea", 2), ("cleo", 3))]


@pytest.fixture(scope="module")
def trio():
    return fit(ORAL, TRIO)


@pytest.mark.parametrize("others", ["alone", "reordered", "poisoned", "more than a tile"])
def test_3_other_people_do_not_change_a_persons_bits(trio, others):
    anna, bea, cleo = TRIO
    crowd = [oral_person(f"n{i}", 20 + i) for i in range(9)]
    people = {
        "alone": [anna],
        "reordered": [cleo, bea, anna],
        "poisoned": [poisoned(), anna],
        "more than a tile": [*crowd, anna],
    }[others]
    assert_same_bits(trio, fit(ORAL, people), "anna")


def test_3_people_with_other_records_do_not_change_a_persons_bits(trio):
    found = fit(ORAL, [*unlike(), TRIO[1]])
    assert_same_bits(trio, found, "bea")
    assert list(found) == ["infused", "long", "bea"], "twins come in the order of the cohort"
    assert found["long"].fits[0].problem.n_readings == 19


def test_3_on_the_mesh_too():
    """The steps of a person come from the person, not from who is first."""
    people = [mesh_person("a"), mesh_person("b", weight=250.0), mesh_person("c", stop=11.0)]
    whole = fit(MESH, people)
    assert_same_bits(whole, fit(MESH, people[1:]), "c")
    assert_same_bits(whole, fit(MESH, people[::-1]), "a")


@pytest.mark.heavy
def test_3_in_tiles_of_several_people_too(monkeypatch):
    """Where people are lanes of one call (an accelerator), the neighbors in the tile do not matter either."""
    monkeypatch.setattr(methods.AbstractMethod, "people_per_call", lambda self: 4)
    whole = fit(ORAL, TRIO)
    assert_same_bits(whole, fit(ORAL, [TRIO[2], poisoned(), TRIO[0]]), "anna")
    assert_same_bits(whole, fit(ORAL, [*unlike(), TRIO[1]]), "bea")


@pytest.mark.heavy
def test_3_sampled_draws_too():
    method = NUTS(draws=50, warmup=50, starts=2)
    whole = fit(ORAL, TRIO, method)
    assert_same_bits(whole, fit(ORAL, [poisoned(), TRIO[1], TRIO[0]], method), "anna")


def test_3_a_person_alone_and_in_a_cohort_agree_and_the_id_is_the_key(trio):
    """Another width, other bits, the same draws to rounding; two people with one record differ by their id."""
    alone = personalize(ORAL, TRIO[0], QUICK, key=0, progress=False)
    np.testing.assert_allclose(alone.fits[0].z, trio["anna"].fits[0].z, atol=1e-5)
    twin = dataclasses.replace(TRIO[0], id="twin sister")
    other = personalize(ORAL, twin, QUICK, key=0, progress=False)
    assert not np.allclose(other.fits[0].z, alone.fits[0].z)


# --------------------------------------------------------------------------- 4: failures are counted


BLOWS_UP = Model(Explodes(), y=sensors.Gaussian("y", sd=ht.halfnormal(2.0)))


def exploding(stop=1.5):
    return Person.of("p", start=0.0, stop=stop, readings={"y": ([0.3, 0.6, 1.0], [1.2, 1.5, 2.3], "1")})


def test_4_a_failed_solve_is_a_masked_draw_with_a_reason():
    """Draws of the prior that blow up before the last reading: no exception, counted, NaN, told."""
    twin = personalize(BLOWS_UP, exploding(), QUICK, key=0, progress=False)
    found = twin.simulate(prior=True, at=[0.5, 1.0, 1.5])
    assert 0 < found.failed.sum() < len(found.failed)
    assert (
        np.array_equal(found.failed, np.isnan(found["y"]).all(axis=1)) and np.isfinite(found["y"][~found.failed]).all()
    )
    assert any(f"{found.failed.sum()} draws of Explodes could not be solved" in note for note in found.notes)
    assert np.isfinite(found.quantile("y", 0.9)).all()


def test_4_failing_solves_never_stop_a_chain():
    """The sampler rejects what cannot be solved: finite draws, all of them inside what can."""
    twin = personalize(BLOWS_UP, exploding(), NUTS(draws=50, warmup=50, starts=2, depth=5), key=0, progress=False)
    f = twin.fits[0]
    assert np.isfinite(f.z).all() and np.isfinite(f.log_density).all() and f.values["a"].max() < 1.0
    assert 0.0 <= f.stats["failed"] < 0.5


def test_4_worlds_that_fail_are_counted_in_the_contrast():
    twin = personalize(BLOWS_UP, exploding(), QUICK, key=0, progress=False)
    worse = contrast(twin.do(a=lambda v: np.where(np.arange(len(v)) % 4 == 0, 50.0, v)), twin, outcomes.peak("y"))
    assert np.isnan(worse[0].difference).mean() == pytest.approx(0.25, abs=0.05)
    assert (
        worse.verdict.headline == "DO NOT USE" and "could not be solved" in worse.text and np.isfinite(worse[0].median)
    )


# --------------------------------------------------------------------------- 7: units


def test_7_a_wrong_unit_in_rates_is_an_error_at_declaration_that_names_the_term():
    with pytest.raises(UnitError, match=r"Wrong\.rates.*amount.*mg/min"):

        class Wrong(ht.System):
            time = "h"

            class State(ht.State):
                amount: Scalar = ht.state("mg")

            k: Scalar = ht.parameter(ht.lognormal(0.3, 0.3), "1/min")

            def rates(self, t, x, u):
                return self.State(amount=-self.k * x.amount)

            def outputs(self, x, u):
                return {"A": ht.output(x.amount, "mg")}


def test_7_units_are_printed_everywhere():
    twin = drip_twin()
    c = contrast(twin.do(iv=lambda b: 0.5 * b, start=8.0), twin, outcomes.cmax("C"), outcomes.auc("C", better="lower"))
    assert set(twin.summary()["unit"]) == {"L/h", "L"} and "mg*h/L" in set(c.table["unit"])
    assert "L/h" in repr(twin) and "[mg/L]" in repr(twin.simulate()) and "[mg/L]" in repr(DRIP)
    assert "mg*h/L" in c.text and "mg/L (90 % credible interval" in c.text
    assert twin.predict()["C"].unit == "mg/L" and twin.simulate().to_xarray()["C"].attrs["units"] == "mg/L"
    assert "[mg/L]" in repr(drip_person()) or "mg/L" in repr(drip_person())
    assert "mg/L" in repr(check(DRIP, drip_person(), key=0))


def test_7_units_are_converted_at_the_edge_and_the_answer_is_the_same():
    """Grams and minutes in the record, milligrams and hours in the system."""
    mg, g = drip_person(), drip_person()
    g = Person.of(
        mg.id,
        start=0.0,
        stop=24.0,
        time=CLOCK,
        covariates={"weight": (70_000.0, "g")},
        doses={"iv": Regimen.bolus(0.12, "g", at=[1.0, 9.0, 17.0])},
        signals={"push": Signal.steps([0.0, 12.0], [10 / 60, 16 / 60], "mg/min")},
        readings={"C": (mg.series["C"].time, mg.series["C"].value * 1e3, "ug/L")},
    )
    other = personalize(DRIP, g, Laplace(draws=100, starts=2), key=0, progress=False)
    np.testing.assert_allclose(other.fits[0].z, drip_twin().fits[0].z, atol=1e-6)
    with pytest.raises(UnitError, match="mg/L"):
        drip_twin().do(CL=(3.0, "mg/L"))
    np.testing.assert_allclose(
        drip_twin().do(CL=(50.0, "mL/min")).simulate(at=[9.0])["C"],
        drip_twin().do(CL=3.0).simulate(at=[9.0])["C"],
        rtol=1e-12,
    )


# --------------------------------------------------------------------------- 8: bad input


def test_8_errors_of_a_record_carry_person_row_column_reason_and_remedy():
    """(Every fault of a table is in tests/test_bad_input.py; here what personalize itself can meet.)"""
    blank = Person.of("nora", start=0.0, stop=24.0, doses={"oral": Regimen.bolus(320.0, "mg", at=0.0)})
    with pytest.raises(NoReadings) as found:
        personalize(ORAL, blank, QUICK, key=0)
    e = found.value
    assert e.person == "nora" and e.reason and e.remedy and str(e).startswith("person 'nora'") and e.remedy in str(e)
    with pytest.raises(NoReadings, match="nora"):
        fit(ORAL, [TRIO[0], blank])
    table = {"time": ["0", "1", "x"], "C": [1.0, 2.0, 3.0]}
    with pytest.raises(RecordError) as found:
        Person.from_csv(table, units={"C": "mg/L"}, time="h", id="nora")
    assert (found.value.person, found.value.row, found.value.column) == ("nora", 3, "time") and found.value.remedy


def test_8_every_error_of_the_library_ends_in_a_remedy():
    """Each message raised here has a second sentence that says what to write instead."""
    twin = drip_twin()
    wrong = [
        lambda: twin.do(iv=100.0),
        lambda: twin.do(ivv=1.0),
        lambda: twin.do(CL=1.0, start=50.0),
        lambda: twin.do(CL="much"),
        lambda: twin.do(iv=lambda b: 3.0),
        lambda: twin.do(iv=lambda b: b.shift(20, "h")),
        lambda: twin.on(drip_person(), start="now"),
        lambda: contrast(twin, mesh_twin(), outcomes.cmax("C")),
        lambda: contrast(twin, twin),
        lambda: contrast(twin, "lived"),
        lambda: personalize(DRIP, drip_person(), key=None),
        lambda: personalize(DRIP, drip_person(), key=0, temper=0.5),
        lambda: personalize(DRIP, [drip_person()], key=0),
        lambda: personalize([], drip_person(), key=0),
        lambda: NUTS(draws=3),
        lambda: Laplace(draws=1),
        lambda: Drip(CLL=3.0),
        lambda: Drip(CL=-1.0),
        lambda: Model(Drip(), C=sensors.Gaussian("C")),
        lambda: Model(Drip(), C=sensors.Gaussian("D", sd=1.0)),
        lambda: Model(Drip(), start="lived", C=sensors.Gaussian("C", sd=1.0)),
        lambda: update(twin, dataclasses.replace(drip_person(), id="other"), key=0),
        lambda: twin.forecast("5 h", nothing=3.0),
        lambda: twin.do(iv=lambda b: b, respond=Rescue("Q", 1.0, "mg/L", "iv", 5.0, "mg")),
    ]
    for attempt in wrong:
        with pytest.raises(HybridTwinError) as found:
            attempt()
        sentences = [s for s in re.split(r"(?<=[.?!])\s+", str(found.value).strip()) if s]
        assert len(sentences) >= 2, f"no remedy: {found.value}"


# --------------------------------------------------------------------------- 9: same key, same bits


def test_9_the_same_key_gives_the_same_bits_and_an_int_is_a_key():
    again = personalize(DRIP, drip_person(), Laplace(draws=100, starts=2), key=jax.random.key(0), progress=False)
    other = personalize(DRIP, drip_person(), Laplace(draws=100, starts=2), key=1, progress=False)
    first = drip_twin()
    assert np.array_equal(again.fits[0].z, first.fits[0].z) and not np.array_equal(other.fits[0].z, first.fits[0].z)
    assert same(again.simulate(), first.simulate())
    assert np.array_equal(again.predict()["C"].readings, first.predict()["C"].readings)
    a, b = (contrast(t.do(iv=lambda r: 0.5 * r, start=8.0), t, outcomes.cmax("C")) for t in (again, first))
    assert np.array_equal(a[0].difference, b[0].difference) and np.array_equal(
        a[0].prior_difference, b[0].prior_difference
    )


# --------------------------------------------------------------------------- 10: a verdict before a number


NUMBER = re.compile(r"credible interval|P\((lower|higher)\)|[+-]\d+(\.\d+)? \w+/")


def test_10_the_verdict_stands_before_the_numbers():
    for level in ("OK", "CAUTION"):
        text = effect(level).text
        assert text.index(f"Verdict: {level}") < NUMBER.search(text).start()
    assert text.index("residuals are 9.9") < NUMBER.search(text).start(), "the reasons stand before the numbers, too"
    twin = repr(drip_twin())
    assert twin.index("verdict: ") < twin.index("L/h")


def test_10_do_not_use_shows_no_number():
    red = effect("DO NOT USE")
    assert "Verdict: DO NOT USE" in red.text and not NUMBER.search(red.text) and not NUMBER.search(repr(red))
    assert "residuals are 9.9" in red.text and "No numbers are shown" in red.text
    told = red.to_dataframe().select_dtypes("number")
    assert len(told.columns) >= 10 and told.isna().all(axis=None) and set(red.table["verdict"]) == {"DO NOT USE"}
    assert effect("CAUTION").table["difference"].notna().all()


def test_10_the_command_line_refuses_with_three(tmp_path, monkeypatch, capsys):
    table = tmp_path / "someone.csv"
    person = oral_person()
    lines = [
        "time,oral,C",
        "0,320,",
        *(f"{t},,{v:.4f}" for t, v in zip(person.series["C"].time, person.series["C"].value, strict=True)),
    ]
    table.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(contrasting, "_judge", lambda *_: verdict("DO NOT USE"))
    code = cli.main(
        [
            "compare",
            str(table),
            "--system",
            "OneCompartmentOral",
            "--units",
            "oral=mg,C=mg/L",
            "--time",
            "h",
            "--key",
            "0",
            "--method",
            "laplace",
            "--do",
            "oral=*0.5",
            "--outcome",
            "cmax(C)",
        ]
    )
    out, err = capsys.readouterr()
    assert code == 3, err
    assert not NUMBER.search(out) and "DO NOT USE" in out


def test_10_two_fits_pass_their_worst_part_on():
    joined = verdict("OK").join(verdict("DO NOT USE"))
    assert joined.headline == "DO NOT USE" and joined.parts["computed"].level == "OK"


# --------------------------------------------------------------------------- 11: precision and configuration


def test_11_every_verb_leaves_x64_off_and_returns_float64():
    def off():
        assert not jax.config.jax_enable_x64 and jnp.ones(1).dtype == jnp.float32

    off()
    twin = drip_twin()
    half = twin.do(iv=lambda b: 0.5 * b, start=8.0)
    off()
    trajectory, predicted = twin.simulate(), twin.predict()["C"]
    c = contrast(half, twin, outcomes.cmax("C"))
    ahead = twin.forecast("6 h")
    off()
    arrays = [
        twin.fits[0].z,
        *twin.fits[0].values.values(),
        *twin.fits[0].prior_values.values(),
        trajectory["C"],
        trajectory.time,
        predicted.expectation,
        predicted.readings,
        c[0].difference,
        c[0].prior_difference,
        ahead.simulate(at=[26.0])["C"],
        *twin.last_state().values(),
        check(DRIP, drip_person(), key=0).modelled["C"],
    ]
    for array in arrays:
        assert isinstance(array, np.ndarray) and array.dtype == np.float64
    off()


def test_11_precision_may_be_interleaved():
    """x64 on around some verbs and off around others: the same bits, and no program of one precision used in the other."""
    twin = drip_twin()
    off = twin.simulate()
    with jax.enable_x64(True):
        on = twin.simulate()
        again = personalize(DRIP, drip_person(), Laplace(draws=100, starts=2), key=0, progress=False)
        assert jnp.ones(1).dtype == jnp.float64
    assert same(on, off) and same(twin.simulate(), off) and np.array_equal(again.fits[0].z, twin.fits[0].z)
    assert jnp.ones(1).dtype == jnp.float32


def test_11_an_error_inside_a_verb_leaves_x64_off():
    with pytest.raises(HybridTwinError):
        drip_twin().do(iv=5.0)
    with pytest.raises(NoReadings):
        personalize(ORAL, Person.of("p", start=0.0, stop=1.0), QUICK, key=0, progress=False)
    assert not jax.config.jax_enable_x64 and jnp.ones(1).dtype == jnp.float32


# --------------------------------------------------------------------------- 12: loading runs no code


UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_12_nothing_that_is_loaded_runs_code(path):
    """Imports anywhere (tests/test_house.py sees those at module level only), and calls that would evaluate a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & UNSAFE
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE
        if isinstance(node, ast.Call):
            name = (
                node.func.id
                if isinstance(node.func, ast.Name)
                else node.func.attr
                if isinstance(node.func, ast.Attribute)
                else ""
            )
            owner = (
                node.func.value.id
                if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
                else ""
            )
            own = (
                path.name == "system.py" and name == "eval"
            )  # annotations of a class that is being declared: already code
            assert own or not (isinstance(node.func, ast.Name) and name in {"eval", "exec", "compile"}), (
                f"{path}: {name}"
            )
            assert name not in {"read_pickle", "to_pickle", "literal_eval"} and (owner, name) != ("yaml", "load")
            assert not any(k.arg == "allow_pickle" and getattr(k.value, "value", False) for k in node.keywords)


def test_12_a_do_on_the_command_line_is_read_not_evaluated():
    for text in ("oral=__import__('os').system('false')", "oral=lambda b: b", "CL=(1).__class__"):
        with pytest.raises((HybridTwinError, ValueError)):
            grammar.world(text)


# --------------------------------------------------------------------------- 13: never shown to a clinician


FORBIDDEN = [
    r"\bwould have been\b",
    r"\byou should\b",
    r"(?m)^\s*(take|give|inject|increase|reduce|lower|raise|administer)\b",
    r"P\([a-z]+\) = 1\.00",
    r"P\([a-z]+\) = 0\.00",
    r"\bmust (take|give|inject)\b",
    r"\b(we|is|are) recommend",
    r"\bprescribe",
]


def shown(tmp_path):
    """Every text about a comparison that leaves the library."""
    for level in ("OK", "CAUTION", "DO NOT USE"):
        e = effect(level)
        yield e.text
        yield repr(e)
        path = tmp_path / "shown.html"
        e.twin.report(path, [e])
        html = path.read_text(encoding="utf-8")
        yield re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(script|style|svg).*?</\1>", " ", html))


def test_13_no_imperative_no_certainty_and_no_other_persons_fate(tmp_path):
    for text in shown(tmp_path):
        for pattern in FORBIDDEN:
            assert not re.search(pattern, text, re.IGNORECASE), pattern
        assert "not a medical device" in text and "Research use" in text


def test_13_certainty_is_bounded_by_the_draws():
    lived = drip_twin()
    row = contrast(lived.do(iv=lambda b: 0.5 * b, start=8.0), lived, outcomes.cmax("C"))[0]
    assert row.p_better == 1.0 and row.p_text == "P(lower) > 0.97", "100 draws do not support more than 1 - 3/100"
    harm = dataclasses.replace(row, outcome=outcomes.cmax("C", better="higher"))
    assert harm.p_text == "P(lower) > 0.97"


def test_13_no_benefit_without_its_harm():
    e = effect()
    assert any(r.harm for r in e.rows) and e.text.index("Watched for harm") > 0
    assert [r.harm for r in e.rows] == sorted(r.harm for r in e.rows), "harm stands beside, after what was asked"


def test_13_doses_of_another_size_than_seen_are_a_caution():
    lived = drip_twin()
    big = contrast(lived.do(iv=lambda b: 4 * b, start=8.0), lived, outcomes.cmax("C"))
    assert (
        big.verdict.parts["supported"].level == "CAUTION"
        and "480" in big.text
        and "the record holds 120 to 120" in big.text
    )


def test_13_a_new_day_is_not_told_as_a_day_that_was_lived():
    day = drip_twin().on(
        Person.of(
            "bruno",
            start=24.0,
            stop=48.0,
            time=CLOCK.spanning(24.0, 48.0),
            doses={"iv": Regimen.bolus(120.0, "mg", at=25.0)},
            signals={"push": Signal.constant(10.0, "mg/h")},
        )
    )
    c = contrast(day.do(iv=lambda b: 0.5 * b), day, outcomes.cmax("C"))
    assert any("not a day that was lived" in a for a in c.assumptions) and "would have been" not in c.text


def test_13_latent_amounts_are_doubt_and_not_zero():
    """A dose of unknown amount is part of every draw, in both worlds the same."""
    person = Person.of(
        "lea",
        start=0.0,
        stop=24.0,
        readings={"C": oral_person("lea", 5).series["C"]},
        doses={"oral": Regimen((Dose(0.0, None, prior=(300.0, 0.3)), Dose(12.0, 100.0)), "mg")},
    )
    twin = personalize(
        Model(OneCompartmentOral(ka=1.5, tlag=0.1), C=sensors.LogNormal("C", sd=0.15)),
        person,
        QUICK,
        key=0,
        progress=False,
    )
    worlds = simulate_worlds([twin, twin.do(oral=lambda b: 2 * b, start=6.0)], at=[3.0, 20.0])
    assert np.std(np.log(worlds[0]["C"][:, 0])) > 0.02 and np.array_equal(worlds[0]["C"][:, 0], worlds[1]["C"][:, 0])

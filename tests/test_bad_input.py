"""Bad tables: each a named exception that says person, row, column, reason and remedy."""

import math
from types import SimpleNamespace

import pytest

import hybridtwin as ht
from hybridtwin.errors import (
    AmbiguousTime,
    DeclarationError,
    EmptyRecord,
    ImplausibleValue,
    InterventionError,
    MissingColumn,
    MissingUnit,
    MissingValue,
    NotANumber,
    RecordError,
    SplitId,
    TimeOrder,
    UnitError,
    UnknownCompartment,
)
from hybridtwin.interventions import Do
from hybridtwin.physiology import OneCompartmentOral
from hybridtwin.records import Cohort, Person
from hybridtwin.signals import Dose, Regimen, Signal

SPEC = SimpleNamespace(
    time="h",
    doses={"oral": SimpleNamespace(unit="mg", cmt=1, into="depot", spread=None),
           "iv": SimpleNamespace(unit="mg", cmt=2, into="central", spread=None)},
    signals={"basal": SimpleNamespace(unit="mg/h", default=0.0)},
    covariates={"weight": SimpleNamespace(unit="kg", default=70.0)},
)
GOOD = {"time": ["2026-03-24 07:00", "2026-03-24 07:05", "2026-03-24 07:10"], "cgm": [110, 112, 115],
        "meal": ["", 40, ""]}
UNITS = {"cgm": "mg/dL", "meal": "g"}
EVENTS = {"ID": [7, 7, 7], "TIME": [0, 1, 2], "DV": [".", 3.0, 2.0], "AMT": [100, ".", "."], "EVID": [1, 0, 0],
          "CMT": [1, 2, 2]}
EVENT_UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}


def tidy(table=None, **changes):
    options = {"units": UNITS, "tz": "Europe/Rome", "id": "anna"}
    options |= {k: changes.pop(k) for k in list(changes) if table is not None or k not in GOOD}
    return Person.from_csv(GOOD | changes if table is None else table, **options)


def nonmem(**changes):
    options = {"units": EVENT_UNITS}
    options |= {k: changes.pop(k) for k in list(changes) if k.islower()}
    return Person.from_nonmem(EVENTS | changes, **options)


def test_the_tables_without_a_fault_are_read():
    assert len(tidy().series["cgm"]) == 3
    assert len(nonmem().series["DV"]) == 2


# what is wrong -> (error, row, column, words of the message)
TIDY = {
    "a missing unit": (lambda: tidy(units={"cgm": "mg/dL"}), MissingUnit, None, "meal", "units="),
    "no unit at all": (lambda: tidy(units={}), MissingUnit, None, "cgm", "units="),
    "an unknown unit": (lambda: tidy(units=UNITS | {"cgm": "mg/dLL"}), UnitError, None, "cgm", "unknown unit"),
    "an ambiguous unit": (lambda: tidy(units=UNITS | {"meal": "U"}), UnitError, None, "meal", "[IU]"),
    "an implausible value": (lambda: tidy(cgm=[110, 5.5, 115]), ImplausibleValue, 2, "cgm", "outside 10 to 1000 mg/dL"),
    "mg/dL called mmol/L": (lambda: tidy(units=UNITS | {"cgm": "mmol/L"}), ImplausibleValue, 1, "cgm", "unit"),
    "a unit for no column": (lambda: tidy(units=UNITS | {"meals": "g"}), MissingColumn, None, "meals", "mean 'meal'"),
    "no column of times": (lambda: tidy({"when": [1], "cgm": [100]}), MissingColumn, None, "time", "rename="),
    "a renamed column that is not there": (
        lambda: tidy(rename={"glucose": "cgm"}), MissingColumn, None, "glucose", "It has"),
    "a cell that is no number": (lambda: tidy(cgm=[110, "1l2", 115]), NotANumber, 2, "cgm", "'1l2'"),
    "an infinite cell": (lambda: tidy(cgm=[110, math.inf, 115]), NotANumber, 2, "cgm", "infinite"),
    "NaN in words": (lambda: tidy(cgm=[110, "NaN", 115]), MissingValue, 2, "cgm", "NaN"),
    "LOW without a limit": (lambda: tidy(cgm=[110, "LOW", 115]), NotANumber, 2, "cgm", "below="),
    "an unknown category": (
        lambda: tidy(meal=["", "big", ""], categories={"meal": {"small": 20}}), NotANumber, 2, "meal", "categories="),
    "a row without a time": (
        lambda: tidy(time=["2026-03-24 07:00", "", "2026-03-24 07:10"]), MissingValue, 2, "time", "delete the row"),
    "a time that is none": (
        lambda: tidy(time=["2026-03-24 07:00", "24/03/26 7h", "2026-03-24 07:10"]), NotANumber, 2, "time",
        "2026-03-24"),
    "time going back": (
        lambda: tidy(time=["2026-03-24 07:00", "2026-03-24 07:10", "2026-03-24 07:05"]), TimeOrder, 3, "time", "Sort"),
    "a local time that occurs twice": (
        lambda: tidy(time=["2026-10-25 01:00", "2026-10-25 02:30", "2026-10-25 04:00"]), AmbiguousTime, 2, "time",
        "twice"),
    "a local time that never was": (
        lambda: tidy(time=["2026-03-29 01:00", "2026-03-29 02:30", "2026-03-29 04:00"]), AmbiguousTime, 2, "time",
        "never"),
    "a time without a place": (lambda: tidy(tz=None), AmbiguousTime, 1, "time", "tz="),
    "times of no unit": (lambda: tidy(time=[0, 5, 10]), MissingUnit, None, "time", 'time="min"'),
    "a row without a variable": (
        lambda: tidy({"time": [0, 1], "variable": ["cgm", ""], "value": [100, 101]}, time="min"), MissingValue, 2,
        "variable", "delete"),
    "a duration without a unit": (
        lambda: tidy({"time": [0], "variable": ["meal"], "value": [10], "duration": [10]}, time="min"), MissingUnit,
        None, "duration", "30 min"),
    "no rows": (lambda: tidy({"time": [], "cgm": []}), EmptyRecord, None, None, "at least one row"),
    "no values": (lambda: tidy(cgm=[None] * 3, meal=[None] * 3), EmptyRecord, None, None, "units"),
    "columns of unequal length": (lambda: tidy(cgm=[110]), RecordError, None, None, "unequal"),
    "something that is no table": (lambda: tidy(42), RecordError, None, None, "path"),
    "no such file": (lambda: tidy("/nowhere/anna.csv"), RecordError, None, None, "Check the path"),
}
NONMEM = {
    "no unit of TIME": (lambda: nonmem(units={"AMT": "mg", "DV": "mg/L"}), MissingUnit, None, "TIME", "units="),
    "no unit of AMT": (lambda: nonmem(units={"TIME": "h", "DV": "mg/L"}), MissingUnit, None, "AMT", "units="),
    "no unit of DV": (lambda: nonmem(units={"TIME": "h", "AMT": "mg"}), MissingUnit, None, "DV", "units="),
    "a unit for no column": (
        lambda: nonmem(units=EVENT_UNITS | {"WT": "kg"}), MissingColumn, None, "WT", "It has"),
    "no TIME": (lambda: Person.from_nonmem({"t": [0], "DV": [1]}, units={}), MissingColumn, None, "TIME", "rename="),
    "neither DV nor AMT": (lambda: Person.from_nonmem({"TIME": [0]}, units={}), MissingColumn, None, "DV", "rename="),
    "time going back without a reset": (lambda: nonmem(TIME=[0, 2, 1]), TimeOrder, 3, "TIME", "EVID 3 or 4"),
    "a reading that is no number": (lambda: nonmem(DV=[".", "BLQ", 2]), NotANumber, 2, "DV", "'BLQ'"),
    "a reading that is NaN": (lambda: nonmem(DV=[".", "NaN", 2]), MissingValue, 2, "DV", "NaN"),
    "a reading that is missing": (lambda: nonmem(DV=[".", math.nan, 2]), MissingValue, 2, "DV", "MDV"),
    "a dose without an amount": (lambda: nonmem(AMT=[".", ".", "."]), MissingValue, 1, "AMT", "Give it"),
    "a negative dose": (lambda: nonmem(AMT=[-5, ".", "."]), ImplausibleValue, 1, "AMT", "0 or more"),
    "repeats without an interval": (lambda: nonmem(ADDL=[3, 0, 0]), ImplausibleValue, 1, "AMT", "interval"),
    "steady state without an interval": (lambda: nonmem(SS=[1, 0, 0]), ImplausibleValue, 1, "AMT", "interval"),
    "an unknown RATE": (lambda: nonmem(RATE=[-3, 0, 0]), ImplausibleValue, 1, "RATE", "-2"),
    "an unknown EVID": (lambda: nonmem(EVID=[5, 0, 0]), RecordError, 1, "EVID", "3 reset"),
    "half an EVID": (lambda: nonmem(EVID=[1, 0.5, 0]), RecordError, 2, "EVID", "whole"),
    "an implausible covariate": (
        lambda: nonmem(WEIGHT=[70, 70000, 70], units=EVENT_UNITS | {"WEIGHT": "kg"}, covariates="LOCF"),
        ImplausibleValue, 2, "WEIGHT", "0.3 to 400 kg"),
    "a covariate that changes somehow": (
        lambda: Person.from_nonmem(EVENTS | {"WT": [70, 71, 72]}, units=EVENT_UNITS | {"WT": "kg"}), MissingValue,
        None, "WT", "NOCB"),
    "a DVID of nothing": (
        lambda: Person.from_nonmem(EVENTS | {"DVID": [1, 1, 3]}, units=EVENT_UNITS, dvid={1: "cp"}), RecordError, 3,
        "DVID", "dvid="),
    "a row without an id": (
        lambda: nonmem(ID=[7, "", 7]), MissingValue, 2, "ID", "Give every row an id"),
}


@pytest.mark.parametrize("case", [*TIDY, *(f"NONMEM: {name}" for name in NONMEM)])
def test_a_fault_of_a_table_is_named_with_its_place_and_remedy(case):
    make, kind, row, column, words = TIDY[case] if case in TIDY else NONMEM[case.removeprefix("NONMEM: ")]
    with pytest.raises(kind) as caught:
        make()
    error, text = caught.value, str(caught.value)
    assert type(error) is kind
    assert words in text, text
    assert column is None or column in text, text
    if isinstance(error, RecordError):
        assert error.row == row and error.remedy, text
        assert column is None or error.column == column
        assert row is None or error.person is not None or error.column == "ID", text


def test_an_id_in_two_blocks():
    table = {"id": ["a", "b", "a"], "time": [0, 0, 1], "cgm": [100, 101, 102]}
    with pytest.raises(SplitId, match="comes back") as caught:
        Cohort.from_csv(table, units={"cgm": "mg/dL"}, time="min")
    assert (caught.value.person, caught.value.row, caught.value.column) == ("a", 3, "id")
    with pytest.raises(SplitId) as caught:
        Cohort.from_nonmem(EVENTS | {"ID": [1, 2, 1.0]}, units=EVENT_UNITS)
    assert (caught.value.person, caught.value.row) == ("1", 3)


@pytest.mark.parametrize(("code", "part"), [(-1, "rate"), (-2, "duration")])
def test_a_rate_or_duration_that_nobody_declares(code, part):
    """NONMEM refuses RATE -1 without R1 and RATE -2 without D1; so does every way in."""
    person, words = nonmem(RATE=[code, 0, 0], readings="C"), f"route 'oral' of .* declares no {part}"
    model = ht.Model(OneCompartmentOral(), C=ht.sensors.Gaussian("C", sd=1.0))
    for call in (
        lambda: ht.simulate(OneCompartmentOral().typical(), person),
        lambda: ht.personalize(model, person, key=0),
        lambda: ht.personalize(model, Cohort([person]), key=0),
    ):
        with pytest.raises(RecordError, match=words) as caught:
            call()
        assert (caught.value.person, caught.value.row, caught.value.column) == ("7", 1, "RATE")
        assert f"ht.route({part}=...)" in caught.value.remedy
    asked = Regimen((Dose(0.5, 10.0, modelled=part),), "mg")
    with pytest.raises(RecordError, match=words) as caught:
        ht.simulate(OneCompartmentOral().typical(), Person.of("x", start=0.0, stop=5.0, time="h", doses={"oral": asked}))
    assert (caught.value.person, caught.value.row, caught.value.column) == ("x", None, None)
    with pytest.raises(InterventionError, match=f"leaves its {part} to the system"):
        ht.simulate(OneCompartmentOral().typical(), nonmem(), do=[Do({"oral": asked})])


def test_several_people_where_one_is_asked_for():
    table = {"id": ["a", "b"], "time": [0, 1], "cgm": [100, 101]}
    options = {"units": {"cgm": "mg/dL"}, "time": "min"}
    with pytest.raises(SplitId, match="id="):
        Person.from_csv(table, **options)
    assert Person.from_csv(table, id="b", **options).series["cgm"].value == [101]
    with pytest.raises(EmptyRecord, match="nobody is called 'c'"):
        Person.from_csv(table, id="c", **options)


def test_a_dose_into_an_unknown_compartment():
    with pytest.raises(UnknownCompartment, match=r"oral \(cmt 1\), iv \(cmt 2\)") as caught:
        nonmem(CMT=[3, 2, 2]).bind(SPEC, {"C": None})
    assert (caught.value.person, caught.value.row, caught.value.column) == ("7", 1, "CMT")
    with pytest.raises(UnknownCompartment, match="Did you mean 'oral'"):
        Person.of("x", doses={"orla": Regimen.bolus(1.0, "mg", at=0.0)}).bind(SPEC, {})


def test_a_wrong_unit_is_found_where_the_system_says_what_it_needs():
    with pytest.raises(UnitError, match=r"'C'.*dimensions differ"):
        Person.of("x", readings={"C": ([0.0], [1.0], "mg")}).bind(SPEC, {"C": "mg/L"})
    with pytest.raises(UnitError, match="'oral'"):
        Person.of("x", doses={"oral": Regimen.bolus(1.0, "mL", at=0.0)}).bind(SPEC, {})
    with pytest.raises(UnitError, match="'weight'"):
        Person.of("x", start=0, stop=1, covariates={"weight": (70, "cm")}).bind(SPEC, {})


def test_values_in_memory_are_checked_too():
    with pytest.raises(MissingUnit, match="readings 'C'"):
        Person.of("x", readings={"C": ([0.0], [1.0])})
    with pytest.raises(MissingUnit, match="weight"):
        Person.of("x", start=0, stop=1, covariates={"weight": 70})
    with pytest.raises(MissingValue) as caught:
        Person.of("x", readings={"C": ([0.0, 1.0], [1.0, math.nan], "mg/L")})
    assert (caught.value.person, caught.value.row, caught.value.column) == ("x", 2, "C")
    with pytest.raises(NotANumber):
        Person.of("x", readings={"C": ([0.0], ["much"], "mg/L")})
    with pytest.raises(ImplausibleValue):
        Person.of("x", start=0, stop=1, covariates={"weight": (70000, "kg")})
    with pytest.raises(ImplausibleValue, match="bolus"):
        Person.of("x", doses={"bolus": Regimen.bolus(4000, "[IU]", at=0.0)})
    with pytest.raises(ImplausibleValue, match="basal"):
        Person.of("x", start=0, stop=1, signals={"basal": Signal.constant(900, "[IU]/h")})
    with pytest.raises(EmptyRecord):
        Person.of("x", readings={"C": ([], [], "mg/L")})
    with pytest.raises(RecordError, match="before it starts"):
        Person.of("x", start=2, stop=1)


def test_a_record_without_readings_is_told_apart_from_one_with():
    assert nonmem(EVID=[1, 2, 2]).bind(SPEC, {"C": None}).n_readings == 0  # personalize raises NoReadings


def test_files_that_are_no_tables(tmp_path):
    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    for name, content, kind, words in [
        ("empty.csv", b"", EmptyRecord, "empty"),
        ("head.csv", b"time,cgm\n", EmptyRecord, "no rows"),
        ("book.csv", b"PK\x03\x04\xff\xfe\x9d", RecordError, "UTF-8"),
        ("fake.csv.gz", b"time,cgm\n0,1\n", RecordError, "Export it"),
        ("ragged.csv", b"time,cgm\n0,100,\n", RecordError, "3 cells under 2 columns"),
        ("twice.csv", b"time,cgm,cgm\n0,1,2\n", RecordError, "two columns have one name"),
    ]:
        with pytest.raises(kind, match=words):
            Person.from_csv(file(name, content), units={"cgm": "mg/dL"}, time="min")


def test_an_unknown_option_of_a_reader():
    with pytest.raises(TypeError, match="Did you mean 'below'"):
        tidy(blow={"cgm": 40})


@pytest.mark.parametrize(
    ("sensor", "values", "row"),
    [
        (ht.sensors.LogNormal("C", sd=0.2), [5.0, 3.0, 0.0], 3),
        (ht.sensors.LogNormal("C", sd=0.2), [5.0, -0.1, 1.0], 2),
        (ht.sensors.Poisson("C"), [5.0, 2.5, 1.0], 2),
    ],
)
def test_a_reading_that_its_error_cannot_give_is_refused(sensor, values, row):
    """Its density is zero whatever the body: no ascent had a start, and the first error was one of NumPy."""
    dose = {"iv": Regimen.bolus(100, "mg", at=0.0)}
    person = Person.of("x", start=0, stop=5, doses=dose, readings={"C": ([1, 2, 4], values, "mg/L")})
    with pytest.raises(ImplausibleValue, match=r"cannot be read.*censored") as caught:
        ht.personalize(ht.Model(OneCompartmentOral(tlag=0.1), C=sensor), person, ht.Laplace(), key=0, progress=False)
    assert (caught.value.person, caught.value.row, caught.value.column) == ("x", row, "C")


def test_a_model_without_unknowns_has_nothing_to_infer():
    dose = {"iv": Regimen.bolus(100, "mg", at=0.0)}
    person = Person.of("x", start=0, stop=5, doses=dose, readings={"C": ([1, 2], [3, 2], "mg/L")})
    known = ht.Model(OneCompartmentOral(tlag=0.1, ka=1.0, CL=3.0, V=30.0), C=ht.sensors.Gaussian("C", sd=0.2))
    with pytest.raises(DeclarationError, match="nothing to infer"):
        ht.personalize(known, person, key=0, progress=False)

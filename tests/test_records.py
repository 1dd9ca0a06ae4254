"""Records: what a table says is what a model gets, in the model's own units, and nothing disappears silently."""

import csv
import gzip
from types import SimpleNamespace

import numpy as np
import pytest

from hybridtwin.errors import AmbiguousTime, EmptyRecord, MissingColumn, MissingUnit, MissingValue, RecordError
from hybridtwin.records import Cohort, Person, Series
from hybridtwin.signals import Clock, Dose, Regimen, Signal


def dose(unit, cmt=None, into="depot"):
    return SimpleNamespace(unit=unit, cmt=cmt, into=into, spread=None)


def field(unit, default=None):
    return SimpleNamespace(unit=unit, default=default)


GLUCOSE = SimpleNamespace(
    time="min",
    doses={"meal": dose("g", into="gut"), "bolus": dose("m[IU]", into="sc")},
    signals={"basal": field("m[IU]/min", 0.0)},
    covariates={"weight": field("kg", 70.0)},
)
PK = SimpleNamespace(
    time="h",
    doses={"oral": dose("mg", 1), "iv": dose("mg", 2, "central")},
    signals={},
    covariates={"weight": field("kg")},
    name="PK",
    routed={"oral": ("lag", "duration"), "iv": ("duration",)},
)
UNITS = {"cgm": "mmol/L", "meal": "g", "bolus": "[IU]", "basal": "[IU]/h"}
WIDE = """time,cgm,meal,bolus,note,basal
2026-03-24 07:00,LOW,,,she slept,0.8

2026-03-24 07:05,5.5,,4,,
2026-03-24 12:00,>22.2,?,,,
2026-03-24 12:00,,30,,,0.9
"""


@pytest.fixture
def wide(tmp_path):
    path = tmp_path / "anna.csv"
    path.write_text(WIDE)
    return path


def anna(table, **options):
    given = {"units": UNITS, "tz": "Europe/Rome", "below": {"cgm": 2.2}} | options
    return Person.from_csv(table, **given)


# ----------------------------------------------------------------------------------------- tidy tables


def test_a_wide_table_becomes_readings_doses_and_a_basal_rate(wide):
    bound = anna(wide).bind(GLUCOSE, {"cgm": "mg/dL"})
    cgm = bound.readings["cgm"]
    np.testing.assert_allclose(cgm.value, np.array([2.2, 5.5, 22.2]) * 18.0156)
    np.testing.assert_array_equal(cgm.censored, [-1, 0, 1])
    np.testing.assert_array_equal(cgm.time, [420.0, 425.0, 720.0])
    np.testing.assert_array_equal(cgm.row, [1, 3, 4])
    assert np.isnan(cgm.limit[1]) and cgm.limit[2] == cgm.value[2]
    assert [d.amount for d in bound.inputs["bolus"]] == [4000.0]
    assert bound.inputs["basal"](719.0) == pytest.approx(800 / 60) and bound.inputs["basal"](720.0) == pytest.approx(15)
    assert (bound.start, bound.stop, bound.clock.unit) == (420.0, 720.0, "min")


def test_an_unknown_amount_is_latent_and_never_zero(wide):
    bound = anna(wide, missing={"meal": (45.0, 0.6)}).bind(GLUCOSE, {"cgm": None})
    (event,) = bound.latent
    assert (event.input, event.index, event.median, event.amount_sd, event.missing) == ("meal", 0, 45.0, 0.6, True)
    assert [d.latent for d in bound.inputs["meal"]] == [0, None]
    by_habit = anna(wide).bind(GLUCOSE, {"cgm": None}).latent[0]
    assert (by_habit.median, by_habit.amount_sd) == (30.0, 0.5)  # around her other meals
    with pytest.raises(MissingValue, match="missing=") as caught:
        Person.from_csv({"time": [0.0, 1.0], "meal": ["?", None], "cgm": [100, 110]}, time="h",
                        units={"meal": "g", "cgm": "mg/dL"}).bind(GLUCOSE, {"cgm": None})
    assert caught.value.row == 1


def test_everything_that_was_done_is_told(wide):
    person = anna(wide)
    text = repr(person)
    for said in ("Tue 24 Mar 07:00 to Tue 24 Mar 12:00", "2.2 to 22.2 mmol/L", "censored 1 low, 1 high",
                 "1 of unknown amount", "row 2: a blank row. Delete it", "left out: note"):
        assert said in text, text
    assert len(text.splitlines()) <= 25
    assert "<svg" in person._repr_html_() and "anna" not in person._repr_html_()
    told = [str(n) for n in person.bind(GLUCOSE, {"cgm": "mg/dL"}).notes]
    assert "column 'cgm': mmol/L to mg/dL, x 18.0156" in told
    assert "column 'bolus': [IU] to m[IU], x 1000" in told
    assert any("not in the record, taken as 70 kg" in line for line in told)


def test_semicolons_decimal_commas_a_byte_order_mark_and_gzip_are_read(tmp_path, wide):
    text = WIDE.replace(",", ";").replace(".", ",")
    excel, packed = tmp_path / "excel.csv", tmp_path / "packed.csv.gz"
    excel.write_text("\ufeff" + text, encoding="utf-8")
    packed.write_bytes(gzip.compress(WIDE.encode()))
    assert anna(excel).hash() == anna(wide).hash() == anna(packed).hash()


def test_frames_and_dicts_are_read_like_files(wide):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    with open(wide) as stream:
        rows = [row for row in csv.DictReader(stream) if row["time"]]
    columns = {name: [row[name] or None for row in rows] for name in rows[0]}
    expected = anna(columns).hash()
    assert anna(polars.DataFrame(columns)).hash() == expected
    assert anna(pandas.DataFrame(columns)).hash() == expected
    frame = pandas.DataFrame(columns).assign(time=pandas.to_datetime(columns["time"]))
    frame["meal"] = ["", "", "?", 30.0]
    assert anna(frame).hash() == expected


def test_a_long_table_carries_units_durations_and_doubt():
    table = {
        "time": ["2026-03-24T07:00+01:00"] * 2 + ["2026-03-24T08:00+01:00"] * 3 + ["2026-03-24T09:00+01:00"],
        "variable": ["cgm", "meal", "cgm", "meal", "bolus", "cgm"],
        "value": [5.5, 40, 120, None, 4, "<4.0"],
        "unit": ["mmol/L", "g", "mg/dL", "g", "", "mmol/L"],
        "duration": [None, "10 min", None, None, None, None],
        "amount_sd": [None, 0.3, None, None, None, None],
        "time_sd": [None, "15 min", None, None, None, None],
    }
    person = Person.from_csv(table, units={"bolus": "[IU]"})
    assert person.series["cgm"].unit == "mmol/L"
    np.testing.assert_allclose(person.series["cgm"].value, [5.5, 120 / 18.0156, 4.0])
    assert any(n.kind == "conversion" and "mg/dL to mmol/L" in n.text for n in person.notes)
    bound = person.bind(GLUCOSE, {"cgm": "mg/dL"})
    first, second = bound.inputs["meal"].doses
    assert (first.amount, first.duration, first.amount_sd, first.time_sd) == (40.0, 10.0, 0.3, 15.0)
    assert [e.missing for e in bound.latent] == [False, True] and second.latent == 1


def test_one_record_serves_rival_models(wide):
    other = SimpleNamespace(time="h", doses={"bolus": dose("[IU]")}, signals={}, covariates={})
    bound = anna(wide).bind(other, {"cgm": None})
    assert set(bound.inputs) == {"bolus"} and bound.stop == 12.0
    left = {n.column for n in bound.notes if n.kind == "left out"}
    assert {"meal", "basal"} <= left


def test_sensor_sessions_are_numbered():
    person = Person.from_csv({"time": [0, 5, 10, 15], "cgm": [100, 101, 102, 103], "session": ["a", "a", "b", ""]},
                             units={"cgm": "mg/dL"}, time="min")
    np.testing.assert_array_equal(person.bind(GLUCOSE, {"cgm": None}).readings["cgm"].session, [0, 0, 1, 1])


def test_a_zero_is_no_dose_and_that_is_told():
    bound = Person.from_csv({"time": [0, 5], "cgm": [100, 101], "bolus": [0, 2]}, time="min",
                            units={"cgm": "mg/dL", "bolus": "[IU]"}).bind(GLUCOSE, {"cgm": None})
    assert len(bound.inputs["bolus"]) == 1
    assert any("amount 0" in n.text for n in bound.notes)


def test_the_clock_change_lengthens_the_record():
    person = Person.from_csv({"time": ["2026-03-28 23:00", "2026-03-29 05:00"], "cgm": [100, 101]}, tz="Europe/Rome",
                             units={"cgm": "mg/dL"})
    assert person.clock.stop - person.clock.start == 5 * 60.0  # 02:00 to 03:00 did not happen
    assert person.bind(GLUCOSE, {"cgm": None}).occasion_edges("day") == [1440.0]


# -------------------------------------------------------------------------------------------- programs


def subject(**options):
    given = {
        "doses": {"oral": Regimen.bolus(0.1, "g", at="1 h").every("12 h", times=2)},
        "covariates": {"weight": (70000, "g")},
        "readings": {"C": ([0, 60, 780.0], [1, 2, 3.0], "mg/L")},
        "time": "min",
        "stop": "24 h",
    }
    return Person.of("anna", **given | options)


def test_a_record_from_values_in_memory():
    bound = subject().bind(PK, {"C": "mg/dL"})
    assert [(d.time, d.amount) for d in bound.inputs["oral"]] == [(1.0, 100.0), (13.0, 100.0)]
    assert bound.inputs["weight"](5.0) == 70.0 and len(bound.inputs["iv"]) == 0
    np.testing.assert_allclose(bound.readings["C"].value, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(bound.readings["C"].time, [0.0, 1.0, 13.0])
    assert (bound.start, bound.stop, bound.n_readings) == (0.0, 24.0, 3)
    assert bound.readings["C"].value.dtype == np.float64
    trough = bound.readings["C"].order[2]
    assert all(trough < d.order for d in bound.inputs["oral"])  # a reading before a dose at an equal time


def test_records_with_an_origin_take_clock_text():
    clock = Clock("2026-03-24 00:00", "Europe/Rome", "h")
    person = Person.of("b", time=clock, start="2026-03-24 07:00", stop="2026-03-25 07:00",
                       doses={"oral": Regimen.bolus(5, "mg", at="12:10")}, readings={"C": (["12:00"], [1.0], "mg/L")},
                       covariates={"weight": (70, "kg")})
    bound = person.bind(PK, {"C": None})
    assert bound.inputs["oral"].doses[0].time == pytest.approx(12 + 1 / 6)
    assert bound.readings["C"].time[0] == 12.0 and bound.clock.label(12.0) == "Tue 24 Mar 12:00"
    assert len(person.days) == 2 and bound.occasion_edges("day") == [24.0]


def test_hashes_tell_records_apart():
    assert subject().hash() == subject().hash()
    others = [subject(stop="25 h"), subject(covariates={"weight": (71, "kg")}),
              subject(readings={"C": ([0, 60, 780.0], [1, 2, 3.1], "mg/L")}), subject().without("oral"),
              subject().between(0, 90, readings_only=True)]
    assert len({p.hash() for p in [subject(), *others]}) == 6


def test_cutting_keeps_or_cuts_the_inputs():
    cut, known = subject().between(0, 90), subject().between(0, 90, readings_only=True)
    assert len(cut.bind(PK, {"C": None}).inputs["oral"]) == 1 and cut.clock.stop == 90.0
    bound = known.bind(PK, {"C": None})
    assert len(bound.inputs["oral"]) == 2 and bound.n_readings == 2 and bound.stop == 24.0
    assert "readings used" in repr(known)


def test_readings_can_be_added():
    more = subject().with_readings({"C": (["26 h"], [0.004], "g/L"), "E": ([30.0], [1.0], "1")})
    bound = more.bind(PK, {"C": None, "E": None})
    assert bound.readings["C"].value[-1] == pytest.approx(4.0) and bound.stop == 26.0
    assert subject().bind(PK, {"C": None}).n_readings == 3  # the first record is as it was


def test_records_do_not_change():
    person = subject()
    with pytest.raises(TypeError):
        person.series["C"] = None
    with pytest.raises(AttributeError):
        person.id = "b"
    with pytest.raises(MissingColumn, match="has no 'X'"):
        person.without("X")


def test_uncertain_doses_are_listed_with_their_place():
    doses = Regimen((Dose(1.0, 100.0, amount_sd=0.2), Dose(2.0, 50.0), Dose(3.0, None, prior=(80.0, 0.4))), "mg")
    bound = subject(doses={"oral": doses}, time="h").bind(PK, {"C": None})
    assert [(e.index, e.median, e.missing) for e in bound.latent] == [(0, 100.0, False), (2, 80.0, True)]


def test_a_covariate_may_change_only_in_a_stated_way():
    table = {"time": [0, 1, 2], "weight": [70, 71, 72], "C": [1, 2, 3]}
    options = {"units": {"weight": "kg", "C": "mg/L"}, "time": "h"}
    with pytest.raises(MissingValue, match="LOCF") as caught:
        Person.from_csv(table, **options).bind(PK, {"C": None})
    assert caught.value.column == "weight"
    forward = Person.from_csv(table, covariates="LOCF", **options).bind(PK, {"C": None}).inputs["weight"]
    backward = Person.from_csv(table, covariates="NOCB", **options).bind(PK, {"C": None}).inputs["weight"]
    np.testing.assert_array_equal(forward([-1, 0.5, 1.0, 5]), [70, 70, 71, 72])
    np.testing.assert_array_equal(backward([-1, 0.5, 1.0, 5]), [70, 71, 72, 72])


def test_a_missing_covariate_is_asked_for():
    with pytest.raises(MissingColumn, match="weight"):
        subject(covariates={}).bind(PK, {"C": None})
    grows = subject(covariates={"weight": Signal.steps([0.0, 60.0], [70, 80], "kg")})
    assert grows.bind(PK, {}).inputs["weight"](1.0) == 80.0


def test_occasions_the_record_does_not_know_are_refused():
    with pytest.raises(RecordError, match="menstrual"):
        subject().bind(PK, {}).occasion_edges("menstrual cycle")


def test_a_repr_tells_gaps_and_coverage_by_day():
    t = np.arange(0, 3 * 1440, 15.0)
    t = t[(t < 1500) | (t > 2400)]
    person = Person.of("g", time=Clock("2026-01-05 00:00", "UTC", "min"), readings={"cgm": (t, 100 + t % 50, "mg/dL")})
    assert "1 gap, longest 15.5 h from Tue 06 Jan 00:45" in repr(person)
    assert "by day |█▃█|" in repr(person)


# -------------------------------------------------------------------------------------------- NONMEM

EVENTS = {
    "ID": [1] * 7, "TIME": [-1, 0, 0, 8, 8, 0, 1], "DV": [0.5, ".", ".", 2.0, ".", ".", 1.0],
    "AMT": [".", 100, 50, ".", 100, 20, "."], "EVID": [0, 1, 1, 0, 1, 4, 0], "CMT": [2, 1, 2, 2, 1, 1, 2],
    "RATE": [0, 0, 25, 0, -2, 0, 0], "II": [0, 12, 0, 0, 0, 0, 0], "ADDL": [0, 3, 0, 0, 0, 0, 0], "weight": [70] * 7,
    "OCC": [1, 1, 1, 1, 1, 2, 2],
}
EVENT_UNITS = {"TIME": "h", "AMT": "mg", "DV": "mg/L", "weight": "kg"}


def test_events_mean_what_nonmem_says_they_mean():
    person = Person.from_nonmem(EVENTS, units=EVENT_UNITS, readings="C")
    bound = person.bind(PK, {"C": None})
    # time goes back to 0 at the reset: what follows is laid 8 h later, and that is told
    np.testing.assert_array_equal(bound.readings["C"].time, [-1.0, 8.0, 9.0])
    assert any("time goes back at this reset" in n.text and n.row == 6 for n in bound.notes)
    oral, iv = bound.inputs["oral"].doses, bound.inputs["iv"].doses
    # the repeats of the first dose at 12, 24, 36 h fall behind the reset, which drops them
    assert [(d.time, d.amount) for d in oral] == [(0.0, 100.0), (8.0, 100.0), (8.0, 20.0)]
    assert [d.modelled for d in oral] == [None, "duration", None]
    assert [(d.time, d.rate) for d in iv] == [(0.0, 25.0)]
    ((reset, rank),) = bound.resets
    assert reset == 8.0 and oral[1].order < rank < oral[2].order
    trough = bound.readings["C"].order[1]
    assert trough < oral[1].order  # drawn before the dose of the same time
    assert bound.occasion_edges("occasion") == [8.0]


def test_repeats_that_no_reset_drops_stay_inside_the_record():
    table = {"TIME": [0, 30], "DV": [".", 1], "AMT": [100, "."], "II": [12, 0], "ADDL": [3, 0], "SS": [1, 0]}
    bound = Person.from_nonmem(table, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"}, readings="C").bind(
        SimpleNamespace(time="min", doses={"iv": dose("mg")}, signals={}, covariates={}), {"C": None})
    assert [(d.time, d.ss, d.ii) for d in bound.inputs["iv"]] == [(0.0, 1, 720.0), (720.0, 0, 0.0), (1440.0, 0, 0.0)]
    assert any("after the end of the record" in n.text for n in bound.notes)


def test_censored_rows_and_rejected_rows():
    table = {"time": [0, 1, 2, 3], "dv": [9.0, 0.1, 5.0, 7.0], "amt": [0] * 4, "cens": [-1, 1, 0, 0],
             "mdv": [0, 0, 1, 0], "limit": [".", 0, ".", "."]}
    person = Person.from_nonmem(table, units={"time": "h", "dv": "mg/L"})
    c = person.bind(SimpleNamespace(time="h", doses={}, signals={}, covariates={}), {"C": None}).readings["C"]
    np.testing.assert_array_equal(c.censored, [1, -1, 0])
    np.testing.assert_array_equal(c.limit, [9.0, 0.1, np.nan])
    np.testing.assert_array_equal(c.other, [np.nan, 0.0, np.nan])
    assert [(n.row, n.remedy) for n in person.notes if n.kind == "rejected"] == [(3, "Set MDV to 0 to use it")]


def test_dates_and_clock_times():
    table = {"DATE": ["2026-03-28", "2026-03-29"], "TIME": ["23:00", "05:00"], "DV": [1, 2], "AMT": [0, 0]}
    units = {"TIME": "h", "DV": "mg/L"}
    assert np.ptp(Person.from_nonmem(table, units=units).series["DV"].time) == 6.0
    rome = Person.from_nonmem(table, units=units, tz="Europe/Rome")
    assert np.ptp(rome.series["DV"].time) == 5.0 and rome.clock.label(rome.clock.start) == "Sat 28 Mar 23:00"
    with pytest.raises(AmbiguousTime, match="swapped"):
        Person.from_nonmem(table | {"DATE": ["03/04/26", "04/04/26"]}, units=units)


def test_a_covariate_of_the_system_that_has_no_unit_is_named():
    person = Person.from_nonmem(EVENTS, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"}, readings="C")
    with pytest.raises(MissingUnit, match="'weight'"):
        person.bind(PK, {"C": None})


# ------------------------------------------------------------------------------------------ real tables


def test_warfarin(shared_data):
    cohort = Cohort.from_nonmem(
        shared_data("pkpd/warfarin_pkpd.csv"),
        rename={"time_h": "TIME", "amt_mg": "AMT", "wt_kg": "weight", "age_y": "age"},
        units={"TIME": "h", "AMT": "mg", "cp": "mg/L", "pca": "%", "weight": "kg", "age": "a"},
        dvid={"cp": "cp", "pca": "pca"}, categories={"sex": {"male": 0, "female": 1}})
    assert len(cohort) == 32
    assert sum(len(p.series["cp"]) for p in cohort.values()) == 251
    assert sum(len(p.series["pca"]) for p in cohort.values() if "pca" in p.series) == 232
    bound = cohort[1].bind(PK, {"cp": "ug/L", "pca": None})
    assert bound.inputs["oral"].doses[0].amount == 100.0 and bound.inputs["weight"](0.0) == 66.7
    assert bound.readings["cp"].value[1] == 1900.0
    assert list(cohort.subset([3, 1])) == ["3", "1"] and "32 people" in repr(cohort)


def test_phenobarbital(shared_data):
    cohort = Cohort.from_nonmem(
        shared_data("pkpd/phenobarbital_neonates.csv"),
        rename={"time_h": "TIME", "amt_mg": "AMT", "dv_ug_per_mL": "DV"},
        units={"TIME": "h", "AMT": "mg", "DV": "ug/mL", "wt_kg": "kg"}, readings="C")
    assert len(cohort) == 59 and sum(len(p.series["C"]) for p in cohort.values()) == 155
    assert [n.column for n in cohort["1"].notes if n.kind == "no unit"] == ["apgar"]


def test_the_table_of_dosing_truths(shared_data):
    path = shared_data("pkpd/nonmem_dosing_truth.csv.gz")
    cohort = Cohort.from_nonmem(path, rename={"cp": "DV"}, units={"TIME": "h", "AMT": "mg", "DV": "ug/L"}, readings="C")
    assert len(cohort) == 36
    spec = SimpleNamespace(time="h", doses={"depot": dose("mg", 1), "iv": dose("mg", 2, "central")}, signals={},
                           covariates={}, routed={"depot": ("duration",), "iv": ("duration",)})
    bound = {name: person.bind(spec, {"C": None}) for name, person in cohort.items()}
    assert bound["20"].resets == ((50.0, 4 * 51),)
    assert [d.modelled for d in bound["5"].inputs["iv"]] == ["duration"]
    assert [(d.time, d.ss) for d in bound["12"].inputs["iv"]][:3] == [(0.0, 1), (6.0, 0), (12.0, 0)]


def test_theophylline_in_memory(shared_data):
    with open(shared_data("pkpd/theophylline.csv")) as stream:
        rows = [r for r in csv.DictReader(stream) if r["id"] == "1"]
    mg = float(rows[0]["wt_kg"]) * float(rows[0]["dose_mg_per_kg"])
    samples = ([float(r["time_h"]) for r in rows], [float(r["conc_mg_per_L"]) for r in rows], "mg/L")
    person = Person.of("1", doses={"oral": Regimen.bolus(mg, "mg", at=0.0)}, covariates={"weight": (79.6, "kg")},
                       readings={"C": samples})
    bound = person.bind(PK, {"C": None})
    assert bound.readings["C"].order[0] < bound.inputs["oral"].doses[0].order
    assert bound.readings["C"].value[0] == 0.74


def test_virtual_patients_with_sensor_noise(shared_data):
    cohort = Cohort.from_csv(
        shared_data("glucose/uva_padova/noisy_cgm_3days.csv.gz"), id="patient", time="min",
        rename={"t_min": "time", "cgm_mg_per_dL": "cgm"}, units={"cgm": "mg/dL", "true_sc_glucose_mg_per_dL": None})
    assert len(cohort) == 6
    assert all(len(p.days) == 3 and list(p.series) == ["cgm"] for p in cohort.values())


def test_a_series_knows_its_columns():
    with pytest.raises(TypeError, match="no column 'colour'"):
        Series.of([0.0], [1.0], "mg", colour=[1])
    with pytest.raises(EmptyRecord):
        Person.of("nobody")


def test_covariates_and_uncertainty_are_added_to_a_record_that_was_read():
    table = {"time": [0, 1, 5], "iv": [100, None, None], "C": [None, 2.0, 1.0]}
    read = Person.from_csv(table, units={"iv": "mg", "C": "mg/L"}, time="h", id="a")
    person = read.with_covariates(weight=(70_000, "g")).uncertain("iv", 0.3, "15 min")
    assert person.covariates["weight"](3.0) == 70_000 and "weight" not in read.covariates
    assert person.series["iv"].amount_sd[0] == 0.3 and person.series["iv"].time_sd[0] == 0.25
    assert person.hash() != read.hash()
    with pytest.raises(MissingUnit):
        read.with_covariates(weight=70)
    with pytest.raises(MissingColumn):
        read.uncertain("oral", 0.3)

"""Units: what is read, what is refused, and that factors are exact."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hybridtwin import units
from hybridtwin.errors import MissingUnit, UnitError
from hybridtwin.outcomes import signed
from hybridtwin.units import ONE, convert, factor, parse, plain, plausible, time_factor


@pytest.mark.parametrize(
    ("text", "scale", "dims"),
    [
        ("mg/L", 1.0, {"mass": 1, "length": -3}),
        ("mg/dL", 10.0, {"mass": 1, "length": -3}),
        ("ug/mL", 1.0, {"mass": 1, "length": -3}),
        ("µg/ml", 1.0, {"mass": 1, "length": -3}),
        ("[IU]/h", 1 / 3600, {"IU": 1, "time": -1}),
        ("m[IU]/L", 1.0, {"IU": 1, "length": -3}),
        ("mIU/L", 1.0, {"IU": 1, "length": -3}),
        ("mEq/L", 1.0, {"Eq": 1, "length": -3}),
        ("bpm", 1 / 60, {"time": -1}),
        ("/min", 1 / 60, {"time": -1}),
        ("%", 0.01, {}),
        ("", 1.0, {}),
        ("1", 1.0, {}),
        ("10*9/L", 1e12, {"length": -3}),
        ("10^9/L", 1e12, {"length": -3}),
        ("mmHg*s/mL", 133322.387415 / 1e-6, {"mass": 1, "length": -4, "time": -1}),
        ("kcal/d", 4184e3 / 86400, {"mass": 1, "length": 2, "time": -3}),
        ("(mg/L)/(mmol/L)", 1.0, {"mass": 1, "amount": -1}),
        ("m2", 1.0, {"length": 2}),
        ("5 g/min", 5 / 60, {"mass": 1, "time": -1}),
    ],
)
def test_reads_clinical_units(text, scale, dims):
    unit = parse(text)
    assert dict(unit.dims) == dims
    assert math.isclose(unit.scale, scale, rel_tol=1e-12)


@pytest.mark.parametrize("text", ["mL/min/{1.73_m2}", "mL/min/1.73 m^2", "mL/min/1.73m2", "mL/min/(1.73 m**2)"])
def test_indexed_clearance_is_neither_an_area_nor_a_plain_clearance(text):
    unit = parse(text)
    assert dict(unit.dims) == {"length": 3, "time": -1, "bsa": -1}
    assert not unit.same_dimension(parse("mL/min"))
    assert not unit.same_dimension(parse("mL/min/m^2"))


@pytest.mark.parametrize("text", ["U", "mU", "U/h", "µU/mL", "units", "units/h"])
def test_bare_enzyme_unit_is_refused(text):
    with pytest.raises(UnitError, match=r"write \[IU\]"):
        parse(text)


@pytest.mark.parametrize("text", ["foo", "mg//L", "mg/", "*mg", "(mg/L", "mg/L)", "m^x", "-1 mg", "mg/d!"])
def test_unreadable_units_are_named_errors(text):
    with pytest.raises(UnitError):
        parse(text)


def test_missing_unit():
    with pytest.raises(MissingUnit):
        parse(None)
    with pytest.raises(UnitError):
        parse(70)


def test_units_are_values():
    assert parse("mg/L") == parse("ug/mL") and hash(parse("mg/L")) == hash(parse("ug/mL"))
    assert (parse("1/h") * parse("mg")).text == "mg/h"
    assert (parse("L/h") / parse("L")).text == "1/h"
    assert parse("mg/L") / parse("mg/L") == ONE and ONE.dimensionless
    assert (parse("m^2") ** 0.5) == parse("m")
    assert (parse("dL") ** 0.5).matches(parse("mL") ** 0.5 * parse("100") ** 0.5)


def test_factors_are_exact():
    assert factor("mg/dL", "mg/L") == 10.0
    assert factor("mg/L", "mg/dL") == 0.1
    assert factor("[IU]/h", "m[IU]/min") == 1000 / 60
    assert time_factor("h", "min") == 60.0 and time_factor("d", "h") == 24.0
    assert factor("lb", "kg") == pytest.approx(0.45359237)  # read by pint
    with pytest.raises(UnitError):
        time_factor("mg", "h")


def test_substance_links_mass_amount_activity_and_charge():
    assert factor("mmol/L", "mg/dL", of="glucose") == 18.0156
    assert convert(100.0, "mg/dL", "mmol/L", of="glucose") == pytest.approx(5.5507, abs=1e-4)
    assert factor("[IU]", "nmol", of="insulin") == pytest.approx(6.0)
    assert factor("u[IU]/mL", "pmol/L", of="insulin") == pytest.approx(6.0)
    assert factor("mEq/L", "mmol/L", of="calcium") == 0.5
    with pytest.raises(UnitError, match="of="):
        factor("mg/dL", "mmol/L")
    with pytest.raises(UnitError, match="glucose"):
        factor("mg/dL", "mmol/L", of="glucos")
    with pytest.raises(UnitError):
        factor("mg", "mL", of="glucose")


def test_temperature_has_an_offset():
    assert convert(98.6, "degF", "degC") == pytest.approx(37.0)
    assert convert(37.0, "degC", "K") == pytest.approx(310.15)
    with pytest.raises(UnitError, match="offset"):
        factor("degF", "degC")


def test_plausible_ranges_follow_the_unit():
    assert plausible("cgm") == (10, 1000)
    assert plausible("cgm", "mmol/L") == pytest.approx((0.555, 55.5), rel=1e-3)
    assert plausible("weight", "lb") == pytest.approx((0.661, 882), rel=1e-3)
    assert plausible("meal", "g") == (0, 500) and plausible("basal", "[IU]/h") == (0, 20)
    assert plausible("no such series") is None


def test_pint_is_not_loaded_for_clinical_units():
    code = (
        "import sys; from hybridtwin.units import parse; parse('m[IU]/L'); parse('mL/min/{1.73_m2}'); "
        "assert 'pint' not in sys.modules"
    )
    root = str(Path(units.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})


READ = {1250.0: "1250", -34567.0: "-34600", 0.01234: "0.0123", 999.9: "1000", 1e-6: "1e-06", 2.5e8: "2.5e+08", 0.0: "0"}


@pytest.mark.parametrize(("x", "told"), [*READ.items(), (float("inf"), "inf")])
def test_numbers_for_a_reader_have_no_exponent_where_one_is_misread(x, told):
    assert plain(x) == told


def test_a_dose_of_more_than_a_thousand_is_written_out():
    assert signed(1250.0) == "+1250" and signed(-1250.0) == "-1250" and signed(-0.0) == "0" and plain(1234.0, 6) == "1234"
    assert plain(15.8, 1) == "20"

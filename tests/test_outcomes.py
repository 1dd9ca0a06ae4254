"""Outcomes against closed forms, on trajectories made by hand."""

import numpy as np
import pytest

from hybridtwin import outcomes
from hybridtwin.clock import Clock
from hybridtwin.errors import AmbiguousTime, DeclarationError, InterventionError, PastHorizon, UnitError, UnknownTarget
from hybridtwin.simulate.trajectory import Trajectory

CLOCK = Clock("2026-03-24T00:00+01:00", "Europe/Rome", "min", 0.0, 1440.0)


def curve(time, *draws, name="G", unit="mg/dL", clock=CLOCK, failed=None):
    values = np.array(draws, float)
    lost = np.zeros(len(draws), bool) if failed is None else np.array(failed)
    return Trajectory(np.array(time, float), {name: values}, {name: unit}, clock, np.zeros(len(draws), int), lost, 0.0)


TENT = curve([0, 600, 720, 1440], [100, 100, 220, 100], [50, 50, 50, 50])  # up 1 mg/dL a min, then 1/6 down


def test_peak_and_nadir_take_the_ends_of_the_window_between_nodes():
    assert outcomes.peak("G", "10:00", "11:00").of(TENT) == pytest.approx([160, 50])
    assert outcomes.peak("G").of(TENT) == pytest.approx([220, 50])
    assert outcomes.nadir("G", "11:00", "16:00").of(TENT) == pytest.approx([160, 50])


def test_means_and_areas_are_weighted_by_time_not_by_node():
    whole = (100 * 600 + 160 * 120 + 160 * 720) / 1440
    assert outcomes.mean("G").of(TENT) == pytest.approx([whole, 50])
    assert outcomes.auc("G").of(TENT) == pytest.approx([whole * 24, 50 * 24])
    crowded = curve([0, 600, *np.linspace(600, 720, 50), 720, 1440],
                    [100, 100, *np.linspace(100, 220, 50), 220, 100], [50] * 54)
    assert outcomes.mean("G").of(crowded) == pytest.approx([whole, 50])
    assert outcomes.auc("G").settled(TENT).unit == "mg*h/dL"
    assert outcomes.auc("G", unit="mg*min/dL").of(TENT) == pytest.approx([whole * 1440, 50 * 1440])


def test_thresholds_are_crossed_inside_segments():
    above = (40 + 240) / 1440 * 100  # above 180: 680 to 720 going up, 720 to 960 coming down
    assert outcomes.time_above("G", 180, "mg/dL").of(TENT) == pytest.approx([above, 0])
    assert outcomes.time_below("G", 180, "mg/dL").of(TENT) == pytest.approx([100 - above, 100])
    assert outcomes.time_below("G", 70, "mg/dL").of(TENT) == pytest.approx([0, 100])
    assert outcomes.time_in_range("G", 70, 180, "mg/dL").of(TENT) == pytest.approx([100 - above, 0])
    assert outcomes.time_in_range("G", 70, 180, "mg/dL").settled(TENT).unit == "%"


def test_a_flat_curve_on_the_threshold_is_neither_above_nor_below():
    flat = curve([0, 1440], [70, 70])
    assert outcomes.time_below("G", 70, "mg/dL").of(flat) == 0
    assert outcomes.time_above("G", 70, "mg/dL").of(flat) == 0
    assert outcomes.time_in_range("G", 70, 180, "mg/dL").of(flat) == 100


def test_other_units_of_the_same_substance():
    k = 18.0156
    assert outcomes.peak("G", unit="mmol/L").of(TENT) == pytest.approx([220 / k, 50 / k])
    mg, mmol = outcomes.time_above("G", 10 * k, "mg/dL").of(TENT), outcomes.time_above("G", 10, "mmol/L").of(TENT)
    assert mg == pytest.approx(mmol)
    with pytest.raises(UnitError):
        outcomes.peak("G", unit="kg").of(TENT)


def test_jumps_at_the_ends_belong_to_the_window_that_starts_there():
    hours = Clock(unit="h", start=0.0, stop=24.0)
    drug = curve([0, 0, 12, 12, 24], [0, 10, 4, 14, 6], name="C", unit="mg/L", clock=hours)
    assert outcomes.trough("C", 0, 12).of(drug) == pytest.approx([4])
    assert outcomes.cmax("C", 0, 12).of(drug) == pytest.approx([10])
    assert outcomes.cmax("C", 12, 24).of(drug) == pytest.approx([14])
    assert outcomes.at("C", 12).of(drug) == pytest.approx([14])
    assert outcomes.at("C", 6).of(drug) == pytest.approx([7])
    assert outcomes.at("C", 24).of(drug) == pytest.approx([6])
    assert outcomes.nadir("C", 0, 12).of(drug) == pytest.approx([4])
    assert outcomes.auc("C").of(drug) == pytest.approx([7 * 12 + 10 * 12])
    assert outcomes.auc("C").settled(drug).unit == "mg*h/L"


def test_a_window_says_its_length_and_its_day():
    label = outcomes.time_below("G", 70, "mg/dL", "07:00", "12:00").settled(TENT).label
    assert label == "time of glucose below 70 mg/dL, Tue 24 Mar 07:00 to 12:00 (5 h)"
    assert outcomes.peak("G", "07:00", "12:00").settled(TENT).settled(TENT).label.count("07:00") == 1
    assert "at Tue 24 Mar 07:00" in outcomes.at("G", "07:00").settled(TENT).label


def test_windows_outside_the_trajectory_name_both():
    with pytest.raises(PastHorizon, match=r"Wed 25 Mar 07:00.*Tue 24 Mar 00:00 to Wed 25 Mar 00:00"):
        outcomes.peak("G", "2026-03-24 07:00", "2026-03-25 07:00").of(TENT)
    with pytest.raises(InterventionError, match="name the day"):
        outcomes.peak("G", "day 1 12:00", "07:00").of(TENT)
    with pytest.raises(AmbiguousTime, match="no day of the record whole"):
        outcomes.peak("G", "12:00", "07:00").of(TENT)  # a night that the record does not hold
    with pytest.raises(AmbiguousTime):
        outcomes.peak("C", "07:00").of(curve([0, 1], [1, 2], name="C", clock=Clock(unit="h", stop=1.0)))
    with pytest.raises(UnknownTarget, match="Outputs"):
        outcomes.peak("glucagon").of(TENT)


def test_failed_draws_stay_missing_and_in_their_place():
    broken = curve([0, 1440], [100, 120], [np.nan, np.nan], failed=[False, True])
    for outcome in (outcomes.peak("G"), outcomes.time_below("G", 70, "mg/dL"), outcomes.auc("G"), outcomes.mean("G")):
        found = outcome.of(broken)
        assert np.isfinite(found[0]) and np.isnan(found[1])


def test_which_way_is_better():
    assert outcomes.peak("G").better == "lower" and outcomes.nadir("G").better == "higher"
    assert outcomes.time_in_range("G", 70, 180, "mg/dL").better == "higher"
    assert outcomes.time_below("G", 70, "mg/dL").better == outcomes.time_above("G", 180, "mg/dL").better == "lower"
    assert outcomes.peak("C").better is outcomes.auc("C").better is outcomes.cmax("C").better is None
    assert outcomes.peak("C", better="higher").better == "higher" and outcomes.peak("G", better=None).better is None


def test_a_bare_function_is_refused_and_a_declared_one_is_not():
    with pytest.raises(DeclarationError, match="custom"):
        outcomes.as_outcome(lambda x: x["G"].max(axis=1))
    mine = outcomes.custom(lambda x: x["G"].max(axis=1), label="highest", unit="mg/dL", better="lower")
    assert outcomes.as_outcome(mine) is mine
    assert mine.settled(TENT).of(TENT) == pytest.approx([220, 50])
    with pytest.raises(DeclarationError, match="one number a draw"):
        outcomes.custom(lambda x: x["G"], label="all", unit="mg/dL", better=None).of(TENT)
    with pytest.raises(DeclarationError, match="better"):
        outcomes.peak("G", better="down")
    with pytest.raises(DeclarationError, match="empty"):
        outcomes.time_in_range("G", 180, 70, "mg/dL")


def test_the_harm_beside_the_benefit():
    harms = outcomes.harm_of(outcomes.peak("G", "07:00", "12:00"))
    found = [h.settled(TENT).label.split(",")[0] for h in harms]
    assert found == ["time of glucose below 70 mg/dL", "nadir of glucose"]
    assert all((h.start, h.stop) == ("07:00", "12:00") for h in harms)
    assert outcomes.harm_of(outcomes.peak("G", unit="mmol/L"))[0].label.endswith("3.9 mmol/L")
    assert outcomes.harm_of(outcomes.time_below("G", 70, "mg/dL"))[0].label == "time of glucose above 180 mg/dL"
    assert outcomes.harm_of(outcomes.nadir("G"))[0].label == "time of glucose above 180 mg/dL"
    assert outcomes.harm_of(outcomes.time_in_range("G", 70, 180, "mg/dL"))[0].label.startswith("time of glucose below")
    assert outcomes.harm_of(outcomes.at("G", "09:00"))[0].label.startswith("time of glucose below")
    assert [h.label for h in outcomes.harm_of(outcomes.trough("C"))] == ["highest C"]
    assert [h.label for h in outcomes.harm_of(outcomes.auc("C"))] == ["highest C"]
    assert outcomes.harm_of(outcomes.custom(lambda x: x, label="x", unit="1", better=None)) == ()


def test_every_outcome_is_a_value():
    assert outcomes.peak("G", 0, 5) == outcomes.peak("G", 0, 5) and hash(outcomes.peak("G", 0, 5))
    assert "lower is better" in str(outcomes.peak("G").settled(TENT))

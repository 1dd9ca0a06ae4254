"""Clock, doses, regimens and signals: what is said is what is meant, to the minute."""

from datetime import UTC, datetime

import numpy as np
import pytest

from hybridtwin.errors import (
    AmbiguousDose,
    AmbiguousTime,
    ImplausibleValue,
    InterventionError,
    MissingValue,
    NotANumber,
    TimeOrder,
    UnitError,
)
from hybridtwin.signals import Clock, Dose, Regimen, Signal

ROME = Clock("2026-03-28 00:00", "Europe/Rome", "min", start=420.0, stop=3600.0)  # Sat 07:00 to Mon 13:00


# ---------------------------------------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("moment", "minutes"),
    [
        (90, 90.0),
        (np.float64(90.5), 90.5),
        ("1.5 h", 90.0),
        ("now", 3600.0),
        ("start", 420.0),
        ("2026-03-28 11:30", 690.0),
        ("2026-03-28T11:30+00:00", 750.0),
        (datetime(2026, 3, 28, 10, 30, tzinfo=UTC), 690.0),
        ("day 1 07:00", 420.0),
        ("day 2", 1440.0),
        ("day 2 07:00", 1440.0 + 420.0 - 60.0),  # the clock was put forward at 02:00
        ("11:30", 2880.0 - 60.0 + 690.0),  # the last day on which it occurs
        ("23:00", 1440.0 + 1380.0 - 60.0),
    ],
)
def test_a_clock_reads_every_way_of_saying_when(moment, minutes):
    assert ROME.at(moment) == minutes


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        ("2026-03-29 02:30", "never"),
        ("2026-10-25 02:30", "twice"),
        ("25:00", "no time of a day"),
        ("soon", "cannot read"),
        ("24/03/2026", "cannot read"),
    ],
)
def test_a_clock_refuses_what_it_cannot_place(moment, reason):
    with pytest.raises(AmbiguousTime, match=reason):
        ROME.at(moment)


def test_a_bare_time_must_occur_in_the_record():
    short = Clock("2026-01-05 00:00", "Europe/Rome", "h", start=7.0, stop=9.0)
    assert short.at("08:15") == 8.25
    with pytest.raises(AmbiguousTime, match="no day of the record"):
        short.at("11:30")


def test_two_bare_times_are_of_one_day_or_night():
    two = Clock("2026-01-05 00:00", "Europe/Rome", "h", start=0.0, stop=34.0)  # to 10:00 of the second day
    assert two.window("06:00", "12:00", 0.0, 34.0) == (6.0, 12.0)  # the second day has no noon
    assert two.window("06:00", "09:00", 0.0, 34.0) == (30.0, 33.0)
    assert two.window("22:00", "06:00", 0.0, 34.0) == (22.0, 30.0)
    assert two.window("09:00", None, 0.0, 34.0) == (33.0, 34.0)
    short = Clock("2026-01-05 00:00", "Europe/Rome", "h", start=8.0, stop=31.0)
    with pytest.raises(AmbiguousTime, match="06:30 to 09:00 lies on no day"):
        short.window("06:30", "09:00", 8.0, 31.0)  # each occurs, on two days


def test_a_night_without_02_30_takes_the_last_day_that_has_one():
    assert ROME.spanning(0.0, 2000.0).at("02:30") == 150.0


def test_a_clock_without_origin_counts_only():
    clock = Clock(unit="h", start=0.0, stop=60.0)
    assert clock.at("90 min") == 1.5
    assert clock.midnights == [24.0, 48.0]
    assert clock.label(7.5) == "7.5 h"
    for moment in ("11:30", "day 2 07:00", "2026-03-24"):
        with pytest.raises(AmbiguousTime, match="elapsed time"):
            clock.at(moment)


def test_a_clock_needs_a_place_on_earth():
    with pytest.raises(AmbiguousTime, match="tz="):
        Clock("2026-03-28 00:00")
    with pytest.raises(AmbiguousTime, match="no time zone"):
        Clock("2026-03-28 00:00", "Europe/Roma")
    with pytest.raises(UnitError, match="unit of time"):
        Clock(unit="mg")
    with pytest.raises(MissingValue, match="NaN"):
        ROME.at(float("nan"))


def test_midnights_and_labels_follow_the_change_of_the_clock():
    assert ROME.midnights == [1440.0, 2820.0]  # Sunday has 23 hours
    assert ROME.label(ROME.at("day 2 07:00")) == "Sun 29 Mar 07:00"
    assert ROME.to("h").midnights == [24.0, 47.0]
    assert ROME.to("h").stop == 60.0


# ---------------------------------------------------------------------------------------------- doses


def test_a_regimen_is_resolved_into_the_units_of_whoever_asks():
    regimen = Regimen.bolus([4, 6], "[IU]", at=["day 1 07:30", "day 1 12:10"]) + Regimen.infusion(
        1000, "m[IU]", at="day 1 10:00", over="1 h"
    )
    found = regimen.resolve(ROME, "h", "m[IU]")
    assert [d.time for d in found] == [7.5, 10.0, pytest.approx(12 + 1 / 6)]
    assert [d.amount for d in found] == [4000.0, 1000.0, 6000.0]
    assert found.doses[1].duration == 1.0
    assert found.total == 11000.0
    assert found.resolve(ROME, "h", "m[IU]") == found


def test_repeats_are_written_out_and_steady_state_stays_with_the_first():
    doses = Regimen.bolus(100, "mg", at=0.0).every("12 h", times=3).steady(every="12 h")
    found = doses.resolve(Clock(unit="h"), "h", "mg").doses
    assert [d.time for d in found] == [0.0, 12.0, 24.0]
    assert [d.ss for d in found] == [1, 0, 0]
    assert [d.ii for d in found] == [12.0, 0.0, 0.0]
    assert len({d.order for d in found}) == 1


def test_rates_are_converted_and_an_amount_is_scaled_over_the_same_time():
    drip = Regimen.infusion(1.0, "g", at=0.0, rate="1 g/h")
    assert drip.resolve(Clock(unit="min"), "min", "mg").doses[0].rate == pytest.approx(1000.0 / 60.0)
    half = 0.5 * drip
    assert half.doses[0].amount == 0.5
    assert half.resolve(Clock(unit="h"), "h", "g").doses[0].rate == 0.5
    assert (0.5 * Regimen.infusion(1.0, "g", at=0.0, over="1 h")).doses[0].duration == "1 h"


def test_infusions_at_several_times():
    several = Regimen.infusion([100, 50], "mg", at=[0, 12], over="30 min")
    assert several == Regimen.infusion(100, "mg", at=0, over="30 min") + Regimen.infusion(50, "mg", at=12, over="30 min")
    assert [d.amount for d in Regimen.infusion(100, "mg", at=[0, 12], rate="1 g/h").doses] == [100, 100]
    for negative in (-0.5, "-30 min", float("nan")):
        with pytest.raises(ImplausibleValue, match="duration"):
            Regimen.infusion(100, "mg", at=0, over=negative).resolve(Clock(unit="h"), "h", "mg")
    with pytest.raises(AmbiguousDose, match="2 amounts at 3 times"):
        Regimen.infusion([1, 2], "mg", at=[0, 1, 2], over=1.0)


def test_doses_move_before_and_after_they_are_tied_to_a_record():
    before = Regimen.bolus(4, "[IU]", at="day 1 12:00").shift(-20, "min").resolve(ROME, "h", "[IU]")
    after = Regimen.bolus(4, "[IU]", at="day 1 12:00").resolve(ROME, "h", "[IU]").shift("-20 min")
    assert before.doses[0].time == pytest.approx(after.doses[0].time) == pytest.approx(11 + 2 / 3)
    with pytest.raises(UnitError, match="by how much"):
        Regimen.bolus(4, "[IU]", at=1.0).shift(-20)


def test_windows_are_half_open_and_complementary():
    doses = Regimen.bolus([1, 2, 3], "mg", at=[1.0, 2.0, 3.0])
    assert [d.time for d in doses.only(1.0, 3.0)] == [1.0, 2.0]
    assert [d.time for d in doses.without(1.0, 3.0)] == [3.0]
    lived = Regimen.bolus([1, 2], "mg", at=["day 1 08:00", "day 3 08:00"]).resolve(ROME, "min", "mg")
    assert [d.amount for d in lived.only("07:00", "09:00")] == [2]
    with pytest.raises(AmbiguousTime, match="not tied to a record"):
        Regimen.bolus(1, "mg", at="08:00").only("07:00", "09:00")


def test_taking_out_and_putting_back_changes_nothing():
    lived = Regimen.bolus([1, 2, 3], "mg", at=[1.0, 2.0, 3.0]).resolve(Clock(unit="h"), "h", "mg")
    assert lived.without(1.5, 2.5) + lived.only(1.5, 2.5) == lived


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Dose(0.0, -1.0), ImplausibleValue),
        (lambda: Dose(0.0, float("nan")), MissingValue),
        (lambda: Dose(0.0, "4"), NotANumber),
        (lambda: Dose(0.0, 1.0, addl=3), ImplausibleValue),
        (lambda: Dose(0.0, 1.0, ss=1), ImplausibleValue),
        (lambda: Dose(0.0, 1.0, rate=-3.0), ImplausibleValue),
        (lambda: Dose(0.0, 1.0, rate=3.0, duration=1.0), AmbiguousDose),
        (lambda: Regimen.infusion(1.0, "mg", at=0.0), AmbiguousDose),
        (lambda: Regimen.bolus([1.0, 2.0], "mg", at=[0.0, 1.0, 2.0]), AmbiguousDose),
        (lambda: Regimen.bolus(4.0, "U", at=0.0), UnitError),
        (lambda: Regimen.bolus(1.0, "mg", at=0.0) + Regimen.bolus(1.0, "mL", at=0.0), UnitError),
        (lambda: Regimen.bolus(1.0, "mg", at=0.0).every("8 h", times=2).every("1 d", times=2), InterventionError),
    ],
)
def test_doses_that_mean_nothing_are_refused(make, error):
    with pytest.raises(error):
        make()


def test_a_steady_infusion_that_ends_now_is_a_dose():
    assert Dose(0.0, 0.0, rate=25.0, ss=1).ss == 1


def test_a_regimen_shows_itself():
    text = repr(Regimen.bolus([4, None], "[IU]", at=["day 1 07:30", "day 1 12:10"]).resolve(ROME, "h", "[IU]"))
    assert "2 doses" in text and "1 of unknown amount" in text and "Sat 28 Mar 07:30  4 [IU]" in text
    assert repr(Regimen.none("mg")) == "Regimen: no dose (mg)"


# -------------------------------------------------------------------------------------------- signals


def test_steps_hold_from_their_time_on():
    basal = Signal.steps([0.0, 10.0, 20.0], [1.0, 3.0, 2.0], "[IU]/h")
    np.testing.assert_array_equal(basal([-5.0, 0.0, 9.999, 10.0, 25.0]), [1.0, 1.0, 1.0, 3.0, 2.0])
    np.testing.assert_array_equal(basal.knots, [10.0, 20.0])
    assert basal.integral(5.0, 25.0) == 5.0 + 30.0 + 10.0
    assert basal.integral(25.0, 5.0) == -45.0
    assert Signal.constant(2.0, "mg").knots.size == 0


def test_lines_are_flat_outside_their_points():
    ramp = Signal.linear([0.0, 10.0], [0.0, 1.0], "mg")
    np.testing.assert_allclose(ramp([-1.0, 5.0, 12.0]), [0.0, 0.5, 1.0])
    assert ramp.integral(-5.0, 20.0) == pytest.approx(15.0)
    np.testing.assert_array_equal(ramp.knots, [0.0, 10.0])


def test_sums_of_signals_are_exact_everywhere():
    a, b = Signal.linear([0.0, 10.0], [0.0, 1.0], "mg"), Signal.steps([3.0, 7.0], [2.0, 5.0], "mg")
    t = np.linspace(-2.0, 15.0, 351)
    for made, truth in [
        (a + b, a(t) + b(t)),
        (a - b, a(t) - b(t)),
        (0.5 * a + 1.0, 0.5 * a(t) + 1.0),
        (b + Signal.constant(1000.0, "ug"), b(t) + 1.0),
        (Signal.constant(1000.0, "ug") + b, 1000.0 + 1000.0 * b(t)),
    ]:
        np.testing.assert_allclose(made(t), truth, atol=1e-12)


@pytest.mark.parametrize("other", [Signal.constant(7.0, "mg"), Signal.linear([2.0, 9.0], [1.0, 4.0], "mg")])
@pytest.mark.parametrize("window", [(-3.0, -1.0), (2.0, 4.0), (0.0, 20.0), (12.0, 13.0)])
def test_a_splice_is_one_inside_and_the_other_outside(other, window):
    ramp = Signal.linear([0.0, 10.0], [0.0, 1.0], "mg")
    t = np.linspace(-5.0, 25.0, 601)
    inside = (t >= window[0]) & (t < window[1])
    np.testing.assert_allclose(ramp.within(*window, other)(t), np.where(inside, other(t), ramp(t)), atol=1e-12)


def test_a_signal_is_tied_to_a_record():
    basal = Signal.steps(["day 1 07:00", "day 2 08:00"], [1.0, 0.5], "[IU]/h")
    with pytest.raises(AmbiguousTime, match="which day"):
        basal(0.0)
    bound = basal.shift("30 min").resolve(ROME, "min", "m[IU]/min")
    np.testing.assert_allclose(bound.knots, [1440.0 + 480.0 - 60.0 + 30.0])
    assert bound("12:00") == pytest.approx(500.0 / 60.0)
    off = bound.within("day 2 10:00", "day 2 11:00", Signal.constant(0.0, "[IU]/h"))
    assert off("day 2 10:30") == 0.0 and off("day 2 11:00") == bound("day 2 11:00")
    assert bound.shift(10, "min")(bound.knots[0] + 10.0) == bound(bound.knots[0])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Signal.steps([0.0, 1.0], [1.0], "mg"), MissingValue),
        (lambda: Signal.constant(float("nan"), "mg"), MissingValue),
        (lambda: Signal.steps([1.0, 0.0], [1.0, 2.0], "mg"), TimeOrder),
        (lambda: Signal.constant(1.0, "mgg"), UnitError),
        (lambda: Signal.constant(1.0, "mg") + Signal.constant(1.0, "mL"), UnitError),
        (lambda: Signal.constant(1.0, "mg").within(3.0, 2.0, Signal.constant(1.0, "mg")), InterventionError),
    ],
)
def test_signals_that_mean_nothing_are_refused(make, error):
    with pytest.raises(error):
        make()

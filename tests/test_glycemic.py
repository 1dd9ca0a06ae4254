"""Glycemic measures: published examples, numbers by hand, plain NumPy of its own, and recordings of people."""

import csv
import gzip
import itertools
import re

import numpy as np
import pytest

import hybridtwin as ht
from hybridtwin import grammar, measures, outcomes
from hybridtwin.causal.contrast import Row
from hybridtwin.clock import Clock
from hybridtwin.errors import DeclarationError, MissingColumn, NoReadings, UnitError
from hybridtwin.glycemia import cautions
from hybridtwin.records import Series
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.system import Scalar, State, System, lognormal, output, parameter, state

# Bergenstal 2018, the table of mean glucose (mg/dL) and GMI (%)
GMI = {100: 5.7, 125: 6.3, 150: 6.9, 175: 7.5, 200: 8.1, 225: 8.7, 250: 9.3, 275: 9.9, 300: 10.5, 350: 11.7}


def recorded(values, every=5.0, unit="mg/dL", at=None, stop=None, **columns):
    """A record of readings `every` so many minutes from 0, or `at` these; it stops one spacing after the last."""
    at = every * np.arange(len(values)) if at is None else np.asarray(at, float)
    stop = at[-1] + every if stop is None else stop
    series = Series.of(at, values, unit, **columns)
    return ht.Person.of("anna", time="min", start=0.0, stop=stop, readings={"cgm": series})


def curve(time, *draws, name="G", unit="mg/dL"):
    n = len(draws)
    clock = Clock(unit="min", start=float(time[0]), stop=float(time[-1]))
    return Trajectory(np.array(time, float), {name: np.array(draws, float)}, {name: unit}, clock, np.zeros(n, int),
                      np.zeros(n, bool), 0.0)  # fmt: skip


@pytest.mark.parametrize(("mean", "published"), GMI.items())
def test_the_published_table_of_the_gmi(mean, published):
    found = ht.glycemic(recorded([mean - 20.0, mean + 20.0] * 4))
    assert round(found.gmi, 1) == published
    flat = curve([0, 60], [mean, mean])
    assert outcomes.gmi("G").of(flat) == pytest.approx([found.gmi])


def test_the_scale_of_risk_is_symmetric_between_20_and_600():
    """By construction 0 at 112.5 mg/dL, 100 at 20 and at 600, at 70 what it is at 180 (Kovatchev 1997), to its digits."""
    assert pytest.approx(112.5, abs=0.05) == measures.CENTER
    assert measures.risk(np.array([20.0, 600.0])) == pytest.approx([100.0, 100.0], abs=0.1)
    assert measures.risk(np.array([measures.CENTER])) == pytest.approx([0.0], abs=1e-20)
    one, other = measures.risk(np.array([70.0, 180.0]))
    assert one == pytest.approx(other, rel=0.01)
    found = ht.glycemic(recorded([20.0, 112.5, 112.5, 600.0]))
    assert (found.lbgi, found.hbgi) == (pytest.approx(25.0, abs=0.03), pytest.approx(25.0, abs=0.03))


def test_shares_and_the_risk_index_by_hand():
    """2, 4, 70, 14 and 10 of 100 readings in the five ranges: 3 * 2 + 2.4 * 4 + 1.6 * 10 + 0.8 * 14 = 42.8 (Klonoff 2022)."""
    found = ht.glycemic(recorded([50.0] * 2 + [54.0, 69.0] * 2 + [70.0, 180.0] * 35 + [181.0, 250.0] * 7 + [251.0] * 10))
    assert (found.below_54, found.below_70, found.in_range, found.above_180, found.above_250) == pytest.approx(
        (2, 6, 70, 24, 10)
    )
    assert found.gri == pytest.approx(42.8)
    assert ht.glycemic(recorded([50.0, 300.0] * 5)).gri == 100.0


def test_mean_and_variability_by_hand():
    found = ht.glycemic(recorded([100.0, 120.0, 140.0]))
    assert (found.mean, found.sd, found.cv) == pytest.approx((120.0, 20.0, 100 / 6))


def plain(value):
    """Everything but the episodes, reading by reading, mg/dL."""
    n, risks = len(value), {"low": 0.0, "high": 0.0}
    for g in value:
        f = 1.509 * (np.log(g) ** 1.084 - 5.381)
        risks["low" if f < 0 else "high"] += 10 * f * f / n
    part = {k: 100 * sum(t(g) for g in value) / n for k, t in {
        "below_54": lambda g: g < 54, "below_70": lambda g: g < 70, "in_range": lambda g: 70 <= g <= 180,
        "above_180": lambda g: g > 180, "above_250": lambda g: g > 250}.items()}  # fmt: skip
    gri = 3.0 * part["below_54"] + 2.4 * (part["below_70"] - part["below_54"])
    gri += 1.6 * part["above_250"] + 0.8 * (part["above_180"] - part["above_250"])
    mean, sd = np.mean(value), np.std(value, ddof=1)
    return {"mean": mean, "sd": sd, "cv": 100 * sd / mean, "gmi": 3.31 + 0.02392 * mean, "lbgi": risks["low"],
            "hbgi": risks["high"], "gri": min(100.0, gri), **part}  # fmt: skip


def counted(value, missing, beyond, needed, home):
    """Episodes by a pattern over the grid: `needed` beyond, then beyond with returns of fewer than `home`. `missing`: bool, on
    the grid."""
    text = "".join("g" if gone else "b" if out else "o" for out, gone in zip(beyond(value), missing, strict=True))
    text = re.sub(r"(?<!g)g{1,2}(?!g)", "", text)  # up to three spacings apart is no gap
    back = f"o{{1,{home - 1}}}b|" if home > 1 else ""
    return len(re.findall(f"b{{{needed}}}(?:{back}b)*", text))


def excursions_apart(pieces, sd):
    """MAGE the other way round: all turning points, of which the smallest move is taken out while it is not beyond one sd."""
    moves = []
    for piece in pieces:
        piece = [v for v, _ in itertools.groupby(piece)]  # a level stretch is one point
        turns = [v for k, v in enumerate(piece) if k in (0, len(piece) - 1) or (v - piece[k - 1]) * (piece[k + 1] - v) < 0]
        while len(turns) > 1:
            sizes = [abs(b - a) for a, b in itertools.pairwise(turns)]
            k = int(np.argmin(sizes))
            if sizes[k] > sd:
                break
            if len(turns) == 2:
                turns = turns[:1]
            elif k == 0:
                del turns[0]
            elif k == len(sizes) - 1:
                del turns[-1]
            else:
                del turns[k : k + 2]
        moves += list(np.diff(turns))
    if not moves:
        return np.nan
    return np.mean([abs(m) for m in moves if m * moves[0] > 0])


KINDS = {"below 70": (lambda g: g < 70, 3), "below 54": (lambda g: g < 54, 3), "above 180": (lambda g: g > 180, 3),
         "above 250": (lambda g: g > 250, 3), "extended below 70": (lambda g: g < 70, 25)}  # fmt: skip


def same(found, value, skip=()):
    for name, expected in plain(value).items():
        if name not in skip:
            assert getattr(found, name) == pytest.approx(expected, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("seed", range(4))
def test_against_plain_numpy(seed):
    rng = np.random.default_rng(seed)
    n = 20 * 288
    wave = 130 + 100 * np.sin(np.arange(n) / 25) + np.cumsum(rng.normal(0, 1.2, n)) % 60 + rng.normal(0, 6, n)
    value = np.round(np.clip(wave, 41, 399))
    missing = np.zeros(n, bool)
    for first in rng.choice(n - 200, 12, replace=False):
        missing[first : first + rng.integers(3, 60)] = True
    missing[[0, -1]] = False
    person = recorded(value[~missing], at=5.0 * np.flatnonzero(~missing))
    found = ht.glycemic(person)
    same(found, value[~missing])
    assert found.coverage == pytest.approx(100 * np.mean(~missing))
    assert found.days == pytest.approx(20.0)
    assert not found.warnings
    for kind, (beyond, needed) in KINDS.items():
        assert found.count(kind) == counted(value, missing, beyond, needed, 3), kind
        assert found.per_week(kind) == pytest.approx(found.count(kind) / (np.sum(~missing) / 288) * 7)
    assert min(found.count(kind) for kind in ("below 70", "below 54", "above 180", "above 250")) > 5
    gaps = [0, *(np.flatnonzero(np.diff(np.flatnonzero(~missing)) > 3) + 1), int(np.sum(~missing))]
    pieces = [value[~missing][a:b] for a, b in itertools.pairwise(gaps)]
    assert found.mage == pytest.approx(excursions_apart(pieces, found.sd)) and found.mage > found.sd


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oobboo", []),  # ten minutes are too short
        ("oobbbooo", [(10, 15, True)]),
        ("bbboobboooo", [(0, 35, True)]),  # ten minutes back do not end it
        ("bbbooobbooobbbb", [(0, 15, True), (55, 20, False)]),  # the second is under way at the end
        ("bbb....bbbooo", [(0, 15, False), (35, 15, True)]),  # what happened in a gap was not seen
        ("bb.bo", [(0, 25, False)]),  # one reading lost, and five minutes back at the end are not enough
    ],
)
def test_when_an_episode_begins_and_ends(text, expected):
    at = [5.0 * k for k, c in enumerate(text) if c != "."]
    found = ht.glycemic(recorded([60.0 if c == "b" else 100.0 for c in text if c != "."], at=at))
    clock = Clock(unit="min", start=0.0, stop=100.0)
    own = [(e.start, pytest.approx(60 * e.hours), e.ended) for e in found.episodes if e.kind == "below 70"]
    assert own == [(clock.label(float(start)), minutes, ended) for start, minutes, ended in expected]
    assert found.count("below 54") == 0


def test_an_extended_episode_lasts_more_than_two_hours_at_a_stretch():
    two, more, broken = [100.0] * 3 + [60.0] * 24 + [100.0] * 3, [60.0] * 25, [60.0] * 20 + [100.0] * 2 + [60.0] * 20
    found = [ht.glycemic(recorded(values)).count("extended below 70") for values in (two, [*two, *more], [*two, *broken])]
    assert found == [0, 1, 0]
    with pytest.raises(DeclarationError, match="extended below 70"):
        ht.glycemic(recorded(two)).count("below 60")


def test_excursions_by_hand():
    """sd 42.4 and so: up 100, down 90, up 90 count, the ripples do not, and of them only the way of the first."""
    value = [100.0, 120.0, 110.0, 200.0, 190.0, 110.0, 125.0, 120.0, 200.0, 195.0]
    found = ht.glycemic(recorded(value))
    assert measures.excursions(np.array(value), found.sd) == [100.0, 200.0, 110.0, 200.0] and found.mage == pytest.approx(95.0)
    down = ht.glycemic(recorded(value[::-1]))
    assert measures.excursions(np.array(value[::-1]), down.sd) == [200.0, 110.0, 200.0, 100.0]
    assert down.mage == pytest.approx(95.0)  # 90 and 100, both down
    assert np.isnan(ht.glycemic(recorded([100.0, 100.0, 100.0])).mage)
    molar = ht.glycemic(recorded(np.array(value) / 18.0156, unit="mmol/L"))
    assert molar.mage == pytest.approx(95.0 / 18.0156)


def test_a_sensor_of_fifteen_minutes_says_that_one_reading_is_an_episode():
    found = ht.glycemic(recorded([100, 60, 100, 100], every=15.0))
    assert found.count("below 70") == 1
    assert any("one alone" in note for note in found.notes)
    jitter = ht.glycemic(recorded([100, 60, 60, 60, 100, 100, 100], at=[0, 5, 9.97, 14.95, 20, 25, 30]))
    assert jitter.count("below 70") == 1


def test_low_and_high_count_in_their_range_and_are_told():
    table = {"time": [0, 5, 10, 15, 20, 25], "cgm": ["LOW", 60, 100, 200, "HIGH", "HIGH"]}
    person = ht.Person.from_csv(table, units={"cgm": "mg/dL"}, time="min", below={"cgm": 40}, above={"cgm": 400})
    found = ht.glycemic(person)
    assert (found.low, found.high) == (1, 2)
    assert (found.below_54, found.below_70, found.above_250) == pytest.approx((100 / 6, 200 / 6, 200 / 6))
    assert found.mean == pytest.approx(1200 / 6)
    assert "1 LOW (below 40 mg/dL)" in repr(found) and "2 HIGH (above 400 mg/dL)" in repr(found)
    # a limit that is a level: below 70 is below 70, and whether below 54 is not known
    edge = ht.glycemic(recorded([70.0, 100.0, 100.0, 100.0], censored=[-1, 0, 0, 0], limit=[70.0, *[np.nan] * 3]))
    assert (edge.below_70, edge.below_54) == (25.0, 0.0)
    assert any("does not tell" in note for note in edge.notes)
    assert ht.glycemic(recorded([70.0, 100.0, 100.0, 100.0])).below_70 == 0.0


def test_levels_are_those_of_the_records_unit():
    value = np.array([2.9, 3.0, 3.8, 3.9, 10.0, 10.1, 13.9, 14.0])
    found = ht.glycemic(recorded(value, unit="mmol/L"))
    assert found.unit == "mmol/L"
    assert (found.below_54, found.below_70, found.in_range, found.above_180, found.above_250) == (12.5, 37.5, 25, 37.5, 12.5)
    other = ht.glycemic(recorded(value, unit="mmol/L"), unit="mg/dL")
    assert other.mean == pytest.approx(18.0156 * found.mean, rel=1e-5)
    assert (other.in_range, other.gmi, other.lbgi, other.cv) == pytest.approx((25, found.gmi, found.lbgi, found.cv))
    assert found.gmi == pytest.approx(3.31 + 0.02392 * 18.0156 * value.mean(), rel=1e-5)
    assert "70 to 180 mg/dL" in repr(other) and "3.9 to 10.0 mmol/L" in repr(found)
    same(ht.glycemic(recorded(value * 18.0, unit="mg/dL")), value * 18.0)
    liters = ht.glycemic(recorded([1.0, 1.2], unit="g/L"))
    assert (liters.unit, liters.mean) == ("mg/dL", pytest.approx(110.0))


def test_gaps_windows_and_short_records_are_told():
    at = [5.0 * k for k in range(288) if not 100 <= k < 200]
    found = ht.glycemic(recorded([120.0] * 188, at=at))
    assert found.coverage == pytest.approx(100 * 188 / 288)
    assert any("cover 65 %" in text for text in found.warnings) and any("1 days" in text for text in found.warnings)
    assert "CAUTION" in repr(found)
    part = ht.glycemic(recorded([120.0] * 188, at=at), start=0.0, stop=500.0)
    assert (part.readings, part.coverage, part.days) == (100, pytest.approx(100.0), pytest.approx(500 / 1440))
    late = ht.glycemic(recorded([120.0] * 144, stop=1440.0))  # the sensor was worn half of the record's day
    assert late.coverage == pytest.approx(50.0)
    cut = recorded([120.0] * 288).between(stop=720.0, readings_only=True)
    assert (ht.glycemic(cut).readings, ht.glycemic(cut).coverage) == (144, pytest.approx(100.0))


def test_sessions_of_other_spacing_weigh_by_their_time():
    """A day of 5 min at 60 mg/dL and a day of 15 min at 100: half of the time is low, though three in four readings are."""
    at = [*(5.0 * np.arange(288)), *(1440 + 15.0 * np.arange(96))]
    person = recorded([60.0] * 288 + [100.0] * 96, at=at, stop=2880.0, session=[0] * 288 + [1] * 96)
    found = ht.glycemic(person)
    assert (found.below_70, found.mean, found.coverage) == pytest.approx((50.0, 80.0, 100.0))


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(MissingColumn, match="cgm"):
        ht.glycemic(recorded([100.0, 101.0]), "glucose")
    with pytest.raises(NoReadings, match="two"):
        ht.glycemic(recorded([100.0]))
    with pytest.raises(UnitError, match="mmol/L"):
        ht.glycemic(recorded([100.0, 101.0]), unit="g/L")
    with pytest.raises(UnitError):
        ht.glycemic(recorded([1.0, 2.0], unit="kg"))


def test_as_table_and_picture():
    found = ht.glycemic(recorded([60.0, 100.0, 200.0, 260.0]))
    table = found.to_dataframe().set_index("measure")
    assert table.loc["time in range 70 to 180 mg/dL", "value"] == 25.0
    assert list(table.loc["GMI"]) == [found.gmi, "%"]
    heights = [bar.get_height() for bar in found.plot().axes[0].patches]
    assert heights == pytest.approx([0, 25, 25, 25, 25])


TENT = curve([0, 600, 720, 1440], [100, 100, 260, 40], [50, 50, 50, 50], [300, 40, 40, 113])


def test_outcomes_of_a_curve_are_exact():
    time = np.linspace(0, 1440, 400_001)
    for k, value in enumerate(TENT["G"]):
        dense = np.interp(time, TENT.time, value)
        expected = plain_of_curve(dense)
        for name, known in expected.items():
            assert getattr(outcomes, name)("G").of(TENT)[k] == pytest.approx(known, rel=2e-5, abs=1e-3), name


def plain_of_curve(value):
    f = 1.509 * (np.log(value) ** 1.084 - 5.381)
    mean, sd = value.mean(), value.std()
    shares = [100 * np.mean(m) for m in (value < 54, (value >= 54) & (value < 70), value > 250, (value > 180) & (value <= 250))]
    return {"sd": sd, "cv": 100 * sd / mean, "gmi": 3.31 + 0.02392 * mean, "lbgi": np.mean(10 * f**2 * (f < 0)),
            "hbgi": np.mean(10 * f**2 * (f > 0)), "gri": min(100, np.dot([3.0, 2.4, 1.6, 0.8], shares))}  # fmt: skip


def episodes_of_curve(value, minutes, level, lasting=15.0):
    """Episodes below a level of a curve known every so many minutes, by runs of the grid."""
    count, begun = 0, False
    for beyond, run in itertools.groupby(value < level):
        long = len(list(run)) * minutes >= (lasting if beyond else 15.0)
        count += bool(long and beyond and not begun)
        begun = bool(beyond) if long else begun
    return count


def test_episodes_of_a_curve_are_those_of_a_fine_grid():
    rng = np.random.default_rng(2)
    time = np.arange(0.0, 7 * 1440.0 + 1, 5.0)
    rows = [90 + 30 * np.sin(time / 60 * k) + np.cumsum(rng.normal(0, 3, len(time))) % 20 for k in (1.0, 2.1, 3.7)]
    week = curve(time, *rows, np.full(len(time), 65.0))
    fine = np.arange(0.0, time[-1], 0.05)
    for level, lasting in ((70, "15 min"), (70, "40 min"), (60, "15 min")):
        expected = [episodes_of_curve(np.interp(fine, time, v), 0.05, level, float(lasting.split()[0])) for v in week["G"]]
        asked = outcomes.episodes_below("G", level, "mg/dL", lasting=lasting)
        np.testing.assert_allclose(asked.of(week), expected)
    assert min(outcomes.episodes_below("G", 70, "mg/dL").of(week)[:3]) > 5
    np.testing.assert_allclose(outcomes.episodes_below("G", 70, "mg/dL", weekly=True).of(week)[3], 1.0)
    mirror = curve(time, *(140.0 - week["G"]))
    mirrored = outcomes.episodes_above("G", 70, "mg/dL").of(mirror)
    np.testing.assert_allclose(mirrored, outcomes.episodes_below("G", 70, "mg/dL").of(week))
    lost = curve(time, np.where(time > 5000, np.nan, 100.0))
    assert np.isnan(outcomes.episodes_below("G", 70, "mg/dL").of(lost)[0])


def test_episodes_are_outcomes_with_unit_direction_and_harm():
    asked = grammar.outcome("episodes_below(G, 70 mg/dL)")
    assert asked == outcomes.episodes_below("G", 70.0, "mg/dL") and asked.better == "lower"
    settled = asked.settled(TENT)
    assert settled.unit == "1" and settled.label.startswith("episodes of glucose below 70 mg/dL")
    assert outcomes.episodes_below("G", 3.9, "mmol/L", lasting="120 min", weekly=True).label.endswith("for 120 min a week")
    assert [h.label for h in outcomes.harm_of(asked)] == ["time of glucose above 180 mg/dL"]
    assert outcomes.harm_of(outcomes.episodes_above("G", 10, "mmol/L"))[0].label == "time of glucose below 3.9 mmol/L"
    with pytest.raises(DeclarationError, match="lasting"):
        outcomes.episodes_below("G", 70, "mg/dL", lasting="0 min")


def test_indices_of_few_days_or_readings_are_told():
    person = recorded([120.0] * 144, stop=1440.0)
    told = cautions([outcomes.gmi("G").settled(TENT), outcomes.peak("G")], TENT, person, ["cgm"])
    assert len(told) == 2 and "1 days; the consensus asks for at least 14" in told[0] and "cover 50 %" in told[1]
    assert told[0].startswith("GMI of glucose")
    whole = curve([0, 14 * 1440], [100, 120])
    assert cautions([outcomes.lbgi("G"), outcomes.episodes_below("G", 70, "mg/dL")], whole, person, []) == []


class Sugar(System):
    """dG/dt = -k (G - Gb), G the level: glucose that comes back to where it rests."""

    time = "min"

    class State(State):
        level: Scalar = state("mg/dL", "glucose")

    k: Scalar = parameter(lognormal(0.01, 0.3), "1/min", "return")
    Gb: Scalar = parameter(lognormal(80.0, 0.2), "mg/dL", "rest")

    def rates(self, t, x, u):
        return self.State(level=-self.k * (x.level - self.Gb))

    def initial(self, u):
        return self.State(level=2.0 * self.Gb)

    def outputs(self, x, u):
        return {"G": output(x.level, "mg/dL")}


def test_a_contrast_counts_episodes_and_tells_what_the_consensus_asks_for():
    person = recorded(80.0 + 80.0 * np.exp(-0.01 * 5.0 * np.arange(60)))
    model = ht.Model(Sugar(), cgm=ht.sensors.Gaussian("G", sd=4.0))
    twin = ht.personalize(model, person, ht.Laplace(draws=40, starts=2), key=0, progress=False)
    effect = ht.contrast(twin.do(Gb=60.0), twin, outcomes.episodes_below("G", 70, "mg/dL"), outcomes.gri("G"))
    assert effect.rows[0].median == 1.0 and effect.rows[0].unit == "1"
    assert any("GRI of glucose" in note and "at least 14" in note for note in effect.notes), effect.notes


def test_outcomes_know_their_unit_and_what_is_better():
    molar = curve([0, 600, 1440], [5.0, 14.0, 3.0], unit="mmol/L")
    milligram = curve([0, 600, 1440], [5.0 * 18.0156, 14.0 * 18.0156, 3.0 * 18.0156])
    for name in ("cv", "gmi", "lbgi", "hbgi", "gri"):
        asked = getattr(outcomes, name)("G")
        assert asked.of(molar) == pytest.approx(asked.of(milligram), rel=1e-5), name
        assert asked.settled(molar).unit == ("%" if name in ("cv", "gmi") else "1")
        assert asked.better == (None if name == "gmi" else "lower")
        assert grammar.outcome(f"{name}(G)") == asked
    assert outcomes.sd("G").settled(molar).unit == "mmol/L"
    assert outcomes.sd("G", unit="mg/dL").of(molar) == pytest.approx(outcomes.sd("G").of(milligram), rel=1e-5)
    assert outcomes.cv("C").better is None
    assert [h.label for h in outcomes.harm_of(outcomes.lbgi("G"))] == ["time of glucose above 180 mg/dL"]
    assert outcomes.harm_of(outcomes.gri("G"))[0].label == "time of glucose below 70 mg/dL"


def test_a_difference_of_indices_has_no_unit_in_its_sentence():
    a, b, prior = (np.full(100, x) + np.linspace(0, 1, 100) for x in (30.0, 33.0, 0.0))
    row = Row(outcomes.gri("G").settled(TENT), a, b, prior - 9.0, np.zeros(100, int))
    assert ": -3 (90 % credible interval" in row.text and "P(lower) > " in row.text


def test_a_recording_from_shanghai(shared_data):
    """From the file itself, by plain NumPy; a sensor of 15 min, so that one reading is an episode."""
    path = shared_data("glucose/shanghai_t1dm.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["cgm_mg_per_dL"]]
    for name, person in ht.datasets.shanghai_t1d().items():
        value = np.array([float(r["cgm_mg_per_dL"]) for r in rows if f"{r['patient']}-{r['session']}" == name])
        found = ht.glycemic(person)
        assert found.readings == len(value)
        assert found.coverage > 99.5 and any("asks for at least 14" in text for text in found.warnings)
        near = np.maximum(value, 40.0) if found.low else value  # at or below 39.6 the loader has "below 40"
        same(found, near)
        long = np.diff(found_at(rows, name)) > 45.5
        pieces = np.split(near, np.flatnonzero(long) + 1)
        assert found.mage == pytest.approx(excursions_apart(pieces, found.sd), rel=1e-9), name
        assert found.count("above 180") == counted(value, np.zeros(len(value), bool), lambda g: g > 180, 1, 1), name
        assert found.count("below 70") == counted(value, np.zeros(len(value), bool), lambda g: g < 70, 1, 1), name


def found_at(rows, name):
    """Minutes of the readings of one recording."""
    import datetime

    column = next(key for key in rows[0] if "time" in key)
    at = [datetime.datetime.fromisoformat(r[column]) for r in rows if f"{r['patient']}-{r['session']}" == name]
    return np.array([(t - at[0]).total_seconds() / 60.0 for t in at])


def test_recordings_of_d1namo(shared_data):
    """From the file itself: mmol/L there; the record is in mg/dL (10.0 is 180.2), and so are its ranges."""
    path = shared_data("glucose/d1namo_glucose.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "cgm"]
    for name, person in ht.datasets.d1namo().items():
        value = 18.0156 * np.array([float(r["glucose_mmol_per_L"]) for r in rows if r["patient"] == name])
        found = ht.glycemic(person)
        assert found.readings == len(value)
        for measure, expected in plain(np.clip(value, 40.0, 400.0)).items():
            tolerance = 1e-4 if measure in ("mean", "sd", "cv", "gmi") else 1e-2
            assert getattr(found, measure) == pytest.approx(expected, rel=tolerance), (name, measure)
        assert 50 < found.coverage < 100 and found.warnings

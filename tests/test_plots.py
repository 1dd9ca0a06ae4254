"""Pictures: units on every axis, local clock times, bands that say what they are, and nothing left in pyplot."""

import dataclasses
import sys

import made
import numpy as np
import pytest

import hybridtwin as ht
from hybridtwin import plots
from hybridtwin.clock import Clock
from hybridtwin.datasets import virtual_adult
from hybridtwin.records import Person
from hybridtwin.signals import Regimen
from hybridtwin.simulate.trajectory import Trajectory


def legend(ax):
    found = ax.get_legend()
    return [t.get_text() for t in found.get_texts()] if found else []


def rendered(figure, tmp_path):
    """Every text of the figure, after it was drawn once."""
    figure.savefig(tmp_path / "x.png", dpi=40)
    assert (tmp_path / "x.png").stat().st_size > 2000
    return [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text"))]


def test_a_record_shows_readings_and_events_with_units_and_local_time(tmp_path):
    figure = plots.record(virtual_adult())
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["cgm (mg/dL)", "meal (g)", "bolus ([IU])", "basal ([IU]/h)"]
    assert figure.axes[-1].get_xlabel() == "local time (Europe/Rome)"
    ticks = [t.get_text() for t in figure.axes[-1].get_xticklabels()]
    assert ticks[0] == "00:00\nMon 9 Mar" and "06:00" in ticks
    rendered(figure, tmp_path)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_an_event_of_unknown_amount_is_a_question_mark(tmp_path):
    table = {"time": ["2026-03-24 07:00", "2026-03-24 12:00", "2026-03-24 18:00"], "cgm": [100, 120, 130],
             "meal": ["40", "?", ""]}
    person = Person.from_csv(table, units={"cgm": "mg/dL", "meal": "g"}, tz="Europe/Rome")
    assert "?" in rendered(plots.record(person), tmp_path)


def test_without_a_date_the_axis_has_a_unit(tmp_path):
    person = Person.of("x", time="h", doses={"oral": Regimen.bolus(10, "mg", at=0.0)},
                       readings={"C": ([1.0, 2.0], [3.0, 2.0], "mg/L")})
    figure = plots.record(person)
    assert figure.axes[-1].get_xlabel() == "time (h)"
    rendered(figure, tmp_path)


def test_clock_labels_follow_the_change_of_the_clock():
    clock = Clock("2026-03-28T12:00+01:00", "Europe/Rome", "h", 0.0, 36.0)  # summer time begins at night
    traj = Trajectory(np.linspace(0, 36, 73), {"C": np.ones((4, 73))}, {"C": "mg/L"}, clock, np.zeros(4),
                      np.zeros(4, bool), 0.0)
    axis = plots.trajectory(traj).axes[-1]
    hours = dict(zip(axis.get_xticks(), [t.get_text() for t in axis.get_xticklabels()], strict=True))
    assert hours[12.0] == "00:00\nSun 29 Mar" and hours[15.0] == "04:00"


def test_the_fit_tells_the_expected_band_from_the_predicted_one(tmp_path):
    figure = plots.fit(made.twin())
    words = legend(figure.axes[0])
    assert {"modelled value, 90 % (expected)", "new readings, 90 % (predicted)", "readings"} <= set(words)
    assert "reading at or below the limit" in words
    assert [ax.get_ylabel() for ax in figure.axes] == ["C (mg/L)", "oral (mg)"]
    rendered(figure, tmp_path)


def test_priors_and_posteriors_have_units(tmp_path):
    figure = plots.priors_posteriors(made.twin())
    shown = {ax.get_title(loc="left"): ax.get_xlabel() for ax in figure.axes if ax.get_title(loc="left")}
    assert shown["CL"] == "(L/h)" and shown["V"] == "(L)" and shown["C.add"] == "(mg/L)"
    rendered(figure, tmp_path)


def test_two_structures_have_medians_of_their_own(tmp_path):
    time = np.linspace(0, 10, 21)
    draws = np.concatenate([np.full((20, 21), 100.0), np.full((20, 21), 140.0)])
    traj = Trajectory(time, {"G": draws}, {"G": "mg/dL"}, Clock(unit="h", stop=10.0), np.repeat(["A", "B"], 20),
                      np.zeros(40, bool), 0.0)
    figure = plots.trajectory(traj, ("G",))
    assert "median of A alone" in legend(figure.axes[0]) and "median of B alone" in legend(figure.axes[0])
    rendered(figure, tmp_path)


def test_a_trajectory_on_axes_of_the_users_own_and_failed_draws_left_out():
    from matplotlib.figure import Figure

    values = np.vstack([np.ones((3, 5)), np.full((1, 5), np.nan)])
    traj = Trajectory(np.arange(5.0), {"C": values}, {"C": "mg/L"}, Clock(unit="h", stop=4.0), np.zeros(4),
                      np.array([False] * 3 + [True]), 0.0)
    ax = Figure().subplots()
    assert plots.trajectory(traj, ("C",), ax=ax) is ax.figure and ax.get_ylabel() == "C (mg/L)"
    with pytest.raises(KeyError, match="Outputs"):
        plots.trajectory(traj, ("x",))


def test_worlds_show_what_was_done_and_the_window(tmp_path):
    figure = plots.worlds(made.effect())
    assert [ax.get_ylabel() for ax in figure.axes] == ["C (mg/L)", "oral (mg)"]
    assert any("as lived" in t for t in legend(figure.axes[0]))
    rendered(figure, tmp_path)


def test_inputs_of_both_worlds_stand_at_their_own_times():
    """A dose that was halved stands behind its lived self, neither earlier nor later; one of another time where it is given."""
    effect = made.effect()
    panel = plots.worlds(effect).axes[-1]
    shown = [sorted(line.get_xdata()) for line in panel.lines if line.get_linestyle() == "None"]
    own = [sorted(d.time for d in world.inputs["oral"]) for world in reversed(effect.worlds)]
    low, high = panel.get_xlim()
    assert shown == [[t for t in times if low <= t <= high] for times in own] and shown[0]


def test_contrasts_show_the_prior_beside_the_person_and_harm_as_harm(tmp_path):
    words = rendered(plots.contrast(made.effect()), tmp_path)
    assert any("prior only" in t for t in words) and any(t.startswith("watched for harm") for t in words)
    assert words.count("difference (mg/L)") == 2 and "better" in words


def test_under_do_not_use_no_number_is_drawn(tmp_path):
    effect = made.effect("DO NOT USE")
    for figure in (plots.worlds(effect), plots.contrast(effect)):
        words = rendered(figure, tmp_path)
        assert any("DO NOT USE" in t for t in words) and not figure.axes


def test_pyplot_and_the_users_settings_are_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.record(made.person())
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_every_result_has_a_picture_a_table_and_a_text(tmp_path):
    from small import ORAL, oral_person

    from hybridtwin.inference.check import check
    from hybridtwin.inference.methods import Laplace
    from hybridtwin.inference.personalize import personalize
    from hybridtwin.records import Cohort

    person = oral_person()
    found = check(ORAL, person, key=0)
    table = found.to_dataframe()
    assert list(table["time"]) == list(person.series["C"].time) and set(table["unit"]) == {"mg/L"}
    assert np.mean((table["observed"] > table["prior_q025"]) & (table["observed"] < table["prior_q975"])) == found.inside("C")
    assert "C (mg/L)" in rendered(found.plot(), tmp_path)

    second = dataclasses.replace(person, id="second")
    twins = personalize(ORAL, Cohort([person, second]), Laplace(draws=100, starts=2), key=0, progress=False)
    predicted = twins[person.id].predict()["C"]
    table = predicted.to_dataframe()
    assert table["observed"].notna().sum() == len(person.series["C"].time)
    assert (table["reading_q05"] <= table["expected_q50"]).all()
    assert "C (mg/L)" in rendered(predicted.plot(), tmp_path) and "90 % band" in repr(predicted)
    texts = rendered(twins.plot(), tmp_path)
    assert {"CL (L/h)", person.id, "second"} <= set(texts)
    assert set(twins.to_dataframe()["person"]) == {person.id, "second"}


def test_inputs_of_a_record_stand_at_their_time_on_the_clock_of_the_system():
    """A record in minutes of a system in seconds: what flows from minute 15 to 25 is drawn from 900 to 1500 s, in minutes."""

    class Tank(ht.System):
        """dA/dt = in - k A."""

        time = "s"

        class State(ht.State):
            A: ht.Scalar = ht.state("mL")

        class Input(ht.Input):
            flow: ht.Scalar = ht.signal("mL/s", default=0.0)
            shot: ht.Scalar = ht.dose("mL", into="A")

        k: ht.Scalar = ht.parameter(ht.typical(0.002, cv=0.2), "1/s")

        def rates(self, t, x, u):
            return self.State(A=u.flow - self.k * x.A)

        def outputs(self, x, u):
            return {"A": ht.output(x.A, "mL")}

    person = ht.Person.of("bed", time="min", start=0.0, stop=40.0, readings={"A": ([20.0, 30.0], [200.0, 220.0], "mL")},
                          signals={"flow": ht.Signal.steps([0.0, 15.0, 25.0], [0.0, 50.0, 0.0], "mL/min")},
                          doses={"shot": ht.Regimen.bolus(10.0, "mL", at=5.0)})  # fmt: skip
    twin = ht.personalize(ht.Model(Tank(), A=ht.sensors.Gaussian("A", sd=20.0)), person, ht.Laplace(draws=20, starts=1), key=0,
                          progress=False)  # fmt: skip
    figure = plots.fit(twin)
    drawn = {ax.get_ylabel().split(" ")[0]: ax for ax in figure.axes}
    (steps,) = drawn["flow"].lines
    high = np.asarray(steps.get_xdata())[np.asarray(steps.get_ydata()) > 0]
    assert (high.min(), high.max()) == (900.0, 1500.0)
    assert list(drawn["shot"].lines[0].get_xdata()) == [300.0]
    last = figure.axes[-1]
    ticks = [label.get_text() for label in last.get_xticklabels()]
    assert last.get_xlabel() == "time (min)" and ticks[0] == "0" and ticks[-1] == "40" and last.get_xlim() == (0.0, 2400.0)
    assert twin.do(k=0.001, start=10).label == "k = 0.001 from 10 min"
    assert ht.outcomes.mean("A", 10, 25).settled(twin.simulate()).label == "mean A, 10 min to 25 min (15 min)"


def test_what_is_not_known_is_no_bar_of_zero():
    """Readings that rule an outcome alone: nothing tells what would be without them."""
    from hybridtwin.plots.explanation import _bars

    ax = plots.figure_type()().add_subplot()
    _bars(ax, [("ruling", np.nan, np.nan, np.nan, False), ("plain", np.nan, 0.0, np.nan, True)])
    assert [t.get_text() for t in ax.texts] == ["0", "unknown"]

"""The twin: posterior draws of one body, the record it learned from, and what was done.

A twin is immutable. `do` gives a twin in another world, `on` the same body on another day; both keep the draws and the key of
the noise, so that two worlds of one twin differ by the treatment alone.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hybridtwin.clock import Clock
from hybridtwin.dosing import Correct
from hybridtwin.engine import double, side_by_side
from hybridtwin.errors import InterventionError, PastHorizon, SolveError
from hybridtwin.fit import PARTS, Fit, Part, Verdict, common_outputs
from hybridtwin.interventions import Do, Rescue, Titrate, When, World, enact, misread
from hybridtwin.keys import folded
from hybridtwin.records import Person
from hybridtwin.sensors import Seen
from hybridtwin.signals import Signal
from hybridtwin.simulate.failures import Failures
from hybridtwin.simulate.rules import joined, overflowed, told
from hybridtwin.simulate.trajectory import Act, Trajectory
from hybridtwin.twins import Twins as Twins
from hybridtwin.units import plain, time_factor
from hybridtwin.worlds import Day, dos_of, moments_of, none_outside, solve, still_to_come, throughout

DRAWS = 250  # draws of each structure that simulations use


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """What one sensor was expected to read, and what it read.

    `expectation` (draws, N) is the modelled output, `readings` (draws, N) new readings with the sensor's noise.
    """

    sensor: str
    time: np.ndarray
    unit: str
    expectation: np.ndarray
    readings: np.ndarray
    observed_time: np.ndarray
    observed_value: np.ndarray
    censored: np.ndarray
    clock: Clock

    def coverage(self, level: float = 0.95) -> float:
        """Share of the uncensored readings inside their central predictive band."""
        low, high = np.nanquantile(self.readings, [(1 - level) / 2, (1 + level) / 2], axis=0)
        at = np.searchsorted(self.time, self.observed_time)
        inside = (self.observed_value >= low[at]) & (self.observed_value <= high[at])
        return float(inside[self.censored == 0].mean())

    def to_dataframe(self):
        """One row a time: quantiles of the modelled value and of new readings, and what was read (NaN where nothing was)."""
        import pandas as pd

        seen = np.full(len(self.time), np.nan)
        seen[np.searchsorted(self.time, self.observed_time)] = self.observed_value
        columns = {"time": self.time, "unit": self.unit, "observed": seen}
        for word, draws in (("expected", self.expectation), ("reading", self.readings)):
            columns |= dict(
                zip((f"{word}_q05", f"{word}_q50", f"{word}_q95"), np.nanquantile(draws, [0.05, 0.5, 0.95], axis=0), strict=True)
            )
        return pd.DataFrame(columns)

    def plot(self):
        """Readings over the predictive band; a matplotlib figure."""
        from hybridtwin import plots

        return plots.predicted(self)

    def __repr__(self):
        seen = len(self.observed_value)
        told = f", {100 * self.coverage(0.9):.0f} % inside their 90 % band" if np.any(self.censored == 0) else ""
        return f"Predicted {self.sensor} [{self.unit}]: {len(self.time)} times, {seen} readings{told}"


@dataclasses.dataclass(frozen=True, eq=False)
class Twin:
    """One body, personalized. Made by `personalize`; see the module."""

    record: Person
    fits: tuple[Fit, ...]
    days: tuple[Day, ...]
    key: Any
    seed: str
    root: str
    dos: tuple[Do, ...] = ()
    rules: tuple[Rescue | When | Titrate | Correct, ...] = ()
    draws: int = DRAWS
    shares: tuple[float, ...] = ()  # of each structure in what is simulated; all alike where empty
    _worlds: dict[int, World] = dataclasses.field(default_factory=dict, init=False, repr=False)  # see `world`

    @classmethod
    def of(cls, record: Person, fits: Sequence[Fit], key, seed: str) -> "Twin":
        """A twin of fits made on one record."""
        root = f"{record.hash()}/{seed}/" + "+".join(f.model.key for f in fits)
        return cls(record, tuple(fits), tuple(Day(f.problem.bound, f.problem.lived) for f in fits), key, seed, root)

    # ------------------------------------------------------------------ what it is

    @property
    def id(self) -> str:
        """The person's id."""
        return self.record.id

    @property
    def clock(self):
        """Clock of the day the twin is on, in the time unit of its first structure."""
        return self.days[0].bound.clock

    @property
    def start(self) -> float:
        """First time of the day, in system time."""
        return self.days[0].bound.start

    @property
    def stop(self) -> float:
        """Last time of the day, in system time."""
        return self.days[0].bound.stop

    @property
    def temper(self) -> float:
        """The likelihood counted to the power 1/temper."""
        return self.fits[0].temper

    def draws_of(self, which: int) -> int:
        """Draws of one structure that simulations use: `draws` of each, or by `shares` as many as all have for that."""
        if not self.shares:
            return self.draws
        total = min(self.draws * len(self.fits), *(f.count / s for f, s in zip(self.fits, self.shares, strict=True)))
        return max(1, round(total * self.shares[which]))

    @property
    def method(self):
        """How it was personalized."""
        return self.fits[0].method

    @property
    def data_hash(self) -> str:
        """SHA-256 of the record."""
        return self.record.hash()

    @property
    def label(self) -> str:
        """The world this twin is in, in words."""
        done = "; ".join(do.told(self.clock) for do in self.dos) or ("as lived" if self.days[0].lived else "as planned")
        return done + (f"; respond: {'; '.join(map(str, self.rules))}" if self.rules else "")

    @functools.cached_property
    def verdict(self) -> Verdict:
        """May answers of this twin be used? Of several structures the worst, with its name."""
        parts = {name: Part() for name in PARTS}
        for fit in self.fits:
            who = f"{fit.model.name}: " if len(self.fits) > 1 else ""
            for name in PARTS:
                part = fit.parts[name]
                parts[name] = parts[name].join(Part(part.level, tuple(who + r for r in part.reasons)))
        return Verdict(parts)

    def world(self, which: int = 0) -> World:
        """The world of one structure: the day's inputs with everything that was done. Errors as in `do`."""
        if which not in self._worlds:  # `do` asks for it, and so does whatever is asked of the twin afterwards
            day, model = self.days[which], self.fits[which].model
            edges = {path: tuple(map(float, day.bound.occasion_edges(group))) for path, group in model.varying}
            asked = dos_of(self, which), model.spec, day.bound.clock, self.rules, model.sensors, edges
            self._worlds[which] = enact(day.world, *asked)
        return self._worlds[which]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the interventions did beyond what was asked."""
        return (*self.days[0].told, *self.world().notes)

    # ------------------------------------------------------------------ verbs

    def do(self, *, start=None, stop=None, respond: Any = None, **targets) -> "Twin":
        """The same body, the same day, with something done.

        **Arguments:** `targets`: input, parameter, state or sensor by name -> what it becomes: a function of the old
        (`bolus=lambda b: b.shift(-20, "min")`; of a sensor, of what it would read), a `Regimen`, `Ratio` or `Signal`, a number
        where a number has one meaning, or (number, unit); of a state also `ht.once`, `ht.as_in` or `ht.equation`. `start`,
        `stop`: window of lived time: numbers of the record's unit, "07:30" (the last such time in the record), "2026-03-24
        07:30", "day 2 07:30". `respond`: rules of care, a `When`, `Rescue`, `Correct` or `Titrate` or several, which watch from
        the first difference on (from `start` where nothing else is done); without them later decisions are kept as lived. For
        other names than Python's write `twin.do(**{"gut.ka": ..., "reading of C": ...})`.

        **Raises:** UnknownTarget, AmbiguousDose, PastHorizon, InterventionError, ParameterError, UnitError.
        """
        if respond is not None and not targets and stop is not None:
            raise InterventionError("do: a rule of care watches to the end of the record. Leave stop= out.")
        watching = respond is not None and start is not None
        dos = (*self.dos, Do(targets, start, stop)) if targets or watching else self.dos
        rules = self.rules if respond is None else tuple(respond) if isinstance(respond, list | tuple) else (respond,)
        other = dataclasses.replace(self, dos=dos, rules=rules)
        for which in range(len(self.fits)):
            other.world(which)  # a mistake is told here, not when somebody simulates
        return other

    def on(self, record: Person, start: str | Mapping[str, float] | None = None) -> "Twin":
        """The same body on another day's inputs.

        **Arguments:** `record`: inputs and covariates (readings are not needed). Covariates are carried over where the record is
        silent; signals are not: a basal rate that is left out is 0. `start`: "steady" (at rest under the day's first
        inputs), "lived" (goes on from the end of this twin's day), "free" (as the system's `initial` says), or state -> number
        for every state. Left out: at rest where there is one, else (a clock, a tumor that grows) "free", which `notes` tell.
        """
        days = []
        for i, fit in enumerate(self.fits):
            record_i = _carry_over(record, self.days[i], fit.model.spec)
            day = Day.another(fit.model, record_i, start if isinstance(start, str) else None)
            if start == "lived":
                day = dataclasses.replace(day, start=self.last_state(i), prior_start=self.last_state(i, prior=True))
            elif start is not None and not isinstance(start, str):
                missing = set(fit.model.spec.states) - set(start)
                if missing:
                    raise InterventionError(
                        f"on: the start lacks the states {', '.join(sorted(missing))}. Give a number for each."
                    )
                day = dataclasses.replace(day, start=dict(start), told=())
            _within_horizon(day.bound, fit.model.spec)
            days.append(day)
        return dataclasses.replace(
            self, days=tuple(days), dos=(), rules=(), root=f"{self.root}|{record.hash()}|{start or 'steady'}"
        )

    def forecast(self, until, **inputs) -> "Twin":
        """The body from the end of its day on: the twin on a new record that goes on from the lived state.

        **Arguments:** `until`: "24 h" or a time; `inputs`: doses (`Regimen`) and signals (`Signal`, number or (number,
        unit)) of the time to come. A signal that is not given stays as it was; a dose that is not given is none.
        """
        from hybridtwin.clock import span

        spec, bound, world = self.fits[0].model.spec, self.days[0].bound, self.world()
        clock = bound.clock
        stop = (
            bound.stop + span(until, clock.unit)
            if isinstance(until, str) and not _is_moment(until)
            else clock.asked(until)
        )
        doses, signals, covariates = {}, {}, {}
        for name, given in inputs.items():
            if name in spec.doses:
                doses[name] = given
            elif name in spec.signals:
                signals[name] = given if isinstance(given, Signal) else throughout(name, given, spec.signals[name].unit)
                still_to_come(name, signals[name], bound)
            else:
                raise InterventionError(
                    f"forecast: {name!r} is no dose or signal. Inputs: {', '.join((*spec.doses, *spec.signals))}."
                )
        for name in spec.signals:
            signals.setdefault(name, Signal.constant(_value(world.inputs[name], bound.stop), spec.signals[name].unit))
        for name in spec.covariates:
            covariates[name] = (_value(world.inputs[name], bound.stop), spec.covariates[name].unit)
        when: dict[str, Any] = {"start": bound.stop, "stop": stop, "time": clock.spanning(bound.stop, stop)}
        ahead = self.on(Person.of(self.id, doses=doses, signals=signals, covariates=covariates, **when), start="lived")
        none_outside(ahead.days[0].bound, doses)
        return ahead

    # ------------------------------------------------------------------ answers

    def simulate(self, at=None, *, prior: bool = False) -> Trajectory:
        """Outputs over the day in this world, draw by draw. `at`: times (numbers in system time, as a trajectory has them, or
        clock text); default a fine grid.
        """
        at = None if at is None else moments_of(at, self.days[0].bound)
        return simulate_worlds([self], at=at, prior=prior)[0]

    def predict(self) -> dict[str, Predicted]:
        """What each sensor was expected to read over the day, beside what it read."""
        found = {}
        for name, sensor in self.fits[0].model.sensors.items():
            if sensor.decides:
                continue
            bound = self.days[0].bound
            seen = bound.readings.get(name)
            times = np.unique(
                np.concatenate([np.linspace(bound.start, bound.stop, 289), seen.time if seen is not None else []])
            )
            found[name] = self.predicted(name, times, seen)
        return found

    def predicted(self, name, times, seen=None) -> Predicted:
        """What one sensor is expected to read at `times` (N,), in system time, beside the readings `seen` where given."""

        def predicted(i):
            fit, day, draws = self.fits[i], self.days[i], self.draws_of(i)
            with double():
                names = (fit.model.sensors[name].of,)
                found = solve(fit, day, [self.world(i)], draws=draws, key=self.key, at=times, names=names)
                mean = found.solved.values[0, :, :, 0]
                return mean, misread(_new_readings(fit, name, mean, times, day.bound, self.key), self.world(i), name, times)

        calls = [functools.partial(predicted, i) for i in range(len(self.fits))]
        expectations, readings = zip(*side_by_side(calls), strict=True)
        unit = self.fits[0].model.unit_of(self.fits[0].model.sensors[name].of)
        empty = np.zeros(0)
        return Predicted(
            name,
            times,
            unit,
            np.concatenate(expectations),
            np.concatenate(readings),
            empty if seen is None else seen.time,
            empty if seen is None else seen.value,
            np.zeros(0, int) if seen is None else seen.censored,
            self.clock,
        )

    def counterfactual(self) -> dict[str, Predicted]:
        """What each sensor would have read in this world at the times at which it was read, with the errors that it had.

        This is the person's own day, otherwise treated: what the readings say beside the model is kept, draw by draw, so in the
        lived world it is the record itself. `predict` draws new errors: somebody like this person, on such a day. Of censored
        readings the error is not known; they are left out (NaN).

        **Raises:** InterventionError on another day, which nobody has lived, and for counts.
        """
        if not all(day.lived for day in self.days):
            raise InterventionError("counterfactual: nobody has lived this day, so it has no errors to keep. Use predict().")
        read = {n: seen for n, seen in self.days[0].bound.readings.items() if not self.fits[0].model.sensors[n].decides}
        return {name: self._kept_errors(name, seen) for name, seen in read.items() if len(seen)}

    def _kept_errors(self, name, seen) -> Predicted:
        base = dataclasses.replace(self, dos=(), rules=())
        at, means, readings = [(float(t), int(o)) for t, o in zip(seen.time, seen.order, strict=True)], [], []
        for i, fit in enumerate(self.fits):
            with double():
                how: dict[str, Any] = {"draws": self.draws_of(i), "key": self.key, "names": (fit.model.sensors[name].of,)}
                lived, here = solve(fit, self.days[i], [base.world(i), self.world(i)], at=at, **how).solved.values[..., 0]
                index = np.unique(np.linspace(0, fit.count - 1, len(here)).round().astype(int))
                values = {s: np.asarray(fit.values[s])[index] for s in fit.kernel.sites_of(name)}
                move = jax.vmap(lambda v, m, o, fit=fit: fit.kernel.sensor_of(name, v).moved(seen.value, m, o))
                means.append(here)
                moved = np.where(seen.censored == 0, np.asarray(move(values, lived, here)), np.nan)
                readings.append(misread(moved, self.world(i), name, seen.time))
        unit = self.fits[0].model.unit_of(self.fits[0].model.sensors[name].of)
        return Predicted(name, seen.time, unit, np.concatenate(means), np.concatenate(readings), seen.time, seen.value,
                         seen.censored, self.clock)  # fmt: skip

    def track_record(self, of=None, **how):
        """Each past meal or dose of this person predicted from what was read before it only; see `ht.track_record`."""
        from hybridtwin.causal.track import track_record

        return track_record(self, of, **how)

    def last_state(self, which: int = 0, *, prior: bool = False) -> dict[str, np.ndarray]:
        """States at the end of the day, path -> (draws,); of the prior's draws where asked."""
        fit, day = self.fits[which], self.days[which]
        names = tuple(fit.model.spec.states)
        found = solve(
            fit, day, [self.world(which)], draws=self.draws_of(which), key=self.key, at=[day.bound.stop], names=names, prior=prior
        )
        return {path: found.solved.values[0, :, -1, i] for i, path in enumerate(names)}

    def mode(self, structure: int = 0) -> dict[str, Any]:
        """The posterior mode of one structure: site -> number, (size,) where a site has several.

        It is the highest point found of the density on the coordinates in which a prior made from a normal is a
        standard normal: the MAP or empirical Bayes estimate of pharmacometrics, on the eta scale. Steps of the
        integrator are halved until it stays within 1e-4 prior standard deviations. Readings count to the power
        1/temper, as in the draws. Doses are best chosen on the draws; the mode is for comparison with other programs.

        **Raises:** SolveError where it still moves by more than 1e-2 at the finest steps.
        """
        from hybridtwin.inference.modes import exact
        from hybridtwin.inference.readings import values_of

        fit = self.fits[structure]
        z, moved = exact(fit.kernel, fit.peak, fit.problem.data, fit.strength)
        if moved > 1e-2:
            raise SolveError(
                f"the mode of {self.id} still moves by {plain(moved, 2)} prior standard deviations when the steps are halved. "
                "Bind with shorter steps (max_step), or fix extreme parameters."
            )
        with double():
            values = values_of(fit.kernel, z[None])
        found = {site.name: values[site.name][0] for site in fit.kernel.sites}
        return {name: v if v.ndim else float(v) for name, v in found.items()}

    def events(self, structure: int = 0):
        """What the readings say of uncertain events: a data frame, one row an event, with amount and shift of time.

        Columns: input, time (as recorded), recorded (NaN where nobody wrote it down), unit, amount_q05, amount_q50,
        amount_q95, shift_q05, shift_q50, shift_q95 (of the time, in the record's system time).
        """
        import pandas as pd

        fit = self.fits[structure]
        bound, data, rows = fit.problem.bound, fit.problem.data, []
        for i, event in enumerate(bound.latent):
            regimen: Any = bound.inputs[event.input]
            dose = regimen.doses[event.index]
            row = {"input": event.input, "time": bound.clock.label(dose.time), "unit": fit.model.spec.doses[event.input].unit,
                   "recorded": np.nan if event.missing else event.median}  # fmt: skip
            for word, site, at, sd in (("amount", "amounts", data.amount_at[i], event.amount_sd),
                                       ("shift", "times", data.time_at[i], event.time_sd)):  # fmt: skip
                z = np.asarray(fit.values[site]).reshape(fit.count, -1)[:, at] if at >= 0 else np.zeros(1)
                drawn = event.median * np.exp(sd * z) if word == "amount" else sd * z
                row |= {f"{word}_q{q:02.0f}": float(np.quantile(drawn, q / 100)) for q in (5, 50, 95)}
            rows.append(row)
        return pd.DataFrame(rows)

    def summary(self):
        """Parameters: prior and posterior quantiles with units, as a data frame."""
        import pandas as pd

        return pd.DataFrame([row for fit in self.fits for row in fit.table()])

    def to_dataframe(self):
        """The same as `summary`."""
        return self.summary()

    def to_datatree(self, structure: int = 0):
        """Posterior, prior and sample statistics of one structure as an `xarray.DataTree`."""
        import xarray as xr

        fit = self.fits[structure]
        chains, count = fit.z.shape[:2]

        def group(values, shape):
            data = {}
            for site in fit.kernel.sites:
                v = np.asarray(values[site.name]).reshape(*shape, *(() if site.size == 1 else (site.size,)))
                data[site.name] = (("chain", "draw", *(() if site.size == 1 else (f"{site.name}_dim",))), v)
            return xr.Dataset(data, {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])})

        prior_count = len(next(iter(fit.prior_values.values())))
        stats = xr.Dataset({"lp": (("chain", "draw"), fit.log_density.reshape(chains, count))})
        return xr.DataTree.from_dict(
            {
                "posterior": group(fit.values, (chains, count)),
                "prior": group(fit.prior_values, (1, prior_count)),
                "sample_stats": stats,
            }
        )

    def to_arviz(self, structure: int = 0):
        """One structure for ArviZ: `InferenceData` on ArviZ 0.23, the `DataTree` itself on 1.x."""
        import arviz as az

        tree = self.to_datatree(structure)
        return az.from_datatree(tree) if hasattr(az, "InferenceData") else tree

    def plot(self):
        """The fit: expectation band, predictive band and readings; a matplotlib figure."""
        from hybridtwin import plots

        return plots.fit(self)

    def report(self, path, contrasts=()):
        """Write one self-contained HTML file, with what was asked of the twin (see `report.write`); returns its path."""
        from hybridtwin import report

        return report.write(self, path, contrasts)

    def __repr__(self):
        models = " + ".join(f.model.name for f in self.fits)
        seen = ", ".join(
            f"{len(i)} of {len(f.problem.bound.readings[n])} {n} readings"
            for f in self.fits[:1]
            for n, i in f.problem.used.items()
        )
        lines = [
            f"Twin of {self.id}: {models}, {seen}, {type(self.method).__name__}, temper {self.temper:g}, seed {self.seed}",
            f"  world: {self.label}",
            *(f"  drawn by {f.told()}" for f in self.fits if "why" in f.stats),
            *(f"  {fit.model.name} solved by {fit.stepper}" for fit in self.fits),
            *("  " + line for line in repr(self.verdict).splitlines()),
        ]
        for row in [
            r for f in self.fits for r in f.table() if "." not in r["parameter"].split("@")[0] or r["sd_ratio"] < 0.8
        ][:14]:
            lines.append(
                f"  {row['structure']:<12} {row['parameter']:<16} {plain(row['q50'])} "
                f"({plain(row['q05'])} to {plain(row['q95'])}) "
                f"{row['unit']}, prior {plain(row['prior_q50'])} ({plain(row['prior_q05'])} to {plain(row['prior_q95'])})"
            )
        return "\n".join(lines)


def simulate_worlds(twins: Sequence[Twin], at=None, *, prior: bool = False, names=None, tol: float = 1e-4) -> list[Trajectory]:
    """Simulate twins of one root together, on the union of their nodes, with the same draws: one trajectory each."""
    first = twins[0]
    columns, failed, structures, error, lost = [], [], [], 0.0, Failures()
    time, solvers = np.zeros(0), []
    notes: list[list[str]] = [[note for day in first.days for note in day.told] for _ in twins]
    acts: list[list[list[Act]]] = [[] for _ in twins]
    outputs = names or common_outputs(first.fits)
    all_worlds = [[twin.world(i) for twin in twins] for i in range(len(first.fits))]

    def answered(i):
        draws = max(first.draws_of(i) // 2, 1) if prior else first.draws_of(i)
        how = {"draws": draws, "key": first.key, "at": at, "prior": prior, "names": outputs, "tol": tol}
        return solve(first.fits[i], first.days[i], all_worlds[i], **how)

    answers = side_by_side([functools.partial(answered, i) for i in range(len(first.fits))])
    for fit, worlds, answer in zip(first.fits, all_worlds, answers, strict=True):
        solved, did, time = answer.solved, answer.acts, np.array([t for t, _ in answer.reads])
        if solved.failed.all():
            over = [note for world in worlds for note in overflowed(world, solved.code, fit.model.spec)]
            raise SolveError(
                f"no draw of {fit.model.name} could be solved for {first.id}. "
                + (over[-1] if over else "Check the units of the inputs, or fix extreme parameters, as in T1DMinimal(SG=.01).")
            )
        lost = lost.then(answer.failures)
        solvers.append(answer.choice.told(fit.model.spec.time))
        columns.append(solved.values)
        failed.append(solved.failed)
        structures.append(np.full(len(solved.failed), fit.model.name))
        error = max(error, float(solved.error[~solved.failed].max(initial=0.0)))
        for w, world in enumerate(worlds):
            notes[w] += [n for n in world.notes if n not in notes[w]]
            if solved.failed.any():
                notes[w] += [f"{int(solved.failed.sum())} draws of {fit.model.name} could not be solved and are left out"]
            notes[w] += answer.failures.told()
            notes[w] += [f"{fit.model.name}: {note}" for note in overflowed(world, solved.acts.code[w], fit.model.spec)]
            notes[w] += [f"{fit.model.name}: {told(act, first.clock, solved.failed)}" for act in did[w]]
            acts[w].append(did[w])
    values = np.concatenate(columns, axis=1)
    units = {n: first.fits[0].model.unit_of(n) for n in outputs}
    return [
        Trajectory(
            time,
            {n: values[w, :, :, i] for i, n in enumerate(outputs)},
            units,
            first.clock,
            np.concatenate(structures),
            np.concatenate(failed),
            error,
            twin.label,
            tuple(notes[w]),
            joined(acts[w], [len(part) for part in failed]),
            lost,
            solver="; ".join(dict.fromkeys(solvers)),
            inputs={n: all_worlds[0][w].inputs[n] for n in (*first.fits[0].model.spec.doses, *first.fits[0].model.spec.signals)},
        )
        for w, twin in enumerate(twins)
    ]


def _within_horizon(bound, spec) -> None:
    """**Raises:** PastHorizon where a new day is longer than the system was declared for."""
    if spec.horizon is not None and bound.stop - bound.start > spec.horizon * (1 + 1e-9):
        raise PastHorizon(
            f"{spec.name} is declared valid for {spec.horizon:g} {spec.time}; this day spans {bound.stop - bound.start:g}. "
            "Cut the record with person.between(...), or ask for an earlier end."
        )


def _carry_over(record: Person, day: Day, spec) -> Person:
    """The new record with the covariates of the lived day where it has none of its own."""
    known = {**record.covariates, **record.signals, **record.series}
    usual = {name: day.world.inputs[name] for name in spec.covariates if name not in known}
    fresh = {name: Signal.constant(_value(s, day.bound.stop), spec.covariates[name].unit) for name, s in usual.items()}
    return dataclasses.replace(record, covariates={**record.covariates, **fresh}) if fresh else record


def _value(course, t) -> float:
    return float(course(t))


def _is_moment(text: str) -> bool:
    return ":" in text or text == "now"


def _new_readings(fit, name, mean, times, bound, key):
    """New readings of one sensor for each draw: (draws, N)."""
    spec, seen = fit.model.spec, bound.readings.get(name)
    minutes = times * time_factor(spec.time, "min")
    n = len(times)
    session = np.zeros(n, np.int32)
    if seen is not None and len(seen):
        session = np.searchsorted(
            np.unique(seen.session), seen.session[np.clip(np.searchsorted(seen.time, times, "right") - 1, 0, None)]
        )
    since = bound.since(times) * time_factor(spec.time, "min")
    rows = Seen(np.zeros(n), minutes, np.ones(n, bool), np.zeros(n, np.int32), np.asarray(session, np.int32), since)
    index = np.unique(np.linspace(0, fit.count - 1, len(mean)).round().astype(int))
    values = {s: np.asarray(fit.values[s])[index] for s in fit.kernel.sites_of(name)}
    keys = jax.random.split(folded(key, 11), len(mean))

    def one(k, m, v):
        return fit.kernel.sensor_of(name, v).sample(k, m, rows)

    return np.array(jax.jit(jax.vmap(one))(keys, mean, values))

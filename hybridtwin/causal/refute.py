"""Try to refute an answer: what should change it does, and what should not does not.

The checks are those of DoWhy (placebo treatment, random common cause, subset of the data, unobserved cause, negative control),
done to a person's record: each makes other records of the same person, personalizes the same models to all of them as one cohort,
and asks the same question again.

**What a placebo is where care reacts.** A rule of care (`respond=`) is no part of the record: it acts on the body by doses, so
the treatment in question is also what a rule gives, stops or scales in one of the worlds only, and its placebo is the recorded
doses of that input at random times. Where none was recorded there is nothing to make a placebo of, which is said: what such a
dose does is the prior's. A policy of the model (`Decisions`, `Amounts`) reads decisions off the doses; where chance decides when
doses are given it decides nothing, so it is left out of the model for a placebo and for the record that this is held against, and
the readings alone are compared. Otherwise doses at random times would be refuted by not being where care gives them, whatever
they do.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridtwin.binding import substance
from hybridtwin.causal import foretold
from hybridtwin.causal.contrast import contrast
from hybridtwin.causal.graph import acts_on
from hybridtwin.causal.grounds import RESTS_ON_PRIOR
from hybridtwin.errors import DeclarationError, InterventionError
from hybridtwin.finding import Finding
from hybridtwin.fit import Judgment, Part
from hybridtwin.inference.personalize import personalize
from hybridtwin.interventions import Do
from hybridtwin.outcomes import Outcome, as_outcome, signed
from hybridtwin.policies import UNRECORDED
from hybridtwin.records import Cohort, Person
from hybridtwin.signals import Dose, Regimen
from hybridtwin.twin import Twin
from hybridtwin.units import factor, plain

_SHARE = 0.2  # of the readings that a subset leaves out, as one block
_NEEDED = 3.0  # units of log evidence by which readings must prefer the record to a placebo


@dataclasses.dataclass(frozen=True)
class Hidden:
    """An unrecorded dose with each dose of the treatment: `amounts` of `dose` in `unit`, tried one after the other."""

    dose: str
    amounts: Sequence[float]
    unit: str


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: what was done, how often, what the answer became, and whether it stands.

    `median`, `low`, `high`: of the difference in the trial that is farthest from the answer; `tipping`: of a hidden cause, the
    smallest amount tried that moves the answer out of its own interval (NaN where none does).
    """

    name: str
    what: str
    trials: int
    median: float
    low: float
    high: float
    level: str
    reason: str
    tipping: float = float("nan")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Refutation(Finding):
    """What became of an answer under every check. `part`: OK, CAUTION or DO NOT USE, with reasons."""

    question: str
    outcome: Outcome
    median: float
    low: float
    high: float
    checks: tuple[Check, ...]

    @property
    def part(self) -> Part:
        """The worst of the checks."""
        found = Judgment()
        for check in self.checks:
            if check.level != "OK":
                found.say(check.level, f"{check.name}: {check.reason}")
        return found.part

    @property
    def table(self):
        """One row a check, as a data frame."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(check) for check in self.checks])

    @property
    def text(self) -> str:
        """The answer, then what became of it."""
        unit = f" {self.outcome.unit}" if self.outcome.unit not in (None, "", "1") else ""
        span = f"({signed(self.low)} to {signed(self.high)})"
        lines = [f"{self.question}: {self.outcome.label} {signed(self.median)}{unit} {span}."]
        for c in self.checks:
            lines.append(f"  {c.name} ({c.what}): {c.level}. {c.reason}")
        return "\n".join([*lines, "Checks can refute an answer; passing them does not prove it."])


def refute(a: Twin, b: Twin, outcome: Outcome, *, key, repeats: int = 3, hidden: Hidden | None = None, method=None,
           progress: bool = True) -> Refutation:  # fmt: skip
    """Try to refute what world `a` changes against world `b`.

    **Arguments:** `a`, `b`: worlds of one twin on its lived day, as for `contrast`; `outcome`: what is asked; `key`: an integer,
    of the random trials; `repeats`: trials of a kind; `hidden`: `Hidden("meal", (10, 20, 40), "g")`, an
    unrecorded cause that came with each dose of the treatment; `method`: of personalization (default: the twin's own).

    | check | trial | the answer stands if |
    |---|---|---|
    | negative control | the same change of what is given after the outcome's window | nothing changes |
    | doses foretold | none: errors of readings against the doses after them | they do not say whether or how much is given |
    | placebo treatment | the doses in question at random times, policies that decide on them left out | the readings fit worse |
    | random common cause | readings adjusted for a random series as if it mattered | it moves by less than half its interval |
    | subset | a block of a fifth of the readings is left out | the same |
    | hidden cause | an unrecorded dose with each dose of the treatment | it stays in its interval; else the amount is told |

    The doses in question are those that differ between the worlds, and those that a rule of care acts on in one of them only.

    **Raises:** DeclarationError where no dose differs so between the worlds (signals and parameters have no placebo),
    InterventionError for another day.
    """
    if not a.days[0].lived:
        raise InterventionError("refute asks the record that the twin was personalized to. Give worlds of its lived day.")
    asked = as_outcome(outcome)
    effect = contrast(a, b, asked)
    row, rng = effect[0], np.random.default_rng(key)
    changed = _changed(a, b)
    if not changed:
        raise DeclarationError(
            "refute: no dose differs between the two worlds, and no rule of care gives, stops or scales one in only one of them, "
            "so there is no treatment to make a placebo of. A change of a signal or a parameter has none."
        )
    person: Person = a.record
    residuals = _residuals(a)
    trials: dict[tuple[str, int], Person] = {}
    for i in range(repeats):
        trials["placebo", i] = _placebo(a, changed, rng)
        trials["common", i] = _common(a, residuals, rng)
        trials["subset", i] = _subset(a, rng)
    for i, amount in enumerate(hidden.amounts if hidden else ()):
        trials["hidden", i] = _with_hidden(a, changed, hidden, amount)
    models = [f.model for f in a.fits]
    decided = dict.fromkeys(n for m in models for n, sensor in m.sensors.items() if sensor.decides in changed)
    how: dict[str, Any] = {"method": a.method if method is None else method, "key": int(key) + 1, "temper": a.temper,
                           "progress": progress}  # fmt: skip
    if decided:  # what care decided is no reading where chance decides, nor in the record that a placebo is held against
        chance = {at: trials.pop(at) for at in list(trials) if at[0] == "placebo"} | {("record", 0): person}
        fitted = _fitted([m.without(decided) for m in models], chance, **how) | _fitted(models, trials, **how)
    else:
        fitted = _fitted(models, trials, **how)
    rows = {at: _again(twin, a, b, asked) for at, twin in fitted.items() if at[0] not in ("placebo", "record")}
    fits = [_support(twin) for at, twin in fitted.items() if at[0] == "placebo"]
    lived = _support(fitted["record", 0] if decided else a)
    checks = [_control(a, b, asked, changed), _foretold_check(a, changed, rng)]
    checks += [_placebo_check(a, fits, lived, row, changed, tuple(decided))]
    checks += [_stands("random common cause", "readings adjusted for a random series",
                       [rows[at] for at in rows if at[0] == "common"], row)]  # fmt: skip
    checks += [_stands("subset", f"{_SHARE:.0%} of the readings left out", [rows[at] for at in rows if at[0] == "subset"], row)]
    if hidden is not None:
        checks.append(_hidden_check(hidden, [rows["hidden", i] for i in range(len(hidden.amounts))], row))
    question = f"{effect.a_label} compared with {effect.b_label}"
    return Refutation(question, row.outcome, row.median, row.low, row.high, tuple(checks))


def _fitted(models, trials, *, method, key, temper, progress) -> dict[tuple[str, int], Twin]:
    """A twin for each of the records, personalized as one cohort."""
    names = {at: f"{person.id} / {at[0]} {at[1]}" for at, person in trials.items()}
    people = Cohort(dataclasses.replace(person, id=names[at]) for at, person in trials.items())
    several: Any = models[0] if len(models) == 1 else models
    twins = personalize(several, people, method, key=key, temper=temper, progress=progress)
    return {at: twins[name] for at, name in names.items()}


def _changed(a, b) -> tuple[str, ...]:
    """Doses in question: those that differ between the worlds, and those that a rule of care acts on in one of them only."""
    spec, (one, other) = a.fits[0].model.spec, (a.world(), b.world())
    ruled = {acts_on(rule) for rule in (*one.rules, *other.rules) if (rule in one.rules) != (rule in other.rules)}
    return tuple(n for n in spec.doses if one.inputs[n] != other.inputs[n] or n in ruled)


def _again(twin, a, b, outcome):
    """The same question of another twin."""
    doses = twin.fits[0].model.spec.doses
    spared = [tuple(_sparing(do, doses) for do in world.dos) for world in (a, b)]
    again = [dataclasses.replace(twin, dos=dos, rules=w.rules, draws=a.draws) for dos, w in zip(spared, (a, b), strict=True)]
    return contrast(*again, outcome)[0]


def _sparing(do, doses) -> Do:
    """The same intervention, which leaves alone what nobody recorded."""

    def spare(value):
        def change(lived):
            unseen = tuple(d for d in lived.doses if d.product == UNRECORDED)
            seen = dataclasses.replace(lived, doses=tuple(d for d in lived.doses if d.product != UNRECORDED))
            fresh = value(seen) if callable(value) else value
            return fresh + dataclasses.replace(lived, doses=unseen) if unseen else fresh

        return change

    return Do({n: spare(v) if n in doses else v for n, v in do.targets.items()}, do.start, do.stop)


def _support(twin) -> float:
    """How well the record suits the models: their log evidence (or, where a method gives none, the density at the mode)."""
    evidence = np.array([fit.log_evidence for fit in twin.fits], float)
    if not np.isfinite(evidence).all():
        evidence = np.array([np.max(fit.log_density) for fit in twin.fits])
    return float(np.logaddexp.reduce(evidence) - np.log(len(evidence)))


# ------------------------------------------------------------------ other records of the same person


def _rewritten(twin, doses: dict[str, list[Dose]]) -> Person:
    """The record with other doses of some inputs, in the system's unit and time."""
    bound, spec, person = twin.days[0].bound, twin.fits[0].model.spec, twin.record
    into = {n: {n, spec.doses[n].cmt, spec.doses[n].into} for n in doses}
    kept = {k: r for k, r in person.regimens.items() if not any(k in names for names in into.values())}
    made = {n: Regimen(tuple(dataclasses.replace(d, latent=None) for d in ds), spec.doses[n].unit, spec.time, bound.clock)
            for n, ds in doses.items()}  # fmt: skip
    clock = person.clock
    made = {n: r.resolve(clock, clock.unit, r.unit) for n, r in made.items()}
    return dataclasses.replace(person, regimens=kept | made, series={n: s for n, s in person.series.items() if n not in doses})


def _recorded(twin, name) -> list[Dose]:
    return list(twin.fits[0].problem.bound.inputs[name].doses)


def _placebo(twin, changed, rng) -> Person:
    bound = twin.fits[0].problem.bound
    moved = {}
    for name in changed:
        times = rng.uniform(bound.start, bound.stop, len(_recorded(twin, name)))
        moved[name] = [dataclasses.replace(d, time=float(t)) for d, t in zip(_recorded(twin, name), times, strict=True)]
    return _rewritten(twin, moved)


def _walk(rng, start, stop):
    """A random smooth series of about unit size: a sine of random phase, its period a quarter of the record to all of it."""
    phase, period = rng.uniform(0, 2 * np.pi), (stop - start) * rng.uniform(0.25, 1.0)
    return lambda t: np.sqrt(2.0) * np.sin(2 * np.pi * np.asarray(t, float) / period + phase)


def _residuals(twin) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sensor -> (time, what it read beside what the twin expects), in the system's time and the record's unit."""
    base, found = dataclasses.replace(twin, dos=(), rules=()), {}
    for name, seen in base.predict().items():
        if name in twin.record.series and len(twin.record.series[name]) == len(seen.observed_time):
            expected = np.nanmean(seen.expectation, axis=0)[np.searchsorted(seen.time, seen.observed_time)]
            scale = factor(seen.unit, twin.record.series[name].unit, of=substance(name))
            found[name] = seen.observed_time, np.where(seen.censored == 0, seen.observed_value - expected, 0.0) * scale
    return found


def _common(twin, residuals, rng) -> Person:
    """Readings less the part of what they read beside the twin's expectation that a random series accounts for."""
    bound, series = twin.fits[0].problem.bound, dict(twin.record.series)
    random = _walk(rng, bound.start, bound.stop)
    for name, (time, residual) in residuals.items():
        r = random(time)
        value = series[name].value - (residual @ r) / (r @ r) * r
        plain = (series[name].censored == 0) & (value > 0)
        series[name] = dataclasses.replace(series[name], value=np.where(plain, value, series[name].value))
    return dataclasses.replace(twin.record, series=series)


def _subset(twin, rng) -> Person:
    person, series = twin.record, dict(twin.record.series)
    for name in twin.fits[0].model.sensors:
        if name in series and len(series[name]) > 4:
            n = len(series[name])
            gap = max(1, round(_SHARE * n))
            first = int(rng.integers(0, n - gap + 1))
            series[name] = series[name].take(np.r_[0:first, first + gap : n])
    return dataclasses.replace(person, series=series)


def _with_hidden(twin, changed, hidden, amount) -> Person:
    spec = twin.fits[0].model.spec
    if hidden.dose not in spec.doses:
        raise DeclarationError(f"hidden: {hidden.dose!r} is no dose of {spec.name}. Doses: {', '.join(spec.doses)}.")
    own = float(amount) * factor(hidden.unit, spec.doses[hidden.dose].unit)
    times = [d.time for name in changed for d in _recorded(twin, name)]
    if not times:
        raise DeclarationError(f"hidden: no dose of {', '.join(changed)} was recorded, with which an unrecorded one could come.")
    last = max([d.order for d in _recorded(twin, hidden.dose)], default=0)
    added = [Dose(t, own, order=last + 1 + i, product=UNRECORDED) for i, t in enumerate(times)]
    return _rewritten(twin, {hidden.dose: [*_recorded(twin, hidden.dose), *added]})


# ------------------------------------------------------------------ what they say


def _control(a, b, outcome, changed) -> Check:
    """The same kind of change after the window must change nothing inside it. At the window's very end it may: what is read at an
    instant is read just after what happens there, so the dose comes later, and where the day ends with the window, there is no
    later.
    """
    base = dataclasses.replace(b, dos=(), rules=())
    trajectory = base.simulate(at=[base.start, base.stop])
    stop = outcome.window(trajectory)[1] if outcome.name else base.stop
    name, spec = changed[0], a.fits[0].model.spec
    if stop >= base.stop - 1e-9 * max(abs(base.stop), 1.0):
        reason = "the window ends with the day, so nothing can come after it: not asked."
        return Check("negative control", f"{name} when the window is over", 0, np.nan, np.nan, np.nan, "OK", reason)
    usual = [d.amount for d in _recorded(a, name) if d.amount] or [1.0]
    extra = Regimen.bolus(float(np.median(usual)), spec.doses[name].unit, at=0.5 * (stop + base.stop))
    extra = dataclasses.replace(extra, time=spec.time)
    late = base.do(**{name: lambda given: given + extra})
    found = contrast(late, base, outcome)[0]
    worst = float(np.nanmax(np.abs(found.difference)))
    scale = max(float(np.nanmax(np.abs(found.b))), 1e-12)
    fine = worst <= 1e-6 * scale
    reason = "nothing changes" if fine else f"the past changes by up to {plain(worst)} {found.unit}"
    return Check("negative control", f"{name} when the window is over", 1, found.median, found.low, found.high,
                 "OK" if fine else "DO NOT USE", reason + ".")  # fmt: skip


def _foretold_check(twin, changed, rng) -> Check:
    found = foretold.judged(foretold.pairs_of(twin, changed), rng)
    what = f"errors of readings against {' and '.join(changed)} after them"
    level = "OK" if found.fine else "CAUTION"
    return Check("doses foretold", what, found.tests, np.nan, np.nan, np.nan, level, foretold.told(found))


def _placebo_check(twin, fits, lived, row, changed, decided) -> Check:
    given = [name for name in changed if _recorded(twin, name)]
    never = [name for name in changed if name not in given]
    gain = lived - max(fits)
    fine = gain > _NEEDED
    told = []
    if given and fine:
        names = ", ".join(given)
        told.append(f"the readings prefer {names} as recorded by {gain:.1f} units of log evidence to the best placebo.")
    elif given:
        prior = row.sd_ratio > RESTS_ON_PRIOR
        so = "they do not say what it does, so the answer is the prior's" if prior else (
            "they do not tell it from what else goes on, as where it does next to nothing, or where the model fits badly")
        told.append(f"readings fit {', '.join(given)} at random times as well (difference {gain:.1f}): {so}.")
    if never:
        told.append(f"no {' or '.join(never)} was recorded, of which to make a placebo: what it does is the prior's.")
    level = "OK" if fine and not never else "CAUTION"
    what = "doses at random times" + (f", {', '.join(decided)} left out" if decided else "")
    return Check("placebo treatment", what, len(fits), row.median, row.low, row.high, level, " ".join(told))


def _stands(name, what, rows, row) -> Check:
    width = max(row.high - row.low, 1e-12)
    moved = [abs(r.median - row.median) for r in rows]
    worst = rows[int(np.argmax(moved))]
    share = max(moved) / width
    level = "OK" if share <= 0.5 else "CAUTION" if share <= 1.0 else "DO NOT USE"
    reason = f"the answer moves by at most {plain(max(moved))} {row.unit}, {share:.0%} of its interval."
    return Check(name, what, len(rows), worst.median, worst.low, worst.high, level, reason)


def _hidden_check(hidden, rows, row) -> Check:
    moved = [(float(amount), r) for amount, r in zip(hidden.amounts, rows, strict=True) if not row.low <= r.median <= row.high]
    what = f"unrecorded {hidden.dose} with each dose"
    if not moved:
        worst = rows[int(np.argmax([abs(r.median - row.median) for r in rows]))]
        reason = f"even {max(hidden.amounts):g} {hidden.unit} would not move the answer out of its interval."
        return Check("hidden cause", what, len(rows), worst.median, worst.low, worst.high, "OK", reason)
    tipping, first = min(moved, key=lambda pair: pair[0])
    turns = [amount for amount, r in moved if np.sign(r.median) != np.sign(row.median)]
    reason = f"{tipping:g} {hidden.unit} would move the answer out of its interval, to {signed(first.median)} {row.unit}"
    reason += f"; {min(turns):g} {hidden.unit} would turn its sign." if turns else "; no amount tried turns its sign."
    return Check("hidden cause", what, len(rows), first.median, first.low, first.high, "CAUTION", reason, tipping)

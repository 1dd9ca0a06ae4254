"""What a bolus calculator does: doses in proportion to those of another input, and a correction by what is read.

    dose = amount counted / ratio,  given `before`                                       (`Ratio`)
    extra = (reading - target) / factor where the reading lies above a level, else 0     (`Correct`)

The first is known once the day's meals are known, and is a value of `do`; the second depends on what is read in each draw, and
is a rule of care. Source of the two formulas: Walsh, Roberts and Bailey 2011, doi:10.1177/193229681100500118.
"""

import dataclasses
from typing import Any

from hybridtwin.clock import span
from hybridtwin.errors import AmbiguousDose, DeclarationError, InterventionError, PastHorizon, UnknownTarget
from hybridtwin.signals import Dose, Regimen, Signal
from hybridtwin.units import factor


def _pair(kind, name, value, example):
    """**Raises:** DeclarationError unless `value` is (number above 0, unit)."""
    good = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str)
    if not good or not isinstance(value[0], int | float) or isinstance(value[0], bool) or not value[0] > 0:
        raise DeclarationError(f"{kind}: {name} is (number above 0, unit), not {value!r}. Write {name}={example}.")


def _rounding(kind, step, most):
    for name, value in (("step", step), ("most", most)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise DeclarationError(f"{kind}: {name}={value!r} is no amount above 0. Write {name}=0.5, or leave it out.")


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Doses in proportion to those of another input: a unit of insulin for so many grams of carbohydrate.

    **Arguments:**

    - `of`: the dose that is answered, as counted in the record (what is eaten may be another amount: `Person.uncertain`).
    - `per`: (amount, unit) of it for which `give` (amount, unit) is given.
    - `before`: how long before it. `step`: doses are rounded to multiples of it (halves up). `most`: largest single dose.

    ```python
    twin.do(bolus=ht.Ratio("meal", per=(10, "g"), give=(1, "[IU]"), before="15 min", step=0.5))
    ```

    As a value of `do` it takes the place of the doses of the window by those for the meals of the window. A dose that would
    have been due before the day begins is given when it begins.

    **Raises:** DeclarationError; in `do` UnknownTarget, InterventionError (an amount that nobody counted), UnitError.
    """

    of: str
    _: dataclasses.KW_ONLY
    per: tuple[float, str]
    give: tuple[float, str]
    before: str = "0 min"
    step: float | None = None
    most: float | None = None

    def __post_init__(self):
        _pair("Ratio", "per", self.per, '(10, "g")')
        _pair("Ratio", "give", self.give, '(1, "[IU]")')
        _rounding("Ratio", self.step, self.most)
        if span(self.before, "min") < 0:
            raise DeclarationError(f'Ratio: before={self.before!r} is negative. Write before="15 min"; later is not offered.')

    @staticmethod
    def grid(of: str, *, per, unit: str, give: tuple[float, str], before="0 min", step=None, most=None):
        """Ratios to choose among (`ht.candidates`, `ht.optimize`): every amount of `per` (in `unit`) and time `before`."""
        from hybridtwin.causal.candidates import RatioGrid

        amounts, times = (list(x) if isinstance(x, list | tuple | range) else [x] for x in (per, before))
        return RatioGrid(tuple(Ratio(of, per=(a, unit), give=give, before=t, step=step, most=most)
                               for a in amounts for t in times))  # fmt: skip

    def amount(self, counted: float) -> float:
        """The dose (unit of `give`) for an amount counted (unit of `per`)."""
        dose = counted * self.give[0] / self.per[0]
        if self.step:
            dose = int(dose / self.step + 0.5 + 1e-9) * self.step
        return float(f"{min(dose, self.most) if self.most else dose:.10g}")

    def of_day(self, inputs, spec, start, stop, first, clock) -> Regimen:
        """The doses that answer those of a window, in system time. `first`: when the day begins."""
        if self.of not in spec.doses:
            raise UnknownTarget(f"Ratio: {self.of!r} is no dose of this system. Doses: {', '.join(spec.doses)}.")
        scale, early = factor(spec.doses[self.of].unit, self.per[1]), span(self.before, clock.unit)
        found = []
        for dose in inputs[self.of].only(start, stop).doses:
            if dose.amount is None or dose.prior is not None:
                raise InterventionError(
                    f"Ratio: nobody counted the {self.of} at {clock.label(dose.time)}. Write down an amount, or leave it out of "
                    "the window with start= and stop=."
                )
            if amount := self.amount(dose.amount * scale):
                found.append(Dose(max(dose.time - early, first), amount, order=dose.order - 1 if not early else 0))
        return Regimen(tuple(found), self.give[1], clock.unit)

    @property
    def numbers(self) -> dict[str, Any]:
        """What of it differs between candidates."""
        return {"per": self.per[0], "per_unit": self.per[1], "before": self.before}

    def __str__(self):
        when = f", {self.before} before" if span(self.before, "min") else ""
        most = f", at most {self.most:g}" if self.most else ""
        return f"{self.give[0]:g} {self.give[1]} per {self.per[0]:g} {self.per[1]} of {self.of}{when}{most}"


@dataclasses.dataclass(frozen=True)
class Correct:
    """A correction: where what is read lies above a level, care gives the excess over a target divided by a factor.

    **Arguments:**

    - `when`: a sensor of the model, read with its error, or an output, known exactly; what is seen was measured `delay` ago.
    - `dose`: what is given. `above`: (number, unit) from which it is given; `to`: the target, in the same unit (default the
      level). `per`: (number, unit) of excess for which `give` (amount, unit) is given.
    - `every`: how often it looks, "3 h"; left out: with each dose of `dose` that was decided. `wait`: least time between two
      corrections. `step`: rounded down to multiples of it. `most`: largest correction.

    ```python
    ht.Correct("cgm", "bolus", above=(150, "mg/dL"), to=120, per=(40, "mg/dL"), give=(1, "[IU]"), step=0.5)
    ```

    It never takes anything away from a dose. What it gives enters at once, without the lag of the dose.

    **Raises:** DeclarationError.
    """

    when: str
    dose: str
    _: dataclasses.KW_ONLY
    above: tuple[float, str]
    per: tuple[float, str]
    give: tuple[float, str]
    to: float | None = None
    every: str | None = None
    wait: str = "2 h"
    delay: str = "0 min"
    step: float | None = None
    most: float | None = None
    reads: str | None = None

    def __post_init__(self):
        _pair("Correct", "above", self.above, '(150, "mg/dL")')
        _pair("Correct", "per", self.per, '(40, "mg/dL")')
        _pair("Correct", "give", self.give, '(1, "[IU]")')
        _rounding("Correct", self.step, self.most)
        if self.to is not None and not self.to <= self.above[0]:
            raise DeclarationError(f"Correct: the target to={self.to} lies above above={self.above}. Give one below it.")
        if self.every is not None and not span(self.every, "s") > 0:
            raise DeclarationError(f'Correct: every={self.every!r} is no stretch of time. Write it like "3 h".')
        late = span(self.delay, "s")
        if late < 0 or (late and self.every is None) or (late and late > span(self.every or "0 s", "s")):
            raise DeclarationError(
                f'Correct: delay={self.delay!r} needs an every= that is at least as long. Write every="1 h", or leave it out.'
            )
        if span(self.wait, "s") < 0:
            raise DeclarationError(f'Correct: wait={self.wait!r} is negative. Write it like "2 h".')

    def numbers(self, unit: str, dose_unit: str) -> tuple[float, ...]:
        """Level, target, excess for one dose unit, wait (in s), step and most (both 0 where there is none), in these units."""
        scale, amount = factor(self.above[1], unit), self.give[0] * factor(self.give[1], dose_unit)
        to = self.above[0] if self.to is None else self.to
        one = self.per[0] * factor(self.per[1], unit) / amount
        rest = ((value or 0.0) * factor(self.give[1], dose_unit) for value in (self.step, self.most))
        return self.above[0] * scale, to * scale, one, span(self.wait, "s"), *rest

    def __str__(self):
        to = f" over {self.to:g}" if self.to is not None else ""
        looks = f"looked at every {self.every}" if self.every else "looked at with each dose"
        late = "" if self.delay == "0 min" else f", {self.delay} late"
        return (
            f"{self.give[0]:g} {self.give[1]} more of {self.dose} per {self.per[0]:g} {self.per[1]}{to} when "
            f"{self.reads or self.when} > {self.above[0]:g} {self.above[1]} ({looks}{late}, at least {self.wait} apart)"
        )


# ------------------------------------------------------------------ doses that `do` puts in place of others


def new_regimen(name, spec, lived, value, window, record, clock):
    """What becomes of the doses of one input: (all of them, those of the window that were changed).

    `lived`: doses so far; `window`, `record`: (start, stop) of the intervention and of the day.

    **Raises:** AmbiguousDose, InterventionError, PastHorizon.
    """
    start, stop = window
    field = spec.doses[name]
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], int | float):  # (4, "[IU]"): as little as 4
        value = value[0]
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise AmbiguousDose(
            f"do: {name!r} is a dose; a bare {value:g} says how much but not when. Use "
            f"ht.Regimen.bolus({value:g}, {field.unit!r}, at=...), or a function of the lived doses "
            f"such as lambda b: {value:g} * b."
        )
    fresh = value(lived.only(start, stop)) if callable(value) and not isinstance(value, Signal) else value
    if not isinstance(fresh, Regimen):
        raise InterventionError(
            f"do: {name!r} must become a Regimen, not {type(fresh).__name__}. A function of the lived "
            "doses must return doses, such as lambda b: b.shift(-20, 'min')."
        )
    fresh = fresh.resolve(clock, clock.unit, field.unit)
    for dose in (d for d in fresh.doses if d.modelled and d.modelled not in spec.routed.get(name, ())):
        raise InterventionError(
            f"do: a dose of {name!r} leaves its {dose.modelled} to the system, whose route declares none. Give the dose "
            f"a rate or a duration, or let dosing() return {{{name!r}: ht.route({dose.modelled}=...)}}."
        )
    late = [dose.time for dose in fresh.doses if dose.time > record[1]]
    if late:
        raise PastHorizon(
            f"do: {name!r} has a dose at {clock.label(late[0])}, after the record ends at "
            f"{clock.label(record[1])}. Simulate a longer day with twin.on(record), or move the dose."
        )
    kept = lived.without(start, stop)
    before = {dose.time for dose in kept.doses if dose.time < record[0]}  # of the record itself: they stay as they are
    fresh = dataclasses.replace(fresh, doses=tuple(dose for dose in fresh.doses if dose.time not in before))
    early = [dose.time for dose in fresh.doses if dose.time < record[0]]
    if early:
        raise PastHorizon(
            f"do: {name!r} has a dose at {clock.label(early[0])}, before the record begins at {clock.label(record[0])}: what was "
            "in the body then is part of how it begins, so the dose would be lost. Move it less, leave it out of the window "
            "with start=, or begin the record earlier."
        )
    return kept + fresh, fresh


def first_difference(old, new):
    """Time of the first dose that is not in both regimens, or None when they are the same."""

    def key(dose):
        return (dose.time, dose.amount, dose.duration, dose.rate, dose.modelled, dose.ii, dose.ss)

    a, b = ({key(dose) for dose in regimen.doses} for regimen in (old, new))
    return min((time for time, *_ in a ^ b), default=None)

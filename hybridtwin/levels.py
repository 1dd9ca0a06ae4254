"""Levels of rules and outcomes, and what `do` makes of inputs: in which unit are they, and does a living body have them?"""

import dataclasses
import math

from hybridtwin.binding import substance
from hybridtwin.errors import DeclarationError, InterventionError, UnitError
from hybridtwin.units import convert, factor, plausible

GLUCOSE = {"G": "mg/dL", "G_isf": "mg/dL", "glucose": "mg/dL"}  # outputs that mean a concentration of glucose
_OTHER = {"mg/dL": "mmol/L", "mmol/L": "mg/dL"}


def substance_of(name: str) -> str | None:
    """Which substance an output is of, where that is known."""
    return "glucose" if name in GLUCOSE else substance(name)


def check_level(name: str, value: float, unit: str) -> None:
    """**Raises:** DeclarationError where no living body has that value of an output: mostly one in another unit (0 is no level).

    A glucose of 4 mg/dL, say, is below nothing, and a rule that waits for it would never act.
    """
    known = "glucose" if name in GLUCOSE else name
    limits = plausible(known, unit)
    if limits is None or value == 0 or not math.isfinite(value) or limits[0] < value < limits[1]:  # 10 mg/dL is a slip, too
        return
    other = plausible(known, _OTHER.get(unit, unit))
    hint = f" Is it {value:g} {_OTHER[unit]}?" if unit in _OTHER and other and other[0] < value < other[1] else ""
    raise DeclarationError(
        f"{value:g} {unit} as a level of {name} is outside {limits[0]:.3g} to {limits[1]:.3g} {unit}, what a living body has."
        f"{hint} Correct the number, or its unit."
    )


def check_living(name: str, values, unit: str) -> None:
    """**Raises:** InterventionError where an input becomes what no living body has or is given, as a record is refused."""
    low, high = plausible(name, unit) or (-math.inf, math.inf)
    for value in values:
        if value < low or value > high:
            raise InterventionError(
                f"do: {name} would be {value:g} {unit}, outside {low:g} to {high:g} {unit}, what a living body has. "
                "Correct the number, or its unit."
            )


def measured(rule, spec):
    """A rule of care with its levels in the unit of what it watches where that takes a substance (4 mmol/L of glucose in mg/dL).

    **Raises:** UnitError, DeclarationError for a level that no living body has.
    """
    what = getattr(rule, "what", None) or getattr(rule, "when", None)
    field = spec.outputs.get(what) or spec.states.get(what)
    if field is None:
        return rule  # what it watches is checked, and told, elsewhere
    pairs = {name: getattr(rule, name, None) for name in ("below", "above", "until")}
    pairs = {name: pair for name, pair in pairs.items() if isinstance(pair, tuple)}
    single = {"below": (rule.below, rule.unit)} if hasattr(rule, "unit") else {}
    levels, of = {**pairs, **single}, substance_of(what)
    for value, unit in levels.values():
        check_level(what, value, unit)
    if all(_plain(unit, field.unit) for _, unit in levels.values()):
        return rule
    own = {name: convert(float(value), unit, field.unit, of) for name, (value, unit) in levels.items()}
    changed = {name: own[name] for name in single} | {name: (own[name], field.unit) for name in pairs}
    changed |= {"unit": field.unit} if single else {}
    if hasattr(rule, "per"):  # a correction: an excess, and a target in the unit of its level
        per, to, unit = rule.per, rule.to, levels["above"][1]
        changed |= {"per": (convert(float(per[0]), per[1], field.unit, of), field.unit)}
        changed |= {} if to is None else {"to": convert(float(to), unit, field.unit, of)}
    return dataclasses.replace(rule, **changed)


def _plain(unit, own) -> bool:
    try:
        factor(unit, own)
    except UnitError:
        return False
    return True

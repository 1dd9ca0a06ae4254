"""Clinical units: dimension and scale, exactly.

A small registry of our own, in front of pint: the symbols a clinic writes are read here (`[IU]` is insulin's own
dimension, `{1.73_m2}` is no area, a bare `U` is refused); anything else is looked up in pint, loaded only then.
Scales are kept as fractions, so that mg/dL to mg/L is 10 and not 10.000000000000002.
"""

import difflib
import functools
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hybridtwin.errors import MissingUnit, UnitError

_PREFIX = {"G": 9, "M": 6, "k": 3, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
_ACCELERATION = Fraction("9.80665")
_PASCAL = {"mass": 1, "length": -1, "time": -2}
_MMHG = Fraction("133.322387415") * 1000  # base mass is the gram

# symbol: (dimensions, base units in one of it); base: g, m, s, mol, K, A, cd, [IU], Eq, {1.73_m2}
_PREFIXABLE = {
    "g": ({"mass": 1}, 1),
    "m": ({"length": 1}, 1),
    "s": ({"time": 1}, 1),
    "mol": ({"amount": 1}, 1),
    "L": ({"length": 3}, Fraction(1, 1000)),
    "[IU]": ({"IU": 1}, 1),
    "Eq": ({"Eq": 1}, 1),
    "osm": ({"amount": 1}, 1),
    "Pa": (_PASCAL, 1000),
    "Hz": ({"time": -1}, 1),
    "J": ({"mass": 1, "length": 2, "time": -2}, 1000),
    "W": ({"mass": 1, "length": 2, "time": -3}, 1000),
    "N": ({"mass": 1, "length": 1, "time": -2}, 1000),
    "cal": ({"mass": 1, "length": 2, "time": -2}, Fraction("4184")),
    "A": ({"current": 1}, 1),
    "V": ({"mass": 1, "length": 2, "time": -3, "current": -1}, 1000),
    "K": ({"temperature": 1}, 1),
    "M": ({"amount": 1, "length": -3}, 1000),
}
_EXACT = {
    "1": ({}, 1),
    "%": ({}, Fraction(1, 100)),
    "rad": ({}, 1),
    "{1.73_m2}": ({"bsa": 1}, 1),
    "min": ({"time": 1}, 60),
    "h": ({"time": 1}, 3600),
    "d": ({"time": 1}, 86400),
    "wk": ({"time": 1}, 604800),
    "mo": ({"time": 1}, Fraction("2629800")),
    "a": ({"time": 1}, Fraction("31557600")),
    "bpm": ({"time": -1}, Fraction(1, 60)),
    "mmHg": (_PASCAL, _MMHG),
    "cmH2O": (_PASCAL, Fraction("98.0665") * 1000),
    "lx": ({"luminosity": 1, "length": -2}, 1),
    "lm": ({"luminosity": 1}, 1),
    "cd": ({"luminosity": 1}, 1),
    "degC": ({"temperature": 1}, 1),
    "degF": ({"temperature": 1}, Fraction(5, 9)),
    "cell": ({}, 1),
}
_ALIAS = {
    "hr": "h",
    "hrs": "h",
    "hour": "h",
    "hours": "h",
    "minute": "min",
    "minutes": "min",
    "mins": "min",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "day": "d",
    "days": "d",
    "week": "wk",
    "weeks": "wk",
    "month": "mo",
    "months": "mo",
    "year": "a",
    "years": "a",
    "yr": "a",
    "y": "a",
    "l": "L",
    "liter": "L",
    "litre": "L",
    "mcg": "ug",
    "cc": "mL",
    "gram": "g",
    "grams": "g",
    "mcL": "uL",
    "cells": "cell",
    "percent": "%",
    "beats": "1",
    "beat": "1",
    "breaths": "1",
    "°C": "degC",
    "°F": "degF",
    "Cel": "degC",
    "[degF]": "degF",
    "mm[Hg]": "mmHg",
    "lux": "lx",
    "dimensionless": "1",
}
_ENZYME = re.compile(r"(?:[munpk]?U|units?|Units?)$")
_TOKEN = re.compile(
    r"\s*(\*\*|\^|[*/().·⋅]|\{[^}]*\}|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z%°]*\[[A-Za-z]+\]|[A-Za-z%°][A-Za-z%°0-9_]*)"
)


@dataclass(frozen=True)
class Unit:
    """A unit: `dims` ((dimension, exponent), ...) sorted, and `ratio`, how many base units one of it is.

    Two units are equal when dimension and scale are; `parts` only remembers how it is written.
    """

    dims: tuple = ()
    ratio: Fraction = Fraction(1)
    parts: tuple = field(default=(), compare=False)

    @property
    def scale(self) -> float:
        return float(self.ratio)

    @property
    def text(self) -> str:
        def power(name, exponent):
            return name if exponent == 1 else f"{name}^{float(exponent):.6g}"

        over = [power(name, e) for name, e in self.parts if e > 0]
        under = [power(name, -e) for name, e in self.parts if e < 0]
        return "/".join([" ".join(over) or "1", *under])

    @property
    def dimensionless(self) -> bool:
        return not self.dims

    def same_dimension(self, other: "Unit") -> bool:
        return self.dims == other.dims

    def matches(self, other: "Unit") -> bool:
        """Same dimension and, to rounding (roots are not rational), the same scale."""
        return self.dims == other.dims and abs(self.ratio / other.ratio - 1) < Fraction(1, 10**9)

    def __mul__(self, other: "Unit") -> "Unit":
        return Unit(
            _merge(self.dims, other.dims, by_name=True), self.ratio * other.ratio, _merge(self.parts, other.parts)
        )

    def __truediv__(self, other: "Unit") -> "Unit":
        return self * other**-1

    def __pow__(self, exponent) -> "Unit":
        power = Fraction(exponent).limit_denominator(1000)
        ratio = self.ratio**power
        return Unit(
            tuple((n, e * power) for n, e in self.dims if e * power),
            ratio if isinstance(ratio, Fraction) else Fraction(ratio),
            tuple((n, e * power) for n, e in self.parts if e * power),
        )

    def __repr__(self):
        return f"<unit {self.text}>"


def _merge(left, right, by_name=False):
    total = dict(left)
    for name, exponent in right:
        total[name] = total.get(name, 0) + exponent
    kept = [(name, exponent) for name, exponent in total.items() if exponent]
    return tuple(sorted(kept) if by_name else kept)


ONE = Unit()


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Unit:
    clean = text.strip().replace("µ", "u").replace("μ", "u").replace("²", "^2").replace("³", "^3")
    clean = re.sub(r"\{?1\.73[ _]?m(?:\^|\*\*)?2\}?", "{1.73_m2}", clean)
    clean = re.sub(r"\b10\*(-?\d+)", r"10^\1", clean)  # UCUM writes 10^9/L as 10*9/L
    if clean == "":
        return ONE
    tokens, at = [], 0
    while at < len(clean):
        match = _TOKEN.match(clean, at)
        if match is None:
            raise UnitError(f'cannot read the unit "{text}" at "{clean[at:]}". Write it like mg/L, [IU]/h or mL/min/kg')
        tokens.append(match[1])
        at = match.end()
    unit, rest = _product(tokens, text)
    if rest:
        raise UnitError(f'cannot read the unit "{text}" at "{"".join(rest)}". Check its brackets')
    return unit


def _product(tokens, text):
    unit, sign, expect = ONE, 1, True
    while tokens and tokens[0] != ")":
        token, tokens = tokens[0], tokens[1:]
        if token in ("*", ".", "·", "⋅", "/"):
            if expect and not (token == "/" and unit is ONE):
                raise UnitError(f'the unit "{text}" has two operators in a row. Write it like mg/L')
            sign, expect = (-1 if token == "/" else 1), True
            continue
        if token == "(":
            factor_, tokens = _product(tokens, text)
            if not tokens:
                raise UnitError(f'the unit "{text}" lacks a closing bracket. Add it')
            tokens = tokens[1:]
        else:
            factor_ = _symbol(token, text)
        power = 1
        if tokens and tokens[0] in ("^", "**"):
            try:
                power, tokens = Fraction(tokens[1]), tokens[2:]
            except (ValueError, IndexError):
                raise UnitError(f'the unit "{text}" has an exponent that is no number. Write it like m^2') from None
        unit, sign, expect = unit * factor_ ** (sign * power), 1, False
    if expect:
        raise UnitError(f'the unit "{text}" ends in an operator or is empty. Write it like mg/L')
    return unit, tokens


def _symbol(token, text) -> Unit:
    if re.match(r"-?\d", token):
        value = Fraction(token)
        if value <= 0:
            raise UnitError(f'the unit "{text}" has the factor {token}. A factor in a unit must be positive')
        return Unit((), value, () if value == 1 else ((token, 1),))
    if _ENZYME.match(token):
        raise UnitError(f'"{token}" in "{text}" may be an insulin unit or an enzyme unit: write [IU], as in m[IU]/L')
    name: str = _ALIAS.get(token, token)
    name = re.sub(r"\[?[iI]U\]?$", "[IU]", name)
    found = _EXACT.get(name) or _PREFIXABLE.get(name)
    if found is None and name[1:] in _PREFIXABLE and name[0] in _PREFIX:
        dims, scale = _PREFIXABLE[name[1:]]
        found = dims, scale * Fraction(10) ** _PREFIX[name[0]]
    if found is None and (match := re.fullmatch(r"([A-Za-z]+)([23])", name)):  # m2, cm3
        return _symbol(match[1], text) ** int(match[2])
    if found is None and name[1:] == "l" and name[0] in _PREFIX:  # ml, dl
        return _symbol(name[0] + "L", text)
    dims, scale = found if found is not None else _from_pint(name, text)
    return Unit(
        tuple(sorted((n, Fraction(e)) for n, e in dims.items())),
        Fraction(scale),
        () if name == "1" else ((name, Fraction(1)),),
    )


@functools.cache
def _pint():
    import pint

    return pint.UnitRegistry()


_PINT_DIMENSION = {
    "[mass]": "mass",
    "[length]": "length",
    "[time]": "time",
    "[substance]": "amount",
    "[temperature]": "temperature",
    "[current]": "current",
    "[luminosity]": "luminosity",
}


def _from_pint(name, text):
    remedy = difflib.get_close_matches(name, [*_EXACT, *_PREFIXABLE, "mg", "mL", "dL", "mmol", "kg", "mmHg"], 1, 0.5)
    hint = f"Did you mean {remedy[0]}?" if remedy else "Write it like mg/L, [IU]/h or mL/min/kg"
    try:
        quantity: Any = _pint().Quantity(1.0, name).to_base_units()
        dims = {_PINT_DIMENSION[n]: Fraction(e) for n, e in quantity.dimensionality.items()}
    except Exception:  # pint raises a dozen kinds, among them tokenizer errors: all mean that the symbol is unknown
        raise UnitError(f'unknown unit "{name}"' + (f' in "{text}"' if name != text else "") + f". {hint}") from None
    return dims, Fraction(repr(quantity.magnitude)) * Fraction(1000) ** dims.get(
        "mass", 0
    )  # pint's base mass is the kg


def parse(text) -> Unit:
    """The unit written as `text`; "" and "1" are dimensionless. `UnitError` if unknown, `MissingUnit` for None."""
    if isinstance(text, Unit):
        return text
    if text is None:
        raise MissingUnit('a unit is missing. Give it as text, such as "mg/L"; write "1" for a plain number')
    if not isinstance(text, str):
        raise UnitError(f'a unit is text, not {text!r}. Write it like "mg/L"')
    return _parse(text)


@dataclass(frozen=True)
class Substance:
    """What links mass, amount, activity and charge of one substance. Molar masses: PubChem (IUPAC 2021 weights)."""

    molar_mass: float  # g/mol
    mol_per_iu: float | None = (
        None  # insulin: 6.00 nmol per [IU] (Knopp, Holder-Pearson, Chase 2019, J Diabetes Sci Technol 13:597)
    )
    valence: int | None = None  # Eq per mol


SUBSTANCES = {
    "glucose": Substance(180.156),
    "insulin": Substance(5807.6, mol_per_iu=6.0e-9),
    "theophylline": Substance(180.164),
    "warfarin": Substance(308.33),
    "creatinine": Substance(113.12),
    "cortisol": Substance(362.46),
    "cholesterol": Substance(386.65),
    "triglyceride": Substance(885.4),
    "urea": Substance(60.056),
    "urea nitrogen": Substance(28.014),
    "uric acid": Substance(168.11),
    "bilirubin": Substance(584.66),
    "lactate": Substance(89.07, valence=1),
    "vancomycin": Substance(1449.3),
    "gentamicin": Substance(477.6),
    "digoxin": Substance(780.94),
    "phenytoin": Substance(252.27),
    "caffeine": Substance(194.19),
    "acetaminophen": Substance(151.16),
    "ethanol": Substance(46.069),
    "melatonin": Substance(232.28),
    "sodium": Substance(22.990, valence=1),
    "potassium": Substance(39.098, valence=1),
    "chloride": Substance(35.45, valence=1),
    "calcium": Substance(40.078, valence=2),
    "magnesium": Substance(24.305, valence=2),
    "bicarbonate": Substance(61.017, valence=1),
}


def _in_moles(unit: Unit, of: str) -> Unit:
    """`unit` with mass, [IU] and Eq of the substance written as amount."""
    try:
        substance = SUBSTANCES[of.lower()]
    except KeyError:
        near = difflib.get_close_matches(of.lower(), SUBSTANCES, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(SUBSTANCES))}"
        raise UnitError(f'the molar mass of "{of}" is not known. {hint}') from None
    per_mol = {
        "mass": substance.molar_mass,
        "IU": substance.mol_per_iu and 1 / substance.mol_per_iu,
        "Eq": substance.valence,
    }
    for name, exponent in unit.dims:
        if per_mol.get(name):
            in_mol = Unit((("amount", Fraction(1)),), 1 / Fraction(repr(per_mol[name])))
            unit = unit * (Unit(((name, Fraction(-1)),)) * in_mol) ** exponent
    return unit


def factor(source, target, of: str | None = None) -> float:
    """By what to multiply a number in `source` to have it in `target`; `of` names the substance for mass <-> amount.

    Raises `UnitError` when the dimensions differ, and for temperatures on different scales (see `convert`).
    """
    kept = of is None and isinstance(source, str) and isinstance(target, str)  # users may add to SUBSTANCES
    return _plain_factor(source, target) if kept else _factor(source, target, of)


@functools.lru_cache(maxsize=4096)
def _plain_factor(source: str, target: str) -> float:
    return _factor(source, target, None)


def _factor(source, target, of) -> float:
    a, b = parse(source), parse(target)
    if {"degC", "degF"} & ({n for n, _ in a.parts} ^ {n for n, _ in b.parts}) and a.parts != b.parts:
        raise UnitError(f"{a.text} and {b.text} differ by an offset, not only a factor. Use units.convert on the value")
    if not a.same_dimension(b) and of is not None:
        a, b = _in_moles(a, of), _in_moles(b, of)
    if not a.same_dimension(b):
        names = {n for n, _ in a.dims} ^ {n for n, _ in b.dims}
        chemical = names and names <= {"mass", "amount", "IU", "Eq"}
        remedy = (
            'Name the substance, such as of="glucose"' if chemical and of is None else "Check which quantity is meant"
        )
        raise UnitError(
            f"{parse(source).text} cannot be converted to {parse(target).text}"
            + (f" for {of}" if of else "")
            + f": the dimensions differ. {remedy}"
        )
    return float(a.ratio / b.ratio)


def bracketed(text: str) -> str:
    """A unit after a name: "[mg/L]"; "[IU]" brings its own brackets."""
    return text if text == "[IU]" else f"[{text}]"


_ZERO_KELVIN = {"degC": 273.15, "degF": 459.67, "K": 0.0}


def convert(value, source, target, of: str | None = None):
    """`value` (number or array) from `source` to `target`; temperatures with their offset."""
    a, b = (parse(u).parts for u in (source, target))
    if a != b and all(len(p) == 1 and p[0][0] in _ZERO_KELVIN and p[0][1] == 1 for p in (a, b)):
        kelvin = (value + _ZERO_KELVIN[a[0][0]]) * parse(source).scale
        return kelvin / parse(target).scale - _ZERO_KELVIN[b[0][0]]
    return value * factor(source, target, of)


def plain(x: float, digits: int = 3) -> str:
    """A number for a reader, to so many significant digits: no exponent between 1e-4 and 1e7, where one is misread ("1250", and
    not "1.25e+03"), and none of the digits that it does not have.
    """
    text = f"{x:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text and abs(x) < 1e7 else text


def time_factor(source: str, target: str) -> float:
    """How many of one unit of time make the other: 60 from "h" to "min"."""
    if parse(source).dims != parse("s").dims:
        raise UnitError(f'"{source}" is not a unit of time. Write s, min, h, d or wk')
    return factor(source, target)


# what no living body has outside of: used on records only, generous on purpose
_PLAUSIBLE = {
    "glucose": (10, 1000, "mg/dL"),
    "carbs": (0, 500, "g"),
    "bolus": (0, 100, "[IU]"),
    "basal": (0, 20, "[IU]/h"),
    "weight": (0.3, 400, "kg"),
    "height": (20, 260, "cm"),
    "age": (0, 120, "a"),
    "heart rate": (10, 350, "bpm"),
    "creatinine": (0.05, 50, "mg/dL"),
    "temperature": (20, 46, "degC"),
    "sodium": (80, 220, "mmol/L"),
    "potassium": (0.5, 15, "mmol/L"),
    "insulin": (0, 10000, "m[IU]/L"),
    "pressure": (0, 350, "mmHg"),
}
_PLAUSIBLE_AS = {
    "cgm": "glucose",
    "bg": "glucose",
    "smbg": "glucose",
    "meal": "carbs",
    "meals": "carbs",
    "cho": "carbs",
    "snack": "carbs",
    "carbohydrates": "carbs",
    "wt": "weight",
    "bodyweight": "weight",
    "bw": "weight",
    "ht": "height",
    "hr": "heart rate",
    "heart_rate": "heart rate",
    "scr": "creatinine",
    "sbp": "pressure",
    "dbp": "pressure",
    "map": "pressure",
    "temp": "temperature",
}


def plausible(name: str, unit: str | None = None) -> tuple[float, float] | None:
    """(low, high) of a living body for the series `name` ("cgm", "meal", ...) in `unit`; None if nothing is known.

    Without `unit` the range is in the table's own. A unit of another dimension gives None: `factor` says why.
    """
    key = _PLAUSIBLE_AS.get(name.lower(), name.lower())
    if key not in _PLAUSIBLE:
        return None
    low, high, native = _PLAUSIBLE[key]
    if unit is None:
        return float(low), float(high)
    of = key if key in SUBSTANCES else None
    try:
        return convert(float(low), native, unit, of), convert(float(high), native, unit, of)
    except UnitError:
        return None

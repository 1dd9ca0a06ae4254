"""What a command line says in one line of text: worlds, outcomes, units, sensors.

    bolus=shift(-20 min)            every bolus 20 min earlier
    meal=*0.5, bolus=*0.5           both halved, in one world
    bolus=none @06:00..12:00        no bolus between 06:00 and 12:00
    bolus=bolus(6 [IU] at 12:10)    this bolus in place of those of the window; +bolus(...) adds it
    iv=infusion(500 mg at 08:00 over 1 h)
    basal=0.8 [IU]/h                a constant rate; SI=*1.2 a parameter
    bolus: 2..8 [IU] step 0.5 at 07:00, 07:20 @07:00..10:00         what may be chosen, in place of the doses of the window

Nothing here is evaluated as code: every form is matched, and what matches none is refused with the forms there are.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridtwin import outcomes, sensors
from hybridtwin.aims import Aim, Chance, as_aim
from hybridtwin.causal.candidates import Candidates
from hybridtwin.causal.candidates import candidates as offered
from hybridtwin.dosing import Ratio
from hybridtwin.errors import AmbiguousDose, DeclarationError, InterventionError, UnitError, UnknownTarget
from hybridtwin.outcomes import Outcome
from hybridtwin.priors import lognormal
from hybridtwin.signals import Regimen
from hybridtwin.system import nearest
from hybridtwin.units import factor

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CHANGE = re.compile(r"^\s*([A-Za-z_][\w.]*)\s*=\s*(.+?)\s*$")
_WINDOW = re.compile(r"^(.*?)\s*@\s*(.*?)\s*\.\.\s*(.*?)\s*$")
_SHIFT = re.compile(rf"^shift\(\s*({_NUMBER}\s*[A-Za-z]+)\s*\)$")
_TIMES = re.compile(rf"^\*\s*({_NUMBER})$")
_BOLUS = re.compile(rf"^(\+?)\s*bolus\(\s*({_NUMBER})\s*(.*?)\s+at\s+(.+?)\s*\)$")
_INFUSION = re.compile(rf"^(\+?)\s*infusion\(\s*({_NUMBER})\s*(.*?)\s+at\s+(.+?)\s+over\s+(.+?)\s*\)$")
_VALUE = re.compile(rf"^({_NUMBER})\s*(.*)$")
_FORMS = ("Write name=shift(-20 min), name=*0.5, name=none, name=bolus(6 [IU] at 12:10), name=+bolus(6 [IU] at 12:10), "
          "name=infusion(500 mg at 08:00 over 1 h) or name=0.8 [IU]/h; a comma combines, @07:00..12:00 is a window")


_COURSES = ("doses", "signals", "covariates")
_NUMBERS = ("parameters", "constants")


@dataclass(frozen=True)
class Change:
    """A function of the old input or parameter, with the words for it; `fits`: the kinds of target it can change; `decides`: what
    was lived has no say in it, as in a `Regimen`.
    """

    label: str
    function: Callable[[Any], Any]
    fits: tuple[str, ...] = _COURSES
    decides: bool = False

    def __call__(self, old):
        return self.function(old)


class Amount(tuple):
    """(number, unit) with the words for it."""

    @property
    def label(self) -> str:
        return f"{self[0]:g} {self[1]}".rstrip()


@dataclass(frozen=True)
class Asked:
    """One change of one world: what is changed, how, and within which lived time."""

    name: str
    value: Change | Amount
    start: str | float | None = None
    stop: str | float | None = None


def parts(text: str, at: str = ",") -> list[str]:
    """`text` split at commas that stand outside brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == at and depth <= 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found if part.strip()]


def windowed(text: str) -> tuple[str, str | float | None, str | float | None]:
    """("peak(G)", "07:00", "12:00") from "peak(G) @07:00..12:00"; an empty end is open, numbers are in record time."""
    found = _WINDOW.match(text)
    if found is None:
        if "@" in text:
            raise InterventionError(f"cannot read the window of {text!r}. Write @07:00..12:00, or @07:00.. to the end.")
        return text.strip(), None, None
    start, stop = (_moment(end) if end else None for end in found.groups()[1:])
    return found[1].strip(), start, stop


def world(text: str) -> list[Asked]:
    """The changes of one world. **Raises:** InterventionError with all forms, where a change is none of them."""
    found = [_asked(part) for part in parts(text)]
    if not found:
        raise InterventionError(f"a world without a change. {_FORMS}.")
    return found


def _asked(text: str) -> Asked:
    plain, start, stop = windowed(text)
    matched = _CHANGE.match(plain)
    if matched is None:
        raise InterventionError(f"cannot read the change {text!r}. {_FORMS}.")
    name, said = matched[1], matched[2]
    return Asked(name, _value(said, text), start, stop)


def _value(said: str, text: str) -> Change | Amount:
    if found := _SHIFT.match(said):
        by = found[1]
        later = not by.startswith("-")
        return Change(f"{by.lstrip('+-').strip()} {'later' if later else 'earlier'}", lambda old: old.shift(by))
    if found := _TIMES.match(said):
        k = float(found[1])
        return Change(f"{k:g} times as lived", lambda old: old * k, _COURSES + _NUMBERS)
    if said.lower() == "none":
        return Change("none", lambda old: Regimen.none(old.unit) if isinstance(old, Regimen) else old * 0.0, decides=True)
    if found := _BOLUS.match(said):
        return _given(found, "bolus", lambda amount, unit: Regimen.bolus(amount, unit, at=_moment(found[4])))
    if found := _INFUSION.match(said):
        return _given(found, "infusion",
                      lambda amount, unit: Regimen.infusion(amount, unit, at=_moment(found[4]), over=found[5]))
    if found := _VALUE.match(said):
        return Amount((float(found[1]), found[2].strip()))
    raise InterventionError(f"cannot read {said!r} in {text!r}. {_FORMS}.")


def _moment(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _given(found, kind, made) -> Change:
    amount, unit = float(found[2]), found[3]
    words = f"{found[1]}{kind} of {amount:g} {unit} at {found[4]}".replace("  ", " ")

    def change(old):
        fresh = made(amount, unit or old.unit)
        return old + fresh if found[1] else fresh

    return Change(words, change, ("doses",), decides=not found[1])


def suited(spec, asked: list[Asked]) -> list[tuple[Asked, Any]]:
    """Each change as its target takes it, before any work. **Raises:** UnknownTarget, AmbiguousDose, InterventionError."""
    found = []
    for each in asked:
        value, name = each.value, each.name
        group = next((group for group in (*_COURSES, *_NUMBERS, "states") if name in getattr(spec, group)), None)
        if group is None:
            known = [n for g in (*_COURSES, *_NUMBERS, "states") for n in getattr(spec, g)]
            raise UnknownTarget(f"do: {name!r} is nothing that {spec.name} has. {nearest(name, known)}")
        if isinstance(value, Amount):
            if group == "doses":
                raise AmbiguousDose(f"{name} is a dose: {value.label} says how much but not when. Write "
                                    f"{name}=bolus({value.label} at 12:10), or {name}=*0.5.")
            if group is not None and not value[1]:
                value = Amount((value[0], getattr(spec, group)[name].unit))
        elif group is not None and group not in value.fits:
            raise InterventionError(f"{name} is one of the {group}: it cannot become {value.label!r}. "
                                    f"Write {name}=*1.2, or a number with its unit.")
        found.append((each, value))
    return found


def enact(twin, asked: list[Asked]):
    """The twin in the world that was asked for. **Raises:** what `Twin.do` raises."""
    for each, value in suited(twin.fits[0].model.spec, asked):
        twin = twin.do(start=each.start, stop=each.stop, **{each.name: value})
    return twin


# ---------------------------------------------------------------------------------------- outcomes and options



def _hint(name: str, known) -> str:
    """"Did you mean 'x'? " or "Known: x, y. "."""
    text = nearest(name, known)
    return text + (" " if text.endswith("?") else ". ")


_OUTCOMES = {"peak": outcomes.peak, "nadir": outcomes.nadir, "mean": outcomes.mean, "auc": outcomes.auc,
             "cmax": outcomes.cmax, "trough": outcomes.trough, "sd": outcomes.sd, "cv": outcomes.cv, "gmi": outcomes.gmi,
             "lbgi": outcomes.lbgi, "hbgi": outcomes.hbgi, "gri": outcomes.gri}
_SHARES = {"time_above": outcomes.time_above, "time_below": outcomes.time_below,
           "time_in_range": outcomes.time_in_range, "episodes_below": outcomes.episodes_below,
           "episodes_above": outcomes.episodes_above}
_CALL = re.compile(r"^(\w+)\(\s*(.*?)\s*\)$")
_RANGE = re.compile(rf"^({_NUMBER})\s*(?:-|to|\.\.)\s*({_NUMBER})\s+(\S+)$")
_LEVEL = re.compile(rf"^({_NUMBER})\s+(\S+)$")


def outcome(text: str, start=None, stop=None) -> Outcome:
    """An outcome from "peak(G)", "time_below(G, 70 mg/dL)", "time_in_range(G, 70-180 mg/dL)" or "at(C, 12:00)".

    start, stop: the window where the text names none with @07:00..12:00.
    """
    plain, own_start, own_stop = windowed(text)
    start, stop = (start, stop) if own_start is None and own_stop is None else (own_start, own_stop)
    found = _CALL.match(plain)
    if found is None:
        raise DeclarationError(f"cannot read the outcome {text!r}. Write peak(G), time_below(G, 70 mg/dL), "
                               "time_in_range(G, 70-180 mg/dL), at(C, 12:00), auc(C) @08:00..20:00.")
    kind, arguments = found[1], parts(found[2])
    if kind in _OUTCOMES and len(arguments) == 1:
        return _OUTCOMES[kind](arguments[0], start, stop)
    if kind == "at" and len(arguments) == 2:
        return outcomes.at(arguments[0], _moment(arguments[1]))
    if kind in _SHARES and len(arguments) == 2:
        numbers = (_RANGE if kind == "time_in_range" else _LEVEL).match(arguments[1])
        if numbers is not None:
            *levels, unit = numbers.groups()
            return _SHARES[kind](arguments[0], *(float(x) for x in levels), unit, start, stop)
    known = [*_OUTCOMES, *_SHARES, "at"]
    hint = "" if kind in known else _hint(kind, known)
    raise DeclarationError(f"cannot read the outcome {text!r}. {hint}"
                           "Write peak(G), time_below(G, 70 mg/dL), time_in_range(G, 70-180 mg/dL) or at(C, 12:00).")


def pairs(text: str, what: str) -> dict[str, str]:
    """{"cgm": "mg/dL", "meal": "g"} from "cgm=mg/dL,meal=g"."""
    found = {}
    for part in parts(text):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UnitError(f"{what}: cannot read {part!r}. Write name=value, with commas between: cgm=mg/dL,meal=g.")
        found[name.strip()] = value.strip()
    return found


def quantity(text: str, what: str) -> tuple[float, str]:
    """(70.0, "kg") from "70 kg" or "70kg"."""
    found = _VALUE.match(text.strip())
    if found is None or not found[2].strip():
        raise UnitError(f'{what}: cannot read {text!r} as a quantity. Write a number with its unit, such as "70 kg".')
    return float(found[1]), found[2].strip()


_SENSORS: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (
    sensors.Absorbing, sensors.CGM, sensors.Combined1, sensors.Combined2, sensors.Gaussian, sensors.LogNormal, sensors.Poisson)}


def sensor(text: str, scale: float):
    """A sensor from "CGM:G_isf" or "Combined2:C,prop=0.1".

    Fields that are not given take the sensor's own prior; `sd` and `add` have none, since their size is that of the
    readings: their prior is log-normal with a median of a tenth of `scale`, the readings' median (`LogNormal.sd`: 0.2).
    """
    kind, colon, rest = text.partition(":")
    names = parts(rest)
    if kind not in _SENSORS or not colon or not names:
        hint = "" if kind in _SENSORS else _hint(kind, _SENSORS)
        raise DeclarationError(f"cannot read the sensor {text!r}. {hint}Write KIND:OUTPUT, such as cgm=CGM:G_isf or "
                               f"C=Combined2:C; kinds: {', '.join(_SENSORS)}.")
    cls, fields = _SENSORS[kind], {}
    for name, value in pairs(",".join(names[1:]), "sensor").items() if names[1:] else ():
        try:
            fields[name] = float(value)
        except ValueError:
            raise DeclarationError(f"sensor {text!r}: {name}={value} is no number. Write {name}=0.1.") from None
    for name in ("sd", "add", "early"):
        if name in vars(cls)["__dataclass_fields__"] and name not in fields:
            fields[name] = lognormal(0.2, 0.7) if cls is sensors.LogNormal else lognormal(0.1 * scale, 1.0)
    try:
        return cls(names[0], **fields)
    except TypeError as error:
        raise DeclarationError(f"sensor {text!r}: {error}. Give fields that {kind} has.") from None


def systems(text: str, registry) -> list[Any]:
    """The systems of "T1DMinimal+T1DTwoPool"; "T1D" is both structures of type 1 diabetes."""
    found = []
    for name in text.split("+"):
        names = ["T1DMinimal", "T1DTwoPool"] if name.strip() == "T1D" else [name.strip()]
        for each in names:
            if each not in registry:
                raise UnknownTarget(f"there is no system {each!r}. {_hint(each, [*registry, 'T1D'])}"
                                    "All of them: hybridtwin systems.")
            found.append(registry[each])
    return found


# ------------------------------------------------------------------------------------------------------- decisions

_OFFER = re.compile(r"^\s*([A-Za-z_][\w.]*)\s*:\s*(.+?)\s*$")
_WORDS = re.compile(r"\s+(step|at|every|over|before|max|total)\s+")
_SPREAD = re.compile(rf"^({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(.*)$")
_PER = re.compile(rf"^({_NUMBER})\s*(\S+)\s+per\s+(.+?)\s+of\s+([A-Za-z_][\w.]*)$")
_BETWEEN = rf"(?:within\s+)?({_NUMBER})\s*(?:-|to|\.\.)\s*({_NUMBER})"
_WITHIN = re.compile(rf"^(.*\))\s*(?:{_BETWEEN}|at (most|least)\s+({_NUMBER}))\s+(\S+)$")
_LIMIT = re.compile(rf"^(?:P\()?\s*(\w+\(.*?\))\s*([<>])\s*({_NUMBER})\s+(\S+?)\s*\)?\s*(?:at most|<=)\s*({_NUMBER})\s*(%?)$")
_OFFERS = ('Write "bolus: 2..8 [IU] step 0.5 at 07:00, 07:20 @07:00..10:00", "iv: 500, 750 mg at 22:00 every 8 h, 12 h max 1 g/h '
           'total 4 g/d", or "bolus: 1 [IU] per 6..12 g of meal step 1 before 0 min, 20 min"')  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """What is offered for one dose: its name, a grid (`Regimen.grid`, `Ratio.grid`), and the window of the doses it replaces."""

    name: str
    grid: Any
    start: str | float | None = None
    stop: str | float | None = None


def offer(text: str) -> Offer:
    """An offer from "bolus: 2..8 [IU] step 0.5 at 07:00, 07:20 @07:00..10:00". Errors: DeclarationError with all forms."""
    plain, start, stop = windowed(text)
    found = _OFFER.match(plain)
    if found is None:
        raise DeclarationError(f"cannot read the offer {text!r}. {_OFFERS}.")
    name, (amounts, *rest) = found[1], _WORDS.split(found[2])
    said = dict(zip(rest[::2], rest[1::2], strict=True))
    if len(said) < len(rest) // 2:
        raise DeclarationError(f"cannot read the offer {text!r}: a word is said twice. {_OFFERS}.")
    if ratio := _PER.match(amounts):
        return Offer(name, _ratios(text, ratio, said), start, stop)
    if "at" not in said:
        raise AmbiguousDose(f"{text!r} says how much of {name} but not when. Add a time or several: at 07:00, 07:20.")
    numbers, unit = _amounts(amounts, said.pop("step", None), text)
    if "before" in said:
        raise DeclarationError(f"{text!r}: before is for ratios, 1 [IU] per 10 g of meal. Say when with at.")
    every = parts(said["every"]) if "every" in said else None
    return Offer(name, Regimen.grid(numbers, unit, first=[_moment(t) for t in parts(said["at"])], every=every,
                                    over=said.get("over"), max_rate=said.get("max"), max_total=said.get("total")),
                 start, stop)  # fmt: skip


def _ratios(text, found, said):
    numbers, unit = _amounts(found[3], said.pop("step", None), text)
    before = parts(said.pop("before", "0 min"))
    if said:
        wrong = f"{next(iter(said))} does not go with a ratio, which follows the doses of {found[4]}"
        raise DeclarationError(f"{text!r}: {wrong}. {_OFFERS}.")
    return Ratio.grid(found[4], per=numbers, unit=unit, give=(float(found[1]), found[2]), before=before)


def _amounts(text, step, whole) -> tuple[list[float], str]:
    """([2, 2.5, ... 8], "[IU]") from "2..8 [IU]" and a step, or from "4, 6, 8 [IU]"."""
    if found := _SPREAD.match(text):
        low, high, unit = float(found[1]), float(found[2]), found[3]
        size = _step(step, whole)
        count = (high - low) / size if size else -1.0
        if not unit or count < 0 or count > 1000:
            why = "the unit is missing" if not unit else "say step, as in step 0.5"
            why = f"no steps of {size:g} from {low:g} to {high:g}" if unit and size else why
            raise DeclarationError(f"cannot read the amounts of {whole!r}: {why}. {_OFFERS}.")
        return [float(f"{low + k * size:.10g}") for k in range(int(count + 1e-9) + 1)], unit
    *first, last = parts(text)
    found = _VALUE.match(last)
    if found is None or not found[2] or step is not None:
        raise DeclarationError(f"cannot read the amounts of {whole!r}. {_OFFERS}.")
    try:
        return [*(float(each) for each in first), float(found[1])], found[2]
    except ValueError:
        raise DeclarationError(f"cannot read the amounts of {whole!r}: one unit stands behind the last. {_OFFERS}.") from None


def _step(text, whole) -> float | None:
    if text is None:
        return None
    found = _VALUE.match(text)
    if found is None or not float(found[1]) > 0:
        raise DeclarationError(f"{whole!r}: step {text} is no step above 0. Write step 0.5.")
    return float(found[1])


def aim(text: str, start=None, stop=None) -> Aim:
    """An aim from "auc(C) within 400-600 mg*h/L", "peak(G) at most 180 mg/dL" or an outcome that says which way is better."""
    plain, own_start, own_stop = windowed(text)
    start, stop = (start, stop) if own_start is None and own_stop is None else (own_start, own_stop)
    if found := _WITHIN.match(plain):
        low, high = (found[2], found[3]) if found[4] is None else (found[5], None) if found[4] == "least" else (None, found[5])
        low, high = (None if x is None else float(x) for x in (low, high))
        return outcomes.within(outcome(found[1], start, stop), low, high, found[6])
    try:
        return as_aim(outcome(plain, start, stop))
    except DeclarationError as error:
        forms = 'Write "auc(C) within 400-600 mg*h/L", "peak(G) at most 180 mg/dL", "trough(C) at least 2 mg/L" or "mean(G)".'
        told = str(error) if _CALL.match(plain) else f"cannot read the target {text!r}. {forms}"
        raise DeclarationError(told) from None


def chance(text: str, start=None, stop=None) -> Chance:
    """A limit from "nadir(G) < 54 mg/dL at most 1 %" or "P(peak(C) > 20 mg/L) <= 0.05"."""
    plain, own_start, own_stop = windowed(text)
    start, stop = (start, stop) if own_start is None and own_stop is None else (own_start, own_stop)
    found = _LIMIT.match(plain)
    if found is None:
        raise DeclarationError(f'cannot read the limit {text!r}. Write "nadir(G) < 54 mg/dL at most 1 %" or the like.')
    level, most = (float(found[3]), found[4]), float(found[5]) / (100.0 if found[6] else 1.0)
    side = {"below": level} if found[2] == "<" else {"above": level}
    return Chance(outcome(found[1], start, stop), at_most=most, **side)


def candidates(twin, offers: list[Offer], worlds: Mapping[str, list[Asked]]) -> Candidates:
    """Worlds to choose among: every combination of what is offered for each dose, and worlds of `world` texts by name.

    **Raises:** what `candidates` and `Twin.do` raise; InterventionError where offers of one choice have different windows.
    """
    found, numbers, left = {}, {}, ()
    if offers:
        if len({(each.start, each.stop) for each in offers}) > 1:
            raise InterventionError("offers that are combined replace the doses of one window. Give all the same @FROM..TO.")
        made = offered(twin, start=offers[0].start, stop=offers[0].stop, **{each.name: each.grid for each in offers})
        found, numbers, left = dict(made), dict(made.numbers), made.left_out
    return Candidates(found | {text: enact(twin, asked) for text, asked in worlds.items()}, numbers, left)


def known_outputs(spec, asked: list[Outcome]) -> None:
    """Whether a system has what outcomes read. **Raises:** UnknownTarget."""
    known = list(spec.outputs or spec.states)
    for each in asked:
        if each.name and each.name not in known:
            hint = nearest(each.name, known, "Outputs")
            raise UnknownTarget(f"{each.label}: {each.name!r} is no output of {spec.name}. {hint}")


def known_doses(spec, offers: list[Offer], planned: list[Asked]) -> None:
    """Whether a system has the doses that are offered, and the inputs that are planned. **Raises:** UnknownTarget, UnitError."""
    for each in offers:
        if each.name not in spec.doses:
            raise UnknownTarget(f"{each.name!r} is no dose of {spec.name}. {nearest(each.name, list(spec.doses))}")
        ratio = next(iter(getattr(each.grid, "ratios", ())), None)
        factor(ratio.give[1] if ratio else each.grid.unit, spec.doses[each.name].unit)
        if ratio and ratio.of not in spec.doses:
            raise UnknownTarget(f"{ratio.of!r} is no dose of {spec.name}. {nearest(ratio.of, list(spec.doses))}")
        if ratio:
            factor(ratio.per[1], spec.doses[ratio.of].unit)
    inputs = [*spec.doses, *spec.signals]
    for each, _ in suited(spec, planned):
        if each.name not in inputs:
            raise UnknownTarget(f"--plan: {each.name!r} is no dose or signal. {nearest(each.name, inputs)}")


def forecast(twin, until: str, planned: list[Asked]):
    """The twin on the time to come, with what is planned. **Raises:** what `Twin.forecast` raises."""
    spec, inputs = twin.fits[0].model.spec, {}
    for each, value in suited(spec, planned):
        none = Regimen.none(spec.doses[each.name].unit) if each.name in spec.doses else None
        fresh = value if isinstance(value, Amount) else value(inputs.get(each.name, none))
        inputs[each.name] = tuple(fresh) if isinstance(fresh, Amount) else fresh
    return twin.forecast(until, **inputs)

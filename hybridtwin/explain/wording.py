"""An explanation in rows and in words. Nothing is computed here; what may not be said is not said.

Verdict first; drivers with sign, unit, time and interval; harm beside whatever concerns a dose; no imperative, no number under
DO NOT USE, no map of a learned term as a reason.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hybridtwin.outcomes import signed
from hybridtwin.units import plain

NOTICE = "Research use; not a medical device."
_MOST = 5  # of each kind that the text names


def rows(found) -> Iterator[dict[str, Any]]:
    """Rows of the table of an explanation."""
    unit = found.outcome.unit or ""
    if found.shares is not None:
        table = found.shares.table
        for player, (_, row) in zip(found.shares.players, table.iterrows(), strict=True):
            yield {"kind": "input", "what": player.label, "effect": row["share"], "q05": row["q05"], "q95": row["q95"],
                   "unit": unit, "start": player.start, "stop": player.stop, "khat": np.nan}  # fmt: skip
    for s in found.sensitivity.slopes:
        what = f"{s.label} ({s.structure})" if s.structure else s.label
        yield {"kind": s.kind, "what": what, "effect": s.quantile(0.5), "q05": s.quantile(0.05), "q95": s.quantile(0.95),
               "unit": s.unit, "start": s.start, "stop": s.start, "khat": np.nan}  # fmt: skip
    for kind, part in (("reading", found.readings), ("stretch", found.stretches)):
        for r in part.readings:
            yield {"kind": kind, "what": r.label, "effect": r.shift, "q05": np.nan, "q95": np.nan, "unit": unit,
                   "start": r.start, "stop": r.stop, "khat": r.khat}  # fmt: skip


def lines(found) -> list[str]:
    """The text of an explanation, line by line."""
    text = [f"{found.outcome.label}, {found.twin.label}.", f"Verdict: {found.verdict.headline}."]
    text += [f"  {name}: {reason}." for name, part in found.verdict.parts.items() for reason in part.reasons]
    if found.refused:
        text.append("No numbers are shown under this verdict.")
    else:
        text += [answer(found), *_titled("What drives it", drivers(found))]
        text += _titled("What in this body it depends on", body(found))
        text += _titled("What would change it, to first order", changes(found))
        text += _titled("Readings that it rests on", readings(found))
        text += _titled("Days of the record like this one", [a.text for a in found.similar], "the record holds no other such day")
    text += _titled("Outside of what the record has seen", found.unseen)
    text += [f"Note: {note}." for note in found.notes if not found.refused]
    text.append("Rests on: " + "; ".join(assumptions(found)) + ".")
    text.append(NOTICE)
    return text


def _titled(title, items, otherwise="") -> list[str]:
    items = list(items)
    if not items:
        return [f"{title}: {otherwise}."] if otherwise else []
    return [f"{title}:", *(f"  {item}." for item in items)]


def _unit(found) -> str:
    return f" {found.outcome.unit}" if found.outcome.unit not in (None, "", "1") else ""


def answer(found) -> str:
    """The outcome itself with its interval, and what the prior alone says."""
    low, middle, high = np.nanquantile(found.value, [0.05, 0.5, 0.95])
    start, between, stop = np.nanquantile(found.prior_value, [0.05, 0.5, 0.95])
    return (f"It is {plain(middle)}{_unit(found)} (90 % credible interval {plain(low)} to {plain(high)} of the modelled value). "
            f"Prior alone: {plain(between)} ({plain(start)} to {plain(stop)}).")  # fmt: skip


def _interval(low, middle, high) -> str:
    return f"{signed(middle)} ({signed(low)} to {signed(high)})"


def drivers(found) -> list[str]:
    """Doses and stretches of signals with their share, and what is left without any."""
    s = found.shares
    if s is None:
        return []
    unit, told = _unit(found), []
    solved = np.isfinite(s.total)
    for i in s.order[:_MOST]:
        low, middle, high = np.quantile(s.draws[i, solved], [0.05, 0.5, 0.95])
        word = "raises it" if low > 0 else "lowers it" if high < 0 else "moves it, with no sure sign,"
        if not low and not high:
            told.append(f"{s.players[i].label} does not move it")
            continue
        told.append(f"{s.players[i].label} {word} by {_interval(low, middle, high)}{unit}")
    rest = s.order[_MOST:]
    if len(rest):
        low, middle, high = np.quantile(s.draws[rest][:, solved].sum(axis=0), [0.05, 0.5, 0.95])
        told.append(f"the other {len(rest)} together: {_interval(low, middle, high)}{unit}")
    low, middle, high = np.quantile(s.nothing[solved], [0.05, 0.5, 0.95])
    units = found.twin.fits[0].model.spec.signals
    parts = [part for p in s.players for part in p.parts]
    playing = {part[0] for part in parts}
    held = [f"{n} at {plain(v)} {units[n].unit}" for n, v in s.baseline.items() if n in playing]
    without = " and ".join(["no such dose", *held] if any(part[3] for part in parts) else held)
    left = f"{plain(middle)} ({plain(low)} to {plain(high)}){unit}"
    told.append(f"with {without} it would be {left}; draw by draw the shares add up to the difference (medians do not)")
    return told


def body(found) -> list[str]:
    """Parameters by how much the outcome moves when they are a tenth larger."""
    docs = {f.model.name: f.model.spec.parameters for f in found.twin.fits}
    first = found.twin.fits[0].model.name
    chosen = [s for s in found.sensitivity.slopes if s.kind == "parameter" and np.isfinite(s.draws).any()]
    chosen.sort(key=lambda s: -abs(float(np.nanmedian(s.draws)) * s.value))
    told = []
    for s in chosen[:_MOST]:
        by = 0.1 * abs(s.value)
        low, middle, high = sorted(s.quantile(q) * by for q in (0.05, 0.5, 0.95))
        if abs(middle) < 1e-6 * max(abs(float(np.nanmedian(found.value))), 1e-12):
            continue
        doc = docs[s.structure or first][s.name].doc
        of = f" of {s.structure}" if s.structure else ""
        unit = f" {s.value_unit}" if s.value_unit not in ("", "1") else ""
        fixed = ", not inferred" if not s.spread else ""
        value = f"{plain(s.value)}{unit}{fixed}"
        what = f"{doc} ({s.label}{of}, {value})" if doc else f"{s.label}{of} ({value})"
        told.append(f"{what}: a tenth more goes with {_interval(low, middle, high)}{_unit(found)}")
    return told


def changes(found) -> list[str]:
    """Doses and signals by what a tenth more of them, or half an hour later, would do; harm beside each."""
    from hybridtwin.units import time_factor

    half = 0.5 * time_factor("h", found.twin.clock.unit)
    chosen = []
    for s in found.sensitivity.slopes:
        if s.kind == "parameter" or not np.isfinite(s.draws).any() or _is_covariate(found, s):
            continue
        by, word = (half, "half an hour later") if s.kind == "time" else (0.1 * abs(s.value), "a tenth more")
        chosen.append((abs(s.quantile(0.5) * by), s, by, word))
    chosen.sort(key=lambda row: -row[0])
    told = []
    for size, s, by, word in chosen[:_MOST]:
        if size < 1e-6 * max(abs(float(np.nanmedian(found.value))), 1e-12):
            continue
        low, middle, high = (s.quantile(q) * by for q in (0.05, 0.5, 0.95))
        what = s.label.removeprefix("time of ")
        amount = f" ({plain(s.value)} {s.value_unit})" if s.kind != "time" else ""
        line = f"{what}{amount}, {word}: {_interval(low, middle, high)}{_unit(found)}"
        for harm in found.harms:
            beside = next((h for h in harm.slopes if (h.kind, h.label) == (s.kind, s.label)), None)
            if beside is not None and np.isfinite(beside.draws).any():
                low, middle, high = (beside.quantile(q) * by for q in (0.05, 0.5, 0.95))
                unit = f" {harm.outcome.unit}" if harm.outcome.unit not in (None, "", "1") else ""
                moved = f"{_interval(low, middle, high)}{unit}" if low or high else "no change"
                line += f"; beside it, {harm.outcome.label.split(',')[0]}: {moved}"
        told.append(line)
    return told


def _is_covariate(found, slope) -> bool:
    return slope.name in found.twin.fits[0].model.spec.covariates


def readings(found) -> list[str]:
    """Readings and stretches of the record by how far their being there moves the mean."""
    unit, told = _unit(found), []
    for part, most in ((found.stretches, 2), (found.readings, 3)):
        for i in part.order[:most]:
            r = part.readings[i]
            if part is found.stretches and r.count == 1:
                continue  # told as a reading
            many = f" ({r.count} readings)" if r.count > 1 else f" ({plain(r.value)} {r.unit})"
            if r.trusted:
                told.append(f"{r.label}{many} move{'s' * (r.count == 1)} it by {signed(r.shift)}{unit} by being there")
            else:
                told.append(f"{r.label}{many} move{'s' * (r.count == 1)} it by being there, {r.guess(unit)} ({r.doubt})")
    return told


def assumptions(found) -> list[str]:
    """What all of it rests on."""
    names = " and ".join(f.model.name for f in found.twin.fits)
    told = [f"the structure of {names}", "the priors named in the report", "the inputs as recorded, and no others",
            "inputs taken away with what body and rules of care then do; later decisions are kept"]  # fmt: skip
    if found.twin.temper != 1:
        told.append(f"a likelihood tempered by {found.twin.temper:g}, because no model is right")
    if not found.twin.days[0].lived:
        told.append("a new day: a person with this body, not a day that was lived")
    return told

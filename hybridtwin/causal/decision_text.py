"""A decision in plain language. No sentence of it tells anybody what to do."""

import numpy as np

from hybridtwin.causal import grounds

_SHOWN = 5


def text(found) -> str:
    """See `Decision.text`."""
    lines = [f"{len(found)} candidates for {found.twin.id}, compared with: {found.reference.label}."]
    lines += _verdict(found)
    lines.append(f"Target: {found.aim}. Loss: {found.aim.loss_text}. Risk: {found.risk}.")
    lines += [f"Limit: {found.short(limit)} at most {100 * limit.at_most:g} %." for limit in found.limits]
    lines += _answer(found)
    if found.left_out:
        more = f"; and {len(found.left_out) - 3} more" if len(found.left_out) > 3 else ""
        lines.append(f"Left out, not deliverable: {'; '.join(found.left_out[:3])}{more}.")
    if found.kept:
        lines.append("Kept as lived: " + "; ".join(found.kept) + ".")
    lines += [f"Note: {note}." for note in found.notes]
    lines.append(f"Monte Carlo: {int(found.good.sum())} draws, worth {found.worth:.0f} independent ones.")
    lines.append("Rests on: " + "; ".join(found.assumptions) + ".")
    lines.append("Numbers for a treating clinician to weigh; nothing here is an order. Research use; not a medical device.")
    return "\n".join(lines)


def _verdict(found):
    taken = f", taken on record: {found.accepted}" if found.accepted else ""
    lines = [f"Verdict: {found.verdict.headline}{taken}."]
    return lines + [f"  {name}: {reason}." for name, part in found.verdict.parts.items() for reason in part.reasons]


def _answer(found):
    count = int(found.feasible.sum())
    if found.limits and not count:
        worst = np.max(found.chances / np.array([limit.at_most for limit in found.limits]), axis=1)
        nearest = int(np.argmin(worst))
        return [
            f"None of the {len(found)} candidates meets every limit. Nearest to them:",
            f"  {_line(found, nearest)}",
        ]
    lines = [f"{count} of {len(found)} candidates meet{'s' if count == 1 else ''} every limit."] if found.limits else []
    lines.append(f"Lowest {found.risk}" + (" among them" if found.limits else "") + ":")
    lines += [f"  {_line(found, int(i))}" for i in found.order[:_SHOWN]]
    lines += _distinct(found)
    lowest = int(found.order[0])
    lines.append(f"Regret of {found.options[lowest].label}: {found.regret[lowest]:.3g} in expected loss, against full knowledge.")
    here = found.reference
    lines.append(
        f"{here.label[:1].upper()}{here.label[1:]}: {_shares(found, here)}, "
        f"{found.risk} {found.risk.of(here.loss):.3g}{_harm(found, here)}."
    )
    prior = found.options[int(found.prior_order[0])].label
    same = prior == found.options[lowest].label
    lines.append(
        f"Prior alone (a person like this one, limits not counted) has its lowest {found.risk} at: {prior}"
        + (". The same as with the readings." if same else ".")
    )
    return lines


def _distinct(found):
    lowest = int(found.order[0])
    ties = [found.options[i].label for i in np.flatnonzero(found.tied) if i != lowest]
    if ties:
        shown = "; ".join(ties[:6]) + (f"; and {len(ties) - 6} more" if len(ties) > 6 else "")
        return [f"With these draws {found.options[lowest].label} is not told from: {shown}."]
    if len(found.order) > 1:
        second = int(found.order[1])
        gap = found.risks[second] - found.risks[lowest]
        return [f"It is told from the next by {gap:.3g}, more than 2 Monte Carlo errors of the paired difference."]
    return []


def _shares(found, option) -> str:
    below, inside, above = found.aim.shares(option.value)
    low, middle, high = np.quantile(option.value, [0.05, 0.5, 0.95])
    unit = f" {found.aim.unit}" if found.aim.unit not in (None, "1") else ""
    value = f"{middle:.3g}{unit} (90 % {low:.3g} to {high:.3g})"
    if not found.aim.ranged:
        return value
    n = found.worth
    return f"{value}, P(in) {grounds.chance(inside, n)}, P(below) {grounds.chance(below, n)}, P(above) {grounds.chance(above, n)}"


def _harm(found, option) -> str:
    told = []
    for harm, values in zip(found.harms, option.harms, strict=True):
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        unit = f" {harm.unit}" if harm.unit not in (None, "1") else ""
        told.append(f"{found.short(harm)} {middle:.3g}{unit} (90 % {low:.3g} to {high:.3g})")
    return "; harm beside it: " + "; ".join(told) if told else ""


def _limits(found, i) -> str:
    told = [
        f"{found.short(limit)} {100 * p:.2g} %, up to {100 * bound:.2g} % by the draws"
        for limit, p, bound in zip(found.limits, found.chances[i], found.bounds[i], strict=True)
    ]
    return "; ".join(told)


def _line(found, i) -> str:
    option = found.options[i]
    risk = f"{found.risk} {found.risks[i]:.3g} (Monte Carlo error {found.errors[i]:.1g})"
    limits = f"; {_limits(found, i)}" if found.limits else ""
    unsure = "" if found.sure[i] or not found.feasible[i] else "; whether it meets every limit these draws cannot tell for sure"
    acts = f"; rules act {option.acts:.2g} times on average" if option.world.rules else ""
    return f"{option.label}: {_shares(found, option)}, {risk}{_harm(found, option)}{limits}{unsure}{acts}."

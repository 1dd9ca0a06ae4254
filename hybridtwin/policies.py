"""Treatment policies as part of the model: what care decided is a reading of the body that it looked at.

A dose that was given because care saw something says something of what it saw. Where that is recorded and the model explains it,
nothing is lost by leaving the reason out (the policy's own parameters apart). Where care saw what the record does not hold - a
state of the body - then without the reason the dose takes the blame for the state that brought it about, and the likelihood
needs the policy as a factor: p(doses, readings | body) = product over looks of p(given or not | state then) p(readings | states).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from hybridtwin.errors import DeclarationError, InterventionError, RecordError
from hybridtwin.fields import nearest
from hybridtwin.interventions import span_of
from hybridtwin.records import Readings
from hybridtwin.sensors import AbstractSensor, Seen, Terms, _gaussian_terms, keyed
from hybridtwin.system import Scalar, parameter

UNRECORDED = "unrecorded"  # product of a dose that nobody wrote down (`refute`): no decision is read off it
_NO_ERROR = "a decision has no error to be kept in another world. Say what care does: do(respond=...)."


def _decidable(policy, spec, name) -> None:
    if policy.dose not in spec.doses:
        raise DeclarationError(
            f"policy {name!r} decides on {policy.dose!r}, which is no dose of {spec.name}. {nearest(policy.dose, spec.doses)}"
        )


def _given(bound, dose: str) -> list[tuple[float, float]]:
    """Times and amounts of the recorded doses of an input, repeats counted. **Raises:** RecordError where one is uncertain."""
    doses = [d for d in bound.inputs[dose].doses if d.product != UNRECORDED]
    if any(one.latent is not None for one in doses):
        raise RecordError(
            f"a dose of {dose!r} is uncertain, so it is not known whether it was decided",
            person=bound.person, column=dose, remedy="Give its amount and time, or leave the policy out",
        )  # fmt: skip
    return sorted((d.time + float(d.ii or 0.0) * k, float(d.amount)) for d in doses for k in range(d.addl + 1))


def _as_readings(decisions) -> Readings:
    n = len(decisions)
    times, values = np.array(decisions, float).reshape(n, 2).T
    whole, none = np.zeros(n, int), np.full(n, np.nan)
    # in front of everything at its time: care looks, then gives
    return Readings(times, values, "1", whole, none, np.full(n, -1), whole, whole, none)


class Decisions(AbstractSensor):
    r"""Whether care gave a dose, each time it looked: a policy whose decisions are read off the recorded doses.

    P(given) = Phi((level - seen) / error), with `above` Phi((seen - level) / error), `seen` the output in front of the look

    **Arguments:** `of`: the output or state that care saw; `dose`: the input it decided on; `level`, `error`: where it gives in
    half of the cases, and how far off it sees (in the output's unit; numbers or priors); `every`: how often it looks, for the
    first time `first` after the record's start (left out: one `every`). A dose counts for the latest look up to its time; doses
    before the first look were not decided by it. For `wait` after a dose care does not look.

    ```python
    ht.Model(body, level=ht.sensors.LogNormal("C", sd=0.1),
             treated=ht.Decisions("pain", dose="iv", every="4 h", above=True, level=ht.normal(5, 1), error=ht.halfnormal(1)))
    ```

    `ht.graph` and `ht.identify` then show the treatment with its reason. It says why recorded doses were given, not what care
    does in another world: that is `do(respond=...)`. A policy that looks at nothing but recorded readings need not be declared;
    name these in `ht.identify(decided_by=...)`.
    """

    scaled = ("level", "error")
    gaussian = False
    of: str
    level: Scalar = parameter(None, "1", "level at which care gives in half of the cases, in the output's unit", shared=True)
    error: Scalar = parameter(None, "1", "how far off care sees, in the output's unit", shared=True)
    dose: str = ""
    above: bool = False
    every: str = "24 h"
    first: str = ""
    wait: str = "0 min"

    @property
    def decides(self) -> str:
        """The input that it decides on."""
        return self.dose

    def _reason(self, mean):
        """How far the output (N,) lies on the side where care gives, in errors."""
        return (mean - self.level if self.above else self.level - mean) / self.error

    def terms(self, mean, seen: Seen):
        reason, zero = self._reason(mean), jnp.zeros_like(mean)
        loglik = log_ndtr(jnp.where(seen.value > 0.5, reason, -reason))
        return Terms(jnp.where(seen.mask, loglik, 0.0), zero, zero)

    def sample(self, key, mean, seen: Seen):
        return jnp.where(self._reason(mean) + keyed(key, seen.time) > 0, 1.0, 0.0)

    def moved(self, value, mean, other):
        raise InterventionError(_NO_ERROR)

    def suits(self, spec, name) -> None:
        _decidable(self, spec, name)
        spans = {"every": self.every, "wait": self.wait, "first": self.first or self.every}
        if span_of(spans["every"], "s") <= 0 or min(span_of(text, "s") for text in spans.values()) < 0:
            raise DeclarationError(f'policy {name!r}: every={self.every!r} is no stretch of time. Write it like "6 h".')

    def decisions(self, bound, unit: str) -> Readings:
        """What was decided, read off the doses of a bound record."""
        given = np.array([t for t, _ in _given(bound, self.dose)])
        every, wait = span_of(self.every, unit), span_of(self.wait, unit)
        found, busy = [], -np.inf
        for look in np.arange(bound.start + span_of(self.first or self.every, unit), bound.stop, every):
            if look < busy - 1e-9:
                continue
            own = given[(given >= look - 1e-9) & (given < look + every - 1e-9)]
            found.append((look, float(len(own) > 0)))
            busy = own[-1] + wait if len(own) else busy
        return _as_readings(found)


class Amounts(AbstractSensor):
    r"""How much care gave, by what it saw in front of the dose: a policy whose decisions are the recorded amounts.

    amount = base + gain * seen + N(0, spread), `seen` the output in front of the dose

    **Arguments:** `of`: the output or state that care saw; `dose`: the input whose amounts it decided on; `base` and `spread` (in
    the dose's unit) and `gain` (in that unit per unit of the output): numbers or priors. Every recorded dose of that input, from
    `first` after the record's start on (left out: all of them), was decided so. Beside `Decisions` on the same input it says how
    much where that says whether.

    ```python
    ht.Model(body, cgm=ht.sensors.CGM("G_isf"),
             titrated=ht.Amounts("G", dose="bolus", base=ht.normal(0, 2), gain=ht.normal(0.03, 0.02), spread=ht.halfnormal(1)))
    ```
    """

    of: str
    base: Scalar = parameter(None, "1", "amount where care sees nothing, in the dose's unit", shared=True)
    gain: Scalar = parameter(None, "1", "how much more for each unit of the output, in the dose's unit", shared=True)
    spread: Scalar = parameter(None, "1", "standard deviation of amounts beside that, in the dose's unit", shared=True)
    dose: str = ""
    first: str = "0 min"

    @property
    def decides(self) -> str:
        """The input that it decides on."""
        return self.dose

    def terms(self, mean, seen: Seen):
        return _gaussian_terms(self.base + self.gain * mean, jnp.broadcast_to(self.spread, mean.shape), seen)

    def sample(self, key, mean, seen: Seen):
        return self.base + self.gain * mean + self.spread * keyed(key, seen.time)

    def moved(self, value, mean, other):
        raise InterventionError(_NO_ERROR)

    def suits(self, spec, name) -> None:
        _decidable(self, spec, name)

    def decisions(self, bound, unit: str) -> Readings:
        """What was decided, read off the doses of a bound record."""
        since = bound.start + span_of(self.first, unit) - 1e-9
        return _as_readings([(t, amount) for t, amount in _given(bound, self.dose) if t >= since])


def decided(bound, model):
    """A bound record with the decisions of the model's policies among its readings.

    **Raises:** RecordError where readings have a policy's name, or a dose is uncertain.
    """
    found = {}
    for name, policy in model.sensors.items():
        if policy.decides:
            if len(bound.readings.get(name, ())):
                raise RecordError(
                    f"{name!r} is a policy of the model, and decisions are read off the doses",
                    person=bound.person, column=name, remedy="Name the policy otherwise, or leave out these readings",
                )  # fmt: skip
            found[name] = policy.decisions(bound, model.spec.time)
    return dataclasses.replace(bound, readings={**bound.readings, **found}) if found else bound

"""Insulin under the skin by product: rapid, regular, NPH, glargine and degludec, into one plasma."""

import dataclasses

import numpy as np

from hybridtwin.errors import RecordError
from hybridtwin.physiology.glucose.t1d import SubcutaneousInsulin
from hybridtwin.physiology.reference import Protocol, Reference, Since, half_life
from hybridtwin.signals import Regimen
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    covariate,
    dose,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_HUMALOG = "insulin lispro, US prescribing information, section 12.3"
_NOVOLIN = "regular human insulin (Novolin R), US prescribing information, section 12.3"
_HUMULIN = "NPH (Humulin N), US prescribing information, section 12.3"
_TRESIBA = "insulin degludec, US prescribing information, section 12.3"
_LANTUS = "glargine 100 U/mL: UpToDate, basal insulins, 12 h; 13.5 h at 0.4 U/kg, as quoted for degludec by its maker"
_KRISHNASAMY = "Krishnasamy and Abell 2018, table 11, doi:10.1007/s13300-018-0454-9"

PRODUCTS = {
    "bolus": ("rapid", "lispro", "aspart", "glulisine", "humalog", "novolog", "novorapid", "apidra", "fiasp", "pump"),
    "regular": ("human", "humulin r", "novolin r", "actrapid"),
    "nph": ("isophane", "humulin n", "novolin n", "insulatard", "protaphane"),
    "glargine": ("lantus", "basaglar", "abasaglar", "semglee"),
    "degludec": ("tresiba",),
}
_DEPOTS = ("regular", "nph", "glargine", "degludec")


def by_product(regimen: Regimen) -> dict[str, Regimen]:
    """The doses of `InsulinProducts` by input, from doses that name their product: `doses=by_product(regimen)`.

    Names as in `PRODUCTS`, generic or brand, in any case; a dose that names none is rapid insulin (`bolus`).

    **Raises:** RecordError (mixtures, and insulins without a depot here, such as detemir or glargine of 300 U/mL).
    """
    inputs = {name: key for key, names in PRODUCTS.items() for name in (key, *names)}
    found: dict[str, list] = {}
    for given in regimen.doses:
        name = (given.product or "bolus").lower().removeprefix("insulin ")
        if name not in inputs:
            raise RecordError(
                f"the insulin {given.product!r} is not known",
                row=given.row,
                column="product",
                remedy=f"Known: {', '.join(inputs)}. Name the nearest of them, or give a mixture as two doses",
            )
        found.setdefault(inputs[name], []).append(given)
    return {key: dataclasses.replace(regimen, doses=tuple(doses)) for key, doses in found.items()}


class InsulinDepot(System):
    r"""One product under the skin: what is released from the injected form, and then absorbed.

    df/dt = -kr f          dd/dt = kr f - ka d          flow = ka d          ka = kr (1 + lead)

    f `form`, d `dissolved` [IU]; kr `release` [1/min], lead [1]; time in min. The flow is the same when kr and ka trade
    places; the slower of the two is taken as the release.

    Source: two first-order steps, as in Wong 2008, doi:10.1177/193229680800200417.
    """

    time = "min"

    class State(State):
        form: Scalar = state("[IU]", "in the injected form: crystals, precipitate or hexamers")
        dissolved: Scalar = state("[IU]", "ready to be absorbed")

    class Input(Input):
        injected: Scalar = dose("[IU]", "injected under the skin", into="form")

    release: Scalar = parameter(
        lognormal(0.005, 0.4), "1/min", "rate of release", source="last half-life of the product"
    )
    lead: Scalar = parameter(lognormal(1.0, 0.6), "1", "how much faster it is absorbed: ka / kr - 1",
                             source="time of the product's peak")  # fmt: skip

    @property
    def absorption(self):
        return self.release * (1.0 + self.lead)

    def flow(self, x):
        """Insulin that enters plasma [[IU]/min]."""
        return self.absorption * x.dissolved

    def rates(self, t, x, u):
        released = self.release * x.form
        return self.State(form=-released, dissolved=released - self.flow(x))

    def conserved(self, x, u):
        return {"insulin": (x.form + x.dissolved, -self.flow(x))}

    def outputs(self, x, u):
        return {"flow": output(self.flow(x), "[IU]/min", "insulin that enters plasma")}


def _peak(name):
    return lambda lived: lived.time[np.argmax(lived[name])] / 60.0


def _last(name, start, stop):
    return lambda lived: half_life(lived, name, 60.0 * start, 60.0 * stop) / 60.0


def _absorbed(name, amount=10.0, share=0.9):
    """Hours until a share of an injection has entered plasma."""

    def hours(lived):
        flow, time = lived[name], lived.time / 60.0
        entered = np.concatenate([[0.0], np.cumsum(0.5 * (flow[1:] + flow[:-1]) * np.diff(time))])
        return np.interp(share * amount, entered, time)

    return hours


class InsulinProducts(System):
    r"""Insulin products under the skin: rapid, regular, NPH, glargine and degludec, and what they make in plasma.

    insulin: rapid insulin and plasma, see `SubcutaneousInsulin`          regular, nph, glargine, degludec: see `InsulinDepot`
    dI/dt = (ka2 s2 + kl l + sum of the depots' flows) / (VI W) - ke I

    I `insulin.I` [m[IU]/L], W `weight` [kg]; flows in [IU]/h, one output each; time in min. Every product acts in plasma as
    the same insulin: degludec binds to albumin, so that its measured concentrations are many times the I that it stands
    for here. Glargine of 300 U/mL (half-life 19 h) is another product: give `glargine.release`.

    Interventions: one product for another, its amount and time: `bolus`, `regular`, `nph`, `glargine`, `degludec`, `basal`.
    Doses: `bolus` (rapid), `regular`, `nph`, `glargine`, `degludec`; `long_acting` for one whose product is unknown; `basal` by a
    pump. A regimen whose doses name their product becomes these by `by_product(regimen)`. Priors: release from each
    label's half-life, lead from its time of peak, spread assumed. Source: Wong 2008, doi:10.1177/193229680800200417,
    and `SubcutaneousInsulin`.
    """

    time = "min"
    protocol = Protocol(
        2880.0, "10 U of each product at once, and how each enters plasma",
        shows=("from_bolus", "from_regular", "from_nph", "from_glargine", "from_degludec"),
        doses={name: Regimen.bolus(10.0, "[IU]", at=0.0) for name in PRODUCTS}, covariates={"weight": (70.0, "kg")},
    )  # fmt: skip
    references = (
        Reference("rapid: time of the peak", "h", (0.5, 1.5), _HUMALOG, _peak("from_bolus"), drawn=("from_bolus", Since())),
        Reference("rapid: half-life", "h", 1.0, _HUMALOG, _last("from_bolus", 4.0, 8.0)),
        Reference("rapid: duration, 90 % absorbed", "h", (2.0, 5.0), _KRISHNASAMY, _absorbed("from_bolus")),
        Reference("regular: time of the peak", "h", (1.5, 2.5), _NOVOLIN, _peak("from_regular"), drawn=("from_regular", Since())),
        Reference("regular: half-life", "h", 1.5, _HUMALOG, _last("from_regular", 12.0, 16.0)),
        Reference("regular: duration, 90 % absorbed", "h", (6.0, 8.0), _KRISHNASAMY, _absorbed("from_regular")),
        Reference("NPH: time of the peak", "h", 4.0, _HUMULIN + ": 1 to 12 h", _peak("from_nph"), drawn=("from_nph", Since())),
        Reference("NPH: half-life", "h", 4.4, _HUMULIN, _last("from_nph", 24.0, 36.0)),
        Reference("NPH: duration, 90 % absorbed", "h", (12.0, 16.0), _KRISHNASAMY, _absorbed("from_nph")),
        Reference("glargine: time of the peak, not pronounced", "h", (8.0, 12.0), "UpToDate, available insulins: 8 to 12 h",
                  _peak("from_glargine"), drawn=("from_glargine", Since())),
        Reference("glargine: half-life", "h", (12.0, 13.5), _LANTUS, _last("from_glargine", 36.0, 48.0)),
        Reference("degludec: time of the peak", "h", 9.0, _TRESIBA, _peak("from_degludec"), drawn=("from_degludec", Since())),
        Reference("degludec: half-life", "h", 25.0, _TRESIBA, _last("from_degludec", 36.0, 48.0)),
    )  # fmt: skip

    class State(State):
        insulin: SubcutaneousInsulin.State
        regular: InsulinDepot.State
        nph: InsulinDepot.State
        glargine: InsulinDepot.State
        degludec: InsulinDepot.State

    class Input(Input):
        bolus: Scalar = dose("[IU]", "rapid insulin injected", into="insulin.s1")
        regular: Scalar = dose("[IU]", "regular human insulin injected", into="regular.form")
        nph: Scalar = dose("[IU]", "NPH injected", into="nph.form")
        glargine: Scalar = dose("[IU]", "glargine (100 U/mL) injected", into="glargine.form")
        degludec: Scalar = dose("[IU]", "degludec injected", into="degludec.form")
        long_acting: Scalar = dose("[IU]", "long-acting insulin of an unknown product injected", into="insulin.slow")
        basal: Scalar = signal("[IU]/h", "rapid insulin infused by a pump", default=0.0)
        weight: Scalar = covariate("kg", "body weight")
        usual_slow: Scalar = covariate("[IU]/h", "long-acting insulin an hour, on average", default=0.0)

    insulin: SubcutaneousInsulin = SubcutaneousInsulin()
    regular: InsulinDepot = InsulinDepot(release=lognormal(0.0077, 0.4), lead=lognormal(0.3, 0.8))
    nph: InsulinDepot = InsulinDepot(release=lognormal(0.00263, 0.5), lead=lognormal(1.35, 0.8))
    glargine: InsulinDepot = InsulinDepot(release=lognormal(0.00086, 0.3), lead=lognormal(2.9, 0.6))
    degludec: InsulinDepot = InsulinDepot(release=lognormal(0.000462, 0.2), lead=lognormal(9.4, 0.4))

    def depots(self, x):
        """Each depot and its state, by product."""
        return {name: (getattr(self, name), getattr(x, name)) for name in _DEPOTS}

    def rates(self, t, x, u):
        rapid = self.insulin.rates(t, x.insulin, u)
        flow = sum(depot.flow(here) for depot, here in self.depots(x).values())
        plasma = rapid.I + flow * const(1000.0, "m[IU]/[IU]") / (self.insulin.VI * u.weight)
        return self.State(
            insulin=self.insulin.State(s1=rapid.s1, s2=rapid.s2, slow=rapid.slow, I=plasma),
            **{name: depot.rates(t, here, u) for name, (depot, here) in self.depots(x).items()},
        )

    def conserved(self, x, u):
        """Insulin of all products, under the skin and in plasma."""
        amount, gained = self.insulin.conserved(x.insulin, u)["insulin"]
        return {"insulin": (amount + sum(here.form + here.dissolved for _, here in self.depots(x).values()), gained)}

    def outputs(self, x, u):
        hourly = const(60.0, "min/h")
        flows = {"bolus": self.insulin.ka2 * x.insulin.s2}
        flows |= {name: depot.flow(here) for name, (depot, here) in self.depots(x).items()}
        return {
            "insulin": output(x.insulin.I, "m[IU]/L", "plasma insulin"),
            **{
                f"from_{name}": output(hourly * flow, "[IU]/h", f"{name}: flow into plasma")
                for name, flow in flows.items()
            },
        }

    def steady(self, u):
        empty = dict.fromkeys(_DEPOTS, InsulinDepot.State(form=0.0, dissolved=0.0))
        return self.State(insulin=self.insulin.rest(u), **empty)

"""The kidney as a filter: creatinine made by muscle and cleared by filtration, and a drug that leaves the same way."""

import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.drugs.pharmacokinetics import WARD, WIDE
from hybridtwin.physiology.reference import Protocol, Reference, Since, area, curve, half_life
from hybridtwin.signals import Regimen, Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    coupled,
    covariate,
    dose,
    empirical,
    lognormal,
    output,
    parameter,
    signal,
    state,
    typical,
)

_CG = "Cockcroft and Gault 1976, doi:10.1159/000180580"
_EPI = "CKD-EPI 2021, doi:10.1056/NEJMoa2102953"
_GOTI = "Goti 2018, doi:10.1097/FTD.0000000000000490"
_ADULT = {"weight": (70.0, "kg"), "age": (40.0, "yr"), "female": (0.0, "1")}


class Kidney(System):
    r"""Serum creatinine: made by muscle, spread in body water, cleared by filtration.

    dA/dt = make (140 - age) weight (1 - .15 female) / 7200 mg/min - GFR function C          C = A / V,  V = water weight

    A `creatinine` [mg], C [mg/dL], GFR [mL/min] what this person filters when well, `function` the share of it at present
    (an input: acute injury, recovery), make [1] muscle over what Cockcroft and Gault expect; time in h. At rest
    C = production / (GFR function). `eGFR` is what a laboratory would print from C (CKD-EPI 2021): right at rest, far too
    high after a sudden injury, because C takes days to tell.
    Interventions: `function` (do(function=0.1) from a time on), parameters. Source: Cockcroft and Gault 1976,
    doi:10.1159/000180580, for what is made; Waikar and Bonventre 2009, doi:10.1681/ASN.2008070669, for the time course.
    """

    time = "h"
    grid = "1 h"
    protocol = Protocol(
        96.0, "an adult of 40 years and 70 kg, of whose filtration 90 % is lost after a day, as in Waikar and Bonventre 2009",
        covariates=_ADULT, shows=("C", "eGFR"), signals={"function": Signal.steps([0.0, 24.0], [1.0, 0.1], "1")},
    )  # fmt: skip
    references = (
        Reference("serum creatinine", "mg/dL", (0.6, 1.2), "Laposata, Laboratory Medicine, its table as in ehrapy",
                  lambda lived: lived.resting("C"), drawn=("C", 0.0)),
        Reference("creatinine a day", "mg/kg/d", (14.0, 26.0), "med-health.net, range of men",
                  lambda lived: 24.0 * lived.resting("C") * 10.0 * float(lived.body.GFR) * 0.06 / 70.0),
        Reference("hours to 1.5 times creatinine after losing 90 % of filtration", "h", 4.0,
                  "Waikar and Bonventre 2009, doi:10.1681/ASN.2008070669, normal baseline",
                  lambda lived: np.interp(1.5 * lived["C"][0], lived["C"], lived.time) - 24.0, drawn=("C", Since(24.0))),
        Reference("rise of creatinine a day after losing 90 % of filtration", "%", 246.0,
                  "Waikar and Bonventre 2009, doi:10.1681/ASN.2008070669, normal baseline",
                  lambda lived: 100.0 * (lived.at("C", 48.0) / lived.at("C", 24.0) - 1.0)),
    )  # fmt: skip

    class State(State):
        creatinine: Scalar = state("mg", "creatinine in body water")

    class Input(Input):
        function: Scalar = signal("1", "share of this person's filtration that works at present", default=1.0)
        weight: Scalar = covariate("kg", "body weight")
        age: Scalar = covariate("yr", "age")
        female: Scalar = covariate("1", "1 for women, 0 for men", default=0.0)

    GFR: Scalar = parameter(lognormal(100.0, 0.25), "mL/min", "filtration when well",
                            source="Levey 2003, doi:10.7326/0003-4819-139-2-200307150-00013; spread assumed")  # fmt: skip
    make: Scalar = parameter(lognormal(1.0, 0.2), "1", "muscle over what age and weight let expect", source=_CG)
    water: Scalar = constant(0.6, "L/kg", "body water", source="Watson 1980, doi:10.1093/ajcn/33.1.27")

    def production(self, u):
        """Creatinine made [mg/h]."""
        years = 140.0 - u.age / const(1.0, "yr")
        size = u.weight / const(1.0, "kg")
        return self.make * empirical(years * size * (1.0 - 0.15 * u.female) / 7200.0 * 60.0, "mg/h", source=_CG)

    def clearance(self, u):
        """What is filtered at present [L/h]."""
        return self.GFR * u.function * const(0.06, "L*min/mL/h")

    def rates(self, t, x, u):
        return self.State(creatinine=self.production(u) - self.clearance(u) / (self.water * u.weight) * x.creatinine)

    def conserved(self, x, u):
        filtered = self.clearance(u) * x.creatinine / (self.water * u.weight)
        return {"creatinine": (x.creatinine, self.production(u) - filtered)}

    def outputs(self, x, u):
        C = x.creatinine / (self.water * u.weight) * const(0.1, "L/dL")
        kappa = jnp.where(u.female > 0.5, 0.7, 0.9)
        power = jnp.where(u.female > 0.5, -0.241, -0.302)
        share = jnp.maximum(C / const(1.0, "mg/dL"), 1e-3) / kappa
        body = jnp.where(u.female > 0.5, 1.012, 1.0) * 0.9938 ** (u.age / const(1.0, "yr"))
        shape = jnp.exp(power * jnp.log(jnp.minimum(share, 1.0))) * jnp.maximum(share, 1.0) ** -1.2
        return {
            "C": output(C, "mg/dL", "serum creatinine"),
            "eGFR": output(empirical(142.0 * shape * body, "mL/min/{1.73_m2}", source=_EPI),
                           "mL/min/{1.73_m2}", "filtration as a laboratory estimates it from C"),
        }  # fmt: skip

    def rest(self, u):
        """Creatinine at rest [mg]."""
        return self.production(u) * self.water * u.weight / self.clearance(u)

    def initial(self, u):
        return self.State(creatinine=self.rest(u))

    def steady(self, u):
        return self.State(creatinine=self.rest(u))


class Vancomycin(System):
    r"""Vancomycin in a person whose kidney is modelled: the drug and creatinine leave by the same filter.

    kidney: see `Kidney`          filtration = GFR function, a coupling: what the kidney gives to the drug
    dA/dt = -(CL/Vc) A - Q (A/Vc - P/Vp)          dP/dt = Q (A/Vc - P/Vp)          C = A / Vc
    CL = CL120 (filtration / 120 mL/min)^0.8          Vc = V70 weight / 70 kg

    A `central`, P `peripheral` [mg], C [mg/L]; CL120 [L/h] at a filtration of 120 mL/min, V70 and Vp [L], Q [L/h]. A
    creatinine reading informs the clearance of the drug and a drug level the filtration, also while filtration changes.
    Doses: `iv` (compartment 1). Interventions: `iv` (amount, interval), `function` (the kidney fails).
    Source: Goti 2018, doi:10.1097/FTD.0000000000000490, on the kidney of `Kidney`.
    """

    time = "h"
    grid = "1 h"
    protocol = Protocol(
        72.0, "1 g over an hour every 12 h", shows=("C",), covariates=_ADULT,
        doses={"iv": Regimen.infusion(1000.0, "mg", at=0.0, over="1 h").every("12 h", times=6)},
    )  # fmt: skip
    references = (
        Reference("area under the curve of a day, third day", "mg*h/L", (400.0, 600.0),
                  "Rybak 2020, target of such doses, doi:10.1093/ajhp/zxaa036", lambda lived: area(lived, "C", 48.0, 72.0)),
        Reference("half-life, normal kidneys", "h", (4.0, 12.0),
                  "US prescribing information: 4 to 6 h; Rybak 2009, doi:10.2146/ajhp080434: 6 to 12 h",
                  lambda lived: half_life(lived, "C", 66.0, 72.0)),
        Reference("half-life, filtration of 35 mL/min", "h", 32.3, "Matzke 1984, doi:10.1128/AAC.25.4.433: 10 to 60 mL/min",
                  lambda lived: half_life(lived.again(parameters={"kidney.GFR": 35.0}, stop=240.0), "C", 160.0, 240.0)),
        *curve("vancomycin in plasma, at the end of the last infusion, 2 h and 11 h later", "mg/L", "C",
               {61.0: 63.0, 63.0: 23.0, 72.0: 8.0}, WARD, time="h", why={61.0: WIDE, 72.0: WIDE}),
    )  # fmt: skip

    class State(State):
        kidney: Kidney.State
        central: Scalar = state("mg", "vancomycin in plasma and what mixes with it at once")
        peripheral: Scalar = state("mg", "vancomycin in tissue")

    class Input(Input):
        iv: Scalar = dose("mg", "vancomycin into a vein", into="central", cmt=1)
        function: Scalar = signal("1", "share of this person's filtration that works at present", default=1.0)
        weight: Scalar = covariate("kg", "body weight")
        age: Scalar = covariate("yr", "age")
        female: Scalar = covariate("1", "1 for women, 0 for men", default=0.0)
        filtration: Scalar = coupled("mL/min", "what the kidney filters at present: the drug leaves by it")

    kidney: Kidney = Kidney()
    CL120: Scalar = parameter(typical(4.5, cv=0.4), "L/h", "clearance at a filtration of 120 mL/min", source=_GOTI)
    V70: Scalar = parameter(typical(58.4, cv=0.82), "L", "central volume at 70 kg", source=_GOTI)
    Q: Scalar = parameter(typical(6.5, cv=0.4), "L/h", "exchange with tissue", source=_GOTI + "; spread assumed")
    Vp: Scalar = parameter(typical(38.4, cv=0.57), "L", "peripheral volume", source=_GOTI)

    def volume(self, u):
        return self.V70 * u.weight / const(70.0, "kg")

    def couplings(self, x, u):
        return {"filtration": self.kidney.GFR * u.function}

    def clearance(self, u):
        """CL [L/h] at the present filtration."""
        return self.CL120 * (u.filtration / const(120.0, "mL/min")) ** 0.8

    def rates(self, t, x, u):
        CL, V = self.clearance(u), self.volume(u)
        exchange = self.Q * (x.central / V - x.peripheral / self.Vp)
        return self.State(
            kidney=self.kidney.rates(t, x.kidney, u), central=-CL / V * x.central - exchange, peripheral=exchange
        )

    def conserved(self, x, u):
        lost = self.clearance(u) / self.volume(u) * x.central
        return {**self.kidney.conserved(x.kidney, u), "drug": (x.central + x.peripheral, -lost)}

    def outputs(self, x, u):
        return {"C": output(x.central / self.volume(u), "mg/L", "vancomycin in plasma"),
                "creatinine": self.kidney.outputs(x.kidney, u)["C"]}  # fmt: skip

    def _at(self, kidney):
        none = 0.0 * kidney.creatinine
        return self.State(kidney=kidney, central=none, peripheral=none)

    def initial(self, u):
        return self._at(self.kidney.initial(u))

    def steady(self, u):
        return self._at(self.kidney.steady(u))

"""Body weight: what eating more or less does over months."""

import jax.numpy as jnp

from hybridtwin.physiology.reference import Protocol, Reference, curve
from hybridtwin.signals import Signal
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    covariate,
    empirical,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_HALL = "Hall 2011, doi:10.1016/S0140-6736(11)60812-X"
_BW = _HALL + ", web appendix, in kcal as in the package bw"
_MIFFLIN = "Mifflin 1990, doi:10.1093/ajcn/51.2.241"
_SILVA = "Silva 2007, doi:10.1088/0967-3334/28/5/004"
_JACKSON = "Jackson 2002, doi:10.1038/sj.ijo.0802006"
_YEAR = 365.0


class Hall2011(System):
    r"""Adult body weight under changes of what is eaten and done: fat, lean tissue, glycogen, fluid, adaptation.

    RMR = rmr (9.99 W0 + 625 height - 4.92 age + 5, women -161)          TEI0 = PAL RMR
    ECF0 = .025 age + 9.57 height + .191 W0 - 12.4, women 5.98 height + .167 W0 - 4
    F0 = W0 (.14 age + 37.31 ln BMI - 103.94) / 100, women .14 age + 39.96 ln BMI - 102.01
    L0 = W0 - F0 - ECF0 - 3.7 G0          CI0 = share0 TEI0          CI = share (TEI0 + energy)
    d adaptation/dt = (betaAT energy - adaptation) / tauAT
    dECF/dt = (sodium - zetaNa (ECF - ECF0) - zetaCI (1 - CI / CI0)) / Na
    dG/dt = (CI - CI0 (G / G0)^2) / rhoG
    F = F0 exp((L - L0) / forbes)          W = F + L + ECF + 3.7 G          c = forbes rhoL / rhoF
    delta = ((1 - betaTEF) PAL - 1) RMR / W0          K = PAL RMR - gammaL L0 - gammaF F0 - delta W0
    E = K + (delta + exercise RMR (1 - betaTEF) / W0) W + betaTEF energy + adaptation + gammaL L + gammaF F
    S = (TEI0 + energy - E - heat dG/dt) / ((1 + etaL / rhoL) c + (1 + etaF / rhoF) F)          dL/dt = S c / rhoL

    adaptation [kcal/d], ECF, G, L [kg] states, F `fat`, W `weight` [kg]; W0 `baseline` [kg], height [m], age [yr], female
    [1] covariates of the first day, when weight is in balance; energy [kcal/d] what is eaten beyond balance, sodium [mg/d],
    share [1] of energy from carbohydrates, exercise [1] what is added to PAL, all signals; time in d. PAL, rmr, betaAT,
    betaTEF [1], tauAT [d], gammas [kcal/kg/d], rhos, etas, heat [kcal/kg], zetaNa [mg/kg/d], zetaCI [mg/d], Na [mg/kg].
    `heat` is rhoG; the package bw, by mistake, has 1 there, which moves a year's weight by less than 7 g (`heat=1`).
    With the signals at 0 and share = share0 the start is the rest.

    `do` acts on `energy`, `sodium`, `share` and `exercise`: a diet, salt, training. Priors: spreads assumed or as told.
    Source: Hall 2011, doi:10.1016/S0140-6736(11)60812-X.
    """

    time = "d"
    grid = "1 d"
    protocol = Protocol(
        3 * _YEAR, "1 MJ (239 kcal) a day less, for three years", shows=("weight", "fat"),
        signals={"energy": Signal.constant(-239.0, "kcal/d")},
        covariates={"baseline": (90.0, "kg"), "height": (1.76, "m"), "age": (45.0, "yr"), "female": (0.0, "1")},
    )  # fmt: skip
    references = (
        Reference("weight lost in a year, 100 kJ a day for each half kg", "kg", 5.0, _HALL,
                  lambda lived: lived["weight"][0] - lived.at("weight", _YEAR)),
        Reference("share of the loss after three years that one year brings", "%", 100 * 0.5 / 0.95, _HALL,
                  lambda lived: 100.0 * (lived["weight"][0] - lived.at("weight", _YEAR))
                  / (lived["weight"][0] - lived["weight"][-1])),
        Reference("weight lost in three years, 95 % of 100 kJ a day for each kg", "kg", 9.5, _HALL,
                  lambda lived: lived["weight"][0] - lived["weight"][-1]),
        *curve("weight, of 90 kg, by those rules", "kg", "weight", {_YEAR: 85.0, 3 * _YEAR: 80.5}, _HALL, time="d"),
    )  # fmt: skip

    class State(State):
        adaptation: Scalar = state("kcal/d", "adaptive thermogenesis", positive=False)
        ECF: Scalar = state("kg", "extracellular fluid")
        G: Scalar = state("kg", "glycogen")
        L: Scalar = state("kg", "lean tissue")

    class Input(Input):
        energy: Scalar = signal("kcal/d", "energy eaten beyond balance")
        sodium: Scalar = signal("mg/d", "sodium eaten beyond balance")
        share: Scalar = signal("1", "share of energy from carbohydrates", default=0.5)
        exercise: Scalar = signal("1", "what is added to the level of activity")
        baseline: Scalar = covariate("kg", "body weight on the first day, in balance")
        height: Scalar = covariate("m", "height")
        age: Scalar = covariate("yr", "age on the first day")
        female: Scalar = covariate("1", "1 for a woman, 0 for a man")

    PAL: Scalar = parameter(lognormal(1.5, 0.1), "1", "level of physical activity", low=1.0, source=_HALL + ", spread assumed")
    rmr: Scalar = parameter(lognormal(1.0, 0.09), "1", "resting metabolism relative to the formula", source=_MIFFLIN)
    betaAT: Scalar = parameter(lognormal(0.14, 0.3), "1", "adaptation to a change of intake", source=_BW + ", spread assumed")
    betaTEF: Scalar = constant(0.1, "1", "heat of digestion", _BW)
    tauAT: Scalar = constant(14.0, "d", "time constant of adaptation", _BW)
    share0: Scalar = constant(0.5, "1", "share of carbohydrates in balance", _BW)
    G0: Scalar = constant(0.5, "kg", "glycogen in balance", _BW)
    Na: Scalar = constant(3220.0, "mg/kg", "sodium in extracellular fluid", _BW)
    zetaNa: Scalar = constant(3000.0, "mg/kg/d", "sodium excreted for each kg of fluid", _BW)
    zetaCI: Scalar = constant(4000.0, "mg/d", "sodium kept by carbohydrates", _BW)
    rhoF: Scalar = constant(9440.727, "kcal/kg", "energy of fat", _BW)
    rhoL: Scalar = constant(1816.444, "kcal/kg", "energy of lean tissue", _BW)
    rhoG: Scalar = constant(4206.501, "kcal/kg", "energy of glycogen", _BW)
    heat: Scalar = constant(4206.501, "kcal/kg", "energy of glycogen that the balance counts", _BW)
    gammaF: Scalar = constant(3.107075, "kcal/kg/d", "resting metabolism of fat", _BW)
    gammaL: Scalar = constant(21.98853, "kcal/kg/d", "resting metabolism of lean tissue", _BW)
    etaF: Scalar = constant(179.2543, "kcal/kg", "cost of making fat", _BW)
    etaL: Scalar = constant(229.4455, "kcal/kg", "cost of making lean tissue", _BW)
    forbes: Scalar = constant(10.4, "kg", "lean tissue over which fat grows e-fold", _HALL + "; Forbes 1987")

    def resting(self, u):
        """RMR on the first day [kcal/d]."""
        body = 9.99 * u.baseline / const(1.0, "kg") + 625.0 * u.height / const(1.0, "m") - 4.92 * u.age / const(1.0, "yr")
        return empirical(self.rmr * (body + 5.0 - 166.0 * u.female), "kcal/d", source=_MIFFLIN)

    def first(self, u):
        """(ECF0, F0, L0) [kg]."""
        weight, height, age = u.baseline / const(1.0, "kg"), u.height / const(1.0, "m"), u.age / const(1.0, "yr")
        bmi = jnp.log(weight / height**2)
        man = 0.025 * age + 9.57 * height + 0.191 * weight - 12.4
        fluid = empirical(man + u.female * (5.98 * height + 0.167 * weight - 4.0 - man), "kg", source=_SILVA)
        man = 0.14 * age + 37.31 * bmi - 103.94
        fat = u.baseline * (man + u.female * (0.14 * age + 39.96 * bmi - 102.01 - man)) / 100.0
        return fluid, fat, u.baseline - fat - fluid - 3.7 * self.G0

    def fat(self, x, u):
        """F [kg]."""
        _, fat, lean = self.first(u)
        return fat * jnp.exp((x.L - lean) / self.forbes)

    def weight(self, x, u):
        """W [kg]."""
        return self.fat(x, u) + x.L + x.ECF + 3.7 * x.G

    def spent(self, x, u):
        """(E, dG/dt, dL/dt): energy spent but for what making tissue costs [kcal/d], and tissue made [kg/d]."""
        RMR = self.resting(u)
        _, fat, lean = self.first(u)
        TEI0 = self.PAL * RMR
        CI0, CI = self.share0 * TEI0, u.share * (TEI0 + u.energy)
        G = (CI - CI0 * (x.G / self.G0) ** 2) / self.rhoG
        F = self.fat(x, u)
        per_kg = RMR / u.baseline
        delta = ((1.0 - self.betaTEF) * self.PAL - 1.0) * per_kg
        K = TEI0 - self.gammaL * lean - self.gammaF * fat - delta * u.baseline
        moving = (delta + (1.0 - self.betaTEF) * u.exercise * per_kg) * self.weight(x, u)
        E = K + moving + self.betaTEF * u.energy + x.adaptation + self.gammaL * x.L + self.gammaF * F
        c = self.forbes * self.rhoL / self.rhoF
        S = (TEI0 + u.energy - E - self.heat * G) / ((1.0 + self.etaL / self.rhoL) * c + (1.0 + self.etaF / self.rhoF) * F)
        return E, G, S * c / self.rhoL

    def rates(self, t, x, u):
        (fluid, _, _), (_, G, L) = self.first(u), self.spent(x, u)
        TEI0 = self.PAL * self.resting(u)
        CI0, CI = self.share0 * TEI0, u.share * (TEI0 + u.energy)
        return self.State(
            adaptation=(self.betaAT * u.energy - x.adaptation) / self.tauAT,
            ECF=(u.sodium - self.zetaNa * (x.ECF - fluid) - self.zetaCI * (1.0 - CI / CI0)) / self.Na,
            G=G,
            L=L,
        )

    def conserved(self, x, u):
        """Energy in tissue: eaten, less what is spent, making tissue included."""
        (E, _, L), F = self.spent(x, u), self.fat(x, u)
        making = (self.etaL + self.etaF * F / self.forbes) * L
        stored = self.rhoF * F + self.rhoL * x.L + self.heat * x.G
        return {"energy": (stored, self.PAL * self.resting(u) + u.energy - E - making)}

    def outputs(self, x, u):
        return {
            "weight": output(self.weight(x, u), "kg", "body weight"),
            "fat": output(self.fat(x, u), "kg", "fat mass"),
        }

    def initial(self, u):
        fluid, _, lean = self.first(u)
        return self.State(adaptation=0.0, ECF=fluid, G=self.G0, L=lean)

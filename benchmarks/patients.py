"""The mode of one patient in each of five published cases, beside what Monolix, NONMEM and nlmixr found for it.

What dose adjustment programs do all day (posologyr, mapbayr): a population model, a few levels, the individual parameters. The
cases are those by which posologyr is tested (Leven 2022, doi:10.3390/pharmaceutics14020442); models and levels are from there.

    python -m benchmarks.patients [--json]
"""

import math

import hybridtwin as ht
from benchmarks import measure
from hybridtwin.physiology import TwoCompartment
from hybridtwin.system import Input, Scalar, State, System


def eta(typical, variance):
    """Log-normal around a typical value with this variance of the logarithm."""
    return ht.lognormal(typical, math.sqrt(variance))


class PlasmaAndTissue(State):
    """Amounts of a drug in two compartments."""

    central: Scalar = ht.state("mg", "amount in plasma")
    peripheral: Scalar = ht.state("mg", "amount in tissue")


class Tobramycin(System):
    r"""Tobramycin in two compartments, with kidney function and body weight (Monolix, as in posologyr).

    dA/dt = -(ke + k12) A + k21 P,  dP/dt = k12 A - k21 P,  C = A / V;  ke = kel (CrCl/67.8)^.89 (weight/66.4)^-1.09,
    V = V0 (weight/66.4)^.8.
    """

    time = "h"

    State = PlasmaAndTissue

    class Input(Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="central", cmt=1)
        crcl: Scalar = ht.covariate("mL/min", "creatinine clearance")
        weight: Scalar = ht.covariate("kg", "body weight")

    kel: Scalar = ht.parameter(ht.lognormal(0.21, math.sqrt(0.08075)), "1/h", "elimination at 67.8 mL/min and 66.4 kg")
    V0: Scalar = ht.parameter(ht.lognormal(19.8, math.sqrt(0.01203)), "L", "volume at 66.4 kg")
    k12: Scalar = ht.constant(0.041, "1/h", "into tissue")
    k21: Scalar = ht.constant(0.12, "1/h", "out of tissue")

    def rates(self, t, x, u):
        size = u.weight / ht.const(66.4, "kg")
        ke = self.kel * (u.crcl / ht.const(67.8, "mL/min")) ** 0.89 * size**-1.09
        flow = self.k12 * x.central - self.k21 * x.peripheral
        return self.State(central=-ke * x.central - flow, peripheral=flow)

    def outputs(self, x, u):
        size = u.weight / ht.const(66.4, "kg")
        return {"C": ht.output(x.central / (self.V0 * size**0.8), "mg/L", "concentration")}


class Amikacin(System):
    r"""Amikacin in two compartments (Burdet 2015, doi:10.1007/s00228-014-1766-y), with kidney function, weight and PaO2/FiO2.

    dA/dt = -(CL + Q)/Vc A + Q/Vp P,  dP/dt = Q/Vc A - Q/Vp P,  C = A / Vc;
    CL = CL0 (CrCl/82)^.7, Vc = V0 (weight/78)^.9 (PF/169)^.4.
    """

    time = "h"

    State = PlasmaAndTissue

    class Input(Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="central", cmt=1)
        crcl: Scalar = ht.covariate("mL/min", "creatinine clearance over 4 h")
        weight: Scalar = ht.covariate("kg", "body weight")
        pf: Scalar = ht.covariate("mmHg", "PaO2/FiO2")

    CL: Scalar = ht.parameter(eta(4.3, 0.1), "L/h", "clearance at 82 mL/min")
    V0: Scalar = ht.parameter(eta(15.9, 0.05), "L", "central volume at 78 kg and 169 mmHg")
    Vp: Scalar = ht.parameter(eta(21.4, 0.2), "L", "peripheral volume")
    Q: Scalar = ht.parameter(eta(12.1, 0.08), "L/h", "flow between the compartments")

    def volume(self, u):
        size = (u.weight / ht.const(78.0, "kg")) ** 0.9
        return self.V0 * size * (u.pf / ht.const(169.0, "mmHg")) ** 0.4

    def rates(self, t, x, u):
        clearance, volume = self.CL * (u.crcl / ht.const(82.0, "mL/min")) ** 0.7, self.volume(u)
        flow = self.Q / volume * x.central - self.Q / self.Vp * x.peripheral
        return self.State(central=-clearance / volume * x.central - flow, peripheral=flow)

    def outputs(self, x, u):
        return {"C": ht.output(x.central / self.volume(u), "mg/L", "concentration")}


class Run302(System):
    r"""One compartment whose clearance follows covariates that change with time (NONMEM, run 302 of mapbayr's set).

    dA/dt = -CL/V A,  C = A / V,  CL = CL0 (BW/75)^1.5 .75^SEX.
    """

    time = "h"

    class State(State):
        central: Scalar = ht.state("mg", "amount in plasma")

    class Input(Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="central", cmt=2)
        BW: Scalar = ht.covariate("kg", "body weight")
        SEX: Scalar = ht.covariate("1", "1 female")

    CL: Scalar = ht.parameter(eta(4.0, 0.2), "L/h", "clearance of a man of 75 kg")
    V: Scalar = ht.parameter(eta(70.0, 0.2), "L", "volume")

    def rates(self, t, x, u):
        clearance = self.CL * (u.BW / ht.const(75.0, "kg")) ** 1.5 * 0.75**u.SEX
        return self.State(central=-clearance / self.V * x.central)

    def outputs(self, x, u):
        return {"C": ht.output(x.central / self.V, "mg/L", "concentration")}


class Piperacillin(System):
    r"""Piperacillin in two compartments after a lag of the infusion line (Roberts 2010, doi:10.1016/j.ijantimicag.2009.11.009).

    dA/dt = -(CL + Q)/V1 A + Q/V2 P,  dP/dt = Q/V1 A - Q/V2 P,  C = A / V1,  CL = CL0 weight/70.
    """

    time = "h"

    State = PlasmaAndTissue

    class Input(Input):
        iv: Scalar = ht.dose("mg", "given into a vein", into="central", cmt=1)
        TBW: Scalar = ht.covariate("kg", "body weight")

    lag: Scalar = ht.parameter(eta(0.07, 0.1747673), "h", "lag of the infusion line")
    CL: Scalar = ht.parameter(eta(17.1, 0.08507985), "L/h", "clearance at 70 kg")
    V1: Scalar = ht.parameter(eta(7.2, 0.0673745), "L", "central volume")
    V2: Scalar = ht.parameter(eta(17.8, 0.429067), "L", "peripheral volume")
    Q: Scalar = ht.parameter(eta(52.0, 0.2247455), "L/h", "flow between the compartments")

    def dosing(self, u):
        return {"iv": ht.route(lag=self.lag)}

    def rates(self, t, x, u):
        clearance = self.CL * u.TBW / ht.const(70.0, "kg")
        flow = self.Q / self.V1 * x.central - self.Q / self.V2 * x.peripheral
        return self.State(central=-clearance / self.V1 * x.central - flow, peripheral=flow)

    def outputs(self, x, u):
        return {"C": ht.output(x.central / self.V1, "mg/L", "concentration")}


def mode(model, person):
    """The mode on the eta scale: site -> number."""
    return ht.personalize(model, person, ht.Laplace(draws=20), key=0, progress=False).mode()


def tobramycin():
    """Monolix."""
    person = ht.Person.of(
        "tobramycin", start=0.0, stop=24.0, time="h", doses={"iv": ht.Regimen.infusion(500, "mg", at=0, over="30 min")},
        covariates={"crcl": (80.0, "mL/min"), "weight": (65.0, "kg")}, readings={"C": ([1.0, 14.0], [25.0, 5.5], "mg/L")},
    )  # fmt: skip
    found = mode(ht.Model(Tobramycin(), C=ht.sensors.Combined1("C", add=0.0, prop=0.198)), person)
    size = 65 / 66.4
    ours = {"ke": found["kel"] * (80 / 67.8) ** 0.89 * size**-1.09, "V": found["V0"] * size**0.8}
    return ours, {"ke": 0.12582, "V": 18.213}


def vancomycin():
    """Goti 2018, Monolix."""
    doses = ht.Regimen.infusion(1900, "mg", at=0, over="1 h") + ht.Regimen.infusion(1750, "mg", at=22.2, over="1 h")
    person = ht.Person.of("vancomycin", start=0.0, stop=48.0, time="h", doses={"iv": doses},
                          readings={"C": ([12.0, 37.5], [14.8, 22.5], "mg/L")})  # fmt: skip
    body = TwoCompartment(CL=eta(4.5 * (34 / 120) ** 0.8, 0.147), Vc=eta(58.4 * 62 / 70, 0.510), Vp=eta(38.4, 0.282), Q=6.5)
    found = mode(ht.Model(body, C=ht.sensors.Combined1("C", add=3.4, prop=0.227)), person)
    return found, {"CL": 1.7209, "Vc": 59.78, "Vp": 41.56}


def amikacin():
    """Correlated random effects, nlmixr."""
    omega = ht.block(["CL", "V0", "Vp", "Q"], [[0.1, 0.01, 0.01, -0.06], [0.01, 0.05, 0.02, 0.004],
                                              [0.01, 0.02, 0.2, 0.003], [-0.06, 0.004, 0.003, 0.08]])  # fmt: skip
    person = ht.Person.of(
        "amikacin", start=0.0, stop=24.0, time="h", doses={"iv": ht.Regimen.infusion(1600, "mg", at=0, over="30 min")},
        covariates={"crcl": (50.0, "mL/min"), "weight": (62.0, "kg"), "pf": (169.0, "mmHg")},
        readings={"C": ([1.0, 6.0], [75.0, 32.0], "mg/L")},
    )  # fmt: skip
    found = mode(ht.Model(Amikacin(), omega=omega, C=ht.sensors.Combined2("C", add=0.2, prop=0.1)), person)
    ours = {"CL": found["CL"] * (50 / 82) ** 0.7, "Vc": found["V0"] * (62 / 78) ** 0.9, "Vp": found["Vp"], "Q": found["Q"]}
    return ours, {"CL": 2.6226, "Vc": 11.014, "Vp": 14.573, "Q": 11.961}


def run302():
    """Covariates that change with time, carried backwards (NOCB); NONMEM."""
    table = {
        "ID": [1] * 12,
        "TIME": [0.0, 1.5, 4.4, 7.1, 24.6, 72.0, 96.0, 120.0, 144.0, 168.0, 192.0, 216.0],
        "EVID": [1, 0, 0, 0, 0, *[1] * 7],
        "AMT": [10000.0, *[0.0] * 4, *[10000.0] * 7],
        "RATE": [10000.0, *[0.0] * 4, *[10000.0] * 7],
        "CMT": [2] * 12,
        "DV": ["", 107.267, 100.995, 54.0546, 5.97081, *[""] * 7],
        "BW": [77, 113, 92, 132, 126, 128, 41, 56, 68, 45, 93, 126],
        "SEX": [0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1],
    }
    units = {"TIME": "h", "AMT": "mg", "RATE": "mg/h", "DV": "mg/L", "BW": "kg", "SEX": "1"}
    person = ht.Person.from_nonmem(table, units=units, covariates="NOCB")
    found = mode(ht.Model(Run302(), DV=ht.sensors.Combined1("C", add=0.0, prop=math.sqrt(0.05))), person)
    return {"eta CL": math.log(found["CL"] / 4), "eta V": math.log(found["V"] / 70)}, {"eta CL": 0.398846, "eta V": 0.0762201}


def piperacillin():
    """Four occasions with a variance of their own; Monolix."""
    doses = [8.0 * k for k in range(15)]
    levels = {47.9: 63.0, 71.9: 19.7, 95.9: 31.0, 120.0: 16.0}
    rows = sorted([*((t, 4000.0, "") for t in doses), *((t, 0.0, v) for t, v in levels.items())])
    table = {
        "ID": [6] * len(rows),
        "TIME": [t for t, *_ in rows],
        "AMT": [amount for _, amount, _ in rows],
        "RATE": [amount / 8 for _, amount, _ in rows],
        "EVID": [int(amount > 0) for _, amount, _ in rows],
        "CMT": [1] * len(rows),
        "DV": [value for *_, value in rows],
        "TBW": [92.0] * len(rows),
        "OCC": [1 + (t >= 48) + (t >= 72) + (t >= 96) for t, *_ in rows],
    }
    units = {"TIME": "h", "AMT": "mg", "RATE": "mg/h", "DV": "mg/L", "TBW": "kg"}
    person = ht.Person.from_nonmem(table, units=units)
    varies = {"CL": ("occasion", math.sqrt(0.1934626)), "V1": ("occasion", math.sqrt(0.05783106))}
    found = mode(ht.Model(Piperacillin(), varies=varies, DV=ht.sensors.Combined1("C", add=3.2, prop=0.253)), person)
    deviations = [math.exp(varies["CL"][1] * d) for d in found["CL@occasion"]]
    ours = {f"CL{i + 1}": found["CL"] * 92 / 70 * d for i, d in enumerate(deviations)}
    return ours | {"lag": found["lag"], "Q": found["Q"]}, {
        "CL1": 10.58, "CL2": 24.0, "CL3": 18.4, "CL4": 26.3, "lag": 0.07, "Q": 52.0,
    }  # fmt: skip


CASES = {f.__name__: f for f in (tobramycin, vancomycin, amikacin, run302, piperacillin)}


def main():
    given = measure.arguments(__doc__).parse_args()
    measure.use(given.device)
    rows, claims = [], {}
    for name, case in CASES.items():
        ours, theirs = case()
        off = {n: abs(ours[n] / v - 1) for n, v in theirs.items()}
        rows += [(name, n, float(ours[n]), v, 100 * off[n]) for n, v in theirs.items()]
        claims[f"{name}_off"] = max(off.values())
    print(measure.table(rows, ("case", "parameter", "ours", "reference", "off by %")))
    measure.report("patients", given, claims=claims)


if __name__ == "__main__":
    main()

"""A closed loop of two ventricles that share a septum and a pericardium, beat by beat."""

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference
from hybridtwin.system import Input, Scalar, State, System, const, constant, lognormal, output, parameter, signal, state

_SMITH = "Smith 2004, doi:10.1016/j.medengphy.2003.10.001"
_SPREAD = _SMITH + "; spread assumed"
_NEWTON = 5  # from 3 mL beyond rest: the residual is at rounding


class Smith2004(System):
    r"""The minimal closed-loop model of the heart and circulation: six chambers, four valves with inertia, one septum.

    e(t) = exp(-80 (t mod period - period / 2)^2 / s^2), the drive of the heart
    Pperi = P0pcd (exp(lpcd (Vlv + Vrv - V0pcd)) - 1) + Pth
    Plvf = e Elvf Vlvf + (1 - e) P0lvf (exp(llvf Vlvf) - 1),  Vlvf = Vlv - Vspt,  Plv = Plvf + Pperi     (right: Vrv + Vspt)
    Vspt: e Espt (Vspt - Vd) + (1 - e) P0spt (exp(lspt (Vspt - Vd)) - 1) = Plvf - Prvf
    Pao = Eao Vao    Pvc = Evc Vvc    Ppa = Epa Vpa + Pth    Ppu = Epu Vpu + Pth
    Qsys = (Pao - Pvc) / Rsys         Qpul = (Ppa - Ppu) / Rpul
    dQ/dt = (P1 - P2 - R Q) / L where Q > 0 or P1 > P2, for mt (Ppu to Plv), av (Plv to Pao), tc (Pvc to Prv), pv (Prv to Ppa)
    dVlv/dt = Qmt - Qav      dVao/dt = Qav - Qsys      dVvc/dt = Qsys - Qtc + infusion - bleeding
    dVrv/dt = Qtc - Qpv      dVpa/dt = Qpv - Qpul      dVpu/dt = Qpul - Qmt

    Volumes [mL], stressed only (1500 mL in all, conserved), flows Q [mL/s], pressures [mmHg], time in s. The septum's volume
    solves its equation at every moment (Newton; the derivative is that of the implicit function).
    Interventions: `bleeding`, `infusion` [mL/s], parameters (Rpul rises in embolism, P0pcd in tamponade, Elvf falls in failure).
    Source: Smith 2004, doi:10.1016/j.medengphy.2003.10.001.
    """

    time = "s"
    grid = "0.01 s"
    restless = "a heart that beats"
    protocol = Protocol(18.0, "24 beats at 80 a minute, as in table 3 of Smith 2004", shows=("Pao", "Ppa", "Pvc"), tol=2e-3)
    references = (
        Reference("left ventricle, end-diastolic volume", "mL", 111.7, _SMITH, lambda lived: _beat(lived, "Vlv", np.max)),
        Reference("left ventricle, end-systolic volume", "mL", 45.7, _SMITH, lambda lived: _beat(lived, "Vlv", np.min)),
        Reference("right ventricle, end-diastolic volume", "mL", 112.2, _SMITH, lambda lived: _beat(lived, "Vrv", np.max)),
        Reference("right ventricle, end-systolic volume", "mL", 46.1, _SMITH, lambda lived: _beat(lived, "Vrv", np.min)),
        Reference("aortic pressure, systolic", "mmHg", 116.6, _SMITH, lambda lived: _beat(lived, "Pao", np.max),
                  drawn=("Pao", None)),
        Reference("aortic pressure, diastolic", "mmHg", 79.1, _SMITH, lambda lived: _beat(lived, "Pao", np.min),
                  drawn=("Pao", None)),
        Reference("cardiac output", "L/min", 5.3, _SMITH,
                  lambda lived: (_beat(lived, "Vlv", np.max) - _beat(lived, "Vlv", np.min)) / 0.75 * 0.06),
    )  # fmt: skip

    class State(State):
        Vlv: Scalar = state("mL", "left ventricle")
        Vao: Scalar = state("mL", "aorta, beyond what it holds without pressure", positive=False)
        Vvc: Scalar = state("mL", "vena cava, beyond what it holds without pressure", positive=False)
        Vrv: Scalar = state("mL", "right ventricle")
        Vpa: Scalar = state("mL", "pulmonary artery, beyond what it holds without pressure", positive=False)
        Vpu: Scalar = state("mL", "pulmonary vein, beyond what it holds without pressure", positive=False)
        Qmt: Scalar = state("mL/s", "flow through the mitral valve", positive=False)
        Qav: Scalar = state("mL/s", "flow through the aortic valve", positive=False)
        Qtc: Scalar = state("mL/s", "flow through the tricuspid valve", positive=False)
        Qpv: Scalar = state("mL/s", "flow through the pulmonary valve", positive=False)

    class Input(Input):
        bleeding: Scalar = signal("mL/s", "blood lost", default=0.0)
        infusion: Scalar = signal("mL/s", "blood given", default=0.0)

    Elvf: Scalar = parameter(lognormal(2.8798, 0.3), "mmHg/mL", "contractility of the left wall", source=_SPREAD)
    Ervf: Scalar = parameter(lognormal(0.5850, 0.3), "mmHg/mL", "contractility of the right wall", source=_SPREAD)
    Eao: Scalar = parameter(lognormal(0.6913, 0.3), "mmHg/mL", "stiffness of the aorta", source=_SPREAD)
    Evc: Scalar = parameter(lognormal(0.0059, 0.3), "mmHg/mL", "stiffness of the vena cava", source=_SPREAD)
    Epa: Scalar = parameter(lognormal(0.3690, 0.3), "mmHg/mL", "stiffness of the pulmonary artery", source=_SPREAD)
    Epu: Scalar = parameter(lognormal(0.0073, 0.3), "mmHg/mL", "stiffness of the pulmonary vein", source=_SPREAD)
    Rsys: Scalar = parameter(lognormal(1.0880, 0.3), "mmHg*s/mL", "systemic resistance", source=_SPREAD)
    Rpul: Scalar = parameter(lognormal(0.1552, 0.4), "mmHg*s/mL", "pulmonary resistance", source=_SPREAD)
    blood: Scalar = parameter(lognormal(1500.0, 0.1), "mL", "stressed blood at the first row", initial=True, source=_SMITH)
    P0pcd: Scalar = constant(0.5003, "mmHg", "scale of pericardial pressure", source=_SMITH)
    period: Scalar = constant(0.75, "s", "of a beat", source=_SMITH)
    Espt: Scalar = constant(48.754, "mmHg/mL", "stiffness of the septum in systole", source=_SMITH)
    P0lvf: Scalar = constant(0.1203, "mmHg", "left wall in diastole", source=_SMITH)
    P0rvf: Scalar = constant(0.2157, "mmHg", "right wall in diastole", source=_SMITH)
    P0spt: Scalar = constant(1.1101, "mmHg", "septum in diastole", source=_SMITH)
    llvf: Scalar = constant(0.033, "1/mL", "left wall in diastole", source=_SMITH)
    lrvf: Scalar = constant(0.023, "1/mL", "right wall in diastole", source=_SMITH)
    lspt: Scalar = constant(0.435, "1/mL", "septum in diastole", source=_SMITH)
    lpcd: Scalar = constant(0.03, "1/mL", "pericardium", source=_SMITH)
    Vd: Scalar = constant(2.0, "mL", "septum without pressure", source=_SMITH)
    V0pcd: Scalar = constant(200.0, "mL", "pericardium without pressure", source=_SMITH)
    Pth: Scalar = constant(-4.0, "mmHg", "pressure in the thorax", source=_SMITH)
    Rmt: Scalar = constant(0.0158, "mmHg*s/mL", "mitral valve", source=_SMITH)
    Rav: Scalar = constant(0.0180, "mmHg*s/mL", "aortic valve", source=_SMITH)
    Rtc: Scalar = constant(0.0237, "mmHg*s/mL", "tricuspid valve", source=_SMITH)
    Rpv: Scalar = constant(0.0055, "mmHg*s/mL", "pulmonary valve", source=_SMITH)
    Lmt: Scalar = constant(7.6968e-5, "mmHg*s^2/mL", "blood in the mitral valve", source=_SMITH)
    Lav: Scalar = constant(1.2189e-4, "mmHg*s^2/mL", "blood in the aortic valve", source=_SMITH)
    Ltc: Scalar = constant(8.0093e-5, "mmHg*s^2/mL", "blood in the tricuspid valve", source=_SMITH)
    Lpv: Scalar = constant(1.4868e-4, "mmHg*s^2/mL", "blood in the pulmonary valve", source=_SMITH)

    def drive(self, t):
        """How far the heart is contracted, 0 to 1."""
        since = t - self.period * jnp.floor(t / self.period) - 0.5 * self.period
        return jnp.exp(const(-80.0, "1/s^2") * since * since)

    def _wall(self, e, E, P0, rate, V):
        """Pressure of a wall [mmHg] and its slope [mmHg/mL], between elastic in systole and stiffening in diastole."""
        grown = jnp.exp(rate * V)
        return e * E * V + (1.0 - e) * P0 * (grown - 1.0), e * E + (1.0 - e) * P0 * rate * grown

    def septum(self, e, x):
        """Volume [mL] by which the septum bulges to the right, where the three walls balance."""
        V = self.Vd + const(3.0, "mL") + 0.0 * x.Vlv
        for _ in range(_NEWTON + 1):
            V = jax.lax.stop_gradient(V)  # the last step alone carries the derivative: that of the implicit function
            left, dleft = self._wall(e, self.Elvf, self.P0lvf, self.llvf, x.Vlv - V)
            right, dright = self._wall(e, self.Ervf, self.P0rvf, self.lrvf, x.Vrv + V)
            middle, dmiddle = self._wall(e, self.Espt, self.P0spt, self.lspt, V - self.Vd)
            V = V - (middle - left + right) / jax.lax.stop_gradient(dmiddle + dleft + dright)
        return V

    def pressures(self, t, x):
        """Plv, Prv, Pao, Pvc, Ppa, Ppu [mmHg]."""
        e = self.drive(t)
        V = self.septum(e, x)
        around = self.P0pcd * (jnp.exp(self.lpcd * (x.Vlv + x.Vrv - self.V0pcd)) - 1.0) + self.Pth
        left = self._wall(e, self.Elvf, self.P0lvf, self.llvf, x.Vlv - V)[0] + around
        right = self._wall(e, self.Ervf, self.P0rvf, self.lrvf, x.Vrv + V)[0] + around
        return left, right, self.Eao * x.Vao, self.Evc * x.Vvc, self.Epa * x.Vpa + self.Pth, self.Epu * x.Vpu + self.Pth

    def rates(self, t, x, u):
        Plv, Prv, Pao, Pvc, Ppa, Ppu = self.pressures(t, x)
        Qmt, Qav, Qtc, Qpv = (jnp.maximum(Q, 0.0 * Q) for Q in (x.Qmt, x.Qav, x.Qtc, x.Qpv))  # valves do not leak
        Qsys, Qpul = (Pao - Pvc) / self.Rsys, (Ppa - Ppu) / self.Rpul

        def valve(before, after, R, L, Q):
            push = (before - after - R * Q) / L
            # What a step went below 0 at the closing dies out while the valve is shut; the flow itself is 0 there.
            return jnp.where((Q > 0.0) | (before > after), push, -const(250.0, "1/s") * jnp.minimum(Q, 0.0 * Q))

        return self.State(
            Vlv=Qmt - Qav,
            Vao=Qav - Qsys,
            Vvc=Qsys - Qtc + u.infusion - u.bleeding,
            Vrv=Qtc - Qpv,
            Vpa=Qpv - Qpul,
            Vpu=Qpul - Qmt,
            Qmt=valve(Ppu, Plv, self.Rmt, self.Lmt, x.Qmt),
            Qav=valve(Plv, Pao, self.Rav, self.Lav, x.Qav),
            Qtc=valve(Pvc, Prv, self.Rtc, self.Ltc, x.Qtc),
            Qpv=valve(Prv, Ppa, self.Rpv, self.Lpv, x.Qpv),
        )

    def conserved(self, x, u):
        return {"blood": (x.Vlv + x.Vao + x.Vvc + x.Vrv + x.Vpa + x.Vpu, u.infusion - u.bleeding)}

    def outputs(self, x, u):
        return {
            "Pao": output(self.Eao * x.Vao, "mmHg", "aortic pressure"),
            "Pvc": output(self.Evc * x.Vvc, "mmHg", "pressure in the vena cava"),
            "Ppa": output(self.Epa * x.Vpa + self.Pth, "mmHg", "pulmonary arterial pressure"),
            "Ppu": output(self.Epu * x.Vpu + self.Pth, "mmHg", "pulmonary venous pressure"),
        }

    def initial(self, u):
        """The paper's blood, spread about as a beat at rest ends; the cycle is reached after some ten beats."""
        part = self.blood / 1500.0
        none = 0.0 * self.blood * const(1.0, "1/s")
        return self.State(Vlv=94.68 * part, Vao=133.34 * part, Vvc=329.78 * part, Vrv=90.73 * part, Vpa=43.01 * part,
                          Vpu=808.46 * part, Qmt=none, Qav=none, Qtc=none, Qpv=none)  # fmt: skip


def _beat(lived, name, of):
    """A function of an output over the last whole beat."""
    return of(lived[name][lived.time > lived.time[-1] - 0.76])

"""What a lane reports beside its outputs.

When and where it left the finite numbers, and its states at some nodes: by these two solutions are compared where nobody
reads them.

What is largest, and how long all was finite, is kept on the way (`Kept`): a few numbers that stay in the first cache, where
going over a path of all outputs and states afterwards took longer than the integration.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridtwin.simulate.events import Acts
from hybridtwin.simulate.failures import FINE, NOT_FINITE, OVERFLOW
from hybridtwin.simulate.solve import get, walk

MARKS = 16  # nodes at which states are compared, whatever is read
_FEW = 4  # states up to which a loop of loops for these saves more than it takes to compile (a fifth of a program of 16 states)


class Course(NamedTuple):
    """What a compiled program returns of each lane."""

    values: Any  # (M, N) outputs at the readings: each by itself, for it is looked over by itself
    acts: Acts  # what rules of care did, and a reason that the solver itself knows
    marks: Any  # (S, up to MARKS) states at nodes spread over the mesh
    size: Any  # (M + S,) largest absolute value of each output and state at any node; not finite where it once was not
    under: Any  # (S,) how far each state fell below its declared bound at any node, 0 where it did not
    broken: Any  # (2,) node and state at which the lane first was not finite, (-1, 0) where it never was
    looks: Any = None  # (M, K) outputs at times at which nobody reads them, but two solutions are compared


class Kept(NamedTuple):
    """What is kept on the way from node to node."""

    row: Any  # () rows so far
    size: Any  # (M + S,) largest absolute values; NaN or infinite from the first time on that the value was
    sound: Any  # (M + S,) rows while they were finite
    under: Any  # (S,) depth below declared bounds


class Recorder:
    """Records the outputs (or states) named, each by itself, for side by side those of one lane would part its neighbors.

    Of them and of every state it keeps what is largest. Many states it records too, after the outputs; few are marked on the way.
    """

    def __init__(self, spec, names):
        self.spec, self.names, self.marks = spec, names, MARKS if len(spec.states) <= _FEW else 1
        self.bounds = np.array([-np.inf if state.low is None else state.low for state in spec.states.values()])

    def fresh(self) -> Kept:
        """What is kept in front of the first node."""
        none = jnp.zeros(len(self.names) + len(self.spec.states))
        return Kept(jnp.zeros(()), none, none, none[len(self.names) :])

    def __call__(self, kept: Kept, here, x, u):
        """(what is kept, what is recorded) of a node."""
        found = here.outputs(x, u)
        seen = tuple(jnp.asarray(found[n].value if n in found else get(x, n), float) for n in self.names)
        both = (*seen, *(get(x, path) for path in self.spec.states))
        seen, both = seen if self.marks > 1 else both, lax.stop_gradient(jnp.stack(both))
        size, row = jnp.maximum(kept.size, jnp.abs(both)), kept.row + 1.0
        under = jnp.maximum(kept.under, self.bounds - both[len(self.names) :])
        return Kept(row, size, jnp.where(size < jnp.inf, row, kept.sound), under), seen


def course(system, layout, stepper, mesh, x0, extras, names, readers=None, care=None) -> Course:
    """The course of a lane; arguments as of `walk`. `names`: outputs or states that are read."""
    recorder = Recorder(system.spec, names)
    seen, marks, kept, place, acts = walk(system, layout, stepper, mesh, x0, extras, recorder, readers, care)
    marks = [get(marks, path) for path in system.spec.states]
    if recorder.marks == 1:
        at = np.linspace(0, len(seen[0]) - 1, MARKS).round().astype(int)
        seen, marks = seen[: len(names)], [state[at] for state in seen[len(names) :]]
    sound = kept.sound[len(names) :]
    row, state = jnp.min(sound), jnp.argmin(sound)  # the first row at which a state is not finite, where there is one
    node = row if place is None else jnp.sum(place < row)
    read = mesh.read if place is None else place[mesh.read]
    lost = jnp.where(jnp.all(kept.size < jnp.inf), FINE, NOT_FINITE)
    return Course(
        jnp.stack([v[read] for v in seen]),
        acts._replace(code=jnp.where(acts.code == OVERFLOW, OVERFLOW, lost).astype(jnp.int32)),
        jnp.stack(marks),
        kept.size,
        kept.under,
        jnp.where(row < len(seen[0]), jnp.stack([node, state]), jnp.array([-1, 0])).astype(jnp.int32),
    )

"""What a lane reports beside its outputs.

When and where it left the finite numbers, and its states at some nodes: by these two solutions are compared where nobody
reads them.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hybridtwin.simulate.events import Acts
from hybridtwin.simulate.solve import get

MARKS = 16  # nodes at which states are compared, whatever is read


class Course(NamedTuple):
    """What a compiled program returns of each lane."""

    values: Any  # (N, M) outputs at the readings
    acts: Acts  # what rules of care did, and a reason that the solver itself knows
    marks: Any  # (MARKS, S) states at nodes spread over the mesh
    size: Any  # (M + S,) largest absolute value of each output and state at any node
    broken: Any  # (2,) node and state at which the lane first was not finite, (-1, 0) where it never was


def recorder(spec, names):
    """`observe` for `states`: the outputs (or states) named, then every state. See `course`."""

    def observe(here, x, u):
        found = here.outputs(x, u)
        seen = [found[n].value if n in found else get(x, n) for n in names]
        return jnp.stack([jnp.asarray(v, float) for v in (*seen, *(get(x, path) for path in spec.states))])

    return observe


def course(path, mesh, count, acts) -> Course:
    """The course of a lane from what `recorder` recorded at every node (K, count + S)."""
    held = path[:, count:]
    lost = ~jnp.isfinite(held)
    node = jnp.argmax(jnp.any(lost, axis=1))
    broken = jnp.stack([jnp.where(jnp.any(lost), node, -1), jnp.argmax(lost[node])])
    at = np.linspace(0, path.shape[0] - 1, MARKS).round().astype(int)
    return Course(
        path[mesh.read][:, :count],
        acts,
        held[at],
        jnp.max(jnp.where(jnp.isfinite(path), jnp.abs(path), 0.0), axis=0),
        broken,
    )

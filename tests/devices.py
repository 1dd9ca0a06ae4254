"""Run in a process of its own by test_devices.py: simulate and personalize with as many devices as the environment says."""

import sys

import jax
import numpy as np
from small import MESH, mesh_person

import hybridtwin as ht
from hybridtwin.engine import Lanes, double


def main(path):
    people = [mesh_person(name) for name in ("a", "b", "c", "d", "e")]
    found = ht.simulate(MESH.system, mesh_person(), at=[1.0, 7.0, 12.0], draws=200, key=0)
    method = ht.Laplace(draws=100, starts=2)
    twins = ht.personalize(MESH, ht.Cohort(people), method, key=0, progress=False)
    effect = ht.contrast(twins["a"].do(iv=lambda d: 2 * d), twins["a"], ht.outcomes.cmax("C"))
    with double():
        spread = Lanes(lambda x, shared: x * shared, (0, None))(np.arange(64.0), 2.0).sharding.device_set
    arrays = {f"z {i}": twin.fits[0].z for i, twin in twins.items()}
    table = np.stack([[row.a, row.b, row.difference] for row in effect.rows])
    np.savez(path, C=found["C"], effect=table, devices=len(spread), all=jax.device_count(), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])

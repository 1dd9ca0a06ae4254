"""Lanes spread over several devices: two host devices give what one gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def run(folder, devices):
    path = folder / f"{devices}.npz"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(HERE / "devices.py"), str(path)], env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_two_devices_share_the_lanes_and_give_what_one_gives(tmp_path):
    one, two = run(tmp_path, 1), run(tmp_path, 2)
    assert (one.pop("all"), two.pop("all")) == (1, 2)
    assert (one.pop("devices"), two.pop("devices")) == (1, 2), "lanes were not spread"
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert np.isfinite(value).all() and value.size, name
        if name == "C":  # a simulation: every lane has the bits it has on one device
            np.testing.assert_array_equal(value, two[name])
        else:  # of a cohort twice as many people share a call, and what the host does with them rounds otherwise
            np.testing.assert_allclose(value, two[name], rtol=1e-8, atol=1e-10, err_msg=name)

"""How the verbs enter JAX: in double precision, as a context, without touching the process's configuration.

On a CPU there is one setting worth a factor of two to seven (benchmarks/README.md): XLA compiles a small loop into one
function only while its buffers are under a kilobyte, and otherwise dispatches every fused operation of every step of an
integration by itself. The limit can be set only through XLA_FLAGS before JAX starts its backend, so the first verb does that
if it comes in time and nobody has set it. `HYBRIDTWIN_XLA_FLAGS=0` leaves the environment alone.
"""

import os
import sys

import jax

_LOOPS = "xla_cpu_small_while_loop_byte_threshold"
_FLAG = f"--xla_backend_extra_options={_LOOPS}=1000000000"


def backend_started() -> bool:
    """Has JAX already started a backend in this process?"""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge is not None and bridge._backends)


def fast_loops() -> bool:
    """Is the setting in force (or about to be)?"""
    return _LOOPS in os.environ.get("XLA_FLAGS", "")


def prepare() -> None:
    """Ask XLA for fast loops if its backend has not started."""
    wanted = os.environ.get("HYBRIDTWIN_XLA_FLAGS", "1") != "0"
    flags = os.environ.get("XLA_FLAGS", "")
    if wanted and not backend_started() and "xla_backend_extra_options" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}".strip()


def double():
    """Context in which JAX computes in float64; every verb enters it, in every thread it starts."""
    prepare()
    return jax.enable_x64(True)

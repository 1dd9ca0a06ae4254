"""How the verbs enter JAX: in double precision, as a context, without touching the process's configuration.

On a CPU two settings are worth a lot (benchmarks/README.md). XLA compiles a small loop into one function only while its buffers
are under a kilobyte, and otherwise dispatches every fused operation of every step of an integration by itself: a factor of two
to seven. And LLVM's first level of optimization makes such a function in three quarters of the time of its third, which XLA
asks for, and makes it no slower. Both can be set only through XLA_FLAGS before JAX starts its backend, so the first verb does
that if it comes in time and nobody has set them. `HYBRIDTWIN_XLA_FLAGS=0` leaves the environment alone.
"""

import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from hybridtwin.packing import Packed

_LOOPS = "xla_cpu_small_while_loop_byte_threshold"
_FLAGS = {"xla_backend_extra_options": f"{_LOOPS}=1000000000", "xla_backend_optimization_level": "1"}


def backend_started() -> bool:
    """Has JAX already started a backend in this process?"""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge is not None and bridge._backends)


def fast_loops() -> bool:
    """Is the setting in force (or about to be)?"""
    return _LOOPS in os.environ.get("XLA_FLAGS", "")


def prepare() -> None:
    """Ask XLA for fast loops and quick compilation if its backend has not started."""
    if os.environ.get("HYBRIDTWIN_XLA_FLAGS", "1") == "0" or backend_started():
        return
    flags, wanted = os.environ.get("XLA_FLAGS", ""), dict(_FLAGS)
    if not _cpu_alone():
        del wanted["xla_backend_optimization_level"]  # an accelerator's compiler would obey it, too
    missing = [f"--{name}={value}" for name, value in wanted.items() if name not in flags]
    if missing:
        os.environ["XLA_FLAGS"] = " ".join([flags, *missing]).strip()


def _cpu_alone() -> bool:
    """Can JAX find no accelerator here? Asked without starting a backend."""
    plugins = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return os.environ.get("JAX_PLATFORMS", "") == "cpu" or not plugins


def double():
    """Context in which JAX computes in float64; every verb enters it, in every thread it starts."""
    prepare()
    return jax.enable_x64(True)


def devices() -> int:
    """How many devices share the lanes of one call: all that this process has."""
    return len(jax.local_devices())


def cores() -> int:
    """How many cores this process may use; `HYBRIDTWIN_THREADS` may say fewer."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("HYBRIDTWIN_THREADS", "")
    return min(own, max(int(said), 1)) if said.isdigit() else own


_WORKER = threading.local()  # .busy: does this thread already work beside others?


@functools.lru_cache(maxsize=1)
def _pool(process: int, count: int) -> ThreadPoolExecutor:  # a child of `fork` has none of its parent's threads
    return ThreadPoolExecutor(count, "hybridtwin")


def side_by_side(
    calls: Iterable[Callable[[], Any]], most: int | None = None, stop: threading.Event | None = None
) -> list[Any]:
    """What some calls return, in their order, computed on all cores (`most` at once at most).

    XLA runs an integration on one thread, and JAX lets go of Python's lock meanwhile: calls of compiled programs, and whatever
    else does not hold that lock, then run at the same time, each in double precision. What a call returns must not depend on
    when it runs. From inside a call the thread does the work itself, and who is idle helps, so that nothing waits for itself.
    The first error reaches the caller once those under way have ended, and none is begun after it; so does Ctrl-C. `stop` is set
    when that happens: long calls may look at it.
    """
    calls, count = list(calls), min(cores(), most or cores())
    if len(calls) < 2 or count < 2:
        return [call() for call in calls]
    stop, lock, left = stop or threading.Event(), threading.Lock(), iter(range(len(calls)))
    found: dict[int, Any] = {}
    errors: list[BaseException] = []

    def share():
        """The work of one core: whatever call is next."""
        before, _WORKER.busy = getattr(_WORKER, "busy", False), True
        try:
            while not stop.is_set():
                with lock:
                    at = next(left, None)
                if at is None:
                    return
                try:
                    with double():  # each thread has its own
                        found[at] = calls[at]()
                except BaseException as error:  # raised again in the caller's thread
                    errors.append(error)
                    stop.set()
        finally:
            _WORKER.busy = before

    inside = getattr(_WORKER, "busy", False)
    shares = [_pool(os.getpid(), cores()).submit(share) for _ in range(min(count, len(calls)) - inside)]
    try:
        if inside:
            share()
            shares = [helper for helper in shares if not helper.cancel()]
        wait(shares)
    except BaseException:
        stop.set()
        wait(shares)
        raise
    if errors:
        raise errors[0]
    return [found[at] for at in range(len(calls))]


class _Quiet:
    """One thread for the host's linear algebra while anybody is inside; the last one out restores what was."""

    def __init__(self):
        self._lock, self._inside, self._limits = threading.Lock(), 0, None

    def __enter__(self):
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                from threadpoolctl import threadpool_limits

                _any_thread_may_limit()
                self._limits = threadpool_limits(1, "blas")

    def __exit__(self, *error):
        with self._lock:
            self._inside -= 1
            if not self._inside and self._limits is not None:
                _any_thread_may_limit()
                self._limits.restore_original_limits()
                self._limits = None
                _any_thread_may_limit()


def _any_thread_may_limit():
    """From 3.8 on threadpoolctl obeys only the first thread that set a limit; this one is of the process, whoever sets it."""
    from threadpoolctl import OpenBLASController

    free = getattr(OpenBLASController, "clear_controlling_thread", None)
    if free is not None:
        free(force=True)


# BLAS spins on all cores for matrices of some hundred columns: beside the threads that integrate it takes ten times as long.
quiet = _Quiet()


@functools.cache
def batched() -> dict[str, Any]:
    """How batches of lanes are compiled: a tenth to a quarter sooner, and they run as fast (not so the reverse
    gradients of `Program`). Nothing where this XLA does not know the options.
    """
    options = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": cores()}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


class Lanes:
    """`f` over a batch of lanes: compiled once, and spread over all devices where their number divides that of the lanes.

    Every device runs the program of its own lanes and talks to no other, so a lane has the bits it would have alone on one
    device with as many lanes beside it. `axes`: 0 for arguments with a leading axis of lanes, None for what all lanes share,
    which may be `Packed`.
    """

    def __init__(self, f, axes):
        def opened(*args):
            return f(*(a.open() if isinstance(a, Packed) else a for a in args))

        self._f, self._axes, self._one = opened, axes, jax.jit(jax.vmap(opened, axes), compiler_options=batched())
        self.called = False  # has it been compiled, for some shapes?

    @functools.cached_property
    def _many(self):
        specs = tuple(PartitionSpec() if axis is None else PartitionSpec("lanes") for axis in self._axes)
        mesh = Mesh(np.array(jax.local_devices()), ("lanes",))
        spread = jax.shard_map(
            jax.vmap(self._f, self._axes), mesh=mesh, in_specs=specs, out_specs=PartitionSpec("lanes"), check_vma=False
        )
        return jax.jit(spread, compiler_options=batched())

    def _program(self, args):
        batched = next(a for a, axis in zip(args, self._axes, strict=True) if axis is not None)
        lanes, share = np.shape(jax.tree.leaves(batched)[0])[0], devices()
        return self._many if share > 1 and lanes % share == 0 else self._one

    def __call__(self, *args):
        found = self._program(args)(*args)
        self.called = True
        return found

    def trace(self, *args) -> None:
        """What a first call does before it compiles: tracing holds Python's lock, compiling does not."""
        self._program(args).lower(*args)

"""What a mesh is: its static `Layout`, its arrays, and how meshes of several people get one shape (`pad`)."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hybridtwin.simulate.rules import Rule


@dataclasses.dataclass(frozen=True)
class Layout:
    """Static structure of a mesh: what can happen at all. Hashable, so it is part of the compiled program's key."""

    jumps: tuple[str, ...] = ()  # dose routes with boluses
    rates: tuple[str, ...] = ()  # dose routes with infusions at times that are data
    moving: tuple[str, ...] = ()  # dose routes whose times depend on parameters (lag, modelled rate or duration)
    moving_infused: bool = False
    overridden: tuple[str, ...] = ()  # parameters with another value in a window, one entry a window
    varying: tuple[tuple[str, str], ...] = ()  # (parameter, group) that take one value an occasion
    clamped: tuple[str, ...] = ()
    sets: tuple[tuple[str, Callable | None], ...] = ()  # states set once; by a function of the old value, or to a lane's number
    edits: tuple[tuple[str, Callable], ...] = ()  # states with another equation in a window
    misread: tuple[tuple[str, Callable], ...] = ()  # sensors that read something else in a window: what of their reading
    resets: bool = False
    steady: int = 0  # number of steady-state declarations
    steady_pieces: int = 1
    latents: int = 0  # events with an uncertain amount or time
    portions: tuple[str, ...] = ()  # dose routes given in portions whose beginnings change the state
    rules: tuple[Rule, ...] = ()
    noise: tuple[tuple[str, bool], ...] = ()  # states whose process noise is drawn by a key, see `Spec.noise`
    stretches: int = 0  # of the inferred paths of the process noise, which are then unknowns
    strides: int = 1  # steps of the integration from one node to the next, at most

    @property
    def looking(self) -> tuple[int, ...]:
        """Places of the rules that look at certain nodes."""
        return tuple(i for i, rule in enumerate(self.rules) if rule.looks)

    @property
    def triggered(self) -> tuple[int, ...]:
        """Places of the rules that act at the moment itself."""
        return tuple(i for i, rule in enumerate(self.rules) if not rule.looks)


_STRIDES = 4  # steps are about a quarter of the fastest time constant: nodes are one apart


def striding(layout: Layout, stepper) -> Layout:
    """The same layout with several steps from node to node, for worlds: what a node costs beside its steps is more than they.

    Not where doses move among the nodes, each draw's own (lanes would wait for each other), where states are held above 0
    at nodes, or where steps cannot be refined. Inference keeps a node a step: reverse mode goes through no loop of that kind.
    """
    whole = layout.moving or layout.stretches or not stepper.refines
    return layout if whole else dataclasses.replace(layout, strides=_STRIDES)


class Steady(NamedTuple):
    """Steady-state declarations, E of them: the node at which each holds and the train that led there."""

    node: np.ndarray  # (E,)
    add: np.ndarray  # (E,) SS = 2: added to the state instead of replacing it
    route: np.ndarray  # (E,) index among the system's routes
    amount: np.ndarray
    duration: np.ndarray  # inf: an infusion that never stopped
    rate: np.ndarray  # 0 where the duration is given
    modelled: np.ndarray  # 0 as given, 1 modelled rate, 2 modelled duration
    interval: np.ndarray


class Moving(NamedTuple):
    """Doses whose time is known only when the parameters are, M of them."""

    time: np.ndarray  # (M,)
    route: np.ndarray  # (M,) index among the system's routes
    amount: np.ndarray
    duration: np.ndarray
    rate: np.ndarray
    modelled: np.ndarray
    floor: np.ndarray  # earliest time at which the dose can act (a steady train acts after its declaration)
    latent: np.ndarray  # (M,) index of the latent factor of the amount or -1
    shift: np.ndarray  # (M,) index of the latent shift in time or -1
    ceiling: np.ndarray  # time of the reset (or SS = 1) that cancels what of the dose is still to come; inf: none
    node: np.ndarray  # (M,) node of the record, whose inputs decide lag, fraction, rate and duration
    back: np.ndarray  # (M,) 0: the dose of the record; k: the k-th before it in a steady train


class Mesh(NamedTuple):
    """Arrays of one world on one mesh; every leading axis K counts nodes. Times in the system's unit."""

    t: np.ndarray  # (K,)
    steps: np.ndarray  # (K,) equal steps from this node to the next
    jump: np.ndarray  # (K, len(layout.jumps)) amounts in dose units
    rate: np.ndarray  # (K, len(layout.rates)) from this node on
    signal: np.ndarray  # (K, S) value at the node
    slope: np.ndarray  # (K, S)
    covariate: np.ndarray  # (K, C)
    occasion: np.ndarray  # (K, V) index of the occasion
    reset: np.ndarray  # (K,)
    set: np.ndarray  # (K, S) is the state set at this node, before what else happens there?
    override: np.ndarray  # (K, P + E + M) inside the window of the parameter, the equation, the sensor?
    clamp: np.ndarray  # (K, Q) inside the window?
    clamp_value: np.ndarray  # (K, Q)
    clamp_slope: np.ndarray  # (K, Q)
    watch: np.ndarray  # (K, R) does the rule look at this node, or watch from it on?
    cells: np.ndarray  # (G,) whole units of time that the mesh touches, where there is process noise
    drive: np.ndarray  # (G + 1,) knots of the inferred paths of the process noise, else none
    measure: np.ndarray  # (K, R) does the rule measure here what it will see later? (K, 0) where none sees late
    rule: np.ndarray  # (R, 6) level, level of recovery, amount (dose unit), wait (time); or low, high, up, down, least, most
    steady: Steady
    moving: Moving
    latent_jump: np.ndarray  # (K, E, J) amount as recorded, to be multiplied by the latent factor of event e
    latent_rate: np.ndarray  # (K, E, R)
    portion: np.ndarray  # (K, len(layout.portions)) amount of the portion that begins here, in dose units
    first: np.ndarray  # (K, len(layout.portions)) is it the first since a pause?
    latent_portion: np.ndarray  # (K, E, len(layout.portions))
    read: np.ndarray  # (N,) node of each reading


def bucket(n: int, octave: int = 8) -> int:
    """A padded length: `octave` (a power of two) distinct ones in each doubling, so at most 1 / octave of waste."""
    if n <= 16:
        return 16
    step = max(2 ** math.floor(math.log2(n)) // octave, 2)
    return -(-n // step) * step


_WHOLE = ("steady", "moving", "read", "rule", "cells", "drive")
NODES = tuple(name for name in Mesh._fields if name not in _WHOLE)  # what of a mesh is one entry a node
_STILL = {"jump", "rate", "slope", "clamp_slope", "latent_jump", "latent_rate", "reset", "watch", "set", "measure",
          "portion", "first", "latent_portion"}  # fmt: skip
_FILL = {"steps": 1} | dict.fromkeys(_STILL, 0)  # the others stay as they are at the last node


def _grown(a, n, fill):
    """An array with n more entries: `fill`, or the last again."""
    if n == 0:
        return a
    if a.ndim > 1 and a.shape[-1] == 0:  # what this layout has none of
        return np.zeros((len(a) + n, *a.shape[1:]), a.dtype)
    more = np.repeat(a[-1:], n, axis=0) if fill is None else np.full((n, *a.shape[1:]), fill, a.dtype)
    return np.concatenate([a, more])


def pad(mesh, width, reads, moving):
    """The same mesh with nodes, readings and moving doses padded by ones that do nothing: people then share a shape."""
    extra, more = width - len(mesh.t), moving - len(mesh.moving.time)
    if more:
        still = Moving(
            *(
                _grown(a, more, -1 if a.dtype == np.int32 and name in ("latent", "shift") else 0)
                for name, a in zip(Moving._fields, mesh.moving, strict=True)
            )
        )
        real = np.arange(moving) < moving - more
        last = np.where(real, still.time, mesh.t[-1]), np.where(real, still.ceiling, np.inf)
        mesh = mesh._replace(moving=still._replace(time=last[0], ceiling=last[1]))
    nodes = {name: _grown(getattr(mesh, name), extra, _FILL.get(name)) for name in NODES} if extra else {}
    return mesh._replace(**nodes, read=_grown(mesh.read, reads - len(mesh.read), 0))

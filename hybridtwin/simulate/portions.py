"""Doses that are given in portions: a meal is eaten a mouthful a minute, and the next one waits for its turn."""

import dataclasses
import math

from hybridtwin.errors import InterventionError


def portioned(entries, portion, paced, marked, later):
    """Doses of one route given in portions, one after the other.

    **Arguments:** `entries`: doses (dataclasses with `time`, `order`, `amount`, `duration`, ...); `portion`: how long one
    takes; `paced`: is there a limit to a portion? Then each lasts so long that the pace is kept, else what has a duration of its
    own is left as it is; `marked`: does the system ask where portions begin? `later`: the rank of portions after the first.

    **Raises:** InterventionError.
    """
    found = [e for e in entries if e.duration and not paced]
    waiting = sorted((e for e in entries if paced or not e.duration), key=lambda e: (e.time, e.order))
    for e in waiting:
        if e.steady or (marked and not e.fixed):
            raise InterventionError(
                f"{e.name} at {e.time:g} is {'a steady train' if e.steady else 'a dose whose time or rate is uncertain'}, "
                f"but {e.name} is given in portions of {portion:g}. Give single doses at known times."
            )
    queue, tick, last = [], -math.inf, -math.inf
    while waiting or queue:
        tick = tick if queue else max(tick, waiting[0].time)
        while waiting and waiting[0].time <= tick + 1e-9:
            queue.append((waiting.pop(0), 1.0))  # a dose and the share of it that is still to come
        head = queue[0][0]
        room = portion * head.amount / head.duration if head.duration else math.inf
        kind = 1 if tick <= last + 1e-9 else 2
        while queue and room > 1e-12 * head.amount:
            e, left = queue.pop(0)
            part = min(left, room / e.amount) if e.amount else left
            order = e.order if tick <= e.time else later
            found.append(
                dataclasses.replace(e, time=tick, order=order, amount=part * e.amount, duration=portion, portion=kind)
            )
            room, kind = room - part * e.amount, 1
            if left - part > 1e-12:
                queue.insert(0, (e, left - part))
                break
        tick = last = tick + portion
    return found

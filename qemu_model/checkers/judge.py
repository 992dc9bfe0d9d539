# SPDX-License-Identifier: GPL-2.0-or-later
"""All checkers asked about one run."""

from collections.abc import Callable
from dataclasses import dataclass

from qemu_model.checkers import (
    barriers,
    buffer,
    drained,
    flushed,
    kernel_log,
    liveness,
    lost,
    mirror,
    programming,
    reached,
    srcu,
    uapi,
)
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import HDBSS_REGISTERS, History, build
from qemu_model.errors import InfrastructureError
from qemu_model.run import Run
from qemu_model.trace import END_LIMIT, END_NO_SPACE, Anomaly, Kind, describe

Checker = Callable[[Run, History], list[Divergence]]


CHECKERS: tuple[tuple[str, Checker], ...] = (
    ("lost", lost.check),
    ("drained", drained.check),
    ("flushed", flushed.check),
    ("srcu", srcu.check),
    ("barriers", barriers.check),
    ("mirror", mirror.check),
    ("buffer", buffer.check),
    ("programming", programming.check),
    ("liveness", liveness.check),
    ("uapi", uapi.check),
    ("kernel_log", kernel_log.check),
    ("reached", reached.check),
)
"""In the order of the report: what loses memory comes first."""

_NEED_TRACE = (
    *("drained", "flushed", "srcu", "barriers", "mirror"),
    *("buffer", "programming", "liveness"),
)


@dataclass(frozen=True)
class Verdict:
    """What the checkers say about one run."""

    figures: dict[str, int]
    """Counts by name: pages, entries, refusals, lost, late, spurious.."""
    divergences: tuple[Divergence, ...]
    skipped: dict[str, str]
    """Checkers that could not be asked, with the reason."""


_OURS = (
    Anomaly.WALK_DISAGREES,
    Anomaly.RETRY_LIMIT,
    Anomaly.UNKNOWN_PE,
    Anomaly.REGISTER_UNREADABLE,
)
"""Anomalies in which the interceptor failed, and not the kernel."""


def _require_interceptor(run: Run) -> None:
    """Trust a run only if the interceptor knew what it did wherever HDBSS was in use.

    In nVHE mode and round-robin QEMU it cannot always tell which PE an instruction belongs
    to; a kernel in that mode does not use HDBSS, which ``uapi.nvhe`` demands.
    """
    failure = None
    used = False
    for record in () if run.trace is None else run.trace.of(Kind.ANOMALY, Kind.WRITE):
        if record[1] == Kind.ANOMALY and record[4] in _OURS:
            failure = failure or record
        elif record[1] == Kind.WRITE and record[4] in HDBSS_REGISTERS:
            used = True
    if failure is not None and used:
        raise InfrastructureError(
            f"the interceptor failed, what followed cannot be trusted: {describe(failure)}; "
            "please report it with the run directory"
        )


def judge(run: Run) -> Verdict:
    """Ask every checker; InfrastructureError when the run itself is not whole."""
    run.observations.require_complete()
    if run.trace is not None and run.trace.end is None:
        raise InfrastructureError(
            f"the trace stops after {run.trace.count} records without an end: QEMU was killed"
        )
    if run.trace is not None and run.trace.end == END_LIMIT:
        raise InfrastructureError(
            f"the trace reached its limit of {run.trace.count} records; what followed is unknown"
        )
    if run.trace is not None and run.trace.end == END_NO_SPACE:
        raise InfrastructureError(
            f"the disk was full after {run.trace.count} records of the trace; make room"
        )
    _require_interceptor(run)
    history = build(run.program, run.observations, run.trace or ())
    skipped = {}
    found: list[Divergence] = []
    for name, check in CHECKERS:
        if run.trace is None and name in _NEED_TRACE:
            skipped[name] = "the PEs had no FEAT_HDBSS, so there is no trace"
        elif name in ("flushed", "srcu") and run.flushes.absent and not run.flushes.flushes:
            skipped[name] = run.flushes.absent
        elif name == "buffer" and run.buffers.absent and not run.buffers.looks:
            skipped[name] = run.buffers.absent
        else:
            found += check(run, history)
    return Verdict(history.figures(), tuple(found), skipped | history.unchecked)

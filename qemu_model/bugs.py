# SPDX-License-Identifier: GPL-2.0-or-later
"""The seeded bugs: what each one makes wrong, and which scenario ought to find it.

They are in the kernel of the variant ``bugs``, which the patches of
``guest_images/kernel/bugs`` make of our series; ``hdbss.bug=NAME`` on its command line
switches one on.  The attempts are a hint where to look first; whether a bug is found is
what the checkers say about a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qemu_model.errors import UsageError
from qemu_model.globs import matching
from qemu_model.machine.command import Mode

NONE = "none"
"""The name with which the same kernel has no bug."""


@dataclass(frozen=True)
class Attempt:
    """A scenario that ought to find a bug, and the checker that names the cause.

    ``choices`` is what the PEs choose where the architecture leaves it open, as --choices
    has it.
    """

    scenario: str
    checker: str = ""
    mode: Mode = Mode.PARALLEL
    choices: str = ""


@dataclass(frozen=True)
class Bug:
    """A seeded bug; ``name`` is the value of hdbss.bug=."""

    name: str
    wrong: str
    attempts: tuple[Attempt, ...]


def _bug(name: str, wrong: str, scenario: str, checker: str, choices: str = "") -> Bug:
    return Bug(name, wrong, (Attempt(scenario, checker, choices=choices),))


def _missing_barrier(name: str, wrong: str) -> Bug:
    # An interrupt between exit and drain brings barriers of its own. On a busy host there is
    # always one, but for deterministic time.
    modes = Mode.DETERMINISTIC, Mode.PARALLEL
    attempts = (Attempt("bitmap.random", "barriers", mode, "visibility=dsb") for mode in modes)
    return Bug(name, wrong, tuple(attempts))


BUGS: tuple[Bug, ...] = (
    Bug(
        "on-before-buffer",
        "VTCR_EL2.HDBSS is set before the vCPUs have buffers",
        (
            Attempt("on.running", "programming"),
            # Where the first one is a matter of time, this is none.
            Attempt("race.enable-window", "programming", Mode.GDB),
        ),
    ),
    _bug(
        "on-after-enomem",
        "VTCR_EL2.HDBSS stays set when there is no memory for the buffers",
        "uapi.alloc-fails",
        "programming",
    ),
    _bug(
        "old-vtcr",
        "a vCPU in the guest keeps the VTCR_EL2 it was loaded with",
        "on.running",
        "programming",
    ),
    _missing_barrier("no-dsb", "a drain reads the entries without a DSB"),
    _missing_barrier("no-isb", "a drain reads INDEX without an ISB"),
    _bug("no-flush-at-put", "vcpu_put does not drain the buffer", "flush.put", "flushed"),
    _bug(
        "no-flush-on-request",
        "reading the log does not drain the buffers of vCPUs in the guest",
        "flush.request",
        "reached",
    ),
    _bug(
        "no-drain-before-off",
        "switching off forgets what is in the buffers",
        "off.pending",
        "lost",
    ),
    _bug(
        "early-free",
        "switching off frees the buffers before the vCPUs have left the guest",
        "off.pending",
        "buffer",
    ),
    Bug(
        "stale-address",
        "the address of a freed buffer is kept, and freed again with the vCPU",
        # Whether the page is still free by then is a matter of time.
        tuple(
            Attempt("teardown.off", "kernel_log", mode)
            for mode in (Mode.PARALLEL, Mode.DETERMINISTIC)
        ),
    ),
    _bug(
        "no-late-buffer",
        "a vCPU that is created while HDBSS is on has no buffer",
        "vcpu.late",
        "programming",
    ),
    Bug(
        "wrong-size",
        "HDBSSBR_EL2.SZ is one more than the order",
        # Every other buffer is not aligned to that size: entries go to memory of somebody
        # else, of which the machine may die; in deterministic mode it does so or not.
        tuple(
            Attempt(scenario, "programming", mode)
            for mode in (Mode.DETERMINISTIC, Mode.PARALLEL)
            for scenario in ("fault.abort-off", "bitmap.two-slots")
        ),
    ),
    _bug(
        "dbm-on-readonly",
        "DBM is set on pages that the guest must not write to",
        "readonly.slot",
        "uapi",
    ),
    _bug("no-split", "blocks are not split while HDBSS is on", "huge.thp", "reached"),
    _bug(
        "block-as-page",
        "blocks are not split, and their entries count as one page",
        "huge.thp",
        "lost",
    ),
    _bug("last-entry", "a drain leaves out the last entry", "bitmap.random", "flushed"),
    _bug(
        "valid-ignored",
        "a slot of the buffer that holds no entry is taken for one",
        "fault.no-entry",
        "uapi",
    ),
    _bug("narrow-ipa", "36 bits of an entry's IPA are looked at", "bitmap.high", "flushed"),
    _bug("no-index-reset", "INDEX stays where it is after a drain", "buffer.refill", "liveness"),
    _bug(
        "index-left-behind",
        "a preempted vCPU is not drained, and its INDEX stays behind when it changes CPU",
        "smp.move",
        "lost",
    ),
    _bug(
        "hdbssf-ignored",
        "an abort with HDBSSF is handled like any permission fault",
        "buffer.full",
        "liveness",
    ),
    _bug(
        "fault-as-full",
        "HDBSSF means a full buffer, whatever FSC says",
        "fault.abort-dirty",
        "lost",
    ),
    _bug(
        "fsc-dropped",
        "the drain of vcpu_put zeroes FSC without a look at it",
        "fault.abort-put",
        "lost",
    ),
    _bug(
        "ha-cleared",
        "switching off clears VTCR_EL2.HA too",
        "off.empty",
        "programming",
    ),
    _bug(
        "no-tlbi",
        "no TLBI follows when HDBSS is switched on or off",
        "off.pending",
        "programming",
        "caching=lazy",
    ),
    _bug(
        "no-srcu",
        "pages are marked dirty without kvm->srcu",
        "bitmap.stride",
        "srcu",
    ),
    _bug(
        "ring-overrun",
        "HDBSS and the dirty ring are on together, a drain pushes past the ring's end",
        "ring.excluded",
        "kernel_log",
    ),
    Bug(
        "no-drain-at-move",
        "a memslot is deleted or moved with entries for it pending",
        # A matter of time: they are drained by the next exit, or never.
        (
            Attempt("slot.move", "lost", Mode.DETERMINISTIC),
            Attempt("slot.move", "lost"),
            Attempt("slot.move", "reached"),
        ),
    ),
)
"""In the order in which such code is written: on, flushes, off, buffers, entries, aborts."""


def require(name: str) -> str:
    """The name of a bug, or NONE; UsageError for any other."""
    if name != NONE and name not in {bug.name for bug in BUGS}:
        raise UsageError(f"no seeded bug is called {name!r}; `hdbss bugs --list` prints them all")
    return name


def select(patterns: Sequence[str]) -> tuple[Bug, ...]:
    """The bugs whose names match one of the globs, in the table's order; no pattern: all.

    UsageError when a pattern matches nothing.
    """
    return matching(BUGS, patterns, "seeded bug", "hdbss bugs --list")

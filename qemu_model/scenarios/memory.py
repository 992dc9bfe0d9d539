# SPDX-License-Identifier: GPL-2.0-or-later
"""Kinds of memory and of stores."""

from qemu_model.program import PAGE
from qemu_model.scenarios.scenario import PATIENCE, SLOT_GPA, Scenario, Script

_BLOCK = 512
_AWAY = 0x1000_0000
"""Distance in bytes over which slots are moved."""


def _thp(s: Script) -> None:
    blocks, rounds = s.size((4, 3), (1, 2))
    pages, step = blocks * _BLOCK, s.size(1, 4)
    few, far = s.size((40, 51), (10, 52))
    s.vm(pages, memory="thp")
    s.stride(blocks, step=_BLOCK)  # blocks are mapped while logging is off
    s.hdbss_on(2)
    s("log", 0, "on")
    s("snapshot", 0)
    stored = pages // step
    s.stride(stored, step=step, width=1)  # a kernel may take the first store to a page by fault
    s.harvest()
    for _ in range(rounds):
        s.stride(stored, step=step, offset=s.rng.randrange(PAGE), width=1)
        s.harvest()
        s.stride(few, step=far, offset=s.rng.randrange(PAGE), width=1)
        s.harvest()
    s.reaches("levels=3", f"entries>={rounds * (stored + few)}", "spurious<=0")


def _atomics(s: Script) -> None:
    # More pages than the buffer holds: stores without a syndrome are refused too.
    pages = s.size(1100, 96)
    s.vm(pages)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for how in ("ldadd", "swp", "cas", "stxr", "ldadd"):
        s.payload("run", "atomic", 0, pages, how=how, limit=PATIENCE)
        s.harvest(changed=pages)
    s.reaches(f"entries>={3 * pages}", *s.size(("refusals>=4",), ()))


def _readonly(s: Script) -> None:
    pages = s.size(256, 64)
    s.vm(pages)
    size = pages * PAGE
    s("slot", 1, gpa=hex(SLOT_GPA + size), pages=pages, mem="anon", ro=True)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("log", 1, "on")
    s("snapshot", 0)
    s("snapshot", 1)
    for _ in range(3):
        s.stride(pages)
        s.payload("run", "read", 0, 2 * pages)
        s.payload("run", "exec", 0, pages)
        # Each store to the read-only slot leaves the guest as MMIO; memory stays as it is.
        s("run", 0, "stride", gpa=hex(SLOT_GPA + size), count=pages, stride=PAGE, value=s.value(),
          expect=f"exit=door mmio={pages}")  # fmt: skip
        s.harvest()
        s("compare", 1, expect="ret=0 changed=0")
        s("get", 1, expect="ret=0 reported=0")
    s.reaches(f"entries>={2 * pages}")


def _recreate(s: Script) -> None:
    most = s.size(600, 96)
    s.vm(most)
    s.hdbss_on(2)
    for pages in (most, most, most // 2, most):
        s("slot", 0, gpa=hex(SLOT_GPA), pages=pages, mem="anon", log=True)
        s("snapshot", 0)
        for count in (pages, pages // 2):
            s.stride(count)
            s.harvest()
        # The slot goes while the vCPU is in the guest with entries of it pending; what it
        # stores from then on leaves the guest as MMIO.
        s.payload("start", "stride", 0, pages, loops=0)
        s("await", 0, page=pages - 1)
        s("unslot", 0)
        s("stop", 0)
    s.reaches(f"entries>={most}")


def _move(s: Script) -> None:
    turns, part = 4, s.size(150, 40)
    pages = turns * part
    s.vm(pages)
    s.hdbss_on(2)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s("slot", 0, gpa=hex(SLOT_GPA), pages=pages, mem="anon", log=True)
    s("snapshot", 0)
    for turn in range(turns):
        here, there = (SLOT_GPA + n * _AWAY for n in (turn, turn + 1))
        s("run", 0, "stride", gpa=hex(here), count=pages, stride=PAGE, value=s.value())
        s.harvest()
        # Half of the time the vCPU stores once and stays in the guest: only the move itself
        # can get its entries. Else the next store, to the unmapped slot, makes it leave.
        stays = turn % 2 == 1
        s("start", 0, "stride", gpa=hex(here + turn * part * PAGE), count=part, stride=PAGE,
          value=s.value(), loops=1 if stays else 0, spin=stays)  # fmt: skip
        s("await", 0, page=(turn + 1) * part - 1)
        s("slot", 0, gpa=hex(there), pages=pages, mem="anon", log=True)
        s("stop", 0, expect="ret=0 exit=interrupted mmio=0" if stays else None)
        s.harvest()
    # Nothing runs during the reads: what was pending at a move is in the very next one.
    s.reaches(f"entries>={pages}", "lateness<=0")


SCENARIOS = (
    Scenario(
        "huge.thp",
        "one byte in every 4 KB of 2 MB blocks",
        "blocks that are not split: one entry for 512 pages, of which one is reported or all",
        _thp,
    ),
    Scenario(
        "atomics",
        "LDADD, SWP, CAS and exclusives on writable-clean pages",
        "an abort for HDBSSF that is handled only for plain stores",
        _atomics,
    ),
    Scenario(
        "readonly.slot",
        "loads, calls, and stores to a read-only slot beside a writable one",
        "DBM on a read-only mapping: hardware lets the guest change what it must not",
        _readonly,
    ),
    Scenario(
        "slot.recreate",
        "a logged slot is deleted and created again, also in another size",
        "entries of the old slot marked in its bitmap, which is gone, or past the new one's end",
        _recreate,
    ),
    Scenario(
        "slot.move",
        "a logged slot moves to another address under a running guest",
        "no drain at the move: entries for the old address dropped, although the bitmap lives on",
        _move,
    ),
)

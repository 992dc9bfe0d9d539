# SPDX-License-Identifier: GPL-2.0-or-later
"""The buffer: its sizes, and what happens at its end."""

from qemu_model.program import PAGE
from qemu_model.scenarios.scenario import SLOT_GPA, Needs, Scenario, Script

_ALIAS_PAGES = 4096
_ALIASES = 65
_PATIENCE = 10_000
"""Milliseconds for a payload that takes some tens of them."""


def _orders(s: Script) -> None:
    s("vm", dirty="plain")
    s("vcpu", 0)
    # 65 slots show the same 16 MiB: 266240 pages for the guest, each with its own
    # 8 bytes in the memory behind them, so that order 9 can overflow in a small machine.
    size = _ALIAS_PAGES * PAGE
    for slot in range(_ALIASES):
        memory = "thp" if slot == 0 else "alias:0"
        s("slot", slot, gpa=hex(SLOT_GPA + slot * size), pages=_ALIAS_PAGES, mem=memory, lane=slot)
    whole = {"ocount": _ALIASES, "ostride": size + 8}
    # A thread that nothing preempts: a flush at vcpu_put would empty the buffer early.
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    # Blocks are mapped before logging starts, which splits them without a fault.
    s("run", 0, "stride", gpa=hex(SLOT_GPA), count=8, stride=512 * PAGE, value=s.value(), **whole)
    s.hdbss_on(9)
    for slot in range(_ALIASES):
        s("log", slot, "on")
        s("snapshot", slot)

    def fill(order: int) -> None:
        capacity = 512 << order
        used = -(-(capacity + 64) // _ALIAS_PAGES)
        count = -(-(capacity + 64) // used)
        s("run", 0, "stride", gpa=hex(SLOT_GPA), count=count, stride=PAGE, ocount=used,
          ostride=size + 8, value=s.value())  # fmt: skip
        for slot in range(used):
            s.harvest(slot)

    # A kernel may take the first store to each page by fault.
    fill(9)
    s.hdbss_off()
    for order in range(10):
        s.hdbss_on(order)
        fill(order)
        s.hdbss_off()
    # Every order filled its buffer: the sum of 512 << order, and one refusal at least each.
    s.reaches(f"entries>={512 * 1023}", "refusals>=10")


def _full(s: Script) -> None:
    s.vm(2048)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for count in (2048, 511, 512, 513, 1024, 1025, 2048):
        # A guest that never gets past the full buffer is told within the limit.
        s.stride(count, limit=_PATIENCE)
        s.harvest()
    s.reaches("entries>=5600", "refusals>=7")


SCENARIOS = (
    Scenario(
        "buffer.orders",
        "orders 0 to 9, each filled past its capacity",
        "an order taken for another SZ, a buffer smaller than announced",
        _orders,
        needs=Needs(memory=1024),
        styles=("cap",),
    ),
    Scenario(
        "buffer.full",
        "one entry less, exactly and one more than the buffer holds",
        "HDBSSF ignored: refusals repeat and the buffer stays full; an off-by-one at the end",
        _full,
        styles=("cap", "auto"),
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The buffer: its sizes, and what happens at its end."""

from qemu_model.program import PAGE
from qemu_model.scenarios.scenario import PATIENCE, SLOT_GPA, Needs, Scenario, Script

_ALIAS_PAGES = 4096
_ALIASES = 65
_FEW = 8
"""Pages with which an order that is too large to fill is tried in the small form."""


def _orders(s: Script) -> None:
    s("vm", dirty="plain")
    s("vcpu", 0)
    # 65 slots show the same 16 MiB: 266240 pages for the guest, each with its own
    # 8 bytes in the memory behind them, so that order 9 can overflow in a small machine.
    size = _ALIAS_PAGES * PAGE
    aliases = s.size(_ALIASES, 1)
    for slot in range(aliases):
        memory = "thp" if slot == 0 else "alias:0"
        s("slot", slot, gpa=hex(SLOT_GPA + slot * size), pages=_ALIAS_PAGES, mem=memory, lane=slot)
    whole = {"ocount": aliases, "ostride": size + 8}
    # A thread that nothing preempts: a flush at vcpu_put would empty the buffer early.
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    # Blocks are mapped before logging starts, which splits them without a fault.
    s("run", 0, "stride", gpa=hex(SLOT_GPA), count=8, stride=512 * PAGE, value=s.value(), **whole)
    s.hdbss_on(9)
    for slot in range(aliases):
        s("log", slot, "on")
        s("snapshot", slot)

    def fill(order: int) -> None:
        wanted = (512 << order) + s.size(64, 16)
        if s.small and order:
            wanted = _FEW
        used = -(-wanted // _ALIAS_PAGES)
        count = -(-wanted // used)
        s("run", 0, "stride", gpa=hex(SLOT_GPA), count=count, stride=PAGE, ocount=used,
          ostride=size + 8, value=s.value())  # fmt: skip
        for slot in range(used):
            s.harvest(slot)

    # A kernel may take the first store to each page by fault.
    fill(s.size(9, 0))
    s.hdbss_off()
    for order in range(10):
        s.hdbss_on(order)
        fill(order)
        s.hdbss_off()
    # Every order filled its buffer: the sum of 512 << order, and one refusal at least each.
    s.reaches(*s.size((f"entries>={512 * 1023}", "refusals>=10"), ("entries>=512", "refusals>=1")))


def _full(s: Script) -> None:
    # 513 entries are one too many for 512: the small form looks at both sides of the end at once.
    counts = s.size((2048, 511, 512, 513, 1024, 1025, 2048), (513, 513))
    s.vm(counts[0])
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for count in counts:
        # A guest that never gets past the full buffer is told within the limit.
        s.stride(count, limit=PATIENCE)
        s.harvest(changed=count)
    s.reaches(*s.size(("entries>=5600", "refusals>=7"), ("entries>=513", "refusals>=1")))


def _refill(s: Script) -> None:
    pages = s.size(600, 520)
    s.vm(pages)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s.stride(pages, limit=PATIENCE)
        s.harvest(changed=pages)
    s.reaches(f"entries>={pages}", "refusals>=1")


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
    Scenario(
        "buffer.refill",
        "the buffer becomes full once, and the guest has to get on",
        "INDEX left where it is by a drain: what is refused once is refused for ever",
        _refill,
        styles=("cap", "auto"),
    ),
)

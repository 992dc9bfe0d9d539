# SPDX-License-Identifier: GPL-2.0-or-later
"""Things that go wrong in the hardware, and things that look as if they had.

A write of an entry that fails has two defined outcomes: an error that userspace sees, or
everything reported dirty.  Everything else here must not be noticed at all.
"""

from qemu_model.scenarios.scenario import PATIENCE, Scenario, Script

_STYLES = ("cap", "auto")
_PAGES = 96
_FAULTY = "append=40"
"""With HDBSS driven by a capability, this is in the second round, in the middle."""
_UNHARMED = 64
"""The first page that is beyond every page whose entry is lost."""


def _rounds(s: Script, pages: int = _PAGES, rounds: int = 4) -> None:
    s.vm(pages)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    for _ in range(rounds):
        s.stride(pages, limit=PATIENCE)
        s.harvest(changed=pages)


def _one_fault(s: Script) -> None:
    _rounds(s, rounds=2)
    # Pages whose entries were lost are not stored to again: no later entry makes up for it.
    for _ in range(2):
        s.stride(_PAGES - _UNHARMED, first=_UNHARMED, limit=PATIENCE)
        s.harvest()
    s.reaches("faults=1")


def _unnoticed(s: Script) -> None:
    _rounds(s, s.size(700, _PAGES))
    s.reaches("injections>=1", "entries>=100")


def _refused(s: Script) -> None:
    _rounds(s, s.size(700, _PAGES))
    s.reaches("injections>=1", "refusals>=2")


def _off(s: Script) -> None:
    s.vm(_PAGES)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s.hdbss_on(0)
        for _ in range(2):
            s.stride(_PAGES, limit=PATIENCE)
            s.harvest()
        s.hdbss_off()
        s.stride(_PAGES, limit=PATIENCE)
        s.harvest()
    s.reaches("injections>=1", "entries>=1")


def _pending(s: Script) -> None:
    """The fault is found by the drain of HDBSS off, after which nothing is drained any more."""
    s.vm(_PAGES)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s.stride(_PAGES, limit=PATIENCE)
    s.harvest()
    s.payload("start", "stride", 0, _PAGES, spin=True)
    s("await", 0, page=_PAGES - 1)
    s.hdbss_off()
    s("stop", 0)
    s.harvest()
    s.reaches("faults=1")


def _put(s: Script) -> None:
    """The fault is found by the drain of vcpu_put; then nothing asks for FSC again."""
    s.vm(_PAGES)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s.stride(_PAGES, limit=PATIENCE)
        s.harvest()
    s.stride(_PAGES - _UNHARMED, limit=PATIENCE)
    s.harvest()
    s.reaches("faults=1")


def _no_entry(s: Script) -> None:
    # Slots that hold nothing name IPA 0, which is memory here.
    s.vm(_PAGES)
    s("slot", 1, gpa=0, pages=_PAGES, mem="anon")
    s.hdbss_on(0)
    for slot in (0, 1):
        s("log", slot, "on")
        s("snapshot", slot)
    for _ in range(4):
        s.stride(_PAGES, limit=PATIENCE)
        s.harvest()
        # Slots without an entry say nothing, or that entries are lost; not: page 0 is dirty.
        s("get", 1, expect=f"reported=0|{_PAGES}")
    s.reaches("injections=1", f"entries>={_PAGES}")


def _hotplug(s: Script) -> None:
    s.vm(_PAGES)
    s("pin", "agent", cpu=0)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(2):
        s("pin", vcpu=0, cpu=1)
        s.stride(_PAGES, limit=PATIENCE)
        s.harvest()
        s("cpu", 1, "off")
        s("cpu", 1, "on")
    # The CPU goes with the vCPU in the guest, which then runs elsewhere.
    s("pin", vcpu=0, cpu=1)
    s.payload("start", "stride", 0, _PAGES, loops=0)
    s("await", 0, page=_PAGES - 1)
    s("cpu", 1, "off")
    s.harvest_running()
    s("cpu", 1, "on")
    s("pin", vcpu=0, cpu=1)
    s("await", 0, page=_PAGES - 1)
    s.harvest_running()
    s.settle(_PAGES - 1)
    s("stop", 0)
    s.harvest()
    s.reaches("injections>=5", f"entries>={2 * _PAGES}")


SCENARIOS = (
    Scenario(
        "fault.abort",
        "an entry meets an External abort, told by FSC; its page stays clean",
        "FSC ignored: the guest is refused for ever; FSC not zeroed",
        _one_fault,
        styles=_STYLES,
        inject=(f"abort,{_FAULTY},report=fsc,dirty=no,late=0",),
    ),
    Scenario(
        "fault.abort-dirty",
        "the same, and the page becomes dirty without an entry",
        "FSC ignored: a page that is in no buffer is lost",
        _one_fault,
        styles=_STYLES,
        inject=(f"abort,{_FAULTY},report=fsc,dirty=yes,late=0",),
    ),
    Scenario(
        "fault.abort-late",
        "FSC is told eight dirty updates late",
        "what the buffer holds is taken for all that was dirtied",
        _one_fault,
        styles=_STYLES,
        inject=(f"abort,{_FAULTY},report=fsc,late=8",),
    ),
    Scenario(
        "fault.abort-precise",
        "the External abort of an entry is told by a Data Abort with HDBSSF",
        "the abort is taken for one of the guest's own accesses and given to the guest",
        _one_fault,
        styles=_STYLES,
        inject=(f"abort,{_FAULTY},report=precise,dirty=yes",),
    ),
    Scenario(
        "fault.abort-clean",
        "the same, and the page stays clean: its entry is written when the store is repeated",
        "the abort of an access that has to be repeated is taken for one that was done",
        _one_fault,
        styles=_STYLES,
        inject=(f"abort,{_FAULTY},report=precise,dirty=no",),
    ),
    Scenario(
        "fault.abort-off",
        "entries are lost just before HDBSS is switched off",
        "what was lost is forgotten with the buffer",
        _pending,
        styles=_STYLES,
        inject=("abort,append=96,report=fsc,dirty=yes,late=0",),
    ),
    Scenario(
        "fault.abort-put",
        "the last entry before the vCPU is put is lost",
        "the drain of vcpu_put zeroes FSC without a look at it",
        _put,
        styles=_STYLES,
        inject=("abort,append=96,report=fsc,dirty=yes,late=0",),
    ),
    Scenario(
        "fault.gpf",
        "an entry meets a Granule Protection Fault, told by FSC",
        "only the FSC of an External abort is known",
        _one_fault,
        styles=_STYLES,
        inject=(f"gpf,{_FAULTY},report=fsc",),
    ),
    Scenario(
        "fault.gpf-precise",
        "the Granule Protection Fault of an entry is told by a Data Abort with HDBSSF",
        "the store that met it is taken for one that was done; an abort that the kernel dies of",
        _one_fault,
        styles=_STYLES,
        inject=(f"gpf,{_FAULTY},report=precise",),
    ),
    Scenario(
        "fault.lost-races",
        "descriptor updates lose their races, so that entries come twice",
        "an entry for a page that is dirty already upsets the drain",
        _unnoticed,
        styles=_STYLES,
        inject=("cas-lost,append=7,times=5", "cas-lost,append=90"),
    ),
    Scenario(
        "fault.full-early",
        "a buffer that is full at a given store, and refusals that look like stage 1 walks",
        "HDBSSF handled only for plain stores; an address taken from HPFAR_EL2",
        _refused,
        styles=_STYLES,
        inject=(
            "fill,append=17",
            "fill,append=60",
            "s1ptw,refusal=1",
            "fetch,refusal=2",
        ),
    ),
    Scenario(
        "fault.index",
        "INDEX does not begin at 0: near the end of the buffer, at it, beyond it",
        "slots are taken from beyond the buffer; a slot without an entry is taken for the end",
        _refused,
        styles=_STYLES,
        inject=("index=last,entry=2", "index=full,entry=4", "index=max,entry=6"),
    ),
    Scenario(
        "fault.no-entry",
        "INDEX is beyond slots that hold no entry, and a page at IPA 0 is logged",
        "the valid bit ignored: what a slot without an entry holds is taken for one",
        _no_entry,
        styles=_STYLES,
        inject=("index=last,entry=3",),
    ),
    Scenario(
        "fault.unknown-registers",
        "after reset the registers hold anything",
        "a register is not written before HDBSS is switched on",
        _off,
        styles=_STYLES,
        inject=("unknown",),
    ),
    Scenario(
        "fault.hotplug",
        "a CPU goes and comes back, its registers hold anything then",
        "registers of a CPU that was off are taken for those that were written before",
        _hotplug,
        styles=_STYLES,
        inject=("unknown",),
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Switching off and on, and going away while it is on."""

from qemu_model.scenarios.scenario import LEAK, PATIENCE, Needs, Scenario, Script

_POISON = "page_poison=1"
"""Where the kernel is built with it: what is freed loses its content at once, and a page
that is freed twice or written to afterwards is noticed."""


_MANY, _LARGEST = 8, 2
"""vCPUs, and MiB of the largest buffer of each."""


def _on_running(s: Script) -> None:
    # The vCPU that runs is the last of many that get a large buffer.
    pages, last = s.size(512, 64), 7
    s.vm(pages, vcpus=last + 1)
    # Nothing preempts it: to be loaded again would give it the new registers.
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=last, cpu=1)
    s("log", 0, "on")
    s("snapshot", 0)
    s.payload("start", "stride", last, pages, loops=0)
    s("await", 0, page=pages - 1, limit=PATIENCE // 2)
    s.harvest_running()
    s.hdbss_on(9)
    for _ in range(4):
        s("await", 0, page=pages - 1, limit=PATIENCE // 2)
        s.harvest_running()
    s.settle(pages - 1)
    s("stop", last)
    s.harvest()
    s.hdbss_off()
    s.reaches(f"entries>={2 * pages}")


def _log_running(s: Script) -> None:
    # More than the buffer holds: what is left in it when logging stops is not all of them.
    pages = s.size(1200, 64)
    s.vm(pages)
    s.hdbss_on(0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.payload("start", "stride", 0, pages, loops=0)
    for turn in range(4):
        if turn:
            s("log", 0, "off")
        s("log", 0, "on")
        s("snapshot", 0)
        for _ in range(2):
            s("await", 0, page=pages - 1)
            s.harvest_running()
        s.settle(pages - 1)
    s("stop", 0)
    s.harvest()
    s.reaches(f"entries>={pages}")


def _mapped(s: Script, pages: int, order: int) -> None:
    """A logged slot with HDBSS on, whose pages the guest has stored to once."""
    s.vm(pages)
    s.hdbss_on(order)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.stride(pages)
    s.harvest()


def _off_pending(s: Script) -> None:
    pages = s.size(2048, 64)
    _mapped(s, pages, 5)
    for _ in range(4):
        # The guest has dirtied its pages and spins on the same ones: no reason to exit.
        s.payload("start", "stride", 0, pages, loops=0)
        s("await", 0, page=pages - 1)
        s.hdbss_off()
        s("get", 0)
        s("stop", 0)
        s.harvest()
        s.hdbss_on(5)
        s.stride(pages)
        s.harvest()
    # What was pending at the switch is in the very next read: nothing drains it later.
    s.reaches(f"entries>={s.size(6000, 3 * pages)}", "lateness<=0")


def _off_writing(s: Script) -> None:
    # To free 2 MB takes a while, the more so with poison; the buffer of vCPU 0 is the first.
    pages, last = s.size(2048, 64), 7
    s.vm(pages, vcpus=last + 1)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s("log", 0, "on")
    s("snapshot", 0)
    s.payload("start", "stride", 0, pages, loops=0)
    for _ in range(2):
        s.hdbss_on(9)
        s("await", 0, page=pages - 1)
        s.harvest_running()
        s.settle(pages - 1)
        s("await", 0, page=pages - 1)
        s.harvest()
        # In the middle of a pass over pages that are writable-clean.
        s.hdbss_off()
        s("await", 0, page=pages - 1)
        s.harvest_running()
    s.settle(pages - 1)
    s("stop", 0)
    s.harvest()
    # Whoever gets this memory next finds what was written to it.
    s.hdbss_on(9)
    s("klog", expect="ret=0 lines=0")
    s.reaches(f"entries>={pages}")


def _off_empty(s: Script) -> None:
    pages = s.size(512, 64)
    _mapped(s, pages, 0)
    # The guest has dirtied its pages, and is drained: it writes to nothing any more.
    s.payload("start", "stride", 0, pages, spin=True)
    s("await", 0, page=pages - 1)
    s.harvest_running()
    s.hdbss_off()
    s("stop", 0)
    s.harvest()
    s.reaches(f"entries>={pages}")


def _off_on_again(s: Script) -> None:
    # In the small form only the smallest buffer is filled.
    counts = {order: s.size(2048, 16 if order else 520) for order in (3, 1, 0, 2)}
    pages = max(counts.values())
    s.vm(pages)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s("log", 0, "on")
    s("snapshot", 0)
    for order, count in counts.items():
        s.hdbss_on(order)
        for _ in range(2):
            s.stride(count)
            s.harvest()
        s.hdbss_off()
        s.stride(s.size(700, 12))
        s.harvest()
    s.reaches(*s.size(("entries>=8000", "refusals>=4"), ("entries>=552", "refusals>=1")))


def _teardown(s: Script) -> None:
    pages = s.size(600, 80)
    for order in (0, 4):
        s.vm(pages, vcpus=2)
        s.hdbss_on(order)
        s("log", 0, "on")
        s("snapshot", 0)
        for _ in range(2):
            s.stride(pages)
            s.harvest()
        # Entries are pending when the vCPUs are kicked out and everything is closed.
        s.payload("start", "stride", 0, pages, loops=0)
        s.payload("start", "stride", 1, pages, loops=0)
        s("await", 0, page=pages - 1)
        s("destroy")
    if s.uapi.style == "cap":
        for _ in range(LEAK // (_MANY * _LARGEST)):
            s("vm")
            for vcpu in range(_MANY):
                s("vcpu", vcpu)
            s.hdbss_on(9)
            s("destroy")
        s("vm")
        s.nothing_leaked()
        s("destroy")
    s.vm(64)
    s.stride(64)
    s("klog", expect="ret=0 lines=0")
    s.reaches(f"entries>={2 * pages}")


def _teardown_off(s: Script) -> None:
    pages = s.size(512, 64)
    # Each CPU has free pages of its own; those of this one are the first to be taken again.
    s("pin", "agent", cpu=0)
    for _ in range(4):
        s.vm(pages, vcpus=8)
        s.hdbss_on(0)
        s("log", 0, "on")
        s("snapshot", 0)
        for vcpu in (0, 1):
            s.stride(pages, vcpu=vcpu)
            s.harvest()
        s.hdbss_off()
        # At once: a page that is freed twice has to be noticed before it has a new owner,
        # who would die of it.
        s("destroy")
    s.vm(pages)
    s.stride(pages)
    s("klog", expect="ret=0 lines=0")
    s.reaches(f"entries>={4 * pages}")


SCENARIOS = (
    Scenario(
        "on.running",
        "HDBSS is switched on under a vCPU that stays in the guest",
        "a vCPU that keeps the old VTCR_EL2, or gets the new one before its buffer",
        _on_running,
        styles=("cap",),
    ),
    Scenario(
        "log.running",
        "logging starts and stops again and again under a vCPU that stays in the guest",
        "pages that are dirty when logging starts and stay so: no entry will ever tell of them",
        _log_running,
    ),
    Scenario(
        "off.pending",
        "HDBSS is switched off while the vCPU runs with entries in its buffer",
        "no drain before off, or buffers freed before the vCPUs have left the guest",
        _off_pending,
        needs=Needs(cmdline=_POISON),
        styles=("cap",),
    ),
    Scenario(
        "off.writing",
        "HDBSS is switched off while the vCPU stores to clean pages",
        "a buffer that is freed while entries are still written to it: they spoil free memory",
        _off_writing,
        needs=Needs(cmdline=_POISON),
        styles=("cap",),
    ),
    Scenario(
        "off.empty",
        "HDBSS is switched off while the vCPU runs and its buffer is empty",
        "a buffer that is freed while a vCPU could still write to it, though it does not",
        _off_empty,
        styles=("cap",),
    ),
    Scenario(
        "off.on-again",
        "off and on again, with smaller and larger buffers",
        "an address, size or INDEX that outlives its buffer",
        _off_on_again,
        styles=("cap",),
    ),
    Scenario(
        "teardown.enabled",
        "the VM is destroyed with HDBSS on and entries pending",
        "buffers leaked or freed too early, a flush into a VM that is gone",
        _teardown,
        needs=Needs(cpus=3),
    ),
    Scenario(
        "teardown.off",
        "the VM is destroyed after HDBSS was switched off, and another one is made",
        "a buffer that is freed again with its vCPU",
        _teardown_off,
        needs=Needs(cmdline=_POISON),
        styles=("cap",),
    ),
)

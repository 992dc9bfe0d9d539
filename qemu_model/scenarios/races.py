# SPDX-License-Identifier: GPL-2.0-or-later
"""Races between a CPU that dirties memory and one that manages it, made to happen by holds.

The vCPU is on CPU 1, the agent on CPU 0.  The vCPU's buffer holds entries that no drain
has taken when CPU 1 arrives at ``__guest_exit`` "with entries pending".
"""

from qemu_model.program import PAGE
from qemu_model.scenarios.holds import Await, Hold, Let, Release, Step
from qemu_model.scenarios.scenario import SLOT_GPA, Scenario, Script

_PAGES = 96
_LEFT_GUEST = "__guest_exit"
"""The kernel's first function after a guest exit (arch/arm64/kvm/hyp/entry.S)."""
_ENTERS_GUEST = "__guest_enter"
_WAITS_FOR_CPUS = "smp_call_function_many_cond"
"""Where a CPU sends IPIs and waits for their handlers (kernel/smp.c)."""


def _running(s: Script) -> None:
    """A vCPU that dirties its pages again and again on CPU 1, hardware already tracking."""
    s.vm(_PAGES)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.stride(_PAGES)
    s.harvest()
    s.payload("start", "stride", 0, _PAGES, loops=0)
    s("await", 0, page=_PAGES - 1)
    s.harvest_running()


def _stopped(s: Script) -> None:
    s("stop", 0)
    s.harvest()
    s.reaches("entries>=1")


def _off_while_running(s: Script) -> None:
    _running(s)
    s.hdbss_off()
    _stopped(s)


def _get_before_flush(s: Script) -> None:
    _running(s)
    for _ in range(3):
        s.harvest_running()
    _stopped(s)


def _put_after_exit(s: Script) -> None:
    s.vm(2 * _PAGES, vcpus=2)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    for vcpu in (0, 1):
        s("pin", vcpu=vcpu, cpu=1)
        s.stride(_PAGES, first=vcpu * _PAGES, vcpu=vcpu)
    s.harvest()
    s.payload("start", "stride", 0, _PAGES, loops=0)
    s("await", 0, page=_PAGES - 1)
    s.harvest_running()
    s.payload("start", "stride", 1, _PAGES, first=_PAGES, loops=0)
    s("await", 0, page=2 * _PAGES - 1)
    s.harvest_running()
    s("stop", 1)
    _stopped(s)


def _enable_window(s: Script) -> None:
    s.vm(_PAGES)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.payload("start", "stride", 0, _PAGES, loops=0)
    s("await", 0, page=_PAGES - 1)
    s.harvest_running()
    s.hdbss_on(0)
    for _ in range(2):
        s("await", 0, page=_PAGES - 1)
        s.harvest_running()
    _stopped(s)


def _slot_delete(s: Script) -> None:
    s.vm(_PAGES)
    second = SLOT_GPA + _PAGES * PAGE
    s("slot", 1, gpa=hex(second), pages=_PAGES, mem="anon")
    s.hdbss_on(0)
    for slot in (0, 1):
        s("log", slot, "on")
        s("snapshot", slot)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.stride(2 * _PAGES)
    for slot in (0, 1):
        s.harvest(slot)
    # The last page of slot 0 comes last, and then the vCPU stays in the guest.
    s.payload("start", "stride", 0, 2 * _PAGES, spin=True)
    s("await", 1, page=_PAGES - 1)
    s("compare", 1)
    s("unslot", 1)
    s.harvest_running()
    s("stop", 0)
    s.harvest()
    s("slot", 1, gpa=hex(second), pages=_PAGES, mem="anon", log=True)
    s("snapshot", 1)
    s.stride(2 * _PAGES)
    for slot in (0, 1):
        s.harvest(slot)
    s.reaches("entries>=1")


def _vcpu_create(s: Script) -> None:
    s.vm(_PAGES)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=0)
    s.stride(_PAGES)
    s.harvest()
    s("create", 1, cpu=1)
    s.hdbss_on(0)
    s("created", 1)
    s("pin", vcpu=1, cpu=1)
    for _ in range(2):
        for vcpu in (0, 1):
            s.stride(_PAGES, vcpu=vcpu)
            s.harvest()
    s.reaches("entries>=1", "pes>=2")


_EXIT_WITH_ENTRIES: tuple[Step, ...] = (
    Await("start"),
    Await("get"),
    Let(1, reach=_LEFT_GUEST, pending=True),
)
"""After the first read under way, CPU 1 leaves the guest and stands with entries pending."""

SCENARIOS = (
    Scenario(
        "race.off-while-running",
        "HDBSS is switched off between a CPU's guest exit and its drain",
        "off frees or forgets the buffer of a CPU that still has to drain it",
        _off_while_running,
        styles=("cap",),
        holds=(
            *_EXIT_WITH_ENTRIES,
            Let(0, reach=_WAITS_FOR_CPUS, reported="hdbss"),
            Release(),
        ),
    ),
    Scenario(
        "race.get-before-flush",
        "a read of the log completes while another CPU holds entries",
        "entries that a read misses are not there for the next one either",
        _get_before_flush,
        styles=("cap", "auto"),
        holds=(
            *_EXIT_WITH_ENTRIES[:2],
            Hold(0, at="kvm_arch_mmu_enable_log_dirty_pt_masked"),
            Let(1, reach=_LEFT_GUEST, pending=True),
            Let(0, reported="get"),
            Release(),
        ),
    ),
    Scenario(
        "race.put-after-exit",
        "a vCPU is preempted between its guest exit and its drain",
        "no drain at vcpu_put: the next vCPU's registers overwrite INDEX",
        _put_after_exit,
        styles=("cap", "auto"),
        holds=(
            *_EXIT_WITH_ENTRIES,
            Let(0, reported="start"),
            Let(1, reach="kvm_arch_vcpu_put", pending=True),
            Release(),
        ),
    ),
    Scenario(
        "race.enable-window",
        "a vCPU enters the guest while another CPU is enabling",
        "HDBSS is on in VTCR_EL2 before the vCPU has its buffer, or one keeps the old VTCR_EL2",
        _enable_window,
        styles=("cap",),
        holds=(
            Await("start"),
            Await("get"),
            Hold(0, at="kvm_vm_ioctl_enable_cap"),
            Release(),
            # Others run: a kernel that has switched on by now has waited for them.
            Hold(0, at="__alloc_pages_noprof"),
            Let(1, reach=_ENTERS_GUEST),
            Let(0, reach=_WAITS_FOR_CPUS, reported="hdbss"),
            Release(),
        ),
    ),
    Scenario(
        "race.vcpu-create",
        "a vCPU is being created while another CPU is enabling",
        "a vCPU that enabling has not seen has no buffer",
        _vcpu_create,
        styles=("cap",),
        holds=(
            # Alone: else CPU 0 may have enabled before CPU 1 gets there.
            Await("create"),
            Let(1, reach="kvm_arch_vcpu_create"),
            Let(0, reach=_WAITS_FOR_CPUS, reported="hdbss"),
            Release(),
        ),
    ),
    Scenario(
        "race.slot-delete",
        "a slot is deleted while entries for its pages are pending",
        "a drain into a slot that is gone, or that loses the pages of the others",
        _slot_delete,
        styles=("cap", "auto"),
        holds=(
            Await("start"),
            Await("await"),
            Let(1, reach=_LEFT_GUEST, pending=True),
            Let(0, reach="synchronize_srcu_expedited", reported="unslot"),
            Release(),
        ),
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Switching off and on, and going away while it is on."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _off_pending(s: Script) -> None:
    s.vm(2048)
    s.hdbss_on(5)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.stride(2048)
    s.harvest()
    for _ in range(4):
        # The guest has dirtied its pages and spins on the same ones: no reason to exit.
        s.payload("start", "stride", 0, 2048, loops=0)
        s("await", 0, page=2047)
        s.hdbss_off()
        s("get", 0)
        s("stop", 0)
        s.harvest()
        s.hdbss_on(5)
        s.stride(2048)
        s.harvest()
    # What was pending at the switch is in the very next read: nothing drains it later.
    s.reaches("entries>=6000", "lateness<=0")


def _off_on_again(s: Script) -> None:
    s.vm(2048)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s("log", 0, "on")
    s("snapshot", 0)
    for order in (3, 1, 0, 2):
        s.hdbss_on(order)
        for _ in range(2):
            s.stride(2048)
            s.harvest()
        s.hdbss_off()
        s.stride(700)
        s.harvest()
    s.reaches("entries>=8000", "refusals>=4")


def _teardown(s: Script) -> None:
    for order in (0, 4):
        s.vm(600, vcpus=2)
        s.hdbss_on(order)
        s("log", 0, "on")
        s("snapshot", 0)
        for _ in range(2):
            s.stride(600)
            s.harvest()
        # Entries are pending when the vCPUs are kicked out and everything is closed.
        s.payload("start", "stride", 0, 600, loops=0)
        s.payload("start", "stride", 1, 600, loops=0)
        s("await", 0, page=599)
        s("destroy")
    s.vm(64)
    s.stride(64)
    s("klog", expect="ret=0 lines=0")
    s.reaches("entries>=1200")


SCENARIOS = (
    Scenario(
        "off.pending",
        "HDBSS is switched off while the vCPU runs with entries in its buffer",
        "no drain before off, or buffers freed before the vCPUs have left the guest",
        _off_pending,
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
)

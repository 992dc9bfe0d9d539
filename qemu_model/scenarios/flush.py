# SPDX-License-Identifier: GPL-2.0-or-later
"""The places at which a kernel has to take entries out of the buffer."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _put(s: Script) -> None:
    s.vm(1024, vcpus=2)
    s.hdbss_on(2)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", vcpu=0, cpu=1)
    s("pin", vcpu=1, cpu=1)
    for _ in range(3):
        s.payload("start", "stride", 0, 512, loops=0)
        s.payload("start", "stride", 1, 512, first=512, loops=0)
        for _ in range(2):
            # Each vCPU has got through all its pages, so the other one had to wait.
            s("await", 0, page=511)
            s("await", 0, page=1023)
            s.harvest_running()
        s("stop", 0)
        s("stop", 1)
        s.harvest()
    s.reaches("entries>=1024")


def _request(s: Script) -> None:
    s.vm(512)
    s.hdbss_on(5)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.payload("start", "stride", 0, 100, loops=0)
    for _ in range(8):
        s("await", 0, page=99)
        s.harvest_running()
    s("stop", 0)
    s.harvest()
    # A read may miss what is being flushed; the next read may not.
    s.reaches("entries>=300", "lateness<=1")


def _fault(s: Script) -> None:
    s.vm(2048, vcpus=2)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s("pin", "fifo", vcpu=1, cpu=2)
    for _ in range(3):
        s.payload("start", "stride", 0, 1200)
        s.payload("start", "stride", 1, 1200, first=848, offset=64)
        s("wait", 0)
        s("wait", 1)
        s.harvest()
    s.reaches("entries>=2048", "refusals>=2")


SCENARIOS = (
    Scenario(
        "flush.put",
        "two vCPU threads share a CPU and preempt each other with entries pending",
        "no flush at vcpu_put: the next vCPU's registers overwrite INDEX",
        _put,
    ),
    Scenario(
        "flush.request",
        "the log is read while the vCPU stays in the guest",
        "no flush on request: entries stay in the buffer read after read",
        _request,
    ),
    Scenario(
        "flush.fault",
        "two vCPUs on two CPUs fill their buffers again and again",
        "the flush for HDBSSF takes another vCPU's entries or forgets its own",
        _fault,
        needs=Needs(cpus=3),
        styles=("cap", "auto"),
    ),
)

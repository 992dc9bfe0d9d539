# SPDX-License-Identifier: GPL-2.0-or-later
"""The places at which a kernel has to take entries out of the buffer."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _put(s: Script) -> None:
    half = s.size(512, 32)
    s.vm(2 * half, vcpus=2)
    s.hdbss_on(2)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", vcpu=0, cpu=1)
    s("pin", vcpu=1, cpu=1)
    for _ in range(3):
        s.payload("start", "stride", 0, half, loops=0)
        s.payload("start", "stride", 1, half, first=half, loops=0)
        for _ in range(2):
            # Each vCPU has got through all its pages, so the other one had to wait.
            s("await", 0, page=half - 1)
            s("await", 0, page=2 * half - 1)
            s.harvest_running()
        s.settle(half - 1, 2 * half - 1)
        s("stop", 0)
        s("stop", 1)
        s.harvest()
    s.reaches(f"entries>={2 * half}")


def _request(s: Script) -> None:
    s.vm(s.size(512, 64))
    pages = s.size(100, 40)
    s.hdbss_on(5)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.payload("start", "stride", 0, pages, loops=0)
    for _ in range(8):
        s("await", 0, page=pages - 1)
        s.harvest_running()
    s.settle(pages - 1)
    s("stop", 0)
    s.harvest()
    # A read may miss what is being flushed; the next read may not.
    s.reaches("lateness<=1", f"entries>={3 * pages}")


def _fault(s: Script) -> None:
    # Alone, each vCPU stores to more pages than its buffer holds.
    each, second = s.size((1200, 848), (528, 520))
    s.vm(each + second, vcpus=2)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s("pin", "fifo", vcpu=1, cpu=2)
    for _ in range(s.size(3, 2)):
        s.payload("start", "stride", 0, each)
        s.payload("start", "stride", 1, each, first=second, offset=64)
        s("wait", 0)
        s("wait", 1)
        s.harvest(changed=each + second)
    s.reaches(f"entries>={s.size(2048, 1024)}", "refusals>=2")


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

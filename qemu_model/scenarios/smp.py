# SPDX-License-Identifier: GPL-2.0-or-later
"""More than one vCPU, more than one CPU."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _two_vcpus(s: Script) -> None:
    s.vm(1024, vcpus=2)
    s.hdbss_on(1)
    s("log", 0, "on")
    s("snapshot", 0)
    for vcpu in (0, 1):
        s("pin", vcpu=vcpu, cpu=vcpu + 1)
    for _ in range(3):
        # Pages 256 to 767 are stored to by both, in different words.
        s.payload("start", "stride", 0, 768)
        s.payload("start", "stride", 1, 768, first=256, offset=8)
        s("wait", 0)
        s("wait", 1)
        s.harvest()
    s.reaches("entries>=2048")


def _move(s: Script) -> None:
    s.vm(1024)
    s.hdbss_on(3)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", vcpu=0, cpu=0)
    s.payload("start", "stride", 0, 1024, loops=0)
    for move in range(12):
        s("await", 0, page=s.rng.randrange(1024))
        s("pin", vcpu=0, cpu=(move + 1) % 4)
        s("compare", 0)
        if move % 3 == 2:
            s("get", 0)
            s("compare", 0)
    s("stop", 0)
    s.harvest()
    s.stride(300)
    s.harvest()
    s.reaches("entries>=1024", "pes>=3")


def _late(s: Script) -> None:
    s.vm(1024)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s.stride(1024)
    s.harvest()
    s("vcpu", 1)
    s.stride(1024, vcpu=1)
    s.harvest()
    s.payload("start", "stride", 0, 512, loops=0)
    s("await", 0, page=511)
    s("vcpu", 2)
    s.payload("run", "stride", 2, 700, first=300, offset=16)
    s("stop", 0)
    s.harvest()
    s.stride(1024, vcpu=2)
    s.harvest()
    s.reaches("entries>=2048", "refusals>=1")


SCENARIOS = (
    Scenario(
        "smp.two-vcpus",
        "two vCPUs on two CPUs, half of their pages in common",
        "a buffer shared by two vCPUs, entries lost when both dirty one page",
        _two_vcpus,
        needs=Needs(cpus=3),
    ),
    Scenario(
        "smp.move",
        "the vCPU's thread changes CPU again and again while it stores",
        "INDEX not saved or drained when a vCPU moves, registers left on the old CPU",
        _move,
        needs=Needs(cpus=4),
    ),
    Scenario(
        "vcpu.late",
        "vCPUs that are created after HDBSS was switched on, one while another runs",
        "a vCPU without a buffer: wild writes, or pages that nobody reports",
        _late,
        styles=("cap", "auto"),
    ),
)

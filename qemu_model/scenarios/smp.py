# SPDX-License-Identifier: GPL-2.0-or-later
"""More than one vCPU, more than one CPU."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _two_vcpus(s: Script) -> None:
    # The middle half of the pages is stored to by both, in different words.
    quarter = s.size(256, 32)
    s.vm(4 * quarter, vcpus=2)
    s.hdbss_on(1)
    s("log", 0, "on")
    s("snapshot", 0)
    for vcpu in (0, 1):
        s("pin", vcpu=vcpu, cpu=vcpu + 1)
    for _ in range(3):
        s.payload("start", "stride", 0, 3 * quarter)
        s.payload("start", "stride", 1, 3 * quarter, first=quarter, offset=8)
        s("wait", 0)
        s("wait", 1)
        s.harvest()
    s.reaches(f"entries>={8 * quarter}")


def _move(s: Script) -> None:
    pages = s.size(1024, 96)
    s.vm(pages)
    s.hdbss_on(3)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", vcpu=0, cpu=0)
    s.payload("start", "stride", 0, pages, loops=0)
    for move in range(12):
        s("await", 0, page=s.rng.randrange(pages))
        s("pin", vcpu=0, cpu=(move + 1) % 4)
        s("compare", 0)
        if move % 3 == 2:
            s("get", 0)
            s("compare", 0)
    s.settle(pages - 1)
    s("stop", 0)
    s.harvest()
    s.stride(s.size(300, 30))
    s.harvest()
    s.reaches(f"entries>={pages}", "pes>=3")


def _late(s: Script) -> None:
    pages, part, others, first = s.size((1024, 512, 700, 300), (160, 80, 110, 48))
    s.vm(pages)
    s("pin", "agent", cpu=0)
    s("pin", "fifo", vcpu=0, cpu=1)
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    s.stride(pages)
    s.harvest()
    s("vcpu", 1)
    s.stride(pages, vcpu=1)
    s.harvest()
    s.payload("start", "stride", 0, part, loops=0)
    s("await", 0, page=part - 1)
    s("vcpu", 2)
    s.payload("run", "stride", 2, others, first=first, offset=16)
    s("stop", 0)
    s.harvest()
    s.stride(pages, vcpu=2)
    s.harvest()
    s.reaches(f"entries>={2 * pages}", *s.size(("refusals>=1",), ()))


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

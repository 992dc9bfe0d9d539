# SPDX-License-Identifier: GPL-2.0-or-later
"""What it is all for: pre-copy migration, and the way of doing it without HDBSS."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _precopy(s: Script) -> None:
    # Pages from `both` to `first_ends` are stored to by both vCPUs.
    pages, first_ends, both, ends = s.size((2048, 1200, 1000, 1900), (96, 56, 48, 96))
    s.vm(pages, vcpus=2)
    s.hdbss_on(1)
    for vcpu in (0, 1):
        s("pin", vcpu=vcpu, cpu=vcpu + 1)
    s.payload("start", "stride", 0, first_ends, loops=0)
    s.payload("start", "atomic", 1, ends - both, first=both, how="ldadd", loops=0)
    s("log", 0, "on")
    s("precopy", 0)
    for _ in range(5):
        s("snapshot", 0)
        s("await", 0, page=s.rng.randrange(both))
        s("await", 0, page=s.rng.randrange(first_ends, ends))
        s("precopy-round", 0)
    s.settle(both - 1, ends - 1)
    s("stop", 0)
    s("stop", 1)
    s("precopy-final", 0)
    s.reaches(f"entries>={s.size(1000, 2 * pages)}")


def _write_protect(s: Script) -> None:
    pages = s.size(1024, 128)
    s.vm(pages)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(4):
        s.stride(pages)
        s.harvest()
    s.reaches("entries=0", always=True)


SCENARIOS = (
    Scenario(
        "migrate.precopy",
        "pre-copy of a slot under two running vCPUs; the destination must equal the source",
        "any page that is lost in any of the rounds",
        _precopy,
        needs=Needs(cpus=3),
    ),
    Scenario(
        "baseline.write-protect",
        "the same kernel and slot without HDBSS",
        "a patch that breaks plain dirty logging",
        _write_protect,
        styles=("cap", "none"),
    ),
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What it is all for: pre-copy migration, and the way of doing it without HDBSS."""

from qemu_model.scenarios.scenario import Needs, Scenario, Script


def _precopy(s: Script) -> None:
    s.vm(2048, vcpus=2)
    s.hdbss_on(1)
    for vcpu in (0, 1):
        s("pin", vcpu=vcpu, cpu=vcpu + 1)
    s.payload("start", "stride", 0, 1200, loops=0)
    s.payload("start", "atomic", 1, 900, first=1000, how="ldadd", loops=0)
    s("log", 0, "on")
    s("precopy", 0)
    for _ in range(5):
        s("snapshot", 0)
        s("await", 0, page=s.rng.randrange(1000))
        s("await", 0, page=s.rng.randrange(1200, 1900))
        s("precopy-round", 0)
    s("stop", 0)
    s("stop", 1)
    s("precopy-final", 0)
    s.reaches("entries>=1000")


def _write_protect(s: Script) -> None:
    s.vm(1024)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(4):
        s.stride(1024)
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps: every way in which userspace can ask for them."""

from qemu_model.program import PAGE
from qemu_model.scenarios.scenario import SLOT_GPA, Scenario, Script


def _stride(s: Script) -> None:
    s.vm(1024)
    s.hdbss_on(1)
    s("log", 0, "on")
    s("snapshot", 0)
    for count, step in ((1024, 1), (512, 2), (341, 3), (1024, 1)):
        s.stride(count, step=step)
        s.harvest()
    s.reaches("entries>=1024", "levels=3")


def _random(s: Script) -> None:
    pages = 2048
    s.vm(pages)
    s.hdbss_on(s.rng.randrange(3))
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(4):
        s("run", 0, "random", gpa=hex(SLOT_GPA), pages=pages, count=s.rng.randrange(300, 900),
          seed=s.rng.randrange(1, 1 << 32), value=s.value())  # fmt: skip
        s.harvest()
    s.reaches("entries>=200", "levels=3")


def _manual_protect(s: Script) -> None:
    s.vm(1024, dirty="manual")
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(3):
        s.stride(700, first=s.rng.randrange(64))
        s.harvest()
        s("clear", 0, first=0, pages=448)
        s.stride(200, first=s.rng.randrange(200))
        s.harvest()
        s("clear", 0, first=448, pages=576)
    s.harvest()
    s.reaches("entries>=600")


def _initially_set(s: Script) -> None:
    s.vm(1024, dirty="initially-set")
    s.hdbss_on(0)
    s("snapshot", 0)
    s.stride(1024)
    s("log", 0, "on")
    s.harvest()
    for _ in range(3):
        s("clear", 0, first=0, pages=1024)
        s.stride(600, first=s.rng.randrange(400))
        s.harvest()
    s.reaches("entries>=600")


def _two_slots(s: Script) -> None:
    s.vm(512)
    s("slot", 1, gpa=hex(SLOT_GPA + 512 * PAGE), pages=512, mem="memfd")
    s.hdbss_on(1)
    s("log", 0, "on")
    s("snapshot", 0)
    s("snapshot", 1)
    for _ in range(3):
        s.stride(1024)
        s.harvest()
        s("compare", 1)
        s("get", 1, expect="errno=ENOENT")
    s.reaches("entries>=1024")


SCENARIOS = (
    Scenario(
        "bitmap.stride",
        "regular stores, a read of the log after each round",
        "entries skipped or cut short: the last one, a page number, an IPA bit",
        _stride,
    ),
    Scenario(
        "bitmap.random",
        "stores to a seeded random list of pages, some of them twice",
        "bits set for the neighbour of a page, duplicates counted as an end",
        _random,
    ),
    Scenario(
        "bitmap.manual-protect",
        "KVM_CLEAR_DIRTY_LOG on a part of the slot between stores",
        "pages that are cleared but not made writable-clean again",
        _manual_protect,
    ),
    Scenario(
        "bitmap.initially-set",
        "all pages dirty at first, protected when they are cleared",
        "pages that are never armed because logging started without protecting them",
        _initially_set,
    ),
    Scenario(
        "bitmap.two-slots",
        "two slots, of which one is logged",
        "entries marked in the wrong slot, or an oops on the slot without bitmap",
        _two_slots,
    ),
)

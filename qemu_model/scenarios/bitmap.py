# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps: every way in which userspace can ask for them."""

from qemu_model.program import PAGE
from qemu_model.scenarios.scenario import SLOT_GPA, Scenario, Script


def _stride(s: Script) -> None:
    pages = s.size(1024, 192)
    s.vm(pages)
    s.hdbss_on(1)
    s("log", 0, "on")
    s("snapshot", 0)
    for step in (1, 2, 3, 1):
        s.stride(pages // step, step=step)
        s.harvest()
    s.reaches(f"entries>={pages}", "levels=3")


def _random(s: Script) -> None:
    pages = s.size(2048, 128)
    least, most = s.size((300, 900), (40, 110))
    s.vm(pages)
    s.hdbss_on(s.rng.randrange(3))
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(4):
        s("run", 0, "random", gpa=hex(SLOT_GPA), pages=pages, count=s.rng.randrange(least, most),
          seed=s.rng.randrange(1, 1 << 32), value=s.value())  # fmt: skip
        s.harvest()
    s.reaches(f"entries>={s.size(200, 32)}", "levels=3")


def _manual_protect(s: Script) -> None:
    pages, cleared = s.size((1024, 448), (192, 64))
    many, few = s.size((700, 200), (130, 40))
    s.vm(pages, dirty="manual")
    s.hdbss_on(0)
    s("log", 0, "on")
    s("snapshot", 0)
    for _ in range(3):
        s.stride(many, first=s.rng.randrange(s.size(64, 32)))
        s.harvest()
        s("clear", 0, first=0, pages=cleared)
        s.stride(few, first=s.rng.randrange(few))
        s.harvest()
        s("clear", 0, first=cleared, pages=pages - cleared)
    s.harvest()
    s.reaches(f"entries>={s.size(600, 100)}")


def _initially_set(s: Script) -> None:
    pages, part = s.size((1024, 600), (192, 112))
    s.vm(pages, dirty="initially-set")
    s.hdbss_on(0)
    s("snapshot", 0)
    s.stride(pages)
    s("log", 0, "on")
    s.harvest()
    for _ in range(3):
        s("clear", 0, first=0, pages=pages)
        s.stride(part, first=s.rng.randrange(s.size(400, 80)))
        s.harvest()
    s.reaches(f"entries>={part}")


def _two_slots(s: Script) -> None:
    pages = s.size(512, 128)
    s.vm(pages)
    s("slot", 1, gpa=hex(SLOT_GPA + pages * PAGE), pages=pages, mem="memfd")
    s.hdbss_on(1)
    s("log", 0, "on")
    s("snapshot", 0)
    s("snapshot", 1)
    for _ in range(3):
        s.stride(2 * pages)
        s.harvest()
        s("compare", 1)
        s("get", 1, expect="errno=ENOENT")
    s.reaches(f"entries>={2 * pages}")


_IPA_BITS = 40
"""Guest physical addresses of a VM of the default type (KVM_CREATE_VM, type 0)."""


def _high(s: Script) -> None:
    pages = s.size(256, 48)
    size = pages * PAGE
    s.vm(pages)
    # On either side of each power of two at which somebody may think that addresses end.
    places = [(1 << bits) + side for bits in (32, 36, 39) for side in (-size, 0)]
    places.append((1 << _IPA_BITS) - size)
    for slot, gpa in enumerate(places, 1):
        s("slot", slot, gpa=hex(gpa), pages=pages, mem="anon")
    s.hdbss_on(0)
    for slot in range(1, len(places) + 1):
        s("log", slot, "on")
        s("snapshot", slot)
    for _ in range(2):
        for slot, gpa in enumerate(places, 1):
            s("run", 0, "stride", gpa=hex(gpa), count=pages, stride=PAGE, value=s.value())
            s.harvest(slot)
    s.reaches(f"entries>={len(places) * pages}")


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
        "bits set for the neighbour of a page, a drain that takes entries for sorted",
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
    Scenario(
        "bitmap.high",
        "slots around 4 GB, 64 GB and 512 GB, and at the end of the guest's address space",
        "an IPA mask that is too narrow, a frame number in 32 bits",
        _high,
    ),
)

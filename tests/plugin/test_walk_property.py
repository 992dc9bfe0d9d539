# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin's stage 2 walk and the reference walk agree on random registers and tables."""

import ctypes
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from qemu_model.arch.stage2 import Fault, Leaf, Reason, WalkFault, WalkParams, params, walk
from tests.plugin.conftest import PLUGIN, Make

_READ = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)
)


class _Memory(ctypes.Structure):
    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("read64", _READ),
        ("write64", ctypes.c_void_p),
        ("cas64", ctypes.c_void_p),
        ("big_endian", ctypes.c_bool),
    )


class _Leaf(ctypes.Structure):
    _fields_ = (
        ("pa", ctypes.c_uint64),
        ("descriptor", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("level", ctypes.c_int),
    )


class Outcome(NamedTuple):
    """What both walks say, in comparable form; a fault has no size."""

    result: str
    level: int
    pa: int
    descriptor: int
    size: int


_RESULTS = ("leaf", "translation", "address size", "outside", "unsupported")
_SETUP = (Reason.TG0_RESERVED, Reason.T0SZ_RANGE, Reason.SL_RESERVED, Reason.SL_INCONSISTENT)
_FAULTS = {
    Fault.TRANSLATION: "translation",
    Fault.ADDRESS_SIZE: "address size",
    Fault.EXTERNAL_ABORT: "outside",
}

Read = Callable[[int], int | None]
CWalk = Callable[[int, int, int, Read], Outcome]


@pytest.fixture(scope="module")
def c_walk(make: Make) -> CWalk:
    """``stage2_walk`` of walk.c."""
    out = make(PLUGIN, "check-walk")
    library = ctypes.CDLL(str(out / "libwalk.so"))
    library.stage2_walk.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_uint64,
        ctypes.c_uint64,
        ctypes.c_void_p,
    )

    def call(ipa: int, vttbr: int, vtcr: int, read: Read) -> Outcome:
        def read64(_: int | None, pa: int, value: "ctypes._Pointer[ctypes.c_uint64]") -> bool:
            word = read(pa)
            if word is not None:
                value[0] = word
            return word is not None

        memory = _Memory(None, _READ(read64), None, None, False)
        leaf = _Leaf()
        result = _RESULTS[
            library.stage2_walk(ctypes.byref(memory), vttbr, vtcr, ipa, ctypes.byref(leaf))
        ]
        if result == "leaf":
            return Outcome(result, leaf.level, leaf.pa, leaf.descriptor, leaf.size)
        if result == "outside":
            return Outcome(result, leaf.level, leaf.pa, 0, 0)
        if result == "unsupported":
            return Outcome(result, 0, 0, 0, 0)
        return Outcome(result, leaf.level, 0, 0, 0)

    return call


def reference(ipa: int, vttbr: int, vtcr: int, read: Read) -> Outcome:
    """The walk of ``qemu_model.arch``."""
    found = walk(ipa, vttbr, vtcr, read)
    if isinstance(found, Leaf):
        return Outcome("leaf", found.level, found.descriptor_pa, found.descriptor, found.size)
    assert isinstance(found, WalkFault)
    if found.reason in _SETUP:
        return Outcome("unsupported", 0, 0, 0, 0)
    if found.fault is Fault.EXTERNAL_ABORT:
        return Outcome("outside", found.level, found.pa or 0, 0, 0)
    return Outcome(_FAULTS[found.fault], found.level, 0, 0, 0)


class Tables:
    """Descriptors by the order in which the reference asks for them; the C walk finds them there.

    An address that only one of the two asks for is a disagreement.
    """

    def __init__(self, words: list[int | None]) -> None:
        self._words = iter(words)
        self._at: dict[int, int | None] = {}

    def first(self, pa: int) -> int | None:
        assert pa % 8 == 0
        if pa not in self._at:
            self._at[pa] = next(self._words, 0)
        return self._at[pa]

    def second(self, pa: int) -> int | None:
        assert pa in self._at, f"only the C walk reads {pa:#x}"
        return self._at[pa]


def _geometries() -> list[int]:
    """Every T0SZ, SL0, TG0, DS and SL2 that fit together, as a VTCR_EL2 without PS."""
    ranges = (range(8, 52), range(4), range(3), range(2), range(2))
    values = (
        t0sz | sl0 << 6 | tg0 << 14 | ds << 32 | sl2 << 33 | 1 << 31
        for t0sz, sl0, tg0, ds, sl2 in product(*ranges)
    )
    return [value for value in values if isinstance(params(value), WalkParams)]


# VTCR_EL2: mostly values that make sense, and some where any bit may be anything.
_WHOLE = st.integers(0, 2**64 - 1).map(lambda value: value & ~(1 << 36 | 1 << 38))
_FITTING = st.builds(
    lambda geometry, ps: geometry | ps << 16, st.sampled_from(_geometries()), st.integers(0, 7)
)
_ADDRESS = st.one_of(
    st.integers(0, 2**32 - 1), st.integers(0, 2**48 - 1), st.integers(0, 2**64 - 1)
)
_DESCRIPTOR = st.one_of(
    st.builds(lambda address, kind: address & ~3 | kind, _ADDRESS, st.sampled_from((3, 3, 3, 1))),
    st.builds(lambda page, kind: page << 16 | kind, st.integers(0, 2**30), st.just(3)),
    st.builds(lambda page, kind: page << 16 | kind, st.integers(0, 2**30), st.sampled_from((1, 3))),
    _ADDRESS,
    st.none(),
)


@settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    vtcr=st.one_of(_FITTING, _FITTING, _FITTING, _FITTING, _WHOLE),
    vttbr=_ADDRESS,
    ipa=st.one_of(st.integers(0, 2**31 - 1), st.integers(0, 2**52 - 1), st.integers(0, 2**56 - 1)),
    words=st.lists(_DESCRIPTOR, max_size=5),
)
def test_both_walks_agree(
    c_walk: CWalk, vtcr: int, vttbr: int, ipa: int, words: list[int | None]
) -> None:
    tables = Tables(words)
    expected = reference(ipa, vttbr, vtcr, tables.first)
    event(f"{expected.result} at level {expected.level}")
    assert c_walk(ipa, vttbr, vtcr, tables.second) == expected


VTCR = 0x80053F59
"""4 KB granule, 39 bits, start at level 1."""
WORDS: list[int | None] = [0x40001003, 0x40002003, 0x50000403]


def test_a_known_leaf(c_walk: CWalk) -> None:
    """Both walks reach level 3, so that agreement is not agreement on faults alone."""
    tables = Tables(WORDS)
    expected = Outcome("leaf", 3, 0x40002018, 0x50000403, 4096)
    assert reference(0x40403ABC, 0x40000000, VTCR, tables.first) == expected
    assert c_walk(0x40403ABC, 0x40000000, VTCR, tables.second) == expected


def test_a_disagreement_is_seen(c_walk: CWalk) -> None:
    """The twin: other registers or other tables for one of the two do not go unnoticed."""
    tables = Tables(WORDS)
    expected = reference(0x40403ABC, 0x40000000, VTCR, tables.first)
    assert c_walk(0x40403ABC, 0x40000000, VTCR | 3 << 14, tables.second) != expected
    with pytest.raises(AssertionError):
        tables.second(0x40002020)
    other = Tables([0x40001003, 0x40200401])
    assert reference(0x40403ABC, 0x40000000, VTCR, other.first) != expected


def test_library_is_built_from_this_tree(make: Make) -> None:
    out = make(PLUGIN, "check-walk")
    assert [path.name for path in Path(out).glob("*.so")] == ["libwalk.so"]

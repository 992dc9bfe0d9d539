# SPDX-License-Identifier: GPL-2.0-or-later
"""Syndromes: the FSC table of the digest, HDBSSF's place, round trips."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.arch import syndrome
from qemu_model.arch.syndrome import Abort, Kind


@pytest.mark.parametrize(
    ("kind", "level", "fsc"),
    [
        (Kind.PERMISSION, 0, 0x0C),
        (Kind.PERMISSION, 1, 0x0D),
        (Kind.PERMISSION, 2, 0x0E),
        (Kind.PERMISSION, 3, 0x0F),
        (Kind.EXTERNAL_ABORT_WALK, 0, 0x14),
        (Kind.EXTERNAL_ABORT_WALK, 3, 0x17),
        (Kind.EXTERNAL_ABORT_WALK, -1, 0x13),
        (Kind.GPF_WALK, 0, 0x24),
        (Kind.GPF_WALK, -1, 0x23),
        (Kind.GPF_WALK, -2, 0x22),
        (Kind.GPF, None, 0x28),
        (Kind.UNSUPPORTED_ATOMIC, None, 0x31),
        (Kind.TRANSLATION, 0, 0x04),
        (Kind.TRANSLATION, -1, 0x2B),
        (Kind.ADDRESS_SIZE, 3, 0x03),
        (Kind.ADDRESS_SIZE, -1, 0x29),
        (Kind.ACCESS_FLAG, 3, 0x0B),
    ],
)
def test_fault_status_codes(kind: Kind, level: int | None, fsc: int) -> None:
    assert syndrome.encode_fsc(kind, level) == fsc
    assert syndrome.decode_fsc(fsc) == (kind, level)


def test_codes_are_unique_and_the_rest_is_unknown() -> None:
    known = [fsc for fsc in range(64) if syndrome.decode_fsc(fsc) is not None]
    assert len(known) == 6 * 4 + 7
    assert syndrome.decode_fsc(0x3F) is None


def test_no_permission_fault_below_level_0() -> None:
    with pytest.raises(ValueError, match="no code for level -1"):
        syndrome.encode_fsc(Kind.PERMISSION, -1)


def test_hdbssf_is_bit_43_and_not_bit_11() -> None:
    full = Abort(instruction=False, kind=Kind.PERMISSION, level=3, wnr=True, hdbssf=True)
    assert full.esr == 1 << 43 | 0x24 << 26 | 1 << 25 | 1 << 6 | 0x0F
    # Bit 11 of the ISS belongs to SET.
    decoded = Abort.decode(full.esr & ~(1 << 43) | 1 << 11)
    assert decoded is not None
    assert not decoded.hdbssf


@given(st.builds(
    Abort, instruction=st.booleans(), kind=st.just(Kind.PERMISSION), level=st.integers(0, 3),
    wnr=st.booleans(), s1ptw=st.booleans(), hdbssf=st.booleans(), dirty_bit=st.booleans(),
))  # fmt: skip
def test_round_trip(abort: Abort) -> None:
    decoded = Abort.decode(abort.esr)
    assert decoded is not None
    assert decoded.esr == abort.esr
    assert decoded.hdbssf == abort.hdbssf
    # An Instruction Abort has no WnR.
    assert decoded.wnr == (abort.wnr and not abort.instruction)


def test_other_exceptions_are_no_aborts() -> None:
    assert Abort.decode(0x18 << 26) is None
    assert Abort.decode(0x24 << 26 | 0x3F) is None

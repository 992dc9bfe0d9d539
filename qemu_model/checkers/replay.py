# SPDX-License-Identifier: GPL-2.0-or-later
"""One PE of a trace on its way through ``mirror``: its registers, and the place it is at.

A place is the set of records that it allows, each with its handler; ``mirror`` fills them.
"""

from collections.abc import Callable
from typing import NamedTuple

from qemu_model.arch import syndrome
from qemu_model.arch.registers import ProdFsc
from qemu_model.checkers.observer import Observer
from qemu_model.model.choices import Caching, Choices, Visibility
from qemu_model.model.producer import Producer
from qemu_model.model.tlb import Tlb
from qemu_model.trace import RawRecord

SYNCHRONOUS = (0x400, 0x600)
"""Vectors of synchronous exceptions from AArch64 and AArch32."""


class Mismatch(NamedTuple):
    """What is wrong with a record."""

    rule: str
    required: str
    seen: str


class Replay:
    """One PE: its registers, and the handlers that its place allows."""

    __slots__ = (
        "choices",
        "dirties",
        "failed",
        "filling",
        "handlers",
        "late",
        "observer",
        "producer",
        "refused_esr",
        "tlb",
        "vmid",
    )

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.tlb = Tlb() if choices.caching is Caching.LAZY else None
        self.vmid = 0
        """Of the guest that was entered last."""
        self.producer = Producer()
        self.observer = Observer() if choices.visibility is Visibility.DSB else None
        self.handlers = BEFORE_RESET
        self.refused_esr = 0
        self.failed = syndrome.Kind.PERMISSION
        """What the precise report of a failed write has to say."""
        self.filling = False
        """The buffer is being filled by an injection, with entries as of lost races."""
        self.late = ProdFsc.NONE
        """An FSC that is still to be set."""
        self.dirties = False
        """The page of the write that has just failed may become dirty."""

    def translate_anew(self) -> None:
        """In a guest: let VTCR_EL2 be in effect as it is cached."""
        if self.tlb is not None:
            self.producer.obey(self.tlb.vtcr(self.vmid, self.producer.vtcr))


Handler = Callable[[Replay, RawRecord], Mismatch | None]
"""Advances the replay by one record, or says what is wrong with it."""


Handlers = dict[int, Handler]
BEFORE_RESET: Handlers = {}
AT_EL2: Handlers = {}
IN_GUEST: Handlers = {}
REFUSED: Handlers = {}
"""Between a refusal and the exception that tells it."""
FAILED: Handlers = {}
"""Between a failed write that is told precisely, and that exception."""
GIVEN_UP: Handlers = {}

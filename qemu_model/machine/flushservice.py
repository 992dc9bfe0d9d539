# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves the plugin: holds a PE until somebody has looked at the kernel's memory.

The plugin sends messages over a socket that QEMU inherits (plugin option ``flush-fd``)
and waits for an answer of one byte, the low byte of the message's number.  A message is
64 bytes, little endian: kind, PE (32 bits each), number, messages not answered in time
so far, next trace record, PC, HDBSSBR_EL2, HDBSSPROD_EL2, VTTBR_EL2 (64 bits each); see
``Stop`` for what they mean.  One message is under way at a time.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from enum import IntEnum

from qemu_model.buffers import Why
from qemu_model.errors import InfrastructureError
from qemu_model.machine.flushwatch import Stop
from qemu_model.machine.kernelwatch import KernelWatch

MESSAGE = struct.Struct("<IIQQQQQQQ")
_END_LIMIT = 30.0
"""Seconds for the last look; QEMU has ended by then."""


class Call(IntEnum):
    """Kinds of messages: plugin/watch.h has the same."""

    DRAIN_BEGINS = 1
    FLUSH = 2
    RETURNED = 3
    END = 4
    ANNOUNCED = 5
    APPENDED = 6
    WITHDRAWN = 7


_WHY = {
    Call.ANNOUNCED: Why.ANNOUNCED,
    Call.APPENDED: Why.APPENDED,
    Call.WITHDRAWN: Why.WITHDRAWN,
}


class FlushService:
    """A thread that answers the plugin; ``theirs`` is to be inherited by QEMU."""

    def __init__(self, watcher: KernelWatch) -> None:
        self._watcher = watcher
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._missed = 0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._serve, name="flushes", daemon=True)

    def start(self) -> None:
        """QEMU has been started with ``theirs``, which is closed here."""
        self.theirs.close()
        self._thread.start()

    def finish(self) -> None:
        """QEMU has ended: wait for the last answer; raises what went wrong in the thread."""
        if self._thread.ident is not None:
            self._thread.join(_END_LIMIT)
            if self._thread.is_alive():
                raise InfrastructureError("what watches the flushes does not come to its end")
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let go of everything, however the run has ended; safe to call again."""
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(_END_LIMIT)
        else:
            self._watcher.close()
        self._ours.close()
        self.theirs.close()

    def _serve(self) -> None:
        try:
            while message := self._ours.recv(MESSAGE.size):
                if len(message) != MESSAGE.size:
                    raise InfrastructureError(f"the plugin sent a message of {len(message)} bytes")
                kind, pe, number, missed, seq, *rest = MESSAGE.unpack(message)
                self._call(kind, missed, Stop(pe, seq, *rest))
                self._ours.send(bytes([number & 0xFF]), socket.MSG_NOSIGNAL)
        except OSError:
            pass  # QEMU was killed, or close() was called
        except Exception as error:
            self._failure = error
        finally:
            # Without us the plugin must not wait at every flush.
            with suppress(OSError):
                self._ours.shutdown(socket.SHUT_RDWR)
            try:
                self._watcher.close()
            except Exception as error:
                self._failure = self._failure or error

    def _call(self, kind: int, missed: int, stop: Stop) -> None:
        if missed > self._missed:
            # It was the message before this one: there is never more than one under way.
            self._missed = missed
            self._watcher.late()
        match kind:
            case Call.DRAIN_BEGINS:
                self._watcher.drain_begins(stop)
            case Call.FLUSH:
                self._watcher.flush(stop)
            case Call.RETURNED:
                self._watcher.returned(stop)
            case Call.ANNOUNCED | Call.APPENDED | Call.WITHDRAWN:
                self._watcher.buffer(_WHY[Call(kind)], stop)
            case Call.END:
                pass
            case _:
                raise InfrastructureError(f"the plugin sent a message of kind {kind}")

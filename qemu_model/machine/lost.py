# SPDX-License-Identifier: GPL-2.0-or-later
"""What became of a machine: its outcome, or in which of nine ways it was lost."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qemu_model.channel import Channel, Fatal, Hello, Result
from qemu_model.errors import InfrastructureError
from qemu_model.machine.console import BootLog, Stage


class Loss(StrEnum):
    """Why there is no result."""

    PANIC = "kernel panic"
    HANG = "hang"
    TIMEOUT = "time limit"
    QEMU = "QEMU crash"
    AGENT = "agent death"
    NO_AGENT = "agent never started"
    NO_KVM = "no KVM"
    FLOOD = "endless output"
    HOLD = "hold never released"


@dataclass(frozen=True)
class Outcome:
    """All that a machine left behind; the files are in ``run_dir``.

    ``seconds`` of wall time; ``records`` in the trace; ``status`` is QEMU's exit status
    (negative: the signal that ended it); ``qemu_lines`` the end of what QEMU printed;
    ``shared_console``: the frames were found on the console, the agent had no port of its own.
    """

    run_dir: Path
    channel: Channel
    boot: BootLog
    seconds: float
    records: int
    status: int | None
    qemu_lines: tuple[str, ...]
    shared_console: bool = False


class MachineLost(InfrastructureError):
    """The machine ended without a result.

    ``kind`` tells how, ``headline`` is one line, ``last_lines`` the end of the console
    (of QEMU's own output if QEMU crashed), ``outcome`` what there is nevertheless.
    """

    def __init__(self, kind: Loss, headline: str, outcome: Outcome) -> None:
        self.kind = kind
        self.headline = headline
        self.outcome = outcome
        self.last_lines = tuple(outcome.boot.last_lines)
        said = self.last_lines
        if kind is Loss.QEMU and outcome.qemu_lines:
            said = outcome.qemu_lines
        tail = "".join(f"\n  | {line}" for line in said)
        super().__init__(f"{kind}: {headline}; files: {outcome.run_dir}{tail}")


# QEMU says so when it leaves because of SIGTERM, SIGINT or SIGHUP, with status 0.
_TERMINATED = re.compile(r"terminating on signal \d+")
# The panics that mean that the agent, PID 1, has died or could not be started.
_INIT_DIED = re.compile(r"Attempted to kill init")
# What the agent's ``vm`` says when there is no /dev/kvm.
_NO_KVM = "no-kvm"
_NO_INIT = re.compile(r"No working init found|Requested init .* failed")
_HINTS = {
    signal.SIGBUS: " (no space left for the machine's RAM in the run directory?)",
    signal.SIGKILL: " (out of memory?)",
}


def ended(outcome: Outcome) -> tuple[Loss, str] | None:
    """Judge a machine whose QEMU has ended by itself; None if all is well."""
    status = outcome.status
    text = "\n".join(outcome.qemu_lines)
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return Loss.QEMU, f"QEMU was killed by {name}{_HINTS.get(signal.Signals(-status), '')}"
    if status:
        last = outcome.qemu_lines[-1] if outcome.qemu_lines else "no message"
        return Loss.QEMU, f"QEMU ended with status {status}: {last}"
    if _TERMINATED.search(text):
        return Loss.QEMU, "QEMU was ended from outside by a signal"
    panic = outcome.boot.panic
    if panic is not None:
        return panicked(outcome, panic)
    frames = outcome.channel.frames
    fatal = next((frame for frame in frames if isinstance(frame, Fatal)), None)
    if fatal is not None:
        return Loss.AGENT, f"the agent gave up: {fatal.text}{_kvm(outcome.boot)}"
    if any(isinstance(f, Result) and f.fields.get("error") == _NO_KVM for f in frames):
        why = outcome.boot.kvm_failure or "the console does not say why"
        return Loss.NO_KVM, (
            f"this kernel has no /dev/kvm ({why}): it needs CONFIG_KVM=y and to start at EL2"
        )
    if outcome.channel.bye:
        return None
    if any(isinstance(frame, Hello) for frame in frames):
        return Loss.AGENT, f"the machine powered off without the agent's bye, {where(outcome)}"
    return Loss.NO_AGENT, (
        "the machine ended before the agent said a word, "
        f"last stage: {outcome.boot.stage}{_kvm(outcome.boot)}"
    )


def panicked(outcome: Outcome, panic: str) -> tuple[Loss, str]:
    """Judge a machine whose kernel has panicked."""
    oops = f" after: {outcome.boot.oops}" if outcome.boot.oops is not None else ""
    if _NO_INIT.search(panic):
        return Loss.NO_AGENT, f"the kernel could not start /init: {panic}"
    if _INIT_DIED.search(panic) and not oops:
        return Loss.AGENT, f"the agent died, {where(outcome)}: {panic}"
    return Loss.PANIC, f"{panic}{oops}, {where(outcome)}"


def where(outcome: Outcome) -> str:
    """Say how far the program had come."""
    frames = outcome.channel.frames
    if not frames:
        return f"last stage: {outcome.boot.stage}"
    return f"at line {frames[-1].line} of the program"


def _kvm(boot: BootLog) -> str:
    if Stage.KVM in boot.reached:
        return ""
    why = f" ({boot.kvm_failure})" if boot.kvm_failure is not None else ""
    return f"; KVM did not come up in this kernel{why}: it needs CONFIG_KVM=y"

# SPDX-License-Identifier: GPL-2.0-or-later
"""How is the HDBSS of an unknown kernel driven?  Ask the kernel.

The number of the capability differs between trees, but what it does has a signature
that no other capability of KVM shows: off when off succeeds, on succeeds, on when on is
refused, off succeeds, order 10 is refused.  Which error refuses is not asked here: a
wrong one is for uapi.matrix to find.  A kernel that has none of these and still loads
the buffer's registers when logging starts drives HDBSS by itself.
"""

from qemu_model.arch.registers import SysReg
from qemu_model.channel import Channel, Result
from qemu_model.errors import InfrastructureError
from qemu_model.machine.progress import Progress
from qemu_model.program import Program
from qemu_model.run import Run, load
from qemu_model.runner import Bench, passing_directory, run_program
from qemu_model.scenarios.scenario import SLOT_GPA, Needs, Uapi
from qemu_model.trace import Kind

_NUMBERS = range(220, 320)
"""Capabilities that are tried; 6.12 itself ends below, series under review add at the end."""
_ON, _OFF = (0, 1), (0, 0)
_STEPS = ((*_OFF, True), (*_ON, True), (*_ON, False), (*_OFF, True), (10, 1, False), (*_OFF, True))
"""args[0], args[1], and whether it has to succeed."""


def probe_program() -> tuple[Program, dict[int, tuple[int, ...]]]:
    """The program that asks, and for each capability the lines of its steps."""
    program = Program()
    program.add("uapi", cap=0)
    lines: dict[int, tuple[int, ...]] = {}
    for number in _NUMBERS:
        program.add("vm")
        check = program.add("check-cap", cap=number)
        steps = [
            program.add("enable-cap", cap=number, a0=order, a1=switch)
            for order, switch, _ in _STEPS
        ]
        program.add("destroy")
        lines[number] = (check, *steps)
    program.add("vm")
    program.add("vcpu", 0)
    program.add("slot", 0, gpa=hex(SLOT_GPA), pages=16, mem="anon", log=True)
    program.add("run", 0, "stride", gpa=hex(SLOT_GPA), count=16, stride=4096, value=1)
    return program, lines


def recognise(channel: Channel, lines: dict[int, tuple[int, ...]]) -> int | None:
    """The capability whose answers have the signature of HDBSS; None if none has."""
    results = {frame.line: frame for frame in channel.frames if isinstance(frame, Result)}
    for number, (check, *steps) in lines.items():
        offered = results.get(check)
        if offered is None or offered.ret <= 0:
            continue
        answers = [results.get(line) for line in steps]
        wanted = [good for _, _, good in _STEPS]
        if [answer is not None and answer.ret == 0 for answer in answers] == wanted:
            return number
    return None


def require_boots(bench: Bench, progress: Progress) -> None:
    """Boot the kernel once, as far as a VM; InfrastructureError when it does not get there."""
    progress.status("booting the kernel once")
    program = Program()
    program.add("vm")
    _ask(bench, program, progress)


def _ask(bench: Bench, program: Program, progress: Progress) -> Run:
    with passing_directory(bench, "probe") as directory:
        run_program(bench, "probe", program, Needs(), directory, progress)
        run = load(directory)
        run.observations.require_complete()  # an answer that is missing is not a no
        return run


def probe_uapi(bench: Bench, progress: Progress) -> Uapi:
    """Boot the kernel once and find out; InfrastructureError when it does not get far."""
    progress.status("finding out how the kernel's HDBSS is driven")
    program, lines = probe_program()
    run = _ask(bench, program, progress)
    number = recognise(run.observations, lines)
    if number is not None:
        return Uapi("cap", number)
    if run.trace is None:
        raise InfrastructureError("the probe left no trace")
    written = any(r[1] == Kind.WRITE and r[4] == SysReg.HDBSSBR_EL2 for r in run.trace)
    return Uapi("auto" if written else "none")

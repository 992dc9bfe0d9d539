# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of trouble that are not a finding about the kernel under test.

A divergence is a result and no exception.  Everything else that can end a
command is one of these, and ``cli`` turns it into one line and an exit code.
"""


class UsageError(Exception):
    """The command was asked for something that does not exist (exit code 2)."""


class InfrastructureError(Exception):
    """QEMU, a build, a file or the machine under test failed us (exit code 3)."""


class Unsupported(Exception):
    """This host or kernel cannot do what was asked for (exit code 4)."""

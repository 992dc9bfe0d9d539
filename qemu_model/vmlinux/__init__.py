# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's vmlinux tells: symbols, code, structures.  Starts nothing."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""FEAT_HDBSS given by a debugger: QEMU's gdbstub, gdb/MI, and the reference model as the PE."""

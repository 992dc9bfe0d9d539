# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that touches processes: QEMU, images, the console, the agent's channel."""

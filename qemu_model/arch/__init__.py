# SPDX-License-Identifier: GPL-2.0-or-later
"""The Arm manual as data: registers, stage 2 descriptors and walk, HDBSS entries, syndromes."""

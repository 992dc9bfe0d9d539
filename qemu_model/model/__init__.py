# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference model of FEAT_HDBSS: the PE, its permitted choices, the dirty log."""

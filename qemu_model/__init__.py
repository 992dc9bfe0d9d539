# SPDX-License-Identifier: GPL-2.0-or-later
"""Bench for KVM/arm64 kernels that use FEAT_HDBSS: model, plugin, machine, checkers."""

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When software sees what a PE has appended (choice visibility). At once; or the
 * PE holds entries back until a DSB or a return to the guest (R_CGCHP), and a
 * read of HDBSSPROD_EL2 shows the value of the last context synchronization
 * event, without what was outstanding then (I_XXFYP, the second half
 * UNCONFIRMED).
 */
#ifndef HDBSS_VISIBILITY_H
#define HDBSS_VISIBILITY_H

#include "memory.h"
#include "pe.h"

/* Write an entry, or hold it back; false: there is no memory at this slot. */
bool visibility_entry(struct pe *pe, const struct memory *mem, uint64_t slot, uint64_t entry);

/* The entry of visibility_entry() is not counted in INDEX after all. */
void visibility_take_back(struct pe *pe);

/* A further entry beyond the bound pushes out the oldest. */
void visibility_bound(struct pe *pe, const struct memory *mem);

/* A DSB for loads and stores; returns how many entries were outstanding. */
unsigned int visibility_dsb(struct pe *pe, const struct memory *mem);

/* A context synchronization event; whether reads of HDBSSPROD_EL2 differ from before. */
bool visibility_synchronize(struct pe *pe);

/* HDBSSPROD_EL2 as a direct read shows it. */
uint64_t visibility_prod(const struct pe *pe);

#endif

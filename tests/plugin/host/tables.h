/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stage 2 tables of one level 3 table in a fake memory, and an abort for a page of it. */
#ifndef TABLES_H
#define TABLES_H

#include "append.h"
#include "unit.h"
#include "walk.h"

#define ROOT	0x40000000ull	/* level 1, 39 bits */
#define LEVEL2	0x40001000ull
#define LEVEL3	0x40002000ull
#define BUFFER	0x40010000ull
#define IPA	0x00005000ull
#define VTCR	(0x80053f59ull | VTCR_HA | VTCR_HD | VTCR_HDBSS)
#define CLEAN	(0x80005000ull | DESC_DBM | DESC_AF | DESC_S2AP_R | 0x3c | 3)
#define ESR	0x9200004full	/* Data Abort, WnR, Permission fault, level 3 */

static inline uint64_t *tables_leaf(struct fake *fake, uint64_t ipa)
{
	return fake_at(fake, LEVEL3 + (ipa >> 12) * 8);
}

/* Link the three tables; a PE with a buffer and HDBSS on; an abort of a store to IPA. */
static inline void tables_link(struct fake *fake, struct pe *pe, struct abort *abort)
{
	*fake_at(fake, ROOT) = LEVEL2 | 3;
	*fake_at(fake, LEVEL2) = LEVEL3 | 3;
	memset(pe, 0, sizeof(*pe));
	pe->hdbssbr = BUFFER;
	pe->vtcr = VTCR;
	*abort = (struct abort){ .esr = ESR, .hpfar = IPA >> 8, .vttbr = ROOT, .hcr = HCR_VM };
}

#endif

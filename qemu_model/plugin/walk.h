/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stage 2 translation table walk of the VMSAv8-64 (Direct permissions):
 * from VTTBR_EL2 and VTCR_EL2 to the leaf descriptor of an IPA.
 */
#ifndef HDBSS_WALK_H
#define HDBSS_WALK_H

#include "memory.h"

/* Stage 2 leaf descriptor */
#define DESC_VALID	(1ull << 0)
#define DESC_TABLE	(1ull << 1)	/* at level 3: page */
#define DESC_S2AP_R	(1ull << 6)
#define DESC_S2AP_W	(1ull << 7)	/* S2AP[1]: with DBM=1, "dirty" */
#define DESC_AF		(1ull << 10)
#define DESC_DBM	(1ull << 51)

/* VTCR_EL2 */
#define VTCR_HA		(1ull << 21)
#define VTCR_HD		(1ull << 22)
#define VTCR_DS		(1ull << 32)
#define VTCR_SL2	(1ull << 33)
#define VTCR_S2PIE	(1ull << 36)
#define VTCR_D128	(1ull << 38)
#define VTCR_HAFT	(1ull << 44)
#define VTCR_HDBSS	(1ull << 45)

enum walk_result {
	WALK_LEAF,
	WALK_TRANSLATION,	/* Translation fault at leaf->level */
	WALK_ADDRESS_SIZE,	/* Address size fault at leaf->level */
	WALK_OUTSIDE_RAM,	/* a table is not in RAM; leaf->pa is the address */
	WALK_UNSUPPORTED,	/* VTCR_EL2 is inconsistent, or S2PIE, or D128 */
};

struct leaf {
	uint64_t pa;		/* of the last descriptor that was (to be) read */
	uint64_t descriptor;
	uint64_t size;		/* bytes that the leaf maps */
	int level;		/* -1..3 */
};

/*
 * Walk to the leaf of @ipa. Reads at most five descriptors whatever the tables
 * hold. Output addresses are checked against VTCR_EL2.PS alone (a PE whose
 * PARange is smaller has faulted before anybody asks us).
 */
enum walk_result stage2_walk(const struct memory *mem, uint64_t vttbr, uint64_t vtcr,
			     uint64_t ipa, struct leaf *leaf);

#endif

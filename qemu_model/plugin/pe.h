/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What FEAT_HDBSS adds to one processing element: two registers, three bits of
 * VTCR_EL2, and the rules that follow from them.
 */
#ifndef HDBSS_PE_H
#define HDBSS_PE_H

#include <stdbool.h>
#include <stdint.h>

#include "choices.h"
#include "inject.h"
#include "tlb.h"

/* HDBSSBR_EL2 */
#define HDBSSBR_BADDR		0x00fffffffffff000ull
#define HDBSSBR_SZ		0xfull
#define HDBSSBR_SZ_MAX		9

/* HDBSSPROD_EL2 */
#define HDBSSPROD_FSC		0xfc000000ull
#define HDBSSPROD_FSC_ABORT	(0x10ull << 26)	/* External abort on an HDBSS write */
#define HDBSSPROD_FSC_GPF	(0x28ull << 26)	/* Granule Protection Fault on one */
#define HDBSSPROD_INDEX		0x7ffffull

/* HCR_EL2 */
#define HCR_VM			(1ull << 0)
#define HCR_PTW			(1ull << 2)
#define HCR_TSC			(1ull << 19)
#define HCR_TGE			(1ull << 27)
#define HCR_RW			(1ull << 31)
#define HCR_E2H			(1ull << 34)
#define HCR_FWB			(1ull << 46)

/* ESR_EL2 */
#define ESR_EC(esr)		((unsigned int)((esr) >> 26 & 0x3f))
#define ESR_EC_IABT_LOWER	0x20
#define ESR_EC_DABT_LOWER	0x24
#define ESR_FSC_TYPE		0x3cull
#define ESR_FSC_PERM		0x0cull		/* Permission fault */
#define ESR_FSC_SEA_WALK	0x14ull		/* synchronous External abort on a walk or update */
#define ESR_FSC_GPF_WALK	0x24ull		/* Granule Protection Fault on one */
#define ESR_FSC			0x3full
#define ESR_FSC_LEVEL		0x03ull
#define ESR_WNR			(1ull << 6)
#define ESR_S1PTW		(1ull << 7)
#define ESR_CM			(1ull << 8)
#define ESR_ISS_OF_ACCESS	0x01ffc000ull	/* ISV to AR */
#define ESR_EC_SHIFT		26
#define ESR_HDBSSF		(1ull << 43)

/* ID_AA64MMFR1_EL1.HAFDBS */
#define ID_HAFDBS		0xfull
#define HAFDBS_AF_DIRTY		2
#define HAFDBS_HDBSS		4

/* Entries that a PE holds back with visibility=dsb, and room for those of one access. */
#define OUTSTANDING_MAX		64
#define OUTSTANDING_ROOM	(2 * OUTSTANDING_MAX)

struct pe {
	unsigned int index;		/* QEMU's vCPU index */
	struct choices choices;
	struct injector *injector;	/* of the whole machine, or NULL */
	uint64_t nr_resets;
	uint64_t hdbssbr;
	uint64_t hdbssprod;
	uint64_t vtcr;			/* as software wrote it */
	struct tlb tlb;
	/* visibility.c: oldest first; so many of them no read of INDEX shows; what it shows */
	struct {
		uint64_t slot;
		uint64_t bytes;
	} outstanding[OUTSTANDING_ROOM];
	unsigned int nr_outstanding;
	unsigned int uncounted;
	uint64_t visible_prod;
	/* I_LMSZL: FSC that is still to be set, after so many more lost entries */
	uint64_t late_fsc;
	uint64_t late_updates;
	/* retries of this access since it last came to anything, see append.c */
	unsigned int fruitless;
	struct {
		uint64_t elr, far, entry;
	} retried;
	/* for the summary, the last one also to tell guest entries apart */
	uint64_t entries, refusals, anomalies, entries_to_guest;
};

/* Reset values are UNKNOWN; here they are 0, and QEMU's for VTCR_EL2. */
void pe_reset(struct pe *pe, uint64_t vtcr);

/* After pe_reset(): let them be UNKNOWN, if that is injected; NULL if it is not. */
const struct injection *pe_inject_unknown(struct pe *pe);

/* The register with Linux' number @reg, NULL if it is none of ours. */
uint64_t *pe_register(struct pe *pe, uint32_t reg);

/* MSR: store @value without the RES0 bits and return what is held now. */
uint64_t pe_write(struct pe *pe, uint32_t reg, uint64_t value);

/* Whether MSR @reg with @value takes the buffer from the PE: HDBSS off, or another one. */
bool pe_withdraws(const struct pe *pe, uint32_t reg, uint64_t value);

/* HA, HD and HDBSS are all in effect. (HCR_EL2.VM is the caller's question.) */
bool vtcr_hdbss_enabled(uint64_t vtcr);

/* HA and HD are in effect: a write makes a writable-clean page dirty. */
bool vtcr_hd_enabled(uint64_t vtcr);

/*
 * What QEMU may see of @vtcr: without HD, so that it faults where this PE would
 * append. With caching=lazy also while HDBSS is off: it may still be on as cached.
 */
uint64_t vtcr_for_qemu(const struct pe *pe, uint64_t vtcr);

/* Stage 2 of EL1&0 is in use: this is a guest's context. */
bool hcr_in_guest(uint64_t hcr);

/* Entries that fit: 2^(SZ+12)/8. SZ must not be reserved. */
uint64_t hdbssbr_capacity(uint64_t hdbssbr);
bool hdbssbr_sz_reserved(uint64_t hdbssbr);

/* Physical address of a slot; bits of BADDR below the buffer's size are RES0. */
uint64_t hdbssbr_slot(uint64_t hdbssbr, uint64_t index);

/* FSC != 0, or INDEX has reached the capacity. */
bool pe_refuses(const struct pe *pe);

/* Table D8-93: the entry for a leaf of @size bytes at @level. */
uint64_t hdbss_entry(uint64_t ipa, uint64_t size, int level);

#endif

// SPDX-License-Identifier: GPL-2.0-or-later
#include <stddef.h>
#include <string.h>

#include "decode.h"
#include "pe.h"
#include "walk.h"

void pe_reset(struct pe *pe, uint64_t vtcr)
{
	pe->hdbssbr = 0;
	pe->hdbssprod = 0;
	pe->vtcr = vtcr;
	memset(&pe->tlb, 0, sizeof(pe->tlb));
	pe->nr_outstanding = 0;
	pe->uncounted = 0;
	pe->visible_prod = 0;
	pe->late_fsc = 0;
	pe->fruitless = 0;
}

const struct injection *pe_inject_unknown(struct pe *pe)
{
	const struct injection *injection =
		inject_meet(pe->injector, EVENT_RESET, pe->index, 0, 0);
	uint64_t reset = pe->nr_resets++;

	if (!injection)
		return NULL;
	pe_write(pe, SYS_HDBSSBR_EL2, inject_unknown(injection->seed, pe->index, reset, 0));
	pe_write(pe, SYS_HDBSSPROD_EL2, inject_unknown(injection->seed, pe->index, reset, 1));
	pe_write(pe, SYS_VTCR_EL2, inject_unknown(injection->seed, pe->index, reset, 2));
	return injection;
}

uint64_t *pe_register(struct pe *pe, uint32_t reg)
{
	switch (reg) {
	case SYS_HDBSSBR_EL2:
		return &pe->hdbssbr;
	case SYS_HDBSSPROD_EL2:
		return &pe->hdbssprod;
	case SYS_VTCR_EL2:
		return &pe->vtcr;
	default:
		return NULL;
	}
}

uint64_t pe_write(struct pe *pe, uint32_t reg, uint64_t value)
{
	uint64_t *held = pe_register(pe, reg);

	if (!held)
		return 0;
	if (reg == SYS_HDBSSBR_EL2)
		value &= HDBSSBR_BADDR | HDBSSBR_SZ;
	else if (reg == SYS_HDBSSPROD_EL2)
		value &= HDBSSPROD_FSC | HDBSSPROD_INDEX;
	/* QEMU stores every bit of VTCR_EL2, which RES0 permits. */
	*held = value;
	if (reg == SYS_HDBSSPROD_EL2) {
		pe->visible_prod = value;
		pe->uncounted = 0;
	}
	return value;
}

bool pe_withdraws(const struct pe *pe, uint32_t reg, uint64_t value)
{
	if (!vtcr_hdbss_enabled(pe->vtcr) || !(pe->hdbssbr & HDBSSBR_BADDR))
		return false;
	if (reg == SYS_VTCR_EL2)
		return !vtcr_hdbss_enabled(value);
	return reg == SYS_HDBSSBR_EL2 && (value & (HDBSSBR_BADDR | HDBSSBR_SZ)) != pe->hdbssbr;
}

bool vtcr_hdbss_enabled(uint64_t vtcr)
{
	uint64_t all = VTCR_HA | VTCR_HD | VTCR_HDBSS;

	return (vtcr & all) == all;
}

bool vtcr_hd_enabled(uint64_t vtcr)
{
	return (vtcr & VTCR_HA) && (vtcr & VTCR_HD);
}

uint64_t vtcr_for_qemu(const struct pe *pe, uint64_t vtcr)
{
	bool ours = pe->choices.lazy ? vtcr_hd_enabled(vtcr) : vtcr_hdbss_enabled(vtcr);

	return ours ? vtcr & ~VTCR_HD : vtcr;
}

bool hcr_in_guest(uint64_t hcr)
{
	return (hcr & (HCR_VM | HCR_TGE)) == HCR_VM;
}

uint64_t hdbssbr_capacity(uint64_t hdbssbr)
{
	return 512ull << (hdbssbr & HDBSSBR_SZ);
}

bool hdbssbr_sz_reserved(uint64_t hdbssbr)
{
	return (hdbssbr & HDBSSBR_SZ) > HDBSSBR_SZ_MAX;
}

uint64_t hdbssbr_slot(uint64_t hdbssbr, uint64_t index)
{
	uint64_t size = 4096ull << (hdbssbr & HDBSSBR_SZ);

	return (hdbssbr & HDBSSBR_BADDR & ~(size - 1)) + index * 8;
}

bool pe_refuses(const struct pe *pe)
{
	return (pe->hdbssprod & HDBSSPROD_FSC) ||
	       (pe->hdbssprod & HDBSSPROD_INDEX) >= hdbssbr_capacity(pe->hdbssbr);
}

uint64_t hdbss_entry(uint64_t ipa, uint64_t size, int level)
{
	return (ipa & 0x00fffffffffff000ull & ~(size - 1)) | ((uint64_t)level & 7) << 1 | 1;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The few A64 instructions that the interceptor looks for, and the identifiers
 * of the system registers that it knows. A register is named as in Linux:
 * sys_reg(op0, op1, CRn, CRm, op2), which is also its place in MSR and MRS.
 */
#ifndef HDBSS_DECODE_H
#define HDBSS_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#define SYS_REG(op0, op1, crn, crm, op2) \
	((op0) << 19 | (op1) << 16 | (crn) << 12 | (crm) << 8 | (op2) << 5)

#define SYS_ID_AA64MMFR1_EL1	SYS_REG(3, 0, 0, 7, 1)
#define SYS_ESR_EL1		SYS_REG(3, 0, 5, 2, 0)
#define SYS_VTCR_EL2		SYS_REG(3, 4, 2, 1, 2)
#define SYS_HDBSSBR_EL2		SYS_REG(3, 4, 2, 3, 2)
#define SYS_HDBSSPROD_EL2	SYS_REG(3, 4, 2, 3, 3)
#define SYS_ESR_EL2		SYS_REG(3, 4, 5, 2, 0)
#define SYS_TPIDR_EL2		SYS_REG(3, 4, 13, 0, 2)

#define INSN_HINT_127		0xd5032fffu
#define INSN_ERET		0xd69f03e0u
#define INSN_ERETAA		0xd69f0bffu
#define INSN_ERETAB		0xd69f0fffu

#define RT_XZR			31

/* MSR (register) and MRS: bits 31:22 and 20 fixed, 21 = read, 19:5 the register. */
static inline bool insn_is_msr(uint32_t insn)
{
	return (insn & 0xfff00000u) == 0xd5100000u;
}

static inline bool insn_is_mrs(uint32_t insn)
{
	return (insn & 0xfff00000u) == 0xd5300000u;
}

/* The register of an MSR or MRS; bit 20 of the word is the upper bit of op0. */
static inline uint32_t insn_sysreg(uint32_t insn)
{
	return insn & 0x001fffe0u;
}

static inline unsigned int insn_rt(uint32_t insn)
{
	return insn & 31;
}

static inline bool insn_is_eret(uint32_t insn)
{
	return insn == INSN_ERET || insn == INSN_ERETAA || insn == INSN_ERETAB;
}

static inline bool insn_is_smc(uint32_t insn)
{
	return (insn & 0xffe0001fu) == 0xd4000003u;
}

/* DSB for loads and stores, of any domain, with or without nXS: CRm<1:0> is 0b11. */
static inline bool insn_is_dsb(uint32_t insn)
{
	return (insn & 0xfffff3ffu) == 0xd503339fu || (insn & 0xfffff3ffu) == 0xd503323fu;
}

static inline bool insn_is_isb(uint32_t insn)
{
	return (insn & 0xfffff0ffu) == 0xd50330dfu;
}

/* SYS #4, C8 or C9 (nXS), Cm, #op2, Xt: TLBI at EL2, of Outer, Inner and no Shareable domain */
#define INSN_TLBI_EL2		0xd50c8000u
#define TLBI_OP2(insn)		((insn) >> 5 & 7)
#define TLBI_CRM(insn)		((insn) >> 8 & 15)
#define TLBI_ALLE1		4
#define TLBI_VMALLS12E1		6

/* TLBI VMALLS12E1 or ALLE1, in any form: what takes all stage 2 translations of a VMID */
static inline bool insn_is_tlbi_stage2(uint32_t insn)
{
	unsigned int crm = TLBI_CRM(insn), op2 = TLBI_OP2(insn);

	return (insn & 0xffffe000u) == INSN_TLBI_EL2 && (crm == 1 || crm == 3 || crm == 7) &&
	       (op2 == TLBI_ALLE1 || op2 == TLBI_VMALLS12E1);
}

static inline bool tlbi_is_of_all(uint32_t insn)
{
	return TLBI_OP2(insn) == TLBI_ALLE1;
}

static inline bool tlbi_is_broadcast(uint32_t insn)
{
	return TLBI_CRM(insn) != 7;
}

static inline bool insn_is_msr_vtcr(uint32_t insn)
{
	return insn_is_msr(insn) && insn_sysreg(insn) == SYS_VTCR_EL2;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What programs at EL2 share: see bare.c, stage2.c, start.S and guest.S. */
#ifndef BARE_H
#define BARE_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;

#define RAM_BASE	0x40000000ull
#define HEAP		0x42000000ull	/* tables and buffers are taken from here */
#define DATA		0x44000000ull	/* what guests write to; 2 MB aligned */

#define HCR_VM		(1ull << 0)
#define HCR_IMO		(1ull << 4)
#define HCR_DC		(1ull << 12)	/* stage 1 off is Normal memory */
#define HCR_TSC		(1ull << 19)	/* trap SMC */
#define HCR_TGE		(1ull << 27)
#define HCR_RW		(1ull << 31)
#define HCR_E2H		(1ull << 34)
#define HCR_NV		(1ull << 42)
#define HCR_NV1		(1ull << 43)

#define VTCR_HA		(1ull << 21)
#define VTCR_HD		(1ull << 22)
#define VTCR_RES1	(1ull << 31)
#define VTCR_HDBSS	(1ull << 45)
#define VTCR_TRACK	(VTCR_HA | VTCR_HD | VTCR_HDBSS)

#define AF		(1ull << 10)
#define SH_INNER	(3ull << 8)
#define S2AP_W		(1ull << 7)
#define S2AP_R		(1ull << 6)
#define MEM_NORMAL	(0xfull << 2)
#define DBM		(1ull << 51)
#define CONTIGUOUS	(1ull << 52)
#define LEAF		(SH_INNER | MEM_NORMAL)
#define CLEAN		(LEAF | AF | DBM | S2AP_R)
#define READ_ONLY	(LEAF | AF | S2AP_R)
#define READ_WRITE	(LEAF | AF | S2AP_R | S2AP_W)

#define ESR_EC(esr)	((esr) >> 26 & 0x3f)
#define EC_UNKNOWN	0x00
#define EC_SVC32	0x11
#define EC_HVC		0x16
#define EC_SMC		0x17
#define EC_SYSREG	0x18
#define EC_IABT		0x20
#define EC_DABT		0x24
#define ESR_HDBSSF	(1ull << 43)
#define ESR_CM		(1ull << 8)
#define ESR_S1PTW	(1ull << 7)
#define ESR_WNR		(1ull << 6)
#define ESR_FSC(esr)	((esr) & 0x3f)

#define SPSR_EL1H	0x3c5ull
#define SPSR_EL0T	0x3c0ull
#define SPSR_USR32	0x1d0ull	/* EL0 in AArch32, no condition flags */
#define SCTLR_EL1_OFF	0x30d00800ull	/* RES1 alone: no stage 1 */
#define SCTLR_A		(1ull << 1)

#define sysreg_read(name) ({						\
	u64 value_;							\
	asm volatile("mrs %0, " #name : "=r"(value_) : : "memory");	\
	value_; })
#define sysreg_write(name, value) \
	asm volatile("msr " #name ", %0" : : "r"((u64)(value)) : "memory")
#define barrier()	asm volatile("dsb sy\n\tisb" : : : "memory")

u64 hdbssbr_read(void);
void hdbssbr_write(u64 value);
u64 hdbssprod_read(void);
void hdbssprod_write(u64 value);
#define HDBSSPROD_INDEX	0x7ffffull

struct guest {
	u64 x[31];
	u64 pc, spsr;
	u64 esr, esr_el1, far, hpfar, vector;
	u64 offset;		/* as in struct stage2 */
	u64 no_barrier;		/* come back without DSB and ISB */
};

/* A stage 2 translation: geometry, root, and the VTCR_EL2 that describes it */
struct stage2 {
	unsigned int granule;		/* log2 of the page size */
	unsigned int ipa_bits;
	int start;			/* level */
	bool ds;
	u64 offset;			/* the program's IPA is its PA less this */
	u64 root;
	u64 vtcr;			/* without HA, HD, HDBSS */
};

/* start.S */
void guest_enter(struct guest *guest);
void secondary_entry(void);
u64 smc_call(u64 function, u64 x1, u64 x2, u64 x3);
extern char el1_store[], el1_load[], el1_ldadd[], el1_stxr[], el1_stp[], el1_zva[],
	el1_swp[], el1_cas[], el1_cas_differs[], el1_casp_differs[], el1_stxp[], el1_stxr_alone[],
	el1_stlr[], el1_prfm[], el1_clean[], el1_invalidate[], el1_sve_store[],
	el1_mrs_hdbssbr[], el1_msr_hdbssbr[], el1_mrs_hdbssprod[], el1_msr_hdbssprod[], el1_nop[],
	el1_smc[], el1_tlbi[], el1_aarch32[], el1_vectors[];

/* bare.c */
void say(const char *text);
void say_hex(const char *text, u64 value);
_Noreturn void power_off(void);
void cpu_on(unsigned int number);
void cpu_on_by(u64 function, unsigned int number);
void psci_cpu_off(void);
unsigned int this_pe(void);
u64 el2_esr_of_last_exception(void);
/*
 * Interrupts at EL2, and the bits that x20 has had at each since interrupts_init();
 * software interrupt 1 to PE 0.
 */
u64 interrupts_taken(void);
u64 interrupted_x20(void);
void interrupts_init(void);
void interrupt_self(void);
void main(void);
void secondary_main(u64 number);
/* What a PE does that cpu_on() starts, until it switches itself off. */
extern void (*secondary_work)(u64 number);

unsigned int cpu_count(void);

/* stage2.c */
/* Zeroed memory, aligned to its size (a power of 2); and give all of it back. */
u64 take(u64 size);
void take_anew(void);
static inline u64 *at(u64 address)
{
	return (u64 *)address;
}

void stage2_init(struct stage2 *s2, unsigned int granule, int start, unsigned int ipa_bits,
		 bool ds);
/* Map the page or block around @ipa at @level; returns its descriptor. */
volatile u64 *stage2_map(struct stage2 *s2, u64 ipa, u64 pa, int level, u64 attributes);
/* Map the program itself with leaves of @level. */
void stage2_map_code(struct stage2 *s2, int level, u64 attributes);
u64 stage2_leaf_size(const struct stage2 *s2, int level);
/* Write VTTBR_EL2, VTCR_EL2 with these extra bits and HCR_EL2.VM, and flush the TLB. */
void stage2_use(const struct stage2 *s2, u64 vtcr_bits, u64 hcr_bits);
void tlb_flush(void);

/* bare.c again */
/* Run guest code at EL1 until it comes back; returns ESR_EL2. */
u64 run(struct guest *guest, const char *code, u64 x0, u64 x1, u64 x2, u64 x3);
/* The same at the Exception level of @spsr. */
u64 run_at(struct guest *guest, const char *code, u64 spsr, u64 x0, u64 x1, u64 x2, u64 x3);
/* The same from where it left. */
u64 run_on(struct guest *guest);
/* Whether a syndrome is the guest's own HVC #1. */
bool ended(u64 esr);

#endif

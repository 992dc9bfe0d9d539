// SPDX-License-Identifier: GPL-2.0-or-later
/* The runtime in C: output, PSCI, memory, stage 2 tables, running a guest. */
#include "bare.h"

#define UART_DR		((volatile uint32_t *)0x09000000)
#define CODE		0x40000000ull		/* the program lies in this 2 MB */
#define CODE_END	0x40200000ull

static u64 heap = HEAP;

void say(const char *text)
{
	while (*text)
		*UART_DR = (unsigned char)*text++;
}

void say_hex(const char *text, u64 value)
{
	char digits[19] = "0x0000000000000000";
	int i;

	for (i = 17; i > 1; i--, value >>= 4)
		digits[i] = "0123456789abcdef"[value & 15];
	say(text);
	say(digits);
	say("\n");
}

void check(const char *name, bool good)
{
	say(good ? "ok " : "FAIL ");
	say(name);
	say("\n");
}

void check_equal(const char *name, u64 got, u64 wanted)
{
	check(name, got == wanted);
	if (got != wanted) {
		say_hex("  wanted ", wanted);
		say_hex("  got    ", got);
	}
}

static u64 smc(u64 function, u64 a, u64 b, u64 c)
{
	register u64 x0 asm("x0") = function;
	register u64 x1 asm("x1") = a;
	register u64 x2 asm("x2") = b;
	register u64 x3 asm("x3") = c;

	asm volatile("smc #0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}

void power_off(void)
{
	say("end\n");
	smc(0x84000008, 0, 0, 0);
	for (;;)
		;
}

void cpu_on(unsigned int number)
{
	u64 limit = 1000000;

	/* It may still be on its way down from the last time (ALREADY_ON). */
	while (smc(0xc4000003, number, (u64)secondary_entry, number) && --limit)
		;
	if (!limit)
		check("PSCI CPU_ON", false);
}

void psci_cpu_off(void)
{
	smc(0x84000002, 0, 0, 0);
}

/* AFFINITY_INFO knows the PEs that exist. */
unsigned int cpu_count(void)
{
	unsigned int count = 1;

	while (count < 8 && (int)smc(0xc4000004, count, 0, 0) >= 0)
		count++;
	return count;
}

/* Called from start.S */
void el2_unexpected(u64 esr, u64 elr);
void el2_unexpected(u64 esr, u64 elr)
{
	check("no unexpected exception at EL2", false);
	say_hex("  ESR_EL2 ", esr);
	say_hex("  ELR_EL2 ", elr);
	power_off();
}

unsigned int this_pe(void)
{
	return (unsigned int)at(sysreg_read(tpidr_el2))[0];
}

u64 el2_esr_of_last_exception(void)
{
	return at(sysreg_read(tpidr_el2))[2];
}

u64 interrupts_taken(void)
{
	return ((volatile u64 *)sysreg_read(tpidr_el2))[3];
}

u64 interrupted_x20(void)
{
	return ((volatile u64 *)sysreg_read(tpidr_el2))[4];
}

#define GICD	0x08000000ull
#define GICR	0x080a0000ull

static volatile uint32_t *gic(u64 address)
{
	return (volatile uint32_t *)address;
}

/* GICv3 with one security state; software interrupts and PPIs of PE 0 */
void interrupts_init(void)
{
	*gic(GICD) = 1 << 4 | 1 << 1;			/* ARE, EnableGrp1 */
	*gic(GICR + 0x14) &= ~2u;			/* GICR_WAKER.ProcessorSleep */
	*gic(GICR + 0x10080) = ~0u;			/* GICR_IGROUPR0 */
	*gic(GICR + 0x10100) = 0xffff | 1u << 26;	/* SGIs, EL2 physical timer */
	sysreg_write(s3_4_c12_c9_5, 0xf);		/* ICC_SRE_EL2 */
	sysreg_write(s3_0_c12_c12_5, 7);		/* ICC_SRE_EL1 */
	sysreg_write(s3_0_c4_c6_0, 0xff);		/* ICC_PMR_EL1 */
	sysreg_write(s3_0_c12_c12_7, 1);		/* ICC_IGRPEN1_EL1 */
	barrier();
}

void interrupt_self(void)
{
	u64 before = interrupts_taken(), limit = 10000000;

	sysreg_write(s3_0_c12_c11_5, 1ull << 24 | 1);	/* ICC_SGI1R_EL1 */
	barrier();
	asm volatile("msr daifclr, #2");
	while (interrupts_taken() == before && --limit)
		;
	asm volatile("msr daifset, #2");
	check("an interrupt was taken", limit != 0);
}

/* Programs with several PEs have their own. */
__attribute__((weak)) void secondary_main(u64 number)
{
	(void)number;
}

u64 take(u64 size)
{
	u64 start = (heap + size - 1) & ~(size - 1), i;

	for (i = 0; i < size; i += 8)
		*at(start + i) = 0;
	heap = start + size;
	return start;
}

void take_anew(void)
{
	heap = HEAP;
}

/* Input address bits below a level's index */
static unsigned int level_low(const struct stage2 *s2, int level)
{
	return s2->granule + (s2->granule - 3) * (unsigned int)(3 - level);
}

u64 stage2_leaf_size(const struct stage2 *s2, int level)
{
	return 1ull << level_low(s2, level);
}

void stage2_init(struct stage2 *s2, unsigned int granule, int start, unsigned int ipa_bits,
		 bool ds)
{
	u64 tg0 = granule == 12 ? 0 : granule == 16 ? 1 : 2;
	u64 sl0 = (u64)((granule == 12 ? 2 : 3) - start), sl2 = 0;
	unsigned int resolved;

	if (granule == 12 && start == 3)
		sl0 = 3;
	if (granule == 12 && start == -1) {
		sl0 = 0;
		sl2 = 1;
	}
	s2->granule = granule;
	s2->ipa_bits = ipa_bits;
	s2->start = start;
	s2->ds = ds;
	s2->offset = 0;
	resolved = ipa_bits - level_low(s2, start);
	s2->root = take(8ull << resolved < 64 ? 64 : 8ull << resolved);
	s2->vtcr = VTCR_RES1 | (u64)ds << 32 | sl2 << 33 | sl0 << 6 | tg0 << 14 | 3 << 12 |
		   1 << 10 | 1 << 8 | (ds || ipa_bits > 48 ? 6ull : 5ull) << 16 | (64 - ipa_bits);
}

volatile u64 *stage2_map(struct stage2 *s2, u64 ipa, u64 pa, int level, u64 attributes)
{
	u64 table = s2->root;
	unsigned int high = s2->ipa_bits;
	int i;

	/* With DS=1 bits [9:8] are an address, not shareability. */
	if (s2->ds)
		attributes &= ~SH_INNER;
	for (i = s2->start;; i++) {
		unsigned int low = level_low(s2, i);
		u64 index = (ipa & ((1ull << high) - 1)) >> low;
		volatile u64 *descriptor = at(table) + index;

		if (i == level) {
			*descriptor = (pa & ~((1ull << low) - 1)) | attributes |
				      (level == 3 ? 3 : 1);
			return descriptor;
		}
		if (!*descriptor)
			*descriptor = take(1ull << s2->granule) | 3;
		table = *descriptor & 0x0000fffffffff000ull & ~((1ull << s2->granule) - 1);
		high = low;
	}
}

void stage2_map_code(struct stage2 *s2, int level, u64 attributes)
{
	u64 size = stage2_leaf_size(s2, level), ipa;

	for (ipa = CODE & ~(size - 1); ipa < CODE_END; ipa += size)
		stage2_map(s2, ipa - s2->offset, ipa, level, attributes);
}

void tlb_flush(void)
{
	asm volatile("dsb sy\n\ttlbi alle1is\n\tdsb sy\n\tisb" : : : "memory");
}

void stage2_use(const struct stage2 *s2, u64 vtcr_bits, u64 hcr_bits)
{
	sysreg_write(vttbr_el2, s2->root);
	sysreg_write(vtcr_el2, s2->vtcr | vtcr_bits);
	sysreg_write(hcr_el2, HCR_RW | HCR_VM | hcr_bits);
	tlb_flush();
}

u64 run_on(struct guest *guest)
{
	guest_enter(guest);
	return guest->esr;
}

u64 run(struct guest *guest, const char *code, u64 x0, u64 x1, u64 x2, u64 x3)
{
	guest->x[0] = x0;
	guest->x[1] = x1;
	guest->x[2] = x2;
	guest->x[3] = x3;
	guest->pc = (u64)code - guest->offset;
	guest->spsr = SPSR_EL1H;
	return run_on(guest);
}

bool ended(u64 esr)
{
	return ESR_EC(esr) == EC_HVC && (esr & 0xffff) == 1;
}

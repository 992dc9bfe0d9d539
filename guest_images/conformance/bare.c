// SPDX-License-Identifier: GPL-2.0-or-later
/* The runtime in C: output, PSCI, registers, interrupts, running a guest. */
#include "bare.h"
#include "ktap.h"
#include "parameters.h"

#define UART_DR		((volatile uint32_t *)0x09000000)

void say(const char *text)
{
	while (*text)
		*UART_DR = (unsigned char)*text++;
}

void power_off(void)
{
	smc_call(0x84000008, 0, 0, 0);
	for (;;)
		;
}

void cpu_on_by(u64 function, unsigned int number)
{
	u64 limit = 1000000;

	/* It may still be on its way down from the last time (ALREADY_ON). */
	while (smc_call(function, number, (u64)secondary_entry, number) && --limit)
		;
	if (!limit)
		check("PSCI CPU_ON", false);
}

void cpu_on(unsigned int number)
{
	cpu_on_by(0xc4000003, number);
}

void psci_cpu_off(void)
{
	smc_call(0x84000002, 0, 0, 0);
}

/* AFFINITY_INFO knows the PEs that exist. */
unsigned int cpu_count(void)
{
	static unsigned int count;

	if (!count)
		for (count = 1; count < 8; count++)
			if ((int)smc_call(0xc4000004, count, 0, 0) < 0)
				break;
	return count;
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
	at(sysreg_read(tpidr_el2))[4] = ~0ull;
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

void (*secondary_work)(u64 number);

void secondary_main(u64 number)
{
	secondary_work(number);
}

void main(void)
{
	parameters_read();
	ktap_run();
}

/* Functions, so that --mode gdb has few places to stop at. */
u64 hdbssbr_read(void)
{
	return sysreg_read(s3_4_c2_c3_2);
}

void hdbssbr_write(u64 value)
{
	sysreg_write(s3_4_c2_c3_2, value);
}

u64 hdbssprod_read(void)
{
	return sysreg_read(s3_4_c2_c3_3);
}

void hdbssprod_write(u64 value)
{
	sysreg_write(s3_4_c2_c3_3, value);
}

u64 run_on(struct guest *guest)
{
	guest_enter(guest);
	return guest->esr;
}

u64 run_at(struct guest *guest, const char *code, u64 spsr, u64 x0, u64 x1, u64 x2, u64 x3)
{
	guest->x[0] = x0;
	guest->x[1] = x1;
	guest->x[2] = x2;
	guest->x[3] = x3;
	guest->pc = (u64)code - guest->offset;
	guest->spsr = spsr;
	return run_on(guest);
}

u64 run(struct guest *guest, const char *code, u64 x0, u64 x1, u64 x2, u64 x3)
{
	return run_at(guest, code, SPSR_EL1H, x0, x1, x2, x3);
}

bool ended(u64 esr)
{
	return ESR_EC(esr) == EC_HVC && (esr & 0xffff) == 1;
}

/* GCC calls it for what it clears. */
void *memset(void *where, int value, unsigned long count);
void *memset(void *where, int value, unsigned long count)
{
	char *at = where;

	while (count--)
		*at++ = (char)value;
	return where;
}

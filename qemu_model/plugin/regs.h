/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PE's registers by way of QEMU. All functions are for a vCPU's own thread,
 * within a callback that was registered with access to registers.
 */
#ifndef HDBSS_REGS_H
#define HDBSS_REGS_H

#include <stdbool.h>
#include <stdint.h>

enum reg {
	REG_X0,			/* REG_X0 + n is Xn, n <= 30 */
	REG_PC = REG_X0 + 31,
	REG_CPSR,
	REG_ELR_EL2,
	REG_ESR_EL2,
	REG_FAR_EL2,
	REG_HCR_EL2,
	REG_HPFAR_EL2,
	REG_ID_AA64MMFR1_EL1,
	REG_SCTLR_EL2,
	REG_SPSR_EL2,
	REG_TPIDR_EL2,
	REG_VTCR_EL2,
	REG_VTTBR_EL2,
	NR_REGS,
};

/*
 * Find the handles; once per vCPU, in its init callback. NULL, or the name of a
 * register that this QEMU does not have or that differs between vCPUs.
 */
const char *regs_init(void);

/* The value; 0 if QEMU does not deliver it, and then regs_failed() says so once. */
uint64_t reg_read(enum reg reg);
bool regs_failed(void);

/* Xn; n = 31 is XZR: reads as 0, writes have no effect. */
uint64_t reg_read_x(unsigned int n);
void reg_write_x(unsigned int n, uint64_t value);

/* Current Exception level, 0..3. Stale in AArch32: QEMU keeps it in PSTATE then. */
unsigned int reg_current_el(void);

#endif

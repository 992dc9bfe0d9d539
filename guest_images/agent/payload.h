/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The code that runs as the nested guest (payload.S) and its registers. */
#ifndef AGENT_PAYLOAD_H
#define AGENT_PAYLOAD_H

#include <stdint.h>

#include "program.h"

#define PAYLOAD_BYTES 0x10000ULL	/* of the code slot */
#define PAYLOAD_NR_REGS 10		/* x0..x9, see payload.S */
#define PAYLOAD_PASSES_REG 19		/* x19: completed passes */

struct payload {
	uint64_t pc;
	uint64_t x[PAYLOAD_NR_REGS];
};

/* Put the code into the code slot's memory. */
void payload_install(void *code);

/* Registers for the payload of a `run` or `start` line. */
void payload_prepare(struct payload *p, const struct op *op);

#endif

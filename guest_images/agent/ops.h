/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operations: each does its line's work and fills in the result. */
#ifndef AGENT_OPS_H
#define AGENT_OPS_H

#include "program.h"
#include "result.h"
#include "vm.h"

void op_execute(struct vm *vm, unsigned int line, const struct op *op, struct result *r);

/* ops_vcpu.c */
void op_vcpu(struct vm *vm, const struct op *op, struct result *r);
void op_create(struct vm *vm, const struct op *op, struct result *r);
void op_created(struct vm *vm, const struct op *op, struct result *r);
void op_pin(struct vm *vm, const struct op *op, struct result *r);
void op_run(struct vm *vm, const struct op *op, struct result *r);
void op_start(struct vm *vm, const struct op *op, struct result *r);
void op_wait(struct vm *vm, const struct op *op, struct result *r);
void op_stop(struct vm *vm, const struct op *op, struct result *r);

/* ops_slot.c */
void op_slot(struct vm *vm, const struct op *op, struct result *r);
void op_log(struct vm *vm, const struct op *op, struct result *r);
void op_unslot(struct vm *vm, const struct op *op, struct result *r);
void op_get(struct vm *vm, const struct op *op, struct result *r);
void op_clear(struct vm *vm, const struct op *op, struct result *r);
void op_snapshot(struct vm *vm, const struct op *op, struct result *r);
void op_compare(struct vm *vm, const struct op *op, struct result *r);
void op_await(struct vm *vm, const struct op *op, struct result *r);
void op_precopy(struct vm *vm, const struct op *op, struct result *r);
void op_precopy_round(struct vm *vm, const struct op *op, struct result *r);
void op_precopy_final(struct vm *vm, const struct op *op, struct result *r);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that runs as the guest; each piece ends with HVC #1. */
	.arch	armv8.5-a+sve

	.text
	.balign	64
	.globl	el1_store, el1_load, el1_ldadd, el1_stxr, el1_stp
	.globl	el1_zva, el1_mrs_hdbssbr, el1_msr_hdbssbr, el1_mrs_hdbssprod, el1_msr_hdbssprod
	.globl	el1_nop, el1_vectors
el1_store:				/* x0 address, x1 value, x2 count, x3 stride */
	str	x1, [x0]
	add	x0, x0, x3
	subs	x2, x2, #1
	b.ne	el1_store
	hvc	#1
el1_load:
	ldr	x1, [x0]
	hvc	#1
el1_ldadd:
	.inst	0xf8210004		/* ldadd x1, x4, [x0] */
	hvc	#1
el1_stxr:
1:	ldxr	x4, [x0]
	add	x4, x4, x1
	stxr	w5, x4, [x0]
	cbnz	w5, 1b
	hvc	#1
el1_stp:
	stp	x1, x1, [x0]
	hvc	#1
el1_zva:
	dc	zva, x0
	hvc	#1
el1_mrs_hdbssbr:
	.inst	0xd53c2340
	hvc	#1
el1_msr_hdbssbr:
	.inst	0xd51c2340
	hvc	#1
el1_mrs_hdbssprod:
	.inst	0xd53c2360
	hvc	#1
el1_msr_hdbssprod:
	.inst	0xd51c2360
	hvc	#1
el1_nop:
	nop
	hvc	#1
	.balign	0x800
el1_vectors:				/* VBAR_EL1: report the EL1 syndrome and leave */
	.org	el1_vectors + 0x200
	mrs	x1, esr_el1
	hvc	#2
	.org	el1_vectors + 0x400	/* from EL0 */
	mrs	x1, esr_el1
	hvc	#3
	.org	el1_vectors + 0x800


/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that runs as the guest; each piece ends with HVC #1. */
	.arch	armv8.5-a+sve

	.text
	.balign	64
	.globl	el1_store, el1_load, el1_ldadd, el1_stxr, el1_stp
	.globl	el1_zva, el1_swp, el1_cas, el1_cas_differs, el1_casp_differs
	.globl	el1_stxp, el1_stxr_alone, el1_stlr, el1_prfm, el1_clean
	.globl	el1_invalidate, el1_sve_store, el1_mrs_hdbssbr, el1_msr_hdbssbr
	.globl	el1_mrs_hdbssprod, el1_msr_hdbssprod, el1_nop, el1_smc, el1_tlbi
	.globl	el1_aarch32, el1_vectors
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
el1_swp:
	swp	x1, x4, [x0]
	hvc	#1
el1_cas:				/* x1 in place of 0 */
	mov	x4, #0
	cas	x4, x1, [x0]
	hvc	#1
el1_cas_differs:			/* in place of what is not there */
	mov	x4, #0x5555
	cas	x4, x1, [x0]
	hvc	#1
el1_casp_differs:
	mov	x4, #0x5555
	mov	x5, #0x5555
	mov	x6, x1
	mov	x7, x1
	casp	x4, x5, x6, x7, [x0]
	hvc	#1
el1_stxp:
1:	ldxp	x4, x5, [x0]
	stxp	w6, x1, x1, [x0]
	cbnz	w6, 1b
	hvc	#1
el1_stxr_alone:				/* without an LDXR: x5 = 1 */
	clrex
	stxr	w5, x1, [x0]
	hvc	#1
el1_stlr:
	stlr	x1, [x0]
	hvc	#1
el1_prfm:				/* prefetch for store */
	prfm	pstl1keep, [x0]
	prfm	pstl3strm, [x0]
	hvc	#1
el1_clean:				/* cache maintenance */
	dc	cvac, x0
	dc	civac, x0
	dc	cvau, x0
	ic	ivau, x0
	hvc	#1
el1_invalidate:
	dc	ivac, x0
	hvc	#1
el1_sve_store:				/* a whole vector of bytes of x1; x4 = its length */
	rdvl	x4, #1
	dup	z0.b, w1
	str	z0, [x0]
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
el1_smc:				/* x0 function */
	smc	#0
	hvc	#1
el1_tlbi:				/* of EL2, and UNDEFINED here */
	tlbi	vmalls12e1
	hvc	#1
el1_aarch32:				/* A32, of EL0: conditions that are false, then its end */
	.inst	0xd51c2340		/* ldrle r2, [ip, #-832]; in A64 MSR HDBSSBR_EL2, X0 */
	.inst	0xd51c2360		/* ldrle r2, [ip, #-864]; in A64 MSR HDBSSPROD_EL2, X0 */
	.inst	0xd53c2340		/* ldrle r2, [ip, #-832]!; in A64 MRS X0, HDBSSBR_EL2 */
	.inst	0xd51c2140		/* ldrle r2, [ip, #-320]; in A64 MSR VTCR_EL2, X0 */
	.inst	0xe1a01000		/* mov r1, r0 */
	.inst	0xef000000		/* svc #0 */
	.balign	0x800
el1_vectors:				/* VBAR_EL1: report the EL1 syndrome and leave */
	.org	el1_vectors + 0x200
	mrs	x1, esr_el1
	hvc	#2
	.org	el1_vectors + 0x400	/* from EL0 */
	mrs	x1, esr_el1
	hvc	#3
	.org	el1_vectors + 0x800


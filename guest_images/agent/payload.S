/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The nested guest: position-independent, at EL1 with its MMU off. Stage 1 off
 * makes data accesses Device-nGnRnE, and QEMU does exclusives and LSE atomics
 * on Device memory (tried on 11.1.3). Real hardware need not; but a stage 1
 * table would add walks, and with them stage 2 faults on its own pages, that
 * nobody asked for.
 *
 * x0 base address	x1 count of inner steps	x2 inner stride (random: pages)
 * x3 outer count	x4 outer stride		x5 value
 * x6 passes, 0 = for ever			x7 door
 * x8 random: state of the generator, not 0
 * x9 after the last pass: 0 = leave by the door, else stay and store no more
 * x19 passes completed, read by the agent
 *
 * Address = x0 + outer * x4 + inner * x2. The value grows by one with each
 * pass (random: also with each store), so that a store always changes memory.
 */
	.arch	armv8.1-a
	.section .rodata.payload, "a"
	.balign	4096
	.global	payload_begin
payload_begin:

/* A payload: `body` accesses [x12], may use x14..x18. */
.macro payload name:req, body:vararg
	.global	payload_\name
payload_\name:
	/* KVM may advance the PC by one for an access that ended the last payload. */
	nop
	adr	x10, payload_vectors
	msr	vbar_el1, x10
	isb
	mov	x19, #0
1:	mov	x10, x0
	mov	x11, x3
2:	mov	x12, x10
	mov	x13, x1
3:	\body
	add	x12, x12, x2
	subs	x13, x13, #1
	b.ne	3b
	add	x10, x10, x4
	subs	x11, x11, #1
	b.ne	2b
	add	x5, x5, #1
	add	x19, x19, #1
	cmp	x19, x6
	b.ne	1b
	b	payload_leave
.endm

.macro body_random
	eor	x8, x8, x8, lsl #13
	eor	x8, x8, x8, lsr #7
	eor	x8, x8, x8, lsl #17
	udiv	x14, x8, x2
	msub	x14, x14, x2, x8
	add	x14, x0, x14, lsl #12
	str	x5, [x14]
	add	x5, x5, #1
.endm

.macro body_cas
	ldr	x14, [x12]
	cas	x14, x5, [x12]
.endm

.macro body_stxr
4:	ldxr	x14, [x12]
	stxr	w15, x5, [x12]
	cbnz	w15, 4b
.endm

	payload	store8, str x5, [x12]
	payload	store1, strb w5, [x12]
	payload	random, body_random
	payload	ldadd, ldadd x5, x14, [x12]
	payload	swp, swp x5, x14, [x12]
	payload	cas, body_cas
	payload	stxr, body_stxr
	payload	read, ldr x14, [x12]
	payload	exec, blr x12

payload_leave:
	cbnz	x9, .
	str	xzr, [x7]
	b	payload_leave

/* Any exception: leave by the other door; the agent reads ESR_EL1. */
	.balign	2048
payload_vectors:
	.rept	16
	str	xzr, [x7, #8]
	b	. - 4
	.balign	128
	.endr
	.global	payload_end
payload_end:

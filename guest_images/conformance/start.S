/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bare-metal runtime at EL2: entry of the PEs, the vectors, the way into a guest
 * and out of it. The MMU of EL2 stays off. guest_enter, el2_vectors and smc_call
 * are names by which --mode gdb finds what it has to stop at.
 */
	.arch	armv8.5-a

	.set	STACK_SIZE, 0x8000

	.text
	.globl	_start, secondary_entry
_start:
	mov	x0, #0
secondary_entry:			/* x0 = number of the PE */
	adrp	x1, stacks
	add	x1, x1, :lo12:stacks
	mov	x2, #STACK_SIZE
	madd	x1, x0, x2, x1
	add	x1, x1, x2
	msr	SPSel, #1
	mov	sp, x1
	adrp	x1, el2_vectors
	add	x1, x1, :lo12:el2_vectors
	msr	vbar_el2, x1
	adrp	x1, percpu
	add	x1, x1, :lo12:percpu
	add	x1, x1, x0, lsl #12
	str	x0, [x1, #PERCPU_NUMBER]
	msr	tpidr_el2, x1
	isb
	hvc	#0			/* an exception by which an observer knows us */
	cbnz	x0, 1f
	bl	main
	bl	power_off
1:	bl	secondary_main
	bl	psci_cpu_off
	b	.

	.set	PERCPU_NUMBER, 0
	.set	PERCPU_GUEST, 8
	.set	PERCPU_EL2_ESR, 16
	.set	PERCPU_IRQS, 24
	.set	PERCPU_X20, 32

/* struct guest: x0..x30 at 0, then pc, spsr, and what the exit tells */
	.set	GUEST_PC, 248
	.set	GUEST_SPSR, 256
	.set	GUEST_ESR, 264
	.set	GUEST_ESR_EL1, 272
	.set	GUEST_FAR, 280
	.set	GUEST_HPFAR, 288
	.set	GUEST_VECTOR, 296
	.set	GUEST_NO_BARRIER, 312

/* void guest_enter(struct guest *): until the next exception from there */
	.globl	guest_enter
	.type	guest_enter, %function
guest_enter:
	stp	x19, x20, [sp, #-96]!
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	mrs	x1, tpidr_el2
	str	x0, [x1, #PERCPU_GUEST]
	ldr	x1, [x0, #GUEST_PC]
	msr	elr_el2, x1
	ldr	x1, [x0, #GUEST_SPSR]
	msr	spsr_el2, x1
	ldp	x2, x3, [x0, #16]
	ldp	x4, x5, [x0, #32]
	ldp	x6, x7, [x0, #48]
	ldp	x8, x9, [x0, #64]
	ldp	x10, x11, [x0, #80]
	ldp	x12, x13, [x0, #96]
	ldp	x14, x15, [x0, #112]
	ldp	x16, x17, [x0, #128]
	ldp	x18, x19, [x0, #144]
	ldp	x20, x21, [x0, #160]
	ldp	x22, x23, [x0, #176]
	ldp	x24, x25, [x0, #192]
	ldp	x26, x27, [x0, #208]
	ldp	x28, x29, [x0, #224]
	ldr	x30, [x0, #240]
	ldp	x0, x1, [x0]
	eret
	.size	guest_enter, . - guest_enter

guest_exit:				/* x0, x1 on the stack; x0 = vector offset */
	mrs	x1, tpidr_el2
	ldr	x1, [x1, #PERCPU_GUEST]
	str	x0, [x1, #GUEST_VECTOR]
	stp	x2, x3, [x1, #16]
	stp	x4, x5, [x1, #32]
	stp	x6, x7, [x1, #48]
	stp	x8, x9, [x1, #64]
	stp	x10, x11, [x1, #80]
	stp	x12, x13, [x1, #96]
	stp	x14, x15, [x1, #112]
	stp	x16, x17, [x1, #128]
	stp	x18, x19, [x1, #144]
	stp	x20, x21, [x1, #160]
	stp	x22, x23, [x1, #176]
	stp	x24, x25, [x1, #192]
	stp	x26, x27, [x1, #208]
	stp	x28, x29, [x1, #224]
	str	x30, [x1, #240]
	ldp	x2, x3, [sp], #16
	stp	x2, x3, [x1]
	mrs	x2, elr_el2
	str	x2, [x1, #GUEST_PC]
	mrs	x2, spsr_el2
	str	x2, [x1, #GUEST_SPSR]
	mrs	x2, esr_el2
	str	x2, [x1, #GUEST_ESR]
	mrs	x2, esr_el1
	str	x2, [x1, #GUEST_ESR_EL1]
	mrs	x2, far_el2
	str	x2, [x1, #GUEST_FAR]
	mrs	x2, hpfar_el2
	str	x2, [x1, #GUEST_HPFAR]
	ldr	x2, [x1, #GUEST_NO_BARRIER]
	cbnz	x2, 1f
	dsb	sy
	isb
1:
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	x19, x20, [sp], #96
	ret

	.macro	from_el2 offset
	.org	el2_vectors + \offset
	b	el2_sync
	.endm
	.macro	from_guest offset
	.org	el2_vectors + \offset
	stp	x0, x1, [sp, #-16]!
	mov	x0, #\offset
	b	guest_exit
	.endm

	.globl	el2_vectors
	.balign	0x800
el2_vectors:
	from_el2 0x200
	.org	el2_vectors + 0x280
	b	el2_irq
	from_guest 0x400
	from_guest 0x480
	from_guest 0x500
	from_guest 0x580
	from_guest 0x600
	.org	el2_vectors + 0x800

el2_sync:				/* HVC at EL2 is all that may come */
	stp	x0, x1, [sp, #-16]!
	mrs	x1, tpidr_el2
	mrs	x0, esr_el2
	str	x0, [x1, #PERCPU_EL2_ESR]
	lsr	x0, x0, #26
	cmp	x0, #0x16
	b.ne	1f
	ldp	x0, x1, [sp], #16
	eret
1:	mrs	x0, esr_el2
	mrs	x1, elr_el2
	b	ktap_unexpected

el2_irq:				/* acknowledge, count, finish */
	stp	x0, x1, [sp, #-16]!
	mrs	x0, s3_0_c12_c12_0	/* ICC_IAR1_EL1 */
	msr	s3_0_c12_c12_1, x0	/* ICC_EOIR1_EL1 */
	mrs	x1, tpidr_el2
	ldr	x0, [x1, #PERCPU_IRQS]
	add	x0, x0, #1
	str	x0, [x1, #PERCPU_IRQS]
	ldr	x0, [x1, #PERCPU_X20]	/* the bits that X20 has had every time */
	and	x0, x0, x20
	str	x0, [x1, #PERCPU_X20]
	msr	cnthp_ctl_el2, xzr	/* the timer has had its turn */
	isb
	ldp	x0, x1, [sp], #16
	eret

/*
 * The write to VTCR_EL2 as the last instruction of its page: x0 = value; returns
 * what x0 holds behind it. First jumps to the instruction behind, so that a
 * translator knows that one before it has seen the MSR.
 */
	.globl	vtcr_at_end_of_page
	.balign	4096
vtcr_page:
	.space	4096 - 4 * 4
vtcr_at_end_of_page:
	mov	x9, #1
	b	vtcr_behind
vtcr_last:
	nop
	msr	vtcr_el2, x0
vtcr_behind:
	mov	x10, x0
	cbz	x9, 1f
	mov	x9, #0
	b	vtcr_last
1:	mov	x0, x10
	ret

/* x0 = value, x1 = count: writes VTCR_EL2 from x20 with interrupts, x0 = mismatches */
	.globl	vtcr_under_interrupts
vtcr_under_interrupts:
	stp	x20, x30, [sp, #-16]!
	mov	x20, x0
	mov	x9, x0
	mov	x0, #0
	msr	daifclr, #2
1:	mrs	x2, cnthp_ctl_el2	/* arm the timer again when it has fired */
	cbnz	x2, 2f
	and	x3, x1, #63
	add	x3, x3, #20
	msr	cnthp_tval_el2, x3
	mov	x2, #1
	msr	cnthp_ctl_el2, x2
2:	msr	vtcr_el2, x20
	cmp	x20, x9
	cinc	x0, x0, ne
	nop
	nop
	msr	vtcr_el2, x20
	cmp	x20, x9
	cinc	x0, x0, ne
	subs	x1, x1, #1
	b.ne	1b
	msr	daifset, #2
	msr	cnthp_ctl_el2, xzr
	ldp	x20, x30, [sp], #16
	ret

/* u64 smc_call(function, x1, x2, x3): the firmware */
	.globl	smc_call
	.type	smc_call, %function
smc_call:
	smc	#0
	ret
	.size	smc_call, . - smc_call

	.bss
	.balign	4096
percpu:
	.space	8 * 4096
stacks:
	.space	8 * STACK_SIZE

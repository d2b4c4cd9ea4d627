/* fiber_switch(void **save_sp, void *load_sp): keeps the callee-saved registers on the old stack, its
 * pointer in *save_sp, and goes on where load_sp was kept. fiber_entry: where a new fiber's first switch
 * leads; the fiber's address is in a callee-saved register. Two instruction sets; others use ucontext (fiber.c).
 * The floating-point control words are the same everywhere in a role and are not switched. */
#if defined(__x86_64__)
	.text
	.globl fiber_switch
	.hidden fiber_switch
	.type fiber_switch, @function
fiber_switch:
	.cfi_startproc
	endbr64
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
	.cfi_endproc
	.size fiber_switch, .-fiber_switch

	.globl fiber_entry
	.hidden fiber_entry
	.type fiber_entry, @function
fiber_entry:
	endbr64
	movq %r12, %rdi
	call fiber_begin
	ud2
	.size fiber_entry, .-fiber_entry
#elif defined(__aarch64__)
	.text
	.globl fiber_switch
	.hidden fiber_switch
	.type fiber_switch, @function
fiber_switch:
	.cfi_startproc
	sub sp, sp, #160
	stp x19, x20, [sp, #0]
	stp x21, x22, [sp, #16]
	stp x23, x24, [sp, #32]
	stp x25, x26, [sp, #48]
	stp x27, x28, [sp, #64]
	stp x29, x30, [sp, #80]
	stp d8, d9, [sp, #96]
	stp d10, d11, [sp, #112]
	stp d12, d13, [sp, #128]
	stp d14, d15, [sp, #144]
	mov x2, sp
	str x2, [x0]
	mov sp, x1
	ldp x19, x20, [sp, #0]
	ldp x21, x22, [sp, #16]
	ldp x23, x24, [sp, #32]
	ldp x25, x26, [sp, #48]
	ldp x27, x28, [sp, #64]
	ldp x29, x30, [sp, #80]
	ldp d8, d9, [sp, #96]
	ldp d10, d11, [sp, #112]
	ldp d12, d13, [sp, #128]
	ldp d14, d15, [sp, #144]
	add sp, sp, #160
	ret
	.cfi_endproc
	.size fiber_switch, .-fiber_switch

	.globl fiber_entry
	.hidden fiber_entry
	.type fiber_entry, @function
fiber_entry:
	mov x0, x19
	bl fiber_begin
	brk #1
	.size fiber_entry, .-fiber_entry
#endif
	.section .note.GNU-stack, "", @progbits

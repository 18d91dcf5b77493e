// The way back from signal handlers, and the sleep that it leads past, for arm64: see handlers.h.
#if defined(__aarch64__)

// Where the signal's frame has the interrupted program counter, seen from the stack pointer with which a
// handler returns: 128 bytes of siginfo_t, uc_mcontext 176 into the ucontext_t, and in that the fault's address,
// 31 registers and the stack pointer.
#define SAVED_PC (128 + 176 + 8 + 31 * 8 + 8)

        .text
        .p2align 4
        .cfi_startproc
        .cfi_signal_frame
        // The kernel puts a frame record there for the interrupted frame.
        .cfi_def_cfa x29, 0
        .cfi_offset x29, 0
        .cfi_offset x30, 8
        nop                     // some unwinders look up the address before the one returned to
        .globl  loopfast_return_interrupting
        .hidden loopfast_return_interrupting
        .type   loopfast_return_interrupting, %function
loopfast_return_interrupting:
        mov     x12, #0
        b       .Lback
        nop
        .globl  loopfast_return_restarting
        .hidden loopfast_return_restarting
        .type   loopfast_return_restarting, %function
loopfast_return_restarting:
        mov     x12, #4
.Lback:
        // rt_sigreturn brings every register back: all are free here. Another handler between load and store
        // is counted by its own way back or by this one: changed the word is either way.
        adrp    x9, :gottprel:loopfast_handlers_run
        ldr     x9, [x9, :gottprel_lo12:loopfast_handlers_run]
        mrs     x10, tpidr_el0
        add     x9, x9, x10
        ldr     w11, [x9, x12]
        add     w11, w11, #1
        str     w11, [x9, x12]
        ldr     x10, [sp, #SAVED_PC]
        adr     x11, loopfast_sleep_begin
        sub     x10, x10, x11
        cmp     x10, #(loopfast_sleep_end - loopfast_sleep_begin)
        b.hs    1f
        adr     x11, loopfast_sleep_not
        str     x11, [sp, #SAVED_PC]
1:      mov     x8, #139
        svc     #0
        .cfi_endproc
        .size   loopfast_return_restarting, . - loopfast_return_restarting

        .p2align 4
        .globl  loopfast_sleep
        .hidden loopfast_sleep
        .type   loopfast_sleep, %function
loopfast_sleep:
        .cfi_startproc
        mov     x8, x0
        mov     x0, x1
        mov     x1, x2
        mov     x2, x3
        mov     x3, x4
        mov     x4, x5
        mov     x5, x6
        adrp    x9, :gottprel:loopfast_handlers_run
        ldr     x9, [x9, :gottprel_lo12:loopfast_handlers_run]
        mrs     x10, tpidr_el0
        add     x9, x9, x10
// Who is interrupted from here on, and before the call is made, is led to loopfast_sleep_not.
loopfast_sleep_begin:
        ldr     x10, [x9]
        cmp     x10, x7
        b.ne    loopfast_sleep_not
        svc     #0
loopfast_sleep_end:
        ret
loopfast_sleep_not:
        mov     x0, #-4
        ret
        .cfi_endproc
        .size   loopfast_sleep, . - loopfast_sleep
#endif
        .section .note.GNU-stack, "", %progbits

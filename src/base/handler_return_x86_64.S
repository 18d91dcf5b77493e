// The way back from signal handlers, and the sleep that it leads past, for x86-64: see handlers.h.
#if defined(__x86_64__)

// Where the signal's frame has the interrupted registers, seen from the stack pointer with which a handler
// returns: ucontext_t's uc_mcontext.gregs begins at 40.
#define SAVED_RIP 168

// How an unwinder finds them: the frame at the way back is the interrupted one, and each register lies at its
// place in the ucontext_t (DW_OP_breg7, that is rsp, plus the offset as SLEB128 of two bytes).
        .macro  saved register offset
        .cfi_escape 0x10, \register, 3, 0x77, (\offset & 0x7f) | 0x80, \offset >> 7
        .endm

        .text
        .p2align 4
        .cfi_startproc
        .cfi_signal_frame
        .cfi_escape 0x0f, 4, 0x77, (160 & 0x7f) | 0x80, 160 >> 7, 0x06
        saved   8, 40
        saved   9, 48
        saved   10, 56
        saved   11, 64
        saved   12, 72
        saved   13, 80
        saved   14, 88
        saved   15, 96
        saved   5, 104
        saved   4, 112
        saved   6, 120
        saved   3, 128
        saved   1, 136
        saved   0, 144
        saved   2, 152
        saved   7, 160
        saved   16, SAVED_RIP
        nop                     // some unwinders look up the address before the one returned to
        .globl  loopfast_return_interrupting
        .hidden loopfast_return_interrupting
        .type   loopfast_return_interrupting, @function
loopfast_return_interrupting:
        movq    loopfast_handlers_run@gottpoff(%rip), %rax
        incl    %fs:(%rax)
        jmp     .Lback
        nop
        .globl  loopfast_return_restarting
        .hidden loopfast_return_restarting
        .type   loopfast_return_restarting, @function
loopfast_return_restarting:
        movq    loopfast_handlers_run@gottpoff(%rip), %rax
        incl    %fs:4(%rax)
.Lback:
        // rt_sigreturn brings every register back: all are free here.
        movq    SAVED_RIP(%rsp), %rax
        leaq    loopfast_sleep_begin(%rip), %rdx
        subq    %rdx, %rax
        cmpq    $(loopfast_sleep_end - loopfast_sleep_begin), %rax
        jae     .Lreturn
        leaq    loopfast_sleep_not(%rip), %rdx
        movq    %rdx, SAVED_RIP(%rsp)
.Lreturn:
        movl    $15, %eax
        syscall
        .cfi_endproc
        .size   loopfast_return_restarting, . - loopfast_return_restarting

        .p2align 4
        .globl  loopfast_sleep
        .hidden loopfast_sleep
        .type   loopfast_sleep, @function
loopfast_sleep:
        .cfi_startproc
        movq    %rdi, %rax
        movq    %rsi, %rdi
        movq    %rdx, %rsi
        movq    %rcx, %rdx
        movq    %r8, %r10
        movq    %r9, %r8
        movq    8(%rsp), %r9
        movq    loopfast_handlers_run@gottpoff(%rip), %rcx
        movq    16(%rsp), %r11
// Who is interrupted from here on, and before the call is made, is led to loopfast_sleep_not.
loopfast_sleep_begin:
        cmpq    %fs:(%rcx), %r11
        jne     loopfast_sleep_not
        syscall
loopfast_sleep_end:
        ret
loopfast_sleep_not:
        movq    $-4, %rax
        ret
        .cfi_endproc
        .size   loopfast_sleep, . - loopfast_sleep
#endif
        .section .note.GNU-stack, "", %progbits

// loopfast_copy for arm64: see copy.h. A leaf without a stack frame; 32 bytes at a time, then single bytes.
#if defined(__aarch64__)
        .text
        .p2align 4
        .globl  loopfast_copy
        .hidden loopfast_copy
        .type   loopfast_copy, %function
        .globl  loopfast_copy_begin
        .hidden loopfast_copy_begin
loopfast_copy_begin:
loopfast_copy:
        .cfi_startproc
        subs    x3, x2, #32
        b.lo    2f
1:      ldp     x4, x5, [x1], #16
        ldp     x6, x7, [x1], #16
        stp     x4, x5, [x0], #16
        stp     x6, x7, [x0], #16
        subs    x3, x3, #32
        b.hs    1b
2:      ands    x2, x2, #31
        b.eq    4f
3:      ldrb    w4, [x1], #1
        strb    w4, [x0], #1
        subs    x2, x2, #1
        b.ne    3b
4:      mov     w0, #0
        ret
        .globl  loopfast_copy_fault
        .hidden loopfast_copy_fault
loopfast_copy_fault:
        mov     w0, #1
        ret
        .cfi_endproc
        .globl  loopfast_copy_end
        .hidden loopfast_copy_end
loopfast_copy_end:
        .size   loopfast_copy, .-loopfast_copy
        .section .note.GNU-stack,"",%progbits
#endif

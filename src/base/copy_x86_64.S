// loopfast_copy for x86-64: see copy.h. A leaf without a stack frame, so that a fault anywhere in it can
// continue at loopfast_copy_fault with nothing to restore.
//
// Sizes up to 32 by two overlapping moves, up to 1 KiB in 32-byte steps, above that `rep movsb`, which
// every processor since 2013 runs at full cache-line width.
#if defined(__x86_64__)
        .text
        .p2align 5
        .globl  loopfast_copy
        .hidden loopfast_copy
        .type   loopfast_copy, @function
        .globl  loopfast_copy_begin
        .hidden loopfast_copy_begin
loopfast_copy_begin:
loopfast_copy:
        .cfi_startproc
        cmpq    $16, %rdx
        jb      .Lbelow16
        cmpq    $32, %rdx
        ja      .Labove32
        movups  (%rsi), %xmm0
        movups  -16(%rsi,%rdx), %xmm1
        movups  %xmm0, (%rdi)
        movups  %xmm1, -16(%rdi,%rdx)
        xorl    %eax, %eax
        ret
.Labove32:
        cmpq    $1024, %rdx
        ja      .Llarge
        // The last 32 bytes first, then 32 at a time from the front; the two may overlap.
        movups  -32(%rsi,%rdx), %xmm2
        movups  -16(%rsi,%rdx), %xmm3
        movups  %xmm2, -32(%rdi,%rdx)
        movups  %xmm3, -16(%rdi,%rdx)
        subq    $32, %rdx
.Lstep:
        movups  (%rsi), %xmm0
        movups  16(%rsi), %xmm1
        movups  %xmm0, (%rdi)
        movups  %xmm1, 16(%rdi)
        addq    $32, %rsi
        addq    $32, %rdi
        subq    $32, %rdx
        ja      .Lstep
        xorl    %eax, %eax
        ret
.Llarge:
        movq    %rdx, %rcx
        rep movsb
        xorl    %eax, %eax
        ret
.Lbelow16:
        cmpl    $8, %edx
        jb      .Lbelow8
        movq    (%rsi), %rax
        movq    -8(%rsi,%rdx), %rcx
        movq    %rax, (%rdi)
        movq    %rcx, -8(%rdi,%rdx)
        xorl    %eax, %eax
        ret
.Lbelow8:
        cmpl    $4, %edx
        jb      .Lbelow4
        movl    (%rsi), %eax
        movl    -4(%rsi,%rdx), %ecx
        movl    %eax, (%rdi)
        movl    %ecx, -4(%rdi,%rdx)
        xorl    %eax, %eax
        ret
.Lbelow4:
        testl   %edx, %edx
        je      .Lnothing
        movzbl  (%rsi), %eax
        movb    %al, (%rdi)
        cmpl    $1, %edx
        je      .Lnothing
        movzwl  -2(%rsi,%rdx), %eax
        movw    %ax, -2(%rdi,%rdx)
.Lnothing:
        xorl    %eax, %eax
        ret
        .globl  loopfast_copy_fault
        .hidden loopfast_copy_fault
loopfast_copy_fault:
        movl    $1, %eax
        ret
        .cfi_endproc
        .globl  loopfast_copy_end
        .hidden loopfast_copy_end
loopfast_copy_end:
        .size   loopfast_copy, .-loopfast_copy
        .section .note.GNU-stack,"",@progbits
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* start.S - the test guest's first instructions
 *
 * Two entries, one end. pvh_start: 32-bit protected mode without paging, ebx = start info (Xen's PVH
 * boot ABI, which QEMU's -kernel follows by the note below). linux_start: the ELF's entry, 64-bit
 * mode, rsi = boot_params (Linux' 64-bit boot protocol, which Firecracker follows). Both go on with
 * our own page tables and segments to guest_main(boot, kind).
 */
        .section .note.pvh, "a", @note
        .align 4
        .long 4, 4, 18                  /* name and value lengths, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long pvh_start

        .section .text.start, "ax"
        .code32
        .globl pvh_start
pvh_start:
        cld
        lgdt gdt_pointer
        movl %cr4, %eax
        orl $0x20, %eax                 /* PAE */
        movl %eax, %cr4
        movl $pml4, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx          /* EFER: LME */
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax           /* PG, PE */
        movl %eax, %cr0
        ljmp $8, $pvh_64

        .code64
pvh_64:
        movl %ebx, %edi
        xorl %esi, %esi
        jmp common

        .globl linux_start
linux_start:
        cld
        cli
        movq $pml4, %rax
        movq %rax, %cr3
        lgdt gdt_pointer
        movq %rsi, %rdi
        movl $1, %esi
        leaq stack_top, %rsp
        pushq $8
        pushq $common
        lretq

common:
        movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        leaq stack_top, %rsp
        call guest_main
1:      cli
        hlt
        jmp 1b

/* The timer: ticks lives in the control page (testguest.h). */
        .globl timer_entry
timer_entry:
        pushq %rax
        incq 0x200008
        movb $0x20, %al                 /* end of interrupt */
        outb %al, $0x20
        popq %rax
        iretq

        .globl ignore_entry
ignore_entry:
        iretq

/* Exceptions: stubs of 16 bytes each that push their number, behind the error code that the CPU
 * pushed for some of them and a zero stands in for otherwise. */
        .align 16
        .globl fault_stubs
fault_stubs:
        .set n, 0
        .rept 32
        .if n != 8 && (n < 10 || n > 14) && n != 17
        pushq $0
        .endif
        pushq $n
        jmp fault_common
        .align 16
        .set n, n + 1
        .endr

fault_common:
        popq %rdi
        popq %rax
        movq (%rsp), %rsi
        movq %cr2, %rdx
        andq $-16, %rsp
        call fault
2:      hlt
        jmp 2b

        .section .data.tables, "aw"
        .align 4096
pml4:   .quad pdpt + 3
        .fill 511, 8, 0
pdpt:   .quad pd + 3, pd + 0x1003, pd + 0x2003, pd + 0x3003
        .fill 508, 8, 0
/* 4 GiB, one to one, in pages of 2 MiB: made by the assembler, so that nothing has to run. */
pd:     .set address, 0
        .rept 2048
        .quad address + 0x83
        .set address, address + 0x200000
        .endr
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word 23
        .quad gdt

        .section .bss
        .align 16
        .skip 16384
stack_top:
        .section .note.GNU-stack, "", @progbits

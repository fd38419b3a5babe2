//! The entry: from 32-bit protected mode without paging, with the address of the start information in
//! `ebx`, to a Rust function on a stack.
//!
//! Everything privileged happens here, in assembly, once: long mode, GDT, TSS, IDT. Then the program drops
//! to **ring 3 with IOPL 3** and stays there. Port I/O still works, and all memory is mapped for it. Two
//! reasons:
//!
//! * a KVM that has no help of the processor (kvm-pvm) runs ring 3 as it is but interprets ring 0, and its
//!   interpreter knows no SSE arithmetic, so it cannot run compiled Rust;
//! * interrupts and faults change to another stack by themselves, so the red zone is safe.
//!
//! Ring 3 runs with interrupts off throughout. `hlt` there raises #GP, whose handler does `sti; hlt; cli`
//! and returns behind it: the only service of ring 0, and the only place where interrupts are taken. They
//! carry no work. (`int n` from ring 3 is #UD on kvm-pvm.)

use core::arch::global_asm;
use core::ffi::{CStr, c_char};
use core::slice;

/// GiB of physical memory that is mapped, each address to itself, with pages of 2 MiB: 4 KiB of static tables each.
pub(super) const MAPPED_GIB: usize = 4;

/// The one vector of all that wakes the program; the last in the table.
pub(super) const WAKE_VECTOR: u8 = 0x40;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18              # namesz, descsz, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start             # 8 bytes: QEMU reads a size_t from a 64-bit ELF

    .section .boot, "ax"
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax             # PAE | OSFXSR | OSXMMEXCPT
    mov %eax, %cr4
    mov $0xC0000080, %ecx       # EFER
    rdmsr
    or $0x100, %eax             # LME
    wrmsr
    mov %cr0, %eax
    and $~0xc, %eax             # clear EM, TS
    or $0x80010023, %eax        # PG | WP | NE | MP | PE
    mov %eax, %cr0
    lgdt boot_gdt_ptr
    ljmp $8, $start64

    .code64
start64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $ring0_stack_top, %esp

    mov $boot_tss, %eax         # complete the TSS descriptor, load it
    mov %ax, boot_gdt + 0x18 + 2
    shr $16, %eax
    mov %al, boot_gdt + 0x18 + 4
    mov %ah, boot_gdt + 0x18 + 7
    mov $0x18, %eax
    ltr %ax

    mov $boot_idt, %edi         # vectors 0..31: exceptions, one 16-byte stub each
    mov $exc_stubs, %eax
    mov $32, %ecx
1:  call set_gate
    add $16, %eax
    add $16, %edi
    loop 1b
    mov $boot_idt + {irq} * 16, %edi
    mov $irq_stub, %eax
    call set_gate
    mov $boot_idt + 13 * 16, %edi
    mov $gp_stub, %eax
    call set_gate
    lidt boot_idt_ptr

    pushq $0x2b                 # ss
    pushq $__stack_top          # rsp
    pushq $0x3002               # rflags: IOPL=3, IF=0
    pushq $0x33                 # cs
    pushq $start_ring3
    iretq

set_gate:                       # gate at %rdi -> handler %eax (below 4 GiB), interrupt gate
    mov %ax, 0(%rdi)
    movw $8, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    mov %eax, %edx
    shr $16, %edx
    mov %dx, 6(%rdi)
    ret

start_ring3:
    mov $__bss_start, %edi
    mov $__bss_end, %ecx
    sub %edi, %ecx
    shr $3, %ecx
    xor %eax, %eax
    rep stosq
    mov %ebx, %edi              # start_info -> first argument
    call statefs_start          # never returns

    .balign 16
exc_stubs:
    .set vec, 0
    .rept 32
    .balign 16
    .if vec == 8 || vec == 10 || vec == 11 || vec == 12 || vec == 13 || vec == 14 || vec == 17
    .else
    pushq $0                    # no error code from the CPU: fake one
    .endif
    pushq $vec
    jmp exc_common
    .set vec, vec + 1
    .endr
exc_common:                     # fatal: save what matters, then run the reporter in ring 3
    mov %cr2, %rax
    mov %rax, fault_info + 0
    mov 0(%rsp), %rax
    mov %rax, fault_info + 8    # vector
    mov 8(%rsp), %rax
    mov %rax, fault_info + 16   # error code
    mov 16(%rsp), %rax
    mov %rax, fault_info + 24   # rip
    mov 40(%rsp), %rax
    mov %rax, fault_info + 32   # rsp
    pushq $0x2b
    pushq $fault_stack_top - 8
    pushq $0x3002
    pushq $0x33
    pushq $statefs_fault
    iretq

gp_stub:                        # err, rip, cs, rflags, rsp, ss on the stack
    push %rax
    mov 16(%rsp), %rax
    cmpb $0xf4, (%rax)          # `hlt` in ring 3 means: sleep until an interrupt
    pop %rax
    jne exc_stubs + 13 * 16
    incq 8(%rsp)
    add $8, %rsp
    sti
    hlt
    cli
    iretq

irq_stub:                       # only ever reached from gp_stub's hlt
    push %rax
    mov $0xfee000b0, %eax       # local APIC EOI
    movl $0, (%rax)
    pop %rax
    iretq

    .section .data.boot, "aw"   # writable: the CPU sets accessed/dirty/busy bits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08 ring-0 code64
    .quad 0x00cf93000000ffff    # 0x10 ring-0 data
    .quad 0x0000890000002068, 0 # 0x18 TSS, base filled in above, limit 0x68 + 8193 - 1
    .quad 0x00cff3000000ffff    # 0x28 ring-3 data
    .quad 0x00affb000000ffff    # 0x30 ring-3 code64
boot_gdt_ptr:
    .word . - boot_gdt - 1
    .quad boot_gdt
boot_idt_ptr:
    .word 0x41 * 16 - 1
    .quad boot_idt
    .balign 16
boot_tss:
    .long 0
    .quad ring0_stack_top       # rsp0
    .fill 0x5c - 2, 1, 0        # rsp1.., ist.., reserved (total 0x68)
    .word 0x68                  # I/O bitmap, all ports open: kvm-pvm loses IOPL, this it honours
    .fill 8192, 1, 0
    .byte 0xff
    .balign 16
boot_idt:
    .fill 0x41 * 16, 1, 0
    .globl fault_info
    .balign 8
fault_info:
    .fill 5, 8, 0

    .balign 4096
boot_pml4:
    .quad boot_pdpt + 7
    .fill 511, 8, 0
boot_pdpt:
    .set i, 0
    .rept {gib}
    .quad boot_pd + i * 4096 + 7
    .set i, i + 1
    .endr
    .fill 512 - {gib}, 8, 0
boot_pd:
    .quad 0x87                  # 0..2 MiB: firmware tables, start_info, command line
    .quad 0                     # 2..4 MiB: not present, stack guard
    .set i, 2
    .rept {gib} * 512 - 2
    .quad i * 0x200000 + 0x87   # present | writable | user | 2 MiB
    .set i, i + 1
    .endr

    .section .bss.boot, "aw", @nobits   # not in the file; nothing lies on them while it is cleared
    .balign 16
    .skip 2048
ring0_stack_top:
    .skip 16384
fault_stack_top:
    .text
"#,
    gib = const MAPPED_GIB,
    irq = const WAKE_VECTOR,
    options(att_syntax)
);

/// What a PVH loader hands over.
#[repr(C)]
pub(super) struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    acpi: u64,
    memory_map: u64,
    memory_count: u32,
    reserved: u32,
}

/// A stretch of physical memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct MemoryRange {
    pub(super) start: u64,
    pub(super) bytes: u64,
    kind: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ModuleEntry {
    start: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

impl StartInfo {
    /// Yields what lies at `address`.
    ///
    /// # Safety
    /// It is the address that the loader gave, and nobody wrote there since.
    pub(super) unsafe fn at(address: usize) -> &'static Self {
        // SAFETY: the caller's promise; all memory is mapped.
        let info = unsafe { &*(address as *const Self) };
        assert!(info.magic == MAGIC, "not started by the PVH protocol");
        assert!(info.version >= 1, "the loader gives no memory map");
        info
    }

    /// Yields the command line; empty if there is none, or it is not UTF-8.
    pub(super) fn command_line(&self) -> &'static str {
        if self.command_line == 0 {
            return "";
        }
        // SAFETY: the loader put a string with an end there; the heap begins above it.
        let line = unsafe { CStr::from_ptr(self.command_line as *const c_char) };
        line.to_str().unwrap_or_default()
    }

    /// Yields the memory that may be used.
    pub(super) fn memory(&self) -> impl Iterator<Item = MemoryRange> {
        let count = usize::try_from(self.memory_count).unwrap_or_default();
        // SAFETY: the loader put so many entries there; the heap begins above them.
        let map = unsafe { slice::from_raw_parts(self.memory_map as *const MemoryRange, count) };
        map.iter().copied().filter(|range| range.kind == USABLE)
    }

    /// Yields the first module, if there is one.
    pub(super) fn module(&self) -> Option<&'static [u8]> {
        if self.module_count == 0 || self.modules == 0 {
            return None;
        }
        // SAFETY: the loader put at least one entry there, and the module where that says.
        unsafe {
            let entry = *(self.modules as *const ModuleEntry);
            let bytes = usize::try_from(entry.bytes).unwrap_or_default();
            Some(slice::from_raw_parts(entry.start as *const u8, bytes))
        }
    }
}

/// The loader's mark, and the kind of memory that is free.
const MAGIC: u32 = 0x336e_c578;
const USABLE: u32 = 1;

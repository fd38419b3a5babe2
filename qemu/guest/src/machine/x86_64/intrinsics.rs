//! What core and alloc, as compiled for linux-gnu, expect of a C library: memory functions and unwinder.
//!
//! In assembly, or the compiler would turn the loops into calls of themselves. SSE, because `rep movs` is four to five times
//! slower under QEMU's translator and, backwards, on processors too.

use core::arch::naked_asm;

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 64",
        "jb 3f",
        "2: movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "sub rdx, 64",
        "cmp rdx, 64",
        "jae 2b",
        "3: cmp rdx, 8",
        "jb 4f",
        "mov rcx, [rsi]",
        "mov [rdi], rcx",
        "add rsi, 8",
        "add rdi, 8",
        "sub rdx, 8",
        "jmp 3b",
        "4: test rdx, rdx",
        "je 5f",
        "mov cl, [rsi]",
        "mov [rdi], cl",
        "inc rsi",
        "inc rdi",
        "dec rdx",
        "jmp 4b",
        "5: ret"
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi", "mov rcx, rdi", "sub rcx, rsi", "cmp rcx, rdx",
        "jae {memcpy}",                  // dst < src, or no overlap: forwards is right
        "2: cmp rdx, 16", "jb 3f", "movups xmm0, [rsi + rdx - 16]",
        "movups [rdi + rdx - 16], xmm0", "sub rdx, 16", "jmp 2b",
        "3: test rdx, rdx", "je 4f", "mov cl, [rsi + rdx - 1]", "mov [rdi + rdx - 1], cl",
        "dec rdx", "jmp 3b", "4: ret",
        memcpy = sym memcpy)
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dst: *mut u8, c: i32, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx ecx, sil",
        "mov rsi, 0x0101010101010101",
        "imul rcx, rsi",
        "movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "2: cmp rdx, 16",
        "jb 3f",
        "movups [rdi], xmm0",
        "add rdi, 16",
        "sub rdx, 16",
        "jmp 2b",
        "3: test rdx, rdx",
        "je 4f",
        "mov [rdi], cl",
        "inc rdi",
        "dec rdx",
        "jmp 3b",
        "4: ret"
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    naked_asm!(
        "2: cmp rdx, 8",
        "jb 3f",
        "mov rax, [rdi]",
        "cmp rax, [rsi]",
        "jne 3f",
        "add rdi, 8",
        "add rsi, 8",
        "sub rdx, 8",
        "jmp 2b",
        "3: test rdx, rdx",
        "je 4f",
        "movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "inc rdi",
        "inc rsi",
        "dec rdx",
        "sub eax, ecx",
        "je 3b",
        "ret",
        "4: xor eax, eax",
        "ret"
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller promises for this what it would for `memcmp`.
    unsafe { memcmp(a, b, n) }
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(s: *const u8) -> usize {
    naked_asm!(
        "xor eax, eax",
        "2: cmp byte ptr [rdi + rax], 0",
        "je 3f",
        "inc rax",
        "jmp 2b",
        "3: ret"
    )
}

// The shipped core/alloc are compiled with unwinding; nothing ever unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    super::exit(crate::machine::Exit::Panic)
}

//! What core and alloc expect of their surroundings, on x86-64 Linux: an entry, the memory functions,
//! an allocator, a panic handler. Two system calls are all that it knows of the kernel.
#![expect(unsafe_code, reason = "a program without a C library brings the least of one")]

use alloc::format;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::panic::PanicInfo;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the entry and the system calls are those of x86-64 Linux");

/// Writes `text` to the standard output.
pub(crate) fn print(text: &str) {
    write(1, text);
}

extern "C" fn begin() -> ! {
    let code = match crate::run() {
        Ok(()) => 0,
        Err(what) => {
            write(2, &format!("freestanding: {what}\n"));
            1
        }
    };
    exit(code)
}

/// Where the kernel starts the program. It gives a stack and no return address.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "and rsp, -16", "call {begin}", "ud2", begin = sym begin)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    write(2, &format!("freestanding: {info}\n"));
    exit(101)
}

fn write(descriptor: usize, text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let written: isize;
        // SAFETY: `write` reads `rest`, which is borrowed for as long, and changes no memory of ours;
        // a system call clobbers rax, rcx and r11 alone.
        unsafe {
            asm!("syscall", inlateout("rax") SYS_WRITE => written, in("rdi") descriptor,
                in("rsi") rest.as_ptr(), in("rdx") rest.len(), out("rcx") _, out("r11") _,
                options(nostack));
        }
        // Nobody to tell when the output is closed.
        let Ok(written @ 1..) = usize::try_from(written) else { return };
        rest = rest.get(written..).unwrap_or_default();
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: `exit_group` takes a number and does not return.
    unsafe { asm!("syscall", in("rax") SYS_EXIT_GROUP, in("rdi") code, options(noreturn)) }
}

/// Hands out memory from the front and takes none back: the program is short.
struct Bump {
    used: AtomicUsize,
    memory: Memory,
}

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; HEAP_BYTES]>);

// SAFETY: `alloc` gives every byte away at most once, to whoever asked, and never looks at one.
unsafe impl Sync for Bump {}

// SAFETY: what `alloc` returns is aligned, inside `memory`, and no part of it was returned before:
// `used` only grows, by one atomic step for each range that it passes.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.memory.0.get().cast::<u8>();
        let mut place = 0;
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let free = start.wrapping_add(used);
            place = used.checked_add(free.align_offset(layout.align()))?;
            place.checked_add(layout.size()).filter(|end| *end <= HEAP_BYTES)
        });
        taken.map_or(null_mut(), |_| start.wrapping_add(place))
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: Bump =
    Bump { used: AtomicUsize::new(0), memory: Memory(UnsafeCell::new([0; HEAP_BYTES])) };

// The compiler's own calls. In assembly, because it turns a loop that copies into a call of memcpy.

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret")
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jae {memcpy}", // Behind the target, or apart: forwards is right.
        "mov rcx, rdx",
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
        memcpy = sym memcpy
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret")
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, bytes: usize) -> i32 {
    naked_asm!(
        "xor ecx, ecx",
        "2: cmp rcx, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 2b",
        "ret",
        "3: xor eax, eax",
        "ret"
    )
}

#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, bytes: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

// The shipped core and alloc were compiled for unwinding, and name it; nothing here unwinds.

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    exit(101)
}

/// Memory of the program, far above what its steps take; the kernel gives what is touched.
const HEAP_BYTES: usize = 256 << 20;

const SYS_WRITE: usize = 1;
const SYS_EXIT_GROUP: usize = 231;

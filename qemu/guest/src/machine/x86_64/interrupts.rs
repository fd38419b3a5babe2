//! What ends a sleep: the timer of the local APIC, and lines of the I/O APICs. Lines call at their edge, so a
//! device is acknowledged before the program sleeps.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use super::super::Exit;
use super::boot::WAKE_VECTOR;
use super::ports;

/// Sleeps until an interrupt, at most so many milliseconds; not at all if one waits already.
pub(crate) fn idle(most_ms: u64) {
    let longest = if POLLED.load(Ordering::Relaxed) { POLL_MS } else { SLEEP_MS_MAX };
    let most = most_ms.min(longest).saturating_mul(TIMER_TICKS_PER_MS).min(u32::MAX.into());
    write(LOCAL_APIC, TIMER_COUNT, u32::try_from(most).unwrap_or(u32::MAX).max(1));
    // SAFETY: in ring 3 this is a call of the handler in `boot`, which sleeps and returns.
    unsafe { asm!("hlt") }
    write(LOCAL_APIC, TIMER_COUNT, 0);
}

/// Turns the old controllers off and the new one on.
pub(super) fn begin() {
    ports::write(0x21, 0xff);
    ports::write(0xa1, 0xff);
    write(LOCAL_APIC, SPURIOUS, 0x100 | u32::from(WAKE_VECTOR));
    // Divided by one.
    write(LOCAL_APIC, TIMER_DIVISOR, 0b1011);
    write(LOCAL_APIC, TIMER_VECTOR, u32::from(WAKE_VECTOR));
}

/// Notes that there are devices whose lines wake nobody.
pub(super) fn poll() {
    POLLED.store(true, Ordering::Relaxed);
}

/// Lets a line wake the program: fixed, at its edge, this processor.
pub(super) fn enable(line: u32) {
    let (base, pin) = (if line < 24 { IO_APIC } else { IO_APIC_SECOND }, line % 24);
    for (register, value) in [(0x11 + 2 * pin, 0), (0x10 + 2 * pin, u32::from(WAKE_VECTOR))] {
        write(base, 0, register);
        write(base, 0x10, value);
    }
}

/// Entered, in ring 3 and on a stack of its own, when the processor stops the program.
#[unsafe(no_mangle)]
extern "C" fn statefs_fault() -> ! {
    // SAFETY: the handler in `boot` wrote these five words, and runs once.
    let [address, vector, error, code, stack] = unsafe { (&raw const fault_info).read_volatile() };
    ports::print(format_args!(
        "FAULT: vector {vector}, error {error:#x}, at {code:#x}, stack {stack:#x}, address {address:#x}"
    ));
    ports::exit(Exit::Fault)
}

unsafe extern "C" {
    static fault_info: [u64; 5];
}

fn write(base: usize, register: usize, value: u32) {
    // SAFETY: the register is one of an APIC, which is mapped and no memory of the program.
    unsafe { ((base + register) as *mut u32).write_volatile(value) }
}

static POLLED: AtomicBool = AtomicBool::new(false);

/// The longest that a request waits to be noticed where no line tells of it.
const POLL_MS: u64 = 10;

/// Longest sleep where lines wake the program: nothing depends on it but how late a silent disk is noticed.
const SLEEP_MS_MAX: u64 = 1000;

const LOCAL_APIC: usize = 0xfee0_0000;
const SPURIOUS: usize = 0xf0;
const TIMER_VECTOR: usize = 0x320;
const TIMER_COUNT: usize = 0x380;
const TIMER_DIVISOR: usize = 0x3e0;

/// QEMU's and KVM's timer counts nanoseconds.
const TIMER_TICKS_PER_MS: u64 = 1_000_000;

/// Lines 0 to 23, and those of microvm's devices behind them.
const IO_APIC: usize = 0xfec0_0000;
const IO_APIC_SECOND: usize = 0xfec1_0000;

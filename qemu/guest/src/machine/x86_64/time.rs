//! Time: the processor's counter, measured once against the PIT.

use core::arch::x86_64::_rdtsc;

use spin::Once;

use super::ports;

/// Yields the milliseconds since the program began.
pub(crate) fn now_ms() -> u64 {
    let (start, per_ms) = CLOCK.get().copied().unwrap_or((0, 1));
    counter().saturating_sub(start) / per_ms
}

/// Measures the counter. Whoever runs the machine may stop it at any point, which makes a measurement too long and
/// never too short, so the shortest counts. It is off by some per cent, which is enough for what the core does with time.
pub(super) fn begin() {
    CLOCK.call_once(|| {
        let start = counter();
        let shortest = (0..MEASUREMENTS).map(|_| measure()).min().unwrap_or(1);
        (start, shortest.max(1))
    });
}

/// Counts for about a millisecond.
fn measure() -> u64 {
    let [low, high] = PIT_TICKS.to_le_bytes();
    // Channel 0, both bytes, counting down once; microvm has no gate for channel 2.
    ports::write(PIT_COMMAND, 0b0011_0000);
    ports::write(PIT_COUNT, low);
    // Before it counts: between the two, the machine may be stopped.
    let start = counter();
    ports::write(PIT_COUNT, high);
    for _ in 0..LOOKS_MAX {
        ports::write(PIT_COMMAND, 0);
        let left = u16::from_le_bytes([ports::read(PIT_COUNT), ports::read(PIT_COUNT)]);
        if left == 0 || left > PIT_TICKS {
            break;
        }
    }
    counter().saturating_sub(start)
}

fn counter() -> u64 {
    // SAFETY: every processor of this architecture has the counter, and reading it changes nothing.
    unsafe { _rdtsc() }
}

/// Where the counter was, and how far it goes in a millisecond.
static CLOCK: Once<(u64, u64)> = Once::new();

const PIT_COUNT: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;

/// A millisecond at 1.193182 MHz.
const PIT_TICKS: u16 = 1193;

/// How often the counter is measured.
const MEASUREMENTS: usize = 5;

/// Looks at the PIT before it is taken for dead.
const LOOKS_MAX: u32 = 1_000_000;

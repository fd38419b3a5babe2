//! Port I/O: the serial line, and QEMU's exit.

use core::arch::asm;
use core::fmt::{self, Write as _};
use core::panic::PanicInfo;

use super::super::Exit;

/// Writes a line to the serial line.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    // Writing to the line never fails.
    let _ = writeln!(Serial, "{line}");
}

/// Yields the next byte that came through the serial line.
pub(crate) fn typed() -> Option<u8> {
    (read(LINE_STATUS) & DATA_READY != 0).then(|| read(SERIAL))
}

/// Ends the machine.
pub(crate) fn exit(end: Exit) -> ! {
    write(EXIT, end as u8);
    loop {
        // SAFETY: it sleeps; the program has nothing more to do.
        unsafe { asm!("hlt") }
    }
}

/// Lets the serial line call when a byte came.
pub(super) fn begin() {
    write(SERIAL + 1, 1);
    super::interrupts::enable(SERIAL_LINE);
}

struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // QEMU's serial line is always ready to send.
        text.bytes().for_each(|byte| write(SERIAL, byte));
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    print(format_args!("PANIC: {info}"));
    exit(Exit::Panic)
}

/// Writes a byte to a port.
pub(super) fn write(port: u16, value: u8) {
    // SAFETY: the ports of this module and its neighbours change devices, never memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Reads a byte from a port.
pub(super) fn read(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// Writes four bytes to a port.
pub(super) fn write_long(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
}

/// Reads four bytes from a port.
pub(super) fn read_long(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) }
    value
}

/// The first serial line, and its interrupt.
const SERIAL: u16 = 0x3f8;
const LINE_STATUS: u16 = SERIAL + 5;
const DATA_READY: u8 = 1;
const SERIAL_LINE: u32 = 4;

/// QEMU's `isa-debug-exit`, as the harness starts it.
const EXIT: u16 = 0xf4;

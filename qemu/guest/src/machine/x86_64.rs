//! x86-64 under QEMU: the machines `microvm` and `q35`, booted by the PVH protocol.

mod boot;
mod devices;
mod heap;
mod interrupts;
mod intrinsics;
mod ports;
mod random;
mod time;

pub(crate) use devices::devices;
pub(crate) use heap::Memory;
pub(crate) use interrupts::idle;
use ports::exit;
pub(crate) use ports::{print, typed};
pub(crate) use random::random;
pub(crate) use time::now_ms;

use boot::StartInfo;

/// Called by the entry in assembly, on a stack, with memory zeroed that has to be.
#[unsafe(no_mangle)]
extern "C" fn statefs_start(start_info: usize) -> ! {
    // SAFETY: the entry passes on what the loader gave it, and nothing was written since.
    let info = unsafe { StartInfo::at(start_info) };
    // Before the heap takes the memory in which the module lies.
    let policy = heap::Module::save(info.module());
    let heap_bytes = heap::begin(info);
    time::begin();
    interrupts::begin();
    ports::begin();
    let policy = policy.map(|module| module.into_bytes());
    exit(crate::begin(super::Boot { command_line: info.command_line(), policy, heap_bytes }))
}

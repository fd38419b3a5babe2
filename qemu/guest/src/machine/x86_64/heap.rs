//! Memory: the heap, and what devices see of it.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

use spin::Mutex;
use talc::TalcLock;
use talc::source::Manual;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use super::boot::{MAPPED_GIB, StartInfo};
use crate::machine::POLICY_BYTES_MAX;

#[global_allocator]
static HEAP: TalcLock<Mutex<()>, Manual> = TalcLock::new(Manual);

/// Gives the heap all memory above the image; yields how much that is.
pub(super) fn begin(info: &StartInfo) -> usize {
    let image_end = (&raw const __image_end) as u64;
    let mut total = 0;
    for range in info.memory() {
        // Below the image lie the loader's tables, which stay.
        let start = range.start.max(image_end).next_multiple_of(PAGE_SIZE as u64);
        let end = range.start.saturating_add(range.bytes).min((MAPPED_GIB as u64) << 30);
        let Ok(bytes) = usize::try_from(end.saturating_sub(start)) else {
            continue;
        };
        if bytes < RANGE_BYTES_MIN {
            continue;
        }
        // SAFETY: it is free memory, it is mapped, and nothing else uses it from here on.
        let claimed = unsafe { HEAP.lock().claim(start as *mut u8, bytes) };
        if claimed.is_some() {
            total += bytes;
        }
    }
    total
}

/// A module that was saved from the memory that becomes the heap.
pub(super) struct Module(usize);

impl Module {
    /// Saves a module; longer than may be counts as one byte too long.
    pub(super) fn save(module: Option<&[u8]>) -> Option<Self> {
        let module = module?;
        let mut saved = SAVED.lock();
        let bytes = module.len().min(saved.len());
        for (place, byte) in saved.iter_mut().zip(module) {
            *place = *byte;
        }
        Some(Self(bytes))
    }

    /// Yields the module on the heap.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        SAVED.lock().get(..self.0).unwrap_or_default().to_vec()
    }
}

static SAVED: Mutex<[u8; POLICY_BYTES_MAX + 1]> = Mutex::new([0; POLICY_BYTES_MAX + 1]);

unsafe extern "C" {
    static __image_end: u8;
}

/// Memory as devices see it: each address is its own, and there is no IOMMU.
pub(crate) struct Memory;

// SAFETY: pages come zeroed from the heap, aligned, and belong to the caller alone; all memory is mapped, each
// address to itself.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(layout) = layout(pages) else {
            return (0, NonNull::dangling());
        };
        // SAFETY: no queue has zero pages.
        let memory = unsafe { alloc_zeroed(layout) };
        // Address 0 means that there was none.
        (memory as PhysAddr, NonNull::new(memory).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        if let Some(layout) = layout(pages) {
            // SAFETY: it was allocated above with this layout, by the caller's promise.
            unsafe { dealloc(memory.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        let place = ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default());
        NonNull::new(place).expect("no device has its registers at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>().expose_provenance() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn layout(pages: usize) -> Option<Layout> {
    Layout::from_size_align(pages.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()
}

/// Smaller stretches of memory are left alone.
const RANGE_BYTES_MIN: usize = 1 << 20;

//! A virtio-blk device in memory, that can be told to lie.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::RefCell;
use core::ptr::NonNull;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Memory of the test's own process, at its own addresses.
pub(super) struct Flat;

// SAFETY: pages come zeroed from the allocator, aligned, and belong to the caller alone; an address
// means the same to the device below, which is part of the process.
unsafe impl Hal for Flat {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: no queue has zero pages.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout(pages)) }).unwrap();
        (memory.as_ptr() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: it was allocated above, by the caller's promise.
        unsafe { dealloc(memory.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).unwrap()
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).unwrap()
}

/// What the device does with a request that it completes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lie {
    /// The truth.
    None,
    /// It names another request in the used ring.
    Id(u32),
    /// It claims this length.
    Length(u32),
    /// It leaves this status.
    Status(u8),
    /// It completes the request twice.
    Twice,
    /// It moves the used index on without an entry.
    Ahead(u16),
    /// It overwrites the descriptor and the available ring.
    Scribble,
    /// It never completes the request.
    Silence,
}

pub(super) struct Device {
    pub(super) features: u64,
    pub(super) configuration: Vec<u8>,
    pub(super) queue_size: u32,
    pub(super) kind: DeviceType,
    /// Whether FEATURES_OK and a reset are confirmed.
    pub(super) agrees: bool,
    pub(super) resets: bool,
    /// Whether the configuration changes with each look.
    pub(super) restless: bool,
    /// Requests stay in the queue until somebody calls [`Device::work`].
    pub(super) lazy: bool,
    pub(super) medium: Vec<u8>,
    pub(super) flushes: u32,
    /// Most requests that lay in the queue at one time.
    pub(super) depth_max: usize,
    /// What to do next; the truth once it is empty.
    pub(super) lies: Vec<Lie>,
    status: DeviceStatus,
    generation: u32,
    rings: Option<[u64; 3]>,
    size: u16,
    taken: u16,
    used: u16,
    held: Vec<u16>,
}

#[derive(Clone)]
pub(super) struct Fake(pub(super) Rc<RefCell<Device>>);

pub(super) const FLUSH: u64 = 1 << 9;
pub(super) const INDIRECT: u64 = 1 << 28;
pub(super) const VERSION_1: u64 = 1 << 32;
const MEDIUM_BYTES: usize = 128 << 10;

impl Fake {
    pub(super) fn new() -> Self {
        let mut configuration = vec![0; 60];
        configuration[..8].copy_from_slice(&(MEDIUM_BYTES as u64 / 512).to_le_bytes());
        configuration[20..24].copy_from_slice(&512_u32.to_le_bytes());
        configuration[24] = 3;
        Self(Rc::new(RefCell::new(Device {
            features: !(1 << 5),
            configuration,
            queue_size: 256,
            kind: DeviceType::Block,
            agrees: true,
            resets: true,
            restless: false,
            lazy: false,
            medium: vec![0; MEDIUM_BYTES],
            flushes: 0,
            depth_max: 0,
            lies: Vec::new(),
            status: DeviceStatus::empty(),
            generation: 0,
            rings: None,
            size: 0,
            taken: 0,
            used: 0,
            held: Vec::new(),
        })))
    }
}

impl Device {
    /// Completes what lies in the queue, the latest first.
    pub(super) fn work(&mut self) {
        self.take();
        while let Some(head) = self.held.pop() {
            self.complete(head);
        }
    }

    fn take(&mut self) {
        let Some([_, driver, device]) = self.rings else { return };
        let index = load::<u16>(driver + 2);
        while self.taken != index {
            let slot = u64::from(self.taken % self.size);
            self.held.push(load(driver + 4 + slot * 2));
            self.taken = self.taken.wrapping_add(1);
        }
        // The next entry is worth a notification.
        store(device + 4 + u64::from(self.size) * 8, self.taken);
        self.depth_max = self.depth_max.max(self.held.len());
    }

    fn complete(&mut self, head: u16) {
        let lie = self.lies.pop().unwrap_or(Lie::None);
        let Some([descriptors, driver, _]) = self.rings else { return };
        if lie == Lie::Silence {
            return;
        }
        let chain = chain(descriptors, head);
        let (mut status, mut length) = self.serve(&chain);
        match lie {
            Lie::Status(other) => status = other,
            Lie::Length(other) => length = other,
            Lie::Scribble => {
                for at in 0..16 {
                    store(descriptors + u64::from(head) * 16 + at, 0xA5_u8);
                }
                for at in 4..4 + u64::from(self.size) * 2 {
                    store(driver + at, 0x5A_u8);
                }
            }
            _ => {}
        }
        store(chain.last().unwrap().0, status);
        self.push(if let Lie::Id(other) = lie { other } else { head.into() }, length);
        if lie == Lie::Twice {
            self.push(head.into(), length);
        }
        if let Lie::Ahead(by) = lie {
            self.used = self.used.wrapping_add(by);
            self.publish();
        }
    }

    /// Does what a request asks; yields its status and the bytes that were written for it.
    fn serve(&mut self, chain: &[(u64, u32)]) -> (u8, u32) {
        let header = chain[0].0;
        let at = usize::try_from(load::<u64>(header + 8)).unwrap() * 512;
        match load::<u32>(header) {
            4 => {
                self.flushes += 1;
                (0, 1)
            }
            kind @ (0 | 1) => {
                let (data, bytes) = chain[1];
                let Some(range) = self.medium.get_mut(at..at + bytes as usize) else {
                    return (1, 1);
                };
                for (place, byte) in (data..).zip(range) {
                    if kind == 0 {
                        store(place, *byte);
                    } else {
                        *byte = load(place);
                    }
                }
                (0, if kind == 0 { bytes + 1 } else { 1 })
            }
            _ => (2, 1),
        }
    }

    fn push(&mut self, id: u32, length: u32) {
        let Some([_, _, device]) = self.rings else { return };
        let place = device + 4 + u64::from(self.used % self.size) * 8;
        store(place, id);
        store(place + 4, length);
        self.used = self.used.wrapping_add(1);
        self.publish();
    }

    fn publish(&self) {
        if let Some([_, _, device]) = self.rings {
            store(device + 2, self.used);
        }
    }
}

/// Lists address and length of a request's buffers.
fn chain(descriptors: u64, head: u16) -> Vec<(u64, u32)> {
    let mut parts = Vec::new();
    let (mut table, mut at) = (descriptors, u64::from(head));
    loop {
        let place = table + at * 16;
        let (address, length) = (load::<u64>(place), load::<u32>(place + 8));
        let (flags, next) = (load::<u16>(place + 12), load::<u16>(place + 14));
        if flags & 4 != 0 {
            (table, at) = (address, 0);
            continue;
        }
        parts.push((address, length));
        if flags & 1 == 0 {
            return parts;
        }
        at = next.into();
    }
}

fn load<T: Copy>(address: u64) -> T {
    // SAFETY: the driver put this address into its queue, or it is a place in the queue itself.
    unsafe { (address as *const T).read_volatile() }
}

fn store<T: Copy>(address: u64, value: T) {
    // SAFETY: as above; the driver leaves this memory to the device.
    unsafe { (address as *mut T).write_volatile(value) };
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        self.0.borrow().kind
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().features
    }

    fn write_driver_features(&mut self, _: u64) {}

    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.0.borrow().queue_size
    }

    fn notify(&mut self, _: u16) {
        let mut device = self.0.borrow_mut();
        if !device.lazy {
            device.work();
        }
    }

    fn get_status(&self) -> DeviceStatus {
        self.0.borrow().status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let mut device = self.0.borrow_mut();
        let mut status = status;
        if status.is_empty() {
            if !device.resets {
                return;
            }
            device.rings = None;
            device.held.clear();
        }
        if !device.agrees {
            status.remove(DeviceStatus::FEATURES_OK);
        }
        device.status = status;
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, _: u16, size: u32, descriptors: u64, driver: u64, used: u64) {
        let mut device = self.0.borrow_mut();
        device.rings = Some([descriptors, driver, used]);
        device.size = u16::try_from(size).unwrap();
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, _: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        let mut device = self.0.borrow_mut();
        if device.restless {
            device.generation += 1;
        }
        device.generation
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let device = self.0.borrow();
        let bytes = device.configuration.get(offset..offset + size_of::<T>());
        bytes.and_then(|bytes| T::read_from_bytes(bytes).ok()).ok_or(Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<()> {
        Err(Error::Unsupported)
    }
}

//! A virtio device in memory that can be told to lie, for tests and fuzzing: as a block device it serves its first queue
//! itself, as any other it does what the test says.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the fake device is ours, and a test may stop"
)]

mod script;

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::RefCell;
use core::ptr::NonNull;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use script::play;

/// Memory of the test's own process, at its own addresses.
#[derive(Debug)]
pub struct Flat;

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
pub enum Lie {
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
    /// It says when it wants to be told of more, and that it does not.
    Event(u16),
}

/// What a block device has done for a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// It has given the driver these bytes of this place.
    Read(u64, Vec<u8>),
    /// It has these bytes at this place.
    Write(u64, Vec<u8>),
    /// All of it is on the medium.
    Flush,
}

/// The device, as its test sees it.
#[derive(Debug)]
pub struct Device {
    /// Its offer.
    pub features: u64,
    /// Its configuration space.
    pub configuration: Vec<u8>,
    /// Entries that each queue may have.
    pub queue_size: u32,
    /// What it says that it is.
    pub kind: DeviceType,
    /// Whether FEATURES_OK is confirmed.
    pub agrees: bool,
    /// Whether a reset is confirmed.
    pub resets: bool,
    /// Whether the configuration changes with each look.
    pub restless: bool,
    /// Requests stay in the queue until somebody calls [`Device::work`].
    pub lazy: bool,
    /// What a block device holds.
    pub medium: Vec<u8>,
    /// What it has done, in order, with the lies around it.
    pub deeds: Vec<Deed>,
    /// Most requests that lay in the queue at one time.
    pub depth_max: usize,
    /// What to do next; the truth once it is empty.
    pub lies: Vec<Lie>,
    status: DeviceStatus,
    generation: u32,
    queues: BTreeMap<u16, Queue>,
}

/// A device that the driver and the test both hold: the test what it made, the driver a clone.
#[derive(Debug)]
pub struct Fake(pub Rc<RefCell<Device>>, bool);

/// VIRTIO_BLK_F_RO.
pub const READ_ONLY: u64 = 1 << 5;
/// VIRTIO_BLK_F_FLUSH.
pub const FLUSH: u64 = 1 << 9;
/// VIRTIO_F_INDIRECT_DESC.
pub const INDIRECT: u64 = 1 << 28;
/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;
/// Bytes of the medium.
pub const MEDIUM_BYTES: usize = 128 << 10;

impl Fake {
    /// Makes a block device that keeps the specification.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "no device is the usual one")]
    pub fn new() -> Self {
        let mut configuration = vec![0; 60];
        configuration[..8].copy_from_slice(&(MEDIUM_BYTES as u64 / 512).to_le_bytes());
        configuration[20..24].copy_from_slice(&512_u32.to_le_bytes());
        configuration[24] = 3;
        Self::of(DeviceType::Block, configuration, vec![0; MEDIUM_BYTES])
    }

    /// Makes a device of another kind, whose queues the test serves.
    #[must_use]
    pub fn of(kind: DeviceType, configuration: Vec<u8>, medium: Vec<u8>) -> Self {
        let device = Device {
            features: !READ_ONLY,
            configuration,
            queue_size: 256,
            kind,
            agrees: true,
            resets: true,
            restless: false,
            lazy: kind != DeviceType::Block,
            medium,
            deeds: Vec::new(),
            depth_max: 0,
            lies: Vec::new(),
            status: DeviceStatus::empty(),
            generation: 0,
            queues: BTreeMap::new(),
        };
        Self(Rc::new(RefCell::new(device)), false)
    }
}

impl Clone for Fake {
    fn clone(&self) -> Self {
        Self(self.0.clone(), true)
    }
}

/// What the driver drops waits for the reset without a bound, as a transport on a bus does.
impl Drop for Fake {
    fn drop(&mut self) {
        if self.1 {
            self.set_status(DeviceStatus::empty());
            assert!(self.get_status().is_empty(), "whoever drops this transport hangs");
        }
    }
}

impl Device {
    /// Completes, as a block device, what lies in the queue, the latest first.
    pub fn work(&mut self) {
        let Some(queue) = self.queues.get_mut(&0) else { return };
        queue.take();
        self.depth_max = self.depth_max.max(queue.held.len());
        while let Some(head) = self.queues.get_mut(&0).and_then(|queue| queue.held.pop()) {
            self.complete(head);
        }
    }

    /// Takes the oldest request of a queue, if there is one: what the driver has written, and the places that it may fill.
    pub fn next(&mut self, queue: u16) -> Option<Chain> {
        let queue = self.queues.get_mut(&queue)?;
        queue.take();
        (!queue.held.is_empty()).then(|| queue.chain())
    }

    /// Puts an entry into a used ring, whatever it says.
    pub fn push(&mut self, queue: u16, id: u32, length: u32) {
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.push(id, length);
        }
    }

    fn complete(&mut self, head: u16) {
        let lie = self.lies.pop().unwrap_or(Lie::None);
        let Some(queue) = self.queues.get(&0) else { return };
        if lie == Lie::Silence {
            return;
        }
        let chain = chain(queue.descriptors, head);
        let (mut status, mut length) = self.serve(&chain);
        let Some(queue) = self.queues.get_mut(&0) else { return };
        match lie {
            Lie::Status(other) => status = other,
            Lie::Length(other) => {
                // What it does not say that it has given, it need not have; some devices do not count the status.
                if other < length - 1 && matches!(self.deeds.last(), Some(Deed::Read(..))) {
                    self.deeds.pop();
                }
                length = other;
            }
            Lie::Scribble => queue.scribble(head),
            _ => {}
        }
        store(chain.last().unwrap().address, status);
        queue.push(if let Lie::Id(other) = lie { other } else { head.into() }, length);
        match lie {
            Lie::Twice => queue.push(head.into(), length),
            Lie::Ahead(by) => {
                queue.used = queue.used.wrapping_add(by);
                queue.publish();
            }
            Lie::Event(at) => {
                store(queue.device, 1_u16);
                store(queue.device + 4 + u64::from(queue.size) * 8, at);
            }
            _ => {}
        }
    }

    /// Does what a request asks; yields its status and the bytes that were written for it.
    fn serve(&mut self, chain: &[Part]) -> (u8, u32) {
        let header = chain[0].address;
        let offset = load::<u64>(header + 8) * 512;
        let at = usize::try_from(offset).unwrap();
        match load::<u32>(header) {
            4 => {
                self.deeds.push(Deed::Flush);
                (0, 1)
            }
            kind @ (0 | 1) => {
                let Part { address, length, .. } = chain[1];
                let Some(range) = self.medium.get_mut(at..at + length as usize) else {
                    return (1, 1);
                };
                for (place, byte) in (address..).zip(&mut *range) {
                    if kind == 0 {
                        store(place, *byte);
                    } else {
                        *byte = load(place);
                    }
                }
                let deed = if kind == 0 { Deed::Read } else { Deed::Write };
                self.deeds.push(deed(offset, range.to_vec()));
                (0, if kind == 0 { length + 1 } else { 1 })
            }
            _ => (2, 1),
        }
    }
}

/// A request: its token, what the driver has written, and the places that the device may fill.
#[derive(Debug)]
pub struct Chain {
    /// What names it in the used ring.
    pub head: u16,
    parts: Vec<Part>,
}

impl Chain {
    /// Yields what the driver has written.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let parts = self.parts.iter().filter(|part| !part.fillable);
        parts.flat_map(|part| (part.address..).take(part.length as usize)).map(load).collect()
    }

    /// Fills the driver's room with as many of these bytes as it takes; yields how many.
    pub fn fill(&self, bytes: &[u8]) -> u32 {
        let parts = self.parts.iter().filter(|part| part.fillable);
        let places = parts.flat_map(|part| (part.address..).take(part.length as usize));
        places.zip(bytes).map(|(place, byte)| store(place, *byte)).count() as u32
    }
}

/// One buffer of a request.
#[derive(Clone, Copy, Debug)]
struct Part {
    address: u64,
    length: u32,
    fillable: bool,
}

#[derive(Debug)]
struct Queue {
    descriptors: u64,
    driver: u64,
    device: u64,
    size: u16,
    taken: u16,
    used: u16,
    held: Vec<u16>,
}

impl Queue {
    fn take(&mut self) {
        let index = load::<u16>(self.driver + 2);
        while self.taken != index {
            let slot = u64::from(self.taken % self.size);
            self.held.push(load(self.driver + 4 + slot * 2));
            self.taken = self.taken.wrapping_add(1);
        }
        // The next entry is worth a notification.
        store(self.device + 4 + u64::from(self.size) * 8, self.taken);
    }

    /// Takes the oldest of those that are held.
    fn chain(&mut self) -> Chain {
        let head = self.held.remove(0);
        Chain { head, parts: chain(self.descriptors, head) }
    }

    fn push(&mut self, id: u32, length: u32) {
        // What was given back is the driver's again, and may be gone.
        self.take();
        self.held.retain(|head| u32::from(*head) != id & 0xFFFF);
        let place = self.device + 4 + u64::from(self.used % self.size) * 8;
        store(place, id);
        store(place + 4, length);
        self.used = self.used.wrapping_add(1);
        self.publish();
    }

    fn publish(&self) {
        store(self.device + 2, self.used);
    }

    fn scribble(&self, head: u16) {
        for at in 0..16 {
            store(self.descriptors + u64::from(head) * 16 + at, 0xA5_u8);
        }
        for at in 4..4 + u64::from(self.size) * 2 {
            store(self.driver + at, 0x5A_u8);
        }
    }
}

/// Lists a request's buffers.
fn chain(descriptors: u64, head: u16) -> Vec<Part> {
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
        parts.push(Part { address, length, fillable: flags & 2 != 0 });
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
            device.queues.clear();
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

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: u64, driver: u64, used: u64) {
        let size = u16::try_from(size).unwrap();
        let (taken, held) = (0, Vec::new());
        let set = Queue { descriptors, driver, device: used, size, taken, used: 0, held };
        self.0.borrow_mut().queues.insert(queue, set);
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

//! A history of requests and lies, told by bytes: what fuzzing plays, and seeded tests.

use alloc::collections::BTreeMap;

use super::{Deed, FLUSH, Fake, Flat, INDIRECT, Lie, READ_ONLY, VERSION_1};
use crate::virtio::{TICK_MS_MAX, TIMEOUT_MS, VirtioDevice};
use crate::{BlockDevice as _, Buffer, Operation, Request, RequestId};

/// Plays a history on a device that says of itself what the first bytes want, and lies as the others do. With `stops` it
/// can be reset; else its memory is lost with it.
///
/// # Panics
/// When a request does not end once, with a buffer of its length, or is said to be done and was not: what a read yields is what
/// the device gave for it, what a write wrote is what the device took.
pub fn play(bytes: &[u8], stops: bool) {
    let mut script = Script(bytes);
    let fake = Fake::new();
    describe(&mut script, &fake);
    let Ok(mut device) = VirtioDevice::<Flat, Fake>::new(fake.clone()) else {
        return;
    };
    fake.0.borrow_mut().resets = stops;
    let mut flying = BTreeMap::new();
    let (mut now, flushes) = (0, device.flushes());
    for id in 0..REQUESTS_MAX {
        let Some(verb) = script.next() else { break };
        let lie = script.lie();
        fake.0.borrow_mut().lies.push(lie);
        let (offset, length) = (u64::from(script.byte()) * 768, usize::from(script.byte() % 9));
        let bytes = length * 512;
        let (operation, buffer) = match verb % 4 {
            0 => (Operation::Read { offset }, Buffer::zeroed(bytes)),
            1 => (Operation::Write { offset }, Buffer::copy_of(&[verb; 4096][..bytes])),
            2 => (Operation::Flush, Buffer::default()),
            _ => {
                fake.0.borrow_mut().work();
                now += u64::from(verb) * 16;
                device.tick(now);
                land(&mut device, &fake, &mut flying, flushes);
                continue;
            }
        };
        let id = RequestId(id);
        flying.insert(id, (operation, buffer.to_vec()));
        device.submit(Request { id, operation, buffer });
        land(&mut device, &fake, &mut flying, flushes);
    }
    fake.0.borrow_mut().work();
    land(&mut device, &fake, &mut flying, flushes);
    // A device that was told to be silent, or nothing at all, is given up at last.
    for wait in (0..=TIMEOUT_MS + TICK_MS_MAX).step_by(1000) {
        device.tick(now + wait);
    }
    land(&mut device, &fake, &mut flying, flushes);
    assert!(flying.is_empty(), "requests that never end: {:?}", flying.keys());
}

/// Lets the device say of itself what the script wants.
fn describe(script: &mut Script<'_>, fake: &Fake) {
    let mut device = fake.0.borrow_mut();
    let without = script.byte();
    for (bit, feature) in [(1, INDIRECT), (2, FLUSH), (4, EVENT_INDEX), (8, TOPOLOGY)] {
        if without & bit != 0 {
            device.features &= !feature;
        }
    }
    device.lazy = without & 16 != 0;
    // Most devices can be used, or nothing behind this is reached.
    if without & 32 == 0 {
        return;
    }
    match script.byte() {
        0 => device.features &= !VERSION_1,
        1 => device.features |= READ_ONLY,
        2 => device.agrees = false,
        3 => device.restless = true,
        4 => device.resets = false,
        5 => device.queue_size = script.byte().into(),
        6 => device.configuration.truncate(script.byte().into()),
        at => {
            let value = script.byte();
            if let Some(place) = device.configuration.get_mut(usize::from(at)) {
                *place = value;
            }
        }
    }
}

/// Takes what has ended, and holds it against what the device did.
fn land(
    device: &mut VirtioDevice<Flat, Fake>,
    fake: &Fake,
    flying: &mut BTreeMap<RequestId, (Operation, alloc::vec::Vec<u8>)>,
    flushes: bool,
) {
    while let Some(completion) = device.completion() {
        let (operation, given) = flying.remove(&completion.id).expect("a request ends once");
        assert_eq!(completion.buffer.len(), given.len(), "a buffer comes back as long as it was");
        let trivial = match operation {
            Operation::Flush => !flushes,
            _ => given.is_empty(),
        };
        if completion.result.is_err() || trivial {
            continue;
        }
        let deed = match operation {
            Operation::Read { offset } => Deed::Read(offset, completion.buffer.to_vec()),
            Operation::Write { offset } => Deed::Write(offset, given),
            Operation::Flush => Deed::Flush,
        };
        let deeds = &mut fake.0.borrow_mut().deeds;
        let done = deeds.iter().position(|done| *done == deed);
        // Each deed answers one request.
        deeds.remove(done.expect("what is reported as done, was"));
    }
}

/// Bytes that tell a history; zeros behind their end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u32 {
        u32::from(self.word()) | u32::from(self.word()) << 16
    }

    fn lie(&mut self) -> Lie {
        match self.byte() {
            0 => Lie::Id(self.long()),
            1 => Lie::Id(self.byte().into()),
            2 => Lie::Length(self.long()),
            3 => Lie::Length(self.word().into()),
            // It must not say that it has done what it cannot do.
            4 => Lie::Status(self.byte().max(1)),
            5 => Lie::Twice,
            6 => Lie::Ahead(self.word()),
            7 => Lie::Scribble,
            8 => Lie::Silence,
            9 => Lie::Event(self.word()),
            _ => Lie::None,
        }
    }
}

/// Requests of a history: more than the queue holds, so that some wait.
const REQUESTS_MAX: u64 = 512;

/// VIRTIO_BLK_F_TOPOLOGY.
const TOPOLOGY: u64 = 1 << 10;
/// VIRTIO_F_EVENT_IDX.
const EVENT_INDEX: u64 = 1 << 29;

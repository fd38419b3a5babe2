//! The services of a machine as programs inside of it, each tested over a restart of the server.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::num::NonZeroU8;

use crashd::{About, Id, Keep};
use keystored::{Ensured, Entropy};
use statefs_client::StateFs;
use updated::{Control, Slot};

use crate::mark::Mark;
use crate::program::{Program, Start};

/// Yields the keeper of the device key. At the first start it sees that there is a key, at the next one that it is the same
/// key still, and works.
#[must_use]
pub fn keystored() -> Program {
    let made: Rc<Cell<Option<[u8; 32]>>> = Rc::default();
    let run = move |start: Start| -> crate::Task {
        let made = made.clone();
        Box::pin(async move {
            let before = made.get();
            let work = device_key(&start, before);
            let key = match before {
                None => work.await?,
                Some(_) => KEY.after(work, start.print).await?,
            };
            made.set(Some(key));
            Ok(())
        })
    };
    Program { channel: "keystored", run: Box::new(run) }
}

/// Yields the public half of the device key, which is to be the one that was there `before`.
async fn device_key(start: &Start, before: Option<[u8; 32]>) -> Result<[u8; 32], String> {
    let failed = |error| format!("the device key: {error}");
    let entropy = Entropy::new(start.seed).map_err(failed)?;
    let keystore = ::keystored::open(&start.store);
    let (key, ensured) = ::keystored::ensure(&keystore, &entropy).await.map_err(failed)?;
    if !::keystored::verify(&key.public(), MESSAGE, &key.sign(MESSAGE)) {
        return Err("a signature of the device key does not verify".into());
    }
    let same = matches!(ensured, Ensured::Found) && before == Some(key.public());
    if before.is_some() && !same {
        return Err("the device key is another after a restart".into());
    }
    Ok(key.public())
}

/// Yields the keeper of the boot control. At the first start it stages a system in slot B, at the next one it sees that this is
/// what it finds.
#[must_use]
pub fn updated() -> Program {
    let staged: Rc<Cell<Option<Control>>> = Rc::default();
    let run = move |start: Start| -> crate::Task {
        let staged = staged.clone();
        Box::pin(async move {
            let control = match staged.get() {
                None => stage(&start.store).await?,
                Some(before) => CONTROL.after(same(&start.store, before), start.print).await?,
            };
            staged.set(Some(control));
            Ok(())
        })
    };
    Program { channel: "updated", run: Box::new(run) }
}

async fn find(store: &StateFs) -> Result<Option<Control>, String> {
    let boot = ::updated::open(store);
    ::updated::find(&boot).await.map_err(|error| format!("the boot control: {error}"))
}

/// Yields the control, which is to be the one that was there `before`.
async fn same(store: &StateFs, before: Control) -> Result<Control, String> {
    match find(store).await? {
        None => Err("the boot control is gone".into()),
        Some(control) if control == before => Ok(control),
        Some(_) => Err("the boot control is another after a restart".into()),
    }
}

/// Stages a system in slot B, unless an earlier test of this machine did.
async fn stage(store: &StateFs) -> Result<Control, String> {
    if let Some(control) = find(store).await? {
        return Ok(control);
    }
    let (boot, failed) = (::updated::open(store), |error| format!("the boot control: {error}"));
    ::updated::initialise(&boot, Slot::A).await.map_err(failed)?;
    let staged = |control: &Control| control.stage(Slot::B, NonZeroU8::MIN);
    ::updated::change(&boot, staged).await.map_err(failed)
}

/// Yields the keeper of crash dumps. At the first start it takes in more dumps than it keeps, at the next one it sees that the
/// newest are there, byte by byte, and no other.
#[must_use]
pub fn crashd() -> Program {
    let kept: Rc<RefCell<Option<Vec<Id>>>> = Rc::default();
    let run = move |start: Start| -> crate::Task {
        let kept = kept.clone();
        Box::pin(async move {
            let before = kept.borrow().clone();
            let Some(before) = before else {
                let ids = take_dumps(&start).await?;
                kept.replace(Some(ids));
                return Ok(());
            };
            DUMPS_FOUND.after(same_dumps(&start.store, &before), start.print).await
        })
    };
    Program { channel: "crashd", run: Box::new(run) }
}

/// Sees that the dumps are those that were there `before`, and no other.
async fn same_dumps(store: &StateFs, before: &[Id]) -> Result<(), String> {
    match find_dumps(store).await? == before {
        true => Ok(()),
        false => Err("the crash dumps are others after a restart".into()),
    }
}

/// Streams the dumps in, and yields the names of those that stay.
async fn take_dumps(start: &Start) -> Result<Vec<Id>, String> {
    // What an earlier test of this machine left is as good as new.
    find_dumps(&start.store).await?;
    let keep = Keep { dumps: DUMPS_KEPT, bytes: DUMPS * DUMP_BYTES as u64 };
    let [n0, n1, n2, n3, ..] = start.seed;
    let nonce = u32::from_le_bytes([n0, n1, n2, n3]);
    let mut ids = Vec::new();
    for number in 0..DUMPS {
        let (about, mut dump) = (About::new(CRASHED, number), Dump::new(number));
        let bytes = Some(DUMP_BYTES as u64);
        let read = |buffer: &mut [u8]| Ok(dump.read(buffer));
        let recorded = ::crashd::record(&start.store, &about, nonce, keep, bytes, read).await;
        ids.push(recorded.map_err(|error| format!("crash dump {number}: {error}"))?.id);
    }
    Ok(ids.split_off(ids.len().saturating_sub(DUMPS_KEPT)))
}

/// Yields the names of the dumps that are there, each read and found whole.
async fn find_dumps(store: &StateFs) -> Result<Vec<Id>, String> {
    let crash = ::crashd::open(store);
    let failed = |error| format!("the crash dumps: {error}");
    let mut ids = Vec::new();
    for found in ::crashd::list(&crash).await.map_err(failed)?.dumps {
        let about = ::crashd::about(&crash, found.id).await.map_err(failed)?;
        let mut dump = Dump::new(about.time());
        let compare = |bytes: &[u8]| if dump.continues(bytes) { Ok(()) } else { Err(()) };
        ::crashd::copy(&crash, found.id, compare).await.map_err(failed)?;
        if !dump.is_over() {
            return Err("a crash dump is shorter than it was".into());
        }
        ids.push(found.id);
    }
    Ok(ids)
}

/// The bytes of a dump, which follow from its number: whoever reads it knows what it should be.
#[derive(Clone, Debug)]
pub struct Dump {
    word: u64,
    left: usize,
}

impl Dump {
    /// Makes the dump with this number.
    #[must_use]
    pub fn new(number: u64) -> Self {
        // The generator wants no zero.
        Self { word: number.wrapping_mul(2).wrapping_add(1), left: DUMP_BYTES }
    }

    /// Fills a buffer with the next bytes, and yields how many that were.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = buffer.len().min(self.left);
        self.left -= bytes;
        buffer.iter_mut().take(bytes).for_each(|place| *place = self.byte());
        bytes
    }

    /// Whether these bytes are the next.
    pub fn continues(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.left;
        self.left = self.left.saturating_sub(bytes.len());
        fits && bytes.iter().all(|byte| *byte == self.byte())
    }

    /// Whether there are no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Marsaglia's xorshift, a byte for each step.
    fn byte(&mut self) -> u8 {
        self.word ^= self.word << 13;
        self.word ^= self.word >> 7;
        self.word ^= self.word << 17;
        self.word.to_le_bytes()[7]
    }
}

/// The device key is the one that was made.
pub const KEY: Mark = Mark { name: "key", line: "SELFTEST: device key persist ok" };

/// The boot control is the one that was staged.
pub const CONTROL: Mark = Mark { name: "control", line: "SELFTEST: bootctl persist ok" };

/// The newest crash dumps are there, whole.
pub const DUMPS_FOUND: Mark = Mark { name: "dumps", line: "SELFTEST: crash dumps persist ok" };

/// What the key signs in the test.
const MESSAGE: &[u8] = b"StateFS self-test";

/// What crashed, as the heads of the dumps of the test say.
pub const CRASHED: &str = "selftest";

/// Dumps that the test takes in.
pub const DUMPS: u64 = 4;

/// Dumps of them that stay.
pub const DUMPS_KEPT: usize = 2;

/// Bytes of each: those that stay take most of a small machine's memory.
pub const DUMP_BYTES: usize = 4 << 20;

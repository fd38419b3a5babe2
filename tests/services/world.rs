//! A machine in one thread: the daemon over a simulated device, work of a service, and a power cut.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use blockdev::{BlockDevice as _, Fate, FateWeights, Operation, SimConfig, SimDevice};
use journal::{Disk, FormatOptions, Random, format};
use policy::{Peer, Policy};
use statefs_client::{Error, StateFs, drive};
use statefsd::{Limits, Server};
use vat::Vat;

/// The services and what belongs to each; the operator may all.
pub const POLICY: &str = include_str!("policy.toml");

/// Bytes of a volume on which records never run out of room.
const DEVICE_BYTES: u64 = 1 << 20;

/// What becomes of the writes that no flush covered, when the power is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// None of them is left.
    None,
    /// All are.
    All,
    /// Those in the first half of the device, where copy A lies.
    First,
    /// Those in the second, where copy B lies.
    Second,
    /// Each unit old, new or torn, by chance.
    Torn,
}

pub const LEFT: [Left; 5] = [Left::None, Left::All, Left::First, Left::Second, Left::Torn];

/// A device and the number of daemons that it has seen.
#[derive(Clone)]
pub struct World {
    device: SimDevice,
    mounts: u8,
}

impl World {
    /// A machine with an empty volume.
    pub fn new() -> Self {
        Self::of(DEVICE_BYTES)
    }

    /// A machine with an empty volume of so many bytes.
    pub fn of(bytes: u64) -> Self {
        let fates = FateWeights { garbage: 0, ..FateWeights::default() };
        let config = SimConfig { stall: 0, fates, ..SimConfig::new(1, bytes) };
        let mut device = SimDevice::new(config);
        let disk = Disk::new(device.geometry());
        let mut random = Random::from_seed([7; 32]);
        let mut formatting = pin!(format(&disk, &mut random, FormatOptions::default()));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(made) = formatting.as_mut().poll(&mut context) {
                made.unwrap();
                break;
            }
            while let Some(request) = disk.next_request() {
                device.submit(request);
            }
            while let Some(completion) = device.completion() {
                disk.complete(completion);
            }
        }
        Self { device, mounts: 0 }
    }

    /// The device, for who looks at it while no daemon runs.
    pub fn device(&self) -> SimDevice {
        self.device.clone()
    }

    /// Destroys `marked` wherever the medium holds it, and yields in how many places that was.
    pub fn spoil(&mut self, marked: &[u8]) -> usize {
        let mut image = self.device.durable().to_vec();
        let places = places(&image, marked);
        places.iter().for_each(|at| image[*at..at + marked.len()].fill(b'?'));
        self.device.restore(&image);
        places.len()
    }

    /// Starts a daemon, lets a service work, and cuts the power when it has its answer.
    ///
    /// With `cut` that happens when so many writes have been submitted, if it comes to that: then
    /// there is no answer. Yields how many writes were submitted.
    pub fn run<T, E: From<Error>>(
        &mut self,
        service: &str,
        cut: Option<(u32, Left)>,
        work: impl AsyncFnOnce(StateFs) -> Result<T, E>,
    ) -> (Option<Result<T, E>>, u32) {
        self.mounts += 1;
        let policy = Policy::parse(POLICY).expect("a sound policy");
        let seed = [self.mounts; 32];
        let mut server = Server::new(self.device.geometry(), policy, seed, Limits::default());
        let peer = Peer { channel: service.into(), uid: None };
        let id = server.connect(peer).expect("room for one");
        let (vat, written, dead) =
            (Vat::new(None, vat::Limits::default()), Cell::new(0), Cell::new(false));
        let mut now = 0;
        let mut waiting = Vec::new();
        let turn = |vat: &Vat| {
            waiting.extend(vat.take_output());
            let taken = server.receive(id, &waiting).map_err(|_| "it is over")?;
            waiting.drain(..taken);
            let mut moved = server.poll(now).again || taken > 0;
            // It takes no bytes before it has opened the volume.
            moved |= !waiting.is_empty() && server.wants_input(id);
            while let Some(request) = server.next_request() {
                let writes = matches!(request.operation, Operation::Write { .. });
                self.device.submit(request);
                moved = true;
                if writes {
                    written.set(written.get() + 1);
                    if cut.is_some_and(|(writes, _)| writes == written.get()) {
                        dead.set(true);
                        return Err("the power is cut".into());
                    }
                }
            }
            if let Some(completion) = self.device.completion() {
                server.complete(completion);
                moved = true;
            }
            let output = server.output(id).to_vec();
            server.sent(id, output.len());
            if !output.is_empty() {
                vat.receive(&output).unwrap_or_default();
            } else if !moved {
                now = server.poll(now).deadline.ok_or("all stands still")?;
            }
            Ok(())
        };
        let answer = drive(&vat, work(StateFs::over(&vat)), turn);
        let left = cut.map_or(Left::None, |(_, left)| left);
        self.power_cut(left);
        ((!dead.get()).then_some(answer), written.get())
    }

    fn power_cut(&mut self, left: Left) {
        let half = self.device.geometry().device_bytes / 2;
        let kept = |keep: bool| if keep { Fate::New } else { Fate::Old };
        match left {
            Left::None => self.device.power_cut_choosing(|_| Fate::Old),
            Left::All => self.device.power_cut_choosing(|_| Fate::New),
            Left::First => self.device.power_cut_choosing(|risk| kept(risk.offset < half)),
            Left::Second => self.device.power_cut_choosing(|risk| kept(risk.offset >= half)),
            Left::Torn => self.device.power_cut(),
        }
    }
}

/// Yields where `image` holds these bytes.
pub fn places(image: &[u8], marked: &[u8]) -> Vec<usize> {
    let found = image.windows(marked.len()).enumerate().filter(|(_, found)| *found == marked);
    found.map(|(at, _)| at).collect()
}

/// Does `work` once for every write in it and everything that a cut there may leave, and once to its
/// end, each time on the machine as it is; `check` is told the answer, if there was one, and gets what
/// is left.
///
/// Yields how many cuts that were.
pub fn cut_everywhere<T, E: From<Error> + Debug>(
    before: &World,
    service: &str,
    work: impl AsyncFn(StateFs) -> Result<T, E>,
    mut check: impl FnMut(Option<Result<T, E>>, World),
) -> u32 {
    let mut world = before.clone();
    let (answer, writes) = world.run(service, None, &work);
    if let Some(Err(error)) = answer {
        panic!("without a cut it is not done: {error:?}");
    }
    check(answer, world);
    let mut cuts = 0;
    for write in 1..=writes {
        for left in LEFT {
            let mut world = before.clone();
            let (answer, _) = world.run(service, Some((write, left)), &work);
            check(answer, world);
            cuts += 1;
        }
    }
    cuts
}

/// Polls both to their ends.
pub async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(move |context| {
        if first.is_none()
            && let Poll::Ready(done) = a.as_mut().poll(context)
        {
            first = Some(done);
        }
        if second.is_none()
            && let Poll::Ready(done) = b.as_mut().poll(context)
        {
            second = Some(done);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (one, other) => {
                (first, second) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

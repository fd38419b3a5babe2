//! StateFS on a bare machine: finds its devices, serves its ports, and tests itself where asked to.
//!
//! Each line on the serial line is written after what it tells, and holds no value. What the machine's owner
//! types there: `r` drops the server and starts another, `d` prints the digest of the state, `q` shuts down.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod machine;

use alloc::vec::Vec;
use core::fmt;

use blockdev::BlockDevice as _;
use blockdev::virtio::{Leash, TIMEOUT_MS, VirtioDevice};
use guest::mark::{early, plant};
use guest::{Entropy, Link, Node, Ports, Program, SEED_BYTES, bench, forget, selftest};
use machine::{Boot, Exit, Memory};
use policy::Policy;
use statefsd::{Event, Limits, Mode};
use updated::Slot;
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport as _};

type Disk = VirtioDevice<Memory, SomeTransport<'static>>;
type Console = Ports<Memory, SomeTransport<'static>>;
type Source = Entropy<Memory, SomeTransport<'static>>;

/// Runs the machine from its start to its end.
pub(crate) fn begin(boot: Boot) -> Exit {
    match Machine::find(&boot) {
        Ok(mut machine) => machine.run(),
        Err(Refusal(why)) => {
            machine::print(format_args!("statefsd: refused: {why}"));
            Exit::Refused
        }
    }
}

/// Why the machine cannot serve.
struct Refusal(alloc::string::String);

fn refuse(why: impl fmt::Display) -> Refusal {
    Refusal(alloc::format!("{why}"))
}

struct Machine {
    disk: Disk,
    console: Console,
    source: Option<Source>,
    policy: Policy,
    limits: Limits,
    programs: Vec<Program>,
    links: Vec<Option<Link>>,
    restarts: u32,
    task: Task,
    hold: Hold,
}

/// What the machine is started for, as its command line says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    /// To serve its ports.
    Serve,
    /// To test itself, with the word `selftest`.
    Test,
    /// To be measured, with the word `bench`.
    Bench,
}

/// Whether a test waits between its two servers, until `r` is typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    No,
    /// With the word `hold`.
    Wanted,
    /// It waits, and has said so.
    Told,
}

/// Why a server came to its end.
#[derive(Clone, Copy)]
enum End {
    /// Another one follows.
    Restart,
    Exit(Exit),
}

impl Machine {
    fn find(boot: &Boot) -> Result<Self, Refusal> {
        let module = boot.policy.as_ref().ok_or_else(|| refuse("no policy was handed over"))?;
        let text = core::str::from_utf8(module).map_err(|_| refuse("the policy is not UTF-8"))?;
        if text.len() > machine::POLICY_BYTES_MAX {
            return Err(refuse("the policy is too long"));
        }
        let policy = Policy::parse(text).map_err(|errors| match errors.first() {
            Some(error) => refuse(format_args!("policy: {error}")),
            None => refuse("policy"),
        })?;
        plant(boot.command_line);
        let (mut disk, mut console, mut source) = (None, None, None);
        for device in machine::devices(boot.command_line).into_iter().map(Leash::from) {
            match device.device_type() {
                DeviceType::Block if disk.is_none() => disk = Some(device),
                DeviceType::Console if console.is_none() => console = Some(device),
                DeviceType::EntropySource if source.is_none() => source = Some(device),
                _ => drop(device),
            }
        }
        let disk = disk.ok_or_else(|| refuse("there is no virtio block device"))?;
        early("up", machine::print, format_args!("blk: virtio-blk up (ss=0 nsec=0)"));
        let disk = Disk::new(disk).map_err(|error| refuse(format_args!("blk: {error}")))?;
        tell_disk(&disk);
        let console = console.ok_or_else(|| refuse("there is no virtio console"))?;
        let console =
            Console::new(console).map_err(|error| refuse(format_args!("ports: {error}")))?;
        let source = source.map(Source::new).transpose();
        let source = source.map_err(|error| refuse(format_args!("entropy: {error}")))?;
        let (mut task, mut hold) = (Task::Serve, Hold::No);
        for word in boot.command_line.split_ascii_whitespace() {
            match word {
                "selftest" => task = Task::Test,
                "bench" => task = Task::Bench,
                "hold" => hold = Hold::Wanted,
                _ => {}
            }
        }
        let programs = match task {
            Task::Serve => Vec::new(),
            Task::Test => selftest::programs().into(),
            Task::Bench => [bench::program()].into(),
        };
        let limits = limits(boot.heap_bytes, console.count() + programs.len());
        let (links, restarts) = (Vec::new(), 0);
        Ok(Self { disk, console, source, policy, limits, programs, links, restarts, task, hold })
    }

    fn run(&mut self) -> Exit {
        loop {
            let end = self.serve();
            match end {
                Ok(End::Restart) => self.restarts += 1,
                Ok(End::Exit(exit)) => return exit,
                Err(Refusal(why)) => {
                    machine::print(format_args!("statefsd: refused: {why}"));
                    return Exit::Refused;
                }
            }
        }
    }

    /// Runs one server.
    fn serve(&mut self) -> Result<End, Refusal> {
        self.settle();
        match self.task {
            Task::Test if self.restarts > 0 => self.load()?,
            Task::Bench if self.restarts > 0 => return self.measure(),
            _ => {}
        }
        let seed = self.seed()?;
        let mut node = Node::new(&self.disk, self.policy.clone(), seed, self.limits);
        for index in 0..self.programs.len() {
            let seed = self.seed()?;
            if let Some(program) = self.programs.get_mut(index)
                && !node.start(program, self.restarts, seed, machine::print)
            {
                return Err(refuse("there are more programs than connections"));
            }
        }
        early("ready", machine::print, format_args!("statefsd: ready"));
        let (mut asked, mut ready, mut acknowledged) = (None, false, false);
        loop {
            let now = machine::now_ms();
            self.disk.tick(now);
            let turn = node
                .turn(now, &mut self.disk, &mut self.console, &mut self.links)
                .map_err(|error| refuse(format_args!("ports: {error}")))?;
            while let Some(event) = node.next_event() {
                ready |= matches!(event, Event::Opened { .. });
                tell(&event)?;
            }
            if let Some(digest) = node.digested() {
                machine::print(format_args!("statefsd: digest {digest}"));
            }
            let typed = machine::typed();
            match typed {
                Some(b'r') if asked.is_none() => asked = Some(End::Restart),
                Some(b'q') if asked.is_none() => {
                    node.shut_down();
                    asked = Some(End::Exit(Exit::Done));
                }
                Some(b'd') => node.ask_digest(),
                _ => {}
            }
            match asked {
                Some(End::Restart) => {
                    // As if the server had crashed: nothing is asked of it.
                    drop(node);
                    forget(&mut self.links);
                    machine::print(format_args!("statefsd: restarting"));
                    return Ok(End::Restart);
                }
                Some(End::Exit(exit)) if node.is_down() && !self.disk.is_busy() => {
                    machine::print(format_args!("statefsd: down"));
                    return Ok(End::Exit(exit));
                }
                _ => {}
            }
            if self.task != Task::Serve && ready && asked.is_none() {
                asked = self.judge(&node);
                if let Some(End::Exit(_)) = asked {
                    node.shut_down();
                }
            }
            if turn.busy || typed.is_some() || asked.is_some() {
                acknowledged = false;
            } else {
                acknowledged =
                    self.rest(acknowledged, turn.deadline.map(|at| at.saturating_sub(now)));
            }
        }
    }

    /// Yields how a test or a measurement goes on, once its part is done.
    fn judge(&mut self, node: &Node) -> Option<End> {
        match node.programs_end() {
            None => None,
            Some(Ok(())) if self.restarts == 0 && self.hold != Hold::No => {
                if self.hold == Hold::Wanted {
                    machine::print(format_args!("SELFTEST: held"));
                    self.hold = Hold::Told;
                }
                None
            }
            Some(Ok(())) if self.restarts + 1 < selftest::STARTS => Some(End::Restart),
            Some(Ok(())) => {
                machine::print(format_args!("SELFTEST: ok"));
                Some(End::Exit(Exit::Done))
            }
            Some(Err((channel, why))) => {
                machine::print(format_args!("SELFTEST: failed ({channel}: {why})"));
                Some(End::Exit(Exit::Failed))
            }
        }
    }

    /// Acknowledges interrupts or, where that was done and all was looked at once more, sleeps until there may be something to do.
    /// In this order: a line calls at its edge, and until it was acknowledged a device raises no new one.
    fn rest(&mut self, acknowledged: bool, wait: Option<u64>) -> bool {
        if acknowledged {
            machine::idle(wait.unwrap_or(u64::MAX));
        } else {
            self.disk.ack_interrupt();
            self.console.ack_interrupt();
        }
        !acknowledged
    }

    /// Waits for what an earlier server left in flight, as long as the disk may take: its requests are not those of the next.
    fn settle(&mut self) {
        while self.disk.is_busy() {
            self.disk.tick(machine::now_ms());
            while self.disk.completion().is_some() {}
        }
        while self.disk.completion().is_some() {}
    }

    /// Measures the disk without a server.
    fn measure(&mut self) -> Result<End, Refusal> {
        match bench::disk(&mut self.disk, machine::print) {
            true => Ok(End::Exit(Exit::Done)),
            false => Err(refuse("the disk failed while it was measured")),
        }
    }

    /// Reads the boot control as a boot loader does: without a server, from the device alone.
    fn load(&mut self) -> Result<(), Refusal> {
        early("loader", machine::print, format_args!("{LOADER}"));
        let until = machine::now_ms() + LOAD_MS_MAX;
        let control = updated::boot::read(&mut self.disk, || machine::now_ms() < until);
        match control.map(|control| control.map(|control| control.choose(0))) {
            Ok(Some(Slot::B)) => {
                machine::print(format_args!("{LOADER}"));
                Ok(())
            }
            Ok(_) => Err(refuse("the boot loader does not choose what was staged")),
            Err(error) => Err(refuse(format_args!("the boot loader: {error:?}"))),
        }
    }

    /// Yields 256 random bits that nobody had before, of a device or of the processor.
    fn seed(&mut self) -> Result<[u8; SEED_BYTES], Refusal> {
        if let Some(source) = &mut self.source {
            return source.seed(machine::now_ms).map_err(refuse);
        }
        let mut seed = [0; SEED_BYTES];
        if machine::random(&mut seed) {
            return Ok(seed);
        }
        Err(refuse("there is no source of randomness"))
    }
}

fn tell_disk(disk: &Disk) {
    let geometry = disk.geometry();
    let sectors = geometry.device_bytes / u64::from(geometry.sector_bytes);
    let sector_bytes = geometry.sector_bytes;
    machine::print(format_args!("blk: virtio-blk up (ss={sector_bytes} nsec={sectors})"));
    if !disk.flushes() {
        machine::print(format_args!("blk: no flush, what completes counts as written through"));
    }
}

/// Tells of an event.
fn tell(event: &Event) -> Result<(), Refusal> {
    match event {
        Event::Opened { report, health } => {
            let early_denial = format_args!("statefsd: access denied (path=/state sender=nobody)");
            early("denied", machine::print, early_denial);
            machine::print(format_args!(
                "statefsd: volume {} mount {} groups {} torn {} repaired {} lost {}",
                report.volume,
                report.mount,
                report.groups,
                report.torn_groups,
                report.repaired,
                report.lost.len()
            ));
            tell_mode(health.mode, &health.reason);
            if matches!(health.mode, Mode::Healthy | Mode::Degraded) {
                machine::print(format_args!("statefsd: ready"));
            }
        }
        Event::OpenFailed { error } => return Err(refuse(format_args!("volume: {error}"))),
        Event::ModeChanged { health } => tell_mode(health.mode, &health.reason),
        Event::Denied(denied) => {
            let sender = denied.service.as_deref().unwrap_or("nobody");
            let path = denied.path.escape_debug();
            machine::print(format_args!("statefsd: access denied (path={path} sender={sender})"));
        }
        Event::DenialsSkipped { count } => {
            machine::print(format_args!("statefsd: {count} further denials"));
        }
        Event::EventsLost { count } => {
            machine::print(format_args!("statefsd: {count} events were lost"));
        }
        Event::OverQuota(_)
        | Event::Connected { .. }
        | Event::Refused { .. }
        | Event::Hello { .. }
        | Event::Closed { .. }
        | Event::ConnectionsSkipped { .. }
        | Event::PolicyChanged => {}
    }
    Ok(())
}

fn tell_mode(mode: Mode, reason: &str) {
    if mode != Mode::Healthy {
        machine::print(format_args!("statefsd: mode {mode:?}: {reason}"));
    }
}

/// Cuts the core's bounds to the memory of the machine.
fn limits(heap_bytes: usize, connections: usize) -> Limits {
    // Each port and each program has a place of its own, which nobody else could take.
    let mut limits = Limits { connections, kept: 0, ..Limits::default() };
    limits.memory_bytes = limits.memory_bytes.min(heap_bytes / 4);
    limits.journal.cache_bytes = limits.journal.cache_bytes.min(heap_bytes / 16);
    limits.journal.flush_bytes_max = limits.journal.flush_bytes_max.min(heap_bytes / 16);
    limits
}

/// The boot loader's reader, without a server, chooses what was staged.
const LOADER: &str = "SELFTEST: boot loader chooses slot B ok";

/// Milliseconds that a boot loader waits for its disk.
const LOAD_MS_MAX: u64 = TIMEOUT_MS;

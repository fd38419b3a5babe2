//! A server, a device and clients in one thread, moved step by step.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use blockdev::{BlockDevice, Completion, DeviceError, MemoryDevice, Operation, Request};
use journal::{Disk, FormatOptions, Random, format};
use policy::{Peer, Policy};
use statefs::{Durability, directory, state_fs};
use statefsd::{ConnectionId, Event, Limits, Server};
use vat::Vat;

pub(crate) const DEVICE_BYTES: usize = 16 << 20;

/// `keeper` owns all, `net` a part with a hole, `reader` may look.
pub(crate) const POLICY: &str = r#"
version = 1
[service.keeper]
channel = "keeper"
[service.net]
channel = "net"
[service.reader]
channel = "reader"
[[grant]]
to = "keeper"
prefix = "/state"
rights = ["get", "list", "put", "delete"]
[[grant]]
to = "net"
prefix = "/state/net"
rights = ["get", "list", "put"]
[[grant]]
to = "net"
prefix = "/state/a-b"
rights = ["get", "list"]
[[grant]]
to = "reader"
prefix = "/state/net"
rights = ["list"]
[[ceiling]]
prefix = "/state/net/secret"
only = ["keeper"]
"#;

/// A device in memory that can hold back and fail what it is asked.
pub(crate) struct Device {
    pub(crate) memory: MemoryDevice,
    /// Requests wait while this is set.
    pub(crate) holds: bool,
    /// Flushes fail.
    pub(crate) fails_flush: bool,
    /// Reads fail.
    pub(crate) fails_read: bool,
    /// Writes fail.
    pub(crate) fails_write: bool,
    /// Reads wait, and nothing else does.
    pub(crate) holds_reads: bool,
    /// Bytes written so far, over all copies.
    pub(crate) written_bytes: u64,
    /// Flushes asked for so far.
    pub(crate) flushes: u64,
    held: Vec<Request>,
    done: Vec<Completion>,
}

impl Device {
    pub(crate) fn blank() -> Self {
        let memory = MemoryDevice::new(DEVICE_BYTES);
        Self {
            memory,
            holds: false,
            holds_reads: false,
            fails_flush: false,
            fails_read: false,
            fails_write: false,
            written_bytes: 0,
            flushes: 0,
            held: Vec::new(),
            done: Vec::new(),
        }
    }

    pub(crate) fn formatted() -> Self {
        Self::blank().format(FormatOptions::default())
    }

    /// Makes a volume on it.
    pub(crate) fn format(mut self, options: FormatOptions) -> Self {
        let device = &mut self;
        let disk = Disk::new(device.memory.geometry());
        let mut random = Random::from_seed([7; 32]);
        {
            let mut formatting = pin!(format(&disk, &mut random, options));
            let mut context = Context::from_waker(Waker::noop());
            while formatting.as_mut().poll(&mut context).is_pending() {
                while let Some(request) = disk.next_request() {
                    device.submit(request);
                }
                while let Some(completion) = device.completion() {
                    disk.complete(completion);
                }
            }
        }
        self
    }

    /// Destroys `marked` wherever the medium holds it, and yields in how many places that was.
    pub(crate) fn damage(&mut self, marked: &[u8]) -> usize {
        let mut bytes = std::mem::replace(&mut self.memory, MemoryDevice::new(0)).into_bytes();
        let mut places = 0;
        while let Some(at) = bytes.windows(marked.len()).position(|found| found == marked) {
            bytes[at..at + marked.len()].fill(b'?');
            places += 1;
        }
        self.memory = MemoryDevice::from_bytes(bytes);
        places
    }

    /// Destroys `marked` in the first place where the medium holds it.
    pub(crate) fn damage_first(&mut self, marked: &[u8]) -> usize {
        let mut bytes = std::mem::replace(&mut self.memory, MemoryDevice::new(0)).into_bytes();
        let found = bytes.windows(marked.len()).position(|found| found == marked);
        if let Some(at) = found {
            bytes[at..at + marked.len()].fill(b'?');
        }
        self.memory = MemoryDevice::from_bytes(bytes);
        usize::from(found.is_some())
    }

    /// Yields the bytes of the buffers that wait.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.iter().map(|request| request.buffer.len()).sum()
    }

    fn submit(&mut self, request: Request) {
        let reads = matches!(request.operation, Operation::Read { .. });
        let flushes = request.operation == Operation::Flush;
        if self.holds || (self.holds_reads && reads) {
            self.held.push(request);
            return;
        }
        self.flushes += u64::from(flushes);
        let fails = match request.operation {
            Operation::Flush => self.fails_flush,
            Operation::Read { .. } => self.fails_read,
            Operation::Write { .. } => self.fails_write,
        };
        if fails {
            let result = Err(DeviceError::Io { code: 5 });
            self.done.push(Completion { id: request.id, buffer: request.buffer, result });
        } else {
            if matches!(request.operation, Operation::Write { .. }) {
                self.written_bytes += request.buffer.len() as u64;
            }
            self.memory.submit(request);
        }
    }

    fn completion(&mut self) -> Option<Completion> {
        if !self.holds {
            for request in std::mem::take(&mut self.held) {
                self.submit(request);
            }
        }
        self.done.pop().or_else(|| self.memory.completion())
    }
}

/// One client's end.
pub(crate) struct Client {
    pub(crate) vat: Vat,
    pub(crate) id: ConnectionId,
    /// Bytes on their way to the server.
    pub(crate) outbox: Vec<u8>,
    /// All that the server sent.
    pub(crate) received: Vec<u8>,
    pub(crate) over: bool,
    /// It takes nothing of what the server sends.
    pub(crate) deaf: bool,
}

pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) device: Device,
    /// Servers that the volume has had: no two of them may have the same entropy.
    starts: u8,
    pub(crate) now: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) events: Vec<Event>,
}

impl Rig {
    pub(crate) fn new(device: Device, limits: Limits) -> Self {
        Self::start(device, limits, 1)
    }

    fn start(device: Device, limits: Limits, starts: u8) -> Self {
        let policy = Policy::parse(POLICY).expect("a sound policy");
        let server = Server::new(device.memory.geometry(), policy, [starts; 32], limits);
        Self { server, device, starts, now: 0, clients: Vec::new(), events: Vec::new() }
    }

    pub(crate) fn open() -> Self {
        let mut rig = Self::new(Device::formatted(), Limits::default());
        rig.settle();
        rig
    }

    /// Ends the server without a word and starts another on what the device holds.
    pub(crate) fn restart(self) -> Self {
        let device = Device {
            memory: MemoryDevice::from_bytes(self.device.memory.into_bytes()),
            ..Device::blank()
        };
        Self::start(device, Limits::default(), self.starts + 1)
    }

    pub(crate) fn connect(&mut self, channel: &str) -> usize {
        let peer = Peer { channel: channel.into(), uid: Some(1000) };
        let id = self.server.connect(peer).expect("room for one more");
        let vat = Vat::new(None, vat::Limits::default());
        let (outbox, received) = (Vec::new(), Vec::new());
        let client = Client { vat, id, outbox, received, over: false, deaf: false };
        self.clients.push(client);
        self.clients.len() - 1
    }

    pub(crate) fn root(&mut self, client: usize) -> state_fs::Client {
        self.clients[client].vat.bootstrap()
    }

    /// A directory with every right that there is to ask for, not waited for.
    pub(crate) fn directory(&mut self, client: usize, prefix: &str) -> directory::Client {
        open(&self.root(client), prefix)
    }

    /// Moves everything until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.step() {
                return;
            }
        }
        panic!("the rig does not settle");
    }

    /// Moves everything once; tells whether anything moved.
    pub(crate) fn step(&mut self) -> bool {
        self.server.set_clock(self.now);
        let mut moved = self.move_bytes();
        let turn = self.server.poll(self.now);
        moved |= turn.again;
        while let Some(request) = self.server.next_request() {
            self.device.submit(request);
            moved = true;
        }
        while let Some(completion) = self.device.completion() {
            self.server.complete(completion);
            moved = true;
        }
        while let Some(event) = self.server.next_event() {
            self.events.push(event);
        }
        moved
    }

    /// Waits for an answer; `None` if all stands still without it.
    pub(crate) fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
                return Some(answer);
            }
            self.settle();
        }
        match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// Has a client take all that is ready to be sent, as a driver sends it behind a poll.
    pub(crate) fn take_output(&mut self, client: usize) {
        let Client { vat, id, received, .. } = &mut self.clients[client];
        let output = self.server.output(*id).to_vec();
        self.server.sent(*id, output.len());
        received.extend(&output);
        vat.receive(&output).unwrap();
    }

    fn move_bytes(&mut self) -> bool {
        let mut moved = false;
        for client in &mut self.clients {
            client.outbox.extend(client.vat.take_output());
            while !client.outbox.is_empty() {
                match self.server.receive(client.id, &client.outbox) {
                    Ok(0) | Err(_) => break,
                    Ok(taken) => drop(client.outbox.drain(..taken)),
                }
                moved = true;
            }
            let output = self.server.output(client.id).to_vec();
            if !output.is_empty() && !client.deaf {
                self.server.sent(client.id, output.len());
                client.received.extend(&output);
                client.over |= client.vat.receive(&output).is_err();
                moved = true;
            }
            moved |= client.vat.poll(1000);
        }
        moved
    }
}

pub(crate) fn open(root: &state_fs::Client, prefix: &str) -> directory::Client {
    let mut request = root.open_request();
    request.get().set_prefix(prefix);
    let mut rights = request.get().init_rights();
    rights.set_get(true);
    rights.set_list(true);
    rights.set_put(true);
    rights.set_delete(true);
    request.send().pipeline.get_directory()
}

/// What must hold, in a test's words.
#[derive(Clone, Copy)]
pub(crate) enum If {
    Any,
    Absent,
    Version(u64),
}

pub(crate) fn put(
    directory: &directory::Client,
    key: &str,
    value: &[u8],
    precondition: If,
    durability: Durability,
) -> impl Future<Output = String> + use<> {
    let mut request = directory.put_request();
    request.get().set_key(key);
    request.get().set_value(value);
    request.get().set_durability(durability);
    set(request.get().init_precondition(), precondition);
    let answer = request.send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        match answer.get().unwrap().which().unwrap() {
            directory::put_results::Indeterminate(()) => "indeterminate".into(),
            directory::put_results::Version(version) => format!("version {version}"),
            directory::put_results::Conflict(now) => current(now.unwrap()),
            directory::put_results::DataLoss(()) => "data loss".into(),
        }
    }
}

pub(crate) fn delete(
    directory: &directory::Client,
    key: &str,
    precondition: If,
) -> impl Future<Output = String> + use<> {
    let mut request = directory.delete_request();
    request.get().set_key(key);
    set(request.get().init_precondition(), precondition);
    let answer = request.send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        match answer.get().unwrap().which().unwrap() {
            directory::delete_results::Indeterminate(()) => "indeterminate".into(),
            directory::delete_results::Deleted(()) => "deleted".into(),
            directory::delete_results::Absent(()) => "absent".into(),
            directory::delete_results::Conflict(now) => current(now.unwrap()),
            directory::delete_results::DataLoss(()) => "data loss".into(),
        }
    }
}

pub(crate) fn get(
    directory: &directory::Client,
    key: &str,
) -> impl Future<Output = String> + use<> {
    look(directory, key, false)
}

pub(crate) fn look(
    directory: &directory::Client,
    key: &str,
    metadata_only: bool,
) -> impl Future<Output = String> + use<> {
    let mut request = directory.get_request();
    request.get().set_key(key);
    request.get().set_metadata_only(metadata_only);
    let answer = request.send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        match answer.get().unwrap().which().unwrap() {
            directory::get_results::DataLoss(()) => "data loss".into(),
            directory::get_results::Absent(()) => "absent".into(),
            directory::get_results::Large(value) => {
                format!("large, {} bytes", value.unwrap().get_bytes())
            }
            directory::get_results::Value(value) => {
                let value = value.unwrap();
                assert_ne!(value.get_version(), 0);
                let data = value.get_data().unwrap();
                if metadata_only {
                    assert!(data.is_empty());
                    return format!("{} bytes", value.get_bytes());
                }
                assert_eq!(usize::try_from(value.get_bytes()).unwrap(), data.len());
                String::from_utf8_lossy(data).into_owned()
            }
        }
    }
}

pub(crate) fn sync(directory: &directory::Client) -> impl Future<Output = String> + use<> {
    let answer = directory.sync_request().send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return error.extra,
        };
        match answer.get().unwrap().which().unwrap() {
            directory::sync_results::Indeterminate(()) => "indeterminate".into(),
            directory::sync_results::Durable(()) => "durable".into(),
        }
    }
}

/// What a list is asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) after: &'a str,
    pub(crate) limit: u32,
    pub(crate) keys_only: bool,
}

/// `key=value` for each entry, `next …` if there is more, `damaged` if something is.
pub(crate) fn list(
    directory: &directory::Client,
    ask: Ask<'_>,
) -> impl Future<Output = Vec<String>> + use<> {
    let mut request = directory.list_request();
    request.get().set_prefix(ask.prefix);
    request.get().set_after(ask.after);
    request.get().set_limit(ask.limit);
    request.get().set_keys_only(ask.keys_only);
    let answer = request.send().promise;
    async move {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return vec![error.extra],
        };
        let page = answer.get().unwrap();
        let mut lines = Vec::new();
        for entry in page.get_entries().unwrap() {
            let key = entry.get_key().unwrap().to_str().unwrap();
            lines.push(match entry.which().unwrap() {
                statefs::entry::DataLoss(()) => format!("{key} lost"),
                statefs::entry::Large(_) => format!("{key} large"),
                statefs::entry::Value(value) => {
                    let value = value.unwrap();
                    let data = String::from_utf8_lossy(value.get_data().unwrap()).into_owned();
                    if ask.keys_only { key.into() } else { format!("{key}={data}") }
                }
            });
        }
        let next = page.get_next().unwrap().to_str().unwrap();
        if !next.is_empty() {
            lines.push(format!("next {next}"));
        }
        if !page.get_intact() {
            lines.push("damaged".into());
        }
        lines
    }
}

/// `mode reason` of `health`.
pub(crate) fn health(root: &state_fs::Client) -> impl Future<Output = String> + use<> {
    let answer = root.health_request().send().promise;
    async move {
        let answer = answer.await.unwrap();
        let health = answer.get().unwrap();
        let reason = health.get_reason().unwrap().to_str().unwrap();
        format!("{:?} {} {reason}", health.get_mode().unwrap(), health.get_loss_count())
    }
}

pub(crate) fn set(mut precondition: statefs::precondition::Builder<'_>, to: If) {
    match to {
        If::Any => precondition.set_any(()),
        If::Absent => precondition.set_absent(()),
        If::Version(version) => precondition.set_version(version),
    }
}

pub(crate) fn current(current: statefs::current::Reader<'_>) -> String {
    match current.which().unwrap() {
        statefs::current::Version(version) => format!("conflict {version}"),
        statefs::current::Absent(()) => "conflict absent".into(),
    }
}

pub(crate) fn version(answer: &str) -> u64 {
    answer.strip_prefix("version ").unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}

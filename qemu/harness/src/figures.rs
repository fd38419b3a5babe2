//! Figures of the machine, each beside its floor or the same of the host: time to ready, load while idle, durable puts.
//!
//! A host with other things to do makes each of them worse, so its load is told, and of rates the best of several runs counts.

use std::fs;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice as _, FileDevice, OpenOptions};
use guest::bench;
use policy::{Peer, Policy};
use statefs_client::{Rights, StateFs};
use statefsd::{Limits, Server};
use vat::Vat;

use harness::{Failure, Folder, Machine, Setup, image, machine};

/// Boots that are measured; the median counts.
const BOOTS: usize = 21;

/// Runs of each rate; the best counts.
const RUNS: usize = 3;

/// How long an idle machine is watched.
const IDLE: Duration = Duration::from_secs(5);

const IMAGE_BYTES: usize = 16 << 20;

/// The kernel's unit of processor time, as every Linux tells it to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Measures and prints.
pub(crate) fn run(policy: &str) -> Result<(), Failure> {
    let folder = Folder::new()?;
    let path = folder.join("state.img");
    image::make(&path, IMAGE_BYTES)?;
    let setup = Setup::new(&path, policy, &["app"]);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of the host       {:>9}", load.split(' ').next().unwrap_or_default());
    println!("accelerator            {:>9}", setup.accelerator.name());
    println!("memory                 {:9} MiB", setup.memory_mib);
    let bytes = fs::metadata(&setup.guest).map_or(0, |metadata| metadata.len());
    println!("image                  {bytes:9} bytes");
    times("boot to ready", || Machine::start(&setup)?.ready())?;
    // What the same machine takes to start and to say that it has no policy: QEMU's own part.
    let bare = Setup { policy: String::new(), ..setup.clone() };
    times("start to refusal", || {
        let start = Instant::now();
        Machine::start(&bare)?.end(machine::REFUSED).map(|_| start.elapsed())
    })?;
    println!("idle                   {:9.2} % of a processor", idle(&setup)?);
    let (guest_puts, guest_disk) = best(|| guest(&setup))?;
    let (host_puts, host_disk) = best(|| host(&path, policy))?;
    println!(
        "puts of 100 bytes      {guest_puts:9.0} /s in the machine, {host_puts:.0} /s on the host"
    );
    println!(
        "two writes and a flush {guest_disk:9.0} /s in the machine, {host_disk:.0} /s on the host"
    );
    println!("puts, machine to host  {:9.2}", guest_puts / host_puts);
    println!(
        "puts to disk           {:9.2} in the machine, {:.2} on the host",
        guest_puts / guest_disk,
        host_puts / host_disk
    );
    Ok(())
}

/// Measures a time often, and prints the least, the median and the most.
fn times(what: &str, mut once: impl FnMut() -> Result<Duration, Failure>) -> Result<(), Failure> {
    let mut times = (0..BOOTS).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    for (name, at) in [("least", 0), ("median", BOOTS / 2), ("most", BOOTS - 1)] {
        let time = times.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3;
        println!("{:22} {time:9.1} ms", format!("{what}, {name}"));
    }
    Ok(())
}

/// Yields the best of each rate over several runs.
fn best(mut once: impl FnMut() -> Result<(f64, f64), Failure>) -> Result<(f64, f64), Failure> {
    (0..RUNS).try_fold((0.0_f64, 0.0_f64), |best, _| {
        let found = once()?;
        Ok((best.0.max(found.0), best.1.max(found.1)))
    })
}

fn idle(setup: &Setup) -> Result<f64, Failure> {
    let mut machine = Machine::start(setup)?;
    machine.ready()?;
    thread::sleep(Duration::from_secs(1));
    let before = ticks(machine.id());
    thread::sleep(IDLE);
    let ticks = ticks(machine.id()) - before;
    Ok(ticks / TICKS_PER_SECOND / IDLE.as_secs_f64() * 100.0)
}

/// Processor time that a process has used, in ticks.
fn ticks(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
}

fn guest(setup: &Setup) -> Result<(f64, f64), Failure> {
    let setup = Setup { words: "bench".into(), ..setup.clone() };
    let mut machine = Machine::start(&setup)?;
    let mut rate = |what: &str| {
        let begin = machine.wait_for(&format!("BENCH: {what} begin"), 1)?;
        let end = machine.wait_for(&format!("BENCH: {what} end"), 1)?;
        Ok(per_second(end.saturating_sub(begin)))
    };
    let rates = (rate("puts")?, rate("disk")?);
    machine.end(machine::DONE)?;
    Ok(rates)
}

/// The same puts through the same core, vat and client, in one process over a file.
fn host(path: &Path, policy: &str) -> Result<(f64, f64), Failure> {
    let refused = |what: String| Failure::Refused { what };
    let device = FileDevice::open(path, OpenOptions::default(), || {});
    let mut device = device.map_err(|error| refused(error.to_string()))?;
    let policy = Policy::parse(policy).map_err(|errors| refused(format!("{errors:?}")))?;
    let mut server = Server::new(device.geometry(), policy, image::seed()?, Limits::default());
    let peer = Peer { channel: guest::selftest::CHANNEL.into(), uid: None };
    let connection = server.connect(peer).map_err(|_| refused("a connection".into()))?;
    let client = Vat::new(None, vat::Limits::default());
    let directory = StateFs::over(&client).directory("/state/selftest", Rights::PUT);
    let puts = async {
        let mut begun = Instant::now();
        for n in 0..=bench::COUNT {
            let put = directory.put(&format!("key/{}", n % 64), &[7; 100]).await;
            put.map_err(|error| refused(error.to_string()))?;
            if n == 0 {
                // The volume is open now.
                begun = Instant::now();
            }
        }
        Ok::<_, Failure>(begun.elapsed())
    };
    let (mut puts, start, mut sent) = (pin!(puts), Instant::now(), Vec::new());
    let time = loop {
        if let Poll::Ready(time) = puts.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            break time?;
        }
        while client.poll(64) {}
        sent.extend(client.take_output());
        let taken = server.receive(connection, &sent);
        sent.drain(..taken.map_err(|_| refused("what a client sends".into()))?);
        server.poll(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let mut submitted = false;
        while let Some(request) = server.next_request() {
            device.submit(request);
            submitted = true;
        }
        // The device has threads of its own, which want the processor that a look takes.
        if submitted && let Some(completion) = device.completion_blocking() {
            server.complete(completion);
        }
        while let Some(completion) = device.completion() {
            server.complete(completion);
        }
        let output = server.output(connection).to_vec();
        server.sent(connection, output.len());
        client.receive(&output).map_err(|error| refused(error.to_string()))?;
    };
    drop(server);
    while device.completion_blocking().is_some() {}
    let begun = Instant::now();
    if !bench::disk(&mut device, |_| {}) {
        return Err(refused("writes to a file".into()));
    }
    Ok((per_second(time), per_second(begun.elapsed())))
}

fn per_second(time: Duration) -> f64 {
    bench::COUNT as f64 / time.as_secs_f64()
}

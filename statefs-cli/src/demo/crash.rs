//! Writing while the daemon is killed.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use statefs_client::{Call, Client, Error, Rights, Version};

use super::check;
use super::machine::Machine;
use crate::failure::Failure;

/// A write that the daemon acknowledged as durable.
pub(super) struct Write {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) version: Version,
}

/// A write that was not answered.
pub(super) struct Open {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

/// How the writing ended.
pub(super) struct End {
    pub(super) acknowledged: usize,
    pub(super) open: Vec<Open>,
}

/// Writes in flight at a time.
const WINDOW: usize = 16;

/// Acknowledged writes after which the kill is ordered in the first round, how many more in each
/// further one, and after which it must have come: the volume has room for many times as many.
const KILL_AFTER: usize = 150;
const KILL_AFTER_MORE: usize = 37;
const KILL_DELAY: Duration = Duration::from_micros(700);
const WRITES_MAX: usize = 1500;

/// Writes until the daemon, killed meanwhile, answers no more, and notes what it acknowledged.
pub(super) fn write_until_killed(
    machine: &mut Machine,
    client: &Client,
    round: u32,
    acknowledged: &mut Vec<Write>,
) -> Result<End, Failure> {
    let daemon = machine.daemon_pid()?;
    let (order, ordered) = mpsc::channel::<()>();
    // Not between two writes of this thread, but at a moment that it knows nothing of.
    let killer = thread::spawn(move || match ordered.recv() {
        Ok(()) => {
            thread::sleep(KILL_DELAY * round);
            rustix::process::kill_process(daemon, rustix::process::Signal::KILL).is_ok()
        }
        Err(_) => false,
    });
    let written = write(client, round, acknowledged, &order);
    drop(order);
    let killed = killer.join().unwrap_or_default();
    check(killed, "the daemon was killed")?;
    machine.reap()?;
    written
}

fn write(
    client: &Client,
    round: u32,
    acknowledged: &mut Vec<Write>,
    kill: &mpsc::Sender<()>,
) -> Result<End, Failure> {
    let directory = client.directory("/state/keystore", Rights::PUT);
    let mut flying: VecDeque<(String, Vec<u8>, Call<Version>)> = VecDeque::new();
    let mut end = End { acknowledged: 0, open: Vec::new() };
    let mut at = 0;
    let kill_after = (1..round).fold(KILL_AFTER, |after, _| after + KILL_AFTER_MORE);
    loop {
        while flying.len() < WINDOW && end.open.is_empty() && at < WRITES_MAX {
            let key = format!("round-{round}/{at:04}");
            let value = format!("write {at} of round {round}").into_bytes();
            let call = directory.calls().put(&key, &value);
            flying.push_back((key, value, call));
            at += 1;
        }
        let Some((key, value, call)) = flying.pop_front() else {
            break;
        };
        match client.wait(call) {
            Ok(version) => {
                check(end.open.is_empty(), "no answer overtakes another")?;
                end.acknowledged += 1;
                acknowledged.push(Write { key, value, version });
            }
            Err(Error::Indeterminate { .. }) => end.open.push(Open { key, value }),
            Err(error) => return Err(error.into()),
        }
        if end.acknowledged == kill_after {
            kill.send(()).unwrap_or_default();
        }
    }
    check(!end.open.is_empty(), "the kill came while writes were in flight")?;
    Ok(end)
}

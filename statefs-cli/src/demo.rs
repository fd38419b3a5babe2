//! `statefs demo`: what the store promises, shown on a real daemon and checked line by line.

mod crash;
mod machine;

use std::io::{self, Write as _};

use serde_json::json;
use statefs_client::blocking::Directory;
use statefs_client::{Client, Error, ErrorCode, Mode, Rights};

use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use machine::{INTERRUPTED, Machine};

/// The name of the hidden verb: this program as the daemon of its own demonstration.
pub(crate) const DAEMON_VERB: &str = machine::DAEMON_VERB;
pub(crate) use machine::serve;

/// Times that the daemon is killed amid writes.
const CRASHES: u32 = 3;

/// Tells the story.
pub(crate) fn run(output: Output) -> Result<(), Failure> {
    let mut machine = Machine::new()?;
    let told = Story { machine: &mut machine, output }.tell();
    told.inspect_err(|failure| {
        // The daemon has nothing to say of a reader who is gone, nor of one who wants to leave.
        if failure.code != INTERRUPTED && !failure.is_of_output() {
            io::stderr().write_all(machine.log_tail().as_bytes()).unwrap_or_default();
        }
    })
}

struct Story<'a> {
    machine: &'a mut Machine,
    output: Output,
}

/// One service with its connection and its directory.
struct Service {
    client: Client,
    directory: Directory,
}

impl Story<'_> {
    fn tell(mut self) -> Result<(), Failure> {
        self.machine.check_format_refuses()?;
        self.say(
            "a volume of 32 MiB in a temporary directory; to format it again is refused",
            "nothing is ever formatted that is not blank",
        )?;
        self.machine.start()?;
        let (keystored, updated) = self.meet()?;
        let device_key = self.store(&keystored, &updated)?;
        self.refuse(&updated)?;
        drop((keystored, updated));
        let mut acknowledged = vec![device_key];
        for round in 1..=CRASHES {
            self.crash(round, &mut acknowledged)?;
        }
        self.stop_and_start(&acknowledged)?;
        self.digest()?;
        self.output.finish()
    }

    fn meet(&mut self) -> Result<(Service, Service), Failure> {
        let keystored = self.service("keystored", "/state/keystore")?;
        let updated = self.service("updated", "/state/boot")?;
        let health = keystored.client.health()?;
        check(health.mode == Mode::Healthy, "a new store is healthy")?;
        self.say("the daemon serves two sockets and says that it is healthy", "ready means ready")?;
        for (service, name) in [(&keystored, "keystored"), (&updated, "updated")] {
            // A claim, to see that it counts for nothing.
            let hello = service.client.hello_as("keystored")?;
            check(hello.service.as_deref() == Some(name), "each socket has its own name")?;
        }
        self.say(
            "whoami: `keystored` on one socket, `updated` on the other, one user",
            "identity is the socket and the user that the kernel vouches for, never a claim",
        )?;
        Ok((keystored, updated))
    }

    fn store(&mut self, keystored: &Service, updated: &Service) -> Result<crash::Write, Failure> {
        let secret = b"not a secret: a demonstration key";
        let version = keystored.directory.put_if_absent("device.key", secret)?;
        self.say(
            "keystored puts its device key, if absent",
            "acknowledged means durable: it must survive all that follows",
        )?;
        let again = keystored.directory.put_if_absent("device.key", b"another");
        check(again == Err(Error::Conflict { current: Some(version) }), "absent is checked")?;
        self.say("a second put-if-absent is a conflict", "a device key is made once")?;
        let slot = updated.directory.put("slot", b"A")?;
        let next = updated.directory.put_if_version("slot", b"B", slot)?;
        check(slot != next, "every write has a version of its own")?;
        self.say(
            "updated puts its boot state, A, then B if it is still A",
            "versions make read-modify-write safe",
        )?;
        Ok(crash::Write { key: "device.key".into(), value: secret.to_vec(), version })
    }

    fn refuse(&mut self, updated: &Service) -> Result<(), Failure> {
        let foreign = updated.client.directory("/state/keystore", Rights::GET);
        let whole = updated.client.directory("/state", Rights::GET);
        let present = foreign.get("device.key");
        let missing = foreign.get("no-such-key");
        let refused = |result: &Result<_, Error>| {
            result.as_ref().err().and_then(Error::refusal) == Some(ErrorCode::AccessDenied)
        };
        check(refused(&present), "updated may not read the device key")?;
        check(present == missing, "a refusal says nothing of the key")?;
        let (present, missing) = (whole.get("keystore/device.key"), whole.get("keystore/missing"));
        check(refused(&present) && present == missing, "nor does a wider capability help")?;
        self.say(
            "updated asks for the device key: ACCESS_DENIED, and the same for a missing key",
            "deny by default, decided before the store is looked at",
        )
    }

    fn crash(&mut self, round: u32, acknowledged: &mut Vec<crash::Write>) -> Result<(), Failure> {
        let keystored = self.service("keystored", "/state/keystore")?;
        let end = crash::write_until_killed(self.machine, &keystored.client, round, acknowledged)?;
        drop(keystored);
        let crash::End { acknowledged: count, open } = end;
        let in_flight = open.len();
        self.say(
            &format!("kill -9 amid writes: {count} acknowledged, {in_flight} in flight"),
            "those in flight were answered `indeterminate`: neither done nor failed",
        )?;
        self.machine.start()?;
        let found = self.verify(acknowledged)?;
        self.say(
            &format!("restart and replay: all {found} acknowledged writes are there"),
            "bytes and versions are unchanged",
        )?;
        let survived = self.verify_open(&open)?;
        self.say(
            &format!("of the {in_flight} in flight, {survived} are there and the others absent"),
            "each is whole or absent, none is torn",
        )
    }

    fn stop_and_start(&mut self, acknowledged: &[crash::Write]) -> Result<(), Failure> {
        self.machine.stop()?;
        self.machine.start()?;
        let found = self.verify(acknowledged)?;
        let updated = self.service("updated", "/state/boot")?;
        let slot = updated.directory.get("slot")?.map(|value| value.data);
        check(slot.as_deref() == Some(b"B"), "the boot slot is still B")?;
        self.say(
            &format!("SIGTERM, restart: {found} writes and the boot state are there"),
            "a soft reboot loses nothing",
        )
    }

    fn digest(&mut self) -> Result<(), Failure> {
        self.machine.stop()?;
        let first = crate::image::walk(self.machine.image(), |_, _, _| Ok(()))?;
        let second = crate::image::walk(self.machine.image(), |_, _, _| Ok(()))?;
        check(first.is_whole(), "nothing is lost")?;
        check(first.digest == second.digest, "replay is deterministic")?;
        let digest = first.digest.to_string();
        self.say(
            &format!("image dump, twice: digest {digest}"),
            "the same image replays to the same state",
        )
    }

    /// Checks every acknowledged write, and yields how many there are.
    fn verify(&mut self, acknowledged: &[crash::Write]) -> Result<usize, Failure> {
        let keystored = self.service("keystored", "/state/keystore")?;
        for write in acknowledged {
            let found = keystored.directory.get(&write.key)?;
            let found = found.map(|value| (value.data, value.version));
            let expected = Some((write.value.clone(), write.version));
            check(found == expected, &format!("{} is as it was acknowledged", write.key))?;
        }
        Ok(acknowledged.len())
    }

    /// Checks writes of which it is open whether they were done, and yields how many were.
    fn verify_open(&mut self, open: &[crash::Open]) -> Result<usize, Failure> {
        let keystored = self.service("keystored", "/state/keystore")?;
        let mut survived = 0;
        for crash::Open { key, value } in open {
            if let Some(found) = keystored.directory.get(key)? {
                check(found.data == *value, &format!("{key} is whole"))?;
                survived += 1;
            }
        }
        Ok(survived)
    }

    fn service(&self, channel: &str, prefix: &str) -> Result<Service, Failure> {
        let client = self.machine.connect(channel)?;
        let directory = client.directory(prefix, Rights::ALL);
        Ok(Service { client, directory })
    }

    /// Prints what has just been checked, and what it proves.
    fn say(&mut self, step: &str, proves: &str) -> Result<(), Failure> {
        self.machine.check_interrupt()?;
        match self.output.format {
            Format::Json => self.output.json(&json!({"proves": proves, "step": step}))?,
            Format::Text => self.output.line(&format!("ok  {step}\n      {proves}"))?,
        }
        self.output.flush()
    }
}

/// Fails the demonstration unless `holds`.
fn check(holds: bool, claim: &str) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    Err(Failure::new("DEMO", Exit::Failure, format!("this does not hold: {claim}")))
}

//! What the service manager is told: sd_notify(3), datagrams of a few words to a socket that it
//! names. Without a manager nothing happens.

use std::ffi::{OsStr, OsString};
use std::format;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::string::String;
use std::time::{Duration, Instant};
use std::{env, process};

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, and how often it wants to hear.
pub(crate) struct Notify {
    /// Connected before the sandbox, which lets nobody connect.
    socket: Option<UnixDatagram>,
    /// Milliseconds between two signs of life: half of what the manager waits for.
    period_ms: Option<u64>,
    /// When the next sign of life is due.
    due: u64,
    /// The start on the system's clock that never goes back, in microseconds, and on ours. To look
    /// it up takes system calls that the sandbox has no other use for.
    start_usec: u128,
    started: Instant,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub(crate) fn from_env() -> Self {
        let address = env::var_os("NOTIFY_SOCKET");
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        Self::new(address, number("WATCHDOG_USEC").filter(|_| for_us))
    }

    /// Reaches the manager at `address`; a watchdog bites after `watchdog_usec` microseconds.
    fn new(address: Option<OsString>, watchdog_usec: Option<u64>) -> Self {
        let socket = address.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, ?address, "the service manager cannot be reached");
                None
            }
        });
        let period_ms = watchdog_usec.map(|usec| (usec / 2000).max(1));
        let period_ms = period_ms.filter(|_| socket.is_some());
        let now = clock_gettime(ClockId::Monotonic);
        let start = Duration::new(now.tv_sec.unsigned_abs(), 0).as_micros();
        let start_usec = start + u128::from(now.tv_nsec.unsigned_abs()) / 1000;
        Self { socket, period_ms, due: 0, start_usec, started: Instant::now() }
    }

    /// The daemon serves.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}\n", one_line(status)));
    }

    /// The policy is being loaded anew; ends with [`Notify::ready`].
    pub(crate) fn reloading(&self) {
        let usec = self.start_usec.saturating_add(self.started.elapsed().as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\n"));
    }

    /// The daemon ends.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=shutting down\n");
    }

    /// What the daemon does, in one line for people.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}\n", one_line(status)));
    }

    /// Gives a sign of life when one is due, and yields when the next one is.
    pub(crate) fn live(&mut self, now: u64) -> Option<u64> {
        let period_ms = self.period_ms?;
        if now >= self.due {
            self.send("WATCHDOG=1\n");
            self.due = now.saturating_add(period_ms);
        }
        Some(self.due)
    }

    /// A manager that does not listen, or not fast enough, is not waited for.
    fn send(&self, words: &str) {
        if let Some(socket) = &self.socket {
            let _unheard = socket.send(words.as_bytes());
        }
    }
}

fn connect(address: &OsStr) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes().split_first() {
        Some((b'@', name)) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A line of its own would be another message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;
    use std::{fs, vec::Vec};

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let bytes = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..bytes].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_of_each_state() {
        let path = env::temp_dir().join(format!("statefsd-notify-{}", process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notify = Notify::new(Some(path.clone().into()), Some(10_000_000));
        notify.ready("a\nREADY=0");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=a READY=0\n");
        notify.reloading();
        let said = heard(&manager);
        let time = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(time.parse::<u64>().unwrap() > 0);
        notify.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=shutting down\n");
        // Twice as often as it would bite.
        assert_eq!(notify.live(7), Some(5007));
        assert_eq!(notify.live(5006), Some(5007));
        assert_eq!(notify.live(5007), Some(10_007));
        assert_eq!([heard(&manager), heard(&manager)], ["WATCHDOG=1\n", "WATCHDOG=1\n"]);
        drop(manager);
        notify.status("nobody listens");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_abstract_name_is_reached_and_no_manager_is_no_matter() {
        let name = format!("statefsd-notify-abstract-{}", process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify::new(Some(format!("@{name}").into()), None);
        notify.status("ok");
        assert_eq!(heard(&manager), "STATUS=ok\n");
        let none: Vec<Option<OsString>> = [None, Some(""), Some("/no/such")]
            .map(|address| address.map(|address| OsString::from(address.to_string())))
            .into();
        for address in none {
            let mut notify = Notify::new(address, Some(1000));
            notify.ready("ok");
            assert_eq!(notify.live(0), None);
        }
    }
}

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, Parser};
use tracing::level_filters::LevelFilter;

use super::dev;
use super::failure::Failure;
use super::metrics::Place;
use crate::Limits;

/// Where everything is, and how much of it there may be.
pub(crate) struct Config {
    pub(crate) image: PathBuf,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) socket_mode: u32,
    pub(crate) policy: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) confinement: Confinement,
    pub(crate) metrics: Option<Place>,
}

/// How much of a sandbox there has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Confinement {
    /// None of what would end the process, for debuggers and profilers.
    Off,
    /// As much as the system has.
    Wanted,
    /// All of it, or the daemon does not start.
    Required,
}

/// One listening socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Socket {
    /// What its connections prove by having come through it.
    pub(crate) channel: String,
    pub(crate) path: PathBuf,
}

/// The owner of /state: serves a StateFS volume over Unix sockets.
#[derive(Parser)]
#[command(name = "statefsd", version, override_usage = USAGE, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Image file or block device with the volume
    #[arg(long, value_name = "PATH", required_unless_present = "dev")]
    image: Option<PathBuf>,

    /// Socket to listen on, for the policy's channel CHANNEL ("default" if not named); repeatable.
    /// Sockets that systemd passes on are listened on too, each under its FileDescriptorName=
    #[arg(long, value_name = "[CHANNEL=]PATH", value_parser = socket)]
    socket: Vec<Socket>,

    /// Policy file, which nobody but root and the daemon's user may own or write; SIGHUP reads it
    /// anew, and a faulty one changes nothing
    #[arg(long, value_name = "PATH", required_unless_present = "dev")]
    policy: Option<PathBuf>,

    /// Permissions of the sockets for clients, the same for all of them; what keeps a socket for one
    /// service is the folder that it is in, or a uid beside the channel in the policy
    #[arg(long, value_name = "OCTAL", default_value = "0600", value_parser = mode)]
    socket_mode: u32,

    /// Serve DIR/state.img on DIR/statefs.sock for the invoking user, making what is missing
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        default_missing_value = dev::FOLDER,
        conflicts_with_all = ["image", "socket", "policy"]
    )]
    dev: Option<PathBuf>,

    /// Memory for what connections hold, together; beyond it they wait, and who stands still is cut
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = memory)]
    memory: usize,

    /// Record in the volume who writes and removes what, and who is refused: `statefs audit` tells
    // Set, because the derivation takes a bool for a flag without a value.
    #[arg(long, value_name = "on | off", default_value = "on", value_parser = switch)]
    #[arg(action = ArgAction::Set)]
    audit: bool,

    /// Tell figures as OpenMetrics text to whoever connects to a socket, or write them to a file every
    /// 10 seconds; both are for the daemon's user and group
    #[arg(long, value_name = "unix:PATH | file:PATH", value_parser = place)]
    metrics: Option<Place>,

    /// End at once if a layer of the sandbox cannot be had; otherwise the log and the metrics tell
    #[arg(long, conflicts_with = "no_sandbox")]
    require_sandbox: bool,

    /// Keep all files and system calls in reach, for debuggers and profilers
    #[arg(long)]
    no_sandbox: bool,

    /// Least severe message to log on stderr: error, warn, info, debug, trace or off
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

const USAGE: &str = "statefsd --image PATH --socket [CHANNEL=]PATH... --policy PATH [OPTIONS]
       statefsd --dev [DIR] [OPTIONS]";

const EXAMPLES: &str = "Examples:
  Try it out in ./statefs-dev, then `statefs put /state/net/ssid home` in another terminal:
    statefsd --dev

  Serve one socket for all, and one in a folder that only the key store may enter, since the
  permissions are those of both:
    statefsd --image /dev/disk/by-partlabel/state --policy /etc/statefs/policy.toml \\
        --socket /run/statefs/statefs.sock --socket keystored=/run/keystored/statefs.sock \\
        --socket-mode 0666

Exit status: 0 after a clean shutdown, 1 after a failure, 2 for wrong arguments.";

/// Reads the command line. It names a socket at least, unless one is `passed` on.
///
/// # Errors
/// What is wrong with it, or the help that was asked for.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    passed: bool,
) -> Result<Options, clap::Error> {
    let options = Options::try_parse_from(arguments)?;
    if options.dev.is_none() && options.socket.is_empty() && !passed {
        let lacks = "there is nothing to listen on: name a --socket, or have systemd pass one on";
        return Err(Options::command().error(ErrorKind::MissingRequiredArgument, lacks));
    }
    Ok(options)
}

impl Options {
    pub(crate) fn log_level(&self) -> LevelFilter {
        self.log_level
    }

    /// Says where everything is, having made what `--dev` lacks.
    ///
    /// # Errors
    /// Something could not be made.
    pub(crate) fn config(self) -> Result<Config, Failure> {
        let confinement = match (self.require_sandbox, self.no_sandbox) {
            (true, _) => Confinement::Required,
            (false, false) => Confinement::Wanted,
            (false, true) => Confinement::Off,
        };
        let Self { image, socket, policy, socket_mode, dev, memory, metrics, audit, .. } = self;
        let limits = Limits { memory_bytes: memory, audit, ..Limits::default() };
        if let Some(folder) = dev {
            let dev::Made { image, socket, policy } = dev::prepare(&folder)?;
            let sockets = vec![socket];
            return Ok(Config {
                image,
                sockets,
                socket_mode,
                policy,
                limits,
                confinement,
                metrics,
            });
        }
        let (image, policy) = (image.unwrap_or_default(), policy.unwrap_or_default());
        let sockets = socket;
        Ok(Config { image, sockets, socket_mode, policy, limits, confinement, metrics })
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".into()),
    }
}

fn socket(text: &str) -> Result<Socket, String> {
    let (channel, path) = match text.split_once('=') {
        // A path may hold the sign too; a channel never holds a slash.
        Some((channel, path)) if !channel.contains('/') => (channel, path),
        _ => (DEFAULT_CHANNEL, text),
    };
    if channel.is_empty() {
        return Err("the channel before = has no name".to_string());
    }
    if path.is_empty() {
        return Err("the path is empty".to_string());
    }
    Ok(Socket { channel: channel.into(), path: path.into() })
}

fn place(text: &str) -> Result<Place, String> {
    match text.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Ok(Place::Socket(path.into())),
        Some(("file", path)) if !path.is_empty() => Ok(Place::File(path.into())),
        _ => Err("a place is unix:PATH or file:PATH".to_string()),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("permissions are three octal digits, such as 0660".to_string()),
    }
}

/// Reads a size such as `64M`: powers of 1024.
fn memory(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match text.get(digits.len()..) {
        Some("") => Some(1),
        Some("K") => Some(1 << 10),
        Some("M") => Some(1 << 20),
        Some("G") => Some(1 << 30),
        _ => None,
    };
    let bytes = unit
        .zip(digits.parse().ok())
        .and_then(|(unit, count): (usize, usize)| count.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes >= MEMORY_BYTES_MIN => Ok(bytes),
        Some(_) => Err("the least is 8M, room for a few messages of the largest size".into()),
        None => Err("a size is a number of bytes, or with K, M or G, such as 64M".into()),
    }
}

/// Least memory for connections: room for several in the middle of their largest message.
const MEMORY_BYTES_MIN: usize = 8 << 20;

/// The channel of a socket that is given without one.
pub(crate) const DEFAULT_CHANNEL: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[track_caller]
    fn check(text: &str, channel: &str, path: &str) {
        let expected = Socket { channel: channel.into(), path: path.into() };
        assert_eq!(socket(text), Ok(expected));
    }

    #[test]
    fn sockets_have_a_channel_and_a_path() {
        check("/run/a.sock", "default", "/run/a.sock");
        check("keystored=/run/a.sock", "keystored", "/run/a.sock");
        check("keystored=a=b", "keystored", "a=b");
        check("/run/a=b", "default", "/run/a=b");
        check("./a=b", "default", "./a=b");
        for wrong in ["", "=a", "a="] {
            assert!(socket(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!((mode("0600"), mode("666"), mode("0")), (Ok(0o600), Ok(0o666), Ok(0)));
        for wrong in ["", "8", "1000", "rw", "-1"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_whole_or_refused() {
        let parse = |line: &str| {
            let words = format!("statefsd {line}");
            let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
            super::parse(words, false)
        };
        let whole = "--image i --socket s --socket k=t --policy p --socket-mode 660";
        let options = parse(whole).expect("complete");
        let config = options.config().expect("nothing to make");
        assert_eq!((config.sockets.len(), config.socket_mode), (2, 0o660));
        assert_eq!(config.limits.memory_bytes, 64 << 20);
        let passed = "statefsd --image i --policy p --memory 8M".split(' ').map(OsString::from);
        let options = super::parse(passed, true).expect("sockets are passed on");
        assert_eq!(options.config().expect("nothing to make").limits.memory_bytes, 8 << 20);
        assert_eq!(parse("--dev").expect("alone").dev, Some(dev::FOLDER.into()));
        assert_eq!(parse("--dev x --log-level off").expect("alone").dev, Some("x".into()));
        let audits = |line: &str| parse(line).ok().map(|options| options.audit);
        assert_eq!(audits("--dev"), Some(true));
        assert_eq!(audits("--dev --audit on"), Some(true));
        assert_eq!(audits("--dev x --audit off"), Some(false));
        for wrong in [
            "",
            "--dev --audit",
            "--dev --audit maybe",
            "--image i",
            "--image i --socket s",
            "--image i --policy p",
            "--dev --require-sandbox --no-sandbox",
            "--dev --metrics /run/x",
            "--dev --metrics unix:",
            "--dev --memory 7M",
            "--dev --memory 1T",
            "--dev --memory M",
            "--dev --memory 99999999999G",
            "--dev --image i",
            "--dev a b",
            "--socket-mode 9 --dev",
            "--log-level loud --dev",
            "x",
        ] {
            let error = parse(wrong).err().expect(wrong);
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
        assert_eq!(parse("--help").err().expect("help").exit_code(), 0);
        assert_eq!(parse("--version").err().expect("version").exit_code(), 0);
    }
}

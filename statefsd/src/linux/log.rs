//! The log on stderr: events of the core as fields, one line each, never a value.

use std::io::{Write as _, stderr};

use blockdev::Operation;
use tracing::level_filters::LevelFilter;
use tracing::{debug, error, info, warn};

use super::device::Failed;
use crate::event::{Closed, Denied, Event};
use crate::store::{Health, Mode};

/// Starts the log of the process. Lines hold no colours: init systems and files get the same.
pub(crate) fn start(level: LevelFilter) {
    let log = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        // It would complain on stderr that stderr is gone, and end the daemon with that.
        .log_internal_errors(false);
    // A process that has a log already keeps it.
    let _kept = log.try_init();
}

/// Tells why the daemon ends, also when the log is off.
pub(crate) fn fail(reason: &str) {
    // Where nobody listens any more, the exit code tells.
    let _unheard = writeln!(stderr(), "statefsd: {reason}");
}

/// Logs an event, except those about the volume that the driver tells itself.
pub(crate) fn event(event: &Event) {
    match event {
        Event::Opened { report, health } => {
            info!(
                volume = %report.volume,
                mount = report.mount,
                groups = report.groups,
                repaired = report.repaired,
                torn = report.torn_groups,
                lost = report.lost.len(),
                "volume open"
            );
            for lost in &report.lost {
                let (first, last) = (lost.first.0, lost.last.0);
                error!(first, last, "acknowledged writes were lost: all between these LSNs");
            }
            if health.mode != Mode::Healthy {
                mode(health);
            }
        }
        Event::OpenFailed { error } => error!(%error, "the volume cannot be opened"),
        Event::ModeChanged { health } => mode(health),
        Event::Connected { connection, peer, service } => {
            let service = service.as_ref().map_or("", |service| service.name());
            let uid = peer.uid;
            debug!(%connection, service, channel = ?peer.channel, uid, "connected");
        }
        Event::Refused { peer } => {
            let uid = peer.uid;
            warn!(channel = ?peer.channel, uid, "too many connections, one was refused");
        }
        Event::Hello { connection, client } => debug!(%connection, client, "hello"),
        Event::Closed { connection, why } => closed(*connection, why),
        Event::Denied(denied) => self::denied(denied),
        Event::OverQuota(denied) => {
            let Denied { connection, service, path, reason, .. } = denied;
            let service = service.as_deref().unwrap_or_default();
            warn!(%connection, service, ?path, reason, "over quota");
        }
        Event::PolicyChanged => info!("another policy is in force"),
        Event::DenialsSkipped { count } => warn!(count, "further denials"),
        Event::ConnectionsSkipped { count } => {
            warn!(count, "further connections were refused or ended")
        }
        Event::EventsLost { count } => warn!(count, "events were lost"),
    }
}

/// Logs a request that the device failed. Of a read the other copy may be sound; a write or a flush ends writing.
pub(super) fn device(failed: &Failed) {
    let Failed { operation, bytes, reason, skipped } = failed;
    match operation {
        Operation::Read { offset } => {
            warn!(offset, bytes, reason, skipped, "the device failed a read");
        }
        Operation::Write { offset } => {
            error!(offset, bytes, reason, skipped, "the device failed a write");
        }
        Operation::Flush => error!(reason, skipped, "the device failed a flush"),
    }
}

fn mode(health: &Health) {
    let Health { mode, reason, losses } = health;
    let word = word(*mode);
    match mode {
        Mode::Healthy | Mode::Opening => info!(mode = %word, "mode"),
        Mode::Degraded | Mode::ReadOnly | Mode::Failed => {
            error!(mode = %word, reason, losses, "mode");
        }
    }
}

/// The word that `statefs health` tells.
fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Opening => "opening",
        Mode::Healthy => "healthy",
        Mode::Degraded => "degraded",
        Mode::ReadOnly => "readOnly",
        Mode::Failed => "failed",
    }
}

fn denied(denied: &Denied) {
    let Denied { connection, service, right, path, reason } = denied;
    let service = service.as_deref().unwrap_or_default();
    warn!(%connection, service, %right, ?path, reason, "access denied");
}

fn closed(connection: crate::ConnectionId, why: &Closed) {
    match why {
        Closed::Transport => debug!(%connection, "closed"),
        // The words come from the peer in part.
        Closed::Protocol(words) => info!(%connection, ?words, "closed: protocol"),
        Closed::Memory => warn!(%connection, "closed: it stood still while memory was used up"),
    }
}

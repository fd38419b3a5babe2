//! Sockets that the service manager made and passed on: sd_listen_fds(3). The name that it gave a
//! socket is the channel.

use std::env;
use std::string::{String, ToString as _};
use std::vec::Vec;

use listenfd::ListenFd;

use super::failure::Failure;
use super::listen::Listener;
use super::options::DEFAULT_CHANNEL;

/// What was passed on and not yet taken.
pub(crate) struct Passed {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Passed {
    /// Reads `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`, and takes them out of the
    /// environment, for which nothing else may run yet.
    pub(crate) fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(String::from).collect();
        Self { sockets: ListenFd::from_env(), names }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.len() == 0
    }

    /// Listens on all of them.
    ///
    /// # Errors
    /// One is no Unix stream socket that listens.
    pub(crate) fn take(mut self) -> Result<Vec<Listener>, Failure> {
        let mut listeners = Vec::new();
        for index in 0..self.sockets.len() {
            let named = self.names.get(index).filter(|name| !name.is_empty());
            let channel = named.map_or(DEFAULT_CHANNEL, String::as_str).to_string();
            let failed = |error| Failure::Passed { channel: channel.clone(), error };
            if let Some(socket) = self.sockets.take_unix_listener(index).map_err(failed)? {
                let listener = Listener::passed(socket, channel.clone()).map_err(failed)?;
                listeners.push(listener);
            }
        }
        Ok(listeners)
    }
}

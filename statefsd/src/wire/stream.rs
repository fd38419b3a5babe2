//! `Writer` and `Reader`.

use alloc::rc::Rc;

use capnp::traits::HasTypeId as _;
use policy::{Granted, Key};
use statefs::{reader, writer};

use super::{read, write};
use crate::error::Error;
use crate::gate;
use crate::power::Power;
use crate::request::{Get, Store};
use crate::session::Caller;
use crate::stream::{Incoming, OVER, Outgoing, STREAM_BYTES};

/// Tells whether the calls of a method are parts of one thing: where one is missing, what the others make is not what was sent.
pub(crate) fn streams(interface_id: u64, method_id: u16) -> bool {
    (interface_id, method_id) == (writer::Client::TYPE_ID, 0)
}

/// What a chunk is answered that cannot be read; one that a limit of the connection kept from coming, why.
fn missing(error: capnp::Error) -> capnp::Error {
    if error.kind == capnp::ErrorKind::Overloaded { error } else { read::unreadable(error).into() }
}

/// `Writer`.
pub(super) struct Writer {
    pub(super) caller: Rc<Caller>,
    pub(super) power: Power,
    pub(super) request: Store,
    pub(super) incoming: Incoming,
}

impl Writer {
    /// Asks anew whether the value may be written, as each use of a capability does.
    fn admit(&self) -> Result<Granted<Store>, Error> {
        gate::admit(&self.caller, &self.power, self.request.clone())
    }
}

impl writer::Server for Writer {
    async fn write(self: Rc<Self>, params: writer::WriteParams) -> Result<(), capnp::Error> {
        let closed = self.incoming.is_closed();
        let asked = self.admit().map_err(capnp::Error::from).and_then(|granted| {
            if closed {
                return Err(Error::Argument(OVER).into());
            }
            let params = params.get().map_err(missing)?;
            Ok((granted, read::chunk(params, self.caller.shared.store.value_bytes_max())?))
        });
        // A chunk that fails ends the value, and what was kept for it is given back. What comes behind the end is none of it.
        if asked.is_err() && !closed {
            self.incoming.give_up();
        }
        let (granted, chunk) = asked?;
        let sees = gate::sees(&self.caller, &self.power, &self.request.key);
        self.incoming.append(&self.caller, &granted, sees, chunk).await?;
        Ok(())
    }

    async fn done(
        self: Rc<Self>,
        _: writer::DoneParams,
        mut results: writer::DoneResults,
    ) -> Result<(), capnp::Error> {
        // What is sent behind it may come while it waits.
        self.incoming.close();
        // Before it is asked for the right, which may be gone when there is room.
        self.caller.behind_reads().await;
        self.incoming.room(&self.caller).await?;
        let granted = self.admit().inspect_err(|_| self.incoming.give_up())?;
        let written = self.incoming.finish(&self.caller, granted).await?;
        write::written(&written, results.get());
        Ok(())
    }
}

/// `Reader`.
pub(super) struct Reader {
    pub(super) caller: Rc<Caller>,
    pub(super) power: Power,
    pub(super) key: Key,
    pub(super) outgoing: Outgoing,
}

impl Reader {
    fn admit(&self) -> Result<Granted<Get>, Error> {
        let request = Get { key: self.key.clone(), metadata_only: false };
        gate::admit(&self.caller, &self.power, request)
    }
}

impl reader::Server for Reader {
    async fn info(
        self: Rc<Self>,
        _: reader::InfoParams,
        mut results: reader::InfoResults,
    ) -> Result<(), capnp::Error> {
        let granted = self.admit()?;
        write::info(&self.outgoing.info(&granted), results.get());
        Ok(())
    }

    async fn read(
        self: Rc<Self>,
        params: reader::ReadParams,
        mut results: reader::ReadResults,
    ) -> Result<(), capnp::Error> {
        let policy = self.caller.policy();
        let granted = self.admit()?;
        let most = self.caller.shared.store.value_bytes_max();
        let (at, bytes_max) = read::part(params.get().map_err(read::unreadable)?, most);
        let permit = self.caller.reads.take(STREAM_BYTES).await;
        self.power.check(self.caller.shared.clock.now())?;
        let part = self.outgoing.read(&self.caller, &granted, at, bytes_max, permit).await;
        if !self.caller.is_in_force(&policy) {
            self.admit()?;
        }
        write::part(&part?, results.get());
        Ok(())
    }
}

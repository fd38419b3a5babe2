//! The wire: the only module that names generated types. Readers become requests, ends of calls
//! become builders; what lies between knows nothing of messages.

mod admin;
mod counted;
mod read;
mod stream;
mod write;

use alloc::rc::Rc;

use capnp::capability::Client;
use statefs::{directory, revoker, state_fs};

use crate::error::Error;
use crate::gate;
use crate::handlers;
use crate::plant::Plant;
use crate::power::{Power, Restriction};
use crate::request::Commit;
use crate::session::Caller;
use crate::store::Found;
use crate::stream::{Incoming, Outgoing};

pub(crate) use stream::streams;

/// Makes the bootstrap capability of a connection.
pub(crate) fn bootstrap(caller: &Rc<Caller>) -> Client {
    let root: state_fs::Client = counted::serve(caller, Root { caller: caller.clone() });
    root.client
}

/// `StateFs`.
struct Root {
    caller: Rc<Caller>,
}

impl state_fs::Server for Root {
    async fn hello(
        self: Rc<Self>,
        params: state_fs::HelloParams,
        mut results: state_fs::HelloResults,
    ) -> Result<(), capnp::Error> {
        let protocol = {
            let params = params.get().map_err(read::unreadable)?;
            handlers::hello(&self.caller, &read::hello(params)?)?
        };
        write::hello(&self.caller, protocol, results.get())
    }

    async fn health(
        self: Rc<Self>,
        _: state_fs::HealthParams,
        mut results: state_fs::HealthResults,
    ) -> Result<(), capnp::Error> {
        write::health(&handlers::health(&self.caller), results.get());
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: state_fs::OpenParams,
        mut results: state_fs::OpenResults,
    ) -> Result<(), capnp::Error> {
        let (prefix, rights) = read::open(params.get().map_err(read::unreadable)?)?;
        let granted = gate::admit_open(&self.caller, None, prefix, rights)?;
        let power = handlers::open(&self.caller, granted)?;
        let directory = Directory { caller: self.caller.clone(), power };
        results.get().set_directory(counted::serve(&self.caller, directory));
        Ok(())
    }

    async fn describe(
        self: Rc<Self>,
        _: state_fs::DescribeParams,
        mut results: state_fs::DescribeResults,
    ) -> Result<(), capnp::Error> {
        write::describe(results.get());
        Ok(())
    }

    async fn admin(
        self: Rc<Self>,
        _: state_fs::AdminParams,
        mut results: state_fs::AdminResults,
    ) -> Result<(), capnp::Error> {
        gate::admit_any_admin(&self.caller)?;
        let admin = admin::Admin(self.caller.clone());
        results.get().set_admin(counted::serve(&self.caller, admin));
        Ok(())
    }
}

/// `Revoker`.
struct Revoker {
    caller: Rc<Caller>,
    restriction: Rc<Restriction>,
}

impl revoker::Server for Revoker {
    async fn revoke(
        self: Rc<Self>,
        _: revoker::RevokeParams,
        _: revoker::RevokeResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        self.restriction.revoke();
        Ok(())
    }
}

/// `Directory`.
struct Directory {
    caller: Rc<Caller>,
    power: Power,
}

impl Directory {
    /// Refuses every use of what was taken away, before anything is said of the request.
    fn check(&self) -> Result<(), Error> {
        self.power.check(self.caller.shared.clock.now())
    }

    /// Lets a request pass that was read, as far as it could be.
    fn admit<R: policy::Demand>(
        &self,
        request: Result<R, Error>,
    ) -> Result<policy::Granted<R>, Error> {
        self.check()?;
        gate::admit(&self.caller, &self.power, request?)
    }
}

impl directory::Server for Directory {
    async fn get(
        self: Rc<Self>,
        params: directory::GetParams,
        mut results: directory::GetResults,
    ) -> Result<(), capnp::Error> {
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::get(self.power.scope(), params));
        if self.caller.shared.limits.plants.has(Plant::LookFirst)
            && let Ok(request) = &request
            && self.caller.shared.store.is_absent(&request.key)
        {
            write::found(&Found::Absent, results.get());
            return Ok(());
        }
        let policy = self.caller.policy();
        let granted = self.admit(request)?;
        drop(params);
        let permit = self.caller.reads.take(handlers::GET_BYTES).await;
        // It may have waited for longer than the directory lasts.
        self.check()?;
        let found = handlers::get(&self.caller, &granted, permit).await;
        if !self.caller.is_in_force(&policy) {
            self.admit(Ok(granted.into_request()))?;
        }
        write::found(&found?, results.get());
        Ok(())
    }

    async fn put(
        self: Rc<Self>,
        params: directory::PutParams,
        mut results: directory::PutResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::put(self.power.scope(), params));
        let granted = self.admit(request)?;
        let written = handlers::put(&self.caller, granted).await?;
        write::written(&written, results.get());
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: directory::DeleteParams,
        mut results: directory::DeleteResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::delete(self.power.scope(), params));
        let granted = self.admit(request)?;
        let removed = handlers::delete(&self.caller, granted).await?;
        write::removed(&removed, results.get());
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: directory::ListParams,
        mut results: directory::ListResults,
    ) -> Result<(), capnp::Error> {
        let request = params.get().map_err(read::unreadable);
        let mut request = request.and_then(|params| read::list(self.power.scope(), params));
        drop(params);
        let page = loop {
            let policy = self.caller.policy();
            let granted = self.admit(request)?;
            let permit = self.caller.reads.take(self.caller.shared.limits.reply_bytes).await;
            self.check()?;
            let page = handlers::list(&self.caller, &granted, permit).await;
            if self.caller.is_in_force(&policy) {
                break page?;
            }
            // Another policy shows other keys.
            request = Ok(granted.into_request());
        };
        write::page(&page, results.get())?;
        Ok(())
    }

    async fn get_many(
        self: Rc<Self>,
        params: directory::GetManyParams,
        mut results: directory::GetManyResults,
    ) -> Result<(), capnp::Error> {
        // Few bytes ask for many keys, and only they are counted while a call waits.
        let permit = self.caller.reads.take(self.caller.shared.limits.reply_bytes).await;
        self.check()?;
        let keys_max = self.caller.shared.limits.list_entries;
        let requests = {
            let params = params.get().map_err(read::unreadable)?;
            read::get_many(self.power.scope(), keys_max, params)?
        };
        let policy = self.caller.policy();
        let granted = gate::admit_all(&self.caller, &self.power, requests)?;
        drop(params);
        let found = handlers::get_many(&self.caller, &granted, permit).await;
        if !self.caller.is_in_force(&policy) {
            let requests = granted.into_iter().map(policy::Granted::into_request).collect();
            gate::admit_all(&self.caller, &self.power, requests)?;
        }
        write::many(&found?, results.get())
    }

    async fn commit(
        self: Rc<Self>,
        params: directory::CommitParams,
        mut results: directory::CommitResults,
    ) -> Result<(), capnp::Error> {
        let arrived = self.caller.arrived();
        self.caller.behind_reads().await;
        let shared = &self.caller.shared;
        let (operations_max, bytes_max) = shared.store.batch_max(&shared.limits);
        loop {
            self.check()?;
            let Commit { changes, durability, token } = {
                let params = params.get().map_err(read::unreadable)?;
                read::commit(self.power.scope(), operations_max, bytes_max, params)?
            };
            let granted = gate::admit_all(&self.caller, &self.power, changes)?;
            let written = handlers::commit(&self.caller, granted, durability, token, arrived);
            if let Some(written) = written.await? {
                return write::committed(&written, results.get());
            }
        }
    }

    async fn writer(
        self: Rc<Self>,
        params: directory::WriterParams,
        mut results: directory::WriterResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        self.check()?;
        let (request, bytes) = {
            let params = params.get().map_err(read::unreadable)?;
            read::writer(self.power.scope(), params)?
        };
        let granted = gate::admit(&self.caller, &self.power, request.clone())?;
        let sees = gate::sees(&self.caller, &self.power, &request.key);
        let incoming = Incoming::begin(&self.caller, &granted, sees, bytes)?;
        let (caller, power) = (self.caller.clone(), self.power.clone());
        let writer = stream::Writer { caller, power, request, incoming };
        results.get().set_writer(counted::serve(&self.caller, writer));
        Ok(())
    }

    async fn reader(
        self: Rc<Self>,
        params: directory::ReaderParams,
        mut results: directory::ReaderResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::reader(self.power.scope(), params));
        let policy = self.caller.policy();
        let granted = self.admit(request)?;
        drop(params);
        let request = granted.request().clone();
        let key = request.key.clone();
        let outgoing = Outgoing::open(&self.caller, granted).await;
        if !self.caller.is_in_force(&policy) {
            self.admit(Ok(request))?;
        }
        let (caller, power) = (self.caller.clone(), self.power.clone());
        let reader = stream::Reader { caller, power, key, outgoing: outgoing? };
        results.get().set_reader(counted::serve(&self.caller, reader));
        Ok(())
    }

    async fn restrict(
        self: Rc<Self>,
        params: directory::RestrictParams,
        mut results: directory::RestrictResults,
    ) -> Result<(), capnp::Error> {
        self.check()?;
        let (prefix, rights, expiry_millis) = {
            let params = params.get().map_err(read::unreadable)?;
            read::restrict(self.power.scope(), params)?
        };
        let granted = gate::admit_open(&self.caller, Some(&self.power), prefix, rights)?;
        let (power, restriction) =
            handlers::restrict(&self.caller, &self.power, granted, expiry_millis)?;
        let directory = Directory { caller: self.caller.clone(), power };
        let mut results = results.get();
        results.set_directory(counted::serve(&self.caller, directory));
        let revoker = Revoker { caller: self.caller.clone(), restriction };
        results.set_revoker(counted::serve(&self.caller, revoker));
        Ok(())
    }

    async fn usage(
        self: Rc<Self>,
        params: directory::UsageParams,
        mut results: directory::UsageResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        self.check()?;
        let request = {
            let params = params.get().map_err(read::unreadable)?;
            read::usage(self.power.scope(), params)?
        };
        self.caller.pass().await;
        let granted = gate::admit_whole(&self.caller, &self.power, request)?;
        let usage = handlers::usage(&self.caller, &granted)?;
        write::usage(&usage, results.get())
    }

    async fn sync(
        self: Rc<Self>,
        _: directory::SyncParams,
        mut results: directory::SyncResults,
    ) -> Result<(), capnp::Error> {
        self.caller.behind_reads().await;
        let durable = handlers::sync(&self.caller).await?;
        write::synced(durable, results.get());
        Ok(())
    }
}

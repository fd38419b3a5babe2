//! The wire: the only module that names generated types. Readers become requests, ends of calls
//! become builders; what lies between knows nothing of messages.

mod read;
mod write;

use alloc::rc::Rc;

use capnp::capability::Client;
use policy::Scope;
use statefs::{directory, state_fs};

use crate::error::Error;
use crate::gate;
use crate::handlers;
use crate::session::Caller;

/// Makes the bootstrap capability of a connection.
pub(crate) fn bootstrap(caller: &Rc<Caller>) -> Client {
    let root: state_fs::Client = vat::new_client(Root { caller: caller.clone() });
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
        write::hello(&self.caller, protocol, results.get());
        Ok(())
    }

    async fn health(
        self: Rc<Self>,
        _: state_fs::HealthParams,
        mut results: state_fs::HealthResults,
    ) -> Result<(), capnp::Error> {
        write::health(&self.caller.shared.store.health(), results.get());
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: state_fs::OpenParams,
        mut results: state_fs::OpenResults,
    ) -> Result<(), capnp::Error> {
        let (prefix, rights) = read::open(params.get().map_err(read::unreadable)?)?;
        let granted = gate::admit_open(&self.caller, prefix, rights)?;
        let scope = handlers::open(&self.caller, granted)?;
        let directory = Directory { caller: self.caller.clone(), scope };
        results.get().set_directory(vat::new_client(directory));
        Ok(())
    }
}

/// `Directory`.
struct Directory {
    caller: Rc<Caller>,
    scope: Scope,
}

impl Directory {
    /// Lets a request pass that was read, as far as it could be.
    fn admit<R: policy::Demand>(
        &self,
        request: Result<R, Error>,
    ) -> Result<policy::Granted<R>, Error> {
        gate::admit(&self.caller, &self.scope, request?)
    }
}

impl directory::Server for Directory {
    async fn get(
        self: Rc<Self>,
        params: directory::GetParams,
        mut results: directory::GetResults,
    ) -> Result<(), capnp::Error> {
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::get(&self.scope, params));
        let granted = self.admit(request)?;
        drop(params);
        let found = handlers::get(&self.caller, granted).await?;
        write::found(&found, results.get());
        Ok(())
    }

    async fn put(
        self: Rc<Self>,
        params: directory::PutParams,
        mut results: directory::PutResults,
    ) -> Result<(), capnp::Error> {
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::put(&self.scope, params));
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
        let request = params.get().map_err(read::unreadable);
        let request = request.and_then(|params| read::delete(&self.scope, params));
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
        let request = request.and_then(|params| read::list(&self.scope, params));
        let granted = self.admit(request)?;
        drop(params);
        let page = handlers::list(&self.caller, granted).await?;
        write::page(&page, results.get())?;
        Ok(())
    }

    async fn sync(
        self: Rc<Self>,
        _: directory::SyncParams,
        mut results: directory::SyncResults,
    ) -> Result<(), capnp::Error> {
        let durable = handlers::sync(&self.caller).await?;
        write::synced(durable, results.get());
        Ok(())
    }
}

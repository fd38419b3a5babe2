//! `Admin`.

use alloc::rc::Rc;

use policy::{Granted, Right};
use statefs::{ErrorCode, admin};

use super::{read, write};
use crate::error::Error;
use crate::gate;
use crate::handlers;
use crate::request::Administer;
use crate::session::Caller;

/// `Admin`.
pub(super) struct Admin(pub(super) Rc<Caller>);

impl Admin {
    fn admit(&self, right: Right) -> Result<Granted<Administer>, Error> {
        gate::admit_admin(&self.0, right)
    }
}

impl admin::Server for Admin {
    async fn stats(
        self: Rc<Self>,
        _: admin::StatsParams,
        mut results: admin::StatsResults,
    ) -> Result<(), capnp::Error> {
        let granted = self.admit(Right::AdminStats)?;
        write::stats(&handlers::stats(&self.0, &granted), results.get())
    }

    async fn check(
        self: Rc<Self>,
        params: admin::CheckParams,
        mut results: admin::CheckResults,
    ) -> Result<(), capnp::Error> {
        let policy = self.0.policy();
        let granted = self.admit(Right::AdminCheck)?;
        let rate = params.get().map_err(read::unreadable)?.get_bytes_per_second();
        let report = handlers::check(&self.0, granted, rate).await;
        if !self.0.is_in_force(&policy) {
            self.admit(Right::AdminCheck)?;
        }
        write::check(&report?, results.get());
        Ok(())
    }

    async fn checkpoint(
        self: Rc<Self>,
        _: admin::CheckpointParams,
        _: admin::CheckpointResults,
    ) -> Result<(), capnp::Error> {
        let granted = self.admit(Right::AdminCheckpoint)?;
        handlers::checkpoint(&self.0, granted).await?;
        Ok(())
    }

    async fn reload_policy(
        self: Rc<Self>,
        _: admin::ReloadPolicyParams,
        mut results: admin::ReloadPolicyResults,
    ) -> Result<(), capnp::Error> {
        let granted = self.admit(Right::AdminPolicy)?;
        let end = handlers::reload_policy(&self.0, granted).await;
        write::reloaded(&end, results.get());
        Ok(())
    }

    async fn audit(
        self: Rc<Self>,
        params: admin::AuditParams,
        mut results: admin::AuditResults,
    ) -> Result<(), capnp::Error> {
        let granted = self.admit(Right::AdminAudit)?;
        let asked = read::audit(params.get().map_err(read::unreadable)?)?;
        if !self.0.shared.store.journal()?.keeps_notes() {
            let small = "a volume this small keeps no audit records";
            return Err(ErrorCode::Unimplemented.error(small));
        }
        let policy = self.0.policy();
        let page = handlers::audit(&self.0, granted, &asked).await;
        if !self.0.is_in_force(&policy) {
            self.admit(Right::AdminAudit)?;
        }
        write::audit(&page?, results.get())
    }
}

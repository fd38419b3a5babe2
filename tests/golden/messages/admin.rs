//! What is told of the server and of the store as a whole.

use capnp::capability::FromClientHook as _;
use statefs::{AuditOutcome, AuditRing, admin, directory, state_fs};

use super::{Message, Nobody, request, result, with_capabilities};

pub fn describe() -> Vec<Message> {
    vec![
        request::<state_fs::describe_params::Owned>("", |_| {}),
        result::<state_fs::describe_results::Owned>("a schema cut short", |mut describe| {
            describe.set_schema(&statefs::SCHEMA_IMAGE[..8]);
            describe.set_protocol(1);
        }),
    ]
}

pub fn admin() -> Vec<Message> {
    vec![
        request::<state_fs::admin_params::Owned>("", |_| {}),
        with_capabilities::<state_fs::admin_results::Owned>("the capability", |mut results| {
            results.set_admin(admin::Client::new(Box::new(Nobody)));
        }),
    ]
}

pub fn usage() -> Vec<Message> {
    vec![
        request::<directory::usage_params::Owned>("all of it", |_| {}),
        request::<directory::usage_params::Owned>("a prefix", |mut usage| usage.set_prefix("wifi")),
        result::<directory::usage_results::Owned>("one quota", |mut usage| {
            usage.set_bytes(1234);
            usage.set_keys(5);
            let mut quota = usage.init_quotas(1).get(0);
            quota.set_prefix("/state/net");
            quota.set_bytes_used(2345);
            quota.set_bytes_max(65_536);
            quota.set_keys_used(7);
            quota.set_keys_max(64);
            quota.set_value_bytes_max(u64::MAX);
        }),
    ]
}

pub fn stats() -> Vec<Message> {
    vec![
        request::<admin::stats_params::Owned>("", |_| {}),
        result::<admin::stats_results::Owned>("one figure", |stats| {
            let mut counter = stats.init_counters(1).get(0);
            counter.set_name("keys");
            counter.set_value(5);
        }),
    ]
}

pub fn check() -> Vec<Message> {
    vec![
        request::<admin::check_params::Owned>("a MiB in a second", |mut check| {
            check.set_bytes_per_second(1 << 20);
        }),
        result::<admin::check_results::Owned>("a repair", |mut check| {
            check.set_bytes_read(1 << 33);
            check.set_groups(12);
            check.set_repaired(1);
            check.set_damaged(2);
        }),
    ]
}

pub fn checkpoint() -> Vec<Message> {
    vec![
        request::<admin::checkpoint_params::Owned>("", |_| {}),
        result::<admin::checkpoint_results::Owned>("", |_| {}),
    ]
}

pub fn reload_policy() -> Vec<Message> {
    type Results = admin::reload_policy_results::Owned;
    vec![
        request::<admin::reload_policy_params::Owned>("", |_| {}),
        result::<Results>("refused", |mut reload| reload.set_refused("line 3: no such right")),
        result::<Results>("loaded", |mut reload| reload.set_loaded(())),
    ]
}

pub fn audit() -> Vec<Message> {
    type Results = admin::audit_results::Owned;
    vec![
        request::<admin::audit_params::Owned>("mutations", |mut audit| {
            audit.set_ring(AuditRing::Mutations);
        }),
        request::<admin::audit_params::Owned>("denials, from within", |mut audit| {
            audit.set_ring(AuditRing::Denials);
            audit.set_after(41);
            audit.set_limit(2);
        }),
        result::<Results>("a mutation", |mut audit| {
            audit.set_oldest(7);
            let mut record = audit.init_records(1).get(0);
            record.set_sequence(42);
            record.set_unix_millis(1_700_000_000_000);
            record.set_service("netd");
            record.set_operation("put");
            record.set_key("/state/net/wifi");
            record.set_rule("grant at line 18");
            record.set_outcome(AuditOutcome::Applied);
            record.set_version(0x0102_0304_0506_0708);
        }),
        result::<Results>("a denial with a successor", |mut audit| {
            audit.set_oldest(1);
            audit.set_next(42);
            let mut record = audit.init_records(1).get(0);
            record.set_sequence(42);
            record.set_operation("get");
            record.set_key("/state/net/wifi");
            record.set_rule("no service has this channel");
            record.set_outcome(AuditOutcome::Denied);
            record.set_repeats(9);
        }),
    ]
}

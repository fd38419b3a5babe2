//! What must never drift: every message of the schema, in canonical form, and every structure of the
//! disk, byte by byte and annotated; and what a policy decides.
//!
//! `cargo xtask bless` rewrites the files in `snapshots`; the diff is reviewed.

#![forbid(unsafe_code)]

mod annotate;
mod disk;
mod fields;
mod messages;
mod policy;
mod schema;
#[cfg(feature = "system")]
mod transcripts;

use std::collections::BTreeSet;

use messages::{METHODS, Message};
use schema::Schema;

/// One test for each method, named like it.
macro_rules! goldens {
    ($($test:ident $method:literal)*) => {
        $(
            #[test]
            fn $test() {
                check($method);
            }
        )*
    };
}

goldens! {
    state_fs_hello "StateFs.hello"
    state_fs_health "StateFs.health"
    state_fs_open "StateFs.open"
    state_fs_describe "StateFs.describe"
    state_fs_admin "StateFs.admin"
    directory_get "Directory.get"
    directory_put "Directory.put"
    directory_delete "Directory.delete"
    directory_list "Directory.list"
    directory_sync "Directory.sync"
    directory_get_many "Directory.getMany"
    directory_commit "Directory.commit"
    directory_writer "Directory.writer"
    directory_reader "Directory.reader"
    directory_restrict "Directory.restrict"
    directory_usage "Directory.usage"
    writer_write "Writer.write"
    writer_done "Writer.done"
    reader_info "Reader.info"
    reader_read "Reader.read"
    revoker_revoke "Revoker.revoke"
    admin_stats "Admin.stats"
    admin_check "Admin.check"
    admin_checkpoint "Admin.checkpoint"
    admin_reload_policy "Admin.reloadPolicy"
    admin_audit "Admin.audit"
}

/// A method, union member or enumerant that is added to the schema gets its golden bytes with it.
#[test]
fn every_method_and_member_is_pinned() {
    let schema = Schema::load();
    let methods: Vec<String> = schema.methods().into_iter().map(|method| method.name).collect();
    let mut pinned: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
    let mut declared: Vec<&str> = methods.iter().map(String::as_str).collect();
    pinned.sort_unstable();
    declared.sort_unstable();
    assert_eq!(pinned, declared);

    let mut seen = BTreeSet::new();
    for (method, messages) in METHODS {
        text_of(&schema, method, &messages(), &mut seen);
    }
    let mut members: BTreeSet<String> = schema.members().into_iter().collect();
    for &never_sent in NEVER_SENT {
        assert!(members.remove(never_sent), "{never_sent} is not in the schema");
    }
    assert_eq!(seen, members);
}

/// The files hold every byte of every message, so that no byte can change unnoticed.
#[test]
fn the_text_holds_every_byte() {
    let schema = Schema::load();
    for (method, messages) in METHODS {
        for message in messages() {
            let bytes = message.bytes.clone();
            let text = text_of(&schema, method, &[message], &mut BTreeSet::new());
            assert_eq!(annotate::bytes_of(&text), bytes, "{method}");
        }
    }
}

/// Members that no message of a correct peer holds.
const NEVER_SENT: &[&str] = &["Mode.unknown", "Operation.unset", "AuditOutcome.unknown"];

fn check(method: &str) {
    let (_, messages) = METHODS.iter().find(|(name, _)| *name == method).unwrap();
    let text = text_of(&Schema::load(), method, &messages(), &mut BTreeSet::new());
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(method, text));
}

fn text_of(
    schema: &Schema,
    method: &str,
    messages: &[Message],
    seen: &mut BTreeSet<String>,
) -> String {
    let method = schema.methods().into_iter().find(|found| found.name == method).unwrap();
    let mut text = String::new();
    for message in messages {
        let (kind, id) = match message.is_result {
            false => ("request", method.params),
            true => ("result", method.results),
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("# {} {kind}: {}\n", method.name, message.title));
        text.push_str(&annotate::annotate(schema, id, &message.bytes, seen));
    }
    text
}

//! Stands in front of the server objects, and counts how each call ends.

use alloc::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{DispatchCallResult, FromServer, Params, Promise, Results, Server};
use capnp::traits::HasTypeId as _;
use statefs::{ErrorCode, directory, revoker, state_fs};

use crate::figures::{CANCELLED, OK, OTHER};
use crate::session::{Caller, Shared};

/// Makes a capability of a server object whose calls are counted.
pub(super) fn serve<C: FromServer<S>, S>(caller: &Caller, server: S) -> C {
    let (server, shared) = (C::from_server(Rc::new(server)), caller.shared.clone());
    vat::new_client_of(Counted { server, shared })
}

#[derive(Clone)]
struct Counted<S> {
    server: S,
    shared: Rc<Shared>,
}

impl<S: Server> Server for Counted<S> {
    fn dispatch_call(
        self,
        interface_id: u64,
        method_id: u16,
        params: Params<any_pointer::Owned>,
        results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        let Self { server, shared } = self;
        let mut call = Call { shared, method: method(interface_id, method_id), outcome: CANCELLED };
        let DispatchCallResult { promise, is_streaming, .. } =
            server.dispatch_call(interface_id, method_id, params, results);
        let counted = Promise::from_future(async move {
            let result = promise.await.map_err(coded);
            call.end(&result);
            result
        });
        DispatchCallResult::new(counted, is_streaming)
    }

    fn as_ptr(&self) -> usize {
        self.server.as_ptr()
    }
}

/// Gives what generated code answers to a method that it does not know the code of the schema: without one a call that would
/// write leaves open whether it did.
fn coded(error: capnp::Error) -> capnp::Error {
    let code = ErrorCode::Unimplemented;
    let bare = error.kind == code.kind() && ErrorCode::of_reason(&error.extra).is_none();
    if bare { code.error("this server has no such method") } else { error }
}

/// A call, counted when it is dropped, however it ended.
struct Call {
    shared: Rc<Shared>,
    method: &'static str,
    outcome: &'static str,
}

impl Call {
    fn end(&mut self, result: &Result<(), capnp::Error>) {
        self.outcome = result.as_ref().map_or_else(outcome, |()| OK);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.tally.request(self.method, self.outcome);
    }
}

fn outcome(error: &capnp::Error) -> &'static str {
    ErrorCode::of_reason(&error.extra).map_or(OTHER, ErrorCode::text)
}

/// The name of a method; of those that the schema does not have, one for all.
fn method(interface_id: u64, method_id: u16) -> &'static str {
    let methods = METHODS.iter().find(|(id, _)| *id == interface_id).map(|(_, methods)| *methods);
    methods.and_then(|methods| methods.get(usize::from(method_id))).copied().unwrap_or(OTHER)
}

/// The methods of each interface, by their numbers.
const METHODS: &[(u64, &[&str])] = &[
    (
        state_fs::Client::TYPE_ID,
        &["StateFs.hello", "StateFs.health", "StateFs.open", "StateFs.describe", "StateFs.admin"],
    ),
    (
        directory::Client::TYPE_ID,
        &[
            "Directory.get",
            "Directory.put",
            "Directory.delete",
            "Directory.list",
            "Directory.sync",
            "Directory.getMany",
            "Directory.commit",
            "Directory.writer",
            "Directory.reader",
            "Directory.restrict",
            "Directory.usage",
        ],
    ),
    (statefs::writer::Client::TYPE_ID, &["Writer.write", "Writer.done"]),
    (statefs::reader::Client::TYPE_ID, &["Reader.info", "Reader.read"]),
    (revoker::Client::TYPE_ID, &["Revoker.revoke"]),
    (
        statefs::admin::Client::TYPE_ID,
        &["Admin.stats", "Admin.check", "Admin.checkpoint", "Admin.reloadPolicy", "Admin.audit"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use capnp::message::ReaderOptions;
    use capnp::schema_capnp::{code_generator_request, node};

    /// What methods return that are declared `-> stream`.
    const STREAM_RESULT: u64 = 0x995f_9a33_77c0_b16e;

    #[test]
    fn every_method_of_the_schema_has_its_name() {
        let mut image = statefs::SCHEMA_IMAGE;
        let message = capnp::serialize::read_message(&mut image, ReaderOptions::new()).unwrap();
        let request: code_generator_request::Reader<'_> = message.get_root().unwrap();
        let mut count = 0;
        for node in request.get_nodes().unwrap() {
            let node::Interface(interface) = node.which().unwrap() else { continue };
            let full = node.get_display_name().unwrap().to_str().unwrap();
            let Some((_, name)) = full.rsplit_once("statefs.capnp:") else { continue };
            let methods = interface.get_methods().unwrap();
            let names: Vec<String> = methods
                .iter()
                .map(|method| format!("{name}.{}", method.get_name().unwrap().to_str().unwrap()))
                .collect();
            for (id, expected) in names.iter().enumerate() {
                assert_eq!(method(node.get_id(), u16::try_from(id).unwrap()), *expected);
                count += 1;
            }
            for (id, method) in (0..).zip(methods.iter()) {
                let streams = method.get_result_struct_type() == STREAM_RESULT;
                assert_eq!(
                    super::super::stream::streams(node.get_id(), id),
                    streams,
                    "{name} {id}"
                );
            }
            assert_eq!(method(node.get_id(), u16::try_from(names.len()).unwrap()), OTHER);
        }
        assert_eq!(count, METHODS.iter().map(|(_, methods)| methods.len()).sum::<usize>());
        assert_eq!(method(7, 0), OTHER);
    }

    #[test]
    fn outcomes_are_codes() {
        let error = |text: &str| capnp::Error::failed(text.into());
        assert_eq!(outcome(&error("ACCESS_DENIED")), "ACCESS_DENIED");
        assert_eq!(outcome(&error("QUOTA_EXCEEDED: a quota allows 3 keys")), "QUOTA_EXCEEDED");
        assert_eq!(outcome(&error("/state/secret")), OTHER);
    }
}

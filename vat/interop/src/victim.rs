//! A server's vat that a test writes raw messages to, and the messages.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test stops where it fails, and its numbers are small"
)]
use crate::echo_capnp::echo;
use crate::server::{Counts, EchoServer, Host};
use crate::world::Runtime;
use capnp::traits::ImbueMut;
use capnp_rpc::rpc_capnp::{exception, message, payload, return_};
use std::rc::Rc;
use vat::{Limits, Vat};

/// The interface of the bootstrap object.
pub const ECHO: u64 = <echo::Client as capnp::traits::HasTypeId>::TYPE_ID;
/// Method `echo`.
pub const ECHO_ECHO: u16 = 0;
/// Method `makeCounter`.
pub const ECHO_MAKE_COUNTER: u16 = 1;
/// Method `write`.
pub const ECHO_WRITE: u16 = 3;
/// Method `done`.
pub const ECHO_DONE: u16 = 4;
/// Method `callMe`.
pub const ECHO_CALL_ME: u16 = 7;
/// Method `bounce`.
pub const ECHO_BOUNCE: u16 = 8;
/// Method `never`.
pub const ECHO_NEVER: u16 = 10;
/// Method `counters`.
pub const ECHO_COUNTERS: u16 = 12;
/// Method `again`.
pub const ECHO_AGAIN: u16 = 17;
/// Method `blob`.
pub const ECHO_BLOB: u16 = 13;

/// A server's vat, and a hand that writes raw messages to it.
pub struct Victim {
    /// The vat under attack.
    pub vat: Vat,
    /// What its server counted.
    pub counts: Rc<Counts>,
}

/// What came back, in short.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Results of a question.
    Results(u32),
    /// An exception for a question: its type and reason.
    Exception(u32, exception::Type, String),
    /// A question that was cancelled.
    Canceled(u32),
    /// A capability given back, and how many references to it.
    Release(u32, u32),
    /// Something that the vat does not implement.
    Unimplemented,
    /// The end of the connection, and why.
    Abort(String),
    /// Anything else.
    Other,
}

impl Default for Victim {
    fn default() -> Victim {
        Victim::with(Limits::default())
    }
}

impl Victim {
    /// A victim whose peer has asked for the bootstrap capability, which is export 0.
    pub fn with(limits: Limits) -> Victim {
        let counts = Rc::new(Counts::default());
        let host = Host::of(Runtime::Vat);
        let object = (host.echo)(EchoServer::new(host, counts.clone()));
        let victim = Victim { vat: Vat::new(Some(object.client), limits), counts };
        victim.send(|m| m.init_bootstrap().set_question_id(0)).unwrap();
        assert_eq!(victim.replies(), [Reply::Results(0)]);
        victim.finish(0, false).unwrap();
        victim
    }

    /// Gives the vat one message.
    pub fn send(&self, write: impl FnOnce(message::Builder<'_>)) -> Result<(), capnp::Error> {
        self.vat.receive(&frame(write))
    }

    /// Finishes a question.
    pub fn finish(&self, question: u32, release: bool) -> Result<(), capnp::Error> {
        self.send(|m| {
            let mut finish = m.init_finish();
            finish.set_question_id(question);
            finish.set_release_result_caps(release);
        })
    }

    /// Runs the vat's tasks for a while.
    pub fn run(&self) {
        for _ in 0..1000 {
            self.vat.poll(10);
        }
    }

    /// Takes the output apart.
    pub fn replies(&self) -> Vec<Reply> {
        replies(&self.vat.take_output())
    }
}

fn replies(mut output: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !output.is_empty() {
        let mut options = capnp::message::ReaderOptions::new();
        options.traversal_limit_in_words(None);
        let message = capnp::serialize::read_message(&mut output, options).unwrap();
        replies.push(reply(message.get_root().unwrap()).unwrap());
    }
    replies
}

fn reply(root: message::Reader<'_>) -> Result<Reply, capnp::Error> {
    Ok(match root.which()? {
        message::Return(returned) => {
            let returned = returned?;
            let id = returned.get_answer_id();
            match returned.which()? {
                return_::Results(_) => Reply::Results(id),
                return_::Canceled(()) => Reply::Canceled(id),
                return_::Exception(exception) => {
                    let exception = exception?;
                    let reason = exception.get_reason()?.to_string()?;
                    Reply::Exception(id, exception.get_type()?, reason)
                }
                _ => Reply::Other,
            }
        }
        message::Release(release) => {
            let release = release?;
            Reply::Release(release.get_id(), release.get_reference_count())
        }
        message::Unimplemented(_) => Reply::Unimplemented,
        message::Abort(exception) => Reply::Abort(exception?.get_reason()?.to_string()?),
        _ => Reply::Other,
    })
}

/// One message, framed.
pub fn frame(write: impl FnOnce(message::Builder<'_>)) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    write(message.init_root());
    let mut bytes = Vec::new();
    capnp::serialize::write_message(&mut bytes, &message).unwrap();
    bytes
}

/// A call of the bootstrap object whose parameters are `numbers`.
pub fn call(m: message::Builder<'_>, question: u32, method: u16, numbers: u64) {
    let mut call = m.init_call();
    call.set_question_id(question);
    call.set_interface_id(ECHO);
    call.set_method_id(method);
    call.reborrow().init_target().set_imported_cap(0);
    let content = call.init_params().get_content();
    // Every parameter struct that is used here starts with its numbers.
    let mut params = content.init_as::<echo::blob_params::Builder<'_>>();
    params.set_bytes((numbers & 0xffff_ffff) as u32);
    params.set_ticks((numbers >> 32) as u32);
}

/// A call of a `blob` of so many bytes from the object that question 1 returns.
pub fn pipelined_blob(m: message::Builder<'_>, question: u32, bytes: u32) {
    let content = pipelined(m, question, ECHO_BLOB);
    content.init_as::<echo::blob_params::Builder<'_>>().set_bytes(bytes);
}

/// A call of `write` with so many bytes on the object that question 1 returns.
pub fn pipelined_write(m: message::Builder<'_>, question: u32, bytes: u32) {
    let content = pipelined(m, question, ECHO_WRITE);
    content.init_as::<echo::write_params::Builder<'_>>().init_chunk(bytes);
}

/// A call of `done` on the object that question 1 returns.
pub fn pipelined_done(m: message::Builder<'_>, question: u32) {
    pipelined(m, question, ECHO_DONE);
}

/// A call of a method of the object that question 1 returns; yields its parameters.
fn pipelined(
    m: message::Builder<'_>,
    question: u32,
    method: u16,
) -> capnp::any_pointer::Builder<'_> {
    let mut call = m.init_call();
    call.set_question_id(question);
    call.set_interface_id(ECHO);
    call.set_method_id(method);
    let mut promised = call.reborrow().init_target().init_promised_answer();
    promised.set_question_id(1);
    promised.init_transform(1).get(0).set_get_pointer_field(0);
    call.init_params().get_content()
}

/// A call of `echo` with so many bytes.
pub fn echo_call(m: message::Builder<'_>, question: u32, bytes: usize) {
    let mut call = m.init_call();
    call.set_question_id(question);
    call.set_interface_id(ECHO);
    call.set_method_id(ECHO_ECHO);
    call.reborrow().init_target().set_imported_cap(0);
    let content = call.init_params().get_content();
    content.init_as::<echo::echo_params::Builder<'_>>().init_data(bytes as u32);
}

/// Whether a call was refused for a limit of its connection.
pub fn is_overloaded(reply: &Reply) -> bool {
    matches!(reply, Reply::Exception(_, exception::Type::Overloaded, reason)
        if reason.starts_with("OVERLOADED"))
}

/// Sends one message that ends the connection, and tells the reason that the peer is told.
pub fn abort_reason(victim: &Victim, write: impl FnOnce(message::Builder<'_>)) -> String {
    assert!(victim.send(write).is_err());
    match victim.replies().pop() {
        Some(Reply::Abort(reason)) => reason,
        other => panic!("no abort: {other:?}"),
    }
}

/// Writes parameters whose first pointer is capability 4 of the caller's, after one number.
pub fn write_callback(mut params: payload::Builder<'_>, n: u32) {
    params.reborrow().init_cap_table(1).get(0).set_sender_hosted(4);
    let mut caps = Vec::new();
    let mut content = params.reborrow().get_content();
    content.imbue_mut(&mut caps);
    let mut call_me = content.init_as::<echo::call_me_params::Builder<'_>>();
    call_me.set_n(n);
    call_me.set_callback((Host::of(Runtime::Vat).callback)(Default::default()));
}

/// A call whose parameters name these capabilities of the caller's.
pub fn call_with_caps(m: message::Builder<'_>, question: u32, ids: std::ops::Range<u32>) {
    let mut call = m.init_call();
    call.set_question_id(question);
    call.set_interface_id(ECHO);
    call.set_method_id(ECHO_NEVER);
    call.reborrow().init_target().set_imported_cap(0);
    let mut table = call.init_params().init_cap_table(ids.len() as u32);
    for (index, id) in (0..).zip(ids) {
        table.reborrow().get(index).set_sender_hosted(id);
    }
}

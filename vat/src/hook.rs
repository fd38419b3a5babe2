//! The one module that names capnp's `private` hook traits, the seam between generated code and a
//! runtime. They are not covered by a promise of stability: a new version of capnp is checked here.
pub(crate) use capnp::private::capability::{
    ClientHook, ParamsHook, PipelineHook, PipelineOp, RequestHook, ResponseHook, ResultsHook,
};

use alloc::boxed::Box;
use alloc::vec::Vec;
use capnp::any_pointer;
use capnp::capability::Request;

/// A capability of any kind.
pub(crate) type Cap = Box<dyn ClientHook>;
/// The capabilities that belong to one message, in the order of its table.
pub(crate) type Caps = Vec<Option<Cap>>;
/// A call whose types this crate does not know.
pub(crate) type AnyRequest = Request<any_pointer::Owned, any_pointer::Owned>;

/// Brand of capabilities hosted in this address space. A connection's brand is its address.
pub(crate) const LOCAL_BRAND: usize = 0;
/// Brand of capabilities that only fail. No connection has it, for addresses are even.
pub(crate) const BROKEN_BRAND: usize = 1;

/// Follows resolved promises to the capability behind them. Ends, for [`crate::promise`] and [`crate::pipeline`] admit no
/// cycle.
pub(crate) fn settled(mut cap: Cap) -> Cap {
    while let Some(next) = cap.get_resolved() {
        cap = next;
    }
    cap
}

//! Small conversions between protocol messages and values.
use crate::frame::Incoming;
use crate::hook::PipelineOp;
use crate::limits::{NESTING_MAX, REASON_BYTES_MAX, TRANSFORM_MAX};
use crate::rpc_capnp::{exception, message, message_target, promised_answer};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::{Error, ErrorKind};

/// A message being built. Its memory grows with what is written into it.
pub(crate) type Outgoing = Builder<HeapAllocator>;

/// A builder whose first segment fits most calls and results.
pub(crate) fn builder() -> Outgoing {
    Builder::new(HeapAllocator::new().first_segment_words(FIRST_SEGMENT_WORDS))
}

/// Where a call of ours goes, as the peer names it.
#[derive(Clone)]
pub(crate) enum Target {
    Import(u32),
    Answer(u32, Vec<PipelineOp>),
}

impl Target {
    pub(crate) fn write(&self, mut target: message_target::Builder<'_>) {
        match self {
            Target::Import(id) => target.set_imported_cap(*id),
            Target::Answer(question, ops) => {
                write_ops(target.init_promised_answer(), *question, ops);
            }
        }
    }
}

/// Writes an error: its kind as the type, its text verbatim as the reason.
pub(crate) fn write_exception(error: &Error, mut exception: exception::Builder<'_>) {
    let kind = match error.kind {
        ErrorKind::Overloaded => exception::Type::Overloaded,
        ErrorKind::Disconnected => exception::Type::Disconnected,
        ErrorKind::Unimplemented => exception::Type::Unimplemented,
        _ => exception::Type::Failed,
    };
    // Errors of decoding have a kind of their own and often no text.
    let described;
    let reason = if error.extra.is_empty() {
        described = error.kind.to_string();
        &described
    } else {
        &error.extra
    };
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    exception.set_reason(reason.get(..end).unwrap_or_default());
    exception.set_type(kind);
}

/// Reads an exception of the peer; the reason is [`Error::extra`], verbatim.
pub(crate) fn read_exception(exception: exception::Reader<'_>) -> Error {
    let kind = match exception.get_type() {
        Ok(exception::Type::Overloaded) => ErrorKind::Overloaded,
        Ok(exception::Type::Disconnected) => ErrorKind::Disconnected,
        Ok(exception::Type::Unimplemented) => ErrorKind::Unimplemented,
        _ => ErrorKind::Failed,
    };
    let reason = exception.get_reason().map(|text| text.as_bytes()).unwrap_or_default();
    let end = reason.len().min(REASON_BYTES_MAX);
    let extra = String::from_utf8_lossy(reason.get(..end).unwrap_or_default()).into_owned();
    Error { kind, extra }
}

/// Reads the path to a capability in an answer.
pub(crate) fn read_ops(promised: promised_answer::Reader<'_>) -> Result<Vec<PipelineOp>, Error> {
    let transform = promised.get_transform()?;
    if transform.len() > TRANSFORM_MAX {
        return Err(failed("the transform of a promised answer is too long"));
    }
    let mut ops = Vec::new();
    for op in transform {
        ops.push(match op.which()? {
            promised_answer::op::Noop(()) => PipelineOp::Noop,
            promised_answer::op::GetPointerField(index) => PipelineOp::GetPointerField(index),
        });
    }
    Ok(ops)
}

pub(crate) fn write_ops(
    mut promised: promised_answer::Builder<'_>,
    question: u32,
    ops: &[PipelineOp],
) {
    promised.set_question_id(question);
    let count = u32::try_from(ops.len()).expect("a path is bounded by the nesting of its schema");
    let mut transform = promised.init_transform(count);
    for (index, op) in (0u32..).zip(ops) {
        let mut written = transform.reborrow().get(index);
        match op {
            PipelineOp::Noop => written.set_noop(()),
            PipelineOp::GetPointerField(field) => written.set_get_pointer_field(*field),
        }
    }
}

pub(crate) fn same_ops(a: &[PipelineOp], b: &[PipelineOp]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (PipelineOp::Noop, PipelineOp::Noop) => true,
            (PipelineOp::GetPointerField(a), PipelineOp::GetPointerField(b)) => a == b,
            _ => false,
        })
}

/// Builds the answer to a message that this vat does not handle: its echo, so that the peer knows
/// which, or an empty one if the message is large.
pub(crate) fn write_unimplemented(message: Incoming, out: &mut Outgoing) {
    let message = read_little(message);
    let message = message.get_root::<message::Reader<'_>>().ok();
    let small = message.filter(|message| {
        message.total_size().is_ok_and(|size| size.word_count <= ECHO_WORDS_MAX as u64)
    });
    let mut root = out.init_root::<message::Builder<'_>>();
    if small.is_none_or(|message| root.set_unimplemented(message).is_err()) {
        root.init_unimplemented();
    }
}

/// Yields the same message, of which no more can be read than a small one has, counting repeats: a few words that lead to each
/// other can stand for a message that takes long to walk.
fn read_little(message: Incoming) -> Incoming {
    let mut options = ReaderOptions::new();
    // Once to see how large it is, and once to copy it.
    options.traversal_limit_in_words(Some(2 * ECHO_WORDS_MAX)).nesting_limit(NESTING_MAX);
    Reader::new(message.into_segments(), options)
}

pub(crate) fn failed(text: &str) -> Error {
    Error::failed(text.into())
}

/// First segment of a message, in words: 512 bytes.
const FIRST_SEGMENT_WORDS: u32 = 64;
/// Largest message echoed as unimplemented: a `Resolve` has far less.
const ECHO_WORDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameBuffer;
    use crate::limits::Limits;

    fn through_the_wire(error: &Error) -> Error {
        let mut message = builder();
        write_exception(error, message.init_root());
        read_exception(message.get_root_as_reader().unwrap())
    }

    #[test]
    fn kind_and_reason_survive_verbatim() {
        for (kind, seen) in [
            (ErrorKind::Failed, ErrorKind::Failed),
            (ErrorKind::Overloaded, ErrorKind::Overloaded),
            (ErrorKind::Disconnected, ErrorKind::Disconnected),
            (ErrorKind::Unimplemented, ErrorKind::Unimplemented),
            (ErrorKind::EmptyBuffer, ErrorKind::Failed),
        ] {
            let error = through_the_wire(&Error { kind, extra: "CODE: why".into() });
            assert_eq!((error.kind, &error.extra[..]), (seen, "CODE: why"));
        }
    }

    #[test]
    fn a_reason_is_never_empty_nor_endless() {
        let bare = through_the_wire(&Error::from_kind(ErrorKind::EmptyBuffer));
        assert_eq!(bare.extra, "empty buffer");
        let long = through_the_wire(&Error::failed("ä".repeat(REASON_BYTES_MAX)));
        assert_eq!(long.extra, "ä".repeat(REASON_BYTES_MAX / 2));
    }

    #[test]
    fn paths_are_compared_and_bounded() {
        let path = [PipelineOp::Noop, PipelineOp::GetPointerField(3)];
        let mut message = builder();
        write_ops(message.init_root(), 7, &path);
        let read = read_ops(message.get_root_as_reader().unwrap()).unwrap();
        assert!(same_ops(&read, &path));
        assert!(!same_ops(&read, &path[..1]));
        assert!(!same_ops(&read, &[PipelineOp::Noop, PipelineOp::GetPointerField(4)]));
        let mut message = builder();
        write_ops(message.init_root(), 7, &[PipelineOp::Noop; TRANSFORM_MAX as usize + 1]);
        assert!(read_ops(message.get_root_as_reader().unwrap()).is_err());
    }

    /// A message of an unknown kind in which each list of `width` pointers leads `width` times to the next one.
    fn tangle(width: u32, depth: u32) -> Incoming {
        let list = |offset: u32| u64::from(offset << 2 | 1) | u64::from(width << 3 | 6) << 32;
        let mut words = Vec::from([1 << 32 | 1 << 48, 200, list(0)]);
        for level in 0..depth {
            for at in 0..width {
                words.push(if level + 1 == depth { 0 } else { list(width - 1 - at) });
            }
        }
        let mut frame = Vec::from([0; 4]);
        frame.extend(u32::try_from(words.len()).unwrap().to_le_bytes());
        frame.extend(words.iter().flat_map(|word: &u64| word.to_le_bytes()));
        let message = FrameBuffer::default().next(&mut &frame[..], &Limits::default());
        message.unwrap().unwrap()
    }

    /// Walking such a message to the end of what may be read takes milliseconds, so a buffer of them would keep every other
    /// connection waiting.
    #[test]
    fn what_is_not_implemented_is_not_walked() {
        let words = |message: &Incoming| {
            let root = message.get_root::<message::Reader<'_>>();
            root.and_then(|root| root.total_size()).map(|size| size.word_count)
        };
        assert!(words(&tangle(4, 7)).unwrap() > 4_u64.pow(7), "some words stand for many");
        let walked = words(&read_little(tangle(4, 7)));
        assert_eq!(walked.map_err(|error| error.kind), Err(ErrorKind::ReadLimitExceeded));
        let mut echo = builder();
        write_unimplemented(tangle(4, 7), &mut echo);
        let bytes: usize = echo.get_segments_for_output().iter().map(|segment| segment.len()).sum();
        assert!(bytes < 64, "it is answered without its contents");
    }
}

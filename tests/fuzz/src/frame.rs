//! Frames and messages: a peer's bytes, cut anywhere, end at most its own connection, within the limits.

use vat_interop::victim::Victim;

/// Gives the bytes to a server's vat in one piece, and to another in pieces whose sizes the first byte tells.
///
/// # Panics
/// When both end differently, or a limit is passed.
pub fn run(bytes: &[u8]) {
    let Some((first, stream)) = bytes.split_first() else {
        return;
    };
    let whole = feed(stream, stream.len().max(1));
    let pieces = feed(stream, usize::from(*first) + 1);
    assert_eq!(whole, pieces, "where a stream is cut changes nothing");
}

/// Yields whether the connection ended.
fn feed(stream: &[u8], piece_bytes: usize) -> bool {
    let victim = Victim::default();
    let mut ended = false;
    for piece in stream.chunks(piece_bytes) {
        ended |= victim.vat.receive(piece).is_err();
        if ended {
            break;
        }
    }
    victim.vat.poll(1000);
    drop(victim.vat.take_output());
    let limits = vat::Limits::default();
    let stats = victim.vat.stats();
    assert!(stats.exports <= limits.exports && stats.imports <= limits.imports, "{stats:?}");
    assert!(stats.answers <= limits.answers && stats.calls <= limits.calls, "{stats:?}");
    ended
}

//! What a port adds to the bytes of a connection: where one begins and where it ends.
//!
//! A port of the machine stays open while the clients at its other end come and go, and a client that
//! went away may leave half of a message behind. So each direction of a port is a stream in which one
//! byte, [`ESCAPE`], is special, and the byte behind it says what it means:
//!
//! | behind `1B` | meaning |
//! |---|---|
//! | `00` | the byte `1B` of the connection's own bytes |
//! | `01` and 16 hex digits | a connection begins; what lay before it belongs to none |
//! | `02` | the connection has ended |
//! | `1B` | an escape that was cut off before; this one counts |
//!
//! A client sends a beginning with digits of its own choice again and again until the same one comes
//! back; then both sides send bytes of Cap'n Proto, in which every `1B` is doubled as above. A
//! beginning cannot be part of a message, so neither side ever takes a remainder of an old connection
//! for the new one, in whatever order a machine reports bytes and events.

use alloc::vec::Vec;

/// The byte that is never part of a message as it is.
pub const ESCAPE: u8 = 0x1B;

/// Digits that name a connection.
pub const NONCE_BYTES: usize = 16;

/// Names a connection: hex digits.
pub type Nonce = [u8; NONCE_BYTES];

const LITERAL: u8 = 0;
const BEGIN: u8 = 1;
const END: u8 = 2;

/// What a decoder found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// Bytes of the connection.
    Data(&'a [u8]),
    /// A connection begins.
    Begin(Nonce),
    /// The connection has ended, or what came makes no sense.
    End,
}

/// Appends the bytes of a connection to `out`.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    for part in data.split_inclusive(|byte| *byte == ESCAPE) {
        out.extend_from_slice(part);
        if part.last() == Some(&ESCAPE) {
            out.push(LITERAL);
        }
    }
}

/// Appends the beginning of a connection to `out`.
pub fn begin(nonce: &Nonce, out: &mut Vec<u8>) {
    out.extend_from_slice(&[ESCAPE, BEGIN]);
    out.extend_from_slice(nonce);
}

/// Appends the end of a connection to `out`.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[ESCAPE, END]);
}

/// Takes one direction of a port apart, cut anywhere.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Plain,
    Escaped,
    /// So many digits of a beginning have come.
    Nonce(Nonce, usize),
}

impl Decoder {
    /// Hands what `bytes` hold to `each`, in order.
    pub fn decode(&mut self, bytes: &[u8], mut each: impl FnMut(Item<'_>)) {
        let mut rest = bytes;
        while let Some((&first, behind)) = rest.split_first() {
            match self.state {
                State::Plain => {
                    let plain = rest.iter().position(|byte| *byte == ESCAPE);
                    let (data, escaped) = rest.split_at(plain.unwrap_or(rest.len()));
                    if !data.is_empty() {
                        each(Item::Data(data));
                    }
                    rest = escaped.get(1..).unwrap_or_default();
                    if plain.is_some() {
                        self.state = State::Escaped;
                    }
                    continue;
                }
                State::Escaped => self.escaped(first, &mut each),
                State::Nonce(nonce, count) => self.digit(nonce, count, first, &mut each),
            }
            rest = behind;
        }
    }

    fn escaped(&mut self, byte: u8, each: &mut impl FnMut(Item<'_>)) {
        self.state = match byte {
            ESCAPE => State::Escaped,
            BEGIN => State::Nonce([0; NONCE_BYTES], 0),
            _ => State::Plain,
        };
        match byte {
            ESCAPE | BEGIN => {}
            LITERAL => each(Item::Data(&[ESCAPE])),
            _ => each(Item::End),
        }
    }

    fn digit(&mut self, mut nonce: Nonce, count: usize, byte: u8, each: &mut impl FnMut(Item<'_>)) {
        if byte == ESCAPE {
            self.state = State::Escaped;
            return;
        }
        let Some(place) = nonce.get_mut(count).filter(|_| byte.is_ascii_hexdigit()) else {
            self.state = State::Plain;
            return each(Item::End);
        };
        *place = byte;
        self.state = State::Nonce(nonce, count + 1);
        if count + 1 == NONCE_BYTES {
            self.state = State::Plain;
            each(Item::Begin(nonce));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const ONE: Nonce = *b"0123456789abcdef";
    const TWO: Nonce = *b"fedcba9876543210";

    #[derive(PartialEq, Eq, Debug)]
    enum Found {
        Data(Vec<u8>),
        Begin(Nonce),
        End,
    }

    /// Decodes `bytes` in pieces of `piece`, and joins data that lies side by side.
    fn decode(bytes: &[u8], piece: usize) -> Vec<Found> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for bytes in bytes.chunks(piece) {
            decoder.decode(bytes, |item| match (item, found.last_mut()) {
                (Item::Data(more), Some(Found::Data(data))) => data.extend_from_slice(more),
                (Item::Data(data), _) => found.push(Found::Data(data.to_vec())),
                (Item::Begin(nonce), _) => found.push(Found::Begin(nonce)),
                (Item::End, _) => found.push(Found::End),
            });
        }
        found
    }

    #[test]
    fn every_byte_passes_however_it_is_cut() {
        let mut data: Vec<u8> = (0..=255).collect();
        data.extend([ESCAPE, ESCAPE, BEGIN, ESCAPE, END, ESCAPE]);
        let mut bytes = Vec::new();
        begin(&ONE, &mut bytes);
        encode(&data, &mut bytes);
        end(&mut bytes);
        for piece in 1..=bytes.len() {
            let expected = [Found::Begin(ONE), Found::Data(data.clone()), Found::End];
            assert_eq!(decode(&bytes, piece), expected, "in pieces of {piece}");
        }
    }

    /// Whatever an old connection left, cut at any byte, the next one begins cleanly.
    #[test]
    fn a_beginning_is_found_behind_every_remainder() {
        let mut old = Vec::new();
        begin(&ONE, &mut old);
        encode(&[1, ESCAPE, 2, ESCAPE, ESCAPE], &mut old);
        end(&mut old);
        for cut in 0..=old.len() {
            let mut bytes = old[..cut].to_vec();
            begin(&TWO, &mut bytes);
            encode(b"new", &mut bytes);
            let found = decode(&bytes, 3);
            let at = found.iter().position(|found| *found == Found::Begin(TWO));
            let at = at.unwrap_or_else(|| panic!("cut at {cut}: {found:?}"));
            assert_eq!(found[at + 1..], [Found::Data(b"new".to_vec())], "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_ends_the_connection() {
        assert_eq!(decode(&[ESCAPE, 3], 1), [Found::End]);
        assert_eq!(decode(&[ESCAPE, BEGIN, b'x', b'y'], 1), [Found::End, Found::Data(vec![b'y'])]);
    }
}

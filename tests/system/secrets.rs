//! Finds secrets in what must not hold any, in whatever form they got there.

use std::collections::HashMap;

/// Bytes of a secret of which any run is found.
const WINDOW_BYTES: usize = 8;

/// Everything that may not be seen.
#[derive(Default)]
pub struct Secrets {
    /// By their first eight bytes, the forms that begin with them.
    forms: HashMap<[u8; WINDOW_BYTES], Vec<Vec<u8>>>,
}

impl Secrets {
    /// Adds one, in every form that a program would show bytes in.
    pub fn add(&mut self, secret: &[u8]) {
        assert!(secret.len() >= WINDOW_BYTES);
        for window in secret.windows(WINDOW_BYTES) {
            for form in forms(window) {
                let start = *form.first_chunk().expect("no form is shorter than what it shows");
                self.forms.entry(start).or_default().push(form);
            }
        }
    }

    /// Yields what of them is in `bytes` first, as text, with what is around it.
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let place = bytes.windows(WINDOW_BYTES).enumerate().find_map(|(at, window)| {
            let forms = self.forms.get(window)?;
            forms.iter().any(|form| bytes[at..].starts_with(form)).then_some(at)
        })?;
        let around = place.saturating_sub(100)..bytes.len().min(place + 100);
        Some(String::from_utf8_lossy(&bytes[around]).into_owned())
    }
}

/// Eight bytes as they are, in both cases of hex, as numbers, escaped, wide, and inside of base64.
fn forms(window: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = window.iter().map(u8::to_string).collect();
    let wide = |text: &[u8], first: bool| -> Vec<u8> {
        let pair = |byte: &u8| if first { [*byte, 0] } else { [0, *byte] };
        text.iter().flat_map(pair).collect()
    };
    let mut forms = vec![
        window.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        numbers.join(", ").into_bytes(),
        numbers.join(",").into_bytes(),
        window.escape_ascii().collect(),
        wide(window, true),
        wide(window, false),
    ];
    forms.extend((0..3).map(|before| base64_inside(window, before)));
    forms
}

/// The characters of a base64 text that `window` alone decides, `before` bytes behind a group's
/// start.
fn base64_inside(window: &[u8], before: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| usize::from(window[at / 8] >> (7 - at % 8) & 1);
    let first = (before * 8).div_ceil(6);
    let end = (before + window.len()) * 8 / 6;
    let letter = |at: usize| (0..6).fold(0, |sum, n| sum * 2 + bit(at * 6 + n - before * 8));
    (first..end).map(|at| LETTERS[letter(at)]).collect()
}

#[test]
fn a_secret_is_found_in_every_form_and_wherever_it_is_cut() {
    let secret = b"q7Zk2mXw9Rt4Lp0Yc8Vb3Nf6Jh1Gd5Sa";
    let mut secrets = Secrets::default();
    secrets.add(secret);
    let check = |text: &[u8]| {
        let text = [b"2026 INFO said: ", text, b" and more"].concat();
        assert!(secrets.find(&text).is_some(), "{}", String::from_utf8_lossy(&text));
    };
    check(secret);
    check(&secret[5..13]);
    check(format!("{:?}", &secret[3..20]).as_bytes());
    check(secret.iter().map(|byte| format!("{byte:02X}")).collect::<String>().as_bytes());
    check(&secret.iter().flat_map(|byte| [*byte, 0]).collect::<Vec<_>>());
    // By base64(1), with none, one and two bytes before.
    check(b"cTdaazJtWHc5UnQ0THAwWWM4VmIzTmY2SmgxR2Q1U2E=");
    check(b"eHE3WmsybVh3OVJ0NExwMFljOFZiM05mNkpoMUdkNVNh");
    check(b"eHhxN1prMm1YdzlSdDRMcDBZYzhWYjNOZjZKaDFHZDVTYQ==");
    for innocent in
        [&b""[..], b"short", &secret[..7], b"q7Zk2mX, w9Rt4Lp", b"INFO volume open mount=1"]
    {
        assert_eq!(secrets.find(innocent), None);
    }
}

//! Judges the words behind a verb, and tells its help, before anything is built for it.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::{Failure, HELP};

/// Verbs that are programs of their own, and the source of each: its help stands there, and is read there, so that nothing
/// is built to show it, and nothing is listed twice.
const PROGRAMS: [(&str, &str); 3] = [
    ("sim", include_str!("../../tests/sim/bin.rs")),
    ("faults", include_str!("../../tests/faults/bin.rs")),
    ("bench", include_str!("../../bench/src/main.rs")),
];

/// Verbs whose programs tell their help themselves: they are what somebody wants to see built.
const TELLS_ITSELF: &str = "demo";

/// What somebody wants who typed these words.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// The work of the verb, which may know more of its words than was judged.
    Work,
    /// This text.
    Help(String),
    /// Nothing that can be done; the text says what is wrong with it and what is not.
    Unclear(String),
}

/// Judges the words of a call.
pub(crate) fn judge(words: &[&str]) -> Wanted {
    let Some((verb, words)) = words.split_first() else {
        return Wanted::Unclear(format!("name a VERB\n\n{HELP}"));
    };
    if matches!(*verb, "help" | "--help" | "-h") {
        return Wanted::Help(HELP.into());
    }
    let Some(help) = help(verb) else {
        return Wanted::Unclear(format!("there is no verb `{verb}`\n\n{HELP}"));
    };
    if *verb == TELLS_ITSELF {
        return Wanted::Work;
    }
    if words.iter().any(|word| matches!(*word, "--help" | "-h")) {
        return Wanted::Help(help);
    }
    if PROGRAMS.iter().any(|(name, _)| name == verb)
        && let Err(what) = listed(words, &help)
    {
        return Wanted::Unclear(format!("{what}\n\n{help}"));
    }
    Wanted::Work
}

/// Tells that a verb does not know its words.
pub(crate) fn unclear(verb: &str, words: &[&str]) -> Failure {
    let words = words.join(" ");
    Failure::Unclear {
        what: format!("`{verb}` takes no `{words}`"),
        help: help(verb).unwrap_or_default(),
    }
}

/// Prints to whoever still reads.
pub(crate) fn print(text: &str) {
    // Who closed the pipe has seen enough.
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

/// Yields the help of a verb.
fn help(verb: &str) -> Option<String> {
    if let Some((name, source)) = PROGRAMS.iter().find(|(name, _)| *name == verb) {
        let (_, text) = source.split_once("const HELP: &str = \"\\\n")?;
        let (text, _) = text.split_once("\";\n")?;
        return Some(text.replacen(
            &format!("Usage: {name}"),
            &format!("Usage: cargo xtask {name}"),
            1,
        ));
    }
    let (mut lines, mut wanted) = (String::new(), false);
    for line in HELP.lines().skip(1) {
        if line.starts_with("  ") && !line.starts_with("   ") {
            wanted = line.split_ascii_whitespace().next() == Some(verb);
        }
        if wanted {
            writeln!(lines, "{line}").unwrap_or_default();
        }
    }
    (!lines.is_empty()).then(|| format!("Usage: cargo xtask VERB, of which\n\n{lines}"))
}

/// Demands that `help` lists each word at the start of a line, and that one of those with a value has one.
fn listed(words: &[&str], help: &str) -> Result<(), String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let line = help.lines().find_map(|line| {
            let rest = line.strip_prefix("  ")?.strip_prefix(word)?;
            (rest.is_empty() || rest.starts_with(' ')).then_some(rest)
        });
        let Some(rest) = line.filter(|_| !word.is_empty()) else {
            return Err(format!("`{word}` is not known"));
        };
        let value = rest.split_ascii_whitespace().next().filter(|_| !rest.starts_with("  "));
        if let Some(value) = value
            && words.next().is_none()
        {
            return Err(format!("`{word}` wants a value, {value}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str, expected: impl Fn(&Wanted) -> bool) {
        let words: Vec<&str> = words.split(' ').collect();
        let wanted = judge(&words);
        assert!(expected(&wanted), "{words:?}: {wanted:?}");
    }

    #[test]
    fn whoever_asks_for_help_gets_it_and_nothing_else() {
        let begins = |start: &'static str| move |wanted: &Wanted| matches!(wanted, Wanted::Help(help) if help.starts_with(start));
        for verb in ["sim", "faults", "bench"] {
            let start = format!("Usage: cargo xtask {verb} [");
            for words in [format!("{verb} --help"), format!("{verb} -h")] {
                check(
                    &words,
                    |wanted| matches!(wanted, Wanted::Help(help) if help.starts_with(&start)),
                );
            }
        }
        for verb in ["schema", "test", "guest", "fuzz", "polyglot", "bless"] {
            check(
                &format!("{verb} --help"),
                |wanted| matches!(wanted, Wanted::Help(help) if help.contains(&format!("\n  {verb} "))),
            );
        }
        check("--help", begins("Usage: cargo xtask VERB\n"));
        check("sim --seed 5 --help", begins("Usage: cargo xtask sim"));
        // Only what is its own.
        check(
            "polyglot -h",
            |wanted| matches!(wanted, Wanted::Help(help) if help.lines().count() == 3),
        );
    }

    #[test]
    fn what_is_not_known_is_refused_before_anything_is_built() {
        for (words, what) in [
            ("bench nonsense", "`nonsense` is not known\n"),
            ("bench fjall --fast", "`--fast` is not known\n"),
            ("faults flips nonsense", "`nonsense` is not known\n"),
            ("faults Without", "`Without` is not known\n"),
            ("sim --nonsense 5", "`--nonsense` is not known\n"),
            ("sim --crashes", "`--crashes` wants a value, N\n"),
            ("benhc", "there is no verb `benhc`\n"),
        ] {
            check(
                words,
                |wanted| matches!(wanted, Wanted::Unclear(text) if text.starts_with(what)),
            );
        }
    }

    #[test]
    fn what_is_known_is_let_through() {
        for words in [
            "bench",
            "bench cleaning",
            "bench StateFS fjall LMDB SQLite redb",
            "faults traces plants flips blocks pairs repairs astray short histories",
            "sim --served --crashes 5 --threads 2 --first-seed 7 --plant answer-early",
            "sim --seed 5 --keep 1,2 --chance 9 --judge 1",
            "guest --selftest",
            "demo --help",
        ] {
            check(words, |wanted| *wanted == Wanted::Work);
        }
    }
}

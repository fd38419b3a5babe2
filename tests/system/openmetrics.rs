//! A strict reader of OpenMetrics text: it takes less than the format allows, and nothing else.
//! Source: OpenMetrics 1.0, sections "Text format" and "MetricFamily".

use std::collections::{BTreeMap, BTreeSet};

/// Figures by name and labels, as they are written: `statefs_mode{mode="healthy"}`.
pub type Figures = BTreeMap<String, u64>;

/// Most bytes of a text that a collector is bothered with.
const BYTES_MAX: usize = 64 << 10;

/// Reads a whole text.
///
/// # Errors
/// What is wrong with it.
pub fn read(text: &str) -> Result<Figures, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("{} bytes", text.len()));
    }
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end in # EOF")?;
    let mut figures = Figures::new();
    let mut families = BTreeSet::new();
    let mut family: Option<Family> = None;
    for line in body.split_terminator('\n') {
        let wrong = |what: &str| format!("{what}: {line:?}");
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
            if !is_name(name) || !["counter", "gauge"].contains(&kind) {
                return Err(wrong("no name or no type"));
            }
            if !families.insert(name.to_owned()) {
                return Err(wrong("a family of which there was one"));
            }
            family = Some(Family { name: name.into(), kind: kind.into(), seen: Seen::Type });
            continue;
        }
        let family = family.as_mut().ok_or_else(|| wrong("before the first family"))?;
        if let Some(rest) = line.strip_prefix("# UNIT ") {
            let unit = rest.strip_prefix(&*family.name).and_then(|rest| rest.strip_prefix(' '));
            let unit = unit.filter(|unit| family.name.ends_with(&format!("_{unit}")));
            unit.filter(|_| family.seen == Seen::Type).ok_or_else(|| wrong("not its unit"))?;
            family.seen = Seen::Unit;
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let help = rest.strip_prefix(&*family.name).and_then(|rest| rest.strip_prefix(' '));
            let plain = |help: &&str| !help.is_empty() && !help.contains(['\\', '"']);
            help.filter(plain).filter(|_| family.seen < Seen::Help).ok_or_else(|| wrong("help"))?;
            family.seen = Seen::Help;
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
            let value = value.parse().map_err(|_| wrong("the value"))?;
            family.check_series(series).ok_or_else(|| wrong("the name or a label"))?;
            family.seen = Seen::Sample;
            if figures.insert(series.into(), value).is_some() {
                return Err(wrong("the same figure again"));
            }
        }
    }
    Ok(figures)
}

struct Family {
    name: String,
    kind: String,
    seen: Seen,
}

/// What was seen last of a family; the order is fixed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Type,
    Unit,
    Help,
    Sample,
}

impl Family {
    fn check_series(&self, series: &str) -> Option<()> {
        let rest = series.strip_prefix(&*self.name)?;
        let rest = if self.kind == "counter" { rest.strip_prefix("_total")? } else { rest };
        if rest.is_empty() {
            return Some(());
        }
        let labels = rest.strip_prefix('{')?.strip_suffix('}')?;
        let mut names = BTreeSet::new();
        for label in labels.split(',') {
            let (name, value) = label.split_once('=')?;
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            // Escapes are allowed by the format and not needed for fixed words.
            let fixed =
                value.chars().all(|letter| letter.is_ascii_alphanumeric() || "._".contains(letter));
            (is_name(name) && names.insert(name) && fixed && !value.is_empty()).then_some(())?;
        }
        Some(())
    }
}

fn is_name(text: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.starts_with(|letter: char| letter.is_ascii_lowercase()) && text.chars().all(letters)
}

#[test]
fn the_reader_takes_the_format_and_nothing_else() {
    let sound = "# TYPE a_b_bytes counter\n# UNIT a_b_bytes bytes\n# HELP a_b_bytes What.\n\
                 a_b_bytes_total{m=\"X.y\",o=\"OK\"} 3\n# TYPE c gauge\nc 0\n# EOF\n";
    let figures = read(sound).unwrap();
    assert_eq!(figures.get("a_b_bytes_total{m=\"X.y\",o=\"OK\"}"), Some(&3));
    assert_eq!(figures.get("c"), Some(&0));
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF"),
        ("# EOF\n", "# EOF\nc 1\n"),
        ("_total", ""),
        ("c 0", "c_total 0"),
        ("c 0", "c 0\nc 0"),
        ("c 0", "c -1"),
        ("c 0", "c"),
        ("c 0", "d 0"),
        ("\"X.y\"", "\"/state/x\""),
        ("\"X.y\"", "X"),
        ("o=", "m="),
        ("# UNIT a_b_bytes bytes", "# UNIT a_b_bytes seconds"),
        ("# TYPE c gauge", "# TYPE a_b_bytes gauge"),
        ("gauge", "guess"),
        ("# HELP a_b_bytes What.", "# HELP a_b_bytes "),
        ("\n", "\r\n"),
        ("# TYPE c", "\n# TYPE c"),
    ] {
        assert!(sound.contains(from) && read(&sound.replace(from, to)).is_err(), "{from} {to}");
    }
    assert!(read(&format!("# TYPE c gauge\n{}# EOF\n", "c 0\n".repeat(BYTES_MAX))).is_err());
}

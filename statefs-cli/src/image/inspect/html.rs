//! The page of `inspect --html`: one file that refers to nothing outside of itself.

use std::fmt::Write;
use std::path::Path;

use journal::inspect::{GroupFact, Inspection, SegmentFact, VolumeFacts};

use super::{Figures, holds, is_free, role_word, rows, size};
use crate::image::facts::{fault_text, kind_word};

/// Most segments, groups and segments with their groups that are drawn; notes count the other segments.
const SEGMENTS_DRAWN_MAX: usize = 2048;
const GROUPS_DRAWN_MAX: usize = 20_000;
const STRIPS_DRAWN_MAX: usize = 256;

/// What every page begins with, and no page of others.
pub(super) const START: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
    <meta name=\"generator\" content=\"statefs image inspect\">\n";

/// Draws the whole page.
pub(super) fn page(path: &Path, found: &Inspection, volume: &VolumeFacts) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut page = String::new();
    page.push_str(START);
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    put(&mut page, format_args!("<title>{} · StateFS</title>\n", escape(&name)));
    put(&mut page, format_args!("<style>{STYLE}</style></head>\n<body><main>\n"));
    head(&mut page, &name, volume);
    cards(&mut page, volume);
    map(&mut page, volume);
    strips(&mut page, volume, STRIPS_DRAWN_MAX, GROUPS_DRAWN_MAX);
    faults(&mut page, volume);
    facts(&mut page, found, volume);
    segments(&mut page, volume);
    page.push_str("</main></body></html>\n");
    page
}

/// Appends to a string, which does not fail.
fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).unwrap_or_default();
}

/// Makes text out of anything: what an image holds must not become markup.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' => safe.push('\n'),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

fn head(page: &mut String, name: &str, volume: &VolumeFacts) {
    let (class, verdict) = match (volume.faults.len(), volume.has_loss()) {
        (0, _) => ("good", "clean".to_owned()),
        (1, false) => ("warn", "1 fault, nothing lost".into()),
        (count, false) => ("warn", format!("{count} faults, nothing lost")),
        (_, true) => ("bad", "something acknowledged is lost".into()),
    };
    let volume = volume.superblock.volume;
    put(
        page,
        format_args!(
            "<header><div><h1>{}</h1><p class=\"id\">volume {volume}</p></div>\
             <p class=\"verdict {class}\">{verdict}</p></header>\n",
            escape(name)
        ),
    );
}

fn cards(page: &mut String, volume: &VolumeFacts) {
    let figures = Figures::of(volume);
    let geometry = volume.superblock.geometry;
    let checkpoint = match figures.checkpoint_groups {
        0 => "none".into(),
        _ => format!("LSN {}", volume.superblock.base),
    };
    let free = format!("{} of {}", figures.free_segments, geometry.segment_count());
    let cards = [
        ("keys", volume.keys.to_string()),
        ("live", size(figures.live_bytes)),
        ("free segments", free),
        ("checkpoint", checkpoint),
        ("log groups", figures.log_groups.to_string()),
        ("torn groups", volume.history.torn_groups.to_string()),
    ];
    page.push_str("<dl class=\"cards\">");
    for (name, value) in cards {
        put(page, format_args!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    }
    page.push_str("</dl>\n");
}

/// The class that colours a segment.
fn segment_class(segment: &SegmentFact) -> &'static str {
    match segment {
        SegmentFact { checkpoint: true, .. } => "checkpoint",
        SegmentFact { log: true, .. } => "log",
        _ if is_free(segment) => "free",
        _ => "values",
    }
}

/// Marks the segments in which something is wrong.
fn damaged(volume: &VolumeFacts) -> Vec<bool> {
    let mut damaged = vec![false; volume.segments.len()];
    for segment in volume.faults.iter().filter_map(|fault| fault.segment) {
        if let Some(mark) = damaged.get_mut(segment.0 as usize) {
            *mark = true;
        }
    }
    damaged
}

fn map(page: &mut String, volume: &VolumeFacts) {
    page.push_str(
        "<section aria-labelledby=\"map\"><h2 id=\"map\">Segments</h2>\
         <p class=\"note\">Each tile is a segment; how far it is filled is how much of it is live. The \
         table below says the same.</p><p class=\"legend\" aria-hidden=\"true\">\
         <span class=\"key log\">log</span><span class=\"key checkpoint\">checkpoint</span>\
         <span class=\"key values\">values</span><span class=\"key free\">free</span>\
         <span class=\"key damage\">damage</span></p><div class=\"map\" aria-hidden=\"true\">",
    );
    let segment_bytes = Figures::of(volume).segment_bytes.max(1);
    let marks = damaged(volume);
    for ((number, segment), damaged) in
        volume.segments.iter().enumerate().zip(marks).take(SEGMENTS_DRAWN_MAX)
    {
        let percent = (segment.live_bytes * 100).div_ceil(segment_bytes).min(100);
        let damage = if damaged { " damage" } else { "" };
        put(
            page,
            format_args!(
                "<div class=\"tile {}{damage}\" title=\"segment {number}: {}, {percent} % live\">\
                 <i style=\"height:{percent}%\"></i><b>{number}</b></div>",
                segment_class(segment),
                holds(segment)
            ),
        );
    }
    page.push_str("</div>");
    if let Some(more) = volume.segments.len().checked_sub(SEGMENTS_DRAWN_MAX + 1) {
        put(page, format_args!("<p class=\"note\">and {} more, not drawn</p>", more + 1));
    }
    page.push_str("</section>\n");
}

/// Draws so many segments at most, which hold so many groups at most.
fn strips(page: &mut String, volume: &VolumeFacts, strips_max: usize, groups_max: usize) {
    page.push_str(
        "<section aria-labelledby=\"groups\"><h2 id=\"groups\">Groups</h2>\
         <p class=\"note\">Every segment in use from its first block to its last, with its commit \
         groups; pale ones hold nothing that a key points to. Red: a copy does not verify.</p>",
    );
    let (mut drawn, mut groups_left, mut more) = (0, groups_max, 0_usize);
    let mut rest = volume.groups.as_slice();
    for (number, segment) in volume.segments.iter().enumerate() {
        let of_segment = |group: &GroupFact| group.header.segment.0 as usize == number;
        let (groups, behind) = rest.split_at(rest.partition_point(of_segment));
        rest = behind;
        if is_free(segment) && groups.is_empty() {
            continue;
        }
        // None is drawn in part, and none behind the first that is not drawn.
        if more > 0 || drawn >= strips_max || groups.len() > groups_left {
            more += 1;
            continue;
        }
        drawn += 1;
        groups_left -= groups.len();
        strip(page, volume, number, groups);
    }
    if more > 0 {
        let noun = if more == 1 { "segment" } else { "segments" };
        put(page, format_args!("<p class=\"note\">and {more} more {noun}, not drawn</p>"));
    } else if drawn == 0 {
        page.push_str("<p class=\"note\">There are none.</p>");
    }
    page.push_str("</section>\n");
}

/// Draws one segment with its groups.
fn strip(page: &mut String, volume: &VolumeFacts, number: usize, groups: &[GroupFact]) {
    let blocks = volume.superblock.geometry.segment_blocks();
    let live_values = volume.segments.get(number).map_or(0, |segment| segment.live_values);
    put(
        page,
        format_args!(
            "<div class=\"strip\"><span>{number}</span><svg viewBox=\"0 0 {blocks} 10\" \
             preserveAspectRatio=\"none\" role=\"img\" aria-label=\"segment {number}: {} \
             groups, {live_values} live values\">",
            groups.len(),
        ),
    );
    groups.iter().for_each(|group| rectangle(page, volume, group));
    gaps(page, volume, number);
    page.push_str("</svg></div>");
}

fn rectangle(page: &mut String, volume: &VolumeFacts, group: &GroupFact) {
    let geometry = volume.superblock.geometry;
    let header = group.header;
    let both = geometry.copies() < 2 || group.whole_b;
    let damage = if group.whole_a && both { "" } else { " hurt" };
    let needed = group.live_values > 0 || group.role == journal::inspect::Role::Checkpoint;
    let pale = if needed { "" } else { " pale" };
    put(
        page,
        format_args!(
            "<rect class=\"{}{pale}{damage}\" x=\"{}\" width=\"{}\" height=\"10\">\
             <title>block {}, LSN {} to {}: {}, {} live values</title></rect>",
            role_word(group.role),
            header.block.0,
            header.blocks(&geometry),
            header.block.0,
            header.first,
            header.last,
            role_word(group.role),
            group.live_values
        ),
    );
}

/// Draws what is lost in a segment, where it should be.
fn gaps(page: &mut String, volume: &VolumeFacts, number: usize) {
    for fault in volume.faults.iter().filter(|fault| fault.kind.is_loss()) {
        let (Some(segment), Some(block)) = (fault.segment, fault.block) else { continue };
        if segment.0 as usize == number {
            put(
                page,
                format_args!(
                    "<rect class=\"lost\" x=\"{}\" width=\"{}\" height=\"10\"><title>{}</title></rect>",
                    block.0,
                    fault.blocks.max(1),
                    kind_word(fault.kind)
                ),
            );
        }
    }
}

fn faults(page: &mut String, volume: &VolumeFacts) {
    page.push_str("<section aria-labelledby=\"faults\"><h2 id=\"faults\">Faults</h2>");
    if volume.faults.is_empty() {
        page.push_str("<p class=\"note\">None: both copies of everything in use verify.</p>");
    } else {
        page.push_str("<ol class=\"faults\">");
        for fault in &volume.faults {
            let class = if fault.kind.is_loss() { "bad" } else { "warn" };
            put(page, format_args!("<li class=\"{class}\">{}</li>", escape(&fault_text(fault))));
        }
        page.push_str("</ol>");
    }
    page.push_str("</section>\n");
}

fn facts(page: &mut String, found: &Inspection, volume: &VolumeFacts) {
    page.push_str("<section><table><caption>The volume</caption><tbody>");
    for (name, value) in rows(found, volume) {
        put(
            page,
            format_args!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", escape(&value)),
        );
    }
    page.push_str("</tbody></table></section>\n");
}

fn segments(page: &mut String, volume: &VolumeFacts) {
    page.push_str(
        "<section><table class=\"numbers\"><caption>Segments in use</caption><thead><tr>\
         <th scope=\"col\">segment</th><th scope=\"col\">holds</th><th scope=\"col\">live values</th>\
         <th scope=\"col\">live bytes</th><th scope=\"col\">written blocks</th>\
         <th scope=\"col\">damage</th></tr></thead><tbody>",
    );
    for ((number, segment), damaged) in volume.segments.iter().enumerate().zip(damaged(volume)) {
        if is_free(segment) && !damaged {
            continue;
        }
        put(
            page,
            format_args!(
                "<tr><th scope=\"row\">{number}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td></tr>",
                holds(segment),
                segment.live_values,
                segment.live_bytes,
                segment.written_blocks,
                if damaged { "yes" } else { "no" }
            ),
        );
    }
    page.push_str("</tbody></table></section>\n");
}

const STYLE: &str = "
:root{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--ink:#1b2430;--soft:#5d6978;--line:#dde2e9;
--log:#2f6fde;--checkpoint:#8a4fd0;--values:#1f9d6b;--torn:#9aa4b1;--bad:#d03b3b;--warn:#a86500;--good:#157a4f}
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--card:#1a2029;--ink:#e5eaf1;--soft:#98a5b5;
--line:#2c3542;--log:#5b94f5;--checkpoint:#ac7cf0;--values:#3fbf8c;--torn:#657183;--bad:#f06a6a;
--warn:#e0a64a;--good:#4cc78f}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}main{max-width:1080px;margin:0 auto;padding:28px 20px 56px}
header{display:flex;flex-wrap:wrap;gap:12px;justify-content:space-between;align-items:center}
h1{margin:0;font-size:26px;overflow-wrap:anywhere}h2{margin:0 0 4px;font-size:18px}
.id{margin:0;color:var(--soft);font-family:ui-monospace,monospace;font-size:13px}
.verdict{margin:0;padding:6px 14px;border-radius:999px;border:1.5px solid currentColor;font-weight:600}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:20px 0}
.cards div,section{background:var(--card);border:1px solid var(--line);border-radius:10px}
.cards div{padding:12px 16px}dt{color:var(--soft);font-size:13px}dd{margin:0;font-size:20px;font-weight:600}
section{padding:18px 20px;margin:0 0 16px;overflow-x:auto}.note{margin:0 0 12px;color:var(--soft);font-size:14px}
.legend{display:flex;flex-wrap:wrap;gap:16px;margin:0 0 12px;font-size:13px}
.key::before{content:'';display:inline-block;width:12px;height:12px;margin-right:6px;border-radius:3px;
vertical-align:-1px;background:var(--c);border:1px solid var(--c)}
.log{--c:var(--log)}.checkpoint{--c:var(--checkpoint)}.values{--c:var(--values)}.torn{--c:var(--torn)}
.free{--c:var(--line)}.key.damage::before{background:none;border:2px solid var(--bad)}
.map{display:grid;grid-template-columns:repeat(auto-fill,minmax(44px,1fr));gap:6px}
.tile{position:relative;height:44px;border:1.5px solid var(--c);border-radius:6px;overflow:hidden}
.tile i{position:absolute;inset:auto 0 0 0;background:var(--c);opacity:.45}
.tile b{position:absolute;left:6px;top:3px;font-size:12px;font-weight:500}
.tile.free b{color:var(--soft)}.tile.damage{outline:2px solid var(--bad);outline-offset:1px}
.strip{display:flex;align-items:center;gap:10px;margin:5px 0}.strip span{width:44px;text-align:right;
color:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}
.strip svg{flex:1;height:20px;background:var(--ground);border:1px solid var(--line);border-radius:4px}
rect{fill:var(--c);stroke:var(--card);stroke-width:1;vector-effect:non-scaling-stroke}
rect.pale{fill-opacity:.35}rect.hurt,rect.lost{fill:var(--bad);fill-opacity:1}
.faults{margin:8px 0 0;padding-left:24px}.faults li{white-space:pre-line;margin-bottom:8px;
overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:14px}caption{text-align:left;font-size:18px;
font-weight:600;margin-bottom:6px}th,td{text-align:left;padding:5px 12px 5px 0;
border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th[scope=row]{font-weight:500;white-space:nowrap}thead th{color:var(--soft);font-size:13px}
.numbers td,.numbers th{font-variant-numeric:tabular-nums}tr:last-child>*{border-bottom:0}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::facts::Image;
    use crate::image::fill::Fill;
    use journal::FormatOptions;

    /// A segment without its groups would be shown as empty.
    #[test]
    fn segments_that_are_not_drawn_are_counted() {
        let folder = std::env::temp_dir().join(format!("statefs-html-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("x.img");
        let mut fill = Fill::create(&path, 4 << 20, FormatOptions::default()).expect("a volume");
        for number in 0..200 {
            fill.put(format!("/state/{number:03}").as_bytes(), &[7; 4000]).expect("room");
        }
        fill.finish().expect("room");
        let found = Image::open(&path, true).expect("an image").inspect();
        let volume = found.volume.expect("a volume");
        let of = |number| volume.groups.iter().filter(move |it| it.header.segment.0 == number);
        let in_use: Vec<usize> = (0..volume.superblock.geometry.segment_count())
            .filter(|number| {
                let fact = volume.segments.get(*number as usize).expect("it is one");
                !is_free(fact) || of(*number).count() > 0
            })
            .map(|number| of(number).count())
            .collect();
        let (all, groups) = (in_use.len(), volume.groups.len());
        let two = in_use.iter().take(2).sum::<usize>();
        assert!(all > 3 && two > 2, "{in_use:?}");
        for (strips_max, groups_max, drawn) in
            [(all, groups, all), (2, groups, 2), (all, two, 2), (all, two - 1, 1)]
        {
            let mut page = String::new();
            strips(&mut page, &volume, strips_max, groups_max);
            assert_eq!(page.matches("class=\"strip\"").count(), drawn, "{page}");
            let note = format!("and {} more segments, not drawn", all - drawn);
            assert_eq!(page.contains(&note), drawn < all, "{page}");
            let shown = page.matches("<rect").count();
            assert_eq!(shown, in_use.iter().take(drawn).sum::<usize>(), "{page}");
        }
        std::fs::remove_dir_all(&folder).expect("the folder");
    }

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(
            escape("<a href='x'>&\"\u{1b}"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}"
        );
    }
}

//! The chart of the README: a panel for each figure, a bar for each engine.

use crate::compare::Row;
use crate::median;
use std::fmt::Write as _;

/// Draws the rows as SVG, readable on light and dark grounds.
pub(crate) fn svg(rows: &[Row]) -> String {
    let of = |list: &[f64]| median(list.iter().copied());
    let panel = |title: &'static str, figure: &dyn Fn(&Row) -> f64| {
        let bars = rows.iter().map(|row| (row.kind.name(), figure(row))).collect();
        Panel { title, bars }
    };
    let panels: [Panel; 4] = [
        panel("durable put of 100 B, one writer: latency in floors (less is better)", &|row| {
            of(&row.lone[0])
        }),
        panel("durable put of 4 KiB, one writer: latency in floors (less is better)", &|row| {
            of(&row.lone[1])
        }),
        panel("64 writers: puts in the floor's rate (more is better)", &|row| of(&row.many[1])),
        panel("load of 100 B values: thousand puts a second (more is better)", &|row| {
            row.load[0] / 1e3
        }),
    ];
    let height = panels.iter().map(Panel::height).sum::<usize>() + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut top = 10;
    for panel in &panels {
        panel.draw(&mut svg, top);
        top += panel.height();
    }
    svg.push_str("</svg>\n");
    svg
}

struct Panel {
    title: &'static str,
    bars: Vec<(&'static str, f64)>,
}

impl Panel {
    fn height(&self) -> usize {
        TITLE + self.bars.len() * BAR + 14
    }

    fn draw(&self, svg: &mut String, top: usize) {
        let most = self.bars.iter().map(|(_, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}</text>",
            top + 16,
            self.title
        );
        for (at, (name, figure)) in self.bars.iter().enumerate() {
            let y = top + TITLE + at * BAR;
            let width = (figure / most * BARS).max(1.0);
            let colour = if at == 0 { "#0b6e4f" } else { "#9aa5b1" };
            let _ = writeln!(
                svg,
                "<text x=\"80\" y=\"{}\" text-anchor=\"end\">{name}</text>\
                 <rect x=\"88\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{figure:.2}</text>",
                y + 13,
                BAR - 4,
                94.0 + width,
                y + 13
            );
        }
    }
}

const WIDTH: usize = 720;
const BARS: f64 = 560.0;
const TITLE: usize = 26;
const BAR: usize = 20;

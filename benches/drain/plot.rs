//! The ratios as a picture: plain SVG that can be read on white and on dark.

use std::fmt::Write as _;

use crate::engine::Engine::{self, Mmrepl, Native, Pglogical};
use crate::results::Results;
use crate::summary::Runs;
use crate::workload::{WORKLOADS, Workload};

const WIDTH: f64 = 860.0;
/// Where a ratio of 0 is, and how far it is to a ratio of 1.
const LEFT: f64 = 330.0;
const TOP: f64 = 64.0;
const BAR: f64 = 13.0;
/// Between workloads.
const GAP: f64 = 12.0;

/// Mid tones: all of them stand out from white as well as from black.
const TEXT: &str = "#768390";
const GRID: &str = "#545d68";
const OURS: &str = "#2f81f7";
const THEIRS: &str = "#c87a1b";
const GOAL: &str = "#2da44e";

/// One bar.
struct Bar {
    label: String,
    ratio: f64,
    colour: &'static str,
}

/// The bars of a workload: of every major, pglogical and mmrepl against native.
fn bars(results: &Results, workload: &Workload) -> Vec<Bar> {
    let mut bars = Vec::new();
    for major in results.majors() {
        let of = |engine: Engine| Runs::of(results, major, workload.name, engine);
        let Some(native) = of(Native) else { continue };
        for (engine, colour) in [(Mmrepl, OURS), (Pglogical, THEIRS)] {
            let bar = of(engine).map(|runs| Bar {
                label: format!("{} on {major}", engine.name()),
                ratio: runs.speed_against(&native),
                colour,
            });
            bars.extend(bar);
        }
    }
    bars
}

/// The picture.
pub(crate) fn draw(results: &Results) -> String {
    let rows: Vec<(&Workload, Vec<Bar>)> = WORKLOADS
        .iter()
        .map(|workload| (workload, bars(results, workload)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let goals = rows.iter().map(|(workload, _)| workload.goal);
    let ratios = rows
        .iter()
        .flat_map(|(_, bars)| bars.iter().map(|bar| bar.ratio));
    let most = goals.chain(ratios).fold(1.0, f64::max);
    let unit = (WIDTH - LEFT - 60.0) / most;
    let mut body = String::new();
    let mut y = TOP;
    for (workload, bars) in &rows {
        y += draw_workload((workload, bars), unit, y, &mut body);
    }
    let grid = grid(most, unit, y);
    let height = y + 24.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" role=\"img\">\n<title>Speed of draining a backlog, \
         native subscription = 1</title>\n{}{grid}{body}</svg>\n",
        text(
            (16.0, 24.0),
            ("start", TEXT),
            "Speed of draining a backlog; 1 is the server's own \
         subscription on the same WAL, a green line the goal"
        )
    )
}

/// Draws a workload's bars from `top` on; gives the height they take.
fn draw_workload(
    (workload, bars): (&Workload, &[Bar]),
    unit: f64,
    top: f64,
    out: &mut String,
) -> f64 {
    let mut y = top;
    let title = format!("{} {}", workload.name, short(workload));
    *out += &text((16.0, y + BAR - 2.0), ("start", TEXT), &title);
    for bar in bars {
        let width = bar.ratio * unit;
        let _ = writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
             fill=\"{}\" rx=\"2\"/>",
            BAR - 2.0,
            bar.colour
        );
        let base = y + BAR - 3.0;
        *out += &text((LEFT - 8.0, base), ("end", TEXT), &bar.label);
        let figure = format!("{:.2}", bar.ratio);
        *out += &text((LEFT + width + 5.0, base), ("start", bar.colour), &figure);
        y += BAR;
    }
    *out += &line((LEFT + workload.goal * unit, top - 2.0), y, (GOAL, 2.0));
    y - top + GAP
}

/// Room is short beside the bars.
fn short(workload: &Workload) -> &str {
    let end = workload
        .title
        .find([',', '('])
        .unwrap_or(workload.title.len());
    workload.title[..end].trim()
}

/// A line for every half, a stronger one for 1.
fn grid(most: f64, unit: f64, bottom: f64) -> String {
    let mut out = String::new();
    let mut ratio = 0.0;
    while ratio <= most {
        let x = LEFT + ratio * unit;
        let is_one = (ratio - 1.0_f64).abs() < f64::EPSILON;
        let pen = if is_one { (TEXT, 1.5) } else { (GRID, 1.0) };
        out += &line((x, TOP - 10.0), bottom, pen);
        out += &text((x, TOP - 14.0), ("middle", TEXT), &format!("{ratio:.1}"));
        ratio += 0.5;
    }
    out
}

fn line((x, top): (f64, f64), bottom: f64, (colour, width): (&str, f64)) -> String {
    format!(
        "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" \
         stroke=\"{colour}\" stroke-width=\"{width}\"/>\n"
    )
}

fn text((x, y): (f64, f64), (anchor, colour): (&str, &str), words: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>\n"
    )
}

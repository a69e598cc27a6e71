//! The table as a picture: a small SVG writer of our own, with bars for medians and whiskers for ranges.

use std::fmt::Write;

use crate::table::{Row, Spread};

const WIDTH: f64 = 960.0;
/// Where bars begin; names stand before them, figures behind.
const LEFT: f64 = 450.0;
const BARS: f64 = 440.0;
const TOP: f64 = 64.0;
const ROW: f64 = 52.0;
const BAR: f64 = 16.0;
const HOOKLINE: &str = "#1f6f8b";
const MOSQUITTO: &str = "#c9a45c";

/// Draws broker CPU per message, every row on its own scale: what compares is the two bars of a row.
pub(crate) fn svg(rows: &[Row]) -> String {
    let height = TOP + ROW * rows.len() as f64 + 8.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    text(
        &mut out,
        12.0,
        24.0,
        "Broker CPU per message in µs: less is better. Median and range; each row has its own scale.",
    );
    for (x, color, name) in [(12.0, HOOKLINE, "Hookline"), (112.0, MOSQUITTO, "mosquitto")] {
        rect(&mut out, [x, 36.0, 12.0, 12.0], color);
        text(&mut out, x + 18.0, 47.0, name);
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let scale = BARS / row.hookline.max.max(row.mosquitto.max);
        text(&mut out, 12.0, y + 22.0, &row.load);
        bar(&mut out, y, &row.hookline, scale, HOOKLINE);
        bar(&mut out, y + BAR + 3.0, &row.mosquitto, scale, MOSQUITTO);
    }
    out += "</svg>\n";
    out
}

fn bar(out: &mut String, y: f64, spread: &Spread, scale: f64, color: &str) {
    rect(out, [LEFT, y, spread.median * scale, BAR], color);
    let [from, to] = [spread.min, spread.max].map(|value| LEFT + value * scale);
    let middle = y + BAR / 2.0;
    put(
        out,
        format_args!("<path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#333\" stroke-width=\"1.5\"/>"),
    );
    text(out, to + 6.0, y + 13.0, &format!("{:.2}", spread.median));
}

fn rect(out: &mut String, [x, y, width, height]: [f64; 4], color: &str) {
    put(
        out,
        format_args!("<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>"),
    );
}

fn text(out: &mut String, x: f64, y: f64, text: &str) {
    put(out, format_args!("<text x=\"{x:.1}\" y=\"{y}\">{text}</text>"));
}

fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(out, "{element}").expect("a String takes everything");
}

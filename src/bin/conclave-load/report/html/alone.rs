//! A plot as a file of its own: an SVG that needs nothing but itself, on a ground of its own, so that it can be read on
//! a white page and on a dark one.

use maud::{Markup, PreEscaped, html};

use super::plot::{Plot, SIZES};

/// Plain values and no variables: not every program that shows SVG knows those.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans','DejaVu Sans',sans-serif;font-size:11.5px;\
fill:#5d5c56}\
.title{font-size:15px;font-weight:600;fill:#1d1d1b}.label,.name{fill:#1d1d1b}\
.ground{fill:#fffefb;stroke:#dedcd3}.grid{stroke:#eceae2}.axis,.tick{stroke:#5d5c56}\
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.s0{stroke:#2368c4}.s1{stroke:#d9541e}.s2{stroke:#12876f}.s3{stroke:#8a4fc0}.s4{stroke:#a67700}.s5{stroke:#c23f76}\
.overlapping .s1{stroke-dasharray:7 5}.overlapping .s2{stroke-dasharray:2 5}\
.wash{fill:#2368c4;stroke:none;opacity:.12}";

const MARGIN: f64 = 18.0;
/// What a character of the small text takes at most, as a rule: nobody can measure it here.
const CHARACTER: f64 = 7.0;
const ROW: f64 = 18.0;
/// A line of the legend, and what lies between it and its name, and the next.
const SWATCH: f64 = 26.0;

impl Plot {
    /// The whole file. `subtitle` says what was run.
    pub(super) fn alone(&self, subtitle: &str) -> String {
        let size = &SIZES[0];
        let width = size.width + 2.0 * MARGIN;
        let legend = if self.series.len() > 1 { self.places(width - 2.0 * MARGIN) } else { Vec::new() };
        let subtitle = lines(subtitle, width - 2.0 * MARGIN);
        let below = 28.0 + ROW * subtitle.len() as f64;
        let top = below + 16.0 + legend.last().map_or(0.0, |(_, y)| y + ROW);
        let height = top + size.height + MARGIN / 2.0;
        let view = format!("0 0 {width} {height}");
        let body = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox=(view) role="img"
                aria-label={ (self.title) ". " (self.caption) } {
                title { (self.title) }
                desc { (self.caption) }
                style { (PreEscaped(STYLE)) }
                rect.ground x="0.5" y="0.5" width=(width - 1.0) height=(height - 1.0) rx="8" {}
                text.title x=(MARGIN) y="28" { (self.title) }
                @for (nth, line) in subtitle.iter().enumerate() {
                    text x=(MARGIN) y=(28.0 + ROW * (nth + 1) as f64) { (line) }
                }
                g.overlapping[self.overlapping()] {
                    (self.names(&legend, below + ROW))
                    g transform={ "translate(" (MARGIN) " " (top) ")" } { (self.content(size)) }
                }
            }
        };
        body.into_string()
    }

    /// Where each series has its name, in rows that are not wider than this.
    fn places(&self, width: f64) -> Vec<(f64, f64)> {
        let (mut x, mut y) = (0.0, 0.0);
        let mut places = Vec::new();
        for series in &self.series {
            let own = SWATCH + 8.0 + CHARACTER * series.name.chars().count() as f64;
            if x > 0.0 && x + own > width {
                (x, y) = (0.0, y + ROW);
            }
            places.push((x, y));
            x += own + 14.0;
        }
        places
    }

    fn names(&self, places: &[(f64, f64)], top: f64) -> Markup {
        html! {
            @for (index, (series, (x, y))) in self.series.iter().zip(places).enumerate() {
                @let (x, y) = (MARGIN + x, top + y);
                path class={ "line s" (index) } d={ "M" (x) " " (y) "h" (SWATCH) } {}
                text.name x=(x + SWATCH + 8.0) y=(y) dy="0.35em" { (series.name) }
            }
        }
    }
}

/// A text of parts in lines that fit: two at most, and the second says so if there is more.
fn lines(text: &str, width: f64) -> Vec<String> {
    let most = (width / CHARACTER) as usize;
    let mut lines: Vec<String> = Vec::new();
    for part in text.split(" · ") {
        let length = part.chars().count();
        let count = lines.len();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + length <= most => line.push_str(&format!(" · {part}")),
            Some(line) if count == 2 => {
                line.push_str(" …");
                break;
            }
            Some(_) | None => lines.push(part.chars().take(most).collect()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtitle_has_two_lines_at_most_and_says_if_there_is_more() {
        assert_eq!(lines("rooms · members 2", 200.0), ["rooms · members 2"]);
        assert_eq!(lines("rooms · members 2 · rate 3", 130.0), ["rooms · members 2", "rate 3"]);
        assert_eq!(lines("rooms · members 2 · rate 3 · payload 400", 130.0), ["rooms · members 2", "rate 3 …"]);
        assert_eq!(lines("abcdef", 22.0), ["abc"]);
    }
}

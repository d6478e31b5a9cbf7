//! One plot as SVG: series over an axis. In a page it is drawn twice, for a wide one and for a telephone.
//!
//! Colours come from the page's style, so that they suit light, dark and paper. Series differ in their dashes too where
//! they lie on each other, and on paper.

use std::fmt::Write;

use maud::{Markup, html};

use super::scale::Scale;

pub(super) struct Plot {
    pub(super) title: String,
    /// What a reader should know beside the title: what it shows, what one point is.
    pub(super) caption: String,
    pub(super) x_label: &'static str,
    pub(super) y_label: String,
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) series: Vec<Series>,
    /// What is said at a point, in the order of the points: shown where a pointer rests.
    pub(super) hints: Vec<(f64, String)>,
}

pub(super) struct Series {
    pub(super) name: String,
    /// Points from left to right; where there is none, the line is broken.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A drawing's size, in its own units.
pub(super) struct Size {
    class: &'static str,
    pub(super) width: f64,
    pub(super) height: f64,
    marks: usize,
}

pub(super) const SIZES: [Size; 2] = [
    Size { class: "wide", width: 560.0, height: 280.0, marks: 5 },
    Size { class: "narrow", width: 360.0, height: 270.0, marks: 3 },
];

const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 42.0;

impl Plot {
    pub(super) fn figure(&self) -> Markup {
        html! {
            figure.overlapping[self.overlapping()] {
                figcaption {
                    h3 { (self.title) }
                    p { (self.caption) }
                    @if self.series.len() > 1 { (self.legend()) }
                }
                @for size in &SIZES { (self.drawing(size)) }
            }
        }
    }

    /// Whether any point is more than nothing.
    pub(super) fn shows_something(&self) -> bool {
        self.series.iter().flat_map(|one| &one.points).any(|(_, value)| value.is_some_and(|value| value > 0.0))
    }

    /// Whether one series hides another somewhere.
    pub(super) fn overlapping(&self) -> bool {
        let [first, rest @ ..] = self.series.as_slice() else { return false };
        let same = |a: &(f64, Option<f64>), b: &(f64, Option<f64>)| match (a.1, b.1) {
            (Some(a), Some(b)) => (self.y.at(a) - self.y.at(b)).abs() < 0.01,
            (None, _) | (_, None) => false,
        };
        rest.iter().any(|one| one.points.iter().zip(&first.points).filter(|(a, b)| same(a, b)).count() > 1)
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for (index, series) in self.series.iter().enumerate() {
                    li {
                        svg viewBox="0 0 28 8" width="28" height="8" aria-hidden="true" {
                            path class={ "line s" (index) } d="M1 4H27" {}
                        }
                        (series.name)
                    }
                }
            }
        }
    }

    fn drawing(&self, size: &Size) -> Markup {
        let view = format!("0 0 {} {}", size.width, size.height);
        html! {
            svg class=(size.class) viewBox=(view) role="img" aria-label={ (self.title) ". " (self.caption) } {
                (self.content(size))
                @if size.class == "wide" { (self.hints(size)) }
            }
        }
    }

    /// Axes and lines.
    pub(super) fn content(&self, size: &Size) -> Markup {
        let (right, bottom) = (size.width - RIGHT, size.height - BOTTOM);
        html! {
            @for (value, text) in self.y.marks(4) {
                @let y = number(self.y_at(size, value));
                line.grid x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
                text.mark x=(LEFT - 7.0) y=(y) dy="0.35em" text-anchor="end" { (text) }
            }
            @for (value, text) in thinned(self.x.marks(size.marks), &self.x, size) {
                @let x = number(self.x_at(size, value));
                line.tick x1=(x) x2=(x) y1=(bottom) y2=(bottom + 4.0) {}
                text.mark x=(x) y=(bottom + 16.0) text-anchor=(anchor(self.x.at(value))) { (text) }
            }
            text.label x=(0) y=(12) { (self.y_label) }
            text.label x=(right) y=(size.height - 6.0) text-anchor="end" { (self.x_label) }
            line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
            @if let [only] = self.series.as_slice() {
                path class="wash s0" d=(self.area(size, only)) {}
            }
            @for (index, series) in self.series.iter().enumerate() {
                path class={ "line s" (index) } d=(self.line(size, series)) {}
            }
        }
    }

    /// A strip for each point that shows what it says, without a script.
    fn hints(&self, size: &Size) -> Markup {
        let bottom = size.height - BOTTOM;
        let places: Vec<f64> = self.hints.iter().map(|(x, _)| self.x_at(size, *x)).collect();
        let edge = |index: usize| match (index.checked_sub(1).map(|before| places[before]), places.get(index)) {
            (Some(before), Some(here)) => f64::midpoint(before, *here),
            (None, Some(_)) => LEFT,
            (Some(_) | None, None) => size.width - RIGHT,
        };
        html! {
            @for (index, (_, text)) in self.hints.iter().enumerate() {
                g.hint {
                    rect x=(number(edge(index))) y=(TOP) width=(number((edge(index + 1) - edge(index)).max(0.0)))
                        height=(bottom - TOP) {}
                    line x1=(number(places[index])) x2=(number(places[index])) y1=(TOP) y2=(bottom) {}
                    title { (text) }
                }
            }
        }
    }

    fn line(&self, size: &Size, series: &Series) -> String {
        let mut path = String::new();
        let mut drawing = false;
        for (x, value) in &series.points {
            let Some(value) = value else {
                drawing = false;
                continue;
            };
            // A point alone is a dot: the line's ends are round.
            let (command, dot) = if drawing { ('L', "") } else { ('M', "h0") };
            let (x, y) = (number(self.x_at(size, *x)), number(self.y_at(size, *value)));
            let _ = write!(path, "{command}{x} {y}{dot}");
            drawing = true;
        }
        path
    }

    fn area(&self, size: &Size, series: &Series) -> String {
        let bottom = size.height - BOTTOM;
        let mut path = String::new();
        for stretch in series.points.split(|(_, value)| value.is_none()) {
            let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
            let _ = write!(path, "M{} {bottom}", number(self.x_at(size, first.0)));
            for (x, value) in stretch {
                let y = self.y_at(size, value.unwrap_or_default());
                let _ = write!(path, "L{} {}", number(self.x_at(size, *x)), number(y));
            }
            let _ = write!(path, "L{} {bottom}Z", number(self.x_at(size, last.0)));
        }
        path
    }

    fn x_at(&self, size: &Size, value: f64) -> f64 {
        LEFT + self.x.at(value) * (size.width - RIGHT - LEFT)
    }

    fn y_at(&self, size: &Size, value: f64) -> f64 {
        let bottom = size.height - BOTTOM;
        bottom - self.y.at(value) * (bottom - TOP)
    }
}

/// Marks that do not run into each other.
fn thinned(marks: Vec<(f64, String)>, scale: &Scale, size: &Size) -> Vec<(f64, String)> {
    let mut free_from = f64::NEG_INFINITY;
    marks
        .into_iter()
        .filter(|(value, text)| {
            let width = 7.0 * text.chars().count() as f64 + 6.0;
            let left = scale.at(*value) * (size.width - RIGHT - LEFT) - width / 2.0;
            let fits = left >= free_from;
            if fits {
                free_from = left + width;
            }
            fits
        })
        .collect()
}

fn anchor(share: f64) -> &'static str {
    if share > 0.97 { "end" } else { "middle" }
}

/// A coordinate, to a tenth.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::scale::Unit;
    use super::*;

    fn plot(points: Vec<(f64, Option<f64>)>) -> Plot {
        Plot {
            title: "Throughput".to_owned(),
            caption: "Each point is a second.".to_owned(),
            x_label: "time",
            y_label: "messages".to_owned(),
            x: Scale::time(4.0),
            y: Scale::linear(Unit::PerSecond, 100.0),
            series: vec![Series { name: "sent".to_owned(), points }],
            hints: Vec::new(),
        }
    }

    #[test]
    fn a_line_goes_through_its_points_and_breaks_where_there_is_none() {
        let points = vec![(0.0, Some(0.0)), (1.0, Some(100.0)), (2.0, None), (3.0, Some(50.0))];
        let plot = plot(points);
        assert_eq!(plot.line(&SIZES[0], &plot.series[0]), "M58 238h0L180 26M424 132h0");
    }

    #[test]
    fn the_area_under_a_line_closes_at_the_axis() {
        let plot = plot(vec![(0.0, Some(100.0)), (4.0, Some(50.0))]);
        assert_eq!(plot.area(&SIZES[0], &plot.series[0]), "M58 238L58 26L546 132L546 238Z");
    }

    #[test]
    fn a_name_in_a_plot_cannot_become_markup() {
        let mut plot = plot(vec![(0.0, Some(1.0))]);
        plot.title = "<script>alert(1)</script>\" onload=\"x".to_owned();
        plot.hints = vec![(0.0, "</title><script>".to_owned())];
        let text = plot.figure().into_string();
        assert!(!text.contains("<script>") && !text.contains("\" onload"), "{text}");
    }

    #[test]
    fn marks_that_would_touch_are_left_out() {
        let marks = (0..100).map(|value| (f64::from(value), format!("{value} hours"))).collect();
        let left = thinned(marks, &Scale::time(100.0), &SIZES[1]);
        assert!(left.len() < 6, "{left:?}");
        assert_eq!(left[0].1, "0 hours");
    }
}

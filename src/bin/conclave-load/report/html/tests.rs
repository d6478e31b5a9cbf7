//! Tests of the page as a whole.

use super::{drawings, page};
use crate::report::model::{Report, Second, Setting};
use crate::report::sample;

#[test]
fn nothing_from_outside_becomes_markup() {
    let evil = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>";
    let mut report = sample::report();
    report.urls = vec![evil.to_owned()];
    report.scenario = evil.to_owned();
    report.version = evil.to_owned();
    report.options = ["members", evil].map(|name| Setting { name: name.to_owned(), value: evil.to_owned() }).to_vec();
    report.machine.kernel = evil.to_owned();
    report.notes = vec![evil.to_owned()];
    report.counts.refused.insert(evil.to_owned(), 1);
    (report.tester.is_bottleneck, report.tester.why) = (true, Some(evil.to_owned()));
    let page = page(&report);
    assert!(!page.contains("<script") && !page.contains("<img"), "it went through as it is");
    assert!(page.matches("&lt;script&gt;").count() >= 8);
}

#[test]
fn the_page_asks_nobody_for_anything() {
    let page = page(&sample::report());
    for outside in ["http://", "https://", "src=", "<link", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn the_page_says_what_was_tested_and_the_verdict_first() {
    let page = page(&sample::report());
    assert!(page.contains(
        "<title>fanout: few senders, many members · members 1000 · sessions 1 · rate 50 · payload 200 · duration 30s · \
         1 node – Passed</title>"
    ));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text:?}"));
    assert!(at("Passed</h2>") < at("Delivery latency over time"));
    assert!(at("Latency by percentile") < at("<h2>Options"));
    for said in ["2026-05-04 10:20:30 UTC", "latency</text>", "time since the start", "Linux 6.12.0 x86_64", "96 MiB"] {
        at(said);
    }
}

#[test]
fn a_report_of_nothing_and_one_of_hours_are_pages_too() {
    let empty = Report { timeline: Vec::new(), latencies: Vec::new(), seconds: 0.0, ..sample::report() };
    assert!(!page(&empty).contains("NaN"));
    let mut long = sample::report();
    let second = long.timeline[3].clone();
    long.timeline = (0..36_000).map(|at_s| Second { at_s, ..second.clone() }).collect();
    let page = page(&long);
    assert!(page.contains("of 120 seconds"), "points of a long run are joined");
    assert!(page.len() < 500_000, "{} bytes", page.len());
    assert!(!page.contains("NaN"));
}

#[test]
fn each_plot_is_a_file_of_its_own_that_asks_nobody_for_anything() {
    let mut report = sample::report();
    report.scenario = "<script>".to_owned();
    let drawings = drawings(&report);
    let names: Vec<&str> = drawings.iter().map(|drawing| drawing.file_name.as_str()).collect();
    assert_eq!(
        names,
        [
            "delivery-latency-over-time.svg",
            "acknowledgement-latency-over-time.svg",
            "latency-by-percentile.svg",
            "messages-over-time.svg",
            "deliveries-over-time.svg"
        ],
        "and none of errors, since there were none"
    );
    for drawing in &drawings {
        let svg = drawing.svg.replacen("http://www.w3.org/2000/svg", "", 1);
        assert!(
            svg.starts_with("<svg ") && svg.contains("class=\"ground\"") && svg.contains("&lt;script&gt; · members")
        );
        for outside in ["http", "url(", "var(", "<script", "@import", "NaN"] {
            assert!(!svg.contains(outside), "{outside} is in {}", drawing.file_name);
        }
    }
}

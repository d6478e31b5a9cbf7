//! `conclave-load` on reports that exist: showing and comparing them, and disks that take no report. The report here
//! is of format 1 and was written once: later versions have to read it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/reports/fanout.json");

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conclave-load")).args(arguments).output().expect("it runs")
}

/// In a shell that lets no file grow beyond its first block, as a full disk does.
fn load_on_a_full_disk(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_conclave-load");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    Command::new("sh").args(["-c", script, program]).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A copy of the report in which one text stands for another.
fn changed(folder: &TempDir, from: &str, to: &str) -> PathBuf {
    let whole = std::fs::read_to_string(REPORT).expect("the report");
    assert!(whole.contains(from), "{from} is in it");
    let path = folder.path().join("changed.json");
    std::fs::write(&path, whole.replacen(from, to, 1)).expect("a file");
    path
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_report_is_shown_as_a_table_and_as_a_page() {
    let table = load(&["render", REPORT]);
    assert_eq!(table.status.code(), Some(0), "{}", text(&table.stderr));
    assert!(text(&table.stdout).contains("PASSED: All 1,500 acknowledged messages are stored"));

    let folder = TempDir::new().expect("a folder");
    let page = folder.path().join("page.html");
    let output = load(&["render", REPORT, "--html", page.to_str().expect("a name")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
}

#[test]
fn the_plots_of_a_report_are_files_in_a_folder() {
    let folder = TempDir::new().expect("a folder");
    let plots = folder.path().join("new/plots");
    let output = load(&["render", REPORT, "--svg", plots.to_str().expect("a name")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert_eq!(said.lines().count(), names(&plots).len(), "{said}");
    for path in said.lines() {
        let svg = std::fs::read_to_string(path).expect("a plot");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>"), "{path}");
    }
    let output = load(&["render", REPORT, "--svg", REPORT]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot make the folder"), "{}", text(&output.stderr));
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_the_old_page() {
    let folder = TempDir::new().expect("a folder");
    let page = folder.path().join("page.html");
    std::fs::write(&page, "the old page").expect("a file");
    let output = load_on_a_full_disk(&["render", REPORT, "--html", page.to_str().expect("a name")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("conclave-load: cannot write the report to "), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&page).expect("the page"), "the old page");
    assert_eq!(names(folder.path()), ["page.html"]);
}

#[test]
fn a_report_does_not_differ_from_itself() {
    let output = load(&["compare", REPORT, REPORT]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("No difference between A and B that is more than noise.\n"));
}

#[test]
fn what_cannot_be_compared_is_refused_with_2() {
    let folder = TempDir::new().expect("a folder");
    let other = changed(&folder, "\"fanout\"", "\"rooms\"");
    let other = other.to_str().expect("a name");
    let output = load(&["compare", REPORT, other]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).ends_with("\n  scenario: fanout and rooms\n"), "{}", text(&output.stderr));
    assert_eq!(load(&["compare", REPORT, other, "--force"]).status.code(), Some(0));

    let output = load(&["compare", REPORT, "/nowhere.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere.json: No such file"));
    let newer = changed(&folder, "\"format\": 1", "\"format\": 7");
    let output = load(&["compare", REPORT, newer.to_str().expect("a name")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("it has format 7, and this program reads format 1"));
}

//! The shape of the house: which room may know which, and which rooms are pure. Read from the sources, so that a
//! wrong arrow fails here and not in a review.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Rooms that are pure: no I/O, no clock, no random source, no runtime.
const PURE: &[&str] = &[
    "src/protocol",
    "src/session/state",
    "src/connection/catch_up.rs",
    "src/connection/lanes.rs",
    "src/connection/frame_guard.rs",
    "src/cluster/envelope.rs",
    "src/cluster/placement.rs",
    "src/cluster/standing.rs",
    "src/cluster/wire.rs",
    "src/bin/conclave-load/verify",
    "src/bin/conclave-load/plan.rs",
    "src/bin/conclave-load/engine/pace.rs",
    "src/bin/conclave-load/rotation/stay.rs",
];

/// What a pure room does not name.
const IMPURE: &[&str] = &[
    "actix",
    "tokio",
    "redis",
    "sqlx",
    "async ",
    ".await",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "rand::",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
];

/// For each room the rooms of this crate that it may name, itself aside.
const ARROWS: &[(&str, &[&str])] = &[
    ("src/protocol", &[]),
    ("src/session/state", &["protocol"]),
    ("src/store", &["protocol", "session::state"]),
    ("src/cluster", &["protocol", "session::state", "store", "telemetry"]),
    ("src/client", &["protocol"]),
    ("src/admin", &["protocol", "session::state", "store"]),
    ("src/accounts", &["protocol", "config", "store", "cluster", "session", "telemetry"]),
    ("src/session", &["protocol", "config", "store", "cluster", "connection", "telemetry"]),
];

#[test]
fn pure_rooms_name_no_runtime_clock_or_random_source() {
    let mut wrong = Vec::new();
    for room in PURE {
        for file in sources(room) {
            for (number, line) in code_lines(&file) {
                wrong.extend(
                    IMPURE
                        .iter()
                        .filter(|word| line.contains(**word))
                        .map(|word| format!("{}:{number} names `{}`", file.display(), word.trim())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "pure rooms are not pure:\n{}", wrong.join("\n"));
}

#[test]
fn arrows_between_rooms_go_one_way() {
    let mut wrong = Vec::new();
    for (room, allowed) in ARROWS {
        let own = room.trim_start_matches("src/").replace('/', "::");
        for file in sources(room) {
            if *room == "src/session" && file.starts_with(root().join("src/session/state")) {
                continue;
            }
            for (number, line) in code_lines(&file) {
                for named in line.split("crate::").skip(1) {
                    let known = |one: &&str| {
                        named.strip_prefix(*one).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
                    };
                    if !known(&own.as_str()) && !allowed.iter().any(known) {
                        wrong.push(format!("{}:{number} reaches into `{named}`", file.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "rooms know what they should not:\n{}", wrong.join("\n"));
}

#[test]
fn one_file_alone_names_the_websocket_actors_crate() {
    let naming: Vec<PathBuf> = sources("src")
        .into_iter()
        .filter(|file| code_lines(file).iter().any(|(_, line)| line.contains("actix_web_actors")))
        .collect();
    assert_eq!(naming, [root().join("src/connection/actor.rs")]);
}

#[test]
fn every_test_that_a_page_names_exists() {
    let text = |path: &Path| std::fs::read_to_string(path).expect("a file can be read");
    let code: String = ["src", "tests", "fuzz"].iter().flat_map(|room| files(room)).map(|file| text(&file)).collect();
    let functions: HashSet<&str> = code
        .split("fn ")
        .filter_map(|rest| rest.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric()).next())
        .collect();
    let (mut named, mut missing) = (0, Vec::new());
    let docs = std::fs::read_dir(root().join("docs")).expect("the pages").map(|page| page.expect("a page").path());
    for page in docs.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        for word in text(&page).split('`') {
            let is_sentence = word.matches('_').count() >= 3 && !word.starts_with("conclave_");
            if is_sentence && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
                named += 1;
                if !functions.contains(word) {
                    missing.push(format!("{}: {word}", page.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "there is no such test:\n{}", missing.join("\n"));
    assert!(named > 80, "the pages name {named} tests only");
}

#[test]
fn the_check_would_see_what_it_looks_for() {
    assert!(sources("src/protocol").len() > 5);
    assert!(code_lines(&root().join("src/session/actor.rs")).iter().any(|(_, line)| line.contains("actix")));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The code of a room without its tests.
fn sources(room: &str) -> Vec<PathBuf> {
    let mut sources = files(room);
    sources.retain(|path| !is_test(path));
    sources
}

fn files(room: &str) -> Vec<PathBuf> {
    let path = root().join(room);
    if path.is_file() {
        return vec![path];
    }
    let mut files = Vec::new();
    let mut folders = vec![path];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a folder of the sources can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Tests of a room may use what the room may not.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests.rs" | "tests")))
}

/// The lines that are code, up to the tests at a file's end.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(file).expect("a source file can be read");
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") || text.contains("#[cfg(test)]\nmod tests;"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.split(" // ").next().unwrap_or_default().to_owned()))
        .collect()
}

//! Reports in files. Owns that a file is either the whole report or not touched.
//!
//! A report is written beside its place and renamed into it; what is no regular file (a pipe, a device) is written
//! directly. Errors name the file.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use tempfile::{Builder, NamedTempFile};

use super::model::{FORMAT, Report};

/// The largest file that is read: a soak of a week has some 150 MiB.
const LARGEST: u64 = 256 * 1024 * 1024;

/// Fails where a report could not be written: to be called before a run, so that it is not for nothing.
pub(crate) fn check_writable(path: &Path) -> anyhow::Result<()> {
    let place = place_of(path)?;
    if is_special(&place) {
        File::options().write(true).open(&place).with_context(|| cannot_write(path))?;
    } else {
        beside(&place).with_context(|| cannot_write(path))?;
    }
    Ok(())
}

/// Writes the report as JSON.
pub(crate) fn write_json(path: &Path, report: &Report) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(report).context("cannot write the report as JSON")?;
    text.push(b'\n');
    write(path, &text)
}

/// Puts `bytes` in the place of whatever is at `path`, whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let place = place_of(path)?;
    let written = if is_special(&place) {
        File::options().write(true).open(&place).and_then(|mut file| file.write_all(bytes))
    } else {
        write_beside(&place, bytes)
    };
    written.with_context(|| cannot_write(path))
}

fn write_beside(place: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Until it is renamed the file removes itself, whatever fails.
    let mut file = beside(place)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(place)?;
    Ok(())
}

fn beside(place: &Path) -> std::io::Result<NamedTempFile> {
    let folder = match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    // As any other program's file: what the umask leaves.
    Builder::new().prefix(".conclave-load-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

/// Where the bytes go: behind symbolic links, so that a link stays one.
fn place_of(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(!path.is_dir(), "{}: it is a folder", cannot_write(path));
    Ok(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}

fn is_special(place: &Path) -> bool {
    fs::metadata(place).is_ok_and(|meta| !meta.is_file())
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write the report to {}", path.display())
}

/// Reads a report, and refuses what is none or not whole.
pub(crate) fn read(path: &Path) -> anyhow::Result<Report> {
    let name = || path.display().to_string();
    let mut text = Vec::new();
    let file = File::open(path).with_context(name)?;
    file.take(LARGEST + 1).read_to_end(&mut text).with_context(name)?;
    ensure!(text.len() as u64 <= LARGEST, "{}: it is too large to be a report", name());
    parse(&text).with_context(name)
}

fn parse(text: &[u8]) -> anyhow::Result<Report> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    // First the format alone: of another format nothing else is known.
    let Ok(head) = serde_json::from_slice::<Head>(text) else { bail!("it is not a report of conclave-load") };
    ensure!(head.format == FORMAT, "it has format {}, and this program reads format {FORMAT}", head.format);
    let report: Report = serde_json::from_slice(text).context("it is not a whole report")?;
    for latency in &report.latencies {
        latency.histogram().map_err(anyhow::Error::msg)?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let report = sample::report();
        check_writable(&path).unwrap();
        assert!(!path.exists());
        write_json(&path, &report).unwrap();
        assert_eq!(read(&path).unwrap(), report);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_so() {
        let error = format!("{:#}", write_json(Path::new("/dev/full"), &sample::report()).unwrap_err());
        assert!(error.starts_with("cannot write the report to /dev/full: No space left on device"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_found_before_the_run() {
        let error = format!("{:#}", check_writable(Path::new("/nowhere/at/all.json")).unwrap_err());
        assert!(error.contains("/nowhere/at/all.json") && error.contains("No such file"), "{error}");
        assert!(format!("{:#}", check_writable(Path::new("/")).unwrap_err()).contains("it is a folder"));
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(link.is_symlink());
    }

    #[test]
    fn what_is_no_report_is_refused_with_its_reason() {
        let refused = |text: &[u8]| format!("{:#}", parse(text).unwrap_err());
        assert_eq!(refused(b"[1, 2]"), "it is not a report of conclave-load");
        assert_eq!(refused(br#"{"format": 2, "new": 1}"#), "it has format 2, and this program reads format 1");
        assert!(refused(br#"{"format": 1}"#).starts_with("it is not a whole report: missing field"));
        let whole = serde_json::to_vec(&sample::report()).unwrap();
        assert_eq!(refused(&whole[..whole.len() / 2]), "it is not a report of conclave-load");
    }
}

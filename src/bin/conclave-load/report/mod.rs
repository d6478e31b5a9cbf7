//! What a run found: the model of it, and every form in which it is shown.
//!
//! Measuring is elsewhere: it fills a [`model::Report`] and hands it over.

mod compare;
pub(crate) mod distribution;
pub(crate) mod file;
mod headline;
pub(crate) mod html;
pub(crate) mod live;
pub(crate) mod model;
pub(crate) mod quantity;
#[cfg(test)]
mod sample;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod verdict;

use std::path::Path;

use anyhow::Context;

pub(crate) use compare::compare;

/// A report in a file as text, or as a page in another file, or its plots as files in a folder; tells what to print.
pub(crate) fn render(report: &Path, html: Option<&Path>, svg: Option<&Path>) -> anyhow::Result<String> {
    let report = file::read(report)?;
    if html.is_none() && svg.is_none() {
        return Ok(table::table(&report));
    }
    if let Some(place) = html {
        file::write(place, html::page(&report).as_bytes())?;
    }
    let mut written = String::new();
    if let Some(folder) = svg {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        for html::Drawing { file_name, svg } in html::drawings(&report) {
            let place = folder.join(file_name);
            file::write(&place, svg.as_bytes())?;
            written.push_str(&format!("{}\n", place.display()));
        }
    }
    Ok(written)
}

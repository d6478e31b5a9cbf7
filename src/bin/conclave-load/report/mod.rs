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

pub(crate) use compare::compare;

/// A report in a file as text, or as a page in another file.
pub(crate) fn render(report: &Path, html: Option<&Path>) -> anyhow::Result<String> {
    let report = file::read(report)?;
    let Some(place) = html else { return Ok(table::table(&report)) };
    file::write(place, html::page(&report).as_bytes())?;
    Ok(String::new())
}

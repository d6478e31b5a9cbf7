//! What a run found: the model of it, and every form in which it is shown.
//!
//! Measuring is elsewhere: it fills a [`model::Report`] and hands it over.

pub(crate) mod distribution;
pub(crate) mod file;
mod headline;
pub(crate) mod html;
pub(crate) mod live;
pub(crate) mod model;
mod quantity;
#[cfg(test)]
mod sample;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod verdict;

use std::path::Path;

/// Makes the page of a report in a file.
pub(crate) fn render(report: &Path, html: &Path) -> anyhow::Result<()> {
    file::write(html, html::page(&file::read(report)?).as_bytes())
}

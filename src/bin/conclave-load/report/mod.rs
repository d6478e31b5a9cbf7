//! What a run found: the model of it, and every form in which it is shown.
//!
//! Measuring is elsewhere: it fills a [`model::Report`] and hands it over.

pub(crate) mod distribution;
pub(crate) mod model;

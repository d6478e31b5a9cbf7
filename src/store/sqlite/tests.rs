//! Tests of the embedded store alone.

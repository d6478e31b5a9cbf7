//! Whatever a client sends as text is read without a panic, and a request that is read is written back as one that
//! reads the same.
//!
//! `cargo +nightly fuzz run decode_request`, with `cargo-fuzz` installed; where there is only a stable toolchain,
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run decode_request`.

#![no_main]

use conclave_fuzz::protocol::{Limits, decode_request, decode_server_frame};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { text: 64, name: 16, description: 16, leave_message: 16, word: 8, list: 4 };

fuzz_target!(|text: &str| {
    // The other side of the codec reads hostile text as well: a client's server may be anyone.
    let _ = decode_server_frame(text);
    let Ok((id, request)) = decode_request(text) else { return };
    let _ = request.check(&LIMITS);
    let body = request.body().expect("a request has a body");
    let again = format!(r#"{{"id":{id},"type":"{}","body":{body}}}"#, request.name());
    let (same_id, same) = decode_request(&again).expect("what was written is read");
    assert_eq!((same_id, same), (id, request));
});

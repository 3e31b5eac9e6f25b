//! The fuzz target `frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::frame::body(data));

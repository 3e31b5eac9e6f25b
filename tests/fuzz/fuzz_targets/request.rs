//! The fuzz target `request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::request::body(data));

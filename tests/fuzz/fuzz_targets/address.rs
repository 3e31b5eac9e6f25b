//! The fuzz target `address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::address::body(data));

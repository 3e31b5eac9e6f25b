//! The fuzz target `policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::policy::body(data));

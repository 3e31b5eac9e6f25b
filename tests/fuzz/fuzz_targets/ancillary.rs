//! The fuzz target `ancillary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::ancillary::body(data));

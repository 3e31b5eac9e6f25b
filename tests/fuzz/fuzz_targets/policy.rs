//! `bodies::policy` under the fuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sockbroker_fuzz_bodies::policy::body(data));

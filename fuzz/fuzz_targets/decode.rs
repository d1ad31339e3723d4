//! Any bytes at all through the pgoutput decoder: the body of its property test.
#![no_main]

libfuzzer_sys::fuzz_target!(|payload: &[u8]| mmrepl::pgoutput::fuzzing::check_any_bytes(payload));

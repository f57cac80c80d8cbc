//! The credentials file: any bytes are refused with a line, or each user stands in a line alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sixfour::server::credentials::parse;

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes) {
        Ok(entries) => {
            for entry in entries {
                let again = parse(&bytes[entry.place.clone()]).expect("a line is a file of one");
                assert!(again.len() == 1 && again[0].name == entry.name);
                assert!(again[0].password == entry.password && again[0].rights == entry.rights);
            }
        }
        Err(fault) => {
            assert!(fault.line >= 1 && !fault.text.contains('\n'));
        }
    }
});

//! Manifests: any text is decoded or refused with problems that can be drawn, and what was decoded can be stored.

#![no_main]

use std::path::Path;

use cocktail_core::manifest;
use cocktail_core::settings::Settings;
use cocktail_core::spec::ServiceSpec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parse = || manifest::parse(text, Path::new("cocktail.toml"), Path::new("/srv/shop"));
    let parsed = match parse() {
        Ok(parsed) => parsed,
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal without a reason");
            let drawn = manifest::render(&problems, text);
            assert!(drawn.contains("error"), "a refusal that shows no error");
            return;
        }
    };
    manifest::render(&parsed.warnings, text);
    assert_eq!(parse().as_ref(), Ok(&parsed), "the same text has two meanings");
    let Some(service) = parsed.service else { return };
    let stored = serde_json::to_vec(&service).expect("a decoded service can be written");
    let read: ServiceSpec = serde_json::from_slice(&stored).expect("what was written can be read");
    assert_eq!(read, service, "a service changes by being stored");
    if let Some(settings) = parsed.settings {
        let stored = serde_json::to_vec(&settings).expect("decoded settings can be written");
        let read: Settings = serde_json::from_slice(&stored).expect("what was written can be read");
        assert_eq!(read, settings, "settings change by being stored");
    }
});

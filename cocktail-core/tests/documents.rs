//! The reference and the examples say what the code does: every key of the schema is in the reference and no other, and
//! the shop is a manifest without a complaint.

use std::collections::BTreeSet;
use std::path::Path;

use cocktail_core::manifest;
use serde_json::Value;

const MANIFEST: &str = include_str!("../../docs/reference/manifest.md");
const SETTINGS: &str = include_str!("../../docs/reference/settings.md");
const SHOP: &str = include_str!("../../examples/shop/cocktail.toml");

/// Keys of a table and of the tables in it, as the reference writes them; a table of its own stays one key.
fn keys_of_schema(table: &Value, above: &str, keys: &mut BTreeSet<String>) {
    let Some(properties) = table["properties"].as_object() else { return };
    for (name, value) in properties {
        let key = format!("{above}{name}");
        if value["properties"].is_object() {
            keys_of_schema(value, &format!("{key}."), keys);
        } else if value["additionalProperties"]["properties"].is_object() {
            keys_of_schema(&value["additionalProperties"], &format!("{key}.NAME."), keys);
        } else {
            // Of several forms one may be a table.
            for form in value["anyOf"].as_array().into_iter().flatten().filter(|it| it["properties"].is_object()) {
                keys_of_schema(form, &format!("{key}."), keys);
            }
            keys.insert(key);
        }
    }
}

/// Code in the first column of the table that follows `<!-- keys of: … -->`.
fn keys_of_page(page: &str, of: &str) -> BTreeSet<String> {
    let marker = format!("<!-- keys of: {of} -->\n");
    let (_, table) = page.split_once(&marker).unwrap_or_else(|| panic!("the page has no table for {of}"));
    let rows = table.lines().take_while(|line| line.starts_with('|')).skip(2);
    let first = rows.filter_map(|row| row.split('|').nth(1));
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn the_reference_names_every_key_of_the_schema_and_no_other() {
    let schema = manifest::schema();
    for (page, of) in [
        (MANIFEST, "root"),
        (MANIFEST, "quota"),
        (MANIFEST, "unit"),
        (MANIFEST, "probe"),
        (SETTINGS, "manager"),
        (SETTINGS, "provider"),
        (SETTINGS, "registry"),
    ] {
        let table = if of == "root" { &schema } else { &schema["$defs"][of] };
        let mut expected = BTreeSet::new();
        keys_of_schema(table, "", &mut expected);
        assert!(!expected.is_empty(), "the schema has no {of}");
        assert_eq!(keys_of_page(page, of), expected, "{of}: left is the reference, right the schema");
    }
}

#[test]
fn the_shop_is_a_manifest_without_a_complaint() {
    let parsed = manifest::parse(SHOP, Path::new("cocktail.toml"), Path::new("/shop"));
    let parsed = parsed.unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(parsed.warnings, []);
    let service = parsed.service.expect("the shop is a Service");
    let units: Vec<(&str, u32)> = service
        .maps
        .values()
        .flat_map(|map| map.units.iter().map(|(name, unit)| (name.as_str(), unit.replicas.initial)))
        .collect();
    assert_eq!(units, [("ledger", 1), ("web", 3), ("worker", 2)]);
}

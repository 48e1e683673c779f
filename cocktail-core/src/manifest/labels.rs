//! Decodes labels: words of the user's own on a Service, a map and a Unit. They decide nothing, so all that is asked of
//! them is that they stay short enough to be shown and exported.

use super::table::{Item, shown};
use crate::spec::Labels;

/// Most labels of one object.
pub(super) const MAX_LABELS: usize = 64;

/// Longest name of a label, in characters.
pub(super) const MAX_NAME: usize = 63;

/// Longest value of a label, in characters.
pub(super) const MAX_VALUE: usize = 256;

const LABELS: &str = "write labels = { team = \"x\" }";

/// Decodes `labels`.
pub(super) fn decode(item: Option<Item<'_>>) -> Labels {
    let Some(mut table) = item.and_then(|item| item.table(LABELS)) else {
        return Labels::new();
    };
    let mut labels = Labels::new();
    for (at, item) in table.drain().into_iter().enumerate() {
        if at == MAX_LABELS {
            item.key_problem(format!("at most {MAX_LABELS} entries can stand here"), None);
            break;
        }
        if !is_name(item.name) {
            let help = format!("use 1 to {MAX_NAME} letters, digits, dots, underscores, slashes and hyphens");
            item.key_problem(format!("`{}` is no name of a label", shown(item.name)), Some(help));
            continue;
        }
        let help = "write the value in quotes, and so a name with dots: labels.\"a.b\" = \"x\"";
        let Some(value) = item.text(help) else { continue };
        if value.chars().count() > MAX_VALUE {
            item.problem(format!("a value of a label has at most {MAX_VALUE} characters"), None);
            continue;
        }
        labels.insert(item.name.to_owned(), value.to_owned());
    }
    labels
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

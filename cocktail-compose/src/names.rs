//! Names that are valid here, from names of a Compose file.

use std::collections::BTreeSet;

use cocktail_core::name::Name;

/// Longest name.
const LONGEST: usize = 63;

/// The valid name that is closest to a text: lower case, hyphens for what cannot stand in a name.
pub(crate) fn nearest(text: &str, otherwise: &str) -> String {
    let lower = text.chars().flat_map(char::to_lowercase);
    let mut name: String =
        lower.map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).take(LONGEST).collect();
    name.truncate(name.trim_end_matches('-').len());
    let name = name.trim_start_matches('-');
    if Name::new(name).is_ok() { name.to_owned() } else { otherwise.to_owned() }
}

/// Names that are taken already.
#[derive(Debug, Default)]
pub(crate) struct Taken(BTreeSet<String>);

impl Taken {
    /// The name itself, or with a number if it is taken.
    pub(crate) fn unique(&mut self, name: &str) -> String {
        let mut chosen = name.to_owned();
        let mut number = 2_u32;
        while !self.0.insert(chosen.clone()) {
            let end = format!("-{number}");
            let kept = name[..name.len().min(LONGEST - end.len())].trim_end_matches('-');
            chosen = format!("{kept}{end}");
            number += 1;
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_gives_a_valid_name() {
        let long = "a_".repeat(60);
        for (text, expected) in
            [("web", "web"), ("My_App.v2", "my-app-v2"), ("_x_", "x"), ("日本", "unit"), ("", "unit"), ("Ünit", "nit")]
        {
            assert_eq!(nearest(text, "unit"), expected, "{text}");
        }
        assert!(Name::new(nearest(&long, "unit")).is_ok());
    }

    #[test]
    fn taken_names_get_a_number_and_stay_valid() {
        let mut taken = Taken::default();
        let long = "a".repeat(63);
        for expected in ["web", "web-2", "web-3"] {
            assert_eq!(taken.unique("web"), expected);
        }
        taken.unique(&long);
        assert!(Name::new(taken.unique(&long)).is_ok());
    }
}

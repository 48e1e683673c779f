//! What the Manager says about itself, asked over its socket: for looks that come so often that a process for each
//! would disturb what is looked at.

use serde_json::Value;

use crate::Home;
use crate::http::Connection;

impl Home {
    /// What the Manager answers to `GET path`; `None` while none answers with 200.
    pub fn ask(&self, path: &str) -> Option<Value> {
        let mut connection = Connection::local(&self.data_dir().join("cocktail.sock")).ok()?;
        let answer = connection.get(path, false).ok()?;
        (answer.status == 200).then(|| serde_json::from_str(&answer.body).ok())?
    }

    /// One Unit by its last name, as the Manager answers it; `None` while none answers, and without such a Unit.
    pub fn look(&self, unit: &str) -> Option<Value> {
        self.ask("/v1/units")?.as_array()?.iter().find(|view| view["unit"] == unit).cloned()
    }

    /// The containers of a Unit, by its last name; `None` while no Manager answers.
    pub fn look_at_containers(&self, unit: &str) -> Option<Vec<Value>> {
        let all = self.ask("/v1/containers")?;
        Some(all.as_array()?.iter().filter(|one| one["unit"] == unit).cloned().collect())
    }
}

//! Why-records: every decision and every non-decision as data, with the numbers that were used.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize};

use crate::text::Text;
use crate::time::WallTime;
use crate::view::{ConsideredView, WhyView};

/// Decisions about containers: every container has some of them.
static WORDS: LazyLock<[Text; 8]> = LazyLock::new(|| {
    ["create", "start", "back off", "stop", "drain", "remove", "replace", "lease ports"].map(Text::from)
});

/// One decision, or the decision to do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// When.
    pub at: WallTime,
    /// What: `create`, `start`, `restart`, `stop`, `remove`, `wait`, …
    #[serde(deserialize_with = "read_word")]
    pub decision: Text,
    /// Why.
    pub because: Text,
    /// What else was looked at, and why it was not taken.
    #[serde(default, skip_serializing_if = "is_none")]
    pub considered: Box<[ConsideredView]>,
    /// How often the same was decided again in a row.
    #[serde(default)]
    pub again: u32,
}

/// The last decisions about one object, oldest first; its owner bounds it with [`WhyLog::keep`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WhyLog(Vec<Why>);

impl WhyLog {
    /// Adds a decision; the same again only counts up.
    pub fn record(&mut self, at: WallTime, decision: &str, because: &str, considered: &[ConsideredView]) {
        if self.repeats(at, decision, because) {
            return;
        }
        let repeated = self.0.last().filter(|last| last.because.as_str() == because);
        let because = repeated.map_or_else(|| because.into(), |last| last.because.clone());
        self.push(at, decision, because, considered);
    }

    /// As [`WhyLog::record`], with a sentence that is kept elsewhere as well.
    pub fn record_shared(&mut self, at: WallTime, decision: &str, because: &Text, considered: &[ConsideredView]) {
        if !self.repeats(at, decision, because.as_str()) {
            self.push(at, decision, because.clone(), considered);
        }
    }

    /// Counts up if the last decision is the same.
    fn repeats(&mut self, at: WallTime, decision: &str, because: &str) -> bool {
        let same = |last: &&mut Why| last.because.as_str() == because && last.decision.as_str() == decision;
        let Some(last) = self.0.last_mut().filter(same) else { return false };
        last.at = at;
        last.again += 1;
        true
    }

    fn push(&mut self, at: WallTime, decision: &str, because: Text, considered: &[ConsideredView]) {
        // Most logs stay as short as they are, with how it was made and started: more room would be kept for nothing.
        self.0.reserve_exact(if self.0.is_empty() { 2 } else { 1 });
        self.0.push(Why { at, decision: word(decision), because, considered: considered.into(), again: 0 });
    }

    /// Forgets the oldest decisions beyond `most`.
    pub fn keep(&mut self, most: usize) {
        let surplus = self.0.len().saturating_sub(most);
        self.0.drain(..surplus);
    }

    /// The decisions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Why> {
        self.0.iter()
    }

    /// As users see them.
    pub fn views(&self, object: &str) -> Vec<WhyView> {
        self.iter()
            .map(|why| WhyView {
                at: why.at.to_string(),
                decision: why.decision.to_string(),
                object: object.to_owned(),
                because: match why.again {
                    0 => why.because.to_string(),
                    times => format!("{} ({} times)", why.because, times + 1),
                },
                considered: why.considered.to_vec(),
            })
            .collect()
    }
}

/// The text of the word, shared where it is a common one.
fn word(text: &str) -> Text {
    WORDS.iter().find(|word| word.as_str() == text).cloned().unwrap_or_else(|| text.into())
}

fn read_word<'de, D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
    Text::deserialize(from).map(|read| word(read.as_str()))
}

fn is_none(considered: &[ConsideredView]) -> bool {
    considered.is_empty()
}

#[cfg(test)]
mod tests {
    use super::WhyLog;
    use crate::time::WallTime;

    #[test]
    fn the_same_decision_again_is_counted_and_not_repeated() {
        let mut log = WhyLog::default();
        for at in 0..3 {
            log.record(WallTime(at), "start", "restart in place", &[]);
        }
        let views = log.views("web-1");
        assert_eq!(views.len(), 1);
        assert_eq!(views[0].because, "restart in place (3 times)");
        assert_eq!(views[0].object, "web-1");
        assert_eq!(log.iter().next().expect("there is one").at, WallTime(2));
    }

    #[test]
    fn the_oldest_decisions_go_first() {
        let mut log = WhyLog::default();
        for number in 0..5 {
            log.record(WallTime::default(), "start", &number.to_string(), &[]);
        }
        log.keep(9);
        assert_eq!(log.iter().count(), 5);
        log.keep(2);
        let kept: Vec<&str> = log.iter().map(|why| why.because.as_str()).collect();
        assert_eq!(kept, ["3", "4"]);
    }
}

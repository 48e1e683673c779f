//! From single results to what is told.

/// What is known of a container, and what was last told of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    needed: u32,
    failures: u32,
    told: Option<(bool, String)>,
}

impl Verdict {
    pub(crate) fn new(failures: u32) -> Self {
        Self { needed: failures.max(1), failures: 0, told: None }
    }

    /// Takes one result; the detail if it is to be told.
    pub(crate) fn take(&mut self, ok: bool, detail: String) -> Option<String> {
        if ok {
            self.failures = 0;
            if matches!(self.told, Some((true, _))) {
                return None;
            }
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.failures < self.needed || self.told.as_ref().is_some_and(|told| *told == (false, detail.clone())) {
                return None;
            }
        }
        self.told = Some((ok, detail.clone()));
        Some(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verdict: &mut Verdict, results: &[bool]) -> Vec<Option<bool>> {
        results.iter().map(|&ok| verdict.take(ok, "seen".into()).map(|_| ok)).collect()
    }

    #[test]
    fn one_success_turns_good_and_several_failures_in_a_row_turn_bad() {
        let mut verdict = Verdict::new(3);
        assert_eq!(told(&mut verdict, &[false, true, true]), [None, Some(true), None]);
        assert_eq!(told(&mut verdict, &[false, false, true, false, false]), [None; 5]);
        assert_eq!(told(&mut verdict, &[false, false, true]), [Some(false), None, Some(true)]);
    }

    #[test]
    fn the_first_result_is_told_also_when_it_is_bad() {
        assert_eq!(told(&mut Verdict::new(2), &[false, false, false]), [None, Some(false), None]);
    }

    #[test]
    fn a_bad_result_is_told_again_when_something_else_was_seen() {
        let mut verdict = Verdict::new(1);
        assert!(verdict.take(false, "refused".into()).is_some());
        assert!(verdict.take(false, "refused".into()).is_none());
        assert!(verdict.take(false, "refused; listens on 8000 instead".into()).is_some());
    }
}

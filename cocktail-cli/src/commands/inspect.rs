//! `inspect` and `why`: everything about one object, and the decisions about it.

mod page;

use cocktail_core::contract::Manager;
use cocktail_core::view::WhyView;

use crate::args::Format;
use crate::failure::Outcome;
use crate::output::{Ui, plain};

/// Prints everything known about an object: for people a page of it, as JSON all of it.
pub(crate) async fn inspect(manager: &dyn Manager, object: &str, ui: &mut Ui) -> Outcome {
    let value = manager.inspect(object).await?;
    match ui.format {
        Format::Json => ui.json(&value),
        Format::Table => match page::page(&value, ui.now(), ui.colour_for_data()) {
            Some(page) => ui.data(&page),
            None => ui.json(&value),
        },
    }
}

/// Prints decisions, newest last.
pub(crate) async fn why(manager: &dyn Manager, object: &str, ui: &mut Ui) -> Outcome {
    let decisions = manager.why(object).await?;
    match ui.format {
        Format::Json => ui.json(&decisions),
        Format::Table if decisions.is_empty() => {
            ui.note(&format!("nothing was decided about {object} yet"));
            Ok(())
        }
        Format::Table => {
            let text: String = decisions.iter().map(paragraph).collect();
            ui.data(&text)
        }
    }
}

/// One decision, with what else was looked at under it.
pub(crate) fn paragraph(decision: &WhyView) -> String {
    let mut text = format!(
        "{}  {}  {}\n    because {}\n",
        plain(&decision.at),
        plain(&decision.decision),
        plain(&decision.object),
        plain(&decision.because)
    );
    for option in &decision.considered {
        text.push_str(&format!("    not {}: {}\n", plain(&option.option), plain(&option.rejected_because)));
    }
    text
}

#[cfg(test)]
mod tests {
    use cocktail_core::view::ConsideredView;

    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, SINCE};

    fn decisions() -> Vec<WhyView> {
        let decision = |decision: &str, because: &str, considered| WhyView {
            at: SINCE.into(),
            decision: decision.into(),
            object: "shop/prod/web".into(),
            because: because.into(),
            considered,
        };
        let option =
            ConsideredView { option: "server local".into(), rejected_because: "1.50 of 2.00 cores reserved".into() };
        vec![
            decision("start", "desired 3, found 2", Vec::new()),
            decision("wait", "no server has room for 1.00 cores", vec![option]),
        ]
    }

    #[tokio::test]
    async fn why_tells_reasons_and_what_was_not_taken() {
        let manager = FakeManager { why: decisions(), ..FakeManager::default() };
        let (mut ui, data, _) = ui(Format::Table);
        why(&manager, "web", &mut ui).await.unwrap();
        let expected = "\
2026-01-01T11:55:00.000Z  start  shop/prod/web
    because desired 3, found 2
2026-01-01T11:55:00.000Z  wait  shop/prod/web
    because no server has room for 1.00 cores
    not server local: 1.50 of 2.00 cores reserved
";
        assert_eq!(data.text(), expected);
    }

    #[tokio::test]
    async fn why_as_json_is_an_array_with_the_promised_keys() {
        let manager = FakeManager { why: decisions(), ..FakeManager::default() };
        let (mut ui, data, _) = ui(Format::Json);
        why(&manager, "web", &mut ui).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!(value[1]["considered"][0]["rejected_because"], "1.50 of 2.00 cores reserved");
        let keys: Vec<_> = value[0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["at", "because", "considered", "decision", "object"]);
    }

    #[tokio::test]
    async fn inspect_is_json_where_it_has_no_page() {
        for format in [Format::Json, Format::Table] {
            let (mut ui, data, _) = ui(format);
            inspect(&FakeManager::default(), "web", &mut ui).await.unwrap();
            assert_eq!(data.text(), "{\n  \"id\": \"web\",\n  \"ports\": [\n    1,\n    2\n  ]\n}\n");
        }
    }
}

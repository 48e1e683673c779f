//! `events`: the journal.

use cocktail_core::contract::{EventFilter, Manager};
use cocktail_core::view::EventView;
use futures_util::StreamExt;

use crate::args::{EventsArgs, Format};
use crate::failure::Outcome;
use crate::output::{Ui, plain};

/// Prints events; with `-f` until the Manager or the reader goes.
pub(crate) async fn events(manager: &dyn Manager, args: EventsArgs, ui: &mut Ui) -> Outcome {
    let filter = EventFilter { from: None, tail: args.tail, follow: args.follow, object: args.object };
    let mut stream = manager.events(&filter).await?;
    while let Some(event) = stream.next().await {
        let event = event?;
        match ui.format {
            Format::Json => ui.json_line(&event)?,
            Format::Table => ui.data(&format!("{}\n", line(&event)))?,
        }
    }
    Ok(())
}

/// An event as one line for people.
pub(crate) fn line(event: &EventView) -> String {
    let line = format!("{}  {:<20} {:<24} {}", event.at, event.kind, event.object, event.reason);
    plain(line.trim_end()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, event};

    fn args(tail: Option<usize>) -> EventsArgs {
        EventsArgs { follow: false, tail, object: None }
    }

    #[tokio::test]
    async fn json_is_one_object_a_line() {
        let manager = FakeManager { events: vec![event(1, "created"), event(2, "started")], ..FakeManager::default() };
        let (mut ui, data, _) = ui(Format::Json);
        events(&manager, args(Some(1)), &mut ui).await.unwrap();
        let expected = "{\"seq\":2,\"at\":\"2026-01-01T11:55:00.000Z\",\"kind\":\"started\",\"object\":\"web-k3v9qx\",\
            \"reason\":\"desired 1, found 0\",\"detail\":null}\n";
        assert_eq!(data.text(), expected);
    }

    #[tokio::test]
    async fn people_get_one_line_an_event() {
        let manager = FakeManager { events: vec![event(1, "created")], ..FakeManager::default() };
        let (mut ui, data, _) = ui(Format::Table);
        events(&manager, args(None), &mut ui).await.unwrap();
        let expected = "2026-01-01T11:55:00.000Z  created              web-k3v9qx               desired 1, found 0\n";
        assert_eq!(data.text(), expected);
    }
}

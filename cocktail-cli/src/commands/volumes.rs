//! `volumes`: what Units keep, what it holds, and who has it.

use cocktail_core::contract::Manager;
use cocktail_core::view::VolumeView;

use crate::args::Format;
use crate::failure::Outcome;
use crate::output::{Cell, Table, Tone, Ui, memory};

/// Lists volumes, also those that nobody uses any more.
pub(crate) async fn volumes(manager: &dyn Manager, ui: &mut Ui) -> Outcome {
    let views = manager.volumes().await?;
    match ui.format {
        Format::Json => ui.json(&views),
        Format::Table => ui.table(&table(&views), "no volumes"),
    }
}

/// Volumes as a table.
pub(crate) fn table(views: &[VolumeView]) -> Table {
    let mut table = Table::new(&["VOLUME", "UNIT", "KIND", "USED", "SIZE", "CONTAINERS", "PATH"]);
    for view in views {
        let amount = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), memory);
        let is_over = matches!((view.used_bytes, view.size_bytes), (Some(used), Some(size)) if used > size);
        let kind = if view.kind.is_empty() { Cell::text("unused").toned(Tone::Faint) } else { Cell::text(&view.kind) };
        table.row(vec![
            Cell::text(&view.name),
            Cell::text(format!("{}/{}/{}", view.service, view.map, view.unit)),
            kind,
            Cell::number(amount(view.used_bytes)).toned(if is_over { Tone::Bad } else { Tone::Plain }),
            Cell::number(amount(view.size_bytes)),
            Cell::text(view.containers.join(",")),
            Cell::tail(&view.path),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, volume};

    #[tokio::test]
    async fn volumes_tell_what_they_hold_and_who_has_them() {
        let unused = VolumeView {
            kind: String::new(),
            used_bytes: None,
            size_bytes: None,
            containers: Vec::new(),
            ..volume("old", "cache")
        };
        let manager = FakeManager { volumes: vec![volume("web", "data"), unused], ..FakeManager::default() };
        let (mut out, data, _) = ui(Format::Table);
        volumes(&manager, &mut out).await.unwrap();
        let expected = "\
VOLUME  UNIT           KIND         USED    SIZE  CONTAINERS  PATH
data    shop/prod/web  exclusive  3.0MiB  1.0GiB  web-1       /d/volumes/web/data
cache   shop/prod/old  unused          -       -  -           /d/volumes/old/cache
";
        assert_eq!(data.text(), expected);
        let (mut out, data, _) = ui(Format::Json);
        volumes(&manager, &mut out).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!((&value[0]["used_bytes"], &value[1]["used_bytes"]), (&3_145_728.into(), &serde_json::Value::Null));
    }

    #[tokio::test]
    async fn without_volumes_people_are_told() {
        let (mut ui, data, people) = ui(Format::Table);
        volumes(&FakeManager::default(), &mut ui).await.unwrap();
        assert_eq!((data.text().as_str(), people.text().as_str()), ("", "no volumes\n"));
    }
}

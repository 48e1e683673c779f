//! `version`: ours, and that of the Manager that runs, if any.

use cocktail_core::contract::Manager;
use cocktail_core::view::ManagerView;
use serde::Serialize;

use crate::args::Format;
use crate::failure::Outcome;
use crate::output::Ui;

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    manager: Option<ManagerView>,
}

/// Prints versions. A Manager that does not answer is the same as none.
pub(crate) async fn version(manager: Option<&dyn Manager>, ui: &mut Ui) -> Outcome {
    let manager = match manager {
        Some(manager) => manager.about().await.ok(),
        None => None,
    };
    let version = env!("CARGO_PKG_VERSION");
    match ui.format {
        Format::Json => ui.json(&Version { version, manager }),
        Format::Table => {
            let mut text = format!("cocktail {version}\n");
            if let Some(manager) = manager {
                text.push_str(&format!("Manager {}, process {}, {}\n", manager.version, manager.pid, manager.data_dir));
            }
            ui.data(&text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::ui;
    use crate::testing::FakeManager;

    #[tokio::test]
    async fn a_manager_is_told_where_one_answers() {
        let (mut out, data, _) = ui(Format::Table);
        version(Some(&FakeManager::default()), &mut out).await.unwrap();
        version(None, &mut out).await.unwrap();
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(data.text(), format!("cocktail {ours}\nManager 0.1.0, process 2147483647, /d\ncocktail {ours}\n"));
        let (mut out, data, _) = ui(Format::Json);
        version(None, &mut out).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!(value, serde_json::json!({ "version": ours, "manager": null }));
    }
}

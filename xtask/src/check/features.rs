//! Each feature alone: a feature only ever adds, so every one must compile without the others.

use anyhow::{Context as _, Result};

use crate::context::{Context, run};

/// Checks each package that has features without any, and with each one by itself.
pub(super) fn check_each(context: &Context) -> Result<()> {
    let metadata = context.metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let Some(features) = package["features"].as_object().filter(|features| !features.is_empty()) else { continue };
        let check = |feature: Option<&str>| {
            let mut command =
                context.cargo(&["check", "--locked", "--quiet", "--package", name, "--no-default-features"]);
            if let Some(feature) = feature {
                command.args(["--features", feature]);
            }
            run(&mut command)
        };
        check(None)?;
        for feature in features.keys().filter(|feature| *feature != "default") {
            check(Some(feature))?;
        }
    }
    Ok(())
}

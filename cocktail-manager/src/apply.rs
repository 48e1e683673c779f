//! From the text of manifests to a command: everything that can be wrong is found before anything changes.
//!
//! Decoding is pure; then the providers are asked what only they can say (does the program exist), and the forwarder
//! proves that new service ports are free. Last, images that are new get what their names stand for (`images`), and those that
//! are made from files are built (`builds`). All problems come back as diagnostics that point into the files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cocktail_core::command::Command;
use cocktail_core::contract::{Actor, Applied, ApplyOptions, ManifestSource, Provider, Runtime};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{ServerId, UnitId};
use cocktail_core::manifest::{self, Diagnostic, Parsed, Severity};
use cocktail_core::name::Name;
use cocktail_core::plan;
use cocktail_core::settings::Settings;
use cocktail_core::spec::{Image, ServiceSpec, Template, UnitSpec};
use cocktail_core::state::State;
use cocktail_core::unit::{Unit, digest};
use cocktail_core::view::PlanView;

use crate::shared::Shared;
use crate::{builds, images, schedule};

/// Files that one apply takes at most.
const MOST_FILES: usize = 64;

/// Whether something is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is only asked what would be.
    Dry,
    /// Images are built.
    ForReal,
}

/// What the state says about the Units of the manifests.
pub(crate) struct Known {
    settings: Settings,
    /// Service ports by the Unit that has them.
    addresses: BTreeMap<SocketAddr, UnitId>,
    /// Fixed ports by the Unit that has them.
    fixed: BTreeMap<u16, UnitId>,
    /// Identities of the templates that were checked when they were applied.
    digests: BTreeMap<UnitId, String>,
    /// Images of what was applied last.
    pub(crate) images: BTreeMap<UnitId, Image>,
    /// Servers that run images, with their providers.
    pub(crate) image_servers: BTreeMap<ServerId, Name>,
}

impl Known {
    /// Servers that may run an image, which are connected.
    pub(crate) fn servers(&self, shared: &Shared, providers: &[Name]) -> Vec<(ServerId, Arc<dyn Runtime>)> {
        let may = |provider: &Name| providers.is_empty() || providers.contains(provider);
        let servers = self.image_servers.iter().filter(|(_, provider)| may(provider));
        servers.filter_map(|(server, _)| Some((server.clone(), shared.servers.get(server)?))).collect()
    }
}

/// Takes manifests as the desired state of the maps that they name.
pub(crate) async fn apply(
    shared: &Shared,
    sources: &[ManifestSource],
    options: ApplyOptions,
    actor: &Actor,
) -> Result<Applied> {
    let _kept = shared.builds.making().await;
    let (files, warnings) = check(shared, sources, options, How::ForReal).await?;
    let services = services(&files);
    let before = services.clone();
    let preview = shared.look(move |state, _| plan::preview(state, &before)).await?;
    let commanded = shared.command(Command::Apply(services), actor).await?;
    let named = |wanted: &dyn Fn(&str) -> bool| -> Vec<UnitId> {
        let objects = preview.actions.iter().filter(|action| wanted(&action.action));
        let mut units: Vec<UnitId> =
            objects.filter_map(|action| UnitId::try_from(action.object.clone()).ok()).collect();
        units.dedup();
        units
    };
    Ok(Applied {
        units: commanded.units,
        changed: named(&|action| action != "remove" && action != "set-quota"),
        removed: named(&|action| action == "remove"),
        warnings,
    })
}

/// What [`apply`] would do.
pub(crate) async fn plan(shared: &Shared, sources: &[ManifestSource], options: ApplyOptions) -> Result<PlanView> {
    let (files, warnings) = check(shared, sources, options, How::Dry).await?;
    let services = services(&files);
    let mut view = shared.look(move |state, _| plan::preview(state, &services)).await?;
    view.warnings = warnings;
    Ok(view)
}

fn services(files: &[Parsed]) -> Vec<ServiceSpec> {
    files.iter().filter_map(|file| file.service.clone()).collect()
}

/// Decodes and checks everything; the warnings are told apart from the problems.
async fn check(
    shared: &Shared,
    sources: &[ManifestSource],
    options: ApplyOptions,
    how: How,
) -> Result<(Vec<Parsed>, Vec<Diagnostic>)> {
    if sources.is_empty() || sources.len() > MOST_FILES {
        return Err(Error::invalid(format!("an apply takes 1 to {MOST_FILES} manifests, not {}", sources.len())));
    }
    let mut files = Vec::new();
    let mut found = Vec::new();
    for source in sources {
        match manifest::parse(&source.text, &source.file, &source.base) {
            Ok(file) => files.push(file),
            Err(problems) => found.extend(problems),
        }
    }
    refuse(&found)?;
    found = files.iter().flat_map(|file| file.warnings.iter().cloned()).collect();
    found.extend(manifest::check(&files));
    if files.iter().all(|file| file.service.is_none()) {
        return Err(Error::invalid("the manifests name no service: there is nothing to apply"));
    }
    let known = shared.look(|state, _| known(state)).await?;
    let kinds: Vec<&str> = shared.providers.iter().map(|provider| provider.kind()).collect();
    for file in &files {
        found.extend(manifest::check_settings(file, &known.settings, &kinds));
    }
    refuse(&found)?;
    found.extend(builds::name(shared, &mut files, &known).await?);
    refuse(&found)?;
    let new = images::keep(&mut files, &known, options);
    for file in &files {
        found.extend(machine(shared, file, &known).await?);
    }
    found.extend(ports(shared, &files, &known).await?);
    refuse(&found)?;
    found.extend(images::pin(shared, &mut files, &new, &known).await?);
    refuse(&found)?;
    if how == How::ForReal {
        found.extend(builds::build(shared, &mut files, &known).await?);
        refuse(&found)?;
    }
    Ok((files, found))
}

fn known(state: &State) -> Known {
    let image = |(id, unit): (&UnitId, &Unit)| Some((id.clone(), unit.spec.template.image.clone()?));
    Known {
        settings: state.settings.clone(),
        addresses: state.service_addresses(),
        fixed: fixed_ports(state),
        digests: state.units.iter().map(|(id, unit)| (id.clone(), unit.digest.clone())).collect(),
        images: state.units.iter().filter(|(_, unit)| !unit.removing).filter_map(image).collect(),
        image_servers: state
            .servers
            .values()
            .filter(|server| server.images)
            .map(|server| (server.id.clone(), server.provider.clone()))
            .collect(),
    }
}

fn fixed_ports(state: &State) -> BTreeMap<u16, UnitId> {
    let ports = |(id, unit): (&UnitId, &Unit)| -> Vec<(u16, UnitId)> {
        unit.spec.template.ports.iter().filter_map(|port| Some((port.fixed?, id.clone()))).collect()
    };
    state.units.iter().flat_map(ports).collect()
}

/// Stops when there is an error among the problems.
fn refuse(found: &[Diagnostic]) -> Result<()> {
    let errors = found.iter().filter(|problem| problem.severity == Severity::Error).count();
    match errors {
        0 => Ok(()),
        1 => Err(Error::invalid("the manifest has a problem").with_diagnostics(found.to_vec())),
        many => Err(Error::invalid(format!("the manifest has {many} problems")).with_diagnostics(found.to_vec())),
    }
}

/// What the machine says about time zones, and the providers about templates that are new or have changed.
async fn machine(shared: &Shared, file: &Parsed, known: &Known) -> Result<Vec<Diagnostic>> {
    let mut found = Vec::new();
    for (id, key, unit) in units(file) {
        for (entry, message) in schedule::problems(unit) {
            let problem = file.spans.error(&format!("{key}.scale.schedule[{entry}].cron"), message);
            found.push(problem.with_help("write a name like Europe/Zurich, or leave it out for UTC"));
        }
        if known.digests.get(&id) == Some(&digest(&unit.template)) {
            continue;
        }
        for (below, message) in problems(shared, &unit.template).await? {
            found.push(file.spans.error(&format!("{key}.{below}"), message));
        }
    }
    Ok(found)
}

async fn problems(shared: &Shared, template: &Template) -> Result<BTreeSet<(String, String)>> {
    let wanted = |provider: &&Arc<dyn Provider>| match &template.providers[..] {
        // What runs images takes no programs, and the other way round, so it is not asked about them.
        [] => provider.capabilities().images == template.image.is_some(),
        named => named.contains(provider.name()),
    };
    let mut problems = BTreeSet::new();
    let providers: Vec<_> = shared.providers.iter().filter(wanted).collect();
    if providers.is_empty() && template.image.is_some() {
        let message = "no provider of this manager runs images: add [providers.docker] with kind = \"docker\"";
        problems.insert(("image".into(), message.into()));
    }
    for provider in providers {
        problems.extend(provider.validate(template));
    }
    let servers = shared.servers.all();
    let alike: Vec<_> =
        servers.iter().filter(|(_, runtime)| runtime.capabilities().images == template.image.is_some()).collect();
    // Servers of one provider are alike; with several, a server that lacks the program says so when it starts it.
    if let [(_, runtime)] = alike[..] {
        match runtime.check(template).await {
            Ok(found) => problems.extend(found),
            // It says so when it starts it.
            Err(error) if error.kind().is_transient() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(problems)
}

/// Service ports and fixed ports: taken by another Unit, or by another program.
async fn ports(shared: &Shared, files: &[Parsed], known: &Known) -> Result<Vec<Diagnostic>> {
    let mut found = Vec::new();
    let mut new = BTreeMap::new();
    let named: BTreeSet<_> = files.iter().flat_map(units).map(|(id, ..)| (id.service, id.map)).collect();
    // What the files say of their own maps was compared with each other already: an owner in one of them is the same
    // Unit, gives the port up, or is removed.
    let foreign = |owner: &UnitId| !named.contains(&(owner.service.clone(), owner.map.clone()));
    for file in files {
        for (id, key, unit) in units(file) {
            for port in &unit.template.ports {
                if let Some(service) = port.service {
                    let address = SocketAddr::new(port.address, service);
                    let key = format!("{key}.ports.{}.service", port.name);
                    match known.addresses.iter().find(|(taken, _)| overlap(**taken, address)) {
                        Some((taken, owner)) if *owner == id && *taken == address => {}
                        Some((_, owner)) if foreign(owner) => {
                            let message = format!("service port {service} belongs to {owner}");
                            found.push(file.spans.error(&key, message).with_help("choose another port"));
                        }
                        Some(_) => {}
                        None => {
                            new.insert(address, (file, key));
                        }
                    }
                }
                if let Some(fixed) = port.fixed {
                    let key = format!("{key}.ports.{}.fixed", port.name);
                    match known.fixed.get(&fixed) {
                        Some(owner) if foreign(owner) => {
                            let message = format!("port {fixed} is the fixed port of {owner}");
                            found.push(file.spans.error(&key, message).with_help("choose another port"));
                        }
                        Some(_) => {}
                        None => {
                            new.insert(SocketAddr::from((Ipv4Addr::LOCALHOST, fixed)), (file, key));
                        }
                    }
                }
            }
        }
    }
    let Some(forwarder) = &shared.forwarder else { return Ok(found) };
    if found.is_empty() && !new.is_empty() {
        let addresses: Vec<SocketAddr> = new.keys().copied().collect();
        for (address, message) in forwarder.check(&addresses).await? {
            if let Some((file, key)) = new.get(&address) {
                let problem = file.spans.error(key, message);
                found.push(problem.with_help("end that program, or choose another port"));
            }
        }
    }
    Ok(found)
}

/// Whether two addresses cannot be listened on at the same time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// The Units of a file with their keys.
fn units(file: &Parsed) -> Vec<(UnitId, String, &UnitSpec)> {
    let Some(service) = &file.service else { return Vec::new() };
    let mut units = Vec::new();
    for (map, spec) in &service.maps {
        for (name, unit) in &spec.units {
            let id = UnitId::new(service.name.clone(), map.clone(), name.clone());
            units.push((id, format!("maps.{map}.units.{name}"), unit));
        }
    }
    units
}

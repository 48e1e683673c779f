//! Keys of a service that have no counterpart, each with what cocktail does instead.

use crate::field::{Field, Keys};
use crate::yaml::{Outcome, shown};

/// What is so, and what to do instead, for keys that cannot be said in a manifest.
const KEYS: [(&str, &str, &str); 50] = [
    ("annotations", "annotations are not kept", "write `labels`"),
    ("attach", "output is never attached", "see it with `cocktail logs`"),
    ("blkio_config", "input and output of disks are not limited", "limit them for the engine"),
    ("cap_add", "capabilities cannot be added", "the image must do without them"),
    ("cap_drop", "capabilities cannot be taken away one by one", "run as another `user`"),
    ("cgroup", "the cgroup is the engine's choice", "it is left out"),
    ("cgroup_parent", "the cgroup is the engine's choice", "it is left out"),
    ("container_name", "containers have names of their own", "Units of the map reach it by the Unit's name"),
    ("cpu_count", "cores are counted by `cpus`", "write resources.cpu"),
    ("cpu_percent", "cores are counted by `cpus`", "write resources.cpu"),
    ("cpu_period", "cores are counted by `cpus`", "write resources.cpu"),
    ("cpu_quota", "cores are counted by `cpus`", "write resources.cpu"),
    ("cpu_rt_period", "real time is not given", "it is left out"),
    ("cpu_rt_runtime", "real time is not given", "it is left out"),
    ("cpu_shares", "there are no shares", "write resources.cpu"),
    ("cpuset", "cores are not chosen one by one", "write resources.cpu"),
    ("credential_spec", "credentials of Windows are not known", "it is left out"),
    ("develop", "sources are not watched", "build the image and apply again"),
    ("device_cgroup_rules", "devices cannot be given to a container", "run what needs them beside cocktail"),
    ("devices", "devices cannot be given to a container", "run what needs them beside cocktail"),
    ("dns", "names are looked up as the engine does it", "set it for the engine"),
    ("dns_opt", "names are looked up as the engine does it", "set it for the engine"),
    ("dns_search", "names are looked up as the engine does it", "set it for the engine"),
    ("domainname", "the host name is the engine's choice", "reach it by the Unit's name"),
    ("external_links", "there are no links", "reach what is outside by its address"),
    ("extra_hosts", "no lines are added to /etc/hosts", "use names that can be looked up"),
    ("gpus", "GPUs cannot be given to a container", "run what needs them beside cocktail"),
    ("group_add", "groups cannot be added", "the image says which groups the user has"),
    ("hostname", "the host name is the engine's choice", "reach it by the Unit's name"),
    ("ipc", "what is shared with the host or others is not offered", "it is left out"),
    ("isolation", "the isolation is the engine's choice", "it is left out"),
    ("label_file", "files of labels are not read", "write `labels`"),
    ("links", "there are no links", "Units of the map reach each other by the Unit's name"),
    ("logging", "output is kept in files that rotate", "see `log_bytes` and `log_files` of the settings"),
    ("mac_address", "addresses are the engine's choice", "it is left out"),
    ("mem_swappiness", "containers have no swap", "write resources.memory"),
    ("memswap_limit", "containers have no swap", "write resources.memory"),
    ("models", "models are not provided", "run what serves them as a Unit"),
    ("oom_kill_disable", "what uses too much memory is ended", "write resources.memory"),
    ("oom_score_adj", "what uses too much memory is ended", "write resources.memory"),
    ("pid", "what is shared with the host or others is not offered", "it is left out"),
    ("pids_limit", "the number of processes is not limited this way", "write rlimits.nproc"),
    ("platform", "the platform is the engine's", "name an image of it"),
    ("post_start", "nothing runs after a start", "let the program do it"),
    ("pre_stop", "nothing runs before an end", "let the program do it when it gets the stop signal"),
    ("runtime", "the runtime is the engine's choice", "set it for the engine"),
    ("security_opt", "no-new-privileges is always set, and nothing else", "set it for the engine"),
    ("shm_size", "/dev/shm has the engine's size", "set `default-shm-size` for the engine"),
    ("storage_opt", "the storage is the engine's choice", "set it for the engine"),
    ("sysctls", "parameters of the kernel are not set", "set them for the engine's machine"),
];

/// Takes what has words of its own, and notes what is left.
pub(crate) fn finish(mut keys: Keys<'_>) -> Outcome<()> {
    if let Some(field) = keys.take("init")
        && !field.boolean()?
    {
        let instead = "set init = false for the provider, for all of its containers";
        field.note("a first process that passes signals on is always there", instead);
    }
    for key in ["tty", "stdin_open"] {
        if let Some(field) = keys.take(key)
            && field.boolean()?
        {
            field.note("nobody types into a container", "open a shell with `cocktail exec -it`");
        }
    }
    if let Some(field) = keys.take("privileged")
        && field.boolean()?
    {
        field.note("containers have no privileges", "run what needs them beside cocktail");
    }
    if let Some(field) = keys.take("pull_policy")
        && !matches!(field.text()?.as_str(), "missing" | "if_not_present" | "build")
    {
        field.note("an image is pulled when it is missing", "name the version, or the digest, in `image`");
    }
    if let Some(field) = keys.take("depends_on") {
        depends_on(&field)?;
    }
    if let Some(field) = keys.take("network_mode") {
        match field.text()?.as_str() {
            "bridge" | "" => {}
            "host" => field.note("the network of the host is not shared", "name the ports that it listens on"),
            other => {
                let what = format!("`{}` is not possible", shown(other));
                field.note(what, "it is in the network of its map, with all other Units");
            }
        }
    }
    if let Some(field) = keys.take("volumes_from") {
        field.note(
            "volumes of another service are not taken over",
            "name them here; two Units share a folder by `bind`",
        );
    }
    for (key, field) in keys.rest() {
        match KEYS.iter().find(|(known, ..)| *known == key) {
            Some((_, what, instead)) => field.note(*what, *instead),
            None => field.note("is not known here", "it is left out"),
        }
    }
    Ok(())
}

fn depends_on(field: &Field<'_>) -> Outcome<()> {
    let mut names: Vec<String> = Vec::new();
    if field.is_map() {
        for (name, field) in field.keys()?.all() {
            let mut keys = field.keys()?;
            let condition = keys.text("condition")?;
            names.push(match condition.as_deref() {
                Some("service_healthy") => format!("{} (healthy)", shown(name)),
                Some("service_completed_successfully") => format!("{} (done)", shown(name)),
                _ => shown(name),
            });
        }
    } else {
        names.extend(field.texts()?.iter().map(|name| shown(name)));
    }
    if names.is_empty() {
        return Ok(());
    }
    let instead = "all Units start at once: a program that misses another tries again, or ends and is started again";
    field.note(format!("does not wait for {}", names.join(", ")), instead);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_counterpart_stand_in_order_and_once() {
        assert!(KEYS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}

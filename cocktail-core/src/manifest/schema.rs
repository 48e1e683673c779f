//! The JSON Schema of a manifest, for editors. What it cannot say (ports that clash, names that do not exist) only
//! [`super::parse`] finds. Keys that are promised but not there yet are left out, so that an editor marks them, too.

use serde_json::{Map, Value, json};

use super::manager::{MAX_ADVERTISED, MAX_BINDS};
use super::policy::{MAX_RETRIES, RLIMITS};
use super::scale::{MAX_CUSTOM, MAX_SCHEDULE};
use super::service::MAX_REPLICAS;
use super::{build, labels, registry};
use crate::unit::REVISIONS_KEPT;

/// The JSON Schema (draft 2020-12) of the files that [`super::parse`] reads. It is the same at every call.
pub fn schema() -> Value {
    let Value::Object(mut root) = object(
        "A Service, the settings of a Manager, or both.",
        &[
            ("service", described(reference("name"), "The Service's name.")),
            ("labels", reference("labels")),
            ("quota", reference("quota")),
            ("maps", filled("Application maps by name; this file owns those that it names.", reference("map"))),
            ("manager", reference("manager")),
            ("providers", named("Providers by the name that a Unit's `provider` says.", reference("provider"))),
            ("registries", named("Registries of images that want to know who asks.", reference("registry"))),
        ],
        &[],
    ) else {
        return Value::Null;
    };
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "cocktail manifest".into());
    root.insert("dependentRequired".into(), json!({ "maps": ["service"], "quota": ["service"], "service": ["maps"] }));
    root.insert("$defs".into(), definitions());
    Value::Object(root)
}

fn definitions() -> Value {
    let port_number = json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
    json!({
        "name": { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" },
        "variable": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
        "duration": {
            "type": "string",
            "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "minLength": 2,
            "examples": ["250ms", "10s", "5m", "1h30m"]
        },
        "size": { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$", "examples": ["64MiB", "1GiB"] },
        "cpu": { "type": "number", "exclusiveMinimum": 0, "description": "Cores, with at most three decimals." },
        "command": {
            "type": "array", "items": { "type": "string" }, "minItems": 1,
            "description": "The program and its arguments; no shell. ${PORT}, ${PORT_<NAME>}, ${CONTAINER}, ${SERVER}, ${UNIT} are substituted, $$ is a dollar sign."
        },
        "port": port_number,
        "quota": quota(),
        "labels": labels(),
        "map": object(
            "One workload of the Service.",
            &[("labels", reference("labels")), ("units", filled("Units by name.", reference("unit")))],
            &["units"],
        ),
        "unit": unit(),
        "probe": probe(),
        "manager": manager(),
        "provider": provider(),
        "secret": secret(),
        "registry": registry()
    })
}

fn quota() -> Value {
    let containers = json!({ "type": "integer", "minimum": 0 });
    object(
        "Limits over all maps.",
        &[("cpu", reference("cpu")), ("memory", reference("size")), ("containers", containers)],
        &[],
    )
}

fn unit() -> Value {
    let variables = json!({ "type": "array", "items": reference("variable"), "uniqueItems": true });
    let user = json!({ "type": "string", "minLength": 1 });
    let mut unit = object(
        "What is deployed, scaled and updated as one.",
        &[
            ("labels", reference("labels")),
            ("command", reference("command")),
            ("image", text("An image that servers of images run: registry/name:tag, or name@sha256:….")),
            ("build", build()),
            ("entrypoint", described(reference("command"), "What replaces the entrypoint of the image.")),
            ("read_only", flag("Whether the files of the image can only be read, as the provider says by default.")),
            (
                "worker",
                json!({
                    "description": "A program that loads `microservices`: its path, or an array with its arguments.",
                    "anyOf": [{ "type": "string", "minLength": 1 }, reference("command")]
                }),
            ),
            (
                "microservices",
                json!({
                    "description": "What the worker loads, in this order.",
                    "type": "array", "items": reference("name"), "minItems": 1, "uniqueItems": true
                }),
            ),
            (
                "config",
                json!({
                    "description": "What each microservice is told, by its name.",
                    "type": "object", "additionalProperties": { "type": "object" }
                }),
            ),
            (
                "bootstrap",
                json!({ "description": "The worker hosts a Manager whenever there is none.", "enum": ["if-absent"] }),
            ),
            ("replicas", described(count(), "How many containers run. Default 1.")),
            ("scale", scale()),
            (
                "provider",
                json!({
                    "description": "A provider by name, or several in order of preference.",
                    "anyOf": [reference("name"), { "type": "array", "items": reference("name"), "uniqueItems": true }]
                }),
            ),
            ("cwd", text("Working directory, relative to the manifest's folder, which is the default.")),
            ("artifact", artifact()),
            ("user", described(user, "User to run as.")),
            ("env", by_variable("Environment; ${…} is substituted.", json!({ "type": "string" }))),
            ("env_from", described(variables, "Variables that are taken from the Manager's environment at start.")),
            ("secrets", by_variable("Variables that are resolved at start and never stored.", secret())),
            ("ports", named("Ports by name; the first one is PORT.", port())),
            (
                "resources",
                object(
                    "Reserved when placing, enforced where the system can.",
                    &[("cpu", reference("cpu")), ("memory", reference("size"))],
                    &[],
                ),
            ),
            ("ready", described(reference("probe"), "When a container may take traffic. Default: TCP, with a port.")),
            ("live", described(reference("probe"), "When a container must be replaced.")),
            ("stop", stop()),
            ("restart", restart()),
            ("update", update()),
            ("warm", warm()),
            ("volumes", named("Volumes by name.", volume())),
            ("rlimits", rlimits()),
            ("place", place()),
        ],
        &[],
    );
    unit["anyOf"] = json!([
        { "required": ["command"] },
        { "required": ["image"] },
        { "required": ["build"] },
        { "required": ["worker", "microservices"] }
    ]);
    unit["not"] = json!({ "required": ["replicas", "scale"] });
    unit
}

fn build() -> Value {
    let args = json!({
        "type": "object", "additionalProperties": { "type": "string" }, "maxProperties": build::MAX_ARGS,
        "propertyNames": reference("variable"),
        "description": "Build arguments. They stay in the image, and are shown: no secrets."
    });
    object(
        "Makes the image that servers of images run, instead of `image`.",
        &[
            ("context", text("The folder with the files, relative to the manifest's folder.")),
            ("file", text("The Dockerfile, relative to the context. Default: Dockerfile.")),
            ("args", args),
            ("target", text("The stage that is built. Default: the last one.")),
            ("platform", text("What it is built for: linux/amd64. Default: what the engine is.")),
            ("registry", described(reference("name"), "A table of `registries` that it is pushed to.")),
            ("name", text("What it is called there. Default: service/map/unit.")),
        ],
        &["context"],
    )
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": MAX_REPLICAS })
}

fn scale() -> Value {
    let target = |text: &str| json!({ "type": "number", "exclusiveMinimum": 0, "description": text });
    let custom = json!({
        "type": "object",
        "description": "What one container shall have of metrics of its own.",
        "propertyNames": { "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]{0,127}$" },
        "additionalProperties": { "type": "number", "exclusiveMinimum": 0 },
        "maxProperties": MAX_CUSTOM
    });
    let schedule = json!({
        "type": "array", "items": scheduled(), "maxItems": MAX_SCHEDULE,
        "description": "Bounds by the clock; the entry that began last is in force."
    });
    let path = json!({ "type": "string", "pattern": "^/[!-~]*$", "description": "Path of the metrics." });
    let port = described(reference("name"), "Port by name; the first one by default.");
    object(
        "Bounds of the count, and what changes it within them.",
        &[
            ("min", described(count(), "Fewest containers; also the count at the start. Default 1.")),
            ("max", described(count(), "Most containers.")),
            ("cpu", target("Share of resources.cpu that one container shall use; of one core without it.")),
            ("memory", target("Share of resources.memory that one container shall use.")),
            ("in_flight", target("Requests without an answer for one container.")),
            ("rps", target("Requests a second for one container.")),
            ("queue", target("Waiting work for one container, as it says itself.")),
            ("connections", target("Open connections for one container.")),
            ("custom", custom),
            ("up", damping("Damping of more. Everything is 0 by default.")),
            ("down", damping("Damping of fewer. stabilize is 1m by default, the rest 0.")),
            ("schedule", schedule),
            (
                "metrics",
                object(
                    "Where the worker's own metrics are, in the text format of Prometheus.",
                    &[("http", path), ("port", port)],
                    &["http"],
                ),
            ),
        ],
        &["max"],
    )
}

fn damping(description: &str) -> Value {
    object(
        description,
        &[
            ("stabilize", described(reference("duration"), "Time for which the metrics must have asked; at most 1h.")),
            ("step", described(count(), "Most containers of one change; 0 is no limit.")),
            ("cooldown", described(reference("duration"), "Least time since the last change.")),
        ],
        &[],
    )
}

fn scheduled() -> Value {
    object(
        "Bounds from a time on.",
        &[
            ("cron", text("Minute, hour, day of the month, month, day of the week, and a time zone; UTC without.")),
            ("min", described(count(), "Fewest containers from then on. Default scale.min.")),
            ("max", described(count(), "Most containers from then on. Default scale.max.")),
        ],
        &["cron"],
    )
}

fn labels() -> Value {
    json!({
        "type": "object",
        "description": "Words of the user's own; they decide nothing.",
        "propertyNames": { "pattern": format!("^[A-Za-z0-9._/-]{{1,{}}}$", labels::MAX_NAME) },
        "additionalProperties": { "type": "string", "maxLength": labels::MAX_VALUE },
        "maxProperties": labels::MAX_LABELS
    })
}

fn secret() -> Value {
    let mut secret = object(
        "Where the value comes from; exactly one of both.",
        &[("file", text("A file, whose content is the value.")), ("env", reference("variable"))],
        &[],
    );
    secret["minProperties"] = json!(1);
    secret["maxProperties"] = json!(1);
    secret
}

fn artifact() -> Value {
    let url = json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@:][^/?#@]*([/?#].*)?$" });
    let hash = json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" });
    let mut artifact = object(
        "The files of the command for a server that is not the Manager's own; exactly one of file and url.",
        &[
            ("file", text("A tar archive, plain or compressed by gzip or zstd, relative to the manifest's folder.")),
            ("url", described(url, "The same from elsewhere, fetched by the server. Without user and password.")),
            ("sha256", described(hash, "SHA-256 of the archive.")),
        ],
        &["sha256"],
    );
    artifact["oneOf"] = json!([{ "required": ["file"] }, { "required": ["url"] }]);
    artifact
}

fn port() -> Value {
    object(
        "One port.",
        &[
            ("service", described(reference("port"), "Stable port that forwards to the ready containers.")),
            ("fixed", described(reference("port"), "A port that the container must have, instead of a leased one.")),
            (
                "container",
                described(reference("port"), "What the program of an image listens on, if not on the leased number."),
            ),
            ("inherit", flag("Hand the listening socket to the worker (LISTEN_FDS).")),
            ("address", text("Address that the service port listens on. Default 127.0.0.1.")),
        ],
        &[],
    )
}

fn probe() -> Value {
    object(
        "A check of a container: one of http, tcp, exec.",
        &[
            (
                "http",
                json!({ "type": "string", "pattern": "^/[!-~]*$", "description": "Path that answers 200 to 399." }),
            ),
            ("tcp", json!({ "const": true, "description": "A connection succeeds." })),
            ("exec", reference("command")),
            ("port", described(reference("name"), "Port by name; the first one by default.")),
            ("every", described(reference("duration"), "Pause. Default 200ms for ready, 5s for live.")),
            ("timeout", described(reference("duration"), "Longest time of one check. Default 1s.")),
            ("failures", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 3 })),
        ],
        &[],
    )
}

fn stop() -> Value {
    let signal = json!({
        "default": "TERM",
        "anyOf": [
            { "type": "string", "pattern": "^(SIG)?(TERM|INT|QUIT|HUP|USR1|USR2|KILL)$" },
            { "type": "integer", "minimum": 1, "maximum": 64 }
        ]
    });
    let grace = described(reference("duration"), "Time until it is killed. Default 10s.");
    object("How a container is ended.", &[("signal", signal), ("grace", grace)], &[])
}

fn restart() -> Value {
    let when = json!({ "enum": ["always", "failure", "never"], "default": "always" });
    let retries = json!({ "type": "integer", "minimum": 0, "maximum": MAX_RETRIES });
    object(
        "What happens after an exit that nobody asked for.",
        &[
            ("base", described(reference("duration"), "First pause. Default 100ms.")),
            ("max", described(reference("duration"), "Longest pause. Default 5m.")),
            ("reset", described(reference("duration"), "Time of staying up that starts it anew. Default 10m.")),
            ("when", described(when, "After which exits it starts again; all but always make the Unit a job.")),
            ("retries", described(retries, "Further attempts of a job that failed. Default 3 with when = failure.")),
            ("deadline", described(reference("duration"), "Longest time for a job, all attempts together.")),
        ],
        &[],
    )
}

fn update() -> Value {
    let canary = json!({ "type": "integer", "minimum": 1, "maximum": 1000 });
    object(
        "How a new revision takes over.",
        &[
            ("surge", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 1 })),
            ("monitor", described(reference("duration"), "Time that a replacement must stay ready. Default 2s.")),
            ("progress", described(reference("duration"), "Time to become ready. Default 60s.")),
            ("on_failure", json!({ "enum": ["rollback", "pause"], "default": "rollback" })),
            ("no_room", json!({ "enum": ["wait", "replace"], "default": "wait" })),
            ("canary", described(canary, "Containers that go first; the others wait until they are promoted.")),
            ("promote", described(reference("duration"), "Time after which a canary that is well is promoted.")),
        ],
        &[],
    )
}

fn warm() -> Value {
    let count = json!({ "type": "integer", "minimum": 0, "maximum": MAX_REPLICAS });
    let table = object(
        "How many, and for how long.",
        &[
            ("count", count.clone()),
            ("age", described(reference("duration"), "Longest time that one waits. Default 1h.")),
            (
                "uses",
                json!({ "type": "integer", "minimum": 0, "description": "Assignments after which a worker ends. Default: no limit. Not with `image`." }),
            ),
        ],
        &["count"],
    );
    json!({ "default": 0, "description": "Containers that wait: workers with nothing loaded, paused containers of images.", "anyOf": [count, table] })
}

fn volume() -> Value {
    object(
        "One volume.",
        &[
            ("mount", text("Where it appears, relative to the working directory.")),
            ("kind", json!({ "enum": ["exclusive", "shared", "ephemeral", "bind"], "default": "exclusive" })),
            ("size", reference("size")),
            ("source", text("The folder of the host, for `bind`.")),
        ],
        &["mount"],
    )
}

fn rlimits() -> Value {
    let limit = |is_size: bool| {
        let number = json!({ "type": "integer", "minimum": 0 });
        let unlimited = json!({ "const": "unlimited" });
        if is_size {
            json!({ "anyOf": [number, unlimited, reference("size")] })
        } else {
            json!({ "anyOf": [number, unlimited] })
        }
    };
    let limits: Vec<_> = RLIMITS.iter().map(|(name, is_size)| (*name, limit(*is_size))).collect();
    object("Resource limits of the process.", &limits, &[])
}

fn place() -> Value {
    let domain = |text: &str| json!({ "enum": ["server", "zone"], "description": text });
    let list = |text: &str| json!({ "type": "array", "items": { "type": "string", "minLength": 1 }, "maxItems": 64, "description": text });
    let names =
        |text: &str| json!({ "type": "array", "items": reference("name"), "maxItems": 64, "description": text });
    let constraints = object(
        "What a server must be.",
        &[("zone", list("Zones that are allowed.")), ("offering", list("Offerings that are allowed."))],
        &[],
    );
    let affinity = object(
        "Which Units of the same map share a server.",
        &[
            ("near", names("Units that must have a container on the same server.")),
            ("apart", names("Units that must have none there; its own name makes it one container per server.")),
        ],
        &[],
    );
    object(
        "Where containers go.",
        &[
            ("spread", domain("Fewest containers of the Unit first. Default: server.")),
            ("pack", domain("Least room that is enough first.")),
            ("constraints", constraints),
            ("affinity", affinity),
            (
                "priority",
                json!({ "type": "integer", "minimum": -1000, "maximum": 1000, "default": 0,
                    "description": "Who is placed first where there is not room for all: the higher number." }),
            ),
            (
                "partition",
                json!({ "enum": ["replace", "wait", "stop"], "default": "replace",
                    "description": "What becomes of containers whose server falls silent: another takes the place of each; \
                        each runs on there and is waited for; each ends there and is started again when the server is back." }),
            ),
        ],
        &[],
    )
}

fn manager() -> Value {
    let duration = |text: &str| described(reference("duration"), text);
    let count = |least: u32, most: u32| json!({ "type": "integer", "minimum": least, "maximum": most });
    let watch = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
    let binds = json!({ "type": "array", "items": { "type": "string", "pattern": "^/" }, "maxItems": MAX_BINDS });
    let advertise =
        json!({ "type": "array", "items": { "type": "string", "minLength": 3 }, "maxItems": MAX_ADVERTISED });
    let range = json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$", "default": "20000-29999" });
    object(
        "Time constants and limits of the Manager.",
        &[
            ("port_range", described(range, "Ports that are leased to containers.")),
            ("port_hold_down", duration("How long a port rests after its holder's exit.")),
            ("port_poison", duration("How long a port that turned out taken is left alone.")),
            ("drain", duration("Longest wait for connections to end.")),
            ("start_deadline", duration("Deadline of preparing and starting a container.")),
            ("relist", duration("Pause between two complete listings.")),
            ("usage", duration("Pause between two readings of cpu and memory.")),
            ("budget_deletions", described(count(0, 1_000_000), "Deletions of its own accord in a window.")),
            ("budget_window", duration("Window of the deletion budget.")),
            ("journal_bytes", described(reference("size"), "Size from which old turns are dropped.")),
            ("snapshot_every", described(count(1, 1_000_000_000), "Turns between two snapshots at least.")),
            ("why_per_object", described(count(1, 10_000), "Decisions that are kept per object.")),
            ("log_bytes", described(reference("size"), "Size at which a log file is rotated.")),
            ("log_files", described(count(1, 1_000), "Log files that are kept per container.")),
            (
                "image_revisions",
                described(count(1, REVISIONS_KEPT), "Newest revisions of each Unit whose images stay. Default 10."),
            ),
            ("image_prune", duration("Pause between two looks for images that nobody needs. Default 15m.")),
            ("watch", described(watch, "Manifests that are applied when they change.")),
            ("binds", described(binds, "Folders below which the source of a bind volume may lie.")),
            ("heartbeat", duration("Pause between two beats of an agent.")),
            ("silent_after", duration("Silence after which nobody is sent to a server any more.")),
            ("lease", duration("How long a server runs its containers without an answer.")),
            ("lease_grace", duration("What containers get to end in when that is over.")),
            ("server_lost_after", duration("Silence after which a server is lost.")),
            ("listen", text("Address and port where agents connect: 0.0.0.0:7443.")),
            ("advertise", described(advertise, "Where agents find that from outside: host:port.")),
            ("metrics", text("Address and port where Prometheus may scrape: 127.0.0.1:9464.")),
        ],
        &[],
    )
}

fn provider() -> Value {
    let mut provider = object("A provider; other keys are its own.", &[("kind", reference("name"))], &["kind"]);
    provider["additionalProperties"] = json!(true);
    provider
}

fn registry() -> Value {
    let helper = json!({ "type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$" });
    let services =
        json!({ "type": "array", "items": reference("name"), "minItems": 1, "maxItems": registry::MAX_SERVICES });
    let mut registry = object(
        "A registry of images, and what proves to it who asks: `username` and `password`, `token`, or `helper`.",
        &[
            ("host", text("Its host, as references of images begin: registry.example.com:5000, or docker.io.")),
            ("username", text("Who asks, with `password`.")),
            ("password", reference("secret")),
            ("token", reference("secret")),
            ("helper", described(helper, "Asks the program docker-credential-NAME at each pull.")),
            ("services", described(services, "Services that may use it. Default: all.")),
        ],
        &["host"],
    );
    registry["dependentRequired"] = json!({ "username": ["password"], "password": ["username"] });
    registry
}

/// A table with exactly these keys.
fn object(description: &str, properties: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        properties.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    json!({
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": false
    })
}

/// A table whose keys are names.
fn named(description: &str, of: Value) -> Value {
    let names = reference("name");
    json!({ "type": "object", "description": description, "propertyNames": names, "additionalProperties": of })
}

/// A table whose keys are names, with at least one of them.
fn filled(description: &str, of: Value) -> Value {
    let mut table = named(description, of);
    table["minProperties"] = json!(1);
    table
}

/// A table whose keys are variables.
fn by_variable(description: &str, of: Value) -> Value {
    let names = reference("variable");
    json!({ "type": "object", "description": description, "propertyNames": names, "additionalProperties": of })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "description": description })
}

fn flag(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

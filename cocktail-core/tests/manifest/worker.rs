//! Units of a worker: what it loads, and what it is told.

use cocktail_core::spec::Check;

use super::{name, refused, web};

fn unit(body: &str) -> String {
    format!("service = \"shop\"\n[maps.prod.units.web]\n{body}")
}

#[test]
fn a_worker_is_told_what_to_load_in_order_and_says_itself_when_it_is_ready() {
    let spec = web(&unit(
        "worker = \"bin/w\"\nmicroservices = [\"orders\", \"mail\"]\nports.http = {}\nscale = { max = 3, queue = 5 }\n\
         config.orders = { greeting = \"hi\", tries = 3, rate = 0.5, deep = { list = [true, 1979-05-27] } }\n",
    ));
    assert_eq!(spec.template.command, ["bin/w"]);
    assert_eq!(spec.template.ready.map(|probe| probe.check), Some(Check::Worker));
    let loaded: Vec<_> = spec.template.microservices.iter().map(|it| (&it.name, it.config.as_str())).collect();
    let config = r#"{"deep":{"list":[true,"1979-05-27"]},"greeting":"hi","rate":0.5,"tries":3}"#;
    assert_eq!(loaded, [(&name("orders"), config), (&name("mail"), "{}")]);

    let spec = web(&unit("worker = [\"w\", \"--port=${PORT}\"]\nmicroservices = [\"orders\"]\nports.http = {}\n"));
    assert_eq!(spec.template.command, ["w", "--port=${PORT}"]);
}

#[test]
fn what_a_worker_cannot_be_is_refused() {
    let cases: [(&str, &[&str]); 8] = [
        ("worker = \"w\"\n", &["3:1: a worker loads `microservices` (write microservices = [\"orders\"])"]),
        (
            "microservices = [\"orders\"]\n",
            &[
                "3:1: microservices are loaded by a `worker` (write worker = \"target/release/shop-worker\", or an array with its arguments)",
            ],
        ),
        (
            "command = [\"x\"]\nworker = \"w\"\nmicroservices = [\"orders\"]\n",
            &[
                "3:1: a unit runs a `command` or a `worker` (keep one of them: a worker is a program that loads `microservices`)",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = []\n",
            &["4:17: a worker loads at least one (write microservices = [\"orders\"])"],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\", \"orders\"]\nports.http = {}\nready = { tcp = true }\n",
            &[
                "4:28: `orders` stands here twice",
                "6:1: a worker says itself when it is ready (remove it; `live` can be checked from outside)",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nconfig.order = { a = 1 }\nconfig.orders = 3\n",
            &[
                "5:8: the unit loads no `order` (did you mean `orders`?)",
                "6:17: expected a table (write config.orders = { … })",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nconfig.orders = { a = nan }\n",
            &["5:17: nan is no number that JSON has"],
        ),
        (
            "command = [\"x\"]\nconfig.orders = {}\n",
            &[
                "4:1: `config` is that of `microservices` (remove it, or write worker = \"target/release/shop-worker\", or an array with its arguments)",
            ],
        ),
    ];
    for (body, expected) in cases {
        refused(&unit(body), expected);
    }
    let job = "worker = \"w\"\nmicroservices = [\"orders\"]\nrestart = { when = \"failure\" }\n";
    refused(
        &unit(job),
        &[
            "2:18: a worker waits to be told what to do, so it cannot run to completion (leave `when` out, or run a program with `command`)",
        ],
    );
}

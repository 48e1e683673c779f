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
    assert_eq!(spec.template.env.len(), 0);

    let hosting = "worker = \"w\"\nmicroservices = [\"orders\"]\nbootstrap = \"if-absent\"\nenv = { A = \"b\" }\n";
    let env: Vec<_> = web(&unit(hosting)).template.env.into_iter().collect();
    let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(env, [of("A", "b"), of("COCKTAIL_BOOTSTRAP", "if-absent")]);
}

#[test]
fn what_a_worker_cannot_be_is_refused() {
    let cases: [(&str, &[&str]); 10] = [
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
            "worker = \"w\"\nmicroservices = [\"orders\"]\nbootstrap = \"always\"\n",
            &["5:13: there is no bootstrap \"always\" (write bootstrap = \"if-absent\", or leave it out)"],
        ),
        (
            "command = [\"x\"]\nbootstrap = \"if-absent\"\n",
            &[
                "4:1: only a `worker` hosts a Manager (remove it, or write worker = \"target/release/shop-worker\", or an array with its arguments)",
            ],
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

#[test]
fn workers_may_wait_where_all_that_they_need_can_be_told() {
    let worker = "worker = \"w\"\nmicroservices = [\"orders\"]\n";
    let warm = |more: &str| web(&unit(&format!("{worker}{more}\n"))).warm;
    assert_eq!((warm("").count, warm("warm = 3").count), (0, 3));
    let long = warm("warm = { count = 2, age = \"90s\", uses = 7 }");
    assert_eq!((long.count, long.age, long.uses), (2, std::time::Duration::from_secs(90), 7));

    let cases: [(&str, &[&str]); 7] = [
        (
            "command = [\"x\"]\nwarm = 1\n",
            &[
                "4:1: a plain command cannot wait with nothing loaded (leave it out, or write the program as a `worker` that loads `microservices`)",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nports.http = { inherit = true }\nwarm = 1\n",
            &[
                "6:1: port `http` is inherited at the start, when nobody knows it yet (leave `inherit` out: it listens where it is told)",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nvolumes.data = { mount = \"d\" }\nwarm = 1\n",
            &[
                "6:1: volume `data` is exclusive: whoever waits would keep it from who serves (make it `shared`, or leave `warm` out)",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nports.http = {}\nlive = { http = \"/\" }\nwarm = 1\n",
            &[
                "7:1: a worker that waits has nothing to be probed (leave `ready` and `live` out: a worker says itself how it is)",
            ],
        ),
        (
            "worker = [\"w\", \"${PORT}\"]\nmicroservices = [\"orders\"]\nports.http = {}\nwarm = 1\n",
            &[
                "6:1: \"${PORT}\" depends on who takes the worker, which is not known at its start (have the worker take it from what it is told)",
            ],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nwarm = { age = \"1h\" }\n",
            &["5:1: missing key `count` (write warm = 2, or warm = { count = 2, age = \"1h\", uses = 100 })"],
        ),
        (
            "worker = \"w\"\nmicroservices = [\"orders\"]\nwarm = \"2\"\n",
            &["5:8: expected a whole number, found a string (write it without quotes: 2)"],
        ),
    ];
    for (body, problems) in cases {
        refused(&unit(body), problems);
    }
}

#[test]
fn containers_of_images_may_wait_where_another_one_may_run_beside_them() {
    let warm = |more: &str| web(&unit(&format!("image = \"web\"\nports.http = {{ container = 80 }}\n{more}\n"))).warm;
    assert_eq!(warm("warm = 3\nready = { http = \"/\" }\nlive = { http = \"/\" }").count, 3);
    let shared = "volumes.data = { mount = \"/data\", kind = \"shared\" }\nenv = { P = \"${PORT}\" }";
    assert_eq!(warm(&format!("warm = {{ count = 1, age = \"90s\" }}\n{shared}")).age.as_secs(), 90);

    let cases: [(&str, &[&str]); 5] = [
        (
            "image = \"web\"\nvolumes.data = { mount = \"/data\" }\nwarm = 1\n",
            &[
                "5:1: volume `data` is exclusive: whoever waits would keep it from who serves (make it `shared`, or leave `warm` out)",
            ],
        ),
        (
            "image = \"web\"\nports.http = { fixed = 80 }\nwarm = 1\n",
            &[
                "5:1: port `http` is fixed: whoever waits would keep it from who serves (leave `fixed` out, or leave `warm` out)",
            ],
        ),
        (
            "image = \"web\"\nrestart = { when = \"never\" }\nwarm = 1\n",
            &["5:1: a job begins its work at its start, so it cannot wait (leave `warm` out)"],
        ),
        (
            "image = \"web\"\nwarm = { count = 1, uses = 3 }\n",
            &["4:21: a container of an image that waited is used once (leave `uses` out)"],
        ),
        ("image = \"web\"\nwarm = -1\n", &["4:8: must be a whole number from 0 to 10000"]),
    ];
    for (body, problems) in cases {
        refused(&unit(body), problems);
    }
}

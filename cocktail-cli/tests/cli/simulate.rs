//! `simulate` needs no Manager and no data dir, and says the same again.

use crate::support::Folder;

#[test]
fn the_example_is_simulated_without_a_manager_the_same_way_twice() {
    let folder = Folder::new();
    let example = format!("{}/../examples/simulate", env!("CARGO_MANIFEST_DIR"));
    for file in ["cocktail.toml", "load.csv", "prices.csv"] {
        folder.write(file, std::fs::read(format!("{example}/{file}")).unwrap());
    }
    let line = "simulate cocktail.toml --load load.csv --prices prices.csv --seed 7 --svg shop.svg";
    let runs = [folder.run(line), folder.run(line)];
    assert_eq!(runs[0].code, Some(0), "{:?}", runs[0]);
    assert_eq!(runs[0].data, runs[1].data);
    assert!(runs[0].data.contains("server hours"), "{}", runs[0].data);
    assert!(folder.path().join("shop.svg").is_file());
    assert!(!folder.path().join(".cocktail").exists(), "nothing runs");
    folder.write("bad.csv", "at,unit,load\n0,web,much\n");
    let run = folder.run("simulate cocktail.toml --load bad.csv");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.people.contains("bad.csv:2: load: \"much\" is no such number: write cores, as in 2.5"), "{run:?}");
}

//! The cocktail program.

fn main() {}

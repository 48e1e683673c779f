//! The library on this machine, step by step.

fn main() {}

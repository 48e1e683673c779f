//! A web service that runs and scales its own workers.

fn main() {}

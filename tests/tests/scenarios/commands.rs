//! Commands: what they change, what they leave alone, what they answer, and their exit codes.

mod changes;
mod exec;
mod output;
mod together;

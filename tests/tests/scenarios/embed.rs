//! Scenarios: embed.

//! Tests of the planner: properties over random histories, and the decisions one by one.

mod histories;
mod replacing;
mod waits;

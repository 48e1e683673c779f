//! Tests of the planner: properties over random histories, and the decisions one by one.

mod crashes;
mod fleet;
mod histories;
mod loads;
mod loss;
mod paused;
mod placing;
mod rearranging;
mod replacing;
mod rollouts;
mod waits;
mod warm;

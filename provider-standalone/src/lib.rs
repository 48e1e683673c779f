//! This machine as a Server: worker processes through the keeper.

//! Scenarios: shop.

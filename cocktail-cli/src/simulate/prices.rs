//! The price list: what each provider sells, for how much, and how long it takes to come up.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use cocktail_core::contract::{Offering, OfferingKind};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis, InvalidQuantity};
use cocktail_core::spec::Resources;

use super::Source;
use super::sheet::{Row, Sheet, span};
use crate::failure::Outcome;

/// The provider of rows that name none.
const PROVIDER: &str = "cloud";

/// One thing that can be bought.
#[derive(Debug, Clone)]
pub(super) struct Price {
    /// As the planner sees it.
    pub(super) offering: Offering,
    /// From its order until it takes containers, at least.
    pub(super) boot: Duration,
}

/// What can be bought, by provider.
pub(super) type Prices = BTreeMap<Name, Vec<Price>>;

/// Reads a price list: `offering,cpu,memory,price_per_hour,boot`, and `provider` and `zone` where there are several.
///
/// # Errors
/// With file, line and column: a value that is none, an offering that is there twice.
pub(super) fn read(source: &Source) -> Outcome<Prices> {
    let required = ["offering", "cpu", "memory", "price_per_hour", "boot"];
    let sheet = Sheet::read(source, &required, &["provider", "zone"])?;
    let mut prices = Prices::new();
    for row in sheet.rows() {
        let name = row.needed("offering", "a name, as in large")?;
        let provider = row.text("provider").unwrap_or(PROVIDER);
        let provider = Name::new(provider).map_err(|error| row.wrong("provider", &error.to_string()))?;
        let zone = row.text("zone").map(str::to_owned);
        let cpu: CpuMillis = quantity(&row, "cpu", "cores, as in 4 or 500m")?;
        let memory: Bytes = quantity(&row, "memory", "an amount, as in 16GiB")?;
        let price = row.number("price_per_hour", "a number, as in 0.17")?;
        let time = "seconds, as in 90, or a duration, as in 1m30s";
        let text = row.needed("boot", time)?;
        let boot = span(text).ok_or_else(|| row.wrong("boot", &format!("{text:?} is no time: write {time}")))?;
        let offering = Offering {
            name: name.to_owned(),
            zone,
            kind: OfferingKind::OnDemand,
            price: Some(price),
            allocatable: Resources { cpu, memory },
            available: true,
        };
        let of_provider = prices.entry(provider).or_default();
        if of_provider.iter().any(|other| other.offering.name == name && other.offering.zone == offering.zone) {
            return Err(row.wrong("offering", &format!("{name:?} is there twice")));
        }
        of_provider.push(Price { offering, boot: Duration::from_millis(boot) });
    }
    Ok(prices)
}

fn quantity<T: FromStr<Err = InvalidQuantity>>(row: &Row<'_>, column: &str, instead: &str) -> Outcome<T> {
    let text = row.needed(column, instead)?;
    text.parse().map_err(|error| row.wrong(column, &format!("{text:?}: {error}; write {instead}")))
}

//! JSON keys with two names: each view has the key that it always had and the one that flags and other views use. The
//! functions are used with `flatten` and `serialize_with`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::choice::Role;
use super::snapshot::State;
use super::work::Usage;

/// Usage of a run that its status shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Tokens that its agents used, in and out together.
    pub tokens: u64,
    /// Cost in US dollars, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

/// Usage with the sum of its tokens.
#[derive(Serialize)]
struct Summed {
    #[serde(flatten)]
    usage: Usage,
    tokens: u64,
}

impl From<Usage> for Summed {
    fn from(usage: Usage) -> Self {
        Self { usage, tokens: usage.tokens() }
    }
}

/// Writes `state`, which results call `status`.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
pub fn state<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("state", state)?;
    map.serialize_entry("status", state)?;
    map.end()
}

/// Writes `tokens` and `cost_usd`, which results have in `usage`.
pub fn spent<S: Serializer>(spent: &Spent, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    write_spent(&mut map, *spent)?;
    map.serialize_entry("usage", spent)?;
    map.end()
}

/// Writes `usage`, of which statuses have `tokens` and `cost_usd`.
pub fn usage<S: Serializer>(usage: &Usage, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("usage", &Summed::from(*usage))?;
    write_spent(&mut map, Spent { tokens: usage.tokens(), cost_usd: usage.cost_usd })?;
    map.end()
}

fn write_spent<M: serde::ser::SerializeMap>(map: &mut M, spent: Spent) -> Result<(), M::Error> {
    map.serialize_entry("tokens", &spent.tokens)?;
    spent.cost_usd.map_or(Ok(()), |cost| map.serialize_entry("cost_usd", &cost))
}

/// Writes `usage_by_role`, and the sums by the flag that chooses the agent of a role.
pub fn usage_by_role<S: Serializer>(roles: &BTreeMap<Role, Usage>, serializer: S) -> Result<S::Ok, S::Error> {
    let flags = Role::CHOICES.into_iter().filter_map(|(flag, chosen)| {
        let mut all = chosen.iter().filter_map(|role| roles.get(role));
        let mut sum = *all.next()?;
        all.for_each(|usage| sum.add(usage));
        Some((flag, Summed::from(sum)))
    });
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("usage_by_role", roles)?;
    map.serialize_entry("usage_by_flag", &flags.collect::<BTreeMap<&str, Summed>>())?;
    map.end()
}

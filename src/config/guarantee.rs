//! What a route really promises, in plain words, from what is known of its source and sinks.

use std::fmt;

use super::plan::{Plan, RoutePlan};

/// The promise of one route. Displays as lines for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// The route: its name, where from and where to.
    pub route: String,
    /// In what order its events arrive, per source and sink where they differ.
    pub order: String,
    /// What becomes of an event that cannot be delivered.
    pub dead_letters: String,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.route)?;
        writeln!(f, "  delivery      at least once")?;
        writeln!(f, "  order         {}", self.order)?;
        writeln!(f, "  dead letters  {}", self.dead_letters)
    }
}

/// The promises of all routes, in the order of the file.
#[must_use]
pub fn guarantees(plan: &Plan) -> Vec<Guarantee> {
    plan.routes.iter().map(|route| guarantee(plan, route)).collect()
}

fn guarantee(plan: &Plan, route: &RoutePlan) -> Guarantee {
    let sources: Vec<_> = route.from.iter().filter_map(|&index| plan.sources.get(index)).collect();
    let sinks: Vec<_> = route.to.iter().filter_map(|&index| plan.sinks.get(index)).collect();
    let join = |names: Vec<&str>| names.join(", ");
    let from = join(sources.iter().map(|source| &*source.name).collect());
    let to = join(sinks.iter().map(|sink| &*sink.name).collect());
    let mut orders = Vec::new();
    for source in &sources {
        let Some(kind) = source.config.kind() else { continue };
        match (kind.nature().ordered_by, kind.nature().what) {
            (None, what) => orders.push(format!("none: `{}` is {what}", source.name)),
            (Some(by), _) => orders.extend(sinks.iter().map(|sink| {
                let (source, target) = (&source.name, &sink.name);
                match sink.config.nature() {
                    nature if nature.keeps_order => {
                        format!("kept per {by} from `{source}` to `{target}`")
                    }
                    nature => format!("lost to `{target}`: it is {}", nature.what),
                }
            })),
        }
    }
    orders.dedup();
    let retry = route.retry.attempts;
    let tries = if retry == 1 { "1 try".to_owned() } else { format!("{retry} tries") };
    Guarantee {
        route: format!("{}: {from} -> {to}", route.name),
        order: orders.join("; "),
        dead_letters: match route.dead_letter.and_then(|index| plan.sinks.get(index)) {
            Some(sink) => format!("to `{}`, after {tries} or when refused", sink.name),
            None => "none: what cannot be delivered is returned to its source".to_owned(),
        },
    }
}

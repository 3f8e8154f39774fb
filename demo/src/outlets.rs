//! Where an event can be expected: at one sink, or at one of several where the daemon alone decides
//! which of them gets it.

use std::{collections::BTreeMap, sync::Arc};

use eventferry::{config::plan::Plan, route::choice::Choice};

/// Which outlet each sink belongs to.
#[derive(Debug)]
pub(crate) struct Outlets {
    /// For every sink, the first of those that it is as good as.
    first_of: Vec<usize>,
    /// The name of each outlet, by its first sink.
    names: BTreeMap<usize, Arc<str>>,
}

impl Outlets {
    /// Sinks that share the load of a route, or stand by for each other, are one outlet; so are
    /// those of several such routes that have a sink in common.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut first_of: Vec<usize> = (0..plan.sinks.len()).collect();
        for route in &plan.routes {
            if !matches!(route.rule.choice, Choice::Any(_) | Choice::Balance(_)) {
                continue;
            }
            let joined: Vec<usize> = route.sinks.iter().map(|(sink, _)| first_of[*sink]).collect();
            let Some(first) = joined.iter().min() else { continue };
            first_of.iter_mut().filter(|one| joined.contains(one)).for_each(|one| *one = *first);
        }
        let mut names = BTreeMap::<usize, Vec<&str>>::new();
        for (sink, first) in plan.sinks.iter().zip(&first_of) {
            names.entry(*first).or_default().push(&sink.name);
        }
        let names = names.into_iter().map(|(first, names)| (first, names.join("+").into()));
        Self { names: names.collect(), first_of }
    }

    /// The outlet of the sink of this index.
    pub(crate) fn at(&self, sink: usize) -> &Arc<str> {
        &self.names[&self.first_of[sink]]
    }

    /// All of them, in the order of their first sinks.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.values()
    }
}

#[cfg(test)]
mod tests {
    use eventferry::config::{self, environment::Environment};

    use super::*;

    fn outlets(routes: &str) -> Vec<String> {
        let sinks =
            ["a", "b", "c", "d"].map(|name| format!("{name}: {{ memory: {{ queue: {name} }} }}"));
        let file = format!(
            "admin: off\nstate: memory\nunmatched: drop\n\
             sources: {{ in: {{ memory: {{ queue: in }} }} }}\n\
             sinks: {{ {} }}\nroutes:\n{routes}",
            sinks.join(", ")
        );
        let plan = config::read("outlets.yaml", &file, &Environment::default()).unwrap().plan;
        Outlets::of(&plan).names().map(|name| name.to_string()).collect()
    }

    #[test]
    fn sinks_are_apart_unless_the_daemon_chooses_among_them() {
        let apart = "  - { name: r, from: in, to: { all: [a, b, c, d] } }\n";
        assert_eq!(outlets(apart), ["a", "b", "c", "d"]);
        let balance = "  - { name: r, from: in, to: { balance: { round_robin: [b, d] } } }\n";
        assert_eq!(outlets(&format!("{apart}{}", balance.replace("r,", "s,"))), ["a", "b+d", "c"]);
    }

    #[test]
    fn choices_with_a_sink_in_common_are_one_outlet() {
        let routes = "  - { name: r, from: in, to: { any: [a, b] } }\n  \
                      - { name: s, from: in, to: { any: [c, d] } }\n  \
                      - { name: t, from: in, to: { any: [d, b] } }\n";
        assert_eq!(outlets(routes), ["a+b+c+d"]);
    }
}

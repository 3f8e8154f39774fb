//! What somebody who is limited to some routes may touch and see.

use std::{collections::BTreeSet, sync::Arc};

use axum::http::StatusCode;

use super::Caller;
use crate::{
    admin::{
        answer::Refusal,
        endpoint::{Role, Rule, Scope},
        sight::Sight,
        status::Status,
    },
    config::plan::{Plan, RoutePlan},
};

impl Rule {
    /// Whether the caller may ask for it, with what the path names.
    ///
    /// # Errors
    /// Their role does not reach so far, or it is about routes that are not theirs.
    pub fn permits(
        &self,
        caller: &Caller,
        named: Option<&str>,
        plan: &Plan,
    ) -> Result<(), Refusal> {
        if caller.role < self.needs {
            let (needs, has) = (self.needs.as_str(), caller.role.as_str());
            let text = format!("this needs the role `{needs}`, and {} has `{has}`", caller.name);
            return Err(forbidden(text));
        }
        let Some(routes) = &caller.routes else { return Ok(()) };
        let refuse = |what: &str| {
            let name = named.unwrap_or_default();
            Err(forbidden(format!(
                "{} is limited to some routes, and not all that use the {what} `{name}` are among \
                 them",
                caller.name
            )))
        };
        match self.scope {
            Scope::Daemon if self.changes => Err(forbidden(format!(
                "{} is limited to some routes, and this is about all of them",
                caller.name
            ))),
            Scope::Daemon => Ok(()),
            Scope::Route => match named {
                Some(route) if routes.contains(route) => Ok(()),
                _ => Err(forbidden(format!(
                    "{} is limited to some routes, and `{}` is none of them",
                    caller.name,
                    named.unwrap_or_default()
                ))),
            },
            Scope::Source if named.is_some_and(|it| has_source(plan, it, routes)) => Ok(()),
            Scope::Source => refuse("source"),
            Scope::Sink if named.is_some_and(|it| has_sink(plan, it, routes)) => Ok(()),
            Scope::Sink => refuse("sink"),
        }
    }
}

pub(super) fn forbidden(detail: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

/// Whether some route reads the source, and none of somebody else's.
fn has_source(plan: &Plan, source: &str, mine: &BTreeSet<Arc<str>>) -> bool {
    let index = plan.sources.iter().position(|it| *it.name == *source);
    only(plan, mine, |route| index.is_some_and(|index| route.from.contains(&index)))
}

/// Whether some route sends to the sink, and none of somebody else's. The dead letters of the file
/// are of all.
fn has_sink(plan: &Plan, sink: &str, mine: &BTreeSet<Arc<str>>) -> bool {
    let Some(index) = plan.sinks.iter().position(|it| *it.name == *sink) else { return false };
    !plan.dead_letters.contains(&index) && only(plan, mine, |route| reaches(route, index))
}

fn reaches(route: &RoutePlan, sink: usize) -> bool {
    route.sinks.iter().any(|(index, _)| *index == sink) || route.dead_letters.contains(&sink)
}

fn only(plan: &Plan, mine: &BTreeSet<Arc<str>>, uses: impl Fn(&RoutePlan) -> bool) -> bool {
    let mut using = plan.routes.iter().filter(|route| uses(route)).peekable();
    using.peek().is_some() && using.all(|route| mine.contains(&route.name))
}

impl Caller {
    /// Whether they may see this route.
    #[must_use]
    pub fn sees(&self, route: &str) -> bool {
        self.routes.as_ref().is_none_or(|routes| routes.contains(route))
    }

    /// Whether a route that they may see reads this source.
    #[must_use]
    pub fn sees_source(&self, plan: &Plan, source: &str) -> bool {
        let mut seen = plan.routes.iter().filter(|route| self.sees(&route.name));
        let is_it = |index: &usize| plan.sources.get(*index).is_some_and(|it| *it.name == *source);
        seen.any(|route| route.from.iter().any(is_it))
    }

    /// Whether nobody else's route reads what this one reads.
    #[must_use]
    pub fn has_sources_of(&self, plan: &Plan, route: &str) -> bool {
        let Some(mine) = &self.routes else { return true };
        let from = plan.routes.iter().filter(|it| *it.name == *route).flat_map(|it| &it.from);
        let mut sources = from.filter_map(|index| plan.sources.get(*index));
        sources.all(|source| has_source(plan, &source.name, mine))
    }

    /// Whether a route that they may see sends to this sink, or parks there.
    #[must_use]
    pub fn sees_sink(&self, plan: &Plan, sink: &str) -> bool {
        let mut seen = plan.routes.iter().filter(|route| self.sees(&route.name));
        let index = plan.sinks.iter().position(|it| *it.name == *sink);
        index.is_some_and(|index| seen.any(|route| reaches(route, index)))
    }

    /// That they may see what is of all routes.
    ///
    /// # Errors
    /// They are limited to some.
    pub fn sees_all(&self, what: &str) -> Result<(), Refusal> {
        if self.routes.is_none() {
            return Ok(());
        }
        Err(forbidden(format!(
            "{} is limited to some routes, and {what} of all of them",
            self.name
        )))
    }

    /// That they may see what is of this route, or of all where none is named.
    ///
    /// # Errors
    /// They are limited to others.
    pub fn sees_one(&self, route: Option<&str>) -> Result<(), Refusal> {
        match route {
            Some(route) if self.sees(route) => Ok(()),
            Some(route) => Err(forbidden(format!(
                "{} is limited to some routes, and `{route}` is none of them",
                self.name
            ))),
            None => self.sees_all("without `route` this is"),
        }
    }

    /// How much of an event they may see; all of it only where they ask for it.
    ///
    /// # Errors
    /// They ask for more than they may see.
    pub fn sight(&self, whole: bool) -> Result<Sight, Refusal> {
        match (self.role, whole) {
            (Role::Admin, true) => Ok(Sight::Whole),
            (Role::Admin, false) => Ok(Sight::Redacted),
            (_, false) => Ok(Sight::Outside),
            (_, true) => Err(forbidden(format!(
                "bodies need the role `admin`, and {} has it not",
                self.name
            ))),
        }
    }

    /// As much of a status as they may see: their routes, and what these read and send to.
    #[must_use]
    pub fn cut(&self, plan: &Plan, mut status: Status) -> Status {
        let Some(routes) = &self.routes else { return status };
        status.routes.retain(|route| self.sees(&route.name));
        let sources: BTreeSet<&String> = status.routes.iter().flat_map(|it| &it.from).collect();
        let sinks: BTreeSet<&String> = status
            .routes
            .iter()
            .flat_map(|it| it.to.iter().map(|leg| &leg.sink).chain(&it.dead_letters))
            .collect();
        status.sources.retain(|source| sources.contains(&source.name));
        status.sinks.retain(|sink| sinks.contains(&sink.name));
        status.sources.iter_mut().for_each(|it| it.shared = !has_source(plan, &it.name, routes));
        status.sinks.iter_mut().for_each(|it| it.shared = !has_sink(plan, &it.name, routes));
        let problem = |(kind, name, text): (&str, &String, &Option<String>)| {
            text.as_ref().map(|text| format!("{kind} {name}: {text}"))
        };
        let of_sources = status.sources.iter().map(|it| ("source", &it.name, &it.problem));
        let of_sinks = status.sinks.iter().map(|it| ("sink", &it.name, &it.problem));
        // What is of no part, as that it drains, is of everybody.
        status.problems.retain(|problem| !problem.contains(": "));
        status.problems.extend(of_sources.chain(of_sinks).filter_map(problem));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, environment::Environment};

    const FILE: &str = "
sources: { a: { memory: { queue: a } }, both: { memory: { queue: b } } }
sinks: { x: { memory: { queue: x } }, shared: { memory: { queue: s } }, mine: { memory: { queue: m } },
  parked: { memory: { queue: p } } }
routes:
  - { name: one, from: [a, both], to: { all: [x, shared] }, dead_letter: mine }
  - { name: two, from: both, to: { all: [shared] } }
dead_letter: parked
";

    fn rule(scope: Scope) -> Rule {
        let needs = Role::Operator;
        Rule { name: "it", needs, scope, changes: true }
    }

    #[test]
    fn bodies_are_for_admins_and_whole_where_they_ask() {
        let of = |role, whole| Caller { role, ..Caller::local() }.sight(whole).ok();
        for role in [Role::Viewer, Role::Operator] {
            assert_eq!((of(role, false), of(role, true)), (Some(Sight::Outside), None));
        }
        let admin = [false, true].map(|whole| of(Role::Admin, whole));
        assert_eq!(admin, [Some(Sight::Redacted), Some(Sight::Whole)]);
    }

    #[test]
    fn who_is_limited_to_a_route_touches_only_what_no_other_uses() {
        let plan = config::read("f", FILE, &Environment::default()).unwrap().plan;
        let routes = Some(BTreeSet::from(["one".into()]));
        let limited = Caller { routes, ..Caller::local() };
        let may = |scope, name| rule(scope).permits(&limited, Some(name), &plan).is_ok();
        let cases = [
            (Scope::Route, "one", true),
            (Scope::Route, "two", false),
            (Scope::Route, "none", false),
            (Scope::Source, "a", true),
            (Scope::Source, "both", false),
            (Scope::Source, "none", false),
            (Scope::Sink, "x", true),
            (Scope::Sink, "mine", true),
            (Scope::Sink, "shared", false),
            (Scope::Sink, "parked", false),
            (Scope::Sink, "none", false),
            (Scope::Daemon, "", false),
        ];
        for (scope, name, expected) in cases {
            assert_eq!(may(scope, name), expected, "{scope:?} {name}");
            let everybody = rule(scope).permits(&Caller::local(), Some(name), &plan);
            assert!(everybody.is_ok(), "who is not limited may ask: {scope:?} {name}");
        }
        let both = Caller { routes: Some(["one".into(), "two".into()].into()), ..Caller::local() };
        let has = [&limited, &both, &Caller::local()].map(|it| it.has_sources_of(&plan, "one"));
        assert_eq!(has, [false, true, true], "another route reads `both`");
        let reads = Rule { changes: false, ..rule(Scope::Daemon) };
        assert!(reads.permits(&limited, None, &plan).is_ok(), "the handler cuts it down");
    }

    #[test]
    fn a_role_that_does_not_reach_is_told_which_does() {
        let plan = config::read("f", FILE, &Environment::default()).unwrap().plan;
        let viewer = Caller { role: Role::Viewer, ..Caller::local() };
        let refusal = rule(Scope::Daemon).permits(&viewer, None, &plan).unwrap_err();
        assert_eq!(refusal.status, 403);
        assert!(refusal.detail.contains("`operator`"), "{}", refusal.detail);
    }
}

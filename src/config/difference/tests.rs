use super::*;
use crate::{
    config::{self, environment::Environment},
    route::rate::{By, Over, Pace},
};

const FILE: &str = "
state: memory
unmatched: drop
sources:
  near: { memory: { queue: near } }
  other: { memory: { queue: other } }
sinks:
  far: { memory: { queue: far } }
  aside: { memory: { queue: aside } }
  parked: { memory: { queue: parked } }
routes:
  - { name: over, from: near, to: { all: [far] }, rate_limit: { per_second: 10 } }
  - { name: both, from: [near, other], to: { all: [aside] }, dead_letter: parked }
";

fn plan(text: &str) -> Plan {
    config::read("f.yaml", text, &Environment::default()).unwrap_or_else(|it| panic!("{it}")).plan
}

/// What differs once `from` reads `to` in [`FILE`].
fn changed(from: &str, to: &str) -> Difference {
    assert!(FILE.contains(from), "{from}");
    Difference::between(&plan(FILE), &plan(&FILE.replace(from, to))).unwrap()
}

fn lines(difference: &Difference) -> Vec<String> {
    difference.changes.iter().map(ToString::to_string).collect()
}

fn named(names: &BTreeSet<Arc<str>>) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

#[track_caller]
fn check(difference: &Difference, told: &[&str], restarted: &[&str], new_sinks: &[&str]) {
    assert_eq!(lines(difference), told);
    assert_eq!(named(&difference.restarted), restarted, "restarted");
    assert_eq!(named(&difference.new_sinks), new_sinks, "new sinks");
}

#[test]
fn a_file_that_only_reads_differently_changes_nothing() {
    let difference = changed("\nstate: memory", "\n# Why.\nstate: memory");
    assert!(difference.is_empty());
    assert_eq!(difference.to_string(), "nothing differs\n");
}

#[test]
fn a_changed_route_starts_its_sources_anew_and_no_others() {
    let difference =
        changed("{ name: over, from: near,", "{ name: over, from: near, sample: { share: 10% },");
    check(&difference, &["~ route over: sample"], &["near"], &[]);
    assert!(difference.new_sources.is_empty());
}

#[test]
fn a_sink_that_is_treated_differently_is_built_anew() {
    let to = "far: { memory: { queue: far }, limit: { events_per_second: 5 } }";
    let difference = changed("far: { memory: { queue: far } }", to);
    check(&difference, &["~ sink far: limit.events_per_second"], &["near"], &["far"]);
}

#[test]
fn a_new_route_starts_its_sources_anew() {
    let route = "routes:\n  - { name: third, from: other, to: { all: [far] } }";
    check(&changed("routes:", route), &["+ route third"], &["other"], &[]);
}

#[test]
fn a_removed_route_starts_its_sources_anew() {
    let old =
        plan(&FILE.replace("routes:", "routes:\n  - { name: x, from: other, to: { all: [far] } }"));
    let difference = Difference::between(&old, &plan(FILE)).unwrap();
    check(&difference, &["- route x"], &["other"], &[]);
}

#[test]
fn a_source_that_joins_a_route_is_the_only_one_that_starts_anew() {
    let difference = changed("{ name: over, from: near,", "{ name: over, from: [near, other],");
    check(&difference, &["~ route over: from"], &["other"], &[]);
}

#[test]
fn a_changed_sink_is_built_anew_with_whatever_reaches_it() {
    let difference = changed("{ queue: far }", "{ queue: far, partitions: 7 }");
    check(&difference, &["~ sink far: memory.partitions"], &["near"], &["far"]);
    let difference = changed("{ queue: parked }", "{ queue: parks }");
    check(&difference, &["~ sink parked: memory.queue"], &["near", "other"], &["parked"]);
}

#[test]
fn a_changed_source_is_looked_for_and_started_anew() {
    let settings = "other: { memory: { queue: other }, max_in_flight: { events: 7 } }";
    let difference = changed("other: { memory: { queue: other } }", settings);
    check(&difference, &["~ source other: max_in_flight.events"], &["other"], &[]);
    assert_eq!(named(&difference.new_sources), ["other"]);
}

#[test]
fn sources_and_sinks_come_and_go() {
    let old = FILE
        .replace("  other: { memory: { queue: other } }\n", "")
        .replace("[near, other]", "near");
    let difference = Difference::between(&plan(&old), &plan(FILE)).unwrap();
    check(&difference, &["+ source other", "~ route both: from"], &["other"], &[]);
    assert_eq!(named(&difference.new_sources), ["other"]);
    let difference = Difference::between(&plan(FILE), &plan(&old)).unwrap();
    check(&difference, &["- source other", "~ route both: from"], &[], &[]);
    let sink = "sinks:\n  more: { memory: { queue: more } }";
    let difference = changed("sinks:", sink);
    check(&difference, &["+ sink more"], &[], &["more"]);
}

/// Indices into lists that are sorted by name mean others then.
#[test]
fn what_moves_in_its_list_is_not_changed() {
    let added = "sources:\n  a: { memory: { queue: a } }";
    let text = FILE.replace("sources:", added).replace("[near, other]", "[near, other, a]");
    let text = text.replace("sinks:", "sinks:\n  a: { memory: { queue: a2 } }");
    let difference = Difference::between(&plan(FILE), &plan(&text)).unwrap();
    check(&difference, &["+ source a", "+ sink a", "~ route both: from"], &["a"], &["a"]);
}

#[test]
fn the_order_of_routes_counts_for_whoever_reads_both() {
    let (first, second) = FILE.split_once("routes:\n").unwrap();
    let mut routes: Vec<_> = second.lines().collect();
    routes.reverse();
    let turned = format!("{first}routes:\n{}\n", routes.join("\n"));
    let difference = Difference::between(&plan(FILE), &plan(&turned)).unwrap();
    check(&difference, &["~ routes: order"], &["near"], &[]);
}

#[test]
fn what_holds_for_all_starts_all_anew() {
    for (to, told) in [
        (
            "unmatched: dead_letter\ndead_letter: parked",
            vec!["~ route over: dead_letter", "~ dead_letter", "~ unmatched"],
        ),
        ("unmatched: drop\nhops_max: 9", vec!["~ hops_max"]),
    ] {
        check(&changed("unmatched: drop", to), &told, &["near", "other"], &[]);
    }
    let all = ["aside", "far", "parked"];
    let lanes = "unmatched: drop\nlanes: { a: { weight: 3 }, normal: { weight: 1 } }";
    check(&changed("unmatched: drop", lanes), &["~ lanes"], &["near", "other"], &all);
}

#[test]
fn what_only_the_daemon_reads_starts_nothing_anew() {
    let difference =
        changed("unmatched: drop", "unmatched: drop\ndrain: { grace: 9s }\nreload: on_request");
    check(&difference, &["~ drain", "~ reload"], &[], &[]);
    assert_eq!(difference.to_string(), "~ drain\n~ reload\nno source starts anew\n");
}

#[test]
fn what_cannot_change_without_a_restart_is_refused_all_at_once() {
    let text = FILE.replace("state: memory", "state: { embedded: { path: x } }\nadmin: off");
    let refused = Difference::between(&plan(FILE), &plan(&text)).unwrap_err();
    insta::assert_snapshot!(refused, @r"
    where `admin` listens, and its `tls`, cannot change while the daemon runs; restart it, or set them as they were
    `state` cannot change while the daemon runs; restart it, or set `state` as it was
    ");
}

#[test]
fn a_rate_limit_that_stays_goes_on_counting() {
    let old = plan(FILE);
    let mut same = plan(&FILE.replace("{ name: over,", "{ name: over, sample: { share: 10% },"));
    same.go_on(&old);
    assert!(
        same.routes[0]
            .rule
            .rate
            .as_ref()
            .unwrap()
            .is_shared_with(old.routes[0].rule.rate.as_ref().unwrap())
    );
    let mut other = plan(&FILE.replace("per_second: 10", "per_second: 20"));
    other.go_on(&old);
    assert!(
        !other.routes[0]
            .rule
            .rate
            .as_ref()
            .unwrap()
            .is_shared_with(old.routes[0].rule.rate.as_ref().unwrap())
    );
}

#[test]
fn a_rate_limit_that_somebody_asks_for_stays_through_other_files() {
    let file = plan(FILE);
    let other = Pace { per_second: 2.0, burst: None, by: By::Route };
    let asked = file.limit_route(0, Some(other));
    assert_eq!(asked.routes[0].pace, Some(other));
    let difference = Difference::between(&file, &asked).unwrap();
    check(&difference, &["~ route over: rate_limit"], &["near"], &[]);
    // The same again is nothing, and what has gone goes on counting.
    let again = asked.limit_route(0, Some(other));
    assert!(Difference::between(&asked, &again).unwrap().is_empty());
    let rate = |plan: &Plan| plan.routes[0].rule.rate.clone().unwrap();
    assert!(rate(&again).is_shared_with(&rate(&asked)));
    // Another file, which changes the limit among other things.
    let mut next =
        plan(&FILE.replace("per_second: 10 }", "per_second: 20 }, sample: { share: 10% }"));
    next.go_on(&asked);
    let difference = Difference::between(&asked, &next).unwrap();
    check(&difference, &["~ route over: sample"], &["near"], &[]);
    assert_eq!(next.routes[0].limit().unwrap().per_second, 2.0);
    // Also through one that says the same for a while.
    let mut same = plan(&FILE.replace("per_second: 10", "per_second: 2"));
    same.go_on(&next);
    let mut back = plan(FILE);
    back.go_on(&same);
    assert_eq!(back.routes[0].limit().unwrap().per_second, 2.0);
    // What becomes of what is over it is the file's to say, also of the next one.
    let over = |plan: &Plan| plan.routes[0].limit().unwrap().over;
    let mut drops = plan(&FILE.replace("per_second: 10", "per_second: 10, over: drop"));
    drops.go_on(&asked);
    // Not at that pace: it would throw away what was to wait.
    assert_eq!((over(&asked), over(&drops)), (Over::Wait, Over::Drop));
    assert_eq!((drops.routes[0].pace, rate(&drops).config().per_second), (None, 10.0));
    let dropping = drops.limit_route(0, Some(other));
    drops.go_on(&dropping);
    assert_eq!((over(&drops), rate(&drops).config().per_second), (Over::Drop, 2.0));
    let mut without = plan(&FILE.replace(", rate_limit: { per_second: 10 }", ""));
    without.go_on(&drops);
    assert_eq!((over(&without), rate(&without).config().per_second), (Over::Wait, 2.0));
    let difference = Difference::between(&drops, &without).unwrap();
    check(&difference, &["~ route over: rate_limit"], &["near"], &[]);
    // What the file says by then is what is gone back to.
    assert_eq!(next.limit_route(0, None).routes[0].limit().unwrap().per_second, 20.0);
}

#[test]
fn the_first_that_needs_a_state_is_named_and_so_is_the_last() {
    let without = FILE.replace("\nstate: memory", "");
    let dedup = without.replace("{ name: over,", "{ name: over, dedup: { ttl: 1h },");
    let hub = without.replace(
        "near: { memory: { queue: near } }",
        "near: { memory: { queue: near, kind: log } }",
    );
    let refused =
        |old: &str, new: &str| Difference::between(&plan(old), &plan(new)).unwrap_err().to_string();
    insta::assert_snapshot!(
        [refused(&without, &dedup), refused(&without, &hub), refused(&dedup, &without)].join("\n"),
        @r"
    route `over`, with its `dedup`, is the first that needs `state`, and where that is kept cannot change while the daemon runs; restart it. In a file that sets `state` from the start, this needs no restart
    source `near`, with its checkpoints, is the first that needs `state`, and where that is kept cannot change while the daemon runs; restart it. In a file that sets `state` from the start, this needs no restart
    route `over`, with its `dedup`, was the last that needed `state`, and where that is kept cannot change while the daemon runs; restart it, or set `state` as it was
    "
    );
    // With `state` in the file it is nothing to speak of.
    let difference = changed("{ name: over,", "{ name: over, dedup: { ttl: 1h },");
    check(&difference, &["~ route over: dedup"], &["near"], &[]);
}

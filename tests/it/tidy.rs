//! The project holds to what it says of itself: the map in `lib.rs`, its invariants, its pages.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use eventferry::{
    config::{self, environment::Environment},
    source::SourceConfig,
};

/// Lines of a file that has one job, its tests included.
const LINES_MAX: usize = 600;
/// Where provider SDKs may be used: invariant 1 of `lib.rs`.
const MAY_USE_SDKS: [&str; 4] = ["src/cloud", "src/sink", "src/source", "src/state"];
/// Where tasks may be spawned: invariant 2 of `lib.rs`.
const MAY_SPAWN: [&str; 4] = ["src/admin/listener.rs", "src/daemon", "src/main.rs", "src/pipeline"];
/// Directories of ours that git does not keep.
const NOT_KEPT: [&str; 4] = ["target", ".local", ".git", "node_modules"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` whose name ends with `ending`, relative to the root.
fn files(dir: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !NOT_KEPT.contains(&name) {
                    dirs.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of a Rust file that are neither comment nor its own tests, with their numbers.
fn code(path: &str) -> Vec<(usize, String)> {
    let text = text(path);
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim().to_owned()));
    lines
        .take_while(|(_, line)| line != "mod tests {")
        .filter(|(_, line)| !line.starts_with("//"))
        .collect()
}

/// Where `code` outside of `allowed` contains one of `words`.
fn found(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files("src", ".rs") {
        if allowed.iter().any(|prefix| path.starts_with(prefix)) || path.ends_with("tests.rs") {
            continue;
        }
        let hits =
            code(&path).into_iter().filter(|(_, line)| words.iter().any(|w| line.contains(w)));
        found.extend(hits.map(|(at, line)| format!("{path}:{at}: {line}")));
    }
    found
}

fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn the_map_in_lib_rs_is_the_tree() {
    let lib = text("src/lib.rs");
    let mapped: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let tree = files("src", ".rs");
    let modules: BTreeSet<&str> = tree
        .iter()
        .filter_map(|path| path.strip_prefix("src/")?.strip_suffix(".rs"))
        .filter(|path| !path.contains('/') && !["lib", "main"].contains(path))
        .collect();
    assert_eq!(mapped, modules);
    for module in modules {
        assert!(lib.contains(&format!("[`{module}`]")), "lib.rs does not say what {module} is for");
    }
}

#[test]
fn only_connectors_clouds_and_state_use_provider_sdks() {
    let sdks = ["aws_config::", "aws_sdk_", "aws_smithy", "azure_", "eventhubs::", "fe2o3"];
    none(&found(&sdks, &MAY_USE_SDKS), "provider SDKs outside of their place");
}

#[test]
fn only_pipeline_daemon_and_main_spawn_tasks() {
    none(&found(&["spawn("], &MAY_SPAWN), "tasks spawned outside of their place");
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];
    let sources = ["src", "eventhubs", "demo", "model", "tests", "fuzz"]
        .map(|dir| files(dir, ".rs"))
        .concat();
    let unfinished: Vec<_> = sources
        .iter()
        .filter(|path| *path != "tests/it/tidy.rs")
        .filter(|path| marks.iter().any(|mark| text(path).contains(mark)))
        .cloned()
        .collect();
    none(&unfinished, "unfinished");
}

#[test]
fn a_file_has_one_job() {
    let sources = ["src", "eventhubs", "demo", "model", "tests", "fuzz"]
        .map(|dir| files(dir, ".rs"))
        .concat();
    let long: Vec<_> = sources
        .iter()
        .map(|path| (path, text(path).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    none(&long, "files that have outgrown one job");
    none(&files(".", "mod.rs"), "a module is named after itself, not mod.rs");
}

/// The targets of `[text](target)` in a Markdown page, outside of code blocks.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            found.extend(targets.map(str::to_owned));
        }
    }
    found
}

/// The anchor that a heading has on a rendered page.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in files(".", ".md") {
        for link in links(&text(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => root().join(&page),
                path => root().join(&page).parent().unwrap().join(path),
            };
            let leads = match fs::read_to_string(&target) {
                Ok(text) if !heading.is_empty() => text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#')) == heading),
                _ => target.exists(),
            };
            if !leads {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    none(&broken, "links that lead nowhere");
}

#[test]
fn every_page_can_be_reached_from_the_index() {
    let index = text("docs/README.md");
    let pages: Vec<_> = files("docs", ".md")
        .into_iter()
        .filter_map(|page| Some(page.strip_prefix("docs/")?.to_owned()))
        .filter(|page| page != "README.md" && !index.contains(&format!("]({page})")))
        .collect();
    none(&pages, "pages that docs/README.md does not list");
}

#[test]
fn every_kind_of_connector_has_a_page_and_an_example() {
    for kind in SourceConfig::KINDS.iter().filter(|kind| **kind != "memory") {
        for file in [format!("docs/connectors/{kind}.md"), format!("config/{kind}.yaml")] {
            assert!(root().join(&file).exists(), "{file} is missing");
        }
    }
}

#[test]
fn every_example_is_mentioned_where_people_read() {
    let pages: String = files(".", ".md").iter().map(|page| text(page)).collect();
    let unmentioned: Vec<_> =
        files("config", ".yaml").into_iter().filter(|example| !pages.contains(example)).collect();
    none(&unmentioned, "examples that no page mentions");
}

/// The YAML examples of a page that are whole files.
fn whole_files(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.filter(|block| ["sources:", "sinks:", "routes:"].iter().all(|part| block.contains(part)))
}

#[test]
fn every_whole_file_on_a_page_can_be_used() {
    for page in files(".", ".md") {
        for file in whole_files(&text(&page)) {
            let checked = config::read(&page, file, &Environment::default());
            assert!(checked.is_ok(), "{}", checked.unwrap_err());
        }
    }
}

#[test]
fn every_metric_is_described() {
    let (source, page) = (text("src/telemetry.rs"), text("docs/operating.md"));
    let declared = ["= counter(", ": counter(", ": gauge(", "(gauge(", ": histogram("]
        .into_iter()
        .flat_map(|call| source.split(call).skip(1))
        .filter_map(|rest| rest.split('"').nth(1));
    let missing: Vec<_> = declared
        .map(|name| format!("eventferry_{name}"))
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    none(&missing, "metrics that docs/operating.md does not describe");
}

#[test]
fn the_readme_names_only_targets_that_exist() {
    let makefile = text("Makefile");
    let readme = text("README.md");
    for command in ["make demo", "make test"] {
        assert!(readme.contains(command), "README.md does not show `{command}`");
    }
    let pages: String = files(".", ".md").iter().map(|page| text(page)).collect();
    for command in pages.split("`make ").skip(1).filter_map(|rest| rest.split('`').next()) {
        let (target, settings) = command.split_once(' ').unwrap_or((command, ""));
        for setting in settings.split_whitespace() {
            let (name, _) = setting.split_once('=').expect("a setting has a value");
            assert!(makefile.contains(&format!("$({name})")), "nothing reads {name}");
        }
        assert!(makefile.contains(&format!("\n{target}:")), "there is no `make {target}`");
    }
}

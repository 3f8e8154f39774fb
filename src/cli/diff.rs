//! What differs between two JSON values, line by line.

use std::time::Duration;

use serde_json::Value as Json;
use similar::{ChangeTag, TextDiff};

use super::paint::Paint;

/// Lines that stay, shown around those that change.
const AROUND: usize = 2;
/// After this the shortest difference is no longer looked for, only some difference.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lines that differ, and some around them; none where nothing differs. They begin with `-`,
/// `+` or a space; `…` stands for lines left out.
pub(crate) fn lines(before: &Json, after: &Json, paint: Paint) -> Vec<String> {
    let (before, after) = (written(before), written(after));
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(&before, &after);
    let mut lines = Vec::new();
    for (index, group) in diff.grouped_ops(AROUND).iter().enumerate() {
        if index > 0 {
            lines.push(paint.weak("  …").to_string());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = change.value().trim_end_matches('\n');
            lines.push(match change.tag() {
                ChangeTag::Delete => paint.bad(format!("- {line}")).to_string(),
                ChangeTag::Insert => paint.good(format!("+ {line}")).to_string(),
                ChangeTag::Equal => paint.weak(format!("  {line}")).to_string(),
            });
        }
    }
    lines
}

/// Over several lines, where it holds several values.
pub(super) fn written(json: &Json) -> String {
    // JSON always serializes. The last line ends like the others, or it would count as changed.
    serde_json::to_string_pretty(json).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_that_differ_are_shown_and_some_around_them() {
        let before =
            json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "h": 8, "i": 9});
        let mut after = before.clone();
        after["a"] = json!(0);
        after["i"] = json!([]);
        let found = lines(&before, &after, Paint::Plain).join("\n");
        let wanted = "  {\n-   \"a\": 1,\n+   \"a\": 0,\n    \"b\": 2,\n    \"c\": 3,\n  …\n    \
            \"g\": 7,\n    \"h\": 8,\n-   \"i\": 9\n+   \"i\": []\n  }";
        assert_eq!(found, wanted);
        assert_eq!(lines(&before, &before, Paint::Plain), Vec::<String>::new());
    }
}

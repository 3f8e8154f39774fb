//! The page: a few files in the binary, so that it works without a network. There is nothing in it
//! that not everybody may see; what it shows, it asks for.

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};

use super::{Api, access, answer::Refusal};
use crate::daemon::health::Health;

/// Nothing else is to run in it, or be asked by it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Its parts, by their names.
const PARTS: [(&str, &str, &str); 14] = [
    ("page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("draw.js", SCRIPT, include_str!("page/draw.js")),
    ("flow.js", SCRIPT, include_str!("page/flow.js")),
    ("detail.js", SCRIPT, include_str!("page/detail.js")),
    ("hour.js", SCRIPT, include_str!("page/hour.js")),
    ("operations.js", SCRIPT, include_str!("page/operations.js")),
    ("rewind.js", SCRIPT, include_str!("page/rewind.js")),
    ("letters.js", SCRIPT, include_str!("page/letters.js")),
    ("passing.js", SCRIPT, include_str!("page/passing.js")),
    ("tap.js", SCRIPT, include_str!("page/tap.js")),
    ("traces.js", SCRIPT, include_str!("page/traces.js")),
    ("settings.js", SCRIPT, include_str!("page/settings.js")),
];

/// Serves it; nobody is asked who they are.
pub(super) fn router() -> Router<Api> {
    Router::new().route("/", get(page)).route("/page/{part}", get(part))
}

async fn page(State(Api { health, .. }): State<Api>) -> Result<impl IntoResponse, Refusal> {
    if is_locked(&health) {
        return Err(access::locked());
    }
    let page = Html(include_str!("page/page.html"));
    Ok(([(header::CONTENT_SECURITY_POLICY, POLICY)], page))
}

/// Nothing is in it, but it would only ask for what it is refused.
fn is_locked(health: &Health) -> bool {
    health.plan().is_some_and(|it| it.admin.as_ref().is_some_and(|it| it.is_locked()))
}

async fn part(State(Api { health, .. }): State<Api>, Path(name): Path<String>) -> Response {
    if is_locked(&health) {
        return access::locked().into_response();
    }
    match PARTS.iter().find(|(known, ..)| *known == name) {
        // A newer daemon may have another.
        Some((_, kind, text)) => {
            let headers = [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")];
            (headers, *text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_nothing_that_is_not_in_it() {
        let names = || PARTS.iter().map(|(name, ..)| *name);
        let all = PARTS.iter().map(|(.., text)| *text).chain([include_str!("page/page.html")]);
        for text in all {
            let imported = text.split("from \"./").skip(1);
            let linked = text.split("=\"page/").skip(1);
            for name in imported.chain(linked).filter_map(|rest| rest.split('"').next()) {
                assert!(names().any(|known| known == name), "`{name}` is not there");
            }
            assert!(!text.contains("https://"), "it works without a network");
            assert!(text.lines().count() <= 600, "a file has one job");
        }
    }
}

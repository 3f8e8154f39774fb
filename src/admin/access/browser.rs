//! What keeps a page of somebody else, open in the browser of somebody who may ask, from asking in
//! their name: it can send requests, and has neither their token nor our name.

use axum::http::{HeaderMap, header, uri::Authority};

/// Whether a name or address is this machine's own.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback());
    is_address || host.eq_ignore_ascii_case("localhost")
}

/// Whether the request was meant for this machine by a name that nobody else can point here. A page
/// whose own name was made to point here (DNS rebinding) asks by that name.
#[must_use]
pub fn is_for_loopback(headers: &HeaderMap) -> bool {
    host(headers).is_some_and(|host| is_loopback(host.host()))
}

/// Whether it was sent by a page of somebody else. What is no browser says nothing of it.
#[must_use]
pub fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|it| it.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site")
        && !["same-origin", "none"].contains(&site)
    {
        return true;
    }
    let Some(origin) = text(header::ORIGIN.as_str()) else { return false };
    let origin = origin.split_once("://").and_then(|(_, it)| it.parse::<Authority>().ok());
    origin.is_none() || origin != host(headers)
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_names_of_this_machine_are_for_it() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080"] {
            assert!(is_for_loopback(&headers(&[("host", host)])), "{host}");
        }
        let others = ["localhost.example.com", "127.0.0.1.nip.io:8080", "10.0.0.1", "example.com"];
        for host in others.into_iter().chain(["0.0.0.0:8080", "[::2]", "localhost@example.com:1"]) {
            assert!(!is_for_loopback(&headers(&[("host", host)])), "{host}");
        }
        assert!(!is_for_loopback(&HeaderMap::new()));
    }

    #[test]
    fn a_page_of_somebody_else_is_told_from_ours_and_from_no_page() {
        let host = ("host", "127.0.0.1:8080");
        let ours = [
            vec![],
            vec![("origin", "http://127.0.0.1:8080")],
            vec![("origin", "https://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")],
            vec![("sec-fetch-site", "none")],
        ];
        for mut all in ours {
            all.push(host);
            assert!(!is_foreign(&headers(&all)), "{all:?}");
        }
        let foreign = [
            vec![("origin", "http://example.com")],
            vec![("origin", "http://127.0.0.1:9090")],
            vec![("origin", "null")],
            vec![("origin", "")],
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:8080")],
        ];
        for mut all in foreign {
            all.push(host);
            assert!(is_foreign(&headers(&all)), "{all:?}");
        }
    }
}
